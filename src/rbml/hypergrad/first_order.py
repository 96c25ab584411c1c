"""The hypergradient without second derivatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rbml.hypergrad.adjoint import sweep
from rbml.hypergrad.base import MetaGradient, refuse_blind
from rbml.inner import Inner
from rbml.tree import Tree


@dataclass(frozen=True)
class FirstOrder:
    r"""Treat every inner gradient as a constant: the adjoint sweep without its second part.

    .. math:: \frac{\partial}{\partial \theta_t} \nabla_\theta\, objective(\theta_t) := 0

    For plain SGD the derivative with respect to :math:`\theta_T` becomes that of theta0 unchanged: FOMAML (Finn et al.
    2017, arXiv:1703.03400, section 5.2). Numbers of rules (a learning rate, a momentum) get the part of their
    derivative that does not pass through an inner gradient. Approximate. Memory: as ``Adjoint(store="all")``. Time: one
    gradient per step, about half of an exact engine.

    It is blind to meta-parameters that enter only through the inner objective, such as the strength of an l2 term.

    Raises:
        BlindError: when called with such a meta-parameter.
    """

    approximate: ClassVar[bool] = True

    def __call__(self, inner: Inner, m: Tree) -> MetaGradient:
        """Return the outer loss and its approximate derivative with respect to ``m``."""
        blind = [name for name in m if inner.enters.get(name) == frozenset({"objective"})]
        why = "they enter only through the inner gradient, which it treats as a constant"
        refuse_blind("FirstOrder", blind, why, "Adjoint or Unrolled")
        return sweep(inner, m, first=0, hvp=None)
