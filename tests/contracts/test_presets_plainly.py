"""Presets against independent code: a loop over tasks, ``torch.autograd.grad(create_graph=True)``, formulas by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from rbml import Episodes, Learner, algorithms, models
from rbml.hypergrad import Adjoint, FirstOrder, Unrolled
from rbml.learner.options import curriculum_of
from rbml.strategy import Hyper, Scalar
from rbml.tree import Tree, under

Pictures = Callable[..., Episodes]
Errors = Callable[[Tree, Tree], float]
Roughened = Callable[[nn.Module], nn.Module]
Task = tuple[Tensor, Tensor, Tensor, Tensor]


def net(outputs: int = 3, inputs: int = 144, context: int = 0) -> models.MLP:
    return models.MLP(inputs, outputs, (6, 5), nn.Tanh, context=context)


def compare(learner: Learner, episodes: Episodes, one: Callable[[Tree, Task], Tensor], error: Errors) -> None:
    """Hold the exact engines against the mean of ``one(leaves, task)`` over the tasks, for every learned leaf."""
    own = {name: leaf.detach().clone() for name, leaf in learner.named_parameters() if leaf.requires_grad}
    leaves = {name: leaf.requires_grad_() for name, leaf in own.items()}
    tasks = list(zip(*episodes.support[:2], *episodes.query[:2], strict=True))
    loss = torch.stack([one(leaves, task) for task in tasks]).mean()
    truth = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
    assert min(float(grad.norm()) for grad in truth.values()) > 1e-9, "a test of zeros is none"
    for engine in (Unrolled(), Adjoint(keep=1)):
        learner.hypergradient = engine
        result = learner.meta_gradient(episodes)
        assert torch.allclose(result.loss, loss, rtol=1e-12)
        assert error(result.grads, truth) < 1e-10, engine


def features(model: models.MLP, parameters: Tree, x: Tensor) -> Tensor:
    hidden: Tensor = functional_call(model.body, under(parameters, "body."), (x,))
    return hidden


def prototypes(model: models.MLP, theta: Tree, x: Tensor, y: Tensor, scale: Tensor | float) -> tuple[Tensor, Tensor]:
    seen = features(model, theta, x)
    centres = torch.stack([seen[y == k].mean(0) for k in range(3)])
    return 2 * scale * centres, -scale * (centres * centres).sum(1)


def test_protonet_is_the_softmax_over_distances(pictures: Pictures, roughened: Roughened, error: Errors) -> None:
    model = roughened(net())
    learner = algorithms.protonet(model, scale=Scalar(0.7))

    def one(m: Tree, task: Task) -> Tensor:
        sx, sy, qx, qy = task
        theta = under(m, "model.")
        seen, query = features(model, theta, sx), features(model, theta, qx)
        centres = torch.stack([seen[sy == k].mean(0) for k in range(3)])
        distances = ((query[:, None] - centres[None]) ** 2).sum(2)
        return F.cross_entropy(-m["phi.prototype.scale"] * distances, qy)

    assert "model.head.weight" not in dict(p for p in learner.named_parameters() if p[1].requires_grad)
    compare(learner, pictures(), one, error)


def test_protomaml(pictures: Pictures, roughened: Roughened, error: Errors) -> None:
    model = roughened(net())
    learner = algorithms.protomaml(model, lr=Hyper(0.2), steps=3, scale=Scalar(0.5))

    def one(m: Tree, task: Task) -> Tensor:
        sx, sy, qx, qy = task
        theta = under(m, "model.")
        weight, bias = prototypes(model, theta, sx, sy, m["phi.prototype.scale"])
        theta = {n: leaf.clone() for n, leaf in theta.items()}  # a step does not see that the head is made of the body
        theta |= {"head.weight": weight, "head.bias": bias}
        for _ in range(3):
            grads = torch.autograd.grad(
                F.cross_entropy(functional_call(model, theta, (sx,)), sy), list(theta.values()), create_graph=True
            )
            theta = {n: p - m["phi.sgd.lr"] * g for (n, p), g in zip(theta.items(), grads, strict=True)}
        return F.cross_entropy(functional_call(model, theta, (qx,)), qy)

    compare(learner, pictures(), one, error)


def test_r2d2_is_ridge_regression(pictures: Pictures, roughened: Roughened, error: Errors) -> None:
    model = roughened(net())
    learner = algorithms.r2d2(model)

    def one(m: Tree, task: Task) -> Tensor:
        sx, sy, qx, qy = task
        theta = under(m, "model.")
        x = features(model, theta, sx)
        pull = torch.exp(m["phi.ridge.strength"]) * torch.eye(5, dtype=x.dtype)
        weight = torch.linalg.inv(x.T @ x + pull) @ x.T @ F.one_hot(sy, 3).double()  # the primal form
        return F.cross_entropy(m["phi.ridge.scale"] * (features(model, theta, qx) @ weight), qy)

    compare(learner, pictures(), one, error)


@pytest.mark.parametrize("preset", [algorithms.protonet, algorithms.r2d2])
def test_a_head_of_the_support_set_fits_any_number_of_classes(
    preset: Callable[..., Learner], pictures: Pictures
) -> None:
    learner = preset(net().double())
    many = pictures(tasks=2, ways=7, shots=3)
    with_all = learner.evaluate(many, "inductive", ways=7)
    assert with_all.prediction.shape == (2, 21, 7)
    adapted = learner.adapt(many.support.x[0], many.support.y[0])
    assert torch.allclose(adapted(many.query.x[0]), with_all.prediction[0])


def test_maml_plus_plus(pictures: Pictures, roughened: Roughened, error: Errors) -> None:
    """Losses of every step, rates a layer and a step, gains and shifts a step; native batch norm in the truth."""
    model = roughened(models.Conv4(3, filters=3, activation=nn.Tanh))
    learner = algorithms.maml_plus_plus(model, lr=0.2, steps=3)
    with torch.no_grad():
        for name in learner.stepwise:
            learner.model.get_parameter(name).add_(torch.randn(4, 3, dtype=torch.float64) * 0.1)
    phase = learner.phase(0.05)
    weights = [1 / 6, 1 / 6, 2 / 3]
    assert phase.step_weights == pytest.approx(weights)

    def one(m: Tree, task: Task) -> Tensor:
        sx, sy, qx, qy = task
        stacked = {n: leaf for n, leaf in under(m, "model.").items() if "norm" in n}
        theta = {n: leaf for n, leaf in under(m, "model.").items() if "norm" not in n}

        def call(theta: Tree, t: int, x: Tensor) -> Tensor:
            own: Tensor = functional_call(model.train(), theta | {n: leaf[t] for n, leaf in stacked.items()}, (x,))
            return own

        total = torch.zeros((), dtype=torch.float64)
        for t in range(3):
            grads = torch.autograd.grad(
                F.cross_entropy(call(theta, t, sx), sy), list(theta.values()), create_graph=True
            )
            rates = [m[f"phi.sgd.lr/{n.rpartition('.')[0]}.*"][t] for n in theta]
            theta = {n: p - r * g for (n, p), r, g in zip(theta.items(), rates, grads, strict=True)}
            total = total + weights[t] * F.cross_entropy(call(theta, t + 1, qx), qy)
        return total

    assert learner.phase(0.1).step_weights is None
    learner.curriculum = curriculum_of(phase)
    compare(learner, pictures(), one, error)


def test_annealing_goes_from_first_order_to_second() -> None:
    engine = Adjoint(hvp="reverse")
    learner = algorithms.maml_plus_plus(net(), first_order=0.5, stepwise_norm=False, hypergradient=engine)
    assert learner.phase(0.49).hypergradient == FirstOrder()
    assert learner.phase(0.5).hypergradient == engine


def test_cavia(pictures: Pictures, roughened: Roughened, error: Errors) -> None:
    model = net(context=2)
    with torch.no_grad():
        roughened(model).context.zero_()  # type: ignore[union-attr, operator]
    learner = algorithms.cavia(model, lr=Hyper(0.6), steps=2)

    def one(m: Tree, task: Task) -> Tensor:
        sx, sy, qx, qy = task
        others = under(m, "model.")
        assert "context" not in others, "its start is not learned"
        context = torch.zeros(2, dtype=torch.float64, requires_grad=True)

        def call(context: Tensor, x: Tensor) -> Tensor:
            inputs = torch.cat([x.flatten(1), context.expand(len(x), 2)], 1)
            hidden = features(model, others, inputs)
            return hidden @ others["head.weight"].T + others["head.bias"]

        for _ in range(2):
            (grad,) = torch.autograd.grad(F.cross_entropy(call(context, sx), sy), context, create_graph=True)
            context = context - m["phi.sgd.lr"] * grad
        return F.cross_entropy(call(context, qx), qy)

    compare(learner, pictures(), one, error)


def test_context_of_conv4_scales_and_shifts() -> None:
    model = models.Conv4(3, filters=4, norm="none", context=2).double()
    plain = models.Conv4(3, filters=4, norm="none").double()
    plain.load_state_dict(
        {n: leaf for n, leaf in model.state_dict().items() if n not in ("context",) and "film" not in n}
    )
    x = torch.randn(2, 1, 28, 28, dtype=torch.float64)
    with torch.no_grad():
        model.film.weight.zero_()  # type: ignore[union-attr]
        model.film.bias.zero_()  # type: ignore[union-attr]
        assert torch.allclose(model(x), plain(x))
        model.context.fill_(1.0)  # type: ignore[union-attr]
        model.film.weight[:4, 0] = 1.0  # type: ignore[union-attr]
        maps = plain.blocks[3](2 * plain.blocks[:3](x)).mean((2, 3))
        assert torch.allclose(model(x), plain.head(maps))


def test_warp_layers_are_learned_and_not_adapted(pictures: Pictures, roughened: Roughened, error: Errors) -> None:
    learner = algorithms.warp_grad(net().double(), lr=0.2, steps=2)
    x = torch.randn(4, 144, dtype=torch.float64)
    plain = net().double()
    assert torch.equal(models.warped(plain)(x), plain(x)), "the identity at the start"
    roughened(learner.model)
    module = learner.model

    def one(m: Tree, task: Task) -> Tensor:
        sx, sy, qx, qy = task
        warps = {n: leaf for n, leaf in under(m, "model.").items() if "warp" in n}
        theta = {n: leaf for n, leaf in under(m, "model.").items() if "warp" not in n}
        assert len(warps) == 2
        for _ in range(2):
            grads = torch.autograd.grad(
                F.cross_entropy(functional_call(module, theta | warps, (sx,)), sy),
                list(theta.values()),
                create_graph=True,
            )
            theta = {n: p - 0.2 * g for (n, p), g in zip(theta.items(), grads, strict=True)}
        return F.cross_entropy(functional_call(module, theta | warps, (qx,)), qy)

    compare(learner, pictures(), one, error)


def test_boil_leaves_the_head_alone() -> None:
    assert algorithms.boil(net()).adapted == ["body.1.weight", "body.1.bias", "body.3.weight", "body.3.bias"]


def test_pretraining_is_ordinary_training_and_finetuning_starts_a_new_head(pictures: Pictures) -> None:
    model = net(outputs=9).double()
    learner = algorithms.pretrain(model)
    episodes = pictures(tasks=1, ways=9)
    grads = learner.meta_gradient(episodes).grads
    F.cross_entropy(model(episodes.query.x[0]), episodes.query.y[0]).backward()
    for name, leaf in model.named_parameters():
        assert torch.allclose(grads[f"model.{name}"], leaf.grad)  # type: ignore[arg-type]
    tuned = algorithms.finetune(learner.model, steps=2)
    few = pictures(tasks=2, ways=3)
    result = tuned.evaluate(few, "inductive", ways=3)
    assert torch.allclose(result.loss[:, 0], torch.tensor(3.0).double().log()), (
        "all classes alike before the first step"
    )
    assert bool((result.loss[:, 2] != result.loss[:, 0]).all())
