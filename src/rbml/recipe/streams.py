"""The independent streams of random numbers of a run: a generator's key is ``(seed, stream, ...)``."""

from __future__ import annotations

TRAIN, VALIDATE, TEST, START, PRETRAIN, SEEN = range(6)
"""Training tasks, validation tasks, test tasks, initial weights, batches of pretraining, and tasks of the
training part for validations."""
