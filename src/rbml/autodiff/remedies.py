"""PyTorch's errors about derivatives that do not exist, with what a user of rbml can do about each."""

from __future__ import annotations

import re

from rbml.errors import UsageError

_REMEDIES: tuple[tuple[str, str], ...] = (
    (
        r"must override the setup_context staticmethod",
        "a torch.autograd.Function of the model or the loss is written in the old form: give it a static method "
        "setup_context(ctx, inputs, output), a forward without ctx, and generate_vmap_rule = True (PyTorch's notes on "
        "'Extending torch.func with autograd.Function')",
    ),
    (
        r"must implement the jvp function for custom autograd.Function|Trying to use forward AD with (?P<name>\w+)",
        "{name} has no forward derivative: take the hypergradient backwards, "
        'hypergradient=Adjoint(hvp="reverse"), or Unrolled()',
    ),
    (
        r"[Tt]he derivative for '?(aten::)?(?P<name>\w+?)'? is not implemented"
        r"|derivative for '?(aten::)?(?P<other>\w+?)'? is not implemented",
        "PyTorch has no second derivative of {name}: write the operator out with others, or take a hypergradient "
        "without second derivatives, hypergradient=FirstOrder()",
    ),
    (
        r"saved tensor hooks",
        "the model uses torch.utils.checkpoint (or other hooks on saved tensors), which torch.func cannot run: leave "
        "it out. Adjoint() keeps the activations of one step only, and Adjoint(store='segments') fewer carries",
    ),
    (
        r"Cannot access data pointer of Tensor that doesn't have storage|Can't call numpy\(\) on Tensor",
        "the model or the loss turns a tensor into a NumPy array inside a derivative: use PyTorch's operators there, "
        "or compute the array beforehand and pass it as an input",
    ),
    (
        r"would mutate a captured Tensor|mutate a captured",
        "the model or the loss writes in place into a tensor that it keeps outside of its parameters and buffers: make "
        "it a buffer (register_buffer), or write x = x + y rather than x += y",
    ),
)


def named(error: BaseException) -> UsageError | None:
    """Return an error that names the remedy, for an error of PyTorch that is about a derivative; ``None`` for others.

    >>> str(named(RuntimeError("derivative for aten::_ctc_loss_backward is not implemented"))).split(":")[0]
    'PyTorch has no second derivative of _ctc_loss_backward'
    """
    for pattern, text in _REMEDIES:
        if found := re.search(pattern, str(error)):
            groups = found.groupdict()
            name = next((value for value in groups.values() if value), "a torch.autograd.Function of the model")
            return UsageError(text.format(name=name))
    return None
