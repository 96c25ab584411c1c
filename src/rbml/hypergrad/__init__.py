"""Hypergradient engines: ``engine(inner, m) -> MetaGradient``. They see functions and trees, and nothing else."""

from rbml.hypergrad.adjoint import Adjoint
from rbml.hypergrad.base import Hypergradient, MetaGradient, directional_difference
from rbml.hypergrad.first_order import FirstOrder
from rbml.hypergrad.unrolled import Unrolled

ALL = {
    "adjoint": Adjoint,
    "unrolled": Unrolled,
    "first_order": FirstOrder,
}

__all__ = ["ALL", "Adjoint", "FirstOrder", "Hypergradient", "MetaGradient", "Unrolled", "directional_difference"]
