"""A module as a pure function of its parameters, with the statistics of batch norm as an explicit argument.

PyTorch's batch norm updates its running statistics in place, which no transform of ``torch.func`` allows, and a hidden
flag decides which statistics it uses. Here the caller decides at every call:

- ``statistics=None``: those of the batch that is passed (nothing is updated);
- a tree of them: exactly those, so that a prediction does not depend on what else is in the batch.

The mode of all other layers is described in :mod:`rbml.autodiff.isolation`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from rbml.autodiff.isolation import buffer_copies, isolated, set_modes, unchanged, warn_of_writes
from rbml.autodiff.threads import own_copy
from rbml.errors import UsageError
from rbml.operators import Differentiable
from rbml.operators.batch_norm import masked_moments
from rbml.tree import Tree

__all__ = [
    "batch_norms",
    "call",
    "inputs_of",
    "isolated",
    "nested",
    "put",
    "running_statistics",
    "statistics_of",
    "without_statistics",
]


def put(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
    """Replace the parameter with this dotted name by another one, perhaps of another shape.

    Tied parameters are replaced under all their names.
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
    """Return the prediction of an :func:`isolated` module for ``x``, and leave the module unchanged.

    Whatever the module writes into its buffers is dropped, with a warning, and so are tensors that it stores in itself.

    Args:
        module: the module; parameters that are not given are its own.
        parameters: named as in ``module.named_parameters()``.
        x: ``(n, ...)``, or a tree of such tensors, which are passed as keyword arguments.
        statistics: the statistics that batch norm uses, named as its buffers; ``None`` means those of ``x``.
        gated: pairs of a layer's name and a function that is applied to its inputs, in this order.
        mask: which examples count for the statistics of ``x``, ``(n,)``; ``None`` means all of them.

    Raises:
        UsageError: for inputs of another kind, and for what the model does that has no derivative (random numbers).
    """
    arguments, named = _arguments(x)
    module = own_copy(module)
    layers = dict(module.named_modules())  # once: for a small network walking through it is a large part of the work
    set_modes(layers.values(), by_the_batch=statistics is None)
    with ExitStack() as stack:
        stack.enter_context(unchanged(layers.values()))
        for name, change in gated:
            hook = module.get_submodule(name).register_forward_pre_hook(_changing(change), with_kwargs=True)
            stack.callback(hook.remove)
        stack.enter_context(Differentiable(mask))
        given = parameters | (statistics or {})
        if copies := buffer_copies(layers, (*arguments, *named.values())[0]):
            copies = {name: leaf for name, leaf in copies.items() if name not in given}
            last = module.register_forward_hook(lambda *_: warn_of_writes(module, copies))
            stack.callback(last.remove)
        prediction: Tensor = functional_call(module, given | copies, arguments, named)
    return prediction


def _arguments(x: Any) -> tuple[tuple[Tensor, ...], Tree]:
    """Return the positional and the keyword arguments for inputs."""
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
    """Return the input of a layer, whether it is passed by position or by name."""
    entering: Tensor = args[0] if args else kwargs[_first_name(kwargs)]
    return entering


def _first_name(kwargs: dict[str, Any]) -> str:
    return "input" if "input" in kwargs else next(name for name, value in kwargs.items() if isinstance(value, Tensor))


def statistics_of(module: nn.Module, parameters: Tree, x: Tensor | Tree, mask: Tensor | None = None) -> Tree:
    """Return the mean and the (biased) variance that each batch-norm layer sees when ``x`` passes through.

    Normalising ``x`` with them gives what :func:`call` gives with ``statistics=None``; arguments as there.

    Raises:
        UsageError: if ``x`` passes a layer more than once, so that there is no single mean.
    """
    seen: Tree = {}
    module = own_copy(module)
    with ExitStack() as stack:
        for name, layer in batch_norms(module):

            def measure(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], name: str = name) -> None:
                if f"{name}.running_mean" in seen:
                    raise UsageError(
                        f"{name} is used more than once per pass: it has no single mean to normalise queries with"
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
    """Return the inputs of one layer of an :func:`isolated` module when ``x`` passes through: its features.

    Arguments as in :func:`call`.

    Raises:
        UsageError: if the layer is not used once per pass.
    """
    seen: list[Tensor] = []

    def look(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(_entering(args, kwargs))

    module = own_copy(module)
    handle = module.get_submodule(layer).register_forward_pre_hook(look, with_kwargs=True)
    try:
        call(module, parameters, x, statistics, mask=mask)
    finally:
        handle.remove()
    if len(seen) != 1:
        raise UsageError(f"{layer} is used {len(seen)} times per pass: it has no single set of features")
    return seen[0]


def without_statistics(module: nn.Module) -> list[str]:
    """Return the batch-norm layers that never kept statistics: ``track_running_stats=False``."""
    return [name for name, layer in batch_norms(module) if layer.num_batches_tracked is None]


def running_statistics(module: nn.Module) -> Tree:
    """Return the running statistics of the module itself, such as those of its pretraining."""
    buffers = dict(module.named_buffers())
    kinds = ("running_mean", "running_var")
    return {f"{name}.{kind}": buffers[f"{name}.{kind}"] for name, _ in batch_norms(module) for kind in kinds}


def nested(learned: Tree, fixed: Tree) -> nn.Module:
    """Return a module whose parameters and buffers have the given dotted names."""
    root = nn.Module()
    for tree, is_learned in ((learned, True), (fixed, False)):
        for name, leaf in tree.items():
            module = root
            *path, last = name.split(".")
            for part in path:
                if part not in dict(module.named_children()):
                    module.add_module(part, nn.Module())
                module = module.get_submodule(part)
            if is_learned:
                module.register_parameter(last, nn.Parameter(leaf))
            else:
                module.register_buffer(last, leaf)
    return root
