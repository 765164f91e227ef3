"""The spool: records that were accepted outlive the process that wrote them.

One writer owns one series of segments (the file format is in the reference, "Records and the spool"). A segment is
preallocated, so that a full disk is noticed before a tool runs and not after, and locked with a POSIX record lock: the
kernel drops it when the owner dies, and a forked child does not inherit it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from agent_assembly.client.descriptors import raised
from agent_assembly.client.records import END_LIMIT
from agent_assembly.core.home import check_owned, ensure_directory
from agent_assembly.exceptions import AssemblyError, ConfigurationError

MAGIC = b"AASMSP1\n"
SEGMENT_BYTES = 1 << 20
FRAME_LIMIT = 16 << 20
_FRAME = struct.Struct("<II")
_RESERVED_FOR_END = END_LIMIT + _FRAME.size
_CLAIM_ATTEMPTS = 8

# Segments that this process owns or is adopting, by process and path. Record locks do not keep threads of one process
# apart, and closing a second descriptor of a file drops its lock: nothing may open what stands here.
_claims: dict[tuple[int, str], object] = {}


def _claim(path: str) -> bool:
    mine = object()
    return _claims.setdefault((os.getpid(), path), mine) is mine


def _unclaim(path: str) -> None:
    _claims.pop((os.getpid(), path), None)


@contextmanager
def claimed(path: str) -> Iterator[bool]:
    """Keep this process from owning or adopting `path` meanwhile; False when it does so already."""
    mine = _claim(path)
    try:
        yield mine
    finally:
        if mine:
            _unclaim(path)


class SpoolFull(AssemblyError):
    """A record could not be accepted: disk, quota, or the spool's own bound. The message names which."""


class Segment:
    """A segment file as its owner sees it: `written` bytes are valid, `shipped` of them acknowledged."""

    __slots__ = ("descriptor", "ends_owed", "path", "shipped", "size", "written")

    def __init__(self, path: str, header: bytes, size: int) -> None:
        self.path = path
        self.size = size
        self.written = 0
        self.shipped = 0
        self.ends_owed = 0
        self.descriptor = -1
        _claim(path)
        # It gets its name once it is locked: without the lock it would be anyone's to adopt.
        self.path = path + ".new"
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            self.descriptor = raised(os.open(self.path, flags, 0o600))
            fcntl.lockf(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _allocate(self.descriptor, size)
            start = MAGIC + frame(header)
            _write_at(self.descriptor, start, 0)
            os.rename(self.path, path)
        except OSError:
            if self.descriptor >= 0:
                os.unlink(self.path)
                os.close(self.descriptor)
            _unclaim(path)
            raise
        self.path = path
        self.written = self.shipped = len(start)

    def room(self) -> int:
        """Bytes that are free beyond those promised to records whose end is still to come."""
        return self.size - self.written - self.ends_owed * _RESERVED_FOR_END

    def append(self, framed: bytes) -> None:
        _write_at(self.descriptor, framed, self.written)
        self.written += len(framed)

    def read(self, limit: int) -> tuple[list[bytes], int]:
        """Return what is not shipped yet, `limit` bytes of payloads but at least one, and where they end."""
        payloads: list[bytes] = []
        start, position = self.shipped, 0
        data = memoryview(os.pread(self.descriptor, self.written - start, start))
        while position < self.written - start and (not payloads or position < limit):
            head, position = data[position : position + _FRAME.size], position + _FRAME.size
            length, checksum = _FRAME.unpack(head) if len(head) == _FRAME.size else (0, 0)
            payload = bytes(data[position : position + length])
            if not length or zlib.crc32(payload) != checksum:
                raise AssemblyError(f"the spool segment {self.path} was changed by someone else")
            payloads.append(payload)
            position += length
        return payloads, start + position

    def discard(self) -> None:
        """Delete the file and let the lock go."""
        try:
            os.unlink(self.path)
        except OSError:
            # Whoever took it away did what was to be done.
            pass
        self.release()

    def release(self) -> None:
        """Let the lock go and leave the file for whoever adopts it."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
            _unclaim(self.path)


class Spool:
    """Accepts records for one instance; safe in threads; never shared across a fork."""

    def __init__(self, directory: str, instance_id: str, header: bytes, max_bytes: int) -> None:
        """Claim nothing yet: the first record makes the first segment."""
        self.directory = directory
        self._instance_id = instance_id
        self._header = header
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._segments: list[Segment] = []
        self._owed: dict[str, Segment] = {}
        self._number = 0
        self._closed = False

    def begin(self, event_id: str, payload: bytes) -> None:
        """Accept a BEGIN and reserve the room of its END; raise SpoolFull when either cannot be had."""
        framed = frame(payload)
        with self._lock:
            segment = self._segment_for(len(framed) + _RESERVED_FOR_END)
            self._append(segment, framed)
            segment.ends_owed += 1
            self._owed[event_id] = segment

    def end(self, event_id: str, payload: bytes) -> None:
        """Accept the END whose room `begin` reserved, or of a call whose begin was not accepted if there is room."""
        framed = frame(payload)
        with self._lock:
            segment = self._owed.pop(event_id, None)
            if segment is None or segment.descriptor < 0:
                segment = self._segment_for(len(framed))
            else:
                segment.ends_owed -= 1
            self._append(segment, framed)

    def note(self, payload: bytes) -> None:
        """Accept a record that belongs to no call; raise SpoolFull when there is no room."""
        framed = frame(payload)
        with self._lock:
            self._append(self._segment_for(len(framed)), framed)

    def pending(self, limit: int) -> Iterator[tuple[Segment, list[bytes], int]]:
        """Yield, oldest first, what waits for the gateway: segment, payloads, and the position behind them."""
        with self._lock:
            segments = [segment for segment in self._segments if segment.shipped < segment.written]
        for segment in segments:
            with self._lock:
                if segment.descriptor < 0 or segment.shipped >= segment.written:
                    continue
                payloads, position = segment.read(limit)
            yield segment, payloads, position

    def shipped(self, segment: Segment, position: int) -> None:
        """Note that the gateway has everything before `position`; delete the segment when nothing more can come."""
        with self._lock:
            segment.shipped = max(segment.shipped, position)
            older = self._segments[:-1]
            if segment in older and segment.shipped >= segment.written and not segment.ends_owed:
                self._segments.remove(segment)
                segment.discard()

    def waiting(self) -> int:
        """Bytes that the gateway has not acknowledged."""
        with self._lock:
            return sum(segment.written - segment.shipped for segment in self._segments)

    def delete_shipped(self) -> None:
        """Delete the segments that are shipped whole and owe no end."""
        with self._lock:
            self._drop_shipped()

    def close(self) -> None:
        """Delete what is shipped whole, leave the rest for adoption. Idempotent."""
        with self._lock:
            self._closed = True
            self._drop_shipped()
            for segment in self._segments:
                segment.release()
            self._segments.clear()
            self._owed.clear()

    def abandon(self) -> None:
        """Close inherited descriptors in a forked child; the files are the parent's. Takes no lock: it may be held."""
        for segment in self._segments:
            segment.release()

    def _append(self, segment: Segment, framed: bytes) -> None:
        try:
            segment.append(framed)
        except OSError as error:
            raise SpoolFull(f"the spool {self.directory} cannot be written: {error.strerror}") from None

    def _segment_for(self, needed: int) -> Segment:
        if self._closed:
            raise SpoolFull("the spool is closed")
        if self._segments and self._segments[-1].room() >= needed:
            return self._segments[-1]
        size = max(SEGMENT_BYTES, needed + len(MAGIC) + _FRAME.size + len(self._header))
        self._drop_shipped()
        used = sum(segment.size for segment in self._segments)
        if used + size > self._max_bytes:
            raise SpoolFull(
                f"the spool {self.directory} holds {used} bytes that the gateway has not taken, the bound is "
                f"{self._max_bytes} (setting spool_max_bytes)"
            )
        segment = self._new_segment(size)
        self._segments.append(segment)
        return segment

    def _new_segment(self, size: int) -> Segment:
        try:
            ensure_directory(self.directory, "spool")
        except ConfigurationError as error:
            raise SpoolFull(str(error)) from None
        for attempt in range(_CLAIM_ATTEMPTS):
            self._number += 1
            path = os.path.join(self.directory, f"{self._instance_id}-{self._number:06d}.seg")
            try:
                return Segment(path, self._header, size)
            except OSError as error:
                if isinstance(error, BlockingIOError) and attempt + 1 < _CLAIM_ATTEMPTS:
                    continue
                what = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else str(error.strerror)
                raise SpoolFull(f"the spool {self.directory} cannot grow: {what}") from None
        raise AssertionError("unreachable")

    def _drop_shipped(self) -> None:
        for segment in list(self._segments):
            if segment.shipped >= segment.written and not segment.ends_owed:
                self._segments.remove(segment)
                segment.discard()


def frame(payload: bytes) -> bytes:
    """Return `payload` with its length and checksum in front."""
    return _FRAME.pack(len(payload), zlib.crc32(payload)) + payload


def frames(data: bytes) -> Iterator[bytes]:
    """Yield the payloads of a segment's bytes up to the first that is empty, torn or damaged."""
    if data[: len(MAGIC)] != MAGIC:
        return
    position = len(MAGIC)
    while position + _FRAME.size <= len(data):
        length, checksum = _FRAME.unpack_from(data, position)
        payload = data[position + _FRAME.size : position + _FRAME.size + length]
        if not 0 < length <= FRAME_LIMIT or len(payload) < length or zlib.crc32(payload) != checksum:
            return
        yield payload
        position += _FRAME.size + length


class Orphan:
    """A segment whose owner is dead, held by this process until it is sent and deleted or let go.

    `torn` says that something behind the last whole record cannot be read.
    """

    __slots__ = ("_descriptor", "header", "path", "payloads", "torn")

    def __init__(self, path: str, descriptor: int, header: bytes, payloads: list[bytes], torn: bool) -> None:
        self.path = path
        self._descriptor = descriptor
        self.header = header
        self.payloads = payloads
        self.torn = torn

    def delete(self) -> None:
        try:
            os.unlink(self.path)
        except OSError:
            # The gateway on the same machine adopts too; what cannot be deleted is sent again, and known there.
            pass
        self.release()

    def release(self) -> None:
        os.close(self._descriptor)
        _unclaim(self.path)


def orphans(directory: str, own_instance: str) -> Iterator[Orphan]:
    """Yield the segments of dead owners under `directory`: regular files of this user that nobody holds locked."""
    try:
        if check_owned(directory, "spool") is None:
            return
        names = sorted(os.listdir(directory))
    except (ConfigurationError, OSError):
        return
    for name in names:
        if name.endswith(".seg") and not name.startswith(own_instance):
            path = os.path.join(directory, name)
            if _claim(path):
                orphan = _adopt(path)
                if orphan is None:
                    _unclaim(path)
                else:
                    yield orphan


def _adopt(path: str) -> Orphan | None:
    try:
        if check_owned(path, "spool segment") is None:
            return None
        descriptor = raised(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK))
    except (ConfigurationError, OSError):
        return None
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        status = os.fstat(descriptor)
        if status.st_nlink == 0 or status.st_size > 2 * FRAME_LIMIT:
            raise BlockingIOError
        # Not through a second descriptor: closing any one of them would drop the lock.
        data = os.pread(descriptor, status.st_size, 0)
    except OSError:
        os.close(descriptor)
        return None
    payloads = list(frames(data))
    end = sum(_FRAME.size + len(payload) for payload in payloads) + (len(MAGIC) if data.startswith(MAGIC) else 0)
    torn = bool(data[end:].strip(b"\0"))
    if torn and not payloads:
        # Not ours to delete: the header says nothing, so it may be of another format.
        os.close(descriptor)
        return None
    return Orphan(path, descriptor, b"".join(payloads[:1]), payloads[1:], torn)


def _allocate(descriptor: int, size: int) -> None:
    try:
        os.posix_fallocate(descriptor, 0, size)
    except (OSError, AttributeError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
        # macOS and some file systems cannot promise blocks: written zeros are as good.
        _write_at(descriptor, bytes(size), 0)


def _write_at(descriptor: int, data: bytes, position: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, position)
        view, position = view[written:], position + written
