"""The `aasm` program: found, and run for commands whose meaning is its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence

from agent_assembly import ConfigurationError, resolve_settings


def find_program() -> str:
    """Return the path of `aasm`, beside this Python's program, else on PATH; raise ConfigurationError without one."""
    beside = os.path.join(os.path.dirname(sys.executable), "aasm")
    program = beside if os.access(beside, os.X_OK) else shutil.which("aasm")
    if program is None:
        raise ConfigurationError("the program aasm is not installed; type: pip install 'agent-assembly[runtime]'")
    return program


def run_program(words: Sequence[str]) -> int:
    """Run `aasm` with `words` for this user's home; return its exit code. Its output is the command's own."""
    home: str = resolve_settings().home
    sys.stdout.flush()
    try:
        code = subprocess.run([find_program(), *words], env={**os.environ, "AASM_HOME": home}, check=False).returncode
    except OSError as error:
        raise ConfigurationError(f"{find_program()} cannot be run: {error.strerror}; install it again") from None
    return code if code >= 0 else 128 - code


def start_words(words: Sequence[str]) -> list[str]:
    """Return the words that start the local gateway, on the port of the settings unless `words` name one."""
    settings = resolve_settings()
    named = any(word == "--port" or word.startswith("--port=") for word in words)
    port = ["--port", str(settings.gateway_port)] if settings.is_set("gateway_port") and not named else []
    return ["start", "--mode", "local", *port, *words]
