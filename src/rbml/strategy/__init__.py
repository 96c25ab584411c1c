"""Learning strategies: how one step changes theta, and what of that is learned."""

from rbml.strategy.adaptive import adagrad, adam, lion, nadam, rmsprop
from rbml.strategy.base import Gate, Part, Rule, Start, Term, Values, part
from rbml.strategy.bayesian import bayesian_linear
from rbml.strategy.chain import Strategy, chain
from rbml.strategy.clipped_sgd import clipped_sgd
from rbml.strategy.descent import momentum, sgd, weight_decay
from rbml.strategy.draws import normal, uniform
from rbml.strategy.ewc import ewc
from rbml.strategy.example_weights import example_weights, weight_net
from rbml.strategy.fresh_rows import fresh_rows
from rbml.strategy.gates import dropout
from rbml.strategy.generated import alfa, attenuate
from rbml.strategy.heads import prototype, ridge, zero
from rbml.strategy.hyper import Hyper, Scalar
from rbml.strategy.knots import knots
from rbml.strategy.lda import lda
from rbml.strategy.learned_loss import metal, ml3
from rbml.strategy.learned_optimizer import learned_lstm, learned_optimizer
from rbml.strategy.limits import clip_norm, clip_value, noise
from rbml.strategy.penalties import confidence, l1, l2, label_smoothing, proximal, tempered
from rbml.strategy.precondition import kronecker, low_rank
from rbml.strategy.restrict import only
from rbml.strategy.ridge_cv import ridge_cv
from rbml.strategy.running_mean import running_mean
from rbml.strategy.schedules import cosine, exponential, inverse_time, piecewise, polynomial, warmup
from rbml.strategy.settle import settle
from rbml.strategy.views import Features, StepInfo, TermInputs
from rbml.strategy.warp_pictures import warp_pictures
from rbml.strategy.weights import Weights

ALL = {
    "sgd": sgd,
    "momentum": momentum,
    "weight_decay": weight_decay,
    "rmsprop": rmsprop,
    "adagrad": adagrad,
    "adam": adam,
    "nadam": nadam,
    "lion": lion,
    "cosine": cosine,
    "polynomial": polynomial,
    "exponential": exponential,
    "inverse_time": inverse_time,
    "warmup": warmup,
    "piecewise": piecewise,
    "knots": knots,
    "clip_norm": clip_norm,
    "clip_value": clip_value,
    "noise": noise,
    "l2": l2,
    "l1": l1,
    "proximal": proximal,
    "label_smoothing": label_smoothing,
    "tempered": tempered,
    "confidence": confidence,
    "dropout": dropout,
    "warp_pictures": warp_pictures,
    "kronecker": kronecker,
    "low_rank": low_rank,
    "alfa": alfa,
    "attenuate": attenuate,
    "learned_optimizer": learned_optimizer,
    "learned_lstm": learned_lstm,
    "ml3": ml3,
    "metal": metal,
    "example_weights": example_weights,
    "weight_net": weight_net,
    "prototype": prototype,
    "ridge": ridge,
    "ridge_cv": ridge_cv,
    "bayesian_linear": bayesian_linear,
    "zero": zero,
    "lda": lda,
    "fresh_rows": fresh_rows,
    "settle": settle,
    "running_mean": running_mean,
    "ewc": ewc,
    "clipped_sgd": clipped_sgd,
}

__all__ = [
    "ALL",
    "Features",
    "Gate",
    "Hyper",
    "Part",
    "Rule",
    "Scalar",
    "Start",
    "StepInfo",
    "Strategy",
    "Term",
    "TermInputs",
    "Values",
    "Weights",
    "adagrad",
    "adam",
    "alfa",
    "attenuate",
    "bayesian_linear",
    "chain",
    "clip_norm",
    "clip_value",
    "clipped_sgd",
    "confidence",
    "cosine",
    "dropout",
    "ewc",
    "example_weights",
    "exponential",
    "fresh_rows",
    "inverse_time",
    "knots",
    "kronecker",
    "l1",
    "l2",
    "label_smoothing",
    "lda",
    "learned_lstm",
    "learned_optimizer",
    "lion",
    "low_rank",
    "metal",
    "ml3",
    "momentum",
    "nadam",
    "noise",
    "normal",
    "only",
    "part",
    "piecewise",
    "polynomial",
    "prototype",
    "proximal",
    "ridge",
    "ridge_cv",
    "rmsprop",
    "running_mean",
    "settle",
    "sgd",
    "tempered",
    "uniform",
    "warmup",
    "warp_pictures",
    "weight_decay",
    "weight_net",
    "zero",
]
