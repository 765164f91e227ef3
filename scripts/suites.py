"""Run several checks to the end, whatever each gives, and close with a table of what ran."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from environments import ROOT, clean_environment


class Suite(NamedTuple):
    """One check: what it is called, its command, and where it runs."""

    name: str
    command: Sequence[str | Path]
    cwd: Path = ROOT
    environ: Mapping[str, str] = {}


def run_all(suites: Sequence[Suite]) -> int:
    """Run each suite; return 0 when all of them did."""
    rows: list[tuple[str, str, float]] = []
    for suite in suites:
        print(f"\n── {suite.name} ──", flush=True)
        began = time.monotonic()
        try:
            code = subprocess.run(
                [str(word) for word in suite.command],
                cwd=suite.cwd,
                env={**clean_environment(), **suite.environ},
                stdin=subprocess.DEVNULL,
                check=False,
            ).returncode
            result = "passed" if code == 0 else f"FAILED ({code})"
        except OSError as error:
            result = f"FAILED ({error.strerror}: {suite.command[0]})"
        rows.append((suite.name, result, time.monotonic() - began))
    width = max(len(name) for name, _, _ in rows)
    print("\n── what ran ──")
    for name, result, seconds in rows:
        print(f"{name:<{width}}  {seconds:6.1f} s  {result}")
    failed = sum(result != "passed" for _, result, _ in rows)
    print(f"suites: {len(rows) - failed} passed, {failed} failed", flush=True)
    return 1 if failed else 0
