"""What long inner loops cost: a job by one compiled step, a stream with a frozen body, OML and ANML, verification.

    python benchmarks/long_tasks.py job --steps 1000
    python benchmarks/long_tasks.py stream
    python benchmarks/long_tasks.py verify
    python benchmarks/long_tasks.py papers --rounds 3     # needs Omniglot: RBML_DATA

Everything in a table is the same work, run in turns; medians and ratios are printed. ``papers`` is the exception: the
processor time of one meta-step of ``rbml train omniglot --algorithm oml --model oml`` and of its like for ANML, and
what the protocol would take with it on one core.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from rbml import Batch, Job, Stream, models
from rbml.algorithms.options import assemble
from rbml.learner import Learner, frozen, meta
from rbml.recipe import build
from rbml.recipe.protocol import recipe_of
from rbml.strategy import Hyper, chain, momentum, sgd, weight_decay
from rbml.tasks import FewShot, generator, task_seeds

STREAMS = 8


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10))


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def medians(rounds: int, **works: Callable[[], object]) -> dict[str, float]:
    """Run the works in turns and return the median of each."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            found[name].append(seconds(work))
    return {name: statistics.median(times) for name, times in found.items()}


def table(found: dict[str, float], base: str) -> None:
    print("| | seconds | ratio |\n| --- | --- | --- |")
    for name, median in found.items():
        print(f"| {name} | {median:.3f} | {median / found[base]:.2f} |")


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((one[name] - leaf).norm() / leaf.norm()) for name, leaf in other.items())


def job(steps: int, rounds: int) -> None:
    """Meta-gradient of a whole training run of an MLP, beside the run itself."""
    torch.manual_seed(0)
    x, y = torch.randn(1000, 64), torch.randint(0, 10, (1000,))
    tasks = Job.of(Batch(x[:800], y[:800]), Batch(x[800:], y[800:]), 32, [1])

    def learner(compile: str) -> Learner:
        rules = chain(weight_decay(Hyper(1e-4)), momentum(Hyper(0.9, bounds=(0, 1))), sgd(Hyper(0.05, per="layer")))
        return assemble(network(), rules, steps, compile=compile, verify=False)  # type: ignore[arg-type]

    def plain() -> None:
        net = network()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
        for _ in range(steps):
            rows = torch.randint(0, 800, (32,))
            optimizer.zero_grad()
            F.cross_entropy(net(x[rows]), y[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    by_step, by_operator = learner("step"), learner("no")
    first = seconds(lambda: by_step.meta_gradient(tasks))
    apart = distance(by_step.meta_gradient(tasks).grads, by_operator.meta_gradient(tasks).grads)
    print(f"MLP 64-64-10, {steps} mini-batch steps of 32, one task; float32; derivatives apart {apart:.0e}")
    print(f"first call, with compiling: {first:.1f} s\n")
    found = medians(
        rounds,
        **{
            "the training run itself, torch.optim": plain,
            "meta-gradient, compile='step'": lambda: by_step.meta_gradient(tasks),
            "meta-gradient, operator by operator": lambda: by_operator.meta_gradient(tasks),
        },
    )
    table(found, "the training run itself, torch.optim")
    ratio = found["meta-gradient, operator by operator"] / found["meta-gradient, compile='step'"]
    print(f"\noperator by operator / compile='step': {ratio:.1f}")


def stream(rounds: int) -> None:
    """Streams of 90 pictures, of which the head alone learns: the body once, and at every step."""
    torch.manual_seed(0)
    x, y = torch.rand(STREAMS, 90, 1, 1, 28, 28), torch.randint(0, 10, (STREAMS, 90, 1))
    tasks = Stream(Batch(x, y), Batch(x[:, :, 0], y[:, :, 0]))
    once = frozen.frozen_body
    print(f"Conv4-64 without norms, {STREAMS} streams of 90 examples one by one, only the head is adapted\n")
    for learned in (True, False):
        model = models.Conv4(10, norm="none")
        if not learned:
            model.blocks.requires_grad_(False)
        learner = assemble(model, sgd(Hyper(0.1)), 90, adapt="head", verify=False)

        def at_every_step(learner: Learner = learner) -> None:
            setattr(meta, "frozen_body", lambda *_: None)  # noqa: B010  a switch that only this comparison needs
            try:
                learner.meta_gradient(tasks)
            finally:
                setattr(meta, "frozen_body", once)  # noqa: B010

        print(f"the body is {'learned across tasks' if learned else 'pretrained and stays as it is'}\n")
        by_step = assemble(model, sgd(Hyper(0.1)), 90, adapt="head", compile="step", verify=False)
        by_step.meta_gradient(tasks)
        works = {
            "the body once": lambda learner=learner: learner.meta_gradient(tasks),
            "the body once, compile='step'": lambda learner=by_step: learner.meta_gradient(tasks),
            "the body at every step": at_every_step,
        }
        table({name: median / STREAMS for name, median in medians(rounds, **works).items()}, "the body once")
        print()


def verify(rounds: int) -> None:
    """What the verification of the first meta-gradient adds to it."""
    torch.manual_seed(0)
    tasks = FewShot((torch.rand(400, 1, 28, 28), torch.arange(400) // 20), ways=5, shots=1, queries=5).draw(range(32))
    print("Conv4-64, 32 five-way one-shot tasks, one step\n")
    found = medians(
        rounds,
        **{
            name: lambda on=on: assemble(models.Conv4(5), sgd(0.4), 1, verify=on).meta_gradient(tasks)
            for name, on in (("a first meta-gradient", False), ("a first meta-gradient, verified", True))
        },
    )
    table(found, "a first meta-gradient")


def papers(rounds: int) -> None:
    """What a meta-step with the networks of OML and ANML costs, and their protocols on one core."""
    print("| network | pictures | s per meta-step | meta-steps | hours |\n| --- | --- | --- | --- | --- |")
    for name, size in (("oml", 84), ("oml", 28), ("anml", 28)):
        recipe = recipe_of("omniglot", {"algorithm": name, "model": name, "size": size, "verify": False})
        tasks = build.tasks(recipe, "train")
        learner, times = build.learner(recipe, build.setting(recipe, tasks)), []
        for step in range(rounds + 1):
            began = time.process_time()
            learner.meta_gradient(tasks.draw(task_seeds(recipe.outer.tasks, generator(0, step))))
            times.append(time.process_time() - began)
        median, steps = statistics.median(times[1:]), recipe.outer.meta_steps
        print(f"| {name} | {size} | {median:.2f} | {steps:,} | {median * steps / 3600:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("job", "stream", "verify", "papers"))
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    works = {"job": lambda: job(chosen.steps, chosen.rounds)}
    works |= {one.__name__: lambda one=one: one(chosen.rounds) for one in (stream, verify, papers)}  # type: ignore[misc]
    works[chosen.what]()


if __name__ == "__main__":
    main()
