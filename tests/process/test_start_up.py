"""What governance adds to the start of a program, as modules: a short list, each entry of which was decided on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support.gateway import Gateway, clean_environment
from support.programs import program

import aasm_py

LAUNCHER = {
    "__future__",
    "_json",
    "_sha2",
    "_sha256",
    "_socket",
    "aasm_py",
    "aasm_py.host",
    "aasm_py.options",
    "aasm_py.own_path",
    "aasm_py.plan",
    "aasm_py.run",
    "agent_assembly",
    "agent_assembly._version",
    "agent_assembly.core",
    "agent_assembly.core.exchange",
    "agent_assembly.core.home",
    "agent_assembly.core.local_gateway",
    "agent_assembly.core.modes",
    "agent_assembly.core.proof",
    "agent_assembly.core.settings",
    "agent_assembly.core.target",
    "agent_assembly.exceptions",
    "agent_assembly.launching",
    "errno",
    "gc",
}
PROGRAM = {
    "__future__",
    "agent_assembly",
    "agent_assembly._version",
    "agent_assembly.adapters",
    "agent_assembly.adapters.hooks",
    "agent_assembly.adapters.table",
    "agent_assembly.core",
    "agent_assembly.core.bootstrap",
    "sitecustomize",
}


def imported(*command: str | Path, **variables: str) -> set[str]:
    """The modules that a Python imports for `command`, by its own account."""
    result = subprocess.run(
        [str(word) for word in command], env=clean_environment(**variables), capture_output=True, text=True, check=True
    )
    lines = [line for line in result.stderr.splitlines() if line.startswith("import time:")]
    assert lines, result.stderr
    return {line.rpartition("|")[2].strip() for line in lines[1:]}


def test_the_program_starts_with_no_more_than_the_bootstrap(python: str) -> None:
    """No typing, re, json, threading, socket …: whoever adds a module here slows every program of every user."""
    bare = imported(python, "-X", "importtime", "-c", "pass")
    ours = imported(
        python,
        "-X",
        "importtime",
        "-c",
        "pass",
        PYTHONPATH=str(Path(aasm_py.__file__).parent / "_bootstrap"),
        AASM_RUN_ID="run-0123456789abcdef",
        AASM_GATEWAY_URL="http://127.0.0.1:9",
        AASM_GATEWAY_SOURCE="local gateway (gateway.pid)",
    )
    assert ours - bare <= PROGRAM


def test_the_launcher_imports_no_more_than_it_needs(gateway: Gateway, python: str) -> None:
    """With a warm gateway and no file, which is how it is run day after day."""
    bare = imported(python, "-X", "importtime", "-c", "pass")
    ours = imported(
        python,
        "-X",
        "importtime",
        program("aasm-run"),
        sys.executable,
        "-c",
        "pass",
        AASM_HOME=str(gateway.home),
    )
    assert ours - bare <= LAUNCHER
    assert "agent_assembly.core.local_gateway" in ours


def test_where_the_wheel_puts_the_bootstrap() -> None:
    """Beside the launcher, as data: the environment's own Pythons must not find it."""
    directory = Path(aasm_py.__file__).parent / "_bootstrap"
    assert (directory / "sitecustomize.py").is_file()
    assert not (directory / "__init__.py").exists()
    assert not (Path(aasm_py.__file__).parent.parent / "sitecustomize").exists()
