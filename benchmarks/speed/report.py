"""The tables that are printed, in Markdown."""

from __future__ import annotations

import platform
import statistics
from pathlib import Path

from speed.measure import Found, fastest_peer


def table(found: dict[str, Found], floor: float | None) -> str:
    """Return the rows of one problem; ratios are how many times as fast as the fastest peer, turn by turn."""
    peer = fastest_peer(found)
    lines = [
        "| | ratio (quartiles) | ratio of the best | median ms | best ms | MiB | first call s | error |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, one in found.items():
        if one.why:
            lines.append(f"| {name} | {one.why} | | | | | | |")
            continue
        ratio = best = ""
        if peer is not None:
            ratios = sorted(p / o for p, o in zip(found[peer].turns, one.turns, strict=False))
            low, middle, high = (ratios[round(share * (len(ratios) - 1))] for share in (0.25, 0.5, 0.75))
            ratio = f"{middle:.2f} ({low:.2f} to {high:.2f})"
            best = f"{min(found[peer].turns) / min(one.turns):.2f}"
        median, least = statistics.median(one.turns), min(one.turns)
        lines.append(
            f"| {name} | {ratio} | {best} | {1e3 * median:.4g} | {1e3 * least:.4g} | {one.mib:.0f} | {one.first:.1f} | "
            f"{one.error:.0e} |"
        )
    if floor is not None:
        lines.append(f"| floor | | | {1e3 * floor:.3g} | | | | |")
    return "\n".join(lines)


def machine() -> str:
    """Return the processor and the number of its cores."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    wide = any("avx512f" in line for line in lines)
    return (
        f"{len(models)} cores of {models[0]}, {'AVX-512' if wide else 'no AVX-512'}, Python {platform.python_version()}"
    )
