"""The rows about what the home holds: spool, audit log, and the disk below them."""

from __future__ import annotations

import os
import resource
import shlex
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from aasm_py.doctor import audit_log
from aasm_py.doctor.amounts import age, count, size
from aasm_py.doctor.commands import start_line
from aasm_py.doctor.look import Check, Look
from aasm_py.doctor.pid_file import gateway_lives
from aasm_py.doctor.troubles import (
    CLOSED,
    Trouble,
    finding,
    home_is_closed,
    inspect,
    move_away,
    nearest,
    own_directory,
)
from agent_assembly.diagnosis import (
    LOCAL_SOURCE,
    SEGMENT_BYTES,
    Finding,
    SegmentState,
    SpoolState,
    delete_draft,
    spool_state,
    written_bytes,
)

# A gateway looks for segments of dead owners every two seconds.
_ADOPTED_WITHIN = 10.0
# A draft gets its name within milliseconds; a lock that is not there yet must not make it look forsaken.
_DRAFT_SECONDS = 60.0
_NEAR = 0.8
# Room for one record of a call; when less is left, the next call needs a new segment.
_RECORD_BYTES = 16 << 10

_LEAST_BYTES, _SCARCE_BYTES = 16 << 20, 256 << 20


class Filling(NamedTuple):
    """How full the spool of one live process is: `taken` of the bound, and whether the next record may be refused."""

    pid: int
    taken: int
    full: bool


def spool(look: Look) -> Finding:
    """The row `spool`."""
    if look.home is None:
        return Finding("spool", "skip", "no home directory is known")
    if home_is_closed(look):
        return Finding("spool", "skip", CLOSED)
    path = look.path("spool")
    troubles = inspect(path, directory=True)
    if any(trouble.status == "fail" for trouble in troubles):
        return finding("spool", troubles, "")
    try:
        state = spool_state(path)
    except OSError as error:
        return Finding("spool", "fail", f"{path} cannot be read: {error.strerror}", f"chmod 0700 {shlex.quote(path)}")
    lives = gateway_lives(look)
    bound: int = look.settings.spool_max_bytes
    for filling in fillings(state, bound, lives):
        troubles.append(_fullness(look, filling, bound, lives))
    troubles += _forsaken(look, state, lives, time.time())
    troubles += _drafts(state, time.time())
    return finding("spool", troubles, described(state, time.time()))


def described(state: SpoolState, now: float) -> str:
    """What waits, how old it is, and whose it is."""
    segments = state.segments
    if not segments:
        return "empty: no records wait for a gateway"
    owned = sum(segment.owner is not None for segment in segments)
    text = f"{count(len(segments), 'segment')}, {size(sum(segment.size for segment in segments))}"
    text += f", the oldest {age(now - min(segment.modified for segment in segments))} old"
    if owned:
        text += f"; {owned} of processes that run"
    if owned < len(segments):
        text += f"; {len(segments) - owned} of processes that are gone"
    return text + (f"; {state.unopened} more were not looked at" if state.unopened else "")


def fillings(state: SpoolState, bound: int, lives: bool) -> list[Filling]:
    """The live processes whose spools are nearly full: what they hold back counts, and what dead ones left does not.

    A process keeps one segment open however much of it was sent; it says nothing while a gateway takes records.
    """
    by_instance: dict[str, list[SegmentState]] = defaultdict(list)
    for segment in state.segments:
        if segment.owner is not None:
            by_instance[segment.instance].append(segment)
    found = []
    for segments in by_instance.values():
        newest = max(segments, key=lambda segment: segment.path)
        allocated = sum(segment.size for segment in segments)
        if allocated + SEGMENT_BYTES <= bound * _NEAR or (len(segments) == 1 and lives):
            continue
        used = written_bytes(newest)
        taken = allocated - newest.size + used
        full = allocated + SEGMENT_BYTES > bound and newest.size - used < _RECORD_BYTES
        if full or taken >= bound * _NEAR:
            found.append(Filling(newest.owner or 0, taken, full))
    return found


def _fullness(look: Look, filling: Filling, bound: int, lives: bool) -> Trouble:
    whose = f"pid {filling.pid}" if filling.pid else "a process that cannot be seen from here"
    then = "its calls are denied" if look.enforces else "its records are lost"
    found = f"the spool of {whose} holds {size(filling.taken)} of {size(bound)} (spool_max_bytes)"
    found += f"; {then}" if filling.full else f"; when it is full, {then}"
    if _remote(look) or lives:
        remedy = "see the row `gateway`: what is in the spool leaves it when the gateway takes it"
        return Trouble("fail" if filling.full else "warn", found, remedy, False)
    return Trouble("fail" if filling.full else "warn", found, start_line(look))


def _remote(look: Look) -> bool:
    """Whether records go to a gateway that was named, and not to the one of this home."""
    url, source = look.settings.gateway_url, look.settings.gateway_source or look.settings.source("gateway_url")
    return url is not None and not source.startswith(LOCAL_SOURCE)


def _forsaken(look: Look, state: SpoolState, lives: bool, now: float) -> list[Trouble]:
    """What nobody sends any more: of dead owners, damaged, or none of ours."""
    troubles = [
        Trouble("warn", f"{path} is not a segment of yours and is never sent", move_away(path))
        for path in state.strange
    ]
    dead = [segment for segment in state.segments if segment.owner is None]
    damaged = [segment for segment in dead if segment.damaged]
    if damaged:
        what = f"{count(len(damaged), 'segment')} damaged at the start and never sent: {damaged[0].path}"
        aside = shlex.quote(look.path("spool-set-aside"))
        names = " ".join(shlex.quote(segment.path) for segment in damaged)
        troubles.append(Trouble("warn", what, f"mkdir -p -m 0700 {aside} && mv {names} {aside}"))
    waiting = [segment for segment in dead if not segment.damaged]
    late = [segment for segment in waiting if now - segment.modified > _ADOPTED_WITHIN]
    if late if lives else waiting:
        troubles.append(_waiting(look, waiting, lives, now))
    return troubles


def _waiting(look: Look, waiting: Sequence[SegmentState], lives: bool, now: float) -> Trouble:
    owners = count(len({segment.instance for segment in waiting}), "process")
    owners = owners.replace("processs", "processes")
    held = size(sum(segment.size for segment in waiting))
    oldest = age(now - min(segment.modified for segment in waiting))
    found = f"{count(len(waiting), 'segment')} ({held}, the oldest {oldest} old) of {owners} that ended"
    wait = "waits" if len(waiting) == 1 else "wait"
    if lives:
        log = shlex.quote(look.path("log", "gateway.log"))
        return Trouble("warn", f"{found} {wait}, and the gateway does not take them; {log} says why", f"tail {log}")
    if _remote(look):
        found += f" {wait} for the next program that aasm-run starts"
        return Trouble("warn", found, "start a program with aasm-run; it sends them to the gateway", False)
    return Trouble("warn", f"{found} {wait} for a gateway", start_line(look))


def _drafts(state: SpoolState, now: float) -> list[Trouble]:
    old = [draft for draft in state.drafts if draft.owner is None and now - draft.modified > _DRAFT_SECONDS]
    if not old:
        return []

    def act() -> None:
        for draft in old:
            delete_draft(draft)

    remedy = "rm " + " ".join(shlex.quote(draft.path) for draft in old)
    found = f"{count(len(old), 'segment')} without records, begun by a process that ended: {old[0].path}"
    return [Trouble("warn", found, remedy, act=act)]


class Space(NamedTuple):
    """What a file system has left; `inodes` is None where it does not count them."""

    free: int
    total: int
    inodes: int | None


def disk_space(look: Look) -> Finding:
    """The row `disk space`."""
    if look.home is None:
        return Finding("disk space", "skip", "no home directory is known")
    place = nearest(look.home)
    try:
        status = os.statvfs(place)
    except OSError as error:
        return Finding("disk space", "skip", f"{place}: {error.strerror}")
    space = Space(
        status.f_bavail * status.f_frsize,
        status.f_blocks * status.f_frsize,
        status.f_favail if status.f_files else None,
    )
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit != resource.RLIM_INFINITY and limit < SEGMENT_BYTES:
        found = f"files of this shell may have {size(limit)} at most, and a segment of the spool has more"
        return Finding("disk space", "fail", found, "ulimit -f unlimited")
    return space_row(space, mount_point(place), own_directory(look, look.home))


def space_row(space: Space, where: str, other: str | None) -> Finding:
    """Whether there is room on the file system `where`; `other` is a directory that the home could be instead."""
    room = f"{size(space.free)} free of {size(space.total)} on {where}"
    remedy = f"make room on {where}"
    if other is not None and mount_point(nearest(other)) != where:
        remedy = f"export AASM_HOME={shlex.quote(other)}; or: {remedy}"
    if space.inodes == 0:
        return Finding("disk space", "fail", f"{room}, but it has no room for more files (inodes)", remedy)
    if space.free < _LEAST_BYTES:
        return Finding("disk space", "fail", f"{room}: too little for a record, so that calls are denied", remedy)
    if space.free < _SCARCE_BYTES:
        return Finding("disk space", "warn", f"{room}: less than {size(_SCARCE_BYTES)}", remedy)
    inodes = "" if space.inodes is None else f", {space.inodes} files"
    return Finding("disk space", "ok", room + inodes)


def mount_point(path: str) -> str:
    """The root of the file system that `path` is on."""
    path = os.path.realpath(path)
    while not os.path.ismount(path):
        path = os.path.dirname(path)
    return path


CHECKS: tuple[Check, ...] = (
    Check("spool", "home", spool),
    Check("audit log", "home", audit_log.audit_log),
    Check("disk space", "home", disk_space),
)
