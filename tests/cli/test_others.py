"""``rbml report``, ``list``, ``demo`` and ``rbml`` itself."""

from __future__ import annotations

import inspect
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import rbml as package
from rbml import algorithms, backbones, data, hypergrad, models, strategy, tasks
from rbml.cli import demo as demo_module
from rbml.cli.main import COMMANDS
from rbml.data.sources import glyphs
from rbml.training import RunFolder

TABLES = {"algorithms": algorithms, "strategies": strategy, "engines": hypergrad, "models": models,
          "backbones": backbones, "data": data,
          "tasks": tasks}  # fmt: skip


def test_a_report_writes_its_files_and_names_them(run: RunFolder, rbml: Callable) -> None:
    pytest.importorskip("matplotlib")
    rbml("evaluate", run.path, "--episodes", "2")
    result = rbml("report", run.path)
    assert (result.code, result.err) == (0, "")
    written = [Path(line) for line in result.out.splitlines()]
    assert {path.name for path in written} >= {"learning_curve.png", "adaptation.png", "gallery.png", "report.md"}
    for path in written:
        assert path.parent == run.plots
        assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" or path.suffix in (".md", ".html")


def test_a_report_without_the_data_leaves_out_the_gallery(run: RunFolder, rbml: Callable, pictures: Path) -> None:
    pytest.importorskip("matplotlib")
    config = run.config.read_text()
    run.config.write_text(config.replace(str(pictures), "/nowhere"))
    result = rbml("report", run.path)
    assert result.code == 0
    assert result.err.startswith("rbml: no gallery: '/nowhere' does not exist.")
    assert not (run.plots / "gallery.png").exists()


def test_two_runs_are_reported_side_by_side(run: RunFolder, trained: Path, rbml: Callable, fails: Callable) -> None:
    pytest.importorskip("matplotlib")
    result = rbml("report", run.path, "--compare", trained)
    assert (result.code, result.err) == (0, "")
    assert f"{run.plots}/compare_curves.png" in result.out
    assert "## run beside trained" in (run.plots / "report.md").read_text()
    assert "none does not exist" in fails(1, "report", run.path, "--compare", "none")


@pytest.mark.parametrize("kind", TABLES)
def test_a_list_has_a_line_for_every_member(kind: str, rbml: Callable) -> None:
    lines = rbml("list", kind).out.splitlines()
    assert [line.split()[0] for line in lines] == list(TABLES[kind].ALL)
    for line, member in zip(lines, TABLES[kind].ALL.values(), strict=True):
        assert (member.__doc__ or "").split("``")[0].split("\n")[0] in line
        assert "``" not in line


@pytest.mark.parametrize(("kind", "module"), [item for item in TABLES.items() if item[0] != "tasks"])
def test_the_options_of_each_are_listed_with_their_defaults(kind: str, module: ModuleType, rbml: Callable) -> None:
    blocks: dict[str, list[list[str]]] = {}
    name = ""
    for line in rbml("list", kind, "-v").out.splitlines():
        if line.startswith("      "):
            blocks[name].append(line.split())
        elif line.startswith("  "):
            name = line.split()[0]
            blocks[name] = []
    assert list(blocks) == list(module.ALL)
    for name, member in module.ALL.items():
        text = inspect.getdoc(member) or ""
        for option in inspect.signature(member).parameters.values():
            found = [line for line in blocks[name] if line[0] == option.name]
            if kind == "data" and option.name in ("part", "root", "seed"):  # --set cannot set them
                assert not found
            elif re.search(rf"^    ([\w, ]+, )?{option.name}(, [\w, ]+)?: ", text, re.MULTILINE):
                assert found, (name, option.name)
            if found and isinstance(option.default, bool | int | float):
                assert found[0][1] == str(option.default)


def test_the_options_of_a_strategy_are_said_with_the_form_that_sets_them(rbml: Callable, fails: Callable) -> None:
    out = rbml("list", "strategies", "momentum").out
    assert re.search(r"decay +0\.9 +the fraction of the sum", out) and re.search(r"nesterov +False +whether", out)
    assert "--set strategy.momentum.OPTION=VALUE" in out and "``" not in out and ":class:" not in out
    assert "did you mean 'momentum'" in fails(2, "list", "strategies", "momentm")


def test_the_whole_list_has_all_of_them(rbml: Callable) -> None:
    out = rbml("list").out
    assert out.splitlines()[0] == "algorithms"
    assert out == "".join(f"{kind}\n{rbml('list', kind).out}" for kind in TABLES)


def test_help_is_there_for_every_command(rbml: Callable) -> None:
    result = rbml("--help")
    commands = ("demo", "train", "evaluate", "adapt", "predict", "report", "strategy", "list")
    places = [result.out.index(f"\n  {command} ") for command in commands]
    assert places == sorted(places)
    assert rbml("-h").out == result.out
    for command in commands:
        text = rbml(command, "--help")
        assert (text.code, text.err) == (0, "")
        assert f"Usage: rbml {command} " in text.out
    assert rbml().code == 2
    assert rbml("--version").out == f"rbml, version {package.__version__}\n"


def shell(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "importtime", "-m", "rbml.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["list"],
        ["list", "strategies", "-v"],
        ["--version"],
        *([name, "--help"] for name in COMMANDS if name != "list"),
        ["strategy", "show", "-h"],
    ],
)
def test_help_and_list_answer_at_once_and_load_nothing_heavy(arguments: list[str]) -> None:
    seconds: list[float] = []
    while len(seconds) < 3 and min(seconds, default=2) >= 1:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)  # the processor's time: others may use it too
        result = shell(*arguments)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert result.stdout
    loaded = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "rbml.cli.main" in loaded
    assert loaded.isdisjoint({"torch", "numpy", "PIL", "rich", "matplotlib", "sklearn"})
    assert min(seconds) < 1


def test_who_reads_may_stop_reading() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "rbml.cli", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait() == 1


@pytest.fixture
def small_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(glyphs, "CLASSES", {"train": range(20), "val": range(20, 30), "test": range(30, 50)})
    small = demo_module.RECIPE.changed(meta_steps=3, filters=4, tasks=2, validate_tasks=2)
    monkeypatch.setattr(demo_module, "RECIPE", small)


def test_the_demo_ends_with_a_table_and_pictures(small_demo: None, rbml: Callable) -> None:
    result = rbml("demo", "--episodes", "4")
    assert result.code == 0, result.err
    rows = [line.strip("│").split("│") for line in result.out.splitlines() if line.startswith("│")]
    names = [row[0].strip() for row in rows]
    assert names == [
        "glyphs, held-out classes, 1-shot", "glyphs, held-out classes, 5-shot",
        "real handwritten digits, 1-shot", "real handwritten digits, 5-shot",
    ]  # fmt: skip
    assert all(len(row) == 4 and all("±" in cell for cell in row[1:]) for row in rows)
    run = RunFolder("runs/demo")
    assert len(list((run.path / "evaluations").iterdir())) == 4
    for name in ("learning_curve.png", "gallery.png", "adaptation.png", "report.md"):
        assert (run.plots / name).is_file()
        assert f"runs/demo/plots/{name}" in result.out


def test_a_demo_goes_on_but_not_with_something_else(
    small_demo: None, rbml: Callable, fails: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_module, "_row", lambda *arguments: ["", "", "", ""])
    monkeypatch.setattr("rbml.reports.write_report", lambda *arguments, **options: [])
    rbml("demo", "--meta-steps", "2")
    before = Path("runs/demo/last.pt").read_bytes()
    assert rbml("demo").code == 0  # it is finished, and measured again
    assert "another run" in fails(2, "demo", "--meta-steps", "5")
    text = Path("runs/demo/config.json").read_text()
    Path("runs/demo/config.json").write_text(text.replace('"ways": 5', '"ways": 4'))
    assert "runs/demo holds another run" in fails(2, "demo")
    assert Path("runs/demo/last.pt").read_bytes() == before


@pytest.mark.parametrize("name", ["pydantic", "click"])
def test_what_the_command_line_needs_is_said(name: str) -> None:
    code = f"import sys; sys.modules[{name!r}] = None; sys.argv[1:] = ['train', '-h']; import rbml.cli as c; c.main()"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (1, f"rbml: the command line needs {name}: pip install 'rbml[cli]'\n")
