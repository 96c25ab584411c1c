"""Layers, losses and habits of models: each is right, or refused with what to do about it; none is silently wrong."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.zoo.case import Case, N
from tests.zoo.habits import HABITS
from tests.zoo.layers import LAYERS
from tests.zoo.losses import LOSSES
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from rbml import Batch, Episodes, algorithms
from rbml.errors import RbmlError
from rbml.tree import Tree


class Instead(TorchFunctionMode):
    """A context in which some functions of PyTorch are others."""

    def __init__(self, functions: dict[Callable[..., Any], Callable[..., Any]]) -> None:
        super().__init__()
        self.functions = functions

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.functions.get(func, func)(*args, **(kwargs or {}))


CASES = LAYERS | LOSSES | HABITS
LR, STEPS, TASKS = 0.1, 2, 2
TOLERANCE = 1e-8
PERFORMANCE = "ignore:There is a performance drop:UserWarning"


def stacked(make: Any) -> Any:
    """Return inputs or targets of all tasks, with the tasks in front where they are tensors."""
    each = [make(N) for _ in range(TASKS)]
    return tree_map(lambda *leaves: torch.stack(leaves) if isinstance(leaves[0], Tensor) else leaves[0], *each)


def drawn(case: Case) -> tuple[nn.Module, Episodes]:
    torch.manual_seed(0)
    model = case.model().double()
    case.ready(model)
    batches = [Batch(stacked(case.x), stacked(case.y)) for _ in range(2)]
    return model, Episodes(*batches)


def plainly(case: Case, model: nn.Module, tasks: Episodes) -> Tree:
    """Return the meta-gradient by a loop with ``torch.autograd.grad(create_graph=True)``, and nothing of rbml."""
    for layer in model.modules():
        for key, kept in layer.__dict__.items():  # what the old norms keep, which no model can be copied with
            layer.__dict__[key] = kept.detach() if isinstance(kept, Tensor) else kept
        if isinstance(layer, nn.modules.dropout._DropoutNd):
            layer.eval()
        elif isinstance(layer, nn.MultiheadAttention | nn.RNNBase):
            layer.dropout = 0.0
    leaves = {name: leaf.detach().clone().requires_grad_() for name, leaf in model.named_parameters()}

    def measured(theta: Tree, batch: Batch) -> Tensor:
        args, kwargs = ((), batch.x) if isinstance(batch.x, dict) else ((batch.x,), {})
        own = copy.deepcopy(model)  # what a pass leaves in a model must not be seen by the next
        with sdpa_kernel(SDPBackend.MATH), Instead(case.instead):  # the fused kernels have no second derivative
            return case.loss(functional_call(own, theta, args, kwargs), batch.y)

    total = torch.zeros((), dtype=torch.float64)
    for index in range(TASKS):
        support, query = tree_map(lambda leaf, i=index: leaf[i], tuple(tasks))
        theta = dict(leaves)
        for _ in range(STEPS):
            loss = measured(theta, support)
            grads = torch.autograd.grad(
                loss, list(theta.values()), create_graph=True, allow_unused=True, materialize_grads=True
            )
            theta = {name: leaf - LR * grad for (name, leaf), grad in zip(theta.items(), grads, strict=True)}
        total = total + measured(theta, query) / TASKS
    found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(leaves, found, strict=True))


def by_rbml(case: Case, model: nn.Module, tasks: Episodes) -> Tree:
    learner = algorithms.maml(model, lr=LR, steps=STEPS, loss=case.loss, **case.options)
    grads = learner.meta_gradient(tasks).grads
    copy.deepcopy(learner)  # nothing of a pass is left in it
    return {name.removeprefix("model."): grad for name, grad in grads.items()}


def length(tree: Tree) -> float:
    return float(sum(leaf.square().sum() for leaf in tree.values()) ** 0.5)


@pytest.mark.filterwarnings(PERFORMANCE)
@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize("name", CASES)
def test_right_or_refused(name: str) -> None:
    case = CASES[name]
    model, tasks = drawn(case)
    if case.error:
        with pytest.raises(RbmlError, match=case.error):
            by_rbml(case, model, tasks)
        return
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = by_rbml(case, model, tasks)
    texts = {
        str(one.message) for one in said if one.category is UserWarning and "rbml" in one.filename + str(one.message)
    }
    assert bool(texts) == bool(case.warns) and all(case.warns in text for text in texts), texts
    truth = plainly(case, model, tasks)
    assert length(truth) > 1e-6
    assert length({key: found[key] - truth[key] for key in truth}) <= TOLERANCE * length(truth)


def test_the_numbers_of_the_report() -> None:
    """A sigmoid under ``no_grad``: forward over reverse had -0.795481."""
    model, _ = drawn(CASES["no_grad"])
    x, y = torch.tensor([[[1.0, 2.0]]]).double(), torch.tensor([[[0.1, 0.7]]]).double()
    tasks = Episodes(Batch(x, y), Batch(x, y + 1))
    learner = algorithms.maml(model, lr=LR, steps=STEPS, loss=CASES["no_grad"].loss)
    assert float(learner.meta_gradient(tasks).grads["model.a"][0]) == pytest.approx(-0.822679, abs=1e-6)
