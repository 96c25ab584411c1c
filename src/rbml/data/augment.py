"""Augmentation of pictures: random changes that leave their class as it is.

Shapes: B tasks, n pictures of a task, m = B * n, c channels, h x w pixels. A place in a picture has coordinates
``-1 .. 1``, x to the right and y downwards. ``u`` are random numbers in 0 .. 1, and a strength of 1 is the usual one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from rbml import random
from rbml.errors import UsageError, unknown

_ODD = 2  # numbers of the coarse grid of an elastic change, per side: its ends and two between


@dataclass(frozen=True)
class Augmentation:
    """A random change of pictures, each by a draw of its own: a pure function of the pictures and a key.

    Changes of place (``crop``, ``flip``, ``rotation``, ``affine``, ``shift``, ``elastic``) are applied as one, so that
    a picture is resampled once, bilinearly; what comes in from outside is 0 in grey pictures (whose background is 0)
    and mirrored in colour ones. Then ``colour``, ``erase`` and ``zero`` change pixels. The work is done on the device
    of the pictures.

    Args:
        names: the changes, of :data:`ALL`.
        strength: how large they are; 1 is usual, 0 none. It does not change ``flip``.

    Raises:
        UsageError: for an unknown name, or a strength below 0.

    >>> pictures = torch.rand(2, 3, 1, 8, 8)
    >>> Augmentation(("affine", "elastic"))(pictures, torch.tensor([1, 2])).shape
    torch.Size([2, 3, 1, 8, 8])
    """

    names: tuple[str, ...]
    strength: float = 1.0

    def __post_init__(self) -> None:
        """Check the names."""
        for name in self.names:
            if name not in ALL:
                raise unknown("augmentation", name, [*ALL, "auto", "none"])
        if self.strength < 0:
            raise UsageError(f"the strength of augmentation must be at least 0, not {self.strength}.")

    @staticmethod
    def of(text: str, usual: Sequence[str], strength: float = 1.0) -> Augmentation:
        """Return the augmentation that a text names: ``"auto"``, ``"none"``, or names with commas between them.

        Args:
            text: the text.
            usual: what ``"auto"`` means.
            strength: how large the changes are.

        Raises:
            UsageError: for an unknown name.
        """
        if text in ("auto", "none"):
            return Augmentation(tuple(usual) if text == "auto" else (), strength)
        return Augmentation(tuple(name.strip() for name in text.split(",") if name.strip()), strength)

    def check(self, pictures: object) -> None:
        """Raise a ``UsageError`` for what cannot be changed in this way.

        Args:
            pictures: what is to be changed: stored inputs ``(N, ...)``.

        Raises:
            UsageError: if they are not pictures, or ``colour`` is asked for and they are grey.
        """
        if not self.names:
            return
        listed = ", ".join(self.names)
        if not isinstance(pictures, Tensor) or pictures.dim() != 4 or pictures.shape[1] not in (1, 3):
            shape = f"of shape {tuple(pictures.shape)}" if isinstance(pictures, Tensor) else "of several parts"
            raise UsageError(
                f"augmentation ({listed}) needs pictures (N, channels, height, width) with 1 or 3 channels, but the "
                f"inputs are {shape}: use --augment none"
            )
        if "colour" in self.names and pictures.shape[1] != 3:
            raise UsageError("the augmentation colour needs colour pictures, but these are grey: leave it out.")

    def __call__(self, pictures: Tensor, keys: Tensor) -> Tensor:
        """Return the changed pictures, in the type of the given ones.

        Args:
            pictures: ``(B, n, c, h, w)``, uint8 or floating point in ``0 .. 1``.
            keys: ``(B,)`` int64: another key gives other changes; a task's changes depend on its own key alone.
        """
        if not self.names or self.strength == 0:
            return pictures
        whole = pictures.dtype == torch.uint8
        changed = pictures.flatten(0, 1)
        changed = changed.float() / 255 if whole else changed
        moves = [name for name in self.names if name in _MOVES]
        if moves or "elastic" in self.names:
            changed = self._moved(changed, moves, keys, pictures.shape[1])
        for name in self.names:
            if name in _PIXELS:
                changed = _PIXELS[name](changed, _Draws(keys, name, pictures.shape[1]), self.strength)
        changed = changed.view(pictures.shape)
        return (changed * 255).round_().clamp_(0, 255).to(torch.uint8) if whole else changed

    def _moved(self, pictures: Tensor, moves: Sequence[str], keys: Tensor, count: int) -> Tensor:
        height, width = pictures.shape[-2:]
        matrix = torch.eye(2, 3, dtype=torch.float64, device=pictures.device).expand(len(pictures), 2, 3)
        for name in moves:
            matrix = _after(matrix, _MOVES[name](_Draws(keys, name, count), self.strength))
        # In float64, then rounded: the last bit of sin and cos depends on the place of a number in a stack.
        grid = _grid(matrix.to(pictures.dtype), height, width)
        if "elastic" in self.names:
            grid = grid + _elastic(_Draws(keys, "elastic", count), self.strength, height, width).to(pictures.dtype)
        outside = "zeros" if pictures.shape[1] == 1 else "reflection"
        return functional.grid_sample(pictures, grid, padding_mode=outside, align_corners=False)


def warped(pictures: Tensor, key: Tensor, strength: Tensor, name: str = "warp") -> Tensor:
    """Return pictures changed as by ``affine`` and ``elastic``, with a derivative by the strength.

    What comes in from outside repeats the border, whatever the pictures were scaled to.

    Args:
        pictures: ``(n, c, h, w)`` of at least 2 x 2 pixels, floating point; each is changed by a draw of its own.
        key: an int64 scalar; the same one gives the same changes.
        strength: a scalar; 1 is usual, 0 changes nothing.
        name: another one gives other changes.
    """
    height, width = pictures.shape[-2:]
    matrix = _affine(_Draws(key[None], f"{name} affine", len(pictures)), strength.double()).to(pictures.dtype)
    coarse = _Draws(key[None], f"{name} elastic", len(pictures))(2, _ODD + 2, _ODD + 2).to(pictures.dtype)
    # Products of matrices, because a compiler puts everything else together, and draws anew for each pixel.
    bent = _fine(height, coarse) @ (0.3 * coarse - 0.15) @ _fine(width, coarse).mT
    x, y = (2 * torch.arange(size, device=pictures.device) + 1.0 for size in (width, height))
    places = torch.stack([(x / width - 1).repeat(height), (y / height - 1).repeat_interleave(width)], 1).to(coarse)
    grid = (places @ matrix[:, :, :2].mT + matrix[:, None, :, 2]).view(len(pictures), height, width, 2)
    grid = grid + strength.to(pictures.dtype) * bent.movedim(1, -1)
    return _sampled(pictures, grid)


def _fine(size: int, like: Tensor) -> Tensor:
    """Return how bicubic interpolation makes ``size`` numbers of the coarse ones: a matrix."""
    coarse = torch.eye(_ODD + 2, dtype=like.dtype, device=like.device)[None, None]
    made = functional.interpolate(coarse, size=(size, _ODD + 2), mode="bicubic", align_corners=True)
    return made[0, 0]


def _sampled(pictures: Tensor, grid: Tensor) -> Tensor:
    """Return what ``grid_sample`` with ``padding_mode="border"`` does, which has no derivative in forward mode."""
    height, width = pictures.shape[-2:]
    x = (((grid[..., 0] + 1) * width - 1) / 2).clamp(0, width - 1)
    y = (((grid[..., 1] + 1) * height - 1) / 2).clamp(0, height - 1)
    left, top = x.detach().floor().clamp(max=width - 2), y.detach().floor().clamp(max=height - 2)
    right, down = (x - left)[:, None], (y - top)[:, None]
    corner, pixels = (top * width + left).long().flatten(1), pictures.flatten(2)

    def pixel(offset: int) -> Tensor:
        places = (corner + offset)[:, None].expand(-1, pixels.shape[1], -1)
        return pixels.gather(2, places).view(*pictures.shape[:2], height, width)

    above = pixel(0) * (1 - right) + pixel(1) * right
    below = pixel(width) * (1 - right) + pixel(width + 1) * right
    return above * (1 - down) + below * down


@dataclass(frozen=True)
class _Draws:
    """Random numbers of one change, for all pictures of a stack of tasks."""

    keys: Tensor
    name: str
    count: int

    def __call__(self, *shape: int) -> Tensor:
        """Return float64 numbers in 0 .. 1, ``(B * n, *shape)``."""
        like = torch.empty(self.count, *shape, dtype=torch.float64, device=self.keys.device)
        keys = self.keys.view(-1, *[1] * like.dim())
        return random.uniform(keys, f"augment {self.name}", like).flatten(0, 1)

    def around(self, count: int, width: float | Tensor) -> list[Tensor]:
        """Return ``count`` columns ``(m,)`` of numbers in ``-width .. width``."""
        return list(((2 * self(count) - 1) * width).unbind(1))


# ------------------------------------------------------------------------------------------------- changes of place
# Each returns matrices (m, 2, 3) from places in the changed picture to places in the given one.


def _matrix(a: Tensor, b: Tensor, x: Tensor, c: Tensor, d: Tensor, y: Tensor) -> Tensor:
    return torch.stack([torch.stack([a, b, x], 1), torch.stack([c, d, y], 1)], 1)


def _after(first: Tensor, then: Tensor) -> Tensor:
    """Return the product of two matrices; written out, because a product of stacks may round differently."""
    (a, b, x), (c, d, y) = (row.unbind(1) for row in first.unbind(1))
    (e, f, u), (g, h, v) = (row.unbind(1) for row in then.unbind(1))
    return _matrix(
        a * e + b * g, a * f + b * h, a * u + b * v + x,
        c * e + d * g, c * f + d * h, c * u + d * v + y,
    )  # fmt: skip


def _crop(draws: _Draws, strength: float) -> Tensor:
    """Take a part of half to all of the area, a little wider or higher, and enlarge it to the whole."""
    u = draws(4)
    area, shape = 1 - min(0.5 * strength, 0.9) * u[:, 0], torch.exp((2 * u[:, 1] - 1) * 0.2 * strength)
    wide, high = ((area * shape).sqrt().clamp(max=1), (area / shape).sqrt().clamp(max=1))
    zero = torch.zeros_like(wide)
    return _matrix(wide, zero, (2 * u[:, 2] - 1) * (1 - wide), zero, high, (2 * u[:, 3] - 1) * (1 - high))


def _flip(draws: _Draws, strength: float) -> Tensor:
    """Mirror half of the pictures, left to right."""
    sign = torch.where(draws(1)[:, 0] < 0.5, -1.0, 1.0).double()
    zero = torch.zeros_like(sign)
    return _matrix(sign, zero, zero, zero, torch.ones_like(sign), zero)


def _rotation(draws: _Draws, strength: float) -> Tensor:
    """Turn by up to 15 degrees."""
    (angle,) = draws.around(1, math.radians(15) * strength)
    zero = torch.zeros_like(angle)
    return _matrix(angle.cos(), -angle.sin(), zero, angle.sin(), angle.cos(), zero)


def _affine(draws: _Draws, strength: float | Tensor) -> Tensor:
    """Turn by up to 10 degrees, scale by up to 15 % per side, slant by up to 0.15, shift by up to a tenth."""
    angle, wide, high, slant, x, y = draws.around(6, strength)
    angle, wide, high = angle * math.radians(10), torch.exp(0.15 * wide), torch.exp(0.15 * high)
    zero, slant = torch.zeros_like(angle), 0.15 * slant
    turned = _matrix(angle.cos(), -angle.sin(), 0.2 * x, angle.sin(), angle.cos(), 0.2 * y)
    return _after(turned, _matrix(wide, slant * high, zero, zero, high, zero))


def _shift(draws: _Draws, strength: float) -> Tensor:
    """Shift by up to a fifth of the width and of the height."""
    x, y = draws.around(2, 0.4 * strength)
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    return _matrix(one, zero, x, zero, one, y)


def _grid(matrix: Tensor, height: int, width: int) -> Tensor:
    """Return the places ``(m, h, w, 2)`` in the given pictures of all pixels of the changed ones."""
    x = (2 * torch.arange(width, device=matrix.device, dtype=matrix.dtype) + 1) / width - 1
    y = ((2 * torch.arange(height, device=matrix.device, dtype=matrix.dtype) + 1) / height - 1)[:, None]
    rows = [
        row[:, 0, None, None] * x + row[:, 1, None, None] * y + row[:, 2, None, None] for row in matrix.unbind(1)
    ]  # plain products and sums, where a matrix product may round differently in another stack
    return torch.stack(rows, -1)


def _elastic(draws: _Draws, strength: float, height: int, width: int) -> Tensor:
    """Return smooth shifts ``(m, h, w, 2)`` of places, of up to about a tenth: what a hand does to strokes."""
    coarse = (2 * draws(2, _ODD + 2, _ODD + 2) - 1) * 0.15 * strength
    fine = functional.interpolate(coarse.float(), size=(height, width), mode="bicubic", align_corners=True)
    return fine.movedim(1, -1)


# ------------------------------------------------------------------------------------------------ changes of pixels


def _colour(pictures: Tensor, draws: _Draws, strength: float) -> Tensor:
    """Change brightness, contrast and saturation by up to 40 % each."""
    bright, contrast, saturation = (
        (1 + part).clamp(min=0).to(pictures.dtype)[:, None, None, None] for part in draws.around(3, 0.4 * strength)
    )
    changed = (pictures * bright).clamp(0, 1)
    mean = changed.mean((1, 2, 3), keepdim=True)
    changed = (mean + (changed - mean) * contrast).clamp(0, 1)
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=pictures.dtype, device=pictures.device)
    grey = (changed * weights[:, None, None]).sum(1, keepdim=True)
    return (grey + (changed - grey) * saturation).clamp(0, 1)


def _erase(pictures: Tensor, draws: _Draws, strength: float) -> Tensor:
    """Put the mean of the picture (in grey pictures 0) into a rectangle, in half of them: cutout, arXiv:1708.04552."""
    height, width = pictures.shape[-2:]
    u = draws(5).to(pictures.dtype)[..., None, None]
    high, wide = ((0.2 + 0.3 * u[:, at]) * min(strength, 2.0) * (u[:, 4] < 0.5) for at in (0, 1))
    y = (torch.arange(height, device=pictures.device, dtype=pictures.dtype) + 0.5)[:, None] / height
    x = (torch.arange(width, device=pictures.device, dtype=pictures.dtype) + 0.5) / width
    inside = ((y - u[:, 2]).abs() < high / 2) & ((x - u[:, 3]).abs() < wide / 2)
    fill = pictures.mean((-2, -1), keepdim=True) if pictures.shape[1] == 3 else torch.zeros_like(pictures[..., :1, :1])
    return torch.where(inside[:, None], fill, pictures)


def _zero(pictures: Tensor, draws: _Draws, strength: float) -> Tensor:
    """Set up to 30 % of the pixels of a picture to 0, the share drawn for each picture (Khodadadeh et al. 2019)."""
    share = draws(1).view(-1, 1, 1) * min(0.3 * strength, 1.0)
    lost = _Draws(draws.keys, "zero pixels", draws.count)(*pictures.shape[-2:]) < share
    return pictures.masked_fill(lost[:, None], 0)


_MOVES: dict[str, Callable[[_Draws, float], Tensor]] = {
    "crop": _crop,
    "flip": _flip,
    "rotation": _rotation,
    "affine": _affine,
    "shift": _shift,
}

_PIXELS: dict[str, Callable[[Tensor, _Draws, float], Tensor]] = {"colour": _colour, "erase": _erase, "zero": _zero}

ALL = (*_MOVES, "elastic", *_PIXELS)
"""The names of all changes."""

PHOTOGRAPHS = ("crop", "flip", "colour")
"""What is sensible for photographs."""

DRAWINGS = ("affine", "elastic")
"""What is sensible for characters, digits and line drawings: mirrored ones would be others."""
