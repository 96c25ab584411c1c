from __future__ import annotations

import pytest
import torch

from rbml import algorithms
from rbml.data.batch import Batch
from rbml.errors import UsageError
from rbml.learner import Learner
from rbml.tasks import FewShot, generator
from rbml.training.semi_supervised import WithUnlabelled, extended, trial, trial_on_tasks


def learner() -> Learner:
    """Prototypes of the inputs as they are."""
    body = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 3))
    torch.nn.init.eye_(body[0].weight)
    return algorithms.protonet(body)


CENTRES = torch.tensor([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]])
TRUTH = torch.arange(60) % 3
UNLABELLED = CENTRES[TRUTH] + 0.3 * torch.randn(60, 2, generator=generator(0))


def test_unlabelled_examples_get_the_classes_whose_prototypes_they_are_near() -> None:
    support = Batch(CENTRES + torch.tensor([2.0, 1.0]), torch.arange(3))  # far from the centres: misleading examples
    found = extended(learner(), support, UNLABELLED, 3)
    assert torch.equal(found.x[:3], support.x) and torch.equal(found.y[:3], support.y)
    assert len(found.y) == 3 + 3 * 10  # half of an equal share for each class
    own = torch.cdist(found.x[3:], CENTRES).argmin(1)
    assert torch.equal(own, found.y[3:])


def test_a_trial_says_whether_left_out_examples_gain() -> None:
    noise = torch.tensor([[2.4, 1.5], [-2.0, 1.0], [1.0, -2.0]])
    x = torch.cat([CENTRES + noise[place] for place in range(3)])
    support = Batch(x, torch.arange(3).repeat(3))
    found = trial(learner(), support, UNLABELLED, 3)
    assert found is not None and found.tested == 9 and found.helps and found.extended >= found.plain
    assert str(found).endswith("they are used") and "(9 examples)" in str(found)
    helped = WithUnlabelled(learner(), UNLABELLED).adapt(*support, ways=3)
    assert helped(UNLABELLED).argmax(1).tolist() == TRUTH.tolist()
    far = torch.tensor([[6.0, 0.0], [0.0, 6.0], [0.0, 0.0]])[TRUTH] * 40 - 300  # of none of the classes
    other = trial(learner(), support, far, 3)
    assert other is not None and not other.helps


def test_one_example_per_class_says_nothing() -> None:
    assert trial(learner(), Batch(CENTRES, torch.arange(3)), UNLABELLED, 3) is None
    with pytest.raises(UsageError, match="no unlabelled examples"):
        extended(learner(), Batch(CENTRES, torch.arange(3)), UNLABELLED[:0], 3)


def test_with_one_example_per_class_other_tasks_say_whether_they_help() -> None:
    y = torch.arange(200) % 5
    noise = torch.randn(200, 2, generator=generator(1))
    around = 6 * torch.stack([torch.cos(1.2567 * y), torch.sin(1.2567 * y)], 1)
    near = trial_on_tasks(learner(), FewShot((around + 1.8 * noise, y), 3, 1, 12), 0)
    assert near is not None and near.helps and near.extended > near.plain + 0.02
    assert near.tested == 40 * 3 * 6 and "validation tasks of the run" in str(near)
    nothing = trial_on_tasks(learner(), FewShot((torch.randn(2000, 2), torch.arange(2000) % 5), 3, 1, 12), 0)
    assert nothing is not None and not nothing.helps, "there is nothing to tell the classes by"
    assert trial_on_tasks(learner(), FewShot((noise, y), 3, 1, 1), 0) is None
