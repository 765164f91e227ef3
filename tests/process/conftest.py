"""Launching real programs, and what they say about themselves."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.gateway import Gateway
from support.programs import program, run_command

# Printed by a program that wants to say whether the bootstrap is armed in it.
WHETHER_GOVERNED = (
    "import sys; b = sys.modules.get('agent_assembly.core.bootstrap'); "
    "print('governed' if b is not None and b.is_armed() else 'ungoverned', flush=True)"
)

Launch = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def whether_governed() -> str:
    """Code that prints `governed` or `ungoverned`."""
    return WHETHER_GOVERNED


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """The directory that programs are started in."""
    directory = tmp_path / "work"
    directory.mkdir()
    return directory


@pytest.fixture
def launch(gateway: Gateway, work: Path) -> Launch:
    """`launch(*command, options=[…], environ={…})` runs `aasm-run` beside a running gateway."""

    def launch(
        *command: str | Path, options: Sequence[str | Path] = (), **more: Any
    ) -> subprocess.CompletedProcess[str]:
        return run_command([program("aasm-run"), *options, *command], gateway.home, **{"cwd": work, **more})

    return launch


@pytest.fixture
def python() -> str:
    """The Python that the tests run on, in the environment that holds the wheel."""
    return sys.executable
