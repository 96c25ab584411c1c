"""How ``rbml evaluate`` says whether a run's probabilities can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rbml.cli.show import console

if TYPE_CHECKING:
    from rbml.learner import Learner
    from rbml.training import RunFolder

_TASKS = 100


def calibrated(folder: RunFolder, learner: Learner, tasks: Any, episodes: int, seed: int) -> dict[str, Any]:
    """Return the calibration error on tasks before and after the temperature that the validation tasks of a run decide.

    Args:
        folder: the run.
        learner: its learner.
        tasks: those of the evaluation.
        episodes: how many tasks are evaluated; of these at most 100 are looked at.
        seed: by which they are drawn.

    Returns:
        An entry of the evaluation; an empty table for tasks without classes, or where the validation data is not there.
    """
    from rbml.tasks import FewShot
    from rbml.training.usual import errors_of, prior_of

    if not isinstance(tasks, FewShot):
        return {}
    prior = prior_of(folder, learner, tasks.ways, tasks.shots)
    if prior is None:
        return {}
    count = min(episodes, _TASKS)
    before, after = errors_of(learner, tasks, prior.temperature, seed, count)
    return {"calibration": {"temperature": prior.temperature, "before": before, "after": after, "tasks": count}}


def show_calibration(result: Mapping[str, Any]) -> None:
    """Print the calibration of an evaluation, if it has one."""
    found = result.get("calibration")
    if found:
        console.print(
            f"calibration error (ECE, 15 bins, {found['tasks']} tasks) {found['before']:.1%}, "
            f"with temperature {found['temperature']:.2f} {found['after']:.1%}"
        )
