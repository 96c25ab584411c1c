"""The models of text: where they start, and that padding and order say nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from rbml import Batch, Episodes, algorithms, models
from rbml.backbones import tokens
from rbml.data.inputs import Text
from rbml.errors import UsageError

KNOWN = ["where is my card", "my card is lost, lost for good", "what is my balance", "how much is left", "thanks a lot"]
SUPPORT = ["my card is not here", "where is the card", "the balance please", "what is left, what is my balance"]
QUERY = ["is the card lost", "how much balance is left", "the card the card", "a balance"]


def ids(text: Text, sentences: list[str]) -> Tensor:
    return text.ready(text.read(sentences))["ids"]


@pytest.mark.parametrize("tokenizer", ["words", "ngrams"])
def test_the_untrained_tfidf_is_that_of_scikit_learn(tokenizer: str) -> None:
    sklearn = pytest.importorskip("sklearn.feature_extraction.text")
    size = 4096
    make = tokens.word_ids if tokenizer == "words" else tokens.ngram_ids
    vectorizer = sklearn.TfidfVectorizer(analyzer=lambda sentence: make(sentence, size)).fit([*KNOWN, *QUERY, *SUPPORT])
    text = Text(tokenizer, size).fitted([*KNOWN, *QUERY, *SUPPORT])
    model = models.TfIdf(2, **text.facts())
    with torch.no_grad():
        model.head.weight.copy_(torch.eye(2, size))
        found = torch.cat([feature_of(model, ids(text, [sentence])) for sentence in QUERY])
    truth = torch.zeros(len(QUERY), size)
    rows, columns = (made := vectorizer.transform(QUERY)).nonzero()
    names = vectorizer.get_feature_names_out()
    truth[rows, torch.tensor(names[columns].astype(int))] = torch.tensor(np.asarray(made[rows, columns])[0]).float()
    assert torch.allclose(found, truth, atol=1e-6)
    assert torch.allclose(text.features(text.read(QUERY)), truth, atol=1e-6)


def feature_of(model: models.TfIdf, x: Tensor) -> Tensor:
    seen: list[Tensor] = []
    hook = model.head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model(x)
    hook.remove()
    return seen[0]


@pytest.mark.filterwarnings("ignore:self.within_class_std_dev_")
def test_its_prototypes_are_the_centroids_of_scikit_learn() -> None:
    neighbors = pytest.importorskip("sklearn.neighbors")
    sklearn = pytest.importorskip("sklearn.feature_extraction.text")
    size = 4096
    vectorizer = sklearn.TfidfVectorizer(analyzer=lambda sentence: tokens.ngram_ids(sentence, size)).fit(
        [*KNOWN, *SUPPORT, *QUERY]
    )
    truth = neighbors.NearestCentroid().fit(vectorizer.transform(SUPPORT).toarray(), [0, 0, 1, 1])
    text = Text("ngrams", size).fitted([*KNOWN, *SUPPORT, *QUERY])
    learner = algorithms.protonet(models.TfIdf(2, **text.facts()))
    adapted = learner.adapt({"ids": ids(text, SUPPORT)}, torch.tensor([0, 0, 1, 1]))
    with torch.no_grad():
        found = adapted({"ids": ids(text, QUERY)})
    assert found.argmax(1).tolist() == truth.predict(vectorizer.transform(QUERY).toarray()).tolist()
    apart = np.square(vectorizer.transform(QUERY).toarray()[:, None] - truth.centroids_[None]).sum(-1)
    assert np.allclose(found.diff(dim=1)[:, 0], apart[:, 0] - apart[:, 1], atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_padding_and_order_say_nothing(pooling: str) -> None:
    torch.manual_seed(0)
    x = torch.tensor([[3, 5, 5, 9, 0, 0]])
    for model in (models.TfIdf(2, 12), models.TextEmbedding(2, 12, width=4, pooling=pooling)):
        with torch.no_grad():
            found = model(x)
            assert torch.allclose(model(x[:, :4]), found, atol=1e-6)
            assert torch.allclose(model(torch.tensor([[5, 0, 9, 3, 0, 5, 0]])), found, atol=1e-6)


def test_the_weights_of_an_embedding_begin_as_idf() -> None:
    text = Text("words", 64).fitted(KNOWN)
    model = models.TextEmbedding(2, width=4, **text.facts())
    x = ids(text, ["card lost"])
    with torch.no_grad():
        vectors = model.embedding(x[0, :2])
        weights = tokens.idf(text.frequencies, 64)[x[0, :2]]
        mean = torch.nn.functional.normalize((weights[:, None] * vectors).sum(0), dim=0)
        assert torch.allclose(model(x)[0], model.head(mean), atol=1e-5)


def test_what_does_not_fit() -> None:
    with pytest.raises(UsageError, match="pooling named 'max'"):
        models.TextEmbedding(2, 12, pooling="max")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="frequencies of 64 ids, but the vocabulary has 12"):
        models.TfIdf(2, 12, Text("words", 64).fitted(KNOWN).frequencies)


def test_the_meta_gradient_of_tfidf_is_that_of_a_plain_double_backward() -> None:
    text = Text("words", 32).fitted(KNOWN)
    model = models.TfIdf(2, **text.facts()).double()
    support = Batch({"ids": ids(text, SUPPORT)[None]}, torch.tensor([[0, 0, 1, 1]]))
    query = Batch({"ids": ids(text, QUERY)[None]}, torch.tensor([[0, 1, 0, 1]]))
    found = algorithms.maml(model, lr=0.3, steps=2).meta_gradient(Episodes(support, query))
    leaves = {name: leaf.detach().clone().requires_grad_() for name, leaf in model.named_parameters()}
    theta = dict(leaves)
    call, loss = torch.func.functional_call, torch.nn.functional.cross_entropy
    for _ in range(2):
        grads = torch.autograd.grad(
            loss(call(model, theta, (support.x["ids"][0],)), support.y[0]), list(theta.values()), create_graph=True
        )
        theta = {name: leaf - 0.3 * g for (name, leaf), g in zip(theta.items(), grads, strict=True)}
    truth = torch.autograd.grad(loss(call(model, theta, (query.x["ids"][0],)), query.y[0]), list(leaves.values()))
    for (name, _), one in zip(leaves.items(), truth, strict=True):
        assert torch.allclose(found.grads[f"model.{name}"], one, atol=1e-10), name
