from __future__ import annotations

import colorsys
from pathlib import Path

import numpy as np
import pytest
import torch

from rbml.data.inputs import Pictures, pictures
from rbml.errors import DataError, UsageError

Image = pytest.importorskip("PIL.Image")


def cross(ground: int, ink: int, size: int = 40) -> np.ndarray:
    """A picture with a thick bar in its upper half."""
    pixels = np.full((size, size), ground, np.uint8)
    pixels[size // 4 : size // 2, size // 8 : -size // 8] = ink
    return pixels


def shows_bar(read: torch.Tensor, level: int = 255) -> bool:
    """Whether a picture of 20 pixels has the bar, and nothing else; resampling and JPEG may be a little off."""
    found = [int(read[0, row, 10]) for row in (0, 7, 15)]
    return max(abs(found[0]), abs(found[1] - level), abs(found[2])) <= 4


def saved(picture: object, path: Path, **options: object) -> Path:
    (Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture).save(path, **options)
    return path


@pytest.mark.parametrize(("ground", "ink"), [(255, 0), (0, 255), (210, 0), (30, 255)])
def test_ink_is_bright_on_zero_whatever_the_paper(tmp_path: Path, ground: int, ink: int) -> None:
    read = pictures.read(saved(cross(ground, ink), tmp_path / "a.png"), 20, 1)
    assert read.shape == (1, 20, 20) and read.dtype == torch.uint8
    assert shows_bar(read)


def test_an_uneven_ground_is_inverted_but_not_cut(tmp_path: Path) -> None:
    slope = np.repeat(np.linspace(130, 250, 28).astype(np.uint8)[:, None], 28, axis=1)
    read = pictures.read(saved(slope, tmp_path / "a.png"), 28, 1)
    assert torch.equal(read[0], torch.from_numpy(255 - slope))


def test_colour_keeps_its_polarity(tmp_path: Path) -> None:
    pixels = np.zeros((10, 10, 3), np.uint8)
    pixels[..., 0], pixels[..., 2] = 250, 10
    read = pictures.read(saved(pixels, tmp_path / "a.png"), 5, 3)
    assert read.shape == (3, 5, 5)
    assert read.amin((1, 2)).tolist() == read.amax((1, 2)).tolist() == [250, 0, 10]


def test_the_shape_is_kept_by_padding_with_the_ground(tmp_path: Path) -> None:
    pixels = np.full((10, 40, 3), (200, 100, 50), np.uint8)
    pixels[3:7, 10:30] = 0
    read = pictures.read(saved(pixels, tmp_path / "a.png"), 40, 3)
    assert read[:, 0, 0].tolist() == read[:, 39, 39].tolist() == [200, 100, 50]
    dark = torch.nonzero(read.sum(0) < 60)
    assert dark.amin(0).tolist() == [18, 10] and dark.amax(0).tolist() == [21, 29]


@pytest.mark.parametrize("shape", [(3000, 2), (2, 3000), (1, 1)])
def test_extreme_shapes(tmp_path: Path, shape: tuple[int, int]) -> None:
    assert pictures.read(saved(np.full(shape, 255, np.uint8), tmp_path / "a.png"), 28, 1).amax() == 0


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_are_white(tmp_path: Path, mode: str) -> None:
    bar = cross(0, 255)  # here: opacity. All colours are black, so without it the picture would be black all over
    if mode == "P":
        picture = Image.fromarray((bar > 0).astype(np.uint8), "L").convert("P")
        picture.putpalette([0, 0, 0, 0, 0, 0])
        path = saved(picture, tmp_path / "a.png", transparency=0)
    else:
        black = np.zeros((*bar.shape, len(mode) - 1), np.uint8)
        path = saved(np.concatenate([black, bar[..., None]], -1), tmp_path / "a.png")
    read = pictures.read(path, 20, 1)
    assert shows_bar(read)
    assert pictures.read(path, 20, 3)[:, 0, 0].tolist() == [255, 255, 255]


def test_a_palette_gives_its_colours(tmp_path: Path) -> None:
    picture = Image.new("P", (8, 8), 1)
    picture.putpalette([0, 0, 0, 12, 34, 56])
    assert pictures.read(saved(picture, tmp_path / "a.gif"), 4, 3)[:, 2, 2].tolist() == [12, 34, 56]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit(tmp_path: Path, suffix: str) -> None:
    wide = cross(0, 255).astype(np.uint16) * 257
    wide[:20] //= 2
    read = pictures.read(saved(wide, tmp_path / f"a.{suffix}"), 20, 1)
    assert shows_bar(read, 128)


@pytest.mark.parametrize(("dtype", "top"), [(np.int32, 65535), (np.int32, 255), (np.float32, 1.0), (np.float32, 255.0)])
def test_wide_grey(tmp_path: Path, dtype: type, top: float) -> None:
    values = (cross(0, 1).astype(np.float64) * top).astype(dtype)
    read = pictures.read(saved(Image.fromarray(values), tmp_path / "a.tif"), 20, 1)
    assert shows_bar(read)


def test_exif_orientation(tmp_path: Path) -> None:
    upright = cross(255, 0)
    stored = Image.fromarray(np.rot90(upright))  # lying on its side, with a note to turn it clockwise
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = pictures.read(saved(stored, tmp_path / "a.png", exif=exif), 20, 1)
    assert torch.equal(turned, pictures.read(saved(upright, tmp_path / "b.png"), 20, 1))


def test_the_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.fromarray(cross(255, 0)), Image.fromarray(np.full((40, 40), 255, np.uint8))]
    path = saved(frames[0], tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert shows_bar(pictures.read(path, 20, 1))


@pytest.mark.parametrize("suffix", ["bmp", "jpg", "webp", "gif", "tif"])
def test_common_formats(tmp_path: Path, suffix: str) -> None:
    read = pictures.read(saved(cross(255, 0), tmp_path / f"a.{suffix}"), 20, 1)
    assert shows_bar(read)


def test_one_bit_and_cmyk(tmp_path: Path) -> None:
    bar = Image.fromarray(cross(255, 0))
    for name, picture in (("a.png", bar.convert("1")), ("a.tif", bar.convert("RGB").convert("CMYK"))):
        read = pictures.read(saved(picture, tmp_path / name), 20, 1)
        assert shows_bar(read)


@pytest.mark.parametrize("content", [b"", b"plain text", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_a_file_that_is_not_a_picture(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"notes\.png.*cannot be read as a picture") as caught:
        pictures.read(path)
    assert caught.value.__suppress_context__


def test_a_picture_that_is_cut_short_or_missing(tmp_path: Path) -> None:
    path = saved(np.random.default_rng(0).integers(0, 255, (60, 60), np.uint8), tmp_path / "a.png")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"a\.png"):
        pictures.read(path)
    with pytest.raises(DataError, match=r"gone\.png"):
        pictures.read(tmp_path / "gone.png")


@pytest.mark.parametrize(("size", "channels"), [(0, 1), (28, 2)])
def test_wrong_options(tmp_path: Path, size: int, channels: int) -> None:
    with pytest.raises(UsageError, match=f"size={size} and channels={channels}"):
        pictures.read(tmp_path / "a.png", size, channels)


def test_a_support_folder_has_a_folder_per_class(tmp_path: Path) -> None:
    for name, count in (("b", 2), ("a", 1)):
        (tmp_path / name).mkdir()
        for index in range(count):
            saved(cross(255, 0), tmp_path / name / f"{index}.png")
    (tmp_path / "a" / ".hidden").touch()
    found = Pictures(20).find([tmp_path], labelled=True)
    assert found.labels == ["a", "b", "b"] and found.names == [str(path) for path in found.raw]
    assert Pictures(20).read(found.raw).shape == (3, 1, 20, 20)
    with pytest.raises(DataError, match="has no class folders"):
        Pictures(20).find([tmp_path / "a"], labelled=True)


def test_pictures_to_predict_are_files_folders_and_lists(tmp_path: Path) -> None:
    (tmp_path / "more" / "deep").mkdir(parents=True)
    for name in ("2.png", "deep/1.png", "deep/.hidden.png", "deep/Thumbs.db", "notes.txt"):
        (tmp_path / "more" / name).touch()
    found = Pictures(20).find(["x.png", tmp_path / "more"], labelled=False)
    expected = [str(tmp_path / "more" / name) for name in ("2.png", "deep/1.png")]
    assert found.labels is None and found.names == ["x.png", *expected]
    assert found.skipped == [str(tmp_path / "more" / "notes.txt")]
    (tmp_path / "list.txt").write_text("more/2.png\n\n/abs.png\n")
    for place in (tmp_path / "list.txt", f"@{tmp_path / 'list.txt'}"):
        assert Pictures(20).find([place], labelled=False).names == [str(tmp_path / "more/2.png"), "/abs.png"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty' has no pictures"):
        Pictures(20).find([tmp_path / "empty"], labelled=False)
    with pytest.raises(DataError, match=r"none\.txt' cannot be read .*a path on each line"):
        Pictures(20).find([tmp_path / "none.txt"], labelled=False)


def test_baselines_look_at_pixels_or_at_colours(tmp_path: Path) -> None:
    grey = torch.arange(8, dtype=torch.uint8).reshape(2, 1, 2, 2)
    name, seen = Pictures(2).plain_features(grey)
    assert name == "pixels" and torch.equal(seen * 255, grey.flatten(1).float())
    rgb = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8)
    name, seen = Pictures(4, 3).plain_features(rgb)
    assert name == "colour histogram" and seen.shape[0] == 5
    torch.testing.assert_close(seen.sum(1), torch.ones(5))
    for row, pixels in enumerate(rgb):
        expected = torch.zeros(12 * 4 * 4)
        for red, green, blue in pixels.flatten(1).T.tolist():
            hue, saturation, value = colorsys.rgb_to_hsv(red / 255, green / 255, blue / 255)
            bins = [min(int(one * count), count - 1) for one, count in ((hue, 12), (saturation, 4), (value, 4))]
            expected[(bins[0] * 4 + bins[1]) * 4 + bins[2]] += 1 / 16
        assert (seen[row] - expected).abs().sum() < 0.26  # a pixel on the border of a bin may round the other way


def test_colour_that_a_grey_model_does_not_see_is_said(tmp_path: Path) -> None:
    for name, colour in (("grey", (90, 90, 90)), ("red", (200, 30, 30))):
        Image.new("RGB", (20, 20), colour).save(tmp_path / f"{name}.png")
    assert Pictures(8).warnings([tmp_path / "grey.png"]) == []
    assert "--channels 3" in Pictures(8).warnings([tmp_path / "red.png"])[0]
    assert Pictures(8, 3).warnings([tmp_path / "red.png"]) == []


def test_heic_is_read_where_its_library_is_installed(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(Image.new("RGB", (32, 32), (200, 30, 30))).save(tmp_path / "photo.heic")
    red = Pictures(8, 3).read([tmp_path / "photo.heic"])[0].float().mean((1, 2))
    assert red[0] > 150 and red[1] < 80


def test_files_that_are_no_pictures_are_named_up_to_three(tmp_path: Path) -> None:
    paths = [tmp_path / f"{index}.png" for index in range(5)]
    for path in paths:
        path.write_text("no picture")
    with pytest.raises(DataError, match=r"0\.png.*1\.png.*2\.png.* And 2 more\. Remove"):
        Pictures().read(paths)
    assert Pictures(7, 3).read([]).shape == (0, 3, 7, 7)
    with pytest.raises(UsageError, match="size=0"):
        Pictures(0)


def test_a_model_gets_shares_and_a_report_arrays() -> None:
    stored = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 3, 1, 1)
    assert torch.equal(Pictures(1, 3).ready(stored), torch.tensor([0, 0.2, 1]).reshape(1, 3, 1, 1))
    (shown,) = Pictures(1, 3).show(stored).values
    assert shown.shape == (1, 1, 3) and shown[0, 0].tolist() == pytest.approx([0, 0.2, 1])
    assert Pictures(8, 3).facts() == {"channels": 3, "size": 8, "inputs": 192}
