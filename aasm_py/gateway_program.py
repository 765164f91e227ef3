"""The `aasm` program: found, and run for commands whose meaning is its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from aasm_py.streams import is_terminal
from agent_assembly import ConfigurationError, resolve_settings

if TYPE_CHECKING:
    from subprocess import Popen


def find_program() -> str:
    """Return the path of `aasm`, beside this Python's program, else on PATH; raise ConfigurationError without one."""
    beside = os.path.join(os.path.dirname(sys.executable), "aasm")
    if os.access(beside, os.X_OK):
        return beside
    import shutil

    program = shutil.which("aasm")
    if program is None:
        raise ConfigurationError("the program aasm is not installed; type: pip install 'agent-assembly[runtime]'")
    return program


def run_program(words: Sequence[str], waiting: str = "") -> int:
    """Run `aasm` with `words` for this user's home; return its exit code. Its output is the command's own.

    With `waiting`, people at a terminal see that line while it takes long, and the output when it has ended.
    """
    import subprocess

    home: str = resolve_settings().home
    sys.stdout.flush()
    program = find_program()
    # A line that is written over and the program's own lines must not meet on one terminal.
    shown = bool(waiting) and is_terminal(sys.stderr)
    held = [subprocess.PIPE if shown and stream.isatty() else None for stream in (sys.stdout, sys.stderr)]
    try:
        process = subprocess.Popen(
            [program, *words], env={**os.environ, "AASM_HOME": home}, stdout=held[0], stderr=held[1]
        )
    except OSError as error:
        raise ConfigurationError(f"{program} cannot be run: {error.strerror}; install it again") from None
    with process:
        code = _wait(process, waiting) if any(held) else process.wait()
    return code if code >= 0 else 128 - code


def _wait(process: Popen[bytes], waiting: str) -> int:
    """Wait for `process` under the line `waiting`, then print what it said, also when it was interrupted."""
    from aasm_py.progress import Waiting

    said: tuple[bytes | None, bytes | None] = (None, None)
    try:
        with Waiting(waiting):
            said = process.communicate()
    except KeyboardInterrupt:
        # The terminal has told the process, too.
        said = process.communicate()
        raise
    finally:
        for number, text in zip((1, 2), said, strict=True):
            if text:
                os.write(number, text)
    return process.returncode


def start_words(words: Sequence[str]) -> list[str]:
    """Return the words that start the local gateway, on the port of the settings unless `words` name one."""
    settings = resolve_settings()
    named = any(word == "--port" or word.startswith("--port=") for word in words)
    port = ["--port", str(settings.gateway_port)] if settings.is_set("gateway_port") and not named else []
    return ["start", "--mode", "local", *port, *words]
