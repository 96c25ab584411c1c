"""Hypergradient engines: ``engine(inner, m) -> MetaGradient``. They work on functions and trees alone."""

from rbml.hypergrad import online
from rbml.hypergrad.adjoint import Adjoint
from rbml.hypergrad.base import Hypergradient, MetaGradient, directional_difference
from rbml.hypergrad.evolution import Evolution, Particles
from rbml.hypergrad.first_order import FirstOrder
from rbml.hypergrad.forward import Forward
from rbml.hypergrad.implicit import Implicit
from rbml.hypergrad.reptile import Reptile
from rbml.hypergrad.sama import Sama
from rbml.hypergrad.solve import GMRES, ConjugateGradient, Neumann, NormalEquations, Nystrom
from rbml.hypergrad.unrolled import Unrolled
from rbml.hypergrad.value_function import ValueFunction
from rbml.hypergrad.windowed import Windowed

ALL = {
    "adjoint": Adjoint,
    "unrolled": Unrolled,
    "forward": Forward,
    "first_order": FirstOrder,
    "implicit": Implicit,
    "reptile": Reptile,
    "sama": Sama,
    "value_function": ValueFunction,
    "evolution": Evolution,
    "windowed": Windowed,
}

SOLVERS = {
    "conjugate_gradient": ConjugateGradient,
    "normal_equations": NormalEquations,
    "neumann": Neumann,
    "nystrom": Nystrom,
    "gmres": GMRES,
}

__all__ = [
    "ALL",
    "GMRES",
    "SOLVERS",
    "Adjoint",
    "ConjugateGradient",
    "Evolution",
    "FirstOrder",
    "Forward",
    "Hypergradient",
    "Implicit",
    "MetaGradient",
    "Neumann",
    "NormalEquations",
    "Nystrom",
    "Particles",
    "Reptile",
    "Sama",
    "Unrolled",
    "ValueFunction",
    "Windowed",
    "directional_difference",
    "online",
]
