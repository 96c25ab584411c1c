from __future__ import annotations

import pytest
import torch

from rbml.data.sources import digits
from rbml.errors import UsageError

pytest.importorskip("sklearn")


def test_all_digits_are_there_with_their_labels() -> None:
    from sklearn.datasets import load_digits

    data = digits.load("test")
    pictures, labels = load_digits(return_X_y=True)
    assert data.x.shape == (1797, 1, 28, 28) and data.x.dtype == torch.uint8
    assert data.y.tolist() == labels.tolist() and data.names == [str(digit) for digit in range(10)]
    small = torch.nn.functional.adaptive_avg_pool2d(data.x[..., 4:24, 4:24].float(), 8).flatten(1)
    truth = torch.from_numpy(pictures).float()
    alike = torch.corrcoef(torch.cat([small[:40], truth[:40]]))[:40, 40:]
    assert (alike.argmax(1) == torch.arange(40)).all()  # each picture is most like the one it was made from


def test_digits_look_like_strokes() -> None:
    x = digits.load("test").x
    assert int(x[..., :4, :].max()) == int(x[..., :4].max()) == int(x[..., 24:].max()) == 0
    assert float((x == 0).float().mean()) > 0.7 and (x.flatten(1).amax(1) == 255).float().mean() > 0.99


@pytest.mark.parametrize("part", ["train", "val"])
def test_digits_are_for_testing_only(part: str) -> None:
    with pytest.raises(UsageError, match="only 10 classes"):
        digits.load(part)
