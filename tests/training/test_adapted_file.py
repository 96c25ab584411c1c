"""The file of an adapted model: it predicts to the bit what the adapted model did."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rbml.data.batch import Batch
from rbml.data.inputs import Pictures
from rbml.data.setting import Setting
from rbml.data.targets import CLASSES
from rbml.errors import CheckpointError, DivergedError, UsageError
from rbml.predictor import Predictor
from rbml.recipe import Recipe, build
from rbml.tasks import FewShot
from rbml.training import RunFolder, files
from rbml.training.adapted_file import kept_of, load_adapted, save_adapted

SETTING = Setting(Pictures(8), CLASSES, 3)


@pytest.mark.parametrize("ways", [2, 3, 7])
@pytest.mark.parametrize("algorithm", ["maml", "meta_sgd", "anil"])
def test_it_predicts_what_the_adapted_model_did(
    ways: int, algorithm: str, recipe: Callable[..., Recipe], tasks: FewShot, tmp_path: Path
) -> None:
    settings = recipe(algorithm=algorithm)
    x, y = tasks.x[: 6 * ways].float() / 255, torch.arange(6 * ways) // 6
    adapted = build.learner(settings).adapt(x, y, ways=ways)
    names = [f"class {index}" for index in range(ways)]
    save_adapted(tmp_path / "mine", adapted, settings, SETTING, names)
    found = load_adapted(tmp_path / "mine")
    assert (found.recipe, found.setting, found.names) == (settings, SETTING, names)
    assert found.adapted(x).shape == (6 * ways, ways)
    assert torch.equal(found.adapted(x), adapted(x))


def test_a_file_of_the_first_version_is_of_pictures_and_classes(
    recipe: Callable[..., Recipe], tasks: FewShot, tmp_path: Path
) -> None:
    adapted = build.learner(recipe()).adapt(tasks.x[:12].float() / 255, torch.arange(12) // 6, ways=2)
    content = {"recipe": recipe().to_json(), "names": ["a", "b"], "model": adapted.model.state_dict()}
    files.save(tmp_path / "old", "adapted", content)
    assert load_adapted(tmp_path / "old").setting == SETTING
    predictor = Predictor.load(tmp_path / "old")
    assert (predictor.modality, predictor.target, predictor.names) == (Pictures(8), CLASSES, ["a", "b"])


def test_a_setting_that_is_not_known_here_is_said(
    recipe: Callable[..., Recipe], tasks: FewShot, tmp_path: Path
) -> None:
    adapted = build.learner(recipe()).adapt(tasks.x[:12].float() / 255, torch.arange(12) // 6, ways=2)
    setting = {"inputs": {"kind": "smells", "spec": {}}, "target": "classes", "outputs": 2}
    content = {"recipe": recipe().to_json(), "setting": setting, "names": ["a"], "model": adapted.model.state_dict()}
    files.save(tmp_path / "mine", "adapted", content)
    with pytest.raises(CheckpointError, match=r"smells.*this rbml knows inputs pictures, .*rbml\.data\.inputs\.ALL"):
        load_adapted(tmp_path / "mine")


def test_a_model_that_is_not_finite_is_not_kept(recipe: Callable[..., Recipe], tasks: FewShot, tmp_path: Path) -> None:
    settings = recipe(lr=1e30, steps=3, norm="none")
    adapted = build.learner(settings).adapt(tasks.x[:12].float(), torch.arange(12) // 6)
    with pytest.raises(DivergedError, match=r"not finite: .*mine is not written.*smaller lr"):
        save_adapted(tmp_path / "mine", adapted, settings, SETTING, ["a", "b"])
    assert not list(tmp_path.iterdir())


def test_another_file_is_refused(
    recipe: Callable[..., Recipe], trained: Callable[..., RunFolder], tmp_path: Path
) -> None:
    run = trained("run", recipe(meta_steps=1))
    with pytest.raises(CheckpointError, match=r"best\.pt holds 'best', expected 'adapted' as rbml adapt makes it"):
        load_adapted(run.best)
    content = {"recipe": recipe(norm="none").to_json(), "names": ["a"], "model": {"head.weight": torch.ones(1)}}
    files.save(tmp_path / "mine", "adapted", content)
    with pytest.raises(CheckpointError, match="mine belongs to another model than it says"):
        load_adapted(tmp_path / "mine")


@pytest.mark.parametrize("rank", [0, 2])
def test_neither_a_run_nor_a_file_needs_the_package_of_its_pretrained_weights(
    rank: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The learner was made from weights that are nowhere else: here random ones stand for them."""
    model = {"model": "efficientnet_lite0", "algorithm": "protonet", "size": 16, "channels": 3, "ways": 3}
    settings, setting = Recipe.of(**model, model_options={"rank": rank}), Setting(Pictures(16, 3), CLASSES, 3)
    learner = build.learner(settings.changed(model_options={"rank": rank, "weights": "none"}), setting)
    x, y = torch.rand(6, 3, 16, 16), torch.arange(6) // 2
    adapted = learner.adapt(x, y, ways=3)
    kept = kept_of(learner, settings, Batch((x * 255).to(torch.uint8), y))
    save_adapted(tmp_path / "mine", adapted, settings, setting, ["a", "b", "c"], kept)
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    content = {"recipe": settings.to_json(), "setting": setting.to_json(), "data_root": None, "threads": 1}
    files.write_json(run.config, content)
    files.save(run.last, "checkpoint", {"step": 1, "learner": learner.state_dict()})

    def nowhere() -> Path:
        raise UsageError("the package with the weights is not installed")

    monkeypatch.setattr("rbml.backbones.efficientnet_lite0.weights_file", nowhere)
    with pytest.raises(UsageError, match="not installed"):
        run.fresh()
    found = load_adapted(tmp_path / "mine")
    for other in (found.adapted, found.learner().adapt(x, y, ways=3), run.learner().adapt(x, y, ways=3)):
        assert torch.equal(other(x), adapted(x))
