"""Where tensors are computed: the processor (cpu), or a device such as a GPU (cuda, mps).

A device changes results by rounding alone: tasks are drawn by seeds on the processor, and what a run is does not depend
on where it is computed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from rbml.errors import UsageError, unknown

NAMES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("float32", "tf32", "bfloat16")

CPU = torch.device("cpu")

_MAKERS = {
    "cuda": "PyTorch needs a build with CUDA (pytorch.org/get-started), and an NVIDIA GPU with its driver",
    "mps": "it is the GPU of a Mac with an Apple processor",
}


def find(name: str | torch.device = "auto", float64: bool = False) -> torch.device:
    """Return a device that is there.

    Args:
        name: ``"cpu"``, ``"cuda"``, ``"mps"``, or any other device of PyTorch, with its number if there are several:
            ``"cuda:1"``. ``"auto"`` takes cuda where it is, else the processor; mps must be asked for, because some
            parts of rbml compute in double precision, which it does not have. Where ``torchrun`` has started several
            processes, ``"cuda"`` is one device for each.
        float64: whether double precision is needed: mps is then refused.

    Raises:
        UsageError: if it is not there: the message says what is.

    >>> find("cpu")
    device(type='cpu')
    """  # noqa: DOC501  `unknown` returns the UsageError
    if name == "auto":
        name = "cuda" if _count("cuda") else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise unknown("device", str(name), NAMES) from None
    if device.type == "cpu":
        return CPU
    number = device.index
    if number is None:
        number = int(os.environ.get("LOCAL_RANK", "0")) % max(_count(device.type), 1) if device.type == "cuda" else 0
    if number >= _count(device.type):
        few = (
            f"{_count(device.type)} of them"
            if _count(device.type)
            else _MAKERS.get(device.type, "this PyTorch has none")
        )
        raise UsageError(f"there is no device {name} here ({few}); there is: {', '.join(available())}")
    if device.type == "mps" and float64:
        raise UsageError("mps has no double precision, which is needed here: use cpu")
    return torch.device(device.type, number)


def available() -> list[str]:
    """Return the names of the devices that are there, such as ``["cpu", "cuda:0"]``."""
    found = ["cpu"]
    for kind in ("cuda", "mps"):
        count = _count(kind)
        found += [f"{kind}:{number}" for number in range(count)] if count > 1 else [kind] * count
    return found


def _count(kind: str) -> int:
    """Return how many devices of a kind there are."""
    try:
        module = torch.get_device_module(torch.device(kind))
    except RuntimeError:  # PyTorch has no such module: meta, for example
        return 0
    return int(module.device_count()) if module.is_available() else 0


def described(device: torch.device) -> str:
    """Return a device with the name of its maker, where PyTorch knows it: ``"cuda:0 (NVIDIA H100)"``."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def free_memory(device: torch.device) -> int | None:
    """Return how many bytes are free on a device, what PyTorch keeps for itself included; ``None`` if nobody knows."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


_products: list[torch.dtype] = []
"""The type of large products where it is another one than that of their factors; of the whole process, as tf32 is."""


def type_of_products() -> torch.dtype | None:
    """Return the type in which large products of float32 are computed, or ``None``: in float32."""
    return _products[-1] if _products else None


@contextmanager
def computing(precision: str, device: torch.device) -> Iterator[None]:
    """Compute products of float32 in the given precision: ``"float32"``, ``"tf32"`` (on CUDA) or ``"bfloat16"``.

    tf32 rounds the factors of matrix products and convolutions to 10 bits of mantissa, float32 has 23; sums are in
    float32. A meta-gradient then has a relative error of some 0.1 % instead of 0.0001 %. PyTorch's own default takes
    tf32 for convolutions, and not for matrix products.

    bfloat16 rounds factors and results of the large products in a model to 7 bits (:mod:`rbml.operators.rounded`), on
    any device. What that does to a meta-gradient is in docs/devices.md.

    Raises:
        UsageError: for tf32 on another device, or an unknown precision.
    """  # noqa: DOC501  `unknown` returns the UsageError
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    if precision == "tf32" and device.type != "cuda":
        raise UsageError(
            f"tf32 is a way of computing on cuda, and this is {device}: leave --precision out, or use bfloat16"
        )
    matmul, conv = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, conv.allow_tf32
    if device.type == "cuda":
        matmul.allow_tf32 = conv.allow_tf32 = precision == "tf32"
    if precision == "bfloat16":
        _products.append(torch.bfloat16)
    try:
        yield
    finally:
        matmul.allow_tf32, conv.allow_tf32 = before
        if precision == "bfloat16":
            _products.pop()


def slow_in(precision: str, device: torch.device) -> str:
    """Return why a precision is no faster than float32 on a device; empty if it may be, or nobody knows."""
    if precision != "bfloat16" or device.type != "cpu" or torch.cpu._is_avx512_bf16_supported():
        return ""
    return "this processor has no arithmetic of bfloat16: it may be slower than float32"


def numbers(*values: Tensor) -> list[float]:
    """Return the values of scalars ``()``: the host waits for their device once, for all of them together."""
    dtype = reduce(torch.promote_types, [value.dtype for value in values])
    found: list[float] = torch.stack([value.detach().to(dtype) for value in values]).tolist()
    return found


def wait(device: torch.device) -> None:
    """Wait until a device has done all that it was given, so that time can be measured."""
    if device.type != "cpu":
        torch.zeros((), device=device).item()


def placed(tree: Any, device: torch.device) -> Any:
    """Return a tree of tensors and other values with the tensors on a device: a tensor that is there stays itself."""
    return tree_map(lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf, tree)
