"""Learning strategies: how one step changes theta, and what of that is learned."""

from rbml.strategy.base import Features, Moment, Part, Rule, Scene, Start, Strategy, Term, chain, part
from rbml.strategy.descent import momentum, sgd, weight_decay
from rbml.strategy.hyper import Hyper
from rbml.strategy.penalties import l2
from rbml.strategy.random import normal, uniform
from rbml.strategy.weights import Weights

ALL = {
    "sgd": sgd,
    "momentum": momentum,
    "weight_decay": weight_decay,
    "l2": l2,
}

__all__ = [
    "ALL",
    "Features",
    "Hyper",
    "Moment",
    "Part",
    "Rule",
    "Scene",
    "Start",
    "Strategy",
    "Term",
    "Weights",
    "chain",
    "l2",
    "momentum",
    "normal",
    "part",
    "sgd",
    "uniform",
    "weight_decay",
]
