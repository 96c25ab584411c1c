"""A text encoder of transformers as it is: inputs by name, an ordinary two-dimensional attention mask."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from rbml import Batch, Episodes, algorithms
from rbml.tasks import generator
from rbml.tasks.base import one
from rbml.tree import Tree

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

WAYS, WORDS, LENGTH = 3, 50, 7


class Classifier(nn.Module):
    """An encoder with random weights, and a linear layer on its first token."""

    def __init__(self) -> None:
        super().__init__()
        config = transformers.BertConfig(
            vocab_size=WORDS, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
            max_position_embeddings=16, hidden_act="gelu",
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )  # fmt: skip
        self.encoder = transformers.BertModel(config, add_pooling_layer=False)
        self.head = nn.Linear(32, WAYS)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        logits: Tensor = self.head(hidden[:, 0])
        return logits


def texts(tasks: int = 2) -> Episodes:
    source = generator(3)

    def batch(each: int) -> Batch:
        n = WAYS * each
        ids = torch.randint(1, WORDS, (tasks, n, LENGTH), generator=source)
        lengths = torch.randint(2, LENGTH + 1, (tasks, n, 1), generator=source)
        mask = (torch.arange(LENGTH) < lengths).long()
        return Batch({"input_ids": ids * mask, "attention_mask": mask}, (torch.arange(n) % WAYS).expand(tasks, -1))

    return Episodes(batch(2), batch(2))


def plainly(model: nn.Module, episodes: Episodes, names: list[str], lr: float, steps: int) -> tuple[Tensor, Tree]:
    """Return the mean query loss and its gradient by backpropagation through the steps."""
    leaves = {name: leaf.detach().clone().requires_grad_() for name, leaf in model.named_parameters()}
    total = torch.zeros((), dtype=torch.float64)
    for index in range(episodes.tasks):
        task = one(episodes, index)
        theta = {name: leaves[name] for name in names}
        for _ in range(steps):
            loss = F.cross_entropy(functional_call(model, leaves | theta, (), dict(task.support.x)), task.support.y)
            grads = torch.autograd.grad(loss, list(theta.values()), create_graph=True)
            theta = {name: leaf - lr * g for (name, leaf), g in zip(theta.items(), grads, strict=True)}
        prediction = functional_call(model, leaves | theta, (), dict(task.query.x))
        total = total + F.cross_entropy(prediction, task.query.y) / episodes.tasks
    grads = torch.autograd.grad(total, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return total.detach(), dict(zip(leaves, grads, strict=True))


@pytest.mark.parametrize("adapt", ["*", "head"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_meta_gradient(attention: str, adapt: str) -> None:
    model = Classifier().double().eval()
    model.encoder.set_attn_implementation(attention)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator(1), dtype=torch.float64))
    learner, episodes = algorithms.maml(model, lr=0.1, steps=2, adapt=adapt), texts()
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        found = learner.meta_gradient(episodes)
        learner.meta_gradient(episodes)
    side_by_side = [warned for warned in heard if "side by side (vmap" in str(warned.message)]
    assert len(side_by_side) == 1, "a mask of two dimensions is looked at by its values; this is said once"
    with sdpa_kernel(SDPBackend.MATH):  # PyTorch's others have no second derivative; rbml chooses this one by itself
        loss, truth = plainly(model, episodes, list(learner.adapted), 0.1, 2)
    assert torch.allclose(found.loss, loss, rtol=1e-12)
    whole = torch.cat([leaf.flatten() for leaf in truth.values()]).norm()
    apart = {name: float((found.grads[f"model.{name}"] - leaf).norm() / whole) for name, leaf in truth.items()}
    assert max(apart.values()) < 1e-8, sorted(apart.items(), key=lambda item: -item[1])[:3]
    assert set(found.grads) == {f"model.{name}" for name in truth}


def test_what_it_learned_is_a_model_of_its_own() -> None:
    learner, episodes = algorithms.anil(Classifier(), steps=3), texts()
    task = one(episodes, 0)
    adapted = learner.adapt(*task.support)
    with torch.no_grad():
        prediction = adapted(task.query.x)
        assert prediction.shape == (6, WAYS)
        longer = {name: F.pad(leaf, (0, 3)) for name, leaf in task.query.x.items()}
        assert torch.allclose(adapted(longer), prediction, atol=1e-5), "padding is not attended to"
