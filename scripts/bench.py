"""`make bench`: every script of `benchmarks/`, with the Python of `.venv/`, one after the other; writes RESULTS.md.

A script that misses one of its bars fails here, after its figures were written. Words after this script's name pick
benchmarks: `python3 scripts/bench.py startup`.
"""

from __future__ import annotations

import os
import sys

from build import VENV
from environments import ROOT
from suites import Suite, run_all

if __name__ == "__main__":
    scripts = sorted((ROOT / "benchmarks").glob("bench_*.py"))
    wanted = sys.argv[1:]
    scripts = [script for script in scripts if not wanted or any(word in script.stem for word in wanted)]
    if not scripts:
        raise SystemExit(
            f"no benchmark is called {' or '.join(wanted)}" if wanted else "benchmarks/ holds no bench_*.py"
        )
    path = f"{VENV / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    raise SystemExit(
        run_all(
            [
                Suite(script.stem, [VENV / "bin" / "python", script, "--record"], environ={"PATH": path})
                for script in scripts
            ]
        )
    )
