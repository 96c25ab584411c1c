"""``rbml train``."""

from __future__ import annotations

import shlex
import signal
from contextlib import closing
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import click
import torch

from rbml import hypergrad
from rbml.cli.options import RecipeCommand, gathered, recipe_of, recipe_options, setting_options
from rbml.cli.show import console, follow, keep_memory
from rbml.diagnostics.explaining import explain
from rbml.errors import UsageError
from rbml.strategy.serialize import in_words
from rbml.tasks import FewShot, generator
from rbml.training import Interrupt, Recipe, RunFolder, train
from rbml.training.recipe import TRAIN


@click.command("train", cls=RecipeCommand)
@click.argument("source", required=False)
@click.option("--run", type=click.Path(path_type=Path), help="The run folder.  [default: runs/SOURCE-...]")
@click.option("--resume", type=click.Path(path_type=Path), help="Go on with this run, bit for bit as if never stopped.")
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
    """Meta-train on SOURCE (glyphs, omniglot, quickdraw, folder:PATH), into a run folder.

    \b
    rbml train omniglot --ways 5 --shots 1
    rbml train omniglot --algorithm meta_sgd --set strategy.sgd.lr.per=layer --set strategy.sgd.lr.per_step=true
    rbml train --resume runs/omniglot-5w1s-maml
    """  # noqa: D301  \b is click's
    source, given = gathered(source, given, settings, config)
    if resume is not None and run is not None:
        raise UsageError("--resume names the run folder: leave --run out")
    if resume is not None and RunFolder(resume).config.is_file():
        folder = RunFolder(resume)
        recipe = _same(folder, source, given)
    elif source is None:
        missing = f"there is no run in {resume}; name a source to begin it" if resume else "which source? Try: glyphs"
        raise UsageError(f"{missing} (rbml list data says what there is)")
    else:
        recipe = recipe_of(source, given)
        folder = RunFolder(resume or run or _free_name(recipe))
        if folder.config.is_file():
            again = f"--resume {folder.path} goes on, another --run begins anew"
            raise UsageError(f"{folder.path} holds a run already: {again}")
    meta_train(folder, recipe, data_root, threads, f"rbml train --resume {shlex.quote(str(folder.path))}")
    console.print(f"Next: rbml evaluate {shlex.quote(str(folder.path))}")


def meta_train(folder: RunFolder, recipe: Recipe, data_root: str | None, threads: int | None, again: str) -> None:
    """Train a run from where it is to its end, showing progress.

    Args:
        folder: the run.
        recipe: what to do.
        data_root: where data is looked for; ``None`` is where the run has looked before.
        threads: processor threads; ``None`` is as many as the run has had, which is what bit for bit needs.
        again: the command that goes on after a stop.

    Raises:
        SystemExit: with 130 or 143 after a signal; the run is saved.
    """
    keep_memory()
    protocol = _protocol(recipe)
    if folder.config.is_file():
        config = folder.read_config()
        data_root, threads = data_root or config["data_root"], threads or config["threads"]
    if threads:
        torch.set_num_threads(threads)
    training = recipe.build_tasks("train", data_root)
    validation = recipe.build_tasks("val", data_root)
    if not folder.config.is_file():
        if recipe.engine == "auto":
            recipe = _with_engine(recipe, training)
        about = {"training": training.about, "validation": validation.about, "protocol": protocol}
        folder.create(recipe, about, str(Path(data_root).absolute()) if data_root else None)
        recipe = folder.recipe()
    console.print(f"{recipe.algorithm} on {training.about}")
    console.print(protocol)
    file = folder.read_config()["recipe"].get("strategy_file")
    learned = f", with what was learned in {file}" if file else ""
    console.print(f"strategy: {in_words(recipe.build_learner().strategy)}{learned}")
    done = folder.saved_step()
    if 0 < done < recipe.meta_steps:
        console.print(f"Going on after step {done}")
    with Interrupt("Finishing this step, then saving. Once more stops at once.") as interrupt:
        steps = train(folder, recipe, training, validation, stop=lambda: interrupt.asked is not None)
        try:
            with closing(steps):
                last = follow(steps, recipe.meta_steps, done)
        except KeyboardInterrupt:
            saved = folder.saved_step()
            kept = f"what was saved at step {saved} is kept" if saved else "nothing was saved yet"
            _stopped(f"Stopped at once; {kept}", again, interrupt)
    if interrupt.asked is not None and last is not None and last.step < recipe.meta_steps:
        _stopped(f"Stopped after step {last.step}; all of it is saved", again, interrupt)
    best = max((line["validation"] for line in folder.lines() if "validation" in line), default=float("nan"))
    console.print(f"{recipe.meta_steps} outer steps done; best validation {best:.1%}; the run is in {folder.path}")


def _with_engine(recipe: Recipe, training: FewShot) -> Recipe:
    """Return the recipe with the engine that is expected to do best, said and written down once for all resumptions."""
    found = explain(recipe.build_learner(), training.sample(recipe.tasks, generator(recipe.seed, TRAIN)))
    console.print(f"engine: {found.chosen.name}, {found.why} (rbml explain shows all)")
    name = next(name for name, kind in hypergrad.ALL.items() if isinstance(found.chosen.engine, kind))
    plain = asdict(kind()) if is_dataclass(kind := hypergrad.ALL[name]) else {}
    options = {key: value for key, value in vars(found.chosen.engine).items() if plain.get(key) != value}
    return replace(recipe, engine=name, engine_options=options)


def _stopped(how: str, again: str, interrupt: Interrupt) -> NoReturn:
    """Say how to go on, and end as a program does that a signal has ended."""
    console.print(f"{how}. Go on with: {again}")
    raise SystemExit(128 + (interrupt.asked or signal.SIGINT))


def _protocol(recipe: Recipe) -> str:
    steps = recipe.build_learner().steps
    return (
        f"{recipe.ways}-way {recipe.shots}-shot, {recipe.queries} queries a class, "
        f"{steps} inner step{'s'[: steps != 1]}, "
        f"{recipe.tasks} tasks an outer step, {recipe.meta_steps} outer steps, batch norm {recipe.statistics}"
    )


def _same(folder: RunFolder, source: str | None, given: dict[str, Any]) -> Recipe:
    """Return the run's recipe, or refuse if something else is asked for now."""
    recipe = folder.recipe()
    asked = {name: value for name, value in (given | {"data": source}).items() if value is not None}
    own = folder.read_config()["recipe"]
    own = recipe.to_json() | {"strategy_file": own.get("strategy_file")}
    other = []
    for name, value in asked.items():
        if isinstance(value, dict):
            other += [
                f"{key} {own[name].get(key)} (not {one})" for key, one in value.items() if own[name].get(key) != one
            ]
        elif own[name] != value:
            other.append(f"{name} {own[name]} (not {value})")
    if other:
        raise UsageError(
            f"the run in {folder.path} has {', '.join(other)}: leave these options out, or begin another --run"
        )
    return recipe


def _free_name(recipe: Recipe) -> Path:
    source = recipe.data.partition(":")[0]
    name = f"{source}-{recipe.ways}w{recipe.shots}s-{recipe.algorithm}"
    paths = [Path("runs") / name, *(Path("runs") / f"{name}-{number}" for number in range(2, 10_000))]
    return next(path for path in paths if not path.exists())
