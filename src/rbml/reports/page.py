"""The report of a run: figures, and a page in Markdown with text, tables and these figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rbml.errors import RbmlError
from rbml.reports import compare, style, wording
from rbml.reports.adaptation import metric_by_step
from rbml.reports.continual import accuracy_by_classes, by_classes, classes_table
from rbml.reports.curves import learning_curve
from rbml.reports.evaluations import evaluations, inner_steps
from rbml.reports.facts import facts
from rbml.reports.gallery import gallery
from rbml.reports.phi import phi_figure, phi_table, tensor_table
from rbml.reports.shots import by_shots, metric_by_shots, shots_table
from rbml.reports.text import sentence
from rbml.reports.theta import theta_figure
from rbml.tasks import TaskSource
from rbml.training import RunFolder
from rbml.training.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_report(run: RunFolder, tasks: TaskSource | None, seed: int, other: RunFolder | None = None) -> list[Path]:
    """Write the report of a run under ``run.plots``: figures, and ``report.md`` that shows them.

    For what is still missing (a checkpoint, an evaluation) the page names the command that makes it.

    Args:
        run: the run; it may be interrupted, or not have begun.
        tasks: where the task in the gallery comes from; ``None`` leaves it out.
        seed: which task the gallery shows.
        other: another run to compare it with.

    Returns:
        The files that were written, the page last.

    Raises:
        CheckpointError: if the folder is not a run folder.
        UsageError: if matplotlib is not installed.
        RbmlError: if a file cannot be written.
    """
    style.new_figure(1, 1, "")  # raises before anything is written if matplotlib is missing
    if other is not None:
        other.read_config()
    page = [f"# {run.path.resolve().name}\n", *wording.recipe_summary(run)]
    try:
        run.plots.mkdir(exist_ok=True)
    except OSError as error:
        raise RbmlError(f"cannot make {run.plots}: {error.strerror}") from error
    written: list[Path] = []
    beside = [] if other is None else _beside(run, other)
    for title, name, draw, table in [*_sections(run, tasks, seed), *beside]:
        page.append(f"\n## {title}\n")
        try:
            page.append(table())
            picture = draw()
        except RbmlError as error:
            page.append(f"{sentence(str(error))}\n")
            continue
        if picture is not None:
            path = run.plots / f"{name}.png"
            write_atomically(path, style.png(picture))
            written.append(path)
            page.append(f"![{title}]({path.name})\n")
    path = run.plots / "report.md"
    write_atomically(path, "\n".join(part for part in page if part).encode())
    return [*written, path]


Section = tuple[str, str, Callable[[], "Figure | None"], Callable[[], str]]


def _sections(run: RunFolder, tasks: TaskSource | None, seed: int) -> list[Section]:
    """Return the title, the figure's name, and the functions for figure and text of each section of the page."""
    found, problems = evaluations(run)
    name = facts(run).metric.name

    def measured() -> str:
        table = wording.evaluation_table(found) if found else f"Not measured yet: `rbml evaluate {run.path}`.\n"
        return "\n".join([table, *problems])

    def task() -> str:
        if tasks is None:
            return f"Not drawn, because the data was not found: `rbml report {run.path} --data-root FOLDER`.\n"
        return f"Task {seed}. The learner has adapted to the support examples, and predicts each query by itself.\n"

    def nothing() -> str:
        return ""

    stepwise = {key: one for key, one in found.items() if inner_steps(one)}
    measures: list[Section] = [
        (name[:1].upper() + name[1:], "adaptation", lambda: metric_by_step(stepwise) if stepwise else None, measured)
    ]
    if sized := by_shots(found):
        title = "How many examples are needed"
        measures.append((title, "shots", lambda: metric_by_shots(sized), lambda: shots_table(sized)))
    if streams := by_classes(found):
        title = "What is known of a stream"
        measures.append((title, "classes", lambda: accuracy_by_classes(streams), lambda: classes_table(streams)))
    return [
        *measures,
        ("One task", "gallery", lambda: None if tasks is None else gallery(run, tasks, seed), task),
        ("Learning curve", "learning_curve", lambda: learning_curve(run), nothing),
        (
            "The learning strategy, phi",
            "phi",
            lambda: phi_figure(run),
            lambda: wording.phi_summary(phi_table(run), tensor_table(run)),
        ),
        ("The initialisation, theta0", "theta", lambda: theta_figure(run), nothing),
    ]


def _beside(run: RunFolder, other: RunFolder) -> list[Section]:
    """Return the sections of the page that compare two runs."""
    ours, theirs = compare.names(run, other)
    return [
        (
            f"{ours} beside {theirs}",
            "compare_curves",
            lambda: compare.curves_compared(run, other),
            lambda: compare.differences(run, other),
        ),
        (
            f"The strategies of {ours} and {theirs}",
            "compare_phi",
            lambda: compare.phi_compared(run, other),
            lambda: compare.phi_beside(run, other),
        ),
    ]
