"""Learning strategies: how one step changes theta, and what of that is learned."""

from rbml.strategy.base import Rule, Strategy, Term, chain
from rbml.strategy.descent import momentum, sgd, weight_decay
from rbml.strategy.hyper import Hyper
from rbml.strategy.penalties import l2

ALL = {
    "sgd": sgd,
    "momentum": momentum,
    "weight_decay": weight_decay,
    "l2": l2,
}

__all__ = ["ALL", "Hyper", "Rule", "Strategy", "Term", "chain", "l2", "momentum", "sgd", "weight_decay"]
