"""A pretended device: tensors of real numbers that say they are elsewhere, and do not mix with those on the CPU.

It is PyTorch's place for other backends (PrivateUse1), in Python: every operator runs on the CPU, on the numbers
inside. As CUDA does, it refuses operators on tensors of both devices, but for a CPU scalar, CPU indices and copies. It
counts what makes the host wait for the device, and can refuse float64, as MPS does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

aten = torch.ops.aten
NAME = "pretend"

_COPIES = {aten.copy_.default, aten._to_copy.default}
_INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
_WAITS = {
    aten._local_scalar_dense.default,
    aten.equal.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.bincount.default,
    aten.repeat_interleave.Tensor,
}


class MixedError(RuntimeError):
    """An operator was given tensors of both devices."""


class Record:
    """What happened since the start of a measurement.

    Attributes:
        waits: how often the host waited for the device, by operator.
        sent: how many tensors were copied to the device.
        mixed: messages of operators that were given tensors of both devices: also of those whose error was caught.
        ran: how many operators ran on the device.
        float64: whether the device has this type.
    """

    def __init__(self) -> None:
        self.waits: Counter[str] = Counter()
        self.sent, self.ran = 0, 0
        self.mixed: list[str] = []
        self.float64 = True


record = Record()


class Elsewhere(torch.Tensor):
    """A tensor on the pretended device; ``inside`` has its numbers."""

    inside: Tensor

    @staticmethod
    def __new__(cls, inside: Tensor) -> Elsewhere:
        if inside.dtype == torch.float64 and not record.float64:
            raise TypeError(
                "Cannot convert a pretended Tensor to float64 dtype as the framework doesn't support float64"
            )
        made = torch.Tensor._make_wrapper_subclass(
            cls, inside.size(), strides=inside.stride(), storage_offset=inside.storage_offset(), dtype=inside.dtype,
            layout=inside.layout, device=torch.device(NAME, 0),
        )  # fmt: skip
        made.inside = inside
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Elsewhere({self.inside!r})"

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        """Say where the numbers are: a module then changes its parameters as a whole, with them."""
        return ["inside"], None

    @staticmethod
    def __tensor_unflatten__(parts: dict[str, Tensor], _: None, size: Any, stride: Any) -> Elsewhere:
        return Elsewhere(parts["inside"])

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Copy as PyTorch copies a leaf."""
        if id(self) not in memo:
            made = Elsewhere(self.inside.detach().clone()).requires_grad_(self.requires_grad)
            if getattr(self, "_is_param", False):
                made._is_param = True  # type: ignore[attr-defined]
            memo[id(self)] = made
        return memo[id(self)]

    def untyped_storage(self) -> Any:
        """Return the storage of the numbers."""
        return self.inside.untyped_storage()

    def data_ptr(self) -> int:
        """Return the address of the numbers."""
        return self.inside.data_ptr()

    def tolist(self) -> Any:
        """Wait, and return plain numbers: PyTorch has no such method for tensors of Python."""
        record.waits["tolist"] += 1
        return self.inside.tolist()

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        _check(func, args, kwargs)
        record.ran += 1
        plain_args, plain_kwargs = tree_map_only(Elsewhere, lambda one: one.inside, (args, kwargs))
        target = plain_kwargs.get("device")
        there = target is None or torch.device(target).type == NAME
        if target is not None and there:
            plain_kwargs["device"] = torch.device("cpu")
        if func is aten._to_copy.default and not isinstance(args[0], Elsewhere):
            record.sent += 1
        elif func is aten._to_copy.default and not there:
            record.waits["to the CPU"] += 1
        elif func is aten.copy_.default:
            if not isinstance(args[0], Elsewhere):
                record.waits["to the CPU"] += 1
                args[0].copy_(args[1].inside)
                return args[0]
            record.sent += not isinstance(args[1], Elsewhere)
        elif func in _WAITS or _by_mask(func, args):
            record.waits[str(func)] += 1
        out = func(*plain_args, **plain_kwargs)
        if not there:
            return out
        out = return_and_correct_aliasing(func, args, kwargs, tree_map_only(Tensor, Elsewhere, out))
        for leaf in tree_leaves((args, kwargs)):
            same = not isinstance(leaf, Elsewhere) or leaf.shape == leaf.inside.shape
            assert same, f"{func} changes the size of a tensor, which one that is only pretended cannot follow"
        return out


def _check(func: Any, args: Any, kwargs: Any) -> None:
    if func in _COPIES:
        return
    if func in _INDEXED:  # indices may be on the CPU
        args = (args[0], *args[2:])
    leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    strangers = [leaf for leaf in leaves if not isinstance(leaf, Elsewhere) and leaf.dim() > 0]
    if strangers and any(isinstance(leaf, Elsewhere) for leaf in leaves):
        message = f"Expected all tensors to be on the same device, but {func} found {NAME}:0 and cpu"
        record.mixed.append(message)
        raise MixedError(message)


def _by_mask(func: Any, args: Any) -> bool:
    if func not in _INDEXED:
        return False
    return any(index is not None and index.dtype == torch.bool for index in args[1])


def _made(func: Any, *args: Any, **kwargs: Any) -> Any:
    """Run an operator that was given no tensor, only the device."""
    kwargs["device"] = torch.device("cpu")
    record.ran += 1
    made = torch.zeros if func is aten._efficientzerotensor.default else func  # the tensor around it is not one
    return tree_map_only(Tensor, Elsewhere, made(*args, **kwargs))


_libraries: list[Any] = []


def _filled(there: Any, source: Tensor, non_blocking: bool = False) -> Any:
    """Copy to the device where PyTorch leaves Python's dispatch out: in ``torch.tensor(..., device=...)``."""
    record.sent += 1
    there.inside.copy_(source)
    return there


def install() -> torch.device:
    """Make ``torch.device("pretend")`` known to PyTorch, once."""
    if not _libraries:
        # Autograd starts a thread for every device that is there at its first call; one with Python's locks hangs.
        torch.ones((), requires_grad=True).exp().backward()
        _setup_privateuseone_for_python_backend(NAME)
        _libraries.extend([torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")])
        _libraries[0].fallback(_made, "PrivateUse1")
        _libraries[1].impl("copy_", _filled, "PrivateUse1")
        arange = (aten.arange.default, aten.arange.start, aten.arange.start_step)
        for factory in (aten.eye.default, aten.eye.m, *arange):  # PyTorch's own changes the size of an empty tensor
            _libraries[1].impl(factory, partial(_made, factory), "PrivateUse1")
    return torch.device(NAME, 0)


@contextmanager
def measured(*, float64: bool = True) -> Iterator[Record]:
    """Count from here on; what is computed on the device is differentiated in this thread."""
    global record
    before, record = record, Record()
    record.float64 = float64
    try:
        with torch.autograd.set_multithreading_enabled(False):
            yield record
    finally:
        record = before
