"""A pseudo-terminal of a given size, what is read from it, and the variables that decide how something looks there."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import termios
import time
from collections.abc import Mapping

# Must be known where looks are compared: locale, kind and size of the terminal, colour, encoding.
_LOOKS = ("LANG", "LC_", "TERM", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "COLORTERM", "PYTHONIO")


def open_terminal(columns: int, lines: int = 24) -> tuple[int, int]:
    """Return the end to read from and type into, and the end that is the program's; the caller closes both."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    return ours, theirs


def read_some(descriptor: int) -> bytes:
    """Wait for what comes next; empty when nobody holds the program's end any more."""
    try:
        return os.read(descriptor, 65536)
    except OSError:
        # EIO: so Linux says it.
        return b""


def read_to_end(descriptor: int, seconds: float) -> bytes:
    """Return all that comes until nobody holds the program's end; raise AssertionError if that takes longer."""
    deadline = time.monotonic() + seconds
    data = b""
    while True:
        left = max(0.0, deadline - time.monotonic())
        assert select.select([descriptor], [], [], left)[0], f"no end after {seconds} s; seen so far: {data!r}"
        chunk = read_some(descriptor)
        if not chunk:
            return data
        data += chunk


def without_looks(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` without what would make the same program look otherwise on another machine."""
    return {name: value for name, value in environ.items() if not name.startswith(_LOOKS)}
