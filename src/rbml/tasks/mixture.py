"""Tasks from several sources in one outer step."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rbml.data.inputs import Modality
from rbml.data.targets import Target
from rbml.errors import UsageError
from rbml.tasks.base import Episode, TaskSource, count, generator, one, task_seeds
from rbml.tasks.padding import Sizes, stack

_CHOICE = 1
"""The stream from which a task's source is drawn; the source itself uses the seed without a stream."""


class Mixture:
    """Tasks of several sources with the same modality and target.

    The source of each task is drawn by the task's seed, all equally likely: a task depends only on its own seed. If
    the sources differ in ways, shots or queries, every task is padded to the largest of each, with masks
    (:func:`rbml.tasks.padding.stack`), so that all stacks have the same form.

    Args:
        sources: at least one.

    Raises:
        UsageError: if there are no sources, or they differ in modality, target or the shape of their examples.
    """

    def __init__(self, sources: Sequence[TaskSource]) -> None:
        """Check that the sources belong together."""
        if not sources:
            raise UsageError("a mixture needs at least one source of tasks.")
        self.sources = list(sources)
        first = self.sources[0]
        self.modality: Modality = first.modality
        self.target: Target = first.target
        for other in self.sources[1:]:
            _check_same(first, other)
        self.outputs = max(source.outputs for source in self.sources)
        self.ways = self.outputs if all(hasattr(source, "ways") for source in self.sources) else None
        self.about = "; ".join(source.about for source in self.sources)
        examples = [one(source.draw([0]), 0) for source in self.sources]
        stack(examples)  # raises if the shapes differ
        sizes = [Sizes.of(task) for task in examples]
        self.sizes = None if len(set(sizes)) == 1 else Sizes.largest(sizes)

    def __repr__(self) -> str:
        """Return the sources in one line."""
        return f"Mixture([{', '.join(map(repr, self.sources))}])"

    def sample(self, count: int, generator: torch.Generator) -> Episode:
        """Draw ``count`` tasks."""
        return self.draw(task_seeds(count, generator))

    def draw(self, seeds: Sequence[int]) -> Episode:
        """Return the tasks of the given seeds: the same seed always gives the same task."""
        return self._drawn(seeds, stored=False)

    def stored(self, seeds: Sequence[int]) -> Episode:
        """Return the tasks of the given seeds with the inputs as they are stored, in which form they can be shown."""
        return self._drawn(seeds, stored=True)

    def chosen_source(self, seed: int) -> int:
        """Return the number of the source from which the task of ``seed`` comes."""
        return int(torch.randint(len(self.sources), (), generator=generator(seed, _CHOICE)))

    def _drawn(self, seeds: Sequence[int], stored: bool) -> Episode:
        if not seeds:
            raise UsageError("no tasks were asked for: the count must be at least 1.")
        places = [self.chosen_source(seed) for seed in seeds]
        tasks: dict[int, Episode] = {}
        for place, source in enumerate(self.sources):
            own = [index for index, chosen in enumerate(places) if chosen == place]
            if own:  # all tasks of a source are drawn at once: one gather
                draw = getattr(source, "stored", source.draw) if stored else source.draw
                drawn = draw([seeds[index] for index in own])
                tasks |= {index: one(drawn, row) for row, index in zip(range(count(drawn)), own, strict=True)}
        return stack([tasks[index] for index in range(len(seeds))], self.sizes)


def _check_same(first: TaskSource, other: TaskSource) -> None:
    if (first.target.kind, first.target.spec) != (other.target.kind, other.target.spec):
        raise UsageError(
            f"the sources of a mixture need one kind of target, not {_shown(first.target)} ({first.about}) and "
            f"{_shown(other.target)} ({other.about})"
        )
    kinds = [(source.modality.kind, source.modality.spec()) for source in (first, other)]
    if kinds[0] != kinds[1]:
        described = [f"{kind} {spec or ''}".strip() for kind, spec in kinds]
        raise UsageError(
            f"the sources of a mixture need one kind of inputs, not {described[0]} ({first.about}) and {described[1]} "
            f"({other.about}): read both with the same options, such as size and channels"
        )


def _shown(target: Target) -> str:
    return f"{target.kind} {dict(target.spec) or ''}".strip()
