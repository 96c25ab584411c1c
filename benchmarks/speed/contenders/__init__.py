"""Who computes the meta-gradient; a contender's library is imported only in its own process."""

from __future__ import annotations

from typing import get_args

from rbml.hypergrad import Adjoint, Unrolled
from rbml.learner.options import Compile
from speed.problem import Contender

ALL: dict[str, Contender] = {
    "higher": Contender("by_higher", peer=True),
    "torchopt": Contender("by_torchopt", peer=True),
    "plain": Contender("plain"),
    "vmap": Contender("bare"),
    "jax": Contender("by_jax"),
    "rbml": Contender("rbml_"),
    "rbml-adjoint": Contender("rbml_", {"engine": Adjoint(keep=1)}),
    "rbml-unrolled": Contender("rbml_", {"engine": Unrolled()}),
    **{f"rbml-{mode}": Contender("rbml_", {"compile": mode}) for mode in get_args(Compile) if mode != "no"},
}
