"""What is unlike all classes: the score, and the classes of training that it is compared with."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn.functional import normalize

from rbml.data.examples import Labelled
from rbml.data.inputs import Pictures
from rbml.recipe import Recipe, build
from rbml.tasks import FewShot, generator
from rbml.training import RunFolder, files
from rbml.training.adapting import Trust
from rbml.training.background import background_of
from rbml.training.calibration import auroc
from rbml.training.unknown import NEAREST, Background, Memory, Usual


def drawn(classes: int, seed: int, count: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Examples around class means that have two directions more than others, on top of what all have in common."""
    source = generator(seed)
    means = 3 + torch.randn(classes, 12, generator=source) * torch.tensor([2.0, 2.0, *[0.3] * 10])
    x = means.repeat_interleave(count, 0) + 0.5 * torch.randn(classes * count, 12, generator=source)
    return normalize(x), torch.arange(classes).repeat_interleave(count)


def test_the_score_is_the_ratio_of_distances() -> None:
    features, y = drawn(30, 0)
    background = Background.of(features, y)
    means = torch.stack([features[y == label].mean(0) for label in range(30)])
    middle = means.mean(0)
    others = torch.stack([normalize(features[y == label] - middle).mean(0) for label in range(30)])
    support, of = drawn(3, 1)
    memory = Memory.from_features("head", support, of, 3, background)
    query = normalize(drawn(2, 2)[0] - middle)
    own = torch.stack([normalize(support[of == label] - middle).mean(0) for label in range(3)])
    for found, x in zip(memory.distance(drawn(2, 2)[0]), query, strict=True):
        near = ((x - others) ** 2).sum(1).sort().values[:NEAREST].mean()
        assert found.item() == pytest.approx((((x - own) ** 2).sum(1).min() / near).log().item(), abs=1e-2)


def test_with_a_weight_what_is_far_from_everything_is_not_excused() -> None:
    features, y = drawn(30, 0)
    plain, heavy = Background.of(features, y), Background.of(features, y, weight=3.0)
    support, of = drawn(3, 1)
    query = torch.cat([support, -support])  # as far from all as can be
    few, many = (Memory.from_features("head", support, of, 3, one) for one in (plain, heavy))
    own = Memory("head", few.centres, plain.middle)
    beside = plain.distance(normalize(query - plain.middle))
    farthest = plain.distance(normalize(features - plain.middle)).max()
    assert torch.allclose(few.distance(query), own.distance(query) - beside, atol=1e-6)
    assert torch.allclose(many.distance(query), own.distance(query) - 3 * beside.clamp(max=farthest), atol=1e-6)
    assert (beside > farthest).any() and heavy.farthest == pytest.approx(farthest.item())


def test_classes_of_training_help_to_tell_the_unknown() -> None:
    background, gains = Background.of(*drawn(40, 0)), []
    for seed in range(1, 13):
        x, y = drawn(10, seed, 12)
        support, query = torch.arange(120) % 12 < 4, torch.arange(120) % 12 >= 4
        areas = []
        for known in (None, background):
            memory = Memory.from_features("", x[support & (y < 4)], y[support & (y < 4)], 4, known)
            areas.append(auroc(-memory.distance(x[query & (y < 4)]), -memory.distance(x[y >= 4])))
        gains.append(areas[1] - areas[0])
    assert sum(gains) / len(gains) > 0


def test_trust_comes_back_from_a_file_with_its_background() -> None:
    background = Background.of(*drawn(12, 0), weight=3.0)
    trust = Trust(2.0, Memory.from_features("head", *drawn(3, 1), 3, background), Usual(0.0, 1.0, 5))
    again = Trust.from_content(trust.to_content()).memory
    assert trust.memory is not None and again is not None and again.background is not None
    assert torch.equal(again.distance(drawn(3, 2)[0]), trust.memory.distance(drawn(3, 2)[0]))
    former = Trust.from_content({"memory": {"layer": "head", "centres": torch.zeros(2, 3)}}).memory
    assert former is not None and former.background is None and former.middle is None


@pytest.mark.parametrize("algorithm", ["protonet", "maml"])
def test_a_run_keeps_its_classes_if_no_task_changes_their_features(
    algorithm: str,
    trained: Callable[..., RunFolder],
    recipe: Callable[..., Recipe],
    tasks: FewShot,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = trained("run", recipe(meta_steps=1, algorithm=algorithm, norm="none", data="folder:none"))
    learner = run.learner()
    assert background_of(run, learner) is None  # and nothing is kept: the data may come back
    loaded = Labelled(tasks.x, torch.arange(60) // 6, tasks.names, "made up", Pictures(8))
    monkeypatch.setattr(build, "examples", lambda *_: loaded)
    found = background_of(run, learner)
    assert (found is not None) == (algorithm == "protonet")
    monkeypatch.setattr(build, "examples", lambda *_: pytest.fail("looked at again"))
    again = background_of(run, learner)
    if found is None:
        assert again is None
    else:
        assert again is not None and torch.equal(again.centres, found.centres) and len(found.centres) == 10
        former = {name: value for name, value in found.to_content().items() if name in ("middle", "centres")}
        files.save(run.path / "background.pt", "background", former | {"trained": run.trained()})
        monkeypatch.setattr(build, "examples", lambda *_: loaded)
        assert background_of(run, learner) is not None
        assert "weight" in files.load(run.path / "background.pt", "background"), "a former one is made again"
    monkeypatch.setattr(build, "examples", lambda *_: loaded)
    monkeypatch.setattr(RunFolder, "trained", lambda *_: 99)  # as after more training
    looked = files.load(run.path / "background.pt", "background")["trained"]
    background_of(run, learner)
    assert looked != 99 == files.load(run.path / "background.pt", "background")["trained"]
