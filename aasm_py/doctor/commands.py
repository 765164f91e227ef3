"""The command lines that remedies are made of: starting, stopping, and taking a setting back."""

from __future__ import annotations

import json
import os
import shlex
import stat
from collections.abc import Mapping
from typing import Any

from aasm_py.doctor.installing import own_installer
from aasm_py.doctor.look import Look
from agent_assembly.diagnosis import SETTINGS, Setting, find_aasm_program

_POSTURE_BYTES = 64 << 10


def aasm_program(look: Look) -> str | None:
    """The path of the program `aasm` as the SDK finds it, None where there is none."""
    return look.once("program aasm", lambda: find_aasm_program(look.environ))


def aasm(look: Look, *words: str) -> str:
    """A command line of `aasm`: by name where the shell finds the same program, else by its path."""
    program = aasm_program(look)
    if program is None or _on_path(look.environ) == os.path.realpath(program):
        program = "aasm"
    return shlex.join([program, *words, *_home_words(look)])


def start_line(look: Look, port: int | None = None) -> str:
    """Start the gateway of this home, on `port` or on that of the settings."""
    return aasm(look, "start", *_port_words(look, port or look.settings.gateway_port))


def restart_line(look: Look, port: int | None = None) -> str:
    """End the gateway and start it as it was started: the stop alone would forget what it was told."""
    words = [*_port_words(look, port or look.settings.gateway_port), *_posture_words(look)]
    return f"{aasm(look, 'stop')} && {aasm(look, 'start', *words)}"


def install_line(look: Look, requirement: str = "agent-assembly[runtime]") -> str:
    """Install into the environment of this Python."""
    return own_installer().line(look, requirement)


def forget_line(look: Look, name: str) -> str:
    """Take back what was said about a setting, wherever that was."""
    source = look.settings.source(name)
    path, _, line = source.rpartition(":")
    if source.startswith("variable "):
        return f"unset {source.removeprefix('variable ')}"
    if path and line.isdigit():
        return f"sed -i {line}d {shlex.quote(path)}"
    return f"leave {_row(name).option} out"


def set_line(look: Look, name: str, value: str) -> str:
    """Give a setting a value that wins over what is said now."""
    row = _row(name)
    if look.settings.source(name) == "argument":
        return f"give {row.option} {shlex.quote(value)} instead"
    return f"export {row.variable}={shlex.quote(value)}"


def posture(look: Look) -> Mapping[str, Any]:
    """`policy` and `min_enforcement` that the last start was told, which hold for the next one; empty for none."""
    try:
        text = read_small(look.path("gateway.posture"), _POSTURE_BYTES)
        said = json.loads(text)
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def read_small(path: str, limit: int) -> bytes:
    """Return the first `limit` bytes of a regular file; raise OSError for everything else, and wait for nothing."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path} is not a regular file")
        return file.read(limit)


def _row(name: str) -> Setting:
    return next(row for row in SETTINGS if row.name == name)


def _on_path(environ: Mapping[str, str]) -> str | None:
    for directory in environ.get("PATH", "").split(os.pathsep):
        path = os.path.join(directory, "aasm")
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return os.path.realpath(path)
    return None


def _home_words(look: Look) -> list[str]:
    """`--home`, unless `aasm` comes to the same directory by itself."""
    named = look.environ.get("AASM_HOME") or (
        os.path.join(look.environ["HOME"], ".aasm") if look.environ.get("HOME") else None
    )
    return [] if look.home is None or named == look.home else ["--home", look.home]


def _port_words(look: Look, port: int) -> list[str]:
    by_itself = look.environ.get("AASM_GATEWAY_PORT") or str(_row("gateway_port").default)
    return [] if by_itself.strip() == str(port) else ["--port", str(port)]


def _posture_words(look: Look) -> list[str]:
    if look.home is None:
        return []
    said = posture(look)
    words = []
    if isinstance(said.get("policy"), str):
        words += ["--policy", said["policy"]]
    if said.get("min_enforcement") in ("enforce", "observe", "disabled"):
        words += ["--min-enforcement", said["min_enforcement"]]
    return words
