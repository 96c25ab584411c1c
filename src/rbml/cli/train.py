"""``rbml train``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rbml.cli.options import RecipeCommand, gathered, recipe_options, setting_options, with_colour
from rbml.cli.processes import follows, take_part, together
from rbml.errors import UsageError
from rbml.recipe import Data, Recipe
from rbml.recipe.protocol import recipe_of

if TYPE_CHECKING:
    from rbml.training import RunFolder
    from rbml.training.processes import Processes


@click.command("train", cls=RecipeCommand)
@click.argument("source", required=False)
@click.option("--run", type=click.Path(path_type=Path), help="The run folder.  [default: runs/SOURCE-...]")
@click.option(
    "--resume",
    type=click.Path(path_type=Path),
    help="Resume this run; the result is the same as without the stop. "
    "With more --meta-steps than it has, it is trained longer.",
)
@click.option(
    "--data-root", metavar="PATH", help="Where data is looked for.  [default: $RBML_DATA, else downloaded and cached]"
)
@click.option(
    "--threads", type=click.IntRange(1), metavar="N", help="Processor threads.  [default: all; on --resume, the run's]"
)
@setting_options
@recipe_options
def command(
    source: str | None,
    run: Path | None,
    resume: Path | None,
    data_root: str | None,
    threads: int | None,
    settings: tuple[str, ...],
    config: Path | None,
    **given: Any,
) -> None:
    """Meta-train on SOURCE (glyphs, omniglot, quickdraw, folder:PATH, table:FILE ...), into a run folder.

    A learner is trained on many small tasks, so that it learns the next one from a few examples. A task has a few
    classes (ways) with a few labelled examples each (shots) to learn from, and others (queries) to be judged on. It is
    learned in a few steps (inner steps). After every batch of tasks, the point where all tasks start, and what is
    learned of the way of learning, is improved (an outer step). The default is MAML on 5 classes.

    Several sources, with a plus between them, are mixed: glyphs+omniglot. `rbml list data` says what there is.

    \b
    rbml train omniglot --ways 5 --shots 1
    rbml train omniglot --algorithm meta_sgd --set strategy.sgd.lr.per=layer --set strategy.sgd.lr.per_step=true
    rbml train table:visits.csv --group patient --target score
    rbml train folder:photos --encoder efficientnet_lite0
    rbml train --from runs/omniglot-5w1s-maml quickdraw
    rbml train --resume runs/omniglot-5w1s-maml
    torchrun --nproc-per-node 2 -m -- rbml train omniglot --chunk 16
    """  # noqa: D301  \b is click's
    if follows():
        with together() as processes:
            take_part(processes)
        return
    source, given = gathered(source, given, settings, config)
    if resume is not None and run is not None:
        raise UsageError("--resume names the run folder: leave --run out")
    begins = resume is None or not (resume / "config.json").is_file()
    wanted = _wanted(source, given, resume) if begins else None  # before PyTorch is loaded, which takes seconds

    with together() as processes:
        _train(wanted, resume, run, source, given, (data_root, threads), processes)


def _train(
    wanted: Recipe | None,
    resume: Path | None,
    run: Path | None,
    source: str | None,
    given: dict[str, Any],
    where: tuple[str | None, int | None],
    processes: Processes,
) -> None:
    """Begin a run, or go on with it where nothing is wanted, and train it to its end."""
    from rbml.cli.show import console
    from rbml.cli.training import meta_train
    from rbml.training import RunFolder

    if wanted is None:
        assert resume is not None
        folder = RunFolder(resume)
        recipe = _same(folder, source, given)
    else:
        recipe = wanted
        folder = RunFolder(resume or run or _free_name(recipe))
        if folder.config.is_file():
            again = f"use --resume {folder.path} to continue it, or another --run"
            raise UsageError(f"{folder.path} already holds a run: {again}")
    place = shlex.quote(str(folder.path))
    meta_train(folder, recipe, *where, f"rbml train --resume {place}", processes)
    pile = recipe.tasks.labels == "none" and any(_is_pile(one) for one in recipe.data)  # nothing to evaluate on
    console.print(f"Next: rbml adapt {place} --support DIR --out FILE" if pile else f"Next: rbml evaluate {place}")


def _wanted(source: str | None, given: dict[str, Any], resume: Path | None) -> Recipe:
    """Return the recipe of a run that begins."""
    if given.get("start"):
        return _from_run(source, given)
    if source is None:
        missing = f"there is no run in {resume}; name a source to begin one" if resume else "which source? Try: glyphs"
        raise UsageError(f"{missing} (rbml list data shows all sources)")
    return recipe_of(source, with_colour(source, given))


def _from_run(source: str | None, given: dict[str, Any]) -> Recipe:
    """Return the recipe of the run that is begun with, changed by what was given."""
    from rbml.training import RunFolder

    if given.get("strategy_file"):
        raise UsageError("--from begins with phi of a run, and --strategy with that of a file: leave one of them out")
    if given.get("pretrain"):
        raise UsageError(
            "--from begins with theta0 of a run, so that there is nothing to pretrain: leave one of them out"
        )
    place = Path(given["start"]).absolute()
    changes = (
        given | {"start": str(place), "pretrain": 0} | ({"data": source} if source and "data" not in given else {})
    )
    return RunFolder(place).recipe().changed(**{name: value for name, value in changes.items() if value is not None})


def _same(folder: RunFolder, source: str | None, given: dict[str, Any]) -> Recipe:
    """Return the run's recipe, or refuse if something else is asked for now."""
    own = Recipe.from_json(folder.read_config()["recipe"])  # as it was written: with the strategy file's own name
    entries = own.short() | {"data": own.source}
    tables = {
        "settings": own.strategy.settings,
        "options": own.algorithm.options,
        "engine_options": own.engine.options if own.engine else {},
        "model_options": own.model.options,
        "data_options": own.data[0].options,
        "task_options": own.tasks.options,
    }
    other, longer = [], None
    for name, value in (given | {"data": source}).items():
        if isinstance(value, dict):
            has = tables[name]
            other += [f"{key} {has.get(key)} (not {one})" for key, one in value.items() if has.get(key) != one]
        elif name == "meta_steps" and isinstance(value, int) and value > own.outer.meta_steps:
            longer = value
        elif value is not None and entries.get(name) != value:
            other.append(f"{name} {entries.get(name)} (not {value})")
    if other:
        raise UsageError(
            f"the run in {folder.path} has {', '.join(other)}: leave these options out, or begin another --run"
        )
    if longer is not None:
        _lengthen(folder, own, longer)
    return folder.recipe()


def _lengthen(folder: RunFolder, recipe: Recipe, steps: int) -> None:
    """Give a run more outer steps than it had, and say how its learning rate goes on."""
    from rbml.cli.show import console
    from rbml.training.progress import rate_at

    folder.lengthen(steps)
    before, done, first = recipe.outer.meta_steps, max(folder.saved_step(), 0), recipe.outer.lr
    console.print(
        f"The run gets {steps} outer steps instead of {before}. Its learning rate now falls to zero at step {steps}: "
        f"after step {done} it goes on with {rate_at(done, steps, first):.2g}, where it had "
        f"{rate_at(done, before, first):.2g}"
    )


def _free_name(recipe: Recipe) -> Path:
    ways = "" if recipe.tasks.name == "per_group" else f"{recipe.tasks.ways}w"
    name = f"{'+'.join(map(_short, recipe.data))}-{ways}{recipe.tasks.shots}s-{recipe.algorithm.name}"
    paths = [Path("runs") / name, *(Path("runs") / f"{name}-{number}" for number in range(2, 10_000))]
    return next(path for path in paths if not path.exists())


def _is_pile(source: Data) -> bool:
    """Return whether a source is a folder of pictures that are not in classes."""
    from rbml.data.sources.folder import is_pile

    return source.name == "folder" and is_pile(Path(source.path or ""))


def _short(source: Data) -> str:
    """Return a source in a name of a folder: of a table or a folder of pictures, what its own name begins with."""
    return Path(source.path).stem if source.path else source.name
