"""A context in which every PyTorch operator has the derivatives that a hypergradient needs.

The adjoint sweep takes a forward derivative of a gradient, vectorised over tasks: :math:`J v` of the inner gradient,
which equals :math:`J^T v` as long as the gradient is that of the function that was evaluated. Inside
:class:`Differentiable`

- operators without such derivatives, or with wrong ones, are replaced by equal formulas of operators that have them
  (:data:`REPLACED`);
- what is computed while gradients are switched off (``torch.no_grad()``, ``Tensor.data``) is a constant for forward
  derivatives too, which PyTorch's own forward mode ignores;
- whatever gives another derivative each time is refused: random numbers, hooks that change a gradient.

Nothing else is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._C._functorch import TransformType, get_interpreter_stack
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from rbml.devices import type_of_products
from rbml.errors import UsageError
from rbml.operators import attention, embedding, linear, losses
from rbml.operators.alone import is_alone, is_in_threads
from rbml.operators.batch_norm import batch_norm, masked_batch_norm
from rbml.operators.convolution import conv2d
from rbml.operators.max_pool import max_pool2d
from rbml.operators.randomness import RANDOM
from rbml.operators.recurrent import RECURRENT
from rbml.operators.rounded import PRODUCTS, rounded


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    mask: Tensor | None = None,
) -> Tensor:
    """Return ``F.batch_norm`` of the same arguments, with the statistics of the rows of ``input`` in ``mask``."""
    if training or running_mean is None or running_var is None:
        if mask is not None:
            return masked_batch_norm(input, weight, bias, eps, mask)
        updates = training and running_mean is not None
        too_few = input.dim() < 2 or input.numel() == input.shape[1]  # PyTorch raises the error
        if updates or too_few or is_alone() or input.dtype not in {torch.float32, torch.float64}:
            return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
        return batch_norm(input, weight, bias, eps)
    scale = torch.rsqrt(running_var + eps) * (1 if weight is None else weight)
    shift = (0 if bias is None else bias) - running_mean * scale
    shape = (-1,) + (1,) * (input.dim() - 2)
    return input * scale.view(shape) + shift.view(shape)


def _instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Return ``F.instance_norm`` of the same arguments, without an update of running statistics."""
    if use_input_stats:
        return F.instance_norm(input, None, None, weight, bias, True, momentum, eps)
    return _batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)


def _is_contiguous(tensor: Tensor, memory_format: torch.memory_format = torch.contiguous_format) -> bool:
    """Return whether the tensor is contiguous; ``False`` for other formats, which ``vmap`` cannot look up."""
    return memory_format == torch.contiguous_format and tensor.is_contiguous()


def _contiguous(tensor: Tensor, memory_format: torch.memory_format = torch.contiguous_format) -> Tensor:
    """Return a contiguous tensor; for other formats the tensor as it is: they change the speed and no value."""
    return tensor.contiguous() if memory_format == torch.contiguous_format else tensor


def _register_hook(tensor: Tensor, hook: Callable[[Tensor], Tensor | None]) -> Any:
    """Register a hook that may look at a gradient and may not change it."""

    def look(grad: Tensor) -> None:
        if hook(grad) is not None:
            raise UsageError(
                "a tensor hook in the model or the loss changes a gradient, which is then not the gradient of the "
                "function that was evaluated, and engines disagree about its derivative: put what it does into the "
                "strategy (such as rbml.strategy.clip_norm), or into a torch.autograd.Function"
            )

    return tensor.register_hook(look)  # type: ignore[no-untyped-call]


REPLACED: Mapping[Callable[..., Any], Callable[..., Any]] = {
    F.batch_norm: _batch_norm,
    F.instance_norm: _instance_norm,
    F.max_pool2d: max_pool2d,
    F.conv2d: conv2d,
    F.mse_loss: losses.mse_loss,
    F.l1_loss: losses.l1_loss,
    F.huber_loss: losses.huber_loss,
    F.smooth_l1_loss: losses.smooth_l1_loss,
    F.soft_margin_loss: losses.soft_margin_loss,
    F.poisson_nll_loss: losses.poisson_nll_loss,
    F.gaussian_nll_loss: losses.gaussian_nll_loss,
    F.kl_div: losses.kl_div,
    F.embedding: embedding.embedding,
    F.embedding_bag: embedding.embedding_bag,
    F.bilinear: linear.bilinear,
    torch._weight_norm: linear.weight_norm,
    F.scaled_dot_product_attention: attention.scaled_dot_product_attention,
    F.multi_head_attention_forward: attention.multi_head_attention_forward,
    # Under torch.func, .data is a constant only for the innermost transform.
    Tensor.data.__get__: Tensor.detach,  # type: ignore[attr-defined]
    Tensor.register_hook: _register_hook,
    Tensor.is_contiguous: _is_contiguous,  # Keras asks for channels in the last place in memory
    Tensor.contiguous: _contiguous,
    **RANDOM,
    **RECURRENT,
}
"""The operators that are replaced, with their replacements."""

_ABOUT_A_TENSOR = {"__get__", "__set__", "__delete__", "detach", "requires_grad_", "register_hook"}
"""Calls whose result is not computed from values."""


class Differentiable(TorchFunctionMode):
    """A context in which every operator has every derivative, wherever it is called.

    It costs about two microseconds per PyTorch call made inside, and nothing once a step is traced.

    >>> with Differentiable():
    ...     F.mse_loss(torch.zeros(2), torch.ones(2))
    tensor(1.)
    """

    def __init__(self, mask: Tensor | None = None) -> None:
        """Remember the mask.

        Args:
            mask: which of the n examples count for statistics of the batch, ``(n,)``; ``None`` means all of them.
        """
        super().__init__()
        self._mask = mask
        self._was_enabled: list[bool] = []  # the context may be entered more than once

    def __enter__(self) -> Differentiable:
        """Enter the context; inside a forward derivative gradients are enabled even under ``torch.no_grad()``."""
        enabled = torch.is_grad_enabled()
        self._was_enabled.append(enabled)
        if not enabled and _forward_levels():
            torch.set_grad_enabled(True)
        self._detaches = torch.is_grad_enabled()
        self._forward_levels = _forward_levels() if is_in_threads() else None
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *args: Any) -> None:
        """End."""
        super().__exit__(*args)  # type: ignore[no-untyped-call]
        torch.set_grad_enabled(self._was_enabled.pop())

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call the replacement of ``func`` if it has one, else ``func`` itself."""
        run = REPLACED.get(func, func)
        if func in PRODUCTS and type_of_products() is not None:
            run = rounded(run, func is F.linear)
        if self._forward_levels is not None and _forward_levels() != self._forward_levels:
            raise UsageError(
                "the model takes forward derivatives (torch.func.jvp, jacfwd), which PyTorch cannot do in several "
                "threads at the same time, as tasks run here: set torch.set_num_threads(1), or vectorise=True"
            )
        if self._mask is not None and run is _batch_norm:
            kwargs = {**(kwargs or {}), "mask": self._mask}
        if torch.is_grad_enabled() or not self._detaches or getattr(func, "__name__", "") in _ABOUT_A_TENSOR:
            return run(*args, **(kwargs or {}))
        return _as_constants(run, args, kwargs or {})


def _forward_levels() -> int:
    return sum(level.key() == TransformType.Jvp for level in get_interpreter_stack() or ())


def _as_constants(run: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Call ``run`` on the values of its arguments, without their derivatives.

    The arguments are detached, not the result: an in-place operator then changes the values of a tensor and leaves its
    derivative alone, as ``torch.no_grad()`` does in reverse mode.
    """
    originals: dict[int, Tensor] = {}
    alive: list[Tensor] = []  # kept alive, so that no address is used twice

    def constant(tensor: Tensor) -> Tensor:
        if not (tensor.is_floating_point() or tensor.is_complex()):
            return tensor
        value = tensor.detach()
        originals[id(value)] = tensor
        alive.append(value)
        return value

    given = tree_map_only(Tensor, constant, (args, dict(kwargs)))
    found = run(*given[0], **given[1])
    return tree_map_only(Tensor, lambda tensor: originals.get(id(tensor), tensor), found)
