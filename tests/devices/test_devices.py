"""Finding a device, what waits for it, and learners on it: algorithms and engines mix nothing and wait for nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.devices import pretend
from torch import nn

from rbml import Execution, Job, Learner, Stream, algorithms, devices, hypergrad, models, strategy
from rbml.data.examples import Labelled, kept_on
from rbml.errors import UsageError
from rbml.tasks import Batch, Episode, FewShot, Replay, Sinusoid


@pytest.fixture
def episodes() -> Episode:
    x, y = torch.randn(2, 6, 5), torch.arange(3).repeat_interleave(2).expand(2, -1)
    return Episode(Batch(x, y), Batch(x + 0.1, y))


def mlp(outputs: int = 3) -> nn.Module:
    return models.MLP(inputs=5, outputs=outputs, hidden=(4,))


def same_there(learner: Learner, tasks: Any, device: torch.device) -> None:
    """Compare a meta-gradient with that on the device, and count the waits of the second one there."""
    torch.manual_seed(1)
    here = learner.meta_gradient(tasks)
    learner.to(device)
    assert learner.device == device
    there = devices.placed(tasks, device)
    with pretend.measured() as record:
        torch.manual_seed(1)
        found = learner.meta_gradient(there)
        first = record.waits.total()
        learner.meta_gradient(there)
        assert not record.mixed and record.waits.total() == first, record.waits
    assert all(torch.equal(leaf, found.grads[name].cpu()) for name, leaf in here.grads.items())
    assert found.loss.device == device


@pytest.mark.parametrize("name", [name for name in algorithms.ALL if name not in ("cavia", "oml", "anml", "la_maml")])
def test_every_algorithm_gives_the_same_there(name: str, episodes: Episode, device: torch.device) -> None:
    tasks, outputs = episodes, 3
    if name in ("ridge_regression", "alpaca"):
        tasks = Episode(*(part._replace(y=part.x[..., :1] * 2) for part in episodes))
        outputs = 1
    try:
        learner = algorithms.ALL[name](mlp(outputs))
        learner.meta_gradient(tasks)
    except UsageError as error:
        pytest.skip(str(error))  # a preset for another model
    same_there(learner, tasks, device)


@pytest.mark.parametrize("name", [name for name in hypergrad.ALL if name not in ("auto",)])
def test_every_engine_gives_the_same_there(name: str, episodes: Episode, device: torch.device) -> None:
    try:
        learner = Learner(mlp(), strategy.sgd(0.1), 2, hypergradient=hypergrad.ALL[name]())
        learner.meta_gradient(episodes)
    except UsageError as error:
        pytest.skip(str(error))  # an engine for another strategy
    same_there(learner, episodes, device)


def test_every_kind_of_task_gives_the_same_there(episodes: Episode, device: torch.device) -> None:
    steps = Batch(episodes.support.x[:, :, None], episodes.support.y[:, :, None])
    stream = Stream(steps, episodes.query)
    for tasks in (stream, Replay.of(stream, 3, 2, [1, 2])):
        same_there(Learner(mlp(), strategy.sgd(0.1), 6), tasks, device)
    one = [Batch(part.x[0], part.y[0]) for part in episodes]
    same_there(Learner(mlp(), strategy.sgd(0.1), 4), Job.of(*one, 2, [1, 2]), device)


def test_a_learner_moves_what_it_is_given(episodes: Episode, device: torch.device) -> None:
    learner = Learner(mlp()).to(device)
    with pretend.measured() as record:
        assert learner.evaluate(episodes).loss.device == device
        adapted = learner.adapt(episodes.support.x[0], episodes.support.y[0])
        assert adapted(episodes.query.x[0]).device == device and learner.backward(episodes).loss.device == device
    assert not record.mixed


def test_phi_begins_where_the_model_is(device: torch.device) -> None:
    learner = algorithms.alfa(mlp().to(device))
    assert {leaf.device for leaf in learner.state_dict().values()} == {device}


def test_labels_that_do_not_fit_are_found_there_too(episodes: Episode, device: torch.device) -> None:
    wrong = episodes._replace(query=episodes.query._replace(y=episodes.query.y + 1))
    with pytest.raises(UsageError, match="labels must be 0"):
        Learner(mlp()).to(device).meta_gradient(devices.placed(wrong, device))


def test_draws_do_not_depend_on_the_device(device: torch.device) -> None:
    tasks = FewShot((torch.rand(40, 3), torch.arange(40) // 10), ways=2, shots=1, queries=2)
    here, there = tasks.draw([1, 2]), tasks.to(device).draw([1, 2])
    assert there.query.x.device == device and torch.equal(here.query.x, there.query.x.cpu())
    assert Sinusoid().sample(2, torch.Generator().manual_seed(0)).to(device).query.y.device == device


def test_examples_are_kept_on_a_device_that_has_room(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Labelled(torch.zeros(10, 100), torch.zeros(10, dtype=torch.int64), ["a"], "")
    assert kept_on(device, data).x.device == device and kept_on(devices.CPU, data) is data
    monkeypatch.setattr("rbml.data.examples.free_memory", lambda device: 5000)
    assert kept_on(device, data) is data


def test_only_what_is_there_is_found(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices.find("cpu") == devices.CPU and devices.find(pretend.NAME) == device
    with pytest.raises(UsageError, match=r"there is no device pretend:3 here \(1 of them\); there is: cpu"):
        devices.find("pretend:3")
    with pytest.raises(UsageError, match="did you mean 'mps'"):
        devices.find("mpss")
    with pytest.raises(UsageError, match="there is no device meta"):
        devices.find("meta")
    there = {"cuda": 0, "mps": 1}
    monkeypatch.setattr(devices, "_count", lambda kind: there.get(kind, 0))
    assert devices.find() == devices.CPU and str(devices.find("mps")) == "mps:0"  # mps must be asked for
    with pytest.raises(UsageError, match="no double precision"):
        devices.find("mps", float64=True)
    there["cuda"] = 2
    assert str(devices.find(float64=True)) == "cuda:0" and devices.available() == ["cpu", "cuda:0", "cuda:1", "mps"]
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert str(devices.find("cuda")) == "cuda:1" and str(devices.find("cuda:0")) == "cuda:0"


def test_precision_is_set_for_cuda_and_given_back() -> None:
    conv = torch.backends.cudnn
    before = torch.backends.cuda.matmul.allow_tf32, conv.allow_tf32
    for name, on in (("tf32", True), ("float32", False)):
        with devices.computing(name, torch.device("cuda", 0)):
            assert torch.backends.cuda.matmul.allow_tf32 is conv.allow_tf32 is on
    assert before == (torch.backends.cuda.matmul.allow_tf32, conv.allow_tf32)
    with pytest.raises(UsageError, match="did you mean 'float32'"), devices.computing("float23", devices.CPU):
        pass


def test_numbers_wait_once(device: torch.device) -> None:
    with pretend.measured() as record:
        values = torch.tensor(0.1, device=device), torch.tensor(0.2, dtype=torch.float64, device=device)
        record.waits.clear()
        assert devices.numbers(*values) == [values[0].item(), 0.2]
    assert record.waits == {"tolist": 1, "aten._local_scalar_dense.default": 1}


def test_a_mix_is_refused_as_cuda_does(device: torch.device) -> None:
    with pretend.measured() as record:
        there = torch.ones(2, device=device)
        assert (there * torch.tensor(2.0)).device == device and there[torch.tensor([0])].device == device
        with pytest.raises(pretend.MixedError):
            there + torch.ones(2)
    assert len(record.mixed) == 1


def test_a_model_of_convolutions_is_traced_there(device: torch.device) -> None:
    x, y = torch.randn(2, 6, 1, 8, 8), torch.arange(3).repeat_interleave(2).expand(2, -1)
    tasks = Episode(Batch(x, y), Batch(x + 0.1, y))
    model = models.Conv4(3, channels=1, size=8, filters=4)
    same_there(Learner(model, execution=Execution(compile="trace")), tasks, device)
