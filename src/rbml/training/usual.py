"""What a run is used to: how it does on its validation tasks, kept in the run folder as ``calibration.json``."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rbml.data.batch import Batch, rows
from rbml.data.examples import Labelled
from rbml.devices import CPU, placed
from rbml.errors import RbmlError, UsageError
from rbml.learner import Adapted, Learner
from rbml.recipe import build
from rbml.recipe.streams import TEST, VALIDATE
from rbml.tasks import FewShot, generator, task_seeds
from rbml.training import files
from rbml.training.background import background_of
from rbml.training.calibration import calibration_error, temperature
from rbml.training.folds import folds
from rbml.training.run_folder import RunFolder
from rbml.training.unknown import Background, Memory, Usual, features_of, grown, layer_of

TASKS = 40
QUERIES = 5
_FILE = "calibration.json"
_TASKS = "validation_4"  # those without a number had another score of what is unknown; 2 no shape of its distribution,
# 3 none beside examples that were left out
_LEFT_OUT = 10  # tasks whose support examples are left out, where each time has to be adapted to
_LOOKED_AT = 500  # training examples
_LONG = 64  # rows with more numbers, such as features of a backbone, are not looked at


@dataclass(frozen=True)
class Prior:
    """How a learner does on validation tasks of one size.

    Attributes:
        ways: C, classes per task.
        shots: K, examples per class.
        tasks: how many tasks.
        accuracy: on their queries.
        fewer: the accuracy with one example fewer per class; chance for K = 1.
        noise: the standard error of the difference of these accuracies: over tasks, as both see the same queries.
        temperature: that makes their probabilities right.
        error: the expected calibration error before and after.
        usual: how far queries are from the classes, by the score of :mod:`rbml.training.unknown`.
        background: the classes of training with which this was found; ``None`` if there were none.
    """

    ways: int
    shots: int
    tasks: int
    accuracy: float
    fewer: float
    noise: float
    temperature: float
    error: tuple[float, float]
    usual: Usual
    background: Background | None = field(default=None, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return plain values, without the background itself, which is kept elsewhere."""
        more = {"error": list(self.error), "usual": self.usual.to_content(), "background": self.background is not None}
        return vars(self) | more

    @staticmethod
    def from_json(values: Mapping[str, Any], background: Background | None) -> Prior:
        """Return what :meth:`to_json` gave, here or in a former rbml.

        Args:
            values: the plain values.
            background: that with which they were found.
        """
        usual = Usual.from_content(values["usual"])
        assert usual is not None
        noise = values.get("noise", 1.0)  # formerly not measured: the gain of one example more is then not believed
        own = {"noise": noise, "error": tuple(values["error"]), "usual": usual, "background": background}
        return Prior(**(dict(values) | own))


def measured(
    learner: Learner,
    tasks: FewShot,
    seed: int,
    count: int = TASKS,
    advance: Callable[[int], None] = lambda count: None,
    background: Background | None = None,
) -> Prior:
    """Measure a learner on tasks, one by one, as ``rbml adapt`` and ``rbml predict`` would meet them.

    Args:
        learner: the learner.
        tasks: of at least one class more than one example.
        seed: by which the tasks are drawn.
        count: how many.
        advance: called with 1 after every task.
        background: the classes of training, beside which the unknown is told.
    """
    layer, logits, truth, scores, fewer, gains = layer_of(learner), [], [], [], [], []
    left: list[Tensor] = []
    for one in task_seeds(count, generator(seed, VALIDATE, 1)):
        drawn = placed(tasks.draw([one]), CPU)
        support, query = (Batch(_first(part.x), part.y[0]) for part in (drawn.support, drawn.query))
        adapted = learner.adapt(*support, ways=tasks.ways)
        with torch.no_grad():
            logits.append(adapted(query.x).cpu())
        truth.append(query.y)
        scores.append(Memory.of(adapted, layer, support, tasks.ways, background).score(adapted, query.x))
        if tasks.shots > 1 and (background is not None or len(left) < _LEFT_OUT):
            left.append(_left_out(learner, adapted, layer, support, tasks.ways, background))
        if tasks.shots > 1:
            rest = rows(support, torch.tensor([at for at in range(support.size) if at % tasks.shots]))
            with torch.no_grad():
                less = learner.adapt(*rest, ways=tasks.ways)(query.x).cpu().argmax(1) == query.y
        else:
            less = torch.full_like(query.y, 1 / tasks.ways, dtype=torch.float64)
        fewer.append(less.double())
        gains.append((logits[-1].argmax(1) == query.y).double().mean() - fewer[-1].mean())
        advance(1)
    found, y = torch.cat(logits), torch.cat(truth)
    best = temperature(found, y)
    return Prior(
        tasks.ways, tasks.shots, count,
        (found.argmax(1) == y).double().mean().item(),
        torch.cat(fewer).mean().item(),
        torch.stack(gains).std().item() / count**0.5 if count > 1 else 1.0,
        best,
        (calibration_error(found, y), calibration_error(found / best, y)),
        Usual.of_tasks(scores, left),
        background,
    )  # fmt: skip


def _left_out(
    learner: Learner, adapted: Adapted, layer: str, support: Batch, ways: int, background: Background | None
) -> Tensor:
    """Return the scores of support examples that are left out in turn, as ``rbml adapt`` finds them."""
    features, found, places = features_of(adapted, layer, support.x), [], folds(support.y)
    for fold in places:
        stays = torch.ones(support.size, dtype=torch.bool)
        stays[fold] = False
        rest = rows(support, torch.nonzero(stays).flatten())
        if background is not None:  # features are the same in every task
            memory = Memory.from_features(layer, features[stays], rest.y, ways, background)
            found.append(memory.distance(features[fold]))
        else:
            other = learner.adapt(*rest, ways=ways)
            found.append(Memory.of(other, layer, rest, ways).score(other, rows(support, fold).x))
    return torch.cat(found) + grown(torch.bincount(support.y)[support.y[torch.cat(places)]])


def errors_of(learner: Learner, tasks: FewShot, by: float, seed: int, count: int = TASKS) -> tuple[float, float]:
    """Return the expected calibration error on tasks, before and after dividing logits by a temperature.

    Args:
        learner: the learner.
        tasks: other tasks than those that decided the temperature.
        by: the temperature.
        seed: by which the tasks are drawn.
        count: how many.
    """
    logits, truth = [], []
    for one in task_seeds(count, generator(seed, TEST)):
        drawn = placed(tasks.draw([one]), CPU)
        adapted = learner.adapt(_first(drawn.support.x), drawn.support.y[0], ways=tasks.ways)
        with torch.no_grad():
            logits.append(adapted(_first(drawn.query.x)).cpu())
        truth.append(drawn.query.y[0])
    found, y = torch.cat(logits), torch.cat(truth)
    return calibration_error(found, y), calibration_error(found / by, y)


def _first(x: Any) -> Any:
    return x[0] if isinstance(x, Tensor) else {name: leaf[0] for name, leaf in x.items()}


def prior_of(
    run: RunFolder, learner: Learner, ways: int, shots: int, advance: Callable[[int], None] = lambda count: None
) -> Prior | None:
    """Return how a run does on validation tasks of nearly this size; measured once and kept in the run folder.

    Where the validation data has fewer classes, or fewer examples of each, the tasks have as many as it has.

    Args:
        run: the run folder.
        learner: its learner.
        ways: how many classes.
        shots: how many examples per class.
        advance: called with 1 after every task that is measured.

    Returns:
        ``None`` where the validation data is not at hand, or has no classes.
    """
    try:
        tasks = fitting(run, ways, shots)
    except RbmlError:
        return None  # adapting works without: the caller says what is missing
    background = background_of(run, learner)
    known = read(run, background)
    for one in known:
        if (one.ways, one.shots) == (tasks.ways, tasks.shots):
            return one
    found = measured(learner, tasks, run.recipe().outer.seed, advance=advance, background=background)
    _keep(run, _TASKS, [one.to_json() | {"trained": run.trained()} for one in [*known, found]])
    return found


def fitting(run: RunFolder, ways: int, shots: int, queries: int = QUERIES) -> FewShot:
    """Return the run's validation tasks of this size, or the nearest one that the data allows.

    Args:
        run: the run folder.
        ways: how many classes.
        shots: how many examples per class.
        queries: how many queries per class.

    Raises:
        UsageError: if its examples have no classes, or are a mixture.
        DataError: if the data is not there.
    """
    recipe = run.recipe()
    choice, *others = recipe.data
    loaded = build.examples(recipe, choice, "val", run.read_config()["data_root"])
    if others or not isinstance(loaded, Labelled) or loaded.classes < 2 or build.unlabelled(recipe, "val"):
        raise UsageError(f"{recipe.source} has no classes of one kind to be calibrated on")
    fewest = int(torch.bincount(loaded.y).min())
    several = max(1, min(shots, fewest - QUERIES))
    return FewShot(loaded, min(ways, loaded.classes), several, max(1, min(queries, fewest - several)))


def path_of(run: RunFolder) -> Path:
    """Return the file in a run folder."""
    return run.path / _FILE


@dataclass(frozen=True)
class Look:
    """What the examples that a run was trained on look like, in a few numbers each.

    Attributes:
        mean: of each number.
        std: its standard deviation.
        far: the 99 % quantile of the training examples' distance from the mean, in standard deviations.
    """

    mean: Tensor
    std: Tensor
    far: float

    @staticmethod
    def of(ready: Tensor) -> Look:
        """Return the look of training examples ``(n, ...)``, made ready for a model."""
        numbers = summary(ready)
        mean, std = numbers.mean(0), numbers.std(0).clamp(min=1e-3)
        far = ((numbers - mean) / std).abs().amax(1).quantile(0.99).item()
        return Look(mean, std, far)

    def is_foreign(self, ready: Tensor) -> bool:
        """Return whether most of a user's examples lie farther out than 99 % of the training examples."""
        numbers = summary(ready)
        if numbers.shape[1] != len(self.mean):
            return True
        return ((numbers - self.mean) / self.std).abs().amax(1).median().item() > self.far


def summary(ready: Tensor) -> Tensor:
    """Return a few numbers per example ``(n, k)``.

    Of pictures ``(n, c, h, w)`` brightness and contrast of each channel, the strength of edges, and the share of empty
    background; of rows of numbers ``(n, d)`` the numbers themselves.
    """
    if ready.dim() != 4:
        return ready.flatten(1).double()
    flat = ready.flatten(2).double()
    edges = torch.stack([ready.diff(dim=axis).abs().double().mean((1, 2, 3)) for axis in (2, 3)], 1)
    empty = (flat < 1 / 255).double().mean((1, 2))
    return torch.cat([flat.mean(2), flat.std(2), edges, empty[:, None]], 1)


def look_of(run: RunFolder) -> Look | None:
    """Return what the training examples of a run look like; found once and kept in the run folder.

    Returns:
        ``None`` where they are not at hand, or are no pictures or short rows of numbers.
    """
    known = _kept(run).get("look")
    if isinstance(known, dict) and known.keys() == {"mean", "std", "far"}:
        mean, std = (torch.tensor(known[name], dtype=torch.float64) for name in ("mean", "std"))
        return Look(mean, std, known["far"])
    recipe = run.recipe()
    try:
        loaded = build.examples(recipe, recipe.data[0], "train", run.read_config()["data_root"])
    except RbmlError:
        return None
    if (
        not isinstance(loaded.x, Tensor)
        or len(recipe.data) > 1
        or (loaded.x[0].numel() > _LONG and loaded.x.dim() != 4)
    ):
        return None
    places = torch.linspace(0, len(loaded.x) - 1, min(_LOOKED_AT, len(loaded.x))).long()
    found = Look.of(loaded.modality.ready(loaded.x[places]))
    _keep(run, "look", {"mean": found.mean.tolist(), "std": found.std.tolist(), "far": found.far})
    return found


def read(run: RunFolder, background: Background | None) -> list[Prior]:
    """Return what was measured before; nothing if there is no file, or it cannot be used: it is made again.

    Args:
        run: the run folder.
        background: that of the run; what was measured without it, or with it, is not of use otherwise.
    """
    try:
        with_one, step = background is not None, run.trained()  # a run that was trained on is measured again
        kept = [dict(one) for one in _kept(run)[_TASKS] if one["background"] == with_one]
        return [Prior.from_json(one, background) for one in kept if one.pop("trained", None) == step]
    except (KeyError, TypeError):
        return []


def _kept(run: RunFolder) -> dict[str, Any]:
    try:
        content = json.loads(path_of(run).read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _keep(run: RunFolder, name: str, value: Any) -> None:
    with contextlib.suppress(RbmlError):  # a run folder that cannot be written to: it is measured again next time
        files.write_json(path_of(run), _kept(run) | {name: value})
