"""How a run on streams of classes is measured on longer ones, for ``rbml evaluate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rbml import models
from rbml.cli.show import bar, console, table
from rbml.learner import Initial, Learner
from rbml.learner.initial import head_names
from rbml.recipe.streams import TEST
from rbml.strategy import Start, chain, lda, prototype, sgd
from rbml.tasks import Continual, generator, task_seeds
from rbml.training import Score
from rbml.training.continual import follow

MARKS = (10, 50, 100, 200, 600)
"""After how many classes a learner is measured, as far as the data has so many."""

STREAMS = 2
"""How many streams it goes through."""

LEARNED, HEAD = "learned", "its head alone"
MEANS, DISCRIMINANT = "class means of its features", "streaming LDA of its features"


def by_classes(learner: Learner, source: Continual, seed: int) -> dict[str, Any]:
    """Follow a learner, and heads that need no steps on its features, through streams of as many classes as there are.

    A learner that adapts more than its head is followed with its head alone adapted too, as ANML is tested (Beaulieu et
    al. 2020, arXiv:2002.09571).

    Args:
        learner: the learner.
        source: streams of the classes to measure on, which say how many examples there are per class and per step.
        seed: of the streams.
    """
    most = min(len(source.names), MARKS[-1])
    most -= next(fewer for fewer in range(most) if (most - fewer) * source.shots % source.batch == 0)
    marks = [mark for mark in MARKS if mark < most] + [most]
    streams = source.of_classes(most).draw(task_seeds(STREAMS, generator(seed, TEST)))
    followed = {LEARNED: learner}
    if learner.head and learner.strategy.start is None:
        if set(learner.adapted) - set(head_names(learner.model, learner.initial.head.pattern)):
            alone = _head_alone(learner, learner.strategy, learner.steps)
            known, own = learner.phi.state_dict(), alone.phi.state_dict()
            alone.phi.load_state_dict({name: known.get(name, leaf) for name, leaf in own.items()})
            followed[HEAD] = alone
        heads = {MEANS: prototype(), DISCRIMINANT: lda()}
        followed |= {name: _made_head(learner, head) for name, head in heads.items()}
    lines, measures = {}, {}
    with bar(len(followed), what=f"streams of {most} classes") as progress:
        for name, one in followed.items():
            found = follow(one, streams, marks, forward=True)
            lines[name] = [asdict(score) for score in found.accuracy()]
            of = {
                "just learned": found.learning,
                "backward transfer": found.backward,
                "forward transfer": found.forward,
            }
            measures[name] = {measure: asdict(score()) for measure, score in of.items()}
            progress.advance(progress.task_ids[0])
    return {"marks": marks, "shots": source.shots, "streams": STREAMS, "lines": lines, "measures": measures}


def show_by_classes(found: Mapping[str, Any]) -> None:
    """Print the accuracy by the number of classes seen, and what was forgotten."""
    names = list(found["lines"])
    rows = [
        [str(mark), *_cells(found["lines"][name][place] for name in names)] for place, mark in enumerate(found["marks"])
    ]
    title = (
        f"accuracy in % over all classes seen so far: {found['streams']} streams, {found['shots']} examples per class"
    )
    table(title, ["classes seen", *names], rows)
    measures = list(found["measures"][names[0]])
    table(
        "in %: classes that have just been learned; what later ones did to them (forgetting, and more rivals); what "
        "earlier ones did for them (accuracy among themselves, less that of a stream which begins with them)",
        ["measure", *names],
        [[measure, *_cells(found["measures"][name][measure] for name in names)] for measure in measures],
    )
    finals = {name: found["lines"][name][-1]["mean"] for name in names}
    best = max(finals, key=finals.__getitem__)
    if best != LEARNED:
        console.print(f"At {found['marks'][-1]} classes {best} knows more than the learner's own steps.")


def _made_head(learner: Learner, head: Start) -> Learner:
    """Return the learner's features with a head that is made from examples, at one length where cosines see them so."""
    layer = learner.head[0].rpartition(".")[0]
    if not isinstance(learner.model.get_submodule(layer), models.CosineHead):
        return _head_alone(learner, chain(head, sgd(0.1)), 0)
    model, how = models.with_linear_head(learner.model, layer), learner.execution
    return Learner(
        model, chain(head, sgd(0.1)), 0, learner.loss, Initial("head"), statistics=learner.statistics, execution=how
    )


def _head_alone(learner: Learner, strategy: Any, steps: int) -> Learner:
    """Return the learner's features with a head that another strategy learns."""
    initial = Initial("head", learner.initial.head)
    loss, how = learner.loss, learner.execution
    return Learner(learner.model, strategy, steps, loss, initial, statistics=learner.statistics, execution=how)


def _cells(scores: Sequence[Mapping[str, Any]] | Any) -> list[str]:
    return [Score(**score).shown("%") for score in scores]
