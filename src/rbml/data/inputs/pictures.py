"""Pictures of one size, read from files of any size and format. Reading needs Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rbml.data.batch import Inputs, each_input
from rbml.data.extras import require
from rbml.data.inputs.arrays import as_floats, as_pictures
from rbml.data.inputs.base import RawExamples, Shown
from rbml.data.inputs.class_folders import class_files, class_folders, left_aside, pictures_at
from rbml.data.inputs.colour import colour_histogram, is_coloured, opened
from rbml.errors import DataError, UsageError

_LOOKED_AT = 20  # of how many pictures it is found whether they have colour

_PLAIN = 16  # the background counts as plain if the quartiles of the border differ by at most this many grey levels


@dataclass(frozen=True)
class Pictures:
    """Square pictures, stored as uint8 ``(n, channels, size, size)``, given to a model as float ``0 .. 1``.

    Args:
        size: pixels per side.
        channels: 1 for grey, 3 for red, green and blue.

    Raises:
        UsageError: for a size below one, or other channels.
    """

    size: int = 28
    channels: int = 1

    kind = "pictures"

    def __post_init__(self) -> None:
        """Refuse sizes and channels that are not allowed."""
        _check(self.size, self.channels)

    def read(self, raw: Sequence[Any]) -> Tensor:
        """Return the pictures of files as :func:`read` reads them.

        Raises:
            DataError: naming the files that are not pictures.
            UsageError: if Pillow is not installed.
        """
        found, bad = [], []
        for path in raw:
            try:
                found.append(read(path, self.size, self.channels))
            except DataError as error:
                bad.append(str(error))
        if bad:
            more = f" And {len(bad) - 3} more." if len(bad) > 3 else ""
            raise DataError(f"{' '.join(bad[:3])}{more} Remove or repair what cannot be read.")
        return torch.stack(found) if found else torch.empty(0, self.channels, self.size, self.size, dtype=torch.uint8)

    def ready(self, stored: Inputs) -> Inputs:
        """Return float32 ``0 .. 1``; pictures that are stored in another size, or grey ones for colour, are fitted."""
        return each_input(lambda leaf: self._fitted(as_floats(leaf)), stored)

    def _fitted(self, pictures: Tensor) -> Tensor:
        """Return pictures ``(..., c, h, w)`` as ``(..., channels, size, size)``."""
        *above, channels, height, width = pictures.shape
        if (channels, height, width) == (self.channels, self.size, self.size):
            return pictures
        flat = pictures.reshape(-1, channels, height, width)
        if channels != self.channels:
            flat = flat.mean(1, keepdim=True).expand(-1, self.channels, -1, -1)
        if (height, width) != (self.size, self.size):
            flat = F.interpolate(flat, (self.size, self.size), mode="bicubic", antialias=True).clamp(0, 1)
        return flat.reshape(*above, self.channels, self.size, self.size)

    def show(self, stored: Inputs) -> Shown:
        """Return an array per picture."""
        assert isinstance(stored, Tensor)
        return Shown("picture", as_pictures(as_floats(stored)))

    def spec(self) -> dict[str, Any]:
        """Return size and channels."""
        return {"size": self.size, "channels": self.channels}

    def facts(self) -> dict[str, Any]:
        """Return size and channels, and how many numbers a picture has."""
        return {"channels": self.channels, "size": self.size, "inputs": self.channels * self.size**2}

    def find(self, places: Sequence[Path | str], labelled: bool) -> RawExamples:
        """Return the pictures in folders with one folder per class, or the files to predict.

        Args:
            places: folders of class folders if ``labelled``, else pictures, folders of pictures (with all folders in
                them), or lists of paths: see :func:`rbml.data.inputs.class_folders.pictures_at`.
            labelled: whether to take the names of the class folders as labels.

        Raises:
            DataError: if a folder is missing or has no class folders, or a class folder is empty or contains folders.
        """
        tops = [Path(str(place)).expanduser() for place in places]
        if not labelled:
            parts = [pictures_at(place) for place in tops]
            found = [path for kept, _ in parts for path in kept]
            return RawExamples(
                found, None, list(map(str, found)), None, [str(path) for _, left in parts for path in left]
            )
        pairs = [
            (path, folder.name) for place in tops for folder in class_folders(place) for path in class_files(folder)
        ]
        skipped = [name for place in tops for name in left_aside(place)]
        paths = [path for path, _ in pairs]
        return RawExamples(paths, [name for _, name in pairs], list(map(str, paths)), None, skipped)

    def plain_features(self, stored: Inputs) -> tuple[str, Tensor]:
        """Return what baselines that need no training look at, ``(n, d)``, and what it is called.

        Grey pictures are taken pixel by pixel; of colour pictures a histogram of hue, saturation and brightness says
        more.
        """
        assert isinstance(stored, Tensor)
        if self.channels == 1:
            return "pixels", as_floats(stored).flatten(1)
        return "colour histogram", colour_histogram(stored)

    def warnings(self, raw: Sequence[Any]) -> list[str]:
        """Return a sentence where pictures lose what matters: colour that a grey model does not see."""
        if self.channels != 1:
            return []
        some = raw[:: max(1, len(raw) // _LOOKED_AT)]
        count = sum(is_coloured(path) for path in some)
        if 2 * count <= len(some):
            return []
        return [
            "the pictures are in colour, but the model reads them in grey: where colour matters, train a run with "
            "--channels 3, or adapt a pretrained backbone"
        ]


def read(path: str | Path, size: int = 28, channels: int = 1) -> Tensor:
    """Read a picture in any format that Pillow knows.

    It is rotated as its EXIF entry says; transparent parts become white; palettes and 16 bit are read, and the first
    frame of an animation. It is scaled without distortion (Lanczos) and padded to a square with the background, the
    median colour of the border.

    With one channel, a light background (median above 127) is taken for paper: the picture is inverted, so that the
    ink is bright on dark. A plain background, whatever its grey, then becomes 0.

    Args:
        path: the file.
        size: pixels per side.
        channels: 1 for grey, 3 for red, green and blue.

    Returns:
        ``(channels, size, size)`` uint8.

    Raises:
        UsageError: for a size below one, other channels, or if Pillow is not installed.
        DataError: for a file that does not exist or is not a picture; it names the file.
    """
    _check(size, channels)
    image = require("PIL.Image", "images", "reading pictures")
    exif = require("PIL.ImageOps", "images", "reading pictures").exif_transpose
    try:
        with opened(path) as picture:
            flat = _flat(image, exif(picture)).convert("L" if channels == 1 else "RGB")
    except FileNotFoundError:
        raise DataError(f"{str(path)!r} does not exist.") from None
    except Exception as error:  # decoders raise anything: OSError, SyntaxError, ValueError, struct.error ...
        raise DataError(f"{str(path)!r} cannot be read as a picture: {error}.") from None
    return from_image(flat, size, channels)


def from_image(picture: Any, size: int, channels: int) -> Tensor:
    """Return an opaque picture of Pillow with 8 bit as :func:`read` returns those of files, which see."""
    image = require("PIL.Image", "images", "reading pictures")
    flat = picture.convert("L" if channels == 1 else "RGB")
    pixels = _squared(image, flat, size)
    if channels == 1:
        pixels = _as_ink(pixels, _border(np.asarray(flat)[..., None]))
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def _check(size: int, channels: int) -> None:
    if size < 1 or channels not in (1, 3):
        raise UsageError(f"pictures can have a size of 1 or more and 1 or 3 channels, not {size=} and {channels=}.")


def _flat(image: Any, picture: Any) -> Any:
    """Return a picture in L or RGB, 8 bit and opaque."""
    if picture.mode.startswith("I") or picture.mode == "F":
        return image.fromarray(_eight_bit(np.asarray(picture, dtype=np.float64), picture.mode))
    if not picture.has_transparency_data:
        return picture.convert("L" if picture.mode in ("1", "L") else "RGB")
    over = picture.convert("RGBA")
    paper = image.new("RGBA", over.size, "white")
    paper.alpha_composite(over)
    return paper.convert("RGB")


def _eight_bit(values: NDArray[np.float64], mode: str) -> NDArray[np.uint8]:
    """Bring 16 bit, or a wider mode that holds 8 or 16 bit or ``0 .. 1``, to ``0 .. 255``."""
    peak = float(values.max())
    if mode.startswith("I;16") or (mode == "I" and peak > 255):
        values = values / 257  # 65535 is 255 * 257
    elif mode == "F" and peak <= 1:
        values = values * 255
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _squared(image: Any, picture: Any, size: int) -> NDArray[np.uint8]:
    """Return ``(size, size, channels)``: the whole picture, scaled and centred on its background."""
    scale = size / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    small = picture.resize((width, height), image.Resampling.LANCZOS, reducing_gap=3.0)
    content = np.asarray(small).reshape(height, width, -1)
    background = np.median(_border(np.asarray(picture).reshape(*picture.size[::-1], -1)), axis=0)
    pixels = np.empty((size, size, content.shape[-1]), np.uint8)
    pixels[:] = np.rint(background)
    top, left = (size - height) // 2, (size - width) // 2
    pixels[top : top + height, left : left + width] = content
    return pixels


def _border(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the outermost pixels ``(n, channels)`` of ``(height, width, channels)``."""
    return np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])


def _as_ink(pixels: NDArray[np.uint8], border: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Invert a grey picture on a light background; make a plain background 0 and stretch the rest to 255."""
    low, ground, high = (float(level) for level in np.percentile(border, [25, 50, 75]))
    ink = pixels.astype(np.float64)
    if ground > 127:
        ink, ground = 255 - ink, 255 - ground
    if high - low <= _PLAIN:
        ink = (ink - ground) * (255 / (255 - ground))
    return np.clip(np.rint(ink), 0, 255).astype(np.uint8)
