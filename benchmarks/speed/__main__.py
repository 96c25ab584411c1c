"""Measure rbml beside other libraries and hand-written loops, taking turns, each in a process of its own.

    make bench                                                 every row, with both wait policies of OpenMP
    make bench ROWS="sinusoid conv_5w1s" OPTIONS="--rounds 5"
    PYTHONPATH=src:benchmarks .bench-venv/bin/python -m speed rows sinusoid --contenders higher rbml
    PYTHONPATH=src:benchmarks .bench-venv/bin/python -m speed growth conv_5w1s
    PYTHONPATH=src:benchmarks .bench-venv/bin/python -m speed startup
    PYTHONPATH=src:benchmarks .bench-venv/bin/python -m speed sampling

A ratio says how many times as fast as the fastest library of others (``higher``, ``torchopt``) in the same turn; its
quartiles are those over the turns. A contender whose gradient differs from the plain loop in double precision is not
timed. MiB is the peak above the memory before the first call. ``--clock cpu`` counts processor seconds, which other
jobs on the machine disturb less. The floor is the arithmetic of the plain loop at the speed of a matrix product.
"""

from __future__ import annotations

import argparse

import torch

from speed import contenders, floor, growth, measure, problems, report, sampling, startup


def rows(chosen: argparse.Namespace) -> None:
    print(report.machine())
    sizes = dict(chosen.sizes)
    if chosen.threads is not None:
        torch.set_num_threads(chosen.threads)  # for the floor
    for row in chosen.rows or problems.ALL:
        problem = problems.ALL[row](**sizes)
        least = floor.operations(problem) / floor.rate()
        for policy in chosen.policies:
            how = f"OpenMP's wait policy: {policy}, threads: {chosen.threads or 'default'}, {chosen.clock} time"
            print(f"\n**{row}**: {problem.about}. {how}\n", flush=True)
            around = measure.environment(policy, chosen.threads)
            found = measure.measured(row, chosen.contenders, chosen.rounds, chosen.seconds, chosen.clock, sizes, around)
            print(report.table(found, least), flush=True)


def _size(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    return name, int(number)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    table = commands.add_parser("rows", help="the table")
    table.set_defaults(run=rows)
    table.add_argument("rows", nargs="*", choices=[*problems.ALL, []], help="default: all of them")
    table.add_argument("--contenders", nargs="+", choices=contenders.ALL, default=list(contenders.ALL))
    table.add_argument("--sizes", nargs="+", type=_size, default=[], metavar="NAME=NUMBER", help="such as tasks=4")
    table.add_argument("--policies", nargs="+", choices=("default", "active", "passive"), default=["default"])
    grown = commands.add_parser("growth", help="how the time grows when a size is doubled")
    grown.set_defaults(run=growth.run)
    grown.add_argument("rows", nargs="+", choices=problems.ALL)
    grown.add_argument("--contenders", nargs="+", choices=contenders.ALL, default=["plain", "rbml"])
    for command in (table, grown):
        command.add_argument("--rounds", type=int, default=15)
        command.add_argument("--seconds", type=float, default=60.0, help="for the turns of one table")
        command.add_argument("--threads", type=int, help="default: what PyTorch takes")
        command.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    starting = commands.add_parser("startup", help="import rbml beside import torch")
    starting.set_defaults(run=startup.run)
    drawing = commands.add_parser("sampling", help="drawing tasks beside an outer step on them")
    drawing.set_defaults(run=sampling.run)
    drawing.add_argument("sources", nargs="*", default=["glyphs", "omniglot", "quickdraw"])
    for command in (starting, drawing):
        command.add_argument("--rounds", type=int, default=15)
    return parser


if __name__ == "__main__":
    arguments = _parser().parse_args()
    arguments.run(arguments)
