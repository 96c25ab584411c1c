"""Strategies from the command line: set, from a file, kept in a file, put on another run, frozen, shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rbml.strategy.serialize import described
from rbml.training import RunFolder, load_strategy

PER_LAYER = ["--set", "strategy.sgd.lr.per=layer", "--set", "strategy.sgd.lr.per_step=true"]


@pytest.fixture
def train(pictures: Path, rbml: Callable, tiny: list[str]) -> Callable[..., str]:
    """``train("run", *options)``: train a tiny run with a learned strategy, and return what was printed."""

    def run(name: str, *options: object) -> str:
        result = rbml("train", f"folder:{pictures}", *tiny, "--meta-steps", "2", "--run", name, *options)
        assert result.code == 0, result.err
        return str(result.out)

    return run


def test_every_option_can_be_set_and_is_kept_in_the_folder(train: Callable, rbml: Callable, fails: Callable) -> None:
    chain = ["--set", "strategy=weight_decay, momentum, sgd", "--set", "strategy.momentum.nesterov=true"]
    more = ["--set", "strategy.sgd.lr.bounds=[0, none]", "--set", "learner.adapt=head.*", "--steps", "2"]
    expected = "weight_decay(rate 0.0001), momentum(decay 0.9, nesterov), sgd(lr 0.4 learned per layer each step)"
    out = train("r", *chain, *PER_LAYER, *more)
    assert f"strategy: {expected}\n" in out
    config = json.loads(Path("r/config.json").read_text())
    assert config["recipe"]["strategy"]["chain"] == "weight_decay, momentum, sgd"
    assert config["recipe"]["strategy"]["settings"] == {
        "momentum.nesterov": True, "sgd.lr.per": "layer", "sgd.lr.per_step": True, "sgd.lr.bounds": [0, None],
    }  # fmt: skip
    assert config["recipe"]["algorithm"]["options"] == {"steps": 2, "adapt": "head.*"}
    assert [part["by"] for part in config["strategy"]] == ["weight_decay", "momentum", "sgd"]
    assert config["strategy"][2]["settings"]["lr"]["bounds"] == [0.0, None]
    learner = RunFolder("r").learner()
    assert described(learner.strategy) == expected and learner.adapted == ["head.weight", "head.bias"]

    assert rbml("train", "--resume", "r", *PER_LAYER).code == 0
    line = fails(2, "train", "--resume", "r", "--set", "strategy.sgd.lr.per=all", "--set", "strategy=sgd")
    assert "sgd.lr.per layer (not all)" in line and "strategy weight_decay, momentum, sgd (not sgd)" in line


def test_a_file_sets_what_the_command_line_does_not(
    pictures: Path, rbml: Callable, tiny: list[str], fails: Callable
) -> None:
    Path("c.toml").write_text(
        f'data = "folder:{pictures}"\nouter_lr = 1\nways = 2\nmeta_steps = 1\n'
        '[strategy]\nchain = ["momentum", "sgd"]\nmomentum.nesterov = true\n'
        '[strategy.sgd.lr]\nvalue = 0.3\nper = "layer"\nbounds = [0, inf]\n[learner]\nadapt = "head.*"\n'
    )
    given = [*tiny[2:], "--meta-steps", "1", "--run", "r", "--set", "strategy.sgd.lr.per=all"]  # ways is the file's
    assert rbml("train", "--config", "c.toml", *given).code == 0
    recipe = RunFolder("r").recipe()
    assert (recipe.data[0].source, recipe.tasks.ways, recipe.outer.lr) == (f"folder:{pictures}", 2, 1.0)
    assert recipe.strategy.settings["sgd.lr.bounds"] == [0, None]
    words = "momentum(decay 0.9, nesterov), sgd(lr 0.3 learned)"
    learner = RunFolder("r").learner()
    assert described(learner.strategy) == words and learner.adapted == ["head.weight", "head.bias"]
    for content, said in (
        ("wayz = 3", "no entry of c.toml named 'wayz': did you mean 'ways'"),
        ('ways = "five"', "ways in c.toml must be a whole number, not 'five'"),
        ("ways =", "c.toml cannot be read as TOML"),
        ('[strategy.sgd.lr]\nper = "layr"', "did you mean 'layer'"),
        ("[learner]\nadapted = 3", "did you mean 'adapt'"),
    ):
        Path("c.toml").write_text(content)
        assert said in fails(2, "train", f"folder:{pictures}", "--config", "c.toml", "--run", "s")


def test_a_learned_strategy_goes_from_run_to_run(train: Callable, rbml: Callable, fails: Callable) -> None:
    train("donor", *PER_LAYER, "--steps", "2")
    result = rbml("strategy", "export", "donor", "--out", "s")
    assert result.code == 0
    assert "Wrote s: sgd(lr 0.4 learned per layer each step)" in result.out
    learned = load_strategy(Path("s"))

    out = train("going-on", "--strategy", "s", "--filters", "6", "--meta-steps", "1")
    assert "2 inner steps" in out and "with the learned values of s" in out
    out = train("frozen", "--strategy", "s", "--freeze-strategy", "--seed", "7")
    kept = Path("s").read_bytes()
    Path("s").unlink()
    for run, same in (("going-on", False), ("frozen", True)):
        phi = RunFolder(run).learner().phi.state_dict()
        assert all(torch.equal(leaf, learned.phi[name]) == same for name, leaf in phi.items())
        assert rbml("evaluate", run, "--episodes", "2").code == 0
    assert rbml("train", "--resume", "frozen").code == 0
    Path("s").write_bytes(kept)

    shown = rbml("strategy", "show", "s").out
    assert "run: " in shown and "blocks.0.conv" in shown and "2 inner steps" in shown and "start" not in shown
    of_run = rbml("strategy", "show", "frozen").out
    assert "start" in of_run and "layer, each step, fixed" in of_run

    options = ("--strategy", "s", "--run", "x")
    line = fails(1, "train", "glyphs", "--model", "mlp", *options)
    assert "was learned for other parameters: sgd.lr/blocks.0.conv.* is in the file only" in line
    assert "lr=0.1 has no place: s says" in fails(2, "train", "glyphs", "--lr", "0.1", *options)
    assert "set only sgd.lr.learn" in fails(2, "train", "glyphs", "--set", "strategy.sgd.lr.per=all", *options)
    assert "holds 'best', expected 'strategy'" in fails(1, "strategy", "show", "donor/best.pt")
    assert not Path("x").exists()


def test_a_strategy_that_is_not_learned_can_be_kept_too(trained: Path, rbml: Callable) -> None:
    out = rbml("strategy", "export", trained, "--out", "s").out
    assert "Nothing of this strategy is learned" in out
    assert "all, fixed" in rbml("strategy", "show", "s").out


def test_tensors_are_shown_by_their_norms(train: Callable, rbml: Callable) -> None:
    train("r", "--set", "strategy=kronecker, sgd")
    out = rbml("strategy", "show", "r").out
    assert "from the identity" in out and "blocks.0.conv.weight/out" in out and "4 x 4" in out
