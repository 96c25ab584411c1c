"""What a learner promises: what it owns, what it leaves alone, and which models it takes.

Its meta-gradient is proved in ``contracts``; here is everything around it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from rbml import Batch, Episodes, Learner, algorithms, models
from rbml.algorithms.options import assemble
from rbml.autodiff import compiled as compiled_code
from rbml.autodiff import module as functional
from rbml.hypergrad import Adjoint, Unrolled
from rbml.strategy import Hyper, chain, l2, momentum, sgd, weight_decay
from rbml.tree import Tree

Pictures = Callable[..., Episodes]
Curves = Callable[..., Episodes]
Roughened = Callable[[nn.Module], nn.Module]
Errors = Callable[[Tree, Tree], float]


def conv(outputs: int = 3) -> models.Conv4:
    return models.Conv4(outputs, filters=3).double()


def task(episodes: Episodes) -> tuple[Batch, Batch]:
    support, query = (Batch(batch.x[0], batch.y[0]) for batch in episodes)
    return support, query


# ------------------------------------------------------------------------------------------- what it owns and leaves


def test_the_model_that_was_given_is_left_untouched(pictures: Pictures) -> None:
    module = conv().train()
    module.blocks[1].eval()
    flags = [layer.training for layer in module.modules()]
    before = copy.deepcopy(module.state_dict())
    learner = algorithms.maml(module, steps=2)
    support, query = task(pictures())
    learner.backward(pictures())
    learner.adapt(*support)(query.x)
    learner.evaluate(pictures(), "inductive")
    torch.optim.SGD(learner.parameters(), lr=1.0).step()
    assert all(torch.equal(leaf, before[name]) for name, leaf in module.state_dict().items())
    assert flags == [layer.training for layer in module.modules()]
    assert all(parameter.grad is None and parameter.requires_grad for parameter in module.parameters())
    assert not torch.equal(learner.model.head.bias, module.head.bias), "the learner's own copy did move"


def test_nothing_that_is_learned_about_one_task_stays_in_the_learner(pictures: Pictures) -> None:
    learner = algorithms.meta_sgd(conv(), steps=3)
    before = copy.deepcopy(learner.state_dict())
    learner.meta_gradient(pictures())
    adapted = learner.adapt(*task(pictures())[0])
    learner.evaluate(pictures(), "inductive")
    with torch.no_grad():
        for parameter in adapted.parameters():
            parameter.zero_()
    assert all(torch.equal(leaf, before[name]) for name, leaf in learner.state_dict().items()), "nor running statistics"
    assert all(parameter.grad is None for parameter in learner.parameters())


def test_gradients_are_named_as_the_parameters_that_are_learned(pictures: Pictures) -> None:
    module = conv()
    module.blocks[0].requires_grad_(False)
    rules = chain(weight_decay(0.1), momentum(Hyper(0.5)), sgd(Hyper(0.1, per="tensor")))
    learner = assemble(module, rules)
    grads = learner.meta_gradient(pictures()).grads
    learned = {name: parameter for name, parameter in learner.named_parameters() if parameter.requires_grad}
    assert list(grads) == list(learned)
    assert all(grad.shape == learned[name].shape for name, grad in grads.items())
    assert not any("blocks.0" in name for name in grads), "neither theta0 nor a rate of its own"
    assert any("blocks.1" in name for name in grads) and "phi.momentum.decay" in grads
    assert "phi.weight_decay.rate" in dict(learner.named_buffers()), "a fixed number is kept, and is no parameter"


def test_a_frozen_parameter_is_neither_adapted_nor_learned(pictures: Pictures) -> None:
    module = conv()
    module.blocks[0].requires_grad_(False)
    learner = algorithms.maml(module, steps=2)
    learner.backward(pictures())
    torch.optim.Adam(learner.parameters(), lr=0.1).step()
    adapted = learner.adapt(*task(pictures())[0])
    for own in (learner.model, adapted.model):
        assert torch.equal(own.blocks[0].conv.weight, module.blocks[0].conv.weight)
        assert not torch.equal(own.blocks[1].conv.weight, module.blocks[1].conv.weight)


def test_what_is_frozen_later_is_still_adapted_but_not_learned(pictures: Pictures, error: Errors) -> None:
    """The way to learn phi alone, or theta0 alone, from a learner that has both."""
    learner = assemble(conv(), chain(l2(Hyper(0.1)), sgd(Hyper(0.2, per="layer"))), steps=2)
    whole = learner.meta_gradient(pictures())
    for prefix in ("model.", "phi."):
        for name, parameter in learner.named_parameters():
            parameter.requires_grad_(name.startswith(prefix))
        part = learner.meta_gradient(pictures())
        assert torch.allclose(part.loss, whole.loss, rtol=1e-13)
        assert error(part.grads, {name: g for name, g in whole.grads.items() if name.startswith(prefix)}) < 1e-12


def test_backward_adds_up_as_that_of_a_loss_does(pictures: Pictures) -> None:
    learner = algorithms.meta_sgd(conv())
    first, second = pictures(), pictures(shots=1)
    one, two = learner.meta_gradient(first), learner.meta_gradient(second)
    assert torch.equal(learner.backward(first).loss, one.loss)
    learner.backward(second)
    for name, parameter in learner.named_parameters():
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, one.grads[name] + two.grads[name], rtol=1e-13)


def test_what_is_done_to_the_gradients_later_does_not_change_the_result(pictures: Pictures) -> None:
    learner = algorithms.maml(conv())
    result = learner.backward(pictures())
    kept = result.grads["model.head.bias"].clone()
    torch.nn.utils.clip_grad_norm_(learner.parameters(), 1e-3)
    assert torch.equal(result.grads["model.head.bias"], kept)


def test_the_state_dict_is_the_checkpoint(pictures: Pictures, tmp_path: object) -> None:
    rules = chain(weight_decay(Hyper((0.0, 0.1), per="layer")), momentum(0.3), sgd(Hyper((0.1, 0.3), per_step=True)))
    first, second = (assemble(conv(), rules, steps=2, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    truth = first.meta_gradient(pictures())
    assert not torch.allclose(truth.loss, second.meta_gradient(pictures()).loss)
    path = f"{tmp_path}/learner.pt"
    torch.save(first.state_dict(), path)
    second.load_state_dict(torch.load(path, weights_only=True))
    again = second.meta_gradient(pictures())
    assert torch.equal(again.loss, truth.loss)
    assert all(torch.equal(again.grads[name], grad) for name, grad in truth.grads.items())


def test_equal_generators_start_equal_learners() -> None:
    starts = [
        algorithms.meta_sgd(models.MLP(2, 3), generator=torch.Generator().manual_seed(seed)).phi.state_dict()
        for seed in (4, 4, 5)
    ]
    assert all(torch.equal(starts[0][name], starts[1][name]) for name in starts[0])
    assert not any(torch.equal(starts[0][name], starts[2][name]) for name in starts[0])


def test_it_moves_and_changes_dtype_as_any_module(pictures: Pictures) -> None:
    learner = assemble(models.Conv4(3, filters=3), chain(momentum(0.5), sgd(Hyper(0.1, per="element"))), steps=2)
    single = learner.meta_gradient(pictures(dtype=torch.float32))
    double = copy.deepcopy(learner).double().meta_gradient(pictures())
    assert single.loss.dtype == torch.float32 and double.loss.dtype == torch.float64
    assert all(grad.dtype == torch.float64 for grad in double.grads.values())
    assert torch.allclose(single.loss.double(), double.loss, atol=1e-5)


def test_tied_parameters_stay_one(pictures: Pictures, error: Errors) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
            self.second.weight = self.first.weight
            self.head = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = self.head(torch.tanh(self.second(torch.tanh(self.first(x)))))
            return output

    learner = algorithms.maml(Tied().double(), steps=2)
    support, query = task(pictures(shape=(4,)))
    found = learner.meta_gradient(pictures(shape=(4,))).grads
    learner.hypergradient = Unrolled()
    assert error(found, learner.meta_gradient(pictures(shape=(4,))).grads) < 1e-12
    adapted = learner.adapt(*support)
    assert adapted.model.first.weight is adapted.model.second.weight
    last = learner.evaluate(pictures(shape=(4,))).prediction[0]
    assert torch.allclose(adapted(query.x), last, rtol=1e-12)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Collect what is traced: the tracing is ours; that PyTorch compiles it is not, and takes half a minute."""
    graphs: list[object] = []
    monkeypatch.setattr(compiled_code, "_native", lambda graph, leaves, threads: graphs.append(graph) or graph)
    return graphs


def test_compiled_it_is_traced_once_for_every_set_of_shapes(
    pictures: Pictures, error: Errors, traced: list[object]
) -> None:
    rules = chain(weight_decay(0.1), momentum(0.5), sgd(Hyper(0.2, per="tensor")))
    module = models.MLP(4, 3, (5,)).double()
    plain, compiled = assemble(module, rules), assemble(module, rules, compile=True, chunk=2)
    for episodes in (pictures(shape=(4,)), pictures(tasks=5, shape=(4,)), pictures(tasks=4, shape=(4,))):
        truth, found = plain.meta_gradient(episodes), compiled.meta_gradient(episodes)
        assert error(found.grads, truth.grads) < 1e-11 and torch.allclose(found.loss, truth.loss, rtol=1e-13)
        assert torch.allclose(found.aux["prediction"], truth.aux["prediction"], rtol=1e-10)
    assert len(traced) == 2, "chunks of 2 tasks and of 1"
    moved = {name: leaf * 1.5 for name, leaf in plain.state_dict().items()}
    plain.load_state_dict(moved)
    compiled.load_state_dict(moved)
    found, truth = (one.meta_gradient(pictures(shape=(4,))) for one in (compiled, plain))
    assert error(found.grads, truth.grads) < 1e-11, "new values need no new trace, and the fixed numbers are seen too"
    assert len(traced) == 2


def test_compiled_with_batch_norm(pictures: Pictures, error: Errors, traced: list[object]) -> None:
    module = nn.Sequential(nn.Linear(4, 5, bias=False), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3)).double()
    episodes = pictures(shape=(4,))
    found = algorithms.maml(module, compile=True).meta_gradient(episodes)
    assert error(found.grads, algorithms.maml(module).meta_gradient(episodes).grads) < 1e-11 and len(traced) == 1


# ------------------------------------------------------------------------------------------------ kinds of model


def test_regression_has_a_loss_and_no_accuracy(curves: Curves) -> None:
    learner = algorithms.maml(models.MLP(2, 1, (5,), nn.Tanh).double(), lr=0.1, steps=2, loss=F.mse_loss)
    found = learner.evaluate(curves())
    assert found.accuracy is None and found.loss.shape == (3, 3)
    support, query = task(curves())
    assert torch.allclose(learner.adapt(*support)(query.x), found.prediction[0], rtol=1e-12)


def test_attention_needs_no_care(pictures: Pictures, error: Errors) -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, batch_first=True)
            self.head = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = self.head(self.layer(x).mean(1))
            return output

    module = Reader().double()
    episodes = pictures(shape=(5, 4))
    learner = algorithms.maml(module, lr=0.1, steps=2)
    found = learner.meta_gradient(episodes)
    learner.hypergradient = Adjoint(hvp="reverse")
    assert error(found.grads, learner.meta_gradient(episodes).grads) < 1e-11
    support, query = task(episodes)
    adapted = learner.adapt(*support)
    assert torch.allclose(adapted(query.x), learner.evaluate(episodes).prediction[0], rtol=1e-10)


@pytest.mark.parametrize("options", [{}, {"track_running_stats": False}, {"affine": False}])
def test_any_batch_norm(options: dict[str, bool], pictures: Pictures, error: Errors) -> None:
    module = nn.Sequential(
        nn.Linear(4, 5, bias=False), nn.BatchNorm1d(5, **options), nn.Tanh(), nn.Linear(5, 3)
    ).double()
    support, query = task(pictures(shape=(4,)))
    for statistics in ("transductive", "inductive"):
        learner = assemble(module, sgd(0.3), 2, statistics=statistics, head="3.*")  # type: ignore[arg-type]
        found = learner.meta_gradient(pictures(shape=(4,))).grads
        learner.hypergradient = Unrolled()
        assert error(found, learner.meta_gradient(pictures(shape=(4,))).grads) < 1e-11
        assert learner.adapt(*support)(query.x[:1]).shape == (1, 3)


def test_dropout_warns_where_the_learner_is_made() -> None:
    with pytest.warns(UserWarning, match="dropout is switched off") as caught:
        Learner(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1)))
    assert caught[0].filename == __file__


def test_buffers_of_a_loss_follow_the_learner(pictures: Pictures) -> None:
    weight = torch.tensor([1.0, 2.0, 4.0])
    learner = assemble(models.Conv4(3, filters=3), sgd(0.1), loss=nn.CrossEntropyLoss(weight=weight)).double()
    by_function = copy.deepcopy(learner)
    by_function.loss = None  # type: ignore[assignment]
    by_function.__dict__["loss"] = lambda p, y: F.cross_entropy(p, y, weight=weight.double())
    assert torch.equal(learner.meta_gradient(pictures()).loss, by_function.meta_gradient(pictures()).loss)


def test_the_head_may_have_any_name_and_be_of_any_depth(pictures: Pictures) -> None:
    module = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    learner = assemble(module, sgd(0.1), head="2.*")
    assert learner.ways == 3 and learner.adapt(*task(pictures(ways=7, shape=(4,)))[0]).model[2].bias.shape == (7,)
    assert assemble(module, sgd(0.1), head="*").ways is None, "rows of other numbers: not a head"


def test_running_statistics_are_used_in_the_inner_loop_too(pictures: Pictures) -> None:
    module = conv()
    for _, layer in functional.batch_norms(module):
        layer.running_mean.normal_()
    module.eval()
    support, query = task(pictures())
    theta = {name: leaf.detach().requires_grad_() for name, leaf in module.named_parameters()}
    loss = F.cross_entropy(functional_call(module, theta, (support.x,)), support.y)
    grads = torch.autograd.grad(loss, list(theta.values()))
    theta = {name: leaf - 0.3 * grad for (name, leaf), grad in zip(theta.items(), grads, strict=True)}
    learner = algorithms.maml(module, lr=0.3, statistics="running")
    assert torch.allclose(learner.adapt(*support)(query.x), functional_call(module, theta, (query.x,)), rtol=1e-10)
