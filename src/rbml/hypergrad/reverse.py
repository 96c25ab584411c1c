"""Keep one carry instead of T: go back by undoing every step, in floating point or bit for bit in fixed point."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, func

from rbml.errors import UsageError
from rbml.hypergrad.fixed_point import Decays, decays, decode, encode, packed, rescaled, unpacked
from rbml.hypergrad.trajectory import SavedStep, Trajectory
from rbml.inner import Carry, Inner, Undo, roll
from rbml.tree import Tree, add, norm, pick, tmap

# ----------------------------------------------------------------------------------------------------- floating point


def plainly(inner: Inner, m: Tree, first: int) -> Trajectory:
    """Undo every step in floating point; each step back enlarges the rounding error by the factor 1 / decay.

    Args:
        inner: the problem.
        m: the meta-parameters.
        first: the first step that is differentiated.

    Raises:
        UsageError: if a step cannot be undone.
    """
    undo = inner.undo()
    if undo.ratio == 0:
        raise UsageError("with a decay of 0 a step cannot be undone, its sum is lost: use Adjoint(store='segments')")
    begin = roll(inner, inner.start(m), m, stop=first)
    last = roll(inner, begin, m, start=first)

    def back() -> Iterator[SavedStep]:
        carry = last
        for t in reversed(range(first, inner.steps)):
            grads, carry = _undone(inner, undo, carry, m, t)
            yield SavedStep(t, grads, carry)

    return Trajectory(inner, last, back(), lambda found: {"drift": _distance(found, begin)})


def _undone(inner: Inner, undo: Undo, after: Carry, m: Tree, t: int) -> tuple[Tree, Carry]:
    """Return the inner gradient of step ``t`` and the carry before it."""
    # In the reverse order of a step: theta first, since the gradient was taken there; then the sum that it entered.
    decay = undo.decay(m, t)
    sums = pick(after.state, decay)
    theta = add(after.theta, undo.outflow(sums, m, t))
    grads = func.grad(inner.objective)(theta, m, t)
    sums = tmap(lambda s, flow, rate: (s - flow) / rate, sums, undo.inflow(grads, theta, m, t), decay)
    rest = {name: after.state[name] - gain for name, gain in undo.gain(after.theta, m, t).items()}
    return grads, Carry(theta, sums | rest)


def _distance(found: Carry, truth: Carry) -> Tensor:
    """Return the distance between two carries relative to the size of the true one."""
    one, other = (_whole(carry) for carry in (found, truth))
    length = norm(other)
    return norm(tmap(torch.sub, one, other)) / length.clamp(min=torch.finfo(length.dtype).tiny)


def _whole(carry: Carry) -> Tree:
    return {f"theta.{name}": leaf for name, leaf in carry.theta.items()} | carry.state


# -------------------------------------------------------------------------------------------------------- bit for bit


class Units(NamedTuple):
    """A carry in fixed point.

    Attributes:
        theta: the adapted parameters.
        sums: the running sums of the rule that keeps them.
        rest: other state that only accumulates, such as the weighted query loss.
        buffer: the information buffer, with the remainders of multiplying the sums by their decay.
    """

    theta: Tree
    sums: Tree
    rest: Tree
    buffer: Tree


def exactly(inner: Inner, m: Tree, first: int) -> Trajectory:
    """Run the inner loop in fixed point with an information buffer, and undo every step bit for bit.

    Args:
        inner: the problem.
        m: the meta-parameters.
        first: the first step that is differentiated.

    Raises:
        UsageError: if a step cannot be undone, or the decay may leave the interval from 0 to 1.
    """
    undo = inner.undo()
    ratios = decays(undo.ratio, undo.span)
    full = ratios.spills(first, inner.steps)
    early = roll(inner, inner.start(m), m, stop=first)
    run = Exactly(inner, undo, ratios, m, early)
    begin = at = run.encoded(early, first)
    spilled: list[dict[str, tuple[Tensor, Tensor]]] = []
    largest = torch.zeros(())
    for t in range(first, inner.steps):
        if t in full:  # fixed before the run for the smallest decay, so that it does not depend on data under vmap
            spilled.append({name: packed(leaf) for name, leaf in at.buffer.items()})
            at = at._replace(buffer=tmap(torch.zeros_like, at.buffer))
        at, size = run.forward(at, t)
        largest = torch.maximum(largest, size)
    last, ends = at, [at]

    def back() -> Iterator[SavedStep]:
        while ends:
            at = ends.pop()
            for t in reversed(range(first, inner.steps)):
                grads, at = run.backward(at, t)
                if t in full:  # before step t the buffer was stored away and emptied: put it back
                    at = at._replace(buffer={name: unpacked(*leaf) for name, leaf in spilled.pop().items()})
                yield SavedStep(t, grads, run.decoded(at))
        ends.append(at)  # the first carry as it was found again, for the report

    def report(found: Carry) -> Tree:
        wrong = [
            (one[name] != leaf).sum() for one, two in zip(ends[0], begin, strict=True) for name, leaf in two.items()
        ]
        return {
            "wrong": torch.stack(wrong).sum(),
            "bits": torch.tensor(ratios.bits(first, inner.steps)),
            "largest": largest,
        }

    update: Any = run.update  # its steps are plain numbers, never tensors
    rounded = replace(inner, update=update)
    return Trajectory(rounded, run.decoded(last), back(), report)


@dataclass(frozen=True)
class Exactly:
    """An inner loop in fixed point.

    Attributes:
        inner: the problem.
        undo: its step, split into parts that can be undone.
        ratios: its decays as fractions.
        m: the meta-parameters.
        like: a carry with the names and types of the values.
    """

    inner: Inner
    undo: Undo
    ratios: Decays
    m: Tree
    like: Carry

    def encoded(self, carry: Carry, t: int) -> Units:
        """Return the carry before step ``t`` in fixed point, with an empty buffer.

        Under ``vmap`` a start that all tasks share would be multiplied by a different kernel than the carries that each
        task recovers on its way back, and would be rounded differently. Adding zero times each task's gradient makes
        the start a tensor of each task.
        """
        sums = {name: encode(carry.state[name]) for name in self.undo.decay(self.m, 0)}
        rest = {name: encode(leaf) for name, leaf in carry.state.items() if name not in sums}
        nothing = func.grad(self.inner.objective)(carry.theta, self.m, t)
        theta = tmap(lambda p, g: encode(p) + 0 * encode(g), carry.theta, nothing)
        return Units(theta, sums, rest, tmap(torch.zeros_like, sums))

    def decoded(self, at: Units) -> Carry:
        """Return a fixed-point carry as floating-point values."""
        return Carry(self._values(at.theta, self.like.theta), self._values(at.sums | at.rest, self.like.state))

    @staticmethod
    def _values(units: Tree, like: Tree) -> Tree:
        return {name: decode(leaf, like[name]) for name, leaf in units.items()}

    def forward(self, at: Units, t: int) -> tuple[Units, Tensor]:
        """Take step ``t``; also return the largest number that had to be represented."""
        theta = self._values(at.theta, self.like.theta)
        _, flow = self._flow(theta, t)
        sums, buffer = self._rescaled(at, t, back=False)
        sums = add(sums, tmap(encode, flow))
        values = self._values(sums, self.like.state)
        out = self.undo.outflow(values, self.m, t)
        after = tmap(lambda p, d: p - encode(d), at.theta, out)
        rest = add(at.rest, self._gain(after, t))
        sizes = [*tmap(_size, theta, out).values(), *tmap(_size, values, flow).values()]
        return Units(after, sums, rest, buffer), torch.stack(sizes).max()

    def backward(self, at: Units, t: int) -> tuple[Tree, Units]:
        """Undo step ``t``; return its inner gradient and the carry before it."""
        # Exactly the operations of `forward` in reverse order, on the same floating-point inputs.
        rest = tmap(torch.sub, at.rest, self._gain(at.theta, t))
        out = self.undo.outflow(self._values(at.sums, self.like.state), self.m, t)
        before = add(at.theta, tmap(encode, out))
        grads, flow = self._flow(self._values(before, self.like.theta), t)
        sums = tmap(lambda s, d: s - encode(d), at.sums, flow)
        sums, buffer = self._rescaled(at._replace(sums=sums), t, back=True)
        return grads, Units(before, sums, rest, buffer)

    def update(self, grads: Tree, carry: Carry, m: Tree, t: int) -> Carry:
        """Take the step that was actually taken, with decays as fractions, and ignore rounding in its derivative."""
        flow, decay = self.undo.inflow(grads, carry.theta, m, t), self.undo.decay(m, t)
        sums = {name: self.ratios.value(rate) * carry.state[name] + flow[name] for name, rate in decay.items()}
        theta = tmap(torch.sub, carry.theta, self.undo.outflow(sums, m, t))
        rest = {name: leaf for name, leaf in carry.state.items() if name not in sums}
        return Carry(theta, sums | add(rest, self.undo.gain(theta, m, t)))

    def _flow(self, theta: Tree, t: int) -> tuple[Tree, Tree]:
        """Return the inner gradient and what it adds to the sums, by the same operations in both directions."""
        grads = func.grad(self.inner.objective)(theta, self.m, t)
        return grads, self.undo.inflow(grads, theta, self.m, t)

    def _gain(self, theta: Tree, t: int) -> Tree:
        return tmap(encode, self.undo.gain(self._values(theta, self.like.theta), self.m, t))

    def _rescaled(self, at: Units, t: int, back: bool) -> tuple[Tree, Tree]:
        sums, buffer = {}, {}
        for name, rate in self.undo.decay(self.m, t).items():
            ratio = self.ratios.numerator(rate), self.ratios.denominator
            up, down = reversed(ratio) if back else ratio
            sums[name], buffer[name] = rescaled(at.sums[name], at.buffer[name], up, down)
        return sums, buffer


def _size(values: Tensor, change: Tensor) -> Tensor:
    return (values.abs() + change.abs()).max()
