"""Learn the learning rate of a training run inside Keras on TensorFlow, by backpropagation through the whole run.

    pip install rbml tensorflow-cpu scikit-learn
    python examples/keras_metamodel.py [--steps 1000]

A dense network of 128 units, real digits, and a learning rate that is a trainable variable and starts at random. The
rate receives a gradient from the validation loss *after* the run; Keras's Adam follows it. Beside it stand fixed rates
from the same weights on the same mini-batches. The test set is used for the last column only.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np

from rbml.data import load
from rbml.keras import MetaModel
from rbml.strategy import Hyper, sgd

FIXED = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def run_of(steps: int, seed: int) -> MetaModel:
    """Return a training run from fixed initial weights, of which only the rate can be learned."""
    rate = Hyper((0.001, 0.1), bounds=(0, None))  # drawn at random, kept above zero
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Flatten(), keras.layers.Dense(128, "tanh"), keras.layers.Dense(10)]
    network = keras.Sequential([keras.Input((28, 28)), *layers])
    meta = MetaModel(network, sgd(rate), steps, reset="*", seed=seed)
    meta.compile(keras.optimizers.Adam(0.3), loss=LOSS, metrics=["accuracy"])
    return meta


def main(arguments: list[str] | None = None) -> None:
    """Learn the rate and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000, help="inner steps: the length of the training run")
    parser.add_argument("--outer-steps", type=int, default=15)
    parser.add_argument("--batch", type=int, default=32, help="examples per inner step")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)

    digits, draw = load("digits", "test"), np.random.default_rng(options.seed)
    x, y = digits.x.numpy().reshape(-1, 28, 28).astype("float32") / 255, digits.y.numpy()
    train, val, test = np.array_split(draw.permutation(len(y)), 3)
    rows = draw.choice(train, (1, options.steps, options.batch))  # one task: a stream of mini-batches
    stream, judged = (
        (x[rows], y[rows]),
        {"validation": (x[val][None], y[val][None]), "test": (x[test][None], y[test][None])},
    )

    learned = run_of(options.steps, options.seed)
    start = learned.learned()["sgd.lr"]
    # Past the best rate the run soon diverges, and its gradient says little: keep the rate that validated best.
    best = keras.callbacks.EarlyStopping("val_loss", patience=3, restore_best_weights=True)
    held_out = (stream, judged["validation"])
    history = learned.fit(
        stream, judged["validation"], epochs=options.outer_steps, validation_data=held_out, callbacks=[best], verbose=0
    )
    losses = ", ".join(f"{loss:.3f}" for loss in history.history["val_loss"])
    print(f"validation loss, outer step by outer step: {losses}")
    rates = {f"learned, from {start:.3g}": learned.learned()["sgd.lr"], "fixed at its start": start}
    rates |= {f"fixed at {rate:g}": rate for rate in FIXED}
    print(f"\n{'rate':32}" + "".join(f"{name + ' loss':>16} {'error':>7}" for name in judged))
    for name, rate in rates.items():
        learned.phi["sgd.lr"].assign(np.log(rate))  # its bounds keep it above zero: the variable is the logarithm
        found = [learned.evaluate(stream, query, verbose=0, return_dict=True) for query in judged.values()]
        row = "".join(f"{one['loss']:16.4f} {100 - 100 * one['accuracy']:6.1f}%" for one in found)
        print(f"{name:24} {rate:7.3g}{row}", flush=True)


if __name__ == "__main__":
    main()
