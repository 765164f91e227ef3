"""The installed programs at a real terminal of a given size, in a pipe, or without streams; and what was seen, as text.

Standard output and standard error are terminals of their own here, so that each can be looked at alone.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from support.gateway import clean_environment
from support.programs import search_path
from support.pseudo_terminal import open_terminal, read_some, without_looks

SNAPSHOTS = Path(__file__).resolve().parents[1] / "cli" / "snapshots"
_STYLES = {"1": "bold", "2": "dim", "31": "red", "32": "green", "33": "yellow", "36": "cyan"}


class Seen(NamedTuple):
    """What a program left behind."""

    code: int
    stdout: str
    stderr: str

    def text(self) -> str:
        """As it is kept: controls as escapes, so that the file is plain text."""
        out, error = _plain(self.stdout), _plain(self.stderr)
        return f"exit code: {self.code}\n--- standard output\n{out}--- standard error\n{error}"


def looks(home: Path, **more: str) -> dict[str, str]:
    """The variables of a person with a UTF-8 locale and a usual terminal, plus `more`."""
    known = {"PATH": search_path(), "LANG": "C.UTF-8", "TERM": "xterm-256color", "AASM_HOME": str(home)}
    return {**without_looks(clean_environment()), **known, **more}


class Terminal:
    """A program that runs at a terminal of `columns`; a context manager, which ends it."""

    def __init__(self, command: Sequence[str | Path], environ: Mapping[str, str], columns: int = 80) -> None:
        pairs = [open_terminal(columns), open_terminal(columns)]
        for _, inner in pairs:
            attributes = termios.tcgetattr(inner)
            attributes[1] &= ~termios.OPOST  # a newline stays a newline
            termios.tcsetattr(inner, termios.TCSANOW, attributes)
        self._outer = [outer for outer, _ in pairs]
        self._said = [b"", b""]
        self.process = subprocess.Popen(
            [str(word) for word in command],
            env=dict(environ),
            cwd=environ["AASM_HOME"],
            stdin=subprocess.DEVNULL,
            stdout=pairs[0][1],
            stderr=pairs[1][1],
            start_new_session=True,
        )
        for _, inner in pairs:
            os.close(inner)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for number in self._outer:
            os.close(number)

    def wait_for(self, text: str, seconds: float = 30.0) -> None:
        """Wait until `text` is on the terminal of standard error; raise AssertionError if it never is."""
        deadline = time.monotonic() + seconds
        while text.encode() not in self._said[1]:
            assert time.monotonic() < deadline, f"{text!r} was not seen, but {self._said}"
            assert self._read(0.1), f"it ended without {text!r}: {self._said}"

    def interrupt(self) -> None:
        """Press Ctrl-C: the program and what it started are told."""
        os.killpg(self.process.pid, signal.SIGINT)

    def end(self, seconds: float = 60.0) -> Seen:
        """Wait for the program's end; return what was seen in all."""
        deadline = time.monotonic() + seconds
        while self._read(0.1):
            assert time.monotonic() < deadline, f"it did not end; seen so far: {self._said}"
        code = self.process.wait(10)
        stdout, stderr = (said.decode() for said in self._said)
        return Seen(code, stdout, stderr)

    def _read(self, seconds: float) -> bool:
        """Read what there is; return whether more may come."""
        open_ = False
        ready, _, _ = select.select(self._outer, [], [], seconds)
        for place, number in enumerate(self._outer):
            if number not in ready:
                open_ = True
                continue
            chunk = read_some(number)
            self._said[place] += chunk
            open_ = open_ or bool(chunk)
        return open_


def at_terminal(command: Sequence[str | Path], environ: Mapping[str, str], columns: int = 80) -> Seen:
    """Run `command` to its end at a terminal of `columns`."""
    with Terminal(command, environ, columns) as terminal:
        return terminal.end()


def in_pipe(command: Sequence[str | Path], environ: Mapping[str, str]) -> Seen:
    """Run `command` with its output in pipes."""
    result = subprocess.run(
        [str(word) for word in command],
        env=dict(environ),
        cwd=environ["AASM_HOME"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return Seen(result.returncode, result.stdout.decode(), result.stderr.decode())


def in_shell(script: str, environ: Mapping[str, str]) -> Seen:
    """Run a line of shell, which says what becomes of the streams."""
    return in_pipe(["bash", "-c", script], environ)


def check_snapshot(name: str, text: str, hidden: Mapping[str, str] | None = None) -> None:
    """Compare `text` with the file `name`; `hidden` maps what differs from run to run to what stands for it.

    With UPDATE_SNAPSHOTS=1 the file is written instead: look at it before it is committed.
    """
    for pattern, stands_for in (hidden or {}).items():
        text = re.sub(pattern, stands_for, text, flags=re.MULTILINE)
    path = SNAPSHOTS / f"{name}.txt"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return
    assert path.exists(), f"no snapshot {path}; type: UPDATE_SNAPSHOTS=1 pytest {SNAPSHOTS.parent}, and look at it"
    assert text == path.read_text(encoding="utf-8"), f"it does not look as in {path}"


def _styles(sequence: str) -> str:
    return " ".join(_STYLES.get(number, number) for number in sequence[2:-1].split(";"))


def _plain(text: str) -> str:
    """`text` with each change of style that one can see as `[bold red]`, and other controls as escapes."""
    shown, style, written = "", "", ""
    for part in re.split(r"(\x1b\[[0-9;]*m)", text):
        if part.startswith("\x1b[") and part.endswith("m"):
            style = "" if part in ("\x1b[0m", "\x1b[m") else f"{style} {_styles(part)}".strip()
            continue
        for character in part:
            # Blanks look the same in every style without a background, which none of ours has.
            if not character.isspace() and style != written:
                shown, written = f"{shown}[{style or '/'}]", style
            printable = character.isprintable() or character == "\n"
            shown += character if printable else character.encode("unicode_escape").decode()
    shown += "[/]" if written else ""
    return shown if not shown or shown.endswith("\n") else f"{shown}\n"
