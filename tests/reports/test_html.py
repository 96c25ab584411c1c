from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rbml.reports import write_report
from rbml.reports.document import Part, Picture, Report, as_html, as_markdown
from rbml.tasks import FewShot
from rbml.training import RunFolder, files

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WIDTHS = (360, 390, 1280)
TABLE = f"|{' a long head of a column |' * 12}\n|{' --- |' * 12}\n|{' cell |' * 12}\n"


def test_it_holds_everything_and_refers_to_nothing() -> None:
    picture = Picture("one", b"png", b"<svg>wide</svg>", b"<svg>narrow</svg>")
    page = as_html(Report("A run", "head", [Part("First", "text", picture), Part("Second", TABLE)]))
    links = re.findall(r'(?:src|srcset|href)="([^"]*)"', page)
    assert all(link.startswith(("#", "data:image/svg+xml;base64,")) for link in links) and len(links) == 4
    assert "<script" not in page and "http" not in page
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    assert '<div class="scroll" tabindex="0" role="region" aria-label="table"><table>' in page
    assert "prefers-color-scheme: dark" in page and "@media print" in page


def test_names_of_classes_are_text_and_no_html() -> None:
    page = as_html(
        Report("<b>run</b>", "**bold** <script>alert(1)</script>", [Part("<i>", "| a |\n| --- |\n| <u> |\n")])
    )
    assert "<script>" not in page and "<u>" not in page and "<h1><b>" not in page and "<i>" not in page
    assert "<strong>bold</strong>" in page and "&lt;script&gt;" in page


def test_markdown_shows_the_files_of_the_pictures() -> None:
    report = Report("A run", "head", [Part("First", "text\n", Picture("one", b"", b"", b""))])
    assert as_markdown(report) == "# A run\n\nhead\n\n## First\n\ntext\n\n![First](one.png)\n"


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_finds_nothing_that_is_too_wide(
    copy: RunFolder, blobs: Callable[..., Any], evaluation: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    copy.evaluation("any").parent.mkdir()
    baselines = {"nearest centroid": {"mean": 0.4, "interval": 0.02, "tasks": 600}}
    files.write_json(copy.evaluation("glyphs-5w1s"), evaluation() | {"baselines": baselines})
    files.write_json(copy.evaluation("digits-5w1s"), evaluation("folder:" + "a/very/long/path" * 20, episodes=1000))
    page = write_report(copy, FewShot(blobs(24), ways=3, shots=1, queries=2), seed=0)[-1]
    text = page.read_text()
    assert text.count('<source media="(max-width: 640px)"') == text.count("<img ") == 6  # and each for a telephone
    # A window of Chromium has at least some 500 pixels, a frame may have fewer.
    probe = "const e = contentDocument.scrollingElement; title = e.scrollWidth + ' of ' + e.clientWidth"
    style = "height:800px;border:0;display:block"
    frames = [f'<iframe src="{page}" style="width:{width}px;{style}" onload="{probe}"></iframe>' for width in WIDTHS]
    (tmp_path / "frames.html").write_text("".join(frames))
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom"]
    command = [str(CHROMIUM), *flags, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,900"]
    found = subprocess.run(
        [*command, f"file://{tmp_path / 'frames.html'}"], capture_output=True, text=True, timeout=120, check=True
    )
    sizes = re.findall(r'title="(\d+) of (\d+)"', found.stdout)
    assert len(sizes) == len(WIDTHS) and all(content == room for content, room in sizes)
