"""Spools in a temporary home, what their files hold, and processes that write them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from agent_assembly.client.records import Writer, segment_header
from agent_assembly.client.spool import SEGMENT_BYTES, Spool, frames, orphans

INSTANCE = "ab" * 16
OTHER = "cd" * 16
HEADER = segment_header(Writer("agent", INSTANCE, ""), 1, "host", "0.1.0")
BOUND = 8 * SEGMENT_BYTES


def spool_directory(tmp_path: Path) -> Path:
    """The fixture `directory`: where a spool will be."""
    return tmp_path / "home" / "spool"


def open_spool(directory: Path) -> Iterator[Spool]:
    """The fixture `spool`: a spool in `directory`, closed after the test."""
    made = Spool(str(directory), INSTANCE, HEADER, BOUND)
    yield made
    made.close()


def files(directory: Path) -> list[Path]:
    """The segments in `directory`, by name."""
    return sorted(directory.glob("*.seg"))


def stored(directory: Path) -> list[bytes]:
    """The records of every segment, as whoever finds the files reads them."""
    return [payload for path in files(directory) for payload in list(frames(path.read_bytes()))[1:]]


def adopted(directory: Path, own: str = OTHER) -> list[bytes]:
    """The records that an adopter finds; the segments stay."""
    found = []
    for orphan in orphans(str(directory), own):
        found += orphan.payloads
        orphan.release()
    return found


def child(program: str, directory: Path, *words: str) -> subprocess.Popen[str]:
    """Start a process that runs `program` with a `spool` of its own, named by the first of `words`."""
    prelude = (
        f"import os, sys, signal, threading, time, random; sys.path[:] = {sys.path!r}\n"
        "from agent_assembly.client.spool import *\n"
        f"spool = Spool({str(directory)!r}, sys.argv[1], {HEADER!r}, {BOUND})\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", prelude + program, *(words or (INSTANCE,))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
