"""One benchmark's findings: printed, and with `--record` kept as its section of RESULTS.md."""

from __future__ import annotations

import datetime as dt
import os
import platform
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from measuring import ROOT, CheckFailed

# The load average for each core beyond which others take part in what is measured. One benchmark after another leaves a
# load of about one in all.
_QUIET = 0.75

RESULTS = ROOT / "benchmarks" / "RESULTS.md"

_HEAD = """\
# Results

Written by `make bench`, section by section; each names its date and machine. Figures are compared with a baseline that
was measured in the same run, in turn with them, and are the median (smallest to largest) unless they say otherwise. A
bar is what the project demands of itself.
"""


class Bar(NamedTuple):
    """What is demanded: at most `limit`."""

    what: str
    measured: float
    limit: float
    unit: str

    @property
    def met(self) -> bool:
        return self.measured <= self.limit

    def cells(self) -> tuple[str, ...]:
        verdict = "met" if self.met else "**not met**"
        return self.what, f"{self.measured:.1f} {self.unit}", f"≤ {self.limit:g} {self.unit}", verdict


class Report:
    """Collects bars, tables and notes of one benchmark."""

    def __init__(self, name: str, title: str) -> None:
        self.name = name
        self.title = title
        self.bars: list[Bar] = []
        self.failures: list[str] = []
        self._parts: list[str] = []
        self._load = os.getloadavg()[0]

    def bar(self, what: str, measured: float, limit: float, unit: str) -> None:
        self.bars.append(Bar(what, measured, limit, unit))

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self._parts.append(_table(head, rows))

    def note(self, text: str) -> None:
        self._parts.append(text)

    def fail(self, text: str) -> None:
        """Note that something was not as it must be for the figures to mean anything."""
        self.failures.append(text)

    def markdown(self) -> str:
        parts = [f"## {self.title}", machine(self._load)]
        if self.bars:
            parts.append(_table(("bar", "measured", "demanded", ""), [bar.cells() for bar in self.bars]))
        parts += self._parts
        parts += [f"**Failed:** {failure}" for failure in self.failures]
        return "\n\n".join(parts) + "\n"

    def finish(self) -> int:
        """Print, record when asked to, and return the exit code: 1 when a bar is not met or a check failed."""
        text = self.markdown()
        print(text, flush=True)
        if "--record" in sys.argv[1:]:
            record(self.name, text)
        return 0 if not self.failures and all(bar.met for bar in self.bars) else 1


def run(name: str, title: str, measure: Callable[[Report], None]) -> int:
    """Measure and report; what could not be measured is reported as that."""
    report = Report(name, title)
    try:
        measure(report)
    except (CheckFailed, AssertionError, OSError) as error:
        report.fail(f"{type(error).__name__}: {error}")
    return report.finish()


def machine(load: float) -> str:
    """When and on what."""
    model = "unknown processor"
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        model = found.group(1) if found else platform.processor() or model
    except OSError:
        model = platform.processor() or model
    moment = dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    busy = ", **too busy a machine to rely on these figures**" if load > cores * _QUIET else ""
    return (
        f"{moment} · {cores} cores, {model} · {platform.system()} {platform.release()} · "
        f"{platform.python_implementation()} {platform.python_version()} · load average at the start {load:.1f}{busy}"
    )


def record(name: str, text: str) -> None:
    """Replace the section `name` of RESULTS.md, or append it."""
    before = RESULTS.read_text() if RESULTS.exists() else _HEAD
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    section = f"{begin}{text}{end}"
    first, last = before.find(begin), before.find(end)
    known = 0 <= first < last
    after = before[:first] + section + before[last + len(end) :] if known else f"{before}\n{section}"
    with tempfile.NamedTemporaryFile("w", dir=RESULTS.parent, delete=False) as file:
        file.write(after)
    os.chmod(file.name, 0o644)
    os.replace(file.name, RESULTS)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return "\n".join([line(head), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(line, rows)])
