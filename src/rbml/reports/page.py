"""The report of a run: figures, a page in Markdown that shows them, and the same page as one HTML file."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rbml.errors import RbmlError
from rbml.reports import compare, style, wording
from rbml.reports.adaptation import metric_by_step
from rbml.reports.continual import accuracy_by_classes, by_classes, classes_table
from rbml.reports.curves import journal, learning_curve
from rbml.reports.document import Part, Picture, Report, as_html, as_markdown
from rbml.reports.evaluations import evaluations, inner_steps
from rbml.reports.facts import facts
from rbml.reports.gallery import gallery
from rbml.reports.overfitting import gap
from rbml.reports.phi import phi_figure, phi_table, tensor_table
from rbml.reports.rivals import compared, in_short, rivals_figure, rivals_table
from rbml.reports.shots import by_shots, metric_by_shots, shots_table
from rbml.reports.text import sentence
from rbml.reports.theta import theta_figure
from rbml.tasks import TaskSource
from rbml.training import RunFolder
from rbml.training.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_report(
    run: RunFolder,
    tasks: TaskSource | None,
    seed: int,
    other: RunFolder | None = None,
    *,
    inputs: TaskSource | None = None,
    missing: str = "",
) -> list[Path]:
    """Write the report of a run under ``run.plots``: figures, ``report.md`` that shows them, and ``report.html``.

    ``report.html`` is a single file that holds everything, for a screen or a telephone.

    For what is still missing (a checkpoint, an evaluation) the page names the command that makes it.

    Args:
        run: the run; it may be interrupted, or not have begun.
        tasks: where the task in the gallery comes from; ``None`` leaves it out.
        seed: which task the gallery shows.
        other: another run to compare it with.
        inputs: the same tasks with the inputs that the gallery draws, where ``tasks`` has features of them.
        missing: why there are no tasks.

    Returns:
        The files that were written, the HTML page last.

    Raises:
        CheckpointError: if the folder is not a run folder.
        UsageError: if matplotlib, Jinja2 or markdown-it-py is not installed.
        RbmlError: if a file cannot be written.
    """
    style.new_figure(1, 1, "")  # raises before anything is written if matplotlib is missing
    if other is not None:
        other.read_config()
    summary = "\n".join(wording.recipe_summary(run))
    head = in_short(evaluations(run)[0])
    try:
        run.plots.mkdir(exist_ok=True)
    except OSError as error:
        raise RbmlError(f"cannot make {run.plots}: {error.strerror}") from error
    beside = [] if other is None else _beside(run, other)
    parts = [_part(*section) for section in [*_sections(run, (tasks, inputs), seed, missing), *beside]]
    parts.append(Part("What this run is", summary))
    report = Report(run.path.resolve().name, head, parts)
    files = {f"{part.picture.name}.png": part.picture.png for part in parts if part.picture}
    files |= {"report.md": as_markdown(report).encode(), "report.html": as_html(report).encode()}
    for name, content in files.items():
        write_atomically(run.plots / name, content)
    return [run.plots / name for name in files]


Draw = Callable[[bool], "Figure | None"]
"""Draws a figure, for a telephone if the argument is true; ``None`` if there is nothing to draw."""

Section = tuple[str, str, Draw, Callable[[], str]]


def _part(title: str, name: str, draw: Draw, table: Callable[[], str]) -> Part:
    """Return one section; what cannot be drawn or told is said in it."""
    text = ""
    try:
        text = table()
        wide, narrow = draw(False), draw(True)
    except RbmlError as error:
        return Part(title, "\n".join(part for part in (text, f"{sentence(str(error))}\n") if part))
    if wide is None or narrow is None:
        return Part(title, text)
    return Part(title, text, Picture(name, style.png(wide), style.svg(wide), style.svg(narrow)))


def _sections(
    run: RunFolder, sources: tuple[TaskSource | None, TaskSource | None], seed: int, missing: str
) -> list[Section]:
    """Return the title, the figure's name, and the functions for figure and text of each section of the page."""
    (tasks, inputs), (found, problems) = sources, evaluations(run)
    name = facts(run).metric.name

    def measured() -> str:
        table = wording.evaluation_table(found) if found else f"Not measured yet: `rbml evaluate {run.path}`.\n"
        return "\n".join([table, *problems])

    def task() -> str:
        if tasks is None:
            why = missing or f"the data was not found: `rbml report {run.path} --data-root FOLDER`"
            return f"Not drawn: {why.removesuffix('.')}.\n"
        return f"Task {seed}. The learner has adapted to the support examples, and predicts each query by itself.\n"

    stepwise = {key: one for key, one in found.items() if inner_steps(one)}
    measures: list[Section] = [
        (
            name[:1].upper() + name[1:],
            "adaptation",
            lambda narrow: metric_by_step(stepwise, narrow) if stepwise else None,
            measured,
        )
    ]
    if rivals := compared(found):
        title = "Beside simple baselines"
        measures.append((title, "baselines", partial(rivals_figure, rivals), lambda: rivals_table(rivals)))
    if sized := by_shots(found):
        title = "How many examples are needed"
        measures.append((title, "shots", partial(metric_by_shots, sized), lambda: shots_table(sized)))
    if streams := by_classes(found):
        title = "What is known of a stream"
        measures.append((title, "classes", partial(accuracy_by_classes, streams), lambda: classes_table(streams)))
    return [
        *measures,
        (
            "One task",
            "gallery",
            lambda narrow: None if tasks is None else gallery(run, tasks, seed, narrow, inputs),
            task,
        ),
        ("Learning curve", "learning_curve", partial(learning_curve, run), lambda: gap(journal(run), facts(run))),
        (
            "The learning strategy, phi",
            "phi",
            partial(phi_figure, run),
            lambda: wording.phi_summary(phi_table(run), tensor_table(run)),
        ),
        ("The initialisation, theta0", "theta", partial(theta_figure, run), lambda: ""),
    ]


def _beside(run: RunFolder, other: RunFolder) -> list[Section]:
    """Return the sections of the page that compare two runs."""
    ours, theirs = compare.names(run, other)
    return [
        (
            f"{ours} beside {theirs}",
            "compare_curves",
            partial(compare.curves_compared, run, other),
            lambda: compare.differences(run, other),
        ),
        (
            f"The strategies of {ours} and {theirs}",
            "compare_phi",
            partial(compare.phi_compared, run, other),
            lambda: compare.phi_beside(run, other),
        ),
    ]
