from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import pytest
import torch

import rbml
from rbml.errors import CheckpointError, UsageError
from rbml.reports import phi_table, tensor_table, wording, write_report
from rbml.tasks import FewShot
from rbml.training import RunFolder, files

Blobs = Callable[..., tuple[torch.Tensor, list[str]]]
Origin = Callable[..., dict[str, Any]]


def page(paths: list[Path]) -> str:
    assert [path.name for path in paths[-2:]] == ["report.md", "report.html"]
    return paths[-2].read_text()


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


def test_a_finished_run_has_every_picture_and_table(copy: RunFolder, blobs: Blobs, evaluation: Origin) -> None:
    copy.evaluation("any").parent.mkdir()
    files.write_json(copy.evaluation("glyphs-5w1s"), evaluation())
    files.write_json(copy.evaluation("digits-5w1s"), evaluation("digits", episodes=1000))
    before = dict(matplotlib.rcParams)
    paths = write_report(copy, FewShot(blobs(24), ways=3, shots=1, queries=2), seed=0)
    assert names(paths) == [
        "adaptation.png",
        "gallery.png",
        "learning_curve.png",
        "phi.png",
        "theta.png",
        "report.md",
        "report.html",
    ]
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in paths[:-2])
    assert dict(matplotlib.rcParams) == before
    assert sorted(path.name for path in copy.plots.iterdir()) == sorted(names(paths))

    text = page(paths)
    assert "- **Tasks:** 3-way 1-shot, 2 queries per class, from glyphs (train: blobs of 24 kinds)" in text
    assert "6 of 6 outer steps" in text and "The rest of this page is about the best validation" in text
    assert "| digits | test | 5-way 1-shot | 1\u2009000 | 2 | 30.0 ± 1.0 | 50.0 ± 1.2 | 45.0 ± 1.2 |" in text
    row = phi_table(copy)[0]
    assert f"| `{row.name}` | {row.layer} | tensor | 1 | 0.001 | {row.learned.mean:.3g} |" in text
    assert all(f"]({name})" in text for name in names(paths)[:-2])


def test_two_runs_are_shown_side_by_side(copy: RunFolder, trained: RunFolder, with_tensors: RunFolder) -> None:
    paths = write_report(copy, None, 0, with_tensors)
    assert names(paths)[-4:] == ["compare_curves.png", "compare_phi.png", "report.md", "report.html"]
    text = page(paths)
    assert "## run beside tensors" in text and "![run beside tensors](compare_curves.png)" in text
    assert "- **Strategy:** l2(strength 0.001 learned per tensor), momentum(decay 0.5 learned each step), sgd" in text
    assert "Norms of tensors" in wording.phi_summary(phi_table(with_tensors), tensor_table(with_tensors))
    with pytest.raises(CheckpointError, match="none does not exist"):
        write_report(copy, None, 0, RunFolder("none"))


def test_a_run_that_was_stopped_and_not_measured_says_so(plain: RunFolder, tmp_path: Path) -> None:
    paths = write_report(plain, None, seed=0)
    assert names(paths) == ["learning_curve.png", "theta.png", "report.md", "report.html"]
    text = page(paths)
    assert f"Not measured yet: `rbml evaluate {plain.path}`." in text
    assert f"Not finished: go on with `rbml train --resume {plain.path}`" in text
    assert "Nothing of the strategy is learned" in text
    assert f"`rbml report {plain.path} --data-root FOLDER`" in text


def test_a_run_that_has_not_begun_says_so(copy: RunFolder, blobs: Blobs) -> None:
    for path in (copy.best, copy.last, copy.journal):
        path.unlink()
    paths = write_report(copy, FewShot(blobs(24), ways=3, shots=1, queries=2), seed=0)
    assert names(paths) == ["report.md", "report.html"]
    assert page(paths).count("no checkpoint yet: rbml train --resume") == 3
    assert "no journal yet" in page(paths)


def test_damaged_files_are_named_and_the_rest_is_written(copy: RunFolder, evaluation: Origin) -> None:
    copy.evaluation("any").parent.mkdir()
    copy.evaluation("broken").write_text("{")
    files.write_json(copy.evaluation("strange"), {"accuracy": {}})
    files.write_json(copy.evaluation("whole"), evaluation())
    copy.best.write_bytes(copy.best.read_bytes()[:100])
    paths = write_report(copy, None, seed=0)
    assert names(paths) == ["adaptation.png", "learning_curve.png", "report.md", "report.html"]
    text = page(paths)
    assert "broken.json is damaged" in text and "strange.json is not an evaluation of rbml" in text
    assert "best.pt is damaged" in text


def test_tasks_that_do_not_fit_the_model_are_said_in_words(plain: RunFolder) -> None:
    tasks = FewShot((torch.randn(40, 7), torch.arange(40) // 10), ways=3, shots=1, queries=2)
    paths = write_report(plain, tasks, seed=0)
    assert "gallery.png" not in names(paths)
    assert "The model fails on examples (1, 3, 7)" in page(paths) or "The model fails on examples (3, 7)" in page(paths)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a run folder"):
        write_report(RunFolder(tmp_path), None, seed=0)
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_the_command_that_installs_it_is_said(
    copy: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(UsageError, match=r"drawing a report needs matplotlib: pip install 'rbml\[report\]'"):
        write_report(copy, None, seed=0)
    assert not copy.plots.exists()


def test_matplotlib_is_not_loaded_on_import(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("matplotlib", "rbml.reports"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(rbml, "reports", None, raising=False)
    importlib.import_module("rbml.reports")
    assert "matplotlib" not in sys.modules
    for name in [name for name in sys.modules if name.startswith("rbml.reports")]:
        del sys.modules[name]  # the ones that were there before come back
