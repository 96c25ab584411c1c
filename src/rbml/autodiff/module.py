"""A module as a pure function of its parameters, with batch norm's statistics as an explicit argument.

PyTorch's batch norm updates its running statistics in place, which no transform of ``torch.func`` allows, and decides
by a hidden flag whose statistics it uses. Here the caller decides at every call:

- ``statistics=None``: those of the batch that is passed (nothing is updated);
- a tree of them: exactly those, so that a prediction does not depend on what else is in the batch.

In which mode all other layers run is said in :mod:`rbml.autodiff.isolation`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from rbml.autodiff.isolation import buffer_copies, isolated, set_modes, unchanged, warn_of_writes
from rbml.errors import UsageError
from rbml.operators import Differentiable
from rbml.operators.batch_norm import masked_moments
from rbml.tree import Tree

__all__ = [
    "batch_norms",
    "call",
    "inputs_of",
    "isolated",
    "put",
    "running_statistics",
    "statistics_of",
    "without_statistics",
]


def put(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
    """Put another parameter, perhaps of another shape, in the place of the one with this dotted name.

    Layers that are tied to it have the new one too, under all their names.
    """
    before = module.get_parameter(name)
    tied = [other for other, one in module.named_parameters(remove_duplicate=False) if one is before]
    for other in tied:
        owner, _, leaf = other.rpartition(".")
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
    x: Tensor | Tree,
    statistics: Tree | None = None,
    gated: Sequence[tuple[str, Change]] = (),
    mask: Tensor | None = None,
) -> Tensor:
    """Return the prediction of an :func:`isolated` module for ``x``, and leave the module as it was.

    What the module writes into its buffers is dropped, with a warning, and what it keeps of a pass is forgotten.

    Args:
        module: the module; parameters that are not given are its own.
        parameters: by the names of ``module.named_parameters()``.
        x: ``(n, ...)``, or a tree of such tensors, given as keyword arguments.
        statistics: what batch norm normalises with, named as its buffers; ``None`` takes those of ``x``.
        gated: layers by name, each with what its inputs come through; of one layer in this order.
        mask: which examples count for the statistics of ``x``, ``(n,)``; ``None`` is all of them.

    Raises:
        UsageError: for inputs of another kind, and for what the model does that has no derivative (random numbers).
    """
    arguments, named = _arguments(x)
    set_modes(module, by_the_batch=statistics is None)
    with ExitStack() as stack:
        stack.enter_context(unchanged(module))
        for name, change in gated:
            hook = module.get_submodule(name).register_forward_pre_hook(_changing(change), with_kwargs=True)
            stack.callback(hook.remove)
        stack.enter_context(Differentiable(mask))
        given = parameters | (statistics or {})
        if copies := buffer_copies(module, (*arguments, *named.values())[0]):
            copies = {name: leaf for name, leaf in copies.items() if name not in given}
            last = module.register_forward_hook(lambda *_: warn_of_writes(module, copies))
            stack.callback(last.remove)
        prediction: Tensor = functional_call(module, given | copies, arguments, named)
    return prediction


def _arguments(x: Any) -> tuple[tuple[Tensor, ...], Tree]:
    """Return the positional and the keyword arguments that inputs are given as."""
    if isinstance(x, Tensor):
        return (x,), {}
    if isinstance(x, dict) and x and all(isinstance(leaf, Tensor) for leaf in x.values()):
        return (), x
    raise UsageError(
        f"a model is given a tensor, or a dict of tensors as keyword arguments, not {type(x).__name__}: use "
        "torch.as_tensor for arrays and lists of numbers, and a dict of the model's argument names for several inputs"
    )


def _changing(change: Change) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
    def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        name = _first_name(kwargs)
        return args, kwargs | {name: change(kwargs[name])}

    return hook


def _entering(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Return what a layer is called with, whether by position or by name."""
    entering: Tensor = args[0] if args else kwargs[_first_name(kwargs)]
    return entering


def _first_name(kwargs: dict[str, Any]) -> str:
    return "input" if "input" in kwargs else next(name for name, value in kwargs.items() if isinstance(value, Tensor))


def statistics_of(module: nn.Module, parameters: Tree, x: Tensor | Tree, mask: Tensor | None = None) -> Tree:
    """Return the mean and the (biased) variance that each batch-norm layer sees when ``x`` passes through.

    Normalising ``x`` with them gives what :func:`call` gives with ``statistics=None``; arguments as there.

    Raises:
        UsageError: if ``x`` passes a layer more than once, which then has no one mean.
    """
    seen: Tree = {}
    with ExitStack() as stack:
        for name, layer in batch_norms(module):

            def measure(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], name: str = name) -> None:
                if f"{name}.running_mean" in seen:
                    raise UsageError(
                        f"{name} is used more than once per pass: it has no one mean to normalise queries with"
                    )
                mean, variance = _moments(_entering(args, kwargs), mask)
                seen[f"{name}.running_mean"], seen[f"{name}.running_var"] = mean, variance

            stack.callback(layer.register_forward_pre_hook(measure, with_kwargs=True).remove)
        if next(batch_norms(module), None) is not None:
            call(module, parameters, x, mask=mask)
    return seen


def _moments(values: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    if mask is not None:
        return masked_moments(values, mask)
    others = [axis for axis in range(values.dim()) if axis != 1]
    return values.mean(others), values.var(others, unbiased=False)


def inputs_of(
    module: nn.Module,
    parameters: Tree,
    x: Tensor | Tree,
    layer: str,
    statistics: Tree | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Return what comes into one layer of an :func:`isolated` module when ``x`` passes through: its features.

    Arguments as in :func:`call`.

    Raises:
        UsageError: if the layer is not used once per pass.
    """
    seen: list[Tensor] = []

    def look(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(_entering(args, kwargs))

    handle = module.get_submodule(layer).register_forward_pre_hook(look, with_kwargs=True)
    try:
        call(module, parameters, x, statistics, mask=mask)
    finally:
        handle.remove()
    if len(seen) != 1:
        raise UsageError(f"{layer} is used {len(seen)} times per pass: it has no one set of features")
    return seen[0]


def without_statistics(module: nn.Module) -> list[str]:
    """Return the batch-norm layers that never kept statistics: ``track_running_stats=False``."""
    return [name for name, layer in batch_norms(module) if layer.num_batches_tracked is None]


def running_statistics(module: nn.Module) -> Tree:
    """Return the statistics that the module carries itself, such as those of its pretraining."""
    buffers = dict(module.named_buffers())
    kinds = ("running_mean", "running_var")
    return {f"{name}.{kind}": buffers[f"{name}.{kind}"] for name, _ in batch_norms(module) for kind in kinds}
