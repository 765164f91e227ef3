"""The row about the audit log: how long it is, where it ends, and what says that something is missing.

Looks at names, sizes and the end; to read all of it is the work of `aasm audit verify`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
import time
from datetime import datetime, timezone
from typing import NamedTuple

from aasm_py.doctor.amounts import age, count, size
from aasm_py.doctor.commands import aasm, read_small
from aasm_py.doctor.locks import flock_holder, process_name
from aasm_py.doctor.look import Look
from aasm_py.doctor.pid_file import gateway_lives
from aasm_py.doctor.troubles import Trouble, finding
from agent_assembly.diagnosis import Finding

_SEGMENT = re.compile(r"\d{20}\.log")
_LINE = re.compile(rb'([0-9a-f]{64}) \{"seq":(\d{1,20}),"prev":"[0-9a-f]{64}","time":"([^"]{1,40})"')
_HEAD_BYTES = 4096
# Enough for the last lines of nearly every log, and for the longest line that the gateway writes.
_END_BYTES = (64 << 10, (4 << 20) + 1)
_LOG_BYTES = 64 << 10
_LOG_LINE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\S*Z +(ERROR|WARN) +(.*)")
_RECENT_SECONDS = 3600
_SAID = 120


class Line(NamedTuple):
    """One line of the log, as far as its end needs it."""

    seq: int
    hash: str
    time: str


def audit_log(look: Look) -> Finding:
    """The row `audit log`."""
    if look.home is None:
        return Finding("audit log", "skip", "no home directory is known")
    directory = look.path("audit")
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return Finding("audit log", "ok", "none yet: the first gateway begins it")
    except OSError as error:
        return Finding("audit log", "skip", f"{directory} cannot be read: {error.strerror}; see the row `home`")
    segments = [name for name in names if _SEGMENT.fullmatch(name)]
    troubles = _cut(look, directory, [name for name in names if ".cut-" in name])
    # The head first: a gateway that writes meanwhile must not look as if it had lost lines.
    head, problem = read_head(directory)
    if not segments:
        if head is not None:
            found = f"the head of the audit log names line {head.seq}, and there is no line"
            troubles.append(_verify(look, found))
        return finding("audit log", troubles, "none yet: nothing was recorded")
    total = sum(_size(os.path.join(directory, name)) for name in segments)
    last, torn = read_end(os.path.join(directory, segments[-1]))
    troubles += _end(look, head, problem, last, torn, segments[-1])
    fine = f"{size(total)} in {count(len(segments), 'segment')}"
    if last is not None:
        fine += f", through line {last.seq} of {last.time.partition('.')[0]}Z"
    writer = flock_holder(os.path.join(directory, "head"))
    if writer is not None:
        fine += f", written by pid {writer} ({process_name(writer)})"
    elif not gateway_lives(look):
        fine += ", written by nobody now"
    return finding("audit log", troubles, fine + _complaints(look))


def _end(look: Look, head: Line | None, problem: str, last: Line | None, torn: bool, newest: str) -> list[Trouble]:
    lives = gateway_lives(look)
    if last is None:
        # A segment that a gateway has just begun, or in which one died, is mended at the next start.
        if torn and not lives:
            return [_verify(look, f"the end of {newest} is no line of an audit log")]
        return []
    if problem:
        return [_verify(look, f"the head of the audit log {problem}")]
    if head is None:
        return [] if lives else [_verify(look, f"the head is missing beside an audit log of {last.seq} lines")]
    if head.seq > last.seq:
        missing = count(head.seq - last.seq, "line")
        found = f"{missing} missing at the end of the audit log: the head names line {head.seq}, it ends at {last.seq}"
        return [_verify(look, found)]
    if head.seq == last.seq and head.hash != last.hash:
        return [_verify(look, f"line {last.seq}, the last of the audit log, is not the one that the head names")]
    return []


def _verify(look: Look, found: str) -> Trouble:
    return Trouble("fail", found, _verify_line(look))


def _verify_line(look: Look) -> str:
    return aasm(look, "audit", "verify")


def _cut(look: Look, directory: str, names: list[str]) -> list[Trouble]:
    """What a gateway set aside at its start because it did not fit the chain: evidence, to be kept elsewhere."""
    if not names:
        return []
    first = os.path.join(directory, names[0])
    total = size(sum(_size(os.path.join(directory, name)) for name in names))
    found = f"a damaged end of the audit log was cut off and kept ({total}): {first}"
    aside = shlex.quote(look.path("audit-set-aside"))
    files = " ".join(shlex.quote(os.path.join(directory, name)) for name in names)
    move = f"mkdir -p -m 0700 {aside} && mv {files} {aside}"
    return [Trouble("warn", found, f"{_verify_line(look)}; or: {move}")]


def read_head(directory: str) -> tuple[Line | None, str]:
    """What `head` says, None when it says nothing; and what is wrong with it."""
    try:
        text = read_small(os.path.join(directory, "head"), _HEAD_BYTES).strip()
    except FileNotFoundError:
        return None, ""
    except OSError as error:
        return None, f"cannot be read: {error.strerror or error}"
    if not text:
        return None, ""
    try:
        said = json.loads(text)
        return Line(int(said["seq"]), str(said["hash"]), ""), ""
    except (ValueError, KeyError, TypeError, RecursionError):
        return None, "cannot be understood"


def read_end(path: str) -> tuple[Line | None, bool]:
    """The last whole line of a segment; and whether there is something that is no line of the log. Never reads all."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None, False
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None, True
        for length in _END_BYTES:
            start = max(0, status.st_size - length)
            data = os.pread(descriptor, length, start)
            whole, newline, _ = data.rpartition(b"\n")
            _, earlier, line = whole.rpartition(b"\n")
            if newline and (earlier or start == 0):
                found = _LINE.match(line)
                if found is None:
                    return None, True
                return Line(int(found[2]), found[1].decode(), found[3].decode("ascii", "replace")), False
            if start == 0:
                # Half a line, or none: the gateway is writing it, or died while it did.
                return None, False
        return None, True
    finally:
        os.close(descriptor)


def _size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0


def _complaints(look: Look) -> str:
    """What the gateway's own log says since an hour ago, when it says that something is wrong."""
    path = look.path("log", "gateway.log")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return ""
        data = os.pread(descriptor, _LOG_BYTES, max(0, status.st_size - _LOG_BYTES))
    finally:
        os.close(descriptor)
    return complaints(data.decode("utf-8", "replace"), time.time())


def complaints(text: str, now: float) -> str:
    """`; gateway.log: 2 warnings …` for lines of the last hour, else nothing."""
    recent = []
    for line in text.splitlines():
        found = _LOG_LINE.match(line)
        if found is None:
            continue
        moment = datetime.strptime(found[1], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc).timestamp()
        if 0 <= now - moment <= _RECENT_SECONDS:
            recent.append((moment, found[2], found[3]))
    if not recent:
        return ""
    moment, level, said = recent[-1]
    shown = said if len(said) <= _SAID else said[:_SAID] + "…"
    return f"; gateway.log: {count(len(recent), 'complaint')} in the last hour, {age(now - moment)} ago {level} {shown}"
