"""What it takes to start `aasm-py`: whole processes, from spawn to exit, against the least that Typer allows.

`.venv/bin/python benchmarks/bench_command_line.py [--record]`
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from measuring import (
    BIN,
    CheckFailed,
    Gateway,
    Spawned,
    Summary,
    capture,
    count_records,
    differences,
    environment,
    gateway,
    interleave,
    ratio,
    spawn,
    temporary,
)
from report import Report, run
from support.calls import make_calls

ROUNDS = 31
RECORDS = 5

BARE = "bare Python, `-c pass`"
LEAST_HELP, LEAST_LINE = "Typer's least: `--help` of one command", "Typer's least: one command that prints a line"
HELP, VERSION = "aasm-py --help", "aasm-py --version"
LIST, LIST_JSON = "aasm-py audit list", "aasm-py audit list --json"

# One command without options, which is less than any real program has. Typer draws its help with Rich.
LEAST = """\
import typer

app = typer.Typer(add_completion=False)


@app.command()
def main() -> None:
    \"\"\"Print a line.\"\"\"
    print("a line")


app()
"""


def measure(report: Report) -> None:
    with temporary() as directory, gateway(directory / "home") as running:
        least = directory / "least.py"
        least.write_text(LEAST)
        fill(running)
        base = environment(running.home, TERM="dumb")
        python, ours = BIN / "python", BIN / "aasm-py"
        check(ours, base)
        cases: dict[str, Callable[[], Spawned]] = {
            BARE: partial(spawn, [python, "-c", "pass"], base),
            LEAST_HELP: partial(spawn, [python, least, "--help"], base),
            LEAST_LINE: partial(spawn, [python, least], base),
            HELP: partial(spawn, [ours, "--help"], base),
            VERSION: partial(spawn, [ours, "--version"], base),
            LIST: partial(spawn, [ours, "audit", "list"], base),
            LIST_JSON: partial(spawn, [ours, "audit", "list", "--json"], base),
        }
        results = interleave(cases, rounds=ROUNDS)
    tell(report, results)


def fill(running: Gateway) -> None:
    """Have a few calls recorded."""
    make_calls(running, [f"tool_{number}" for number in range(RECORDS)])
    count_records(running, RECORDS)


def check(program: Path, environ: Mapping[str, str]) -> None:
    """Raise CheckFailed unless the commands do what they are measured for."""
    if "Examples:" not in capture([program, "--help"], environ):
        raise CheckFailed("aasm-py --help shows no examples")
    if not capture([program, "--version"], environ).startswith("aasm-py "):
        raise CheckFailed("aasm-py --version shows no version")
    if len(capture([program, "audit", "list"], environ).splitlines()) != RECORDS + 1:
        raise CheckFailed("aasm-py audit list does not show the records")
    if len(json.loads(capture([program, "audit", "list", "--json"], environ))) != RECORDS:
        raise CheckFailed("aasm-py audit list --json does not show the records")


def tell(report: Report, results: Mapping[str, Sequence[Spawned]]) -> None:
    wall = {name: [result.wall for result in found] for name, found in results.items()}
    baselines = {HELP: LEAST_HELP, VERSION: LEAST_LINE, LIST: LEAST_LINE, LIST_JSON: LEAST_LINE}
    rows = []
    for name, found in results.items():
        against = baselines.get(name)
        rows.append(
            (
                f"`{name}`" if name.startswith("aasm") else name,
                Summary.of(wall[name]).text(),
                Summary.of(differences(wall[name], wall[against])).text() if against else "–",
                ratio(wall[name], wall[against]) if against else "–",
                Summary.of([result.processor for result in found]).text(),
                str(len(found)),
            )
        )
    head = ("command", "wall, ms", "over Typer's least, ms", "ratio", "processor, ms", "n")
    report.table(head, rows)
    report.note(
        f"`--help` is compared with the help of a Typer program of one command without options, the others with such a "
        f"program that prints one line; same environment, same interpreter, byte code warm. `audit list` finds the "
        f"gateway, has it prove whose it is, and shows {RECORDS} records. That is less than Typer's least where "
        "aasm-py leaves out what Typer loads by itself: Rich for help, Pydantic for options. Processor time is the "
        "process's own, user and system."
    )


if __name__ == "__main__":
    raise SystemExit(run("bench_command_line", "Start-up of the command line", measure))
