"""`make test`: build, the Rust tests, the whole Python suite in `.venv/`, and the quick suite on every other Python.

Words after the script's name go to pytest in `.venv/`, alone: `python3 scripts/test.py tests/cli -k audit`.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

from build import REQUIREMENT_WORDS, REQUIREMENTS, VENV, build, uv_install
from environments import ROOT, cache_directory, cached, clean_environment, fingerprint, other_pythons, run, tools
from suites import Suite, run_all

UNUSED_SECONDS = 24 * 3600


def environment(version: str, program: Path, wheels: list[Path]) -> Path:
    """Return an environment of that Python with the wheels and the pinned frameworks; drop those of older wheels."""
    family = f"python-{version}-"
    name = f"{family}{fingerprint([str(program), *REQUIREMENTS, *wheels])}"

    def install(directory: Path) -> None:
        uv = tools() / "uv"
        run([uv, "venv", "--quiet", "--no-project", "--python", program, directory])
        run([*uv_install(uv, directory / "bin" / "python"), *wheels, *REQUIREMENT_WORDS])

    directory = cached(name, install)
    (directory / ".complete").touch()
    for other in cache_directory().glob(f"{family}*/.complete"):
        if time.time() - other.stat().st_mtime > UNUSED_SECONDS:
            shutil.rmtree(other.parent, ignore_errors=True)
    return directory


def suites(wheels: list[Path]) -> list[Suite]:
    # Most tests wait for other processes: two of them at once keep two cores busy.
    at_once = ["-n", "logical", "--maxprocesses", "4"]
    pytest: list[str | Path] = [VENV / "bin" / "pytest", "-p", "no:cacheprovider", *at_once]
    this = ".".join(map(str, sys.version_info[:2]))
    # Some tests launch programs through uv; last on the path, its directory hides nothing.
    environ = {"PATH": f"{clean_environment().get('PATH', os.defpath)}{os.pathsep}{tools()}"}
    if sys.argv[1:]:
        return [Suite(f"Python {this}", [*pytest, *sys.argv[1:]], environ=environ)]
    found = [
        Suite("Rust", ["cargo", "test", "--workspace", "--locked"], ROOT / "native"),
        Suite(f"Python {this}", [*pytest, "tests"], environ=environ),
    ]
    for version, program in other_pythons():
        directory = environment(version, program, wheels)
        quick: list[str | Path] = [directory / "bin" / "pytest", *pytest[1:], "-m", "not slow", "tests"]
        found.append(Suite(f"Python {version}, quick", quick, environ=environ))
    return found


if __name__ == "__main__":
    raise SystemExit(run_all(suites(build())))
