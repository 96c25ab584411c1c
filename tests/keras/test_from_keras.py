"""A converted Keras model computes what Keras does, and is learned as the same model in PyTorch is."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

pytest.importorskip("keras", reason="needs Keras: pip install 'rbml[keras]'")
if os.environ["KERAS_BACKEND"] != "torch":
    pytest.skip("these tests need KERAS_BACKEND=torch", allow_module_level=True)

import keras
import numpy as np
from keras import layers as L

import rbml
from rbml.errors import UsageError
from rbml.keras import from_keras
from rbml.strategy import Hyper, chain, momentum, sgd
from rbml.tree import Tree


def functional(*shape: int) -> Callable[[Callable[[Any], Any]], Any]:
    def build(graph: Callable[[Any], Any]) -> Any:
        x = keras.Input(shape)
        return keras.Model(x, graph(x))

    return build


def stacked(shape: tuple[int, ...], *layers: Any) -> Any:
    return keras.Sequential([L.Input(shape), *layers])


def attention(x: Any) -> Any:
    return L.Flatten()(L.MultiHeadAttention(2, 4, name="attention")(x, x) + x)


def branches(x: Any) -> Any:
    left, right = L.Dense(4, activation="tanh")(x), L.Dense(4, activation="sigmoid")(x)
    shared = L.Dense(4, activation="tanh")
    joined = [L.Concatenate(), L.Add(), L.Multiply(), L.Average(), L.Maximum()]
    return L.Concatenate()([shared(shared(left)), *(layer([left, right]) for layer in joined)])


def residual(x: Any) -> Any:
    y = L.Conv2D(3, 3, padding="same", use_bias=False)(x)
    y = L.LayerNormalization()(y)
    return L.GlobalAveragePooling2D()(keras.ops.tanh(y) + x)


def nested(x: Any) -> Any:
    inner = keras.Sequential([L.Input((5,)), L.Dense(4, activation="tanh"), L.Dense(5)], name="inner")
    return inner(inner(x))


IMAGE, SEQUENCE, FLAT = (8, 8, 3), (5, 4), (5,)
CASES: dict[str, Callable[[], Any]] = {
    "dense": lambda: stacked(FLAT, L.Dense(4, activation="tanh"), L.Dense(3)),
    "dense without bias": lambda: stacked(FLAT, L.Dense(4, use_bias=False, activation="gelu"), L.Dense(3)),
    "dense on sequences": lambda: stacked(SEQUENCE, L.Dense(4), L.Flatten()),
    "einsum dense": lambda: stacked(SEQUENCE, L.EinsumDense("abc,cd->abd", (None, 3), bias_axes="d"), L.Flatten()),
    "conv 1d": lambda: stacked(SEQUENCE, L.Conv1D(3, 3, padding="causal"), L.GlobalMaxPooling1D()),
    "conv 2d same": lambda: stacked(IMAGE, L.Conv2D(4, 3, padding="same"), L.Flatten()),
    "conv 2d valid, strides": lambda: stacked(IMAGE, L.Conv2D(4, 3, strides=2), L.Flatten()),
    "conv 2d same, strides": lambda: stacked(IMAGE, L.Conv2D(4, 3, strides=2, padding="same"), L.Flatten()),
    "conv 2d dilated": lambda: stacked(IMAGE, L.Conv2D(4, 3, dilation_rate=2, activation="tanh"), L.Flatten()),
    "conv 2d groups": lambda: stacked((8, 8, 4), L.Conv2D(4, 3, groups=2), L.Flatten()),
    "conv 2d channels first": lambda: stacked((3, 8, 8), L.Conv2D(4, 3, data_format="channels_first"), L.Flatten()),
    "conv 3d": lambda: stacked((4, 4, 4, 2), L.Conv3D(3, 2), L.Flatten()),
    "conv 2d transpose": lambda: stacked(IMAGE, L.Conv2DTranspose(2, 3, strides=2, padding="same"), L.Flatten()),
    "depthwise": lambda: stacked(IMAGE, L.DepthwiseConv2D(3, depth_multiplier=2), L.Flatten()),
    "separable": lambda: stacked(IMAGE, L.SeparableConv2D(4, 3, padding="same"), L.Flatten()),
    "separable 1d": lambda: stacked(SEQUENCE, L.SeparableConv1D(4, 3), L.Flatten()),
    "layer norm": lambda: stacked(FLAT, L.Dense(4), L.LayerNormalization()),
    "rms norm": lambda: stacked(FLAT, L.Dense(4), L.RMSNormalization()),
    "group norm": lambda: stacked(IMAGE, L.Conv2D(4, 3), L.GroupNormalization(2), L.Flatten()),
    "unit norm": lambda: stacked(FLAT, L.Dense(4), L.UnitNormalization()),
    "frozen batch norm": lambda: stacked(FLAT, L.Dense(4), L.BatchNormalization(trainable=False), L.Dense(2)),
    "max pooling": lambda: stacked(IMAGE, L.Conv2D(4, 3), L.MaxPooling2D(2), L.Flatten()),
    "average pooling": lambda: stacked(IMAGE, L.Conv2D(4, 3), L.AveragePooling2D(2, padding="same"), L.Flatten()),
    "global pooling": lambda: stacked(IMAGE, L.Conv2D(4, 3), L.GlobalMaxPooling2D()),
    "upsampling, padding, cropping": lambda: stacked(
        IMAGE, L.ZeroPadding2D(1), L.Conv2D(2, 3), L.UpSampling2D(2), L.Cropping2D(1), L.Flatten()
    ),
    "prelu": lambda: stacked(FLAT, L.Dense(4), L.PReLU(alpha_initializer="ones")),
    "embedding": lambda: stacked((5,), L.Embedding(7, 4), L.Flatten(), L.Dense(3)),
    "embedding with a mask": lambda: stacked((5,), L.Embedding(7, 4, mask_zero=True), L.GRU(3)),
    "attention": lambda: functional(*SEQUENCE)(attention),
    "gru": lambda: stacked(SEQUENCE, L.GRU(3)),
    "lstm": lambda: stacked(SEQUENCE, L.LSTM(3, return_sequences=True), L.LSTM(2)),
    "simple rnn": lambda: stacked(SEQUENCE, L.SimpleRNN(3)),
    "bidirectional": lambda: stacked(SEQUENCE, L.Bidirectional(L.GRU(3)), L.Dense(2)),
    "time distributed": lambda: stacked(SEQUENCE, L.TimeDistributed(L.Dense(3)), L.Flatten()),
    "branches": lambda: functional(*FLAT)(branches),
    "residual": lambda: functional(*IMAGE)(residual),
    "nested": lambda: functional(*FLAT)(nested),
    "fixed normalization": lambda: stacked(FLAT, L.Normalization(mean=0.3, variance=2.0), L.Dense(3)),
}


def examples(model: Any, count: int = 4) -> Tensor:
    shape = (count, *model.input_shape[1:])
    if isinstance(model.layers[0], L.Embedding):
        return torch.randint(0, 7, shape)
    return torch.randn(shape, dtype=torch.float64)


def roughened(model: Any) -> Any:
    rng = np.random.default_rng(0)
    model.set_weights([value + 0.1 * np.abs(rng.standard_normal(value.shape)) for value in model.get_weights()])
    return model


def by_keras(model: Any, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return Keras's own output, and the gradient of a loss by its variables."""
    output = model(x, training=False)
    found = torch.autograd.grad(output.pow(3).sum(), [variable.value for variable in model.trainable_variables])
    return output, list(found)


@pytest.mark.filterwarnings("ignore:.*not support masking")
@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("in_double")
def test_every_layer_computes_as_keras_does_with_values_that_are_given(name: str) -> None:
    model = roughened(CASES[name]())
    module, x = from_keras(model).eval(), examples(model)
    output, truth = by_keras(model, x)
    before = [value.copy() for value in model.get_weights()]
    given = {name: leaf.detach().clone().requires_grad_() for name, leaf in module.named_parameters()}
    with torch.no_grad():
        for leaf in module.parameters():
            leaf.zero_()  # what is given counts, and not what the module has
    found = functional_call(module, given, (x,))
    assert found.dtype == torch.float64
    assert torch.allclose(found, output, rtol=1e-12, atol=1e-12)
    leaves = {leaf.path: (name, leaf) for name, leaf in module.leaves().items()}
    trained = [leaves[variable.path] for variable in model.trainable_variables]
    grads = torch.autograd.grad(found.pow(3).sum(), [given[name] for name, _ in trained])
    for grad, (_, leaf), own in zip(grads, trained, truth, strict=True):
        assert (leaf.to_keras(grad) - own).norm() <= 1e-12 * max(1.0, float(own.norm()))
    assert all(np.array_equal(old, new) for old, new in zip(before, model.get_weights(), strict=True))


@pytest.mark.filterwarnings("ignore:.*not support masking")
@pytest.mark.parametrize("name", CASES)
def test_every_layer_is_meta_learned_alike_side_by_side_and_one_after_another(
    name: str, error: Callable[[Tree, Tree], float]
) -> None:
    module = from_keras(roughened(CASES[name]())).double()
    model = CASES[name]()
    x = torch.stack([examples(model), examples(model)])
    width = module(x[0]).shape[1]
    y = torch.randn(2, 4, width, dtype=torch.float64)
    tasks = rbml.Episodes(rbml.Batch(x, y), rbml.Batch(x.flip(1), y))
    found = []
    for vectorise in (True, False):
        execution = rbml.Execution(vectorise=vectorise)
        learner = rbml.Learner(module, sgd(Hyper(0.01, per="tensor")), 2, nn.functional.mse_loss, execution=execution)
        found.append(learner.meta_gradient(tasks).grads)  # verifies two kinds of derivative in double precision
    assert error(*found) < 1e-9


# ------------------------------------------------------------------------------------------ the same model in PyTorch


def mlp_in_keras() -> Any:
    return stacked(
        (6,), L.Dense(8, activation="tanh", name="first"), L.Dense(7, activation="tanh", name="second"),
        L.Dense(3, name="head"),
    )  # fmt: skip


def mlp_in_torch() -> nn.Module:
    parts = {"first": nn.Linear(6, 8), "a": nn.Tanh(), "second": nn.Linear(8, 7), "b": nn.Tanh()}
    return _named(parts | {"head": nn.Linear(7, 3)})


def _named(parts: dict[str, nn.Module]) -> nn.Sequential:
    model = nn.Sequential()
    for name, part in parts.items():
        model.add_module(name, part)
    return model


def conv4_in_keras() -> Any:
    blocks: list[Any] = []
    for at in range(4):
        blocks += [L.Conv2D(5, 3, padding="same", name=f"conv{at}"), L.BatchNormalization(epsilon=1e-5, name=f"bn{at}")]
        blocks += [L.Activation("tanh"), L.MaxPooling2D(2)]
    return stacked((16, 16, 1), *blocks, L.Flatten(), L.Dense(3, name="head"))


def conv4_in_torch() -> nn.Module:
    parts: dict[str, nn.Module] = {}
    for at in range(4):
        parts[f"conv{at}"] = nn.Conv2d(5 if at else 1, 5, 3, padding=1)
        parts |= {f"bn{at}": nn.BatchNorm2d(5), f"act{at}": nn.Tanh(), f"pool{at}": nn.MaxPool2d(2)}
    return _named(parts | {"flat": nn.Flatten(), "head": nn.Linear(5, 3)})


PAIRS: dict[str, tuple[Callable[[], Any], Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (mlp_in_keras, mlp_in_torch, (6,)),
    "conv4": (conv4_in_keras, conv4_in_torch, (1, 16, 16)),
}


@pytest.mark.parametrize("statistics", ["transductive", "inductive"])
@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("name", PAIRS)
def test_the_learner_is_the_one_of_the_same_pytorch_module(
    name: str, steps: int, statistics: Any, pictures: Callable[..., rbml.Episodes], error: Callable[[Tree, Tree], float]
) -> None:
    in_keras, in_torch, shape = PAIRS[name]
    module = from_keras(roughened(in_keras())).double()
    other = in_torch().double()
    other.load_state_dict(module.state_dict(), strict=False)  # the names are the same
    assert [one for one, _ in module.named_parameters()] == [one for one, _ in other.named_parameters()]
    strategy = chain(momentum(Hyper(0.5, per="layer")), sgd(Hyper(0.1, per="element", per_step=True)))
    tasks = pictures(tasks=2, shape=shape)
    moved = tasks
    if len(shape) == 3:
        moved = rbml.Episodes(*(batch._replace(x=batch.x.movedim(2, -1)) for batch in tasks))
    found, truth = (
        rbml.Learner(model, strategy, steps, statistics=statistics, execution=rbml.Execution(verify=False))
        for model in (module, other)
    )
    assert (found.head, found.ways) == (truth.head, truth.ways)
    ours, theirs = found.meta_gradient(moved), truth.meta_gradient(tasks)
    assert abs(float(ours.loss - theirs.loss)) < 1e-12
    # A bias before batch norm has no effect: its derivative is rounding, and compared with the whole gradient.
    size = max(float(leaf.norm()) for leaf in theirs.grads.values())
    assert set(ours.grads) == set(theirs.grads)
    assert max(float((ours.grads[one] - leaf).norm()) for one, leaf in theirs.grads.items()) < 1e-12 * size


# ----------------------------------------------------------------------------------------------------- what is refused


class Bare(keras.Model):
    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def call(self, x: Any) -> Any:
        return self.layer(x)


def bare() -> Any:
    model = Bare(L.Dense(3))
    model(torch.zeros(1, 5))
    return model


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "not a model": (lambda: nn.Linear(2, 2), "given a keras.Model, not torch.nn"),
    "no variables": (lambda: keras.Sequential([L.Dense(3)]), "has no variables yet: give it a keras.Input"),
    "dropout": (lambda: stacked(FLAT, L.Dense(3), L.Dropout(0.3)), r"dropout.*rate=0.3.*rbml.strategy.dropout"),
    "noise": (lambda: stacked(FLAT, L.Dense(3), L.GaussianNoise(0.1)), r"stddev=0.1"),
    "dropout in a GRU": (lambda: stacked(SEQUENCE, L.GRU(3, dropout=0.2)), r"gru.*dropout=0.2"),
    "augmentation": (lambda: stacked(IMAGE, L.RandomFlip(), L.Conv2D(2, 3)), "changes its inputs at random"),
    "spectral norm": (lambda: stacked(FLAT, L.SpectralNormalization(L.Dense(3))), "rewrites its vector"),
    "no get_config": (bare, r"cannot be copied from its configuration.*get_config\(\)"),
    "batch renormalisation": (lambda: stacked(FLAT, L.Dense(3), L.BatchNormalization(renorm=True)), "renorm=False"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_converted_is_refused_by_name(name: str) -> None:
    build, message = REFUSED[name]
    with pytest.raises(UsageError, match=message):
        from_keras(build())


def test_a_raw_keras_model_is_refused_by_the_learner() -> None:
    model = mlp_in_keras()
    for given in (model, nn.Sequential(nn.Linear(6, 6), model)):
        with pytest.raises(UsageError, match=r"rbml.keras.from_keras\(model\)"):
            rbml.Learner(given)
    with pytest.raises(UsageError, match="a PyTorch module is needed"):
        rbml.Learner(lambda x: x)  # type: ignore[arg-type]


@pytest.mark.parametrize("end", [[L.Dense(3, activation="softmax")], [L.Dense(3), L.Softmax()]])
def test_a_softmax_is_refused_with_a_loss_of_logits_and_can_be_left_out(end: list[Any]) -> None:
    model = stacked(FLAT, L.Dense(4, activation="tanh"), *(type(part).from_config(part.get_config()) for part in end))
    x = torch.randn(4, 5)
    with pytest.raises(UsageError, match="the model gives probabilities"):
        rbml.Learner(from_keras(model))
    rbml.Learner(from_keras(model), loss=lambda p, y: nn.functional.nll_loss(p.log(), y))
    logits = from_keras(model, logits=True)
    rbml.Learner(logits)
    assert torch.allclose(logits(x).softmax(1), model(x), atol=1e-6)
    with pytest.raises(UsageError, match="there is none"):
        from_keras(mlp_in_keras(), logits=True)


def test_regularizers_are_left_out_with_a_warning() -> None:
    with pytest.warns(UserWarning, match=r"left out \(.*dense.*/kernel\)"):
        from_keras(stacked(FLAT, L.Dense(3, kernel_regularizer="l2")))


def test_batch_norm_on_masked_inputs_is_refused() -> None:
    model = stacked((5,), L.Embedding(7, 4, mask_zero=True), L.BatchNormalization(name="bn"), L.GRU(3))
    with pytest.raises(UsageError, match="bn is a batch norm whose inputs have a mask"):
        from_keras(model)(torch.ones(2, 5, dtype=torch.int64))
