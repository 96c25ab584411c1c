"""The facts about a run that its report needs: the only module of the reports that reads recipes."""

from __future__ import annotations

from dataclasses import dataclass

from rbml.data.setting import Setting
from rbml.data.targets import Metric
from rbml.strategy.serialize import described
from rbml.training import RunFolder
from rbml.training.evaluator import describe_sizes


@dataclass(frozen=True)
class Facts:
    """A run's recipe, as its report needs it.

    Attributes:
        setting: what goes in and what comes out.
        algorithm: the name of the algorithm.
        source: the name of the source of tasks.
        tasks: the sizes of tasks: ``"5-way 1-shot, 15 queries per class"``.
        model: the name of the model and its options.
        meta_steps: outer steps.
        tasks_per_step: tasks per outer step.
        outer_lr: the learning rate of Adam at the start.
        patience: validations without a better one after which the run ends early; 0 means never.
        clip: the largest norm of a meta-gradient; 0 means no clipping.
        seed: the seed.
        begins_with_learned: whether the strategy begins with the learned values of another run.
        frozen: whether the strategy is not learned.
    """

    setting: Setting
    algorithm: str
    source: str
    tasks: str
    model: str
    meta_steps: int
    tasks_per_step: int
    outer_lr: float
    patience: int
    clip: float
    seed: int
    begins_with_learned: bool
    frozen: bool

    @property
    def metric(self) -> Metric:
        """The metric that is shown: the target's first."""
        return self.setting.target.metrics[0]

    @property
    def chance(self) -> float | None:
        """The accuracy of guessing among equally frequent classes; ``None`` for other targets."""
        return 1 / self.setting.outputs if self.setting.target.kind == "classes" else None


def facts(run: RunFolder) -> Facts:
    """Return the facts of a run.

    Raises:
        CheckpointError: if the folder is not a run folder.
    """
    recipe, setting = run.recipe(), run.setting()
    options = ", ".join(f"{name}: {value}" for name, value in recipe.model.options.items())
    sizes = {"ways": setting.outputs, "shots": recipe.tasks.shots, "queries": recipe.tasks.queries}
    if setting.target.kind != "classes":
        del sizes["ways"]
    return Facts(
        setting=setting,
        algorithm=recipe.algorithm.name,
        source=" and ".join(one.source for one in recipe.data),
        tasks=describe_sizes(sizes),
        model=recipe.model.name + (f" ({options})" if options else ""),
        meta_steps=recipe.outer.meta_steps,
        tasks_per_step=recipe.outer.tasks,
        outer_lr=recipe.outer.lr,
        patience=recipe.outer.patience,
        clip=recipe.outer.clip,
        seed=recipe.outer.seed,
        begins_with_learned=recipe.strategy.file is not None,
        frozen=recipe.strategy.freeze,
    )


def entries(run: RunFolder) -> dict[str, str]:
    """Return the entries of a run's recipe that are set, as text, by their names on the command line."""
    recipe = run.recipe()
    values = recipe.short() | {"data": " and ".join(one.source for one in recipe.data)}
    values |= {f"{name}.{key}": value for name, table in recipe.tables().items() for key, value in table.items()}
    written = {name: str(value) for name, value in values.items() if "_file" not in name}
    return written | {"strategy": described(run.fresh().strategy)}
