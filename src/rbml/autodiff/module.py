"""A module as a pure function of its parameters, with batch norm's statistics as an explicit argument.

PyTorch's batch norm updates its running statistics in place, which no transform of ``torch.func`` allows, and decides
by a hidden flag whose statistics it uses. Here the caller decides at every call:

- ``statistics=None``: those of the batch that is passed (nothing is updated);
- a tree of them: exactly those, so that a prediction does not depend on what else is in the batch.

All other modules are in evaluation mode: dropout is off. One that can be learned is :func:`rbml.strategy.dropout`.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from rbml.errors import UsageError
from rbml.operators.replaced import Differentiable
from rbml.tree import Tree


def isolated(module: nn.Module) -> nn.Module:
    """Return a copy of ``module`` that :func:`call` can run; the original is left untouched."""
    own = copy.deepcopy(module)
    like = next(own.parameters(), torch.empty(0))
    for _, layer in batch_norms(own):
        layer.track_running_stats = False
        if layer.running_mean is None or layer.running_var is None:
            layer.running_mean = torch.zeros(layer.num_features, dtype=like.dtype, device=like.device)
            layer.running_var = torch.ones(layer.num_features, dtype=like.dtype, device=like.device)
    if any(isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p > 0 for layer in own.modules()):
        warnings.warn(
            "the model's dropout is switched off: an engine that replays a step would draw other numbers. For dropout "
            "in the inner loop add rbml.strategy.dropout(rate) to the strategy",
            stacklevel=3,
        )
    return own


def put(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
    """Put another parameter, perhaps of another shape, in the place of the one with this dotted name."""
    owner, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(owner), leaf, parameter)


def batch_norms(module: nn.Module) -> Iterator[tuple[str, _BatchNorm]]:
    """Yield the batch-norm layers with their names."""
    for name, layer in module.named_modules():
        if isinstance(layer, _BatchNorm):
            yield name, layer


Change = Callable[[Tensor], Tensor]


def call(
    module: nn.Module,
    parameters: Tree,
    x: Tensor,
    statistics: Tree | None = None,
    gated: Sequence[tuple[str, Change]] = (),
    mask: Tensor | None = None,
) -> Tensor:
    """Return the prediction of an :func:`isolated` module for ``x``.

    Args:
        module: the module; parameters that are not given are its own.
        parameters: by the names of ``module.named_parameters()``.
        x: ``(n, ...)``.
        statistics: what batch norm normalises with, named as its buffers; ``None`` takes those of ``x``.
        gated: layers by name, each with what its inputs come through; of one layer in this order.
    """
    module.eval()
    if statistics is None:
        for _, layer in batch_norms(module):
            layer.train()
    with ExitStack() as stack:
        for name, change in gated:
            handle = module.get_submodule(name).register_forward_pre_hook(_changing(change))
            stack.callback(handle.remove)
        stack.enter_context(Differentiable())
        args, kwargs = ((x,), None) if isinstance(x, Tensor) else ((), x)
        prediction: Tensor = functional_call(module, parameters | (statistics or {}), args, kwargs)
    return prediction


def _changing(change: Change) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    return lambda layer, inputs: (change(inputs[0]), *inputs[1:])


def statistics_of(module: nn.Module, parameters: Tree, x: Tensor, mask: Tensor | None = None) -> Tree:
    """Return the mean and the (biased) variance that each batch-norm layer sees when ``x`` passes through.

    Normalising ``x`` with them gives what :func:`call` gives with ``statistics=None``.

    Raises:
        UsageError: if ``x`` passes a layer more than once, which then has no one mean.
    """
    seen: Tree = {}
    handles = []
    for name, layer in batch_norms(module):

        def measure(layer: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
            if f"{name}.running_mean" in seen:
                raise UsageError(f"{name} is used more than once a pass: it has no one mean to normalise queries with")
            (values,) = inputs
            others = [axis for axis in range(values.dim()) if axis != 1]
            seen[f"{name}.running_mean"] = values.mean(others)
            seen[f"{name}.running_var"] = values.var(others, unbiased=False)

        handles.append(layer.register_forward_pre_hook(measure))
    if handles:
        call(module, parameters, x)
    for handle in handles:
        handle.remove()
    return seen


def inputs_of(
    module: nn.Module,
    parameters: Tree,
    x: Tensor,
    layer: str,
    statistics: Tree | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Return what comes into one layer of an :func:`isolated` module when ``x`` passes through: its features.

    Raises:
        UsageError: if the layer is not used once a pass.
    """
    seen: list[Tensor] = []
    handle = module.get_submodule(layer).register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    call(module, parameters, x, statistics)
    handle.remove()
    if len(seen) != 1:
        raise UsageError(f"{layer} is used {len(seen)} times a pass: it has no one set of features")
    return seen[0]


def without_statistics(module: nn.Module) -> list[str]:
    """Return the batch-norm layers that never kept statistics: ``track_running_stats=False``."""
    return [name for name, layer in batch_norms(module) if layer.num_batches_tracked is None]


def running_statistics(module: nn.Module) -> Tree:
    """Return the statistics that the module carries itself, such as those of its pretraining."""
    buffers = dict(module.named_buffers())
    kinds = ("running_mean", "running_var")
    return {f"{name}.{kind}": buffers[f"{name}.{kind}"] for name, _ in batch_norms(module) for kind in kinds}
