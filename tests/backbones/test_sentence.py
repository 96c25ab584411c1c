"""Encoders, ours and those of transformers: alike, exact in second order, side by side too, and blind to padding."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

from rbml import Batch, Episodes, algorithms, backbones
from rbml.backbones.bert import Bert
from rbml.backbones.sentence import Sentence, differentiable, exchanged
from rbml.data.inputs import Text
from rbml.errors import DataError, UsageError
from rbml.tasks import generator
from rbml.tasks.base import one

try:
    import transformers
except ModuleNotFoundError:  # only hf: needs it
    transformers = None  # type: ignore[assignment]

needs_transformers = pytest.mark.skipif(transformers is None, reason="transformers is not installed")
KINDS = ["bert", pytest.param("transformers", marks=needs_transformers)]
WAYS, WORDS, LENGTH = 3, 50, 7


class Classifier(nn.Module):
    """MiniLM's architecture, small and with random weights, and a head."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.body = Sentence(encoder(kind))
        self.head = nn.Linear(24, WAYS)

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(ids))
        return logits


def encoder(kind: str) -> nn.Module:
    if kind == "transformers":
        config = transformers.BertConfig(
            vocab_size=WORDS, hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
            max_position_embeddings=16, hidden_act="gelu", hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1,
            layer_norm_eps=1e-12, initializer_range=0.2,
        )  # fmt: skip
        return differentiable(transformers.BertModel(config))
    ours = Bert(WORDS, width=24, layers=2, heads=2, hidden=32, positions=16)
    for leaf in ours.parameters():
        if leaf.dim() == 2:
            nn.init.normal_(leaf, std=0.2)
    return ours


def texts(tasks: int = 2) -> Episodes:
    source = generator(3)

    def batch(n: int) -> Batch:
        ids = torch.randint(1, WORDS, (tasks, n, LENGTH), generator=source)
        lengths = torch.randint(2, LENGTH + 1, (tasks, n, 1), generator=source)
        return Batch({"ids": ids * (torch.arange(LENGTH) < lengths)}, (torch.arange(n) % WAYS).expand(tasks, -1))

    return Episodes(batch(6), batch(6))


def made(kind: str = "bert") -> Classifier:
    torch.manual_seed(0)
    return Classifier(kind).double()


def plainly(model: nn.Module, episodes: Episodes, lr: float, steps: int) -> dict[str, Tensor]:
    leaves = {name: leaf.detach().clone().requires_grad_() for name, leaf in model.named_parameters()}
    total = torch.zeros((), dtype=torch.float64)
    for index in range(episodes.tasks):
        task = one(episodes, index)
        theta = dict(leaves)
        for _ in range(steps):
            loss = F.cross_entropy(functional_call(model, theta, (task.support.x["ids"],)), task.support.y)
            # transformers' pooling layer, which ours has too, is not used
            grads = torch.autograd.grad(loss, list(theta.values()), create_graph=True, materialize_grads=True)
            theta = {name: leaf - lr * g for (name, leaf), g in zip(theta.items(), grads, strict=True)}
        total = total + F.cross_entropy(functional_call(model, theta, (task.query.x["ids"],)), task.query.y)
    grads = torch.autograd.grad(total / episodes.tasks, list(leaves.values()), materialize_grads=True)
    return dict(zip(leaves, grads, strict=True))


@needs_transformers
def test_our_encoder_is_that_of_transformers() -> None:
    """By values, by first and second derivatives, and by the names of all weights."""
    theirs, ours = encoder("transformers").double(), encoder("bert").double()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    ids = one(texts(), 0).support.x["ids"]
    found = []
    for body in (Sentence(ours), Sentence(theirs)):
        leaves = [leaf for name, leaf in body.named_parameters() if "pooler" not in name]
        features = body(ids)
        gradient = torch.autograd.grad((features[:3] @ features[3:].T).square().sum(), leaves, create_graph=True)
        twice = torch.autograd.grad(torch.stack([leaf.square().sum() for leaf in gradient]).sum(), leaves)
        found.append([features, *gradient, *twice])
    for mine, other in zip(*found, strict=True):
        assert torch.allclose(mine, other, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("vectorise", [True, False])
def test_the_meta_gradient_is_that_of_a_plain_double_backward(vectorise: bool, kind: str) -> None:
    model, episodes = made(kind), texts()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it must run side by side without a word
        warnings.filterwarnings("ignore", "`torch.jit.script`", DeprecationWarning)  # PyTorch's own, at first
        found = algorithms.maml(model, lr=0.1, steps=2, vectorise=vectorise).meta_gradient(episodes)
    truth = plainly(model, episodes, 0.1, 2)
    whole = torch.cat([leaf.flatten() for leaf in truth.values()]).norm()
    apart = {name: float((found.grads[f"model.{name}"] - leaf).norm() / whole) for name, leaf in truth.items()}
    assert max(apart.values()) < 1e-8, sorted(apart.items(), key=lambda item: -item[1])[:3]


@pytest.mark.parametrize("kind", KINDS)
def test_padding_and_the_other_sentences_change_nothing(kind: str) -> None:
    body, x = made(kind).body, one(texts(), 0).support.x["ids"]
    with torch.no_grad():
        found = body(x)
        assert torch.allclose(found.norm(dim=1), torch.ones(6, dtype=torch.float64))
        assert torch.allclose(body(F.pad(x, (0, 4))), found, atol=1e-12)
        for row, alone in zip(x, found, strict=True):
            assert torch.allclose(body(row[row > 0][None])[0], alone, atol=1e-12)
        if kind == "transformers":
            hidden = body.encoder(input_ids=x, attention_mask=(x > 0).long()).last_hidden_state
            mean = (hidden * (x > 0)[..., None]).sum(1) / (x > 0).sum(1, keepdim=True)
            assert torch.allclose(F.normalize(mean, dim=1), found, atol=1e-12), "the usual two-dimensional mask"
        assert torch.equal(torch.func.vmap(body)(torch.stack([x, x]))[1], body(x)) or torch.allclose(
            torch.func.vmap(body)(torch.stack([x, x]))[1], found, atol=1e-12
        )


def test_sentences_of_like_length_go_through_it_together() -> None:
    body, source = made().body, generator(5)
    ids = torch.randint(1, WORDS, (40, 12), generator=source)
    ids = ids * (torch.arange(12) < torch.randint(1, 13, (40, 1), generator=source))
    ids[3], ids[7, 0] = 0, 0  # nothing at all, and padding before a word
    lengths, encode = [], body.encoder.forward
    body.encoder.forward = lambda **x: lengths.append(x["input_ids"].shape) or encode(**x)
    at_once = torch.func.vmap(body)(ids[None])[0]
    assert lengths == [(40, 12)] or lengths == [(1, 40, 12)], "lengths cannot be read under vmap"
    lengths.clear()
    found = body(ids)
    assert [rows for rows, _ in lengths] == [16, 16, 8] and lengths[0][1] < lengths[1][1] <= lengths[2][1] == 12
    assert torch.allclose(found, at_once, atol=1e-12)
    graph, other = make_fx(body)(ids), ids.flip(1)  # a graph is for other sentences too
    assert torch.allclose(graph(other), body(other), atol=1e-12)


def test_another_id_of_padding_is_exchanged_with_zero() -> None:
    ids = torch.tensor([[4, 1, 7, 0]])
    assert exchanged(ids, 1).tolist() == [[4, 0, 7, 1]] and torch.equal(exchanged(exchanged(ids, 1), 1), ids)
    assert exchanged(ids, 0) is ids


def saved(folder: Path) -> Path:
    torch.manual_seed(0)
    config = transformers.RobertaConfig(
        vocab_size=12, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        max_position_embeddings=16, pad_token_id=1,
    )  # fmt: skip
    transformers.RobertaModel(config, add_pooling_layer=False).save_pretrained(folder)
    tokenizers = pytest.importorskip("tokenizers")
    words = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3} | {word: 4 + at for at, word in enumerate("abcdefgh")}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        "<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", unk_token="<unk>").save_pretrained(
        folder
    )
    return folder


@needs_transformers
def test_an_encoder_of_a_folder(tmp_path: Path) -> None:
    """RoBERTa's padding is 1 and its first token 0: exchanged, features are those of transformers itself."""
    name = f"hf:{saved(tmp_path)}"
    backbone, text = backbones.load(name), Text(name)
    assert (backbone.width, backbone.modality, backbone.facts) == (8, "text", {"tokenizer": name})
    x = text.ready(text.read(["a b c", "h"]))["ids"]
    assert x[0, :5].tolist() == [1, 4, 5, 6, 2] and text.facts()["vocabulary"] == 12
    with torch.no_grad():
        found = backbone.body(x)
        alone = transformers.AutoModel.from_pretrained(tmp_path)(input_ids=torch.tensor([[0, 4, 5, 6, 2]]))
        assert torch.allclose(F.normalize(alone.last_hidden_state.mean(1), dim=1)[0], found[0], atol=1e-5)


@needs_transformers
def test_encoders_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="hf needs the name of a model: hf:FOLDER"):
        backbones.load("hf")
    with pytest.raises(DataError, match="cannot be loaded by transformers"):
        backbones.load(f"hf:{tmp_path}")
    with pytest.raises(DataError, match="cannot be loaded by transformers"):
        backbones.tokenizer(f"hf:{tmp_path}")
