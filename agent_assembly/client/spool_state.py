"""What the spool directory holds, seen from outside: whose segments, how much, how old, and whether their owners live.

Reads names, sizes and the start of each segment; takes no lock, and opens nothing that this process owns itself:
closing a second descriptor of a file would drop the lock on it.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import sys
import zlib
from typing import NamedTuple

from agent_assembly.client.descriptors import raised
from agent_assembly.client.spool import FRAME_LIMIT, MAGIC, SEGMENT_BYTES, claimed

SEGMENT, DRAFT = ".seg", ".new"
# Files beyond these are counted by their names and sizes only.
_OPENED = 2000
_HEADER_BYTES = 4096
_FRAME = struct.Struct("<II")
# `struct flock`: a whole-file write lock, asked about. Padded: the C library may write more than it defines.
_LINUX, _BSD = "hhqqi", "qqihh"
_PADDING = bytes(32)

# A process that holds the lock but has no number here: it lives in another container.
UNSEEN = 0


class SegmentState(NamedTuple):
    """One file of the spool: `owner` is the process that holds it, `UNSEEN`, or None when nobody does.

    `damaged` says that its start is not that of a segment of this `instance`; no gateway adopts such a file.
    """

    path: str
    instance: str
    size: int
    modified: float
    owner: int | None
    damaged: bool = False


class SpoolState(NamedTuple):
    """Segments and drafts (segments that never got their name), by name; `strange` is what is none of this user's.

    `unopened` counts the segments that were too many to look at; they are not among `segments`.
    """

    segments: tuple[SegmentState, ...] = ()
    drafts: tuple[SegmentState, ...] = ()
    strange: tuple[str, ...] = ()
    unopened: int = 0


def spool_state(directory: str) -> SpoolState:
    """Look at a spool; empty when there is none. Raises OSError when the directory cannot be read."""
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith((SEGMENT, SEGMENT + DRAFT)))
    except FileNotFoundError:
        return SpoolState()
    segments: list[SegmentState] = []
    drafts: list[SegmentState] = []
    strange: list[str] = []
    for name in names[:_OPENED]:
        path = os.path.join(directory, name)
        try:
            found = _look(path, name)
        except FileNotFoundError:
            # Sent and deleted since the directory was read.
            continue
        except OSError:
            found = None
        if found is None:
            strange.append(path)
        else:
            (drafts if name.endswith(DRAFT) else segments).append(found)
    return SpoolState(tuple(segments), tuple(drafts), tuple(strange), len(names[_OPENED:]))


def written_bytes(segment: SegmentState) -> int:
    """Bytes of a segment that hold records; all of it where that would cost too much to find out."""
    if segment.size > 2 * SEGMENT_BYTES:
        return segment.size
    with claimed(segment.path) as mine:
        if not mine:
            return segment.size
        try:
            data = _read(segment.path, segment.size)
        except OSError:
            return 0
    position = len(MAGIC)
    while position + _FRAME.size <= len(data):
        length, _ = _FRAME.unpack_from(data, position)
        if not 0 < length <= FRAME_LIMIT or position + _FRAME.size + length > len(data):
            break
        position += _FRAME.size + length
    return position


def delete_draft(draft: SegmentState) -> None:
    """Delete a draft that nobody holds; raise OSError when somebody does by now. Idempotent."""
    with claimed(draft.path.removesuffix(DRAFT)) as mine:
        if not mine:
            raise BlockingIOError(f"{draft.path} is being written")
        try:
            descriptor = raised(os.open(draft.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK))
        except FileNotFoundError:
            return
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(draft.path)
        finally:
            os.close(descriptor)


def _look(path: str, name: str) -> SegmentState | None:
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
        return None
    instance = name.partition("-")[0]
    final = path.removesuffix(DRAFT)
    with claimed(final) as mine:
        if not mine:
            return SegmentState(path, instance, status.st_size, status.st_mtime, os.getpid())
        descriptor = raised(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK))
        try:
            owner = _lock_owner(descriptor)
            start = os.pread(descriptor, _HEADER_BYTES, 0)
        finally:
            os.close(descriptor)
    return SegmentState(path, instance, status.st_size, status.st_mtime, owner, not _begins_well(start, instance))


def _read(path: str, size: int) -> bytes:
    descriptor = raised(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK))
    try:
        return os.pread(descriptor, size, 0)
    finally:
        os.close(descriptor)


def _lock_owner(descriptor: int) -> int | None:
    """The process whose record lock is in the way of one on the whole file, without taking any."""
    linux = sys.platform.startswith("linux")
    fields = (fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0) if linux else (0, 0, 0, fcntl.F_WRLCK, os.SEEK_SET)
    layout = _LINUX if linux else _BSD
    answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, struct.pack(layout, *fields) + _PADDING)
    said = struct.unpack_from(layout, answer)
    kind, pid = (said[0], said[4]) if linux else (said[3], said[2])
    if kind == fcntl.F_UNLCK:
        return None
    return pid if pid > 0 else UNSEEN


def _begins_well(start: bytes, instance: str) -> bool:
    if not start.strip(b"\0"):
        # Its owner died before it wrote anything: adopted, and found to be empty.
        return True
    if not start.startswith(MAGIC) or len(start) < len(MAGIC) + _FRAME.size:
        return False
    length, checksum = _FRAME.unpack_from(start, len(MAGIC))
    header = start[len(MAGIC) + _FRAME.size :][:length]
    return len(header) == length > 0 and zlib.crc32(header) == checksum and instance.encode() in header
