"""The standard streams as a program can rely on them, and text that fits them.

Whatever the environment is (closed streams, the C locale, a terminal of any width), printing works, and nothing that
comes from agents steers the terminal.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from collections.abc import Mapping
from typing import IO, Any

# What our own texts hold beyond ASCII, as one ASCII character each, so that tables stay aligned.
_PLAIN = {"–": "-", "…": "~", "→": ">", "≤": "<", "·": "."}
_HANDLER = "aasm_py.plain"
_DEFAULT_WIDTH, _LEAST_WIDTH, _MOST_WIDTH = 80, 20, 1000


_prepared = False


class OutputFailed(OSError):
    """Standard output cannot be written; `errno` and `strerror` are the system's."""


class _Output(io.FileIO):
    """Standard output, whose failures can be told from those of other files."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise OutputFailed(error.errno, error.strerror) from None


def prepare() -> None:
    """Open closed streams, and let each stream escape what its encoding lacks, before anything is printed. Idempotent.

    Without standard input or error there is nothing to read and nobody listens. Without standard output, what is
    printed fails as it does on a full disk: with OutputFailed.
    """
    global _prepared
    if _prepared:
        return
    _prepared = True
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is this one; a socket or a file must never get it.
            os.open(os.devnull, os.O_RDONLY if number == 1 else os.O_RDWR)
    codecs.register_error(_HANDLER, _replace)
    plain = ascii_only(os.environ)
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Output(1, "w", closefd=False)),
        encoding="ascii" if plain else getattr(sys.stdout, "encoding", None) or "utf-8",
        errors=_HANDLER,
        line_buffering=os.isatty(1),
        write_through=bool(os.environ.get("PYTHONUNBUFFERED")),
    )
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(io.FileIO(2, "w", closefd=False)),
        encoding="ascii" if plain else getattr(sys.stderr, "encoding", None) or "utf-8",
        errors=_HANDLER,
        line_buffering=True,
    )


def abandon_output(error: OutputFailed) -> tuple[int, str]:
    """Let what is still to be printed go nowhere; return the exit code, and what is to be said if anything is.

    Python would otherwise complain once more when it ends.
    """
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
    if error.errno == errno.EPIPE:
        # The reader has seen enough: what a shell reports of a program that is told so by a signal.
        return 141, ""
    return 1, f"standard output cannot be written: {error.strerror}"


def ascii_only(environ: Mapping[str, str]) -> bool:
    """Whether the person asked for the C locale; Python itself would print UTF-8 there."""
    if environ.get("PYTHONIOENCODING") or environ.get("PYTHONUTF8") == "1":
        return False
    named = (environ.get(name) for name in ("LC_ALL", "LC_CTYPE", "LANG"))
    return next((name for name in named if name), "") in ("C", "POSIX")


def clean(text: object) -> str:
    """Return `text` with everything that could move the cursor, colour or end the line shown as an escape.

    So is what standard output cannot show, so that tables are laid out with what will be printed.
    """
    encoding = "ascii" if ascii_only(os.environ) else getattr(sys.stdout, "encoding", None) or "utf-8"
    return "".join(
        character
        if character.isprintable() and (character.isascii() or _fits(character, encoding))
        else _PLAIN.get(character) or _escape(character)
        for character in str(text)
    )


def terminal_width(stream: IO[str] | None = None) -> int:
    """Return how many columns `stream` (standard output) has: those of its terminal, or of COLUMNS if that is fewer.

    80 when neither says anything that can be true.
    """
    try:
        wanted = int(os.environ.get("COLUMNS", ""))
    except ValueError:
        wanted = 0
    try:
        there = os.get_terminal_size((stream or sys.stdout).fileno()).columns
    except (OSError, ValueError, AttributeError):
        there = 0
    known = [width for width in (wanted, there) if width > 0]
    return max(_LEAST_WIDTH, min(*known, _MOST_WIDTH)) if known else _DEFAULT_WIDTH


def is_terminal(stream: IO[str]) -> bool:
    """Whether `stream` is a terminal on which a line can be written over."""
    return stream.isatty() and (os.environ.get("TERM") or "dumb") not in ("dumb", "unknown")


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    return "".join(_PLAIN.get(character) or _escape(character) for character in lost), error.end


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _fits(character: str, encoding: str) -> bool:
    try:
        character.encode(encoding)
    except (UnicodeError, LookupError):
        return False
    return True
