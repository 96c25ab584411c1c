"""Train a learner while one stream goes by, with the rates that it learns as the rates of its own outer step."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils._pytree import tree_map

from rbml.data.batch import Batch
from rbml.errors import UsageError
from rbml.learner import Learner
from rbml.tasks import Replay, Stream
from rbml.tasks.base import one

RATES = "phi.clipped_sgd.lr/"
"""What the names of La-MAML's rates begin with; the name of their parameter follows."""


def learn_online(
    learner: Learner,
    stream: Stream,
    memory: int = 200,
    again: int = 10,
    rate: float = 0.1,
    glances: int = 1,
    clip: float = 2.0,
    key: int = 0,
    begin: int = 0,
) -> Iterator[float]:
    r"""Let a learner of :func:`rbml.algorithms.la_maml` learn from a stream as it comes.

    For every batch of the stream the examples are learned one by one, and the result is judged on them and on some
    from a memory of earlier ones. First the rates follow the hypergradient, then the parameters, by the new rates:

    .. math:: \alpha \leftarrow \alpha - \eta\, \nabla_\alpha L, \qquad \theta_0 \leftarrow \theta_0 - \max(\alpha, 0)
              \circ \nabla_{\theta_0} L

    Source: La-MAML (Gupta, Yadav, Paull 2020, arXiv:2007.13904, algorithm 1: asynchronous, clipped at zero). The
    learner's parameters are changed in place.

    Args:
        learner: with a rate for every weight, and as many inner steps as a batch has examples.
        stream: one stream, ``(T, b, ...)``.
        memory: how many earlier examples are kept (:class:`rbml.tasks.Replay`).
        again: how many of them judge a batch.
        rate: eta, by which the rates are learned.
        glances: how often a batch is learned before the next one comes.
        clip: the largest norm of a gradient; 0 means no clipping.
        key: of the memory.
        begin: how many batches are over already: with the state of the learner after them, learning goes on to the bit
            as if it had not stopped.

    Yields:
        The loss on the batch and its replayed examples, after each batch.

    Raises:
        UsageError: if the learner has other rates, or not one step per example of a batch; or if the stream is over
            before ``begin``.
    """
    names = dict(learner.named_parameters())
    adapted = [name for name in learner.adapted if names[f"model.{name}"].requires_grad]
    if any(f"{RATES}{name}" not in names for name in adapted):
        raise UsageError("learning online needs a rate for every weight: make the learner with rbml.algorithms.la_maml")
    size = stream.steps.y.shape[1]
    if size != learner.steps:
        raise UsageError(f"the stream brings {size} examples at a time, and the learner takes {learner.steps} steps")
    whole = Replay.of(tree_map(lambda leaf: leaf[None], stream), memory, again, [key])
    if not 0 <= begin <= len(stream.steps.y):
        raise UsageError(f"begin={begin}, but the stream has {len(stream.steps.y)} batches")
    for t in range(begin, len(stream.steps.y)):
        for _ in range(glances):
            learner.zero_grad()
            loss = learner.backward(_judged(one(whole, 0), t)).loss
            if clip:
                torch.nn.utils.clip_grad_norm_(learner.parameters(), clip)
            _step(learner, adapted, rate)
        yield float(loss)


def _judged(task: Replay, t: int) -> Stream:
    """Return a stack of one stream: the examples of step ``t`` one by one, judged on them and on what is repeated."""
    new, both = task.stream.at(t), task.at(t)
    steps: Batch = tree_map(lambda leaf: leaf[None, :, None], Batch(new.x, new.y))
    return Stream(steps, tree_map(lambda leaf: leaf[None], both))


def _step(learner: Learner, adapted: list[str], rate: float) -> None:
    """Take the outer step, the rates first."""
    names = dict(learner.named_parameters())
    with torch.no_grad():
        for name in adapted:
            weight, own = names[f"model.{name}"], names[f"{RATES}{name}"]
            if own.grad is not None:
                own.sub_(rate * own.grad)
            if weight.grad is not None:
                weight.sub_(own.clamp(min=0) * weight.grad)
