"""Running the installed programs as a person does, with every variable of theirs known."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from support.gateway import Gateway, clean_environment

BIN = Path(sys.executable).parent


def program(name: str) -> Path:
    """Return `aasm-run`, `aasm-py` or `aasm` of the environment that the tests run in."""
    return BIN / name


def search_path(*more: Path) -> str:
    """The search path of a person who has our programs, and those in `more`."""
    return os.pathsep.join([str(BIN), *map(str, more), os.environ.get("PATH", os.defpath)])


def run_command(
    command: Sequence[str | Path],
    home: Path,
    *,
    environ: dict[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
    timeout: float = 60.0,
) -> subprocess.CompletedProcess[str]:
    """Run `command` with `home` as AASM_HOME, in a directory that is not the checkout."""
    return subprocess.run(
        [str(word) for word in command],
        env=clean_environment(AASM_HOME=str(home), **(environ or {})),
        cwd=cwd or home.parent,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def run_agent(
    arguments: Sequence[str | Path],
    gateway: Gateway,
    *,
    options: Sequence[str | Path] = (),
    environ: dict[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
    timeout: float = 60.0,
) -> subprocess.CompletedProcess[str]:
    """Run `aasm-run OPTIONS python ARGUMENTS` against `gateway`, which it finds through the home's pid file."""
    command = [program("aasm-run"), *options, sys.executable, *arguments]
    return run_command(command, gateway.home, environ=environ, cwd=cwd, stdin=stdin, timeout=timeout)


def aasm_py(
    arguments: Sequence[str | Path],
    home: Path,
    *,
    environ: dict[str, str] | None = None,
    timeout: float = 60.0,
) -> subprocess.CompletedProcess[str]:
    """Run `aasm-py ARGUMENTS`."""
    return run_command([program("aasm-py"), *arguments], home, environ=environ, timeout=timeout)
