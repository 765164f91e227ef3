"""The rows about `gateway.pid` and `gateway.start.lock`: whether a gateway lives, and whether one is being started."""

from __future__ import annotations

import errno
import os
import shlex
import time
from typing import Literal, NamedTuple

from aasm_py.doctor.commands import read_small, restart_line, start_line
from aasm_py.doctor.locks import PROC, flock_holder, flocked, is_held, process_is_stopped, process_name
from aasm_py.doctor.look import Check, Look
from aasm_py.doctor.troubles import CLOSED, Trouble, finding, home_is_closed, home_is_refused, inspect
from agent_assembly.diagnosis import Finding, PidFile, Repair, holds_lock

PID_FILE, START_LOCK = "gateway.pid", "gateway.start.lock"
# A start takes a fraction of this; who holds the lock longer may be slow, or stuck.
_PATIENCE = 1.0
_ATTEMPTS = 5


class Holder(NamedTuple):
    """Whether the home's gateway lives, by the lock on its pid file: `pid` is None where it cannot be seen.

    `orphaned`: it lives and writes the log, but somebody removed its pid file. `starting`: somebody is starting one.
    """

    state: Literal["none", "live", "stale", "starting", "orphaned", "refused"]
    pid: int | None = None


def gateway_holder(look: Look) -> Holder:
    """Found out once, without disturbing a gateway that starts."""
    assert look.home is not None
    home = look.home
    return look.once("gateway holder", lambda: find_holder(home))


def gateway_lives(look: Look) -> bool:
    """Whether a gateway of this home runs."""
    return gateway_holder(look).state in ("live", "orphaned")


def find_holder(home: str, proc: str = PROC) -> Holder:
    path = os.path.join(home, PID_FILE)
    if not os.path.isfile(path) or os.path.islink(path):
        writer = flock_holder(os.path.join(home, "audit", "head"), proc)
        if writer is not None and not os.path.lexists(path):
            return Holder("orphaned", writer)
        return Holder("refused" if os.path.lexists(path) else "none")
    pid = flock_holder(path, proc)
    if pid is not None:
        return Holder("live", pid)
    # The list may not show it; the lock itself does, and trying it is safe while nobody can be starting a gateway.
    for _ in range(_ATTEMPTS):
        try:
            with flocked(os.path.join(home, START_LOCK)) as alone:
                if alone:
                    return Holder("live" if holds_lock(home) else "stale")
        except OSError:
            # No launcher has ever started one here, or the lock is refused, which its own row says.
            return Holder("live" if holds_lock(home) else "stale")
        # Perhaps somebody who only looks.
        time.sleep(0.01)
    return Holder("starting")


def pid_file(look: Look) -> Finding:
    """The row `pid file`."""
    if look.home is None:
        return Finding("pid file", "skip", "no home directory is known")
    if home_is_closed(look):
        return Finding("pid file", "skip", CLOSED)
    path = look.path(PID_FILE)
    troubles = inspect(path)
    if any(trouble.status == "fail" for trouble in troubles):
        return finding("pid file", troubles, "")
    holder = gateway_holder(look)
    if holder.state == "orphaned":
        found = f"gateway.pid was removed, but {_named(holder.pid)} writes the audit log of {look.home}"
        return Finding("pid file", "fail", found, f"kill {holder.pid}")
    if holder.state in ("none", "refused"):
        return Finding("pid file", "ok", "none: no gateway of this home runs")
    if holder.state == "starting":
        return Finding("pid file", "ok", "a gateway is being started just now")
    if holder.state == "stale":
        return _stale(look, path)
    if look.pid_file is None and home_is_refused(look):
        found = f"{_named(holder.pid)} runs; nothing in the home is trusted before the row home is well"
        return Finding("pid file", "skip", found)
    return finding("pid file", [*troubles, *_unclear(look, holder)], _live(look.pid_file, holder))


def _live(said: PidFile | None, holder: Holder) -> str:
    if said is None:
        return f"{_named(holder.pid)}, which is starting"
    return f"{_named(holder.pid or said.pid)}, port {said.port}"


def _unclear(look: Look, holder: Holder) -> list[Trouble]:
    said = look.pid_file
    if said is None:
        if _text(look.path(PID_FILE)).get("port") == "0":
            return []
        found = f"{_named(holder.pid)} runs, but gateway.pid does not say on which port"
        remedy = restart_line(look) if holder.pid is None else f"kill {holder.pid}"
        return [Trouble("fail", found, remedy)]
    if holder.pid is not None and said.pid != holder.pid:
        found = f"{_named(holder.pid)} holds gateway.pid, which names another process ({said.pid})"
        return [Trouble("warn", found, f"kill {holder.pid}")]
    return []


def _stale(look: Look, path: str) -> Finding:
    said = look.pid_file
    gone = "says nothing that can be used" if said is None else f"names pid {said.pid}, port {said.port}"
    found = f"stale: {path} {gone}, and no gateway holds it"
    assert look.home is not None
    home = look.home
    remedy = f"rm {shlex.quote(path)}; or: {start_line(look)}"
    return Finding("pid file", "warn", found, remedy, Repair(f"rm {shlex.quote(path)}", lambda: remove_stale(home)))


def remove_stale(home: str) -> None:
    """Remove the pid file of a gateway that is gone; raise OSError when one runs, or is being started, after all."""
    path = os.path.join(home, PID_FILE)
    with flocked(os.path.join(home, START_LOCK), create=True) as alone:
        if not alone:
            raise OSError(errno.EBUSY, "a gateway is being started")
        try:
            with flocked(path) as free:
                if not free:
                    raise OSError(errno.EBUSY, "a gateway runs")
                os.unlink(path)
        except FileNotFoundError:
            return


def start_lock(look: Look) -> Finding:
    """The row `start lock`: held for an instant by whoever starts a gateway."""
    if look.home is None:
        return Finding("start lock", "skip", "no home directory is known")
    if home_is_closed(look):
        return Finding("start lock", "skip", CLOSED)
    path = look.path(START_LOCK)
    troubles = inspect(path, unwanted=0)
    if troubles:
        return finding("start lock", troubles, "")
    ends = time.monotonic() + look.left(_PATIENCE)
    while (held := is_held(path)) and time.monotonic() < ends:
        time.sleep(0.05)
    if held is None:
        return Finding("start lock", "ok", "none: nobody is starting a gateway")
    if not held:
        return Finding("start lock", "ok", "free: nobody is starting a gateway")
    return held_lock(flock_holder(path), path)


def held_lock(pid: int | None, path: str) -> Finding:
    """What to say of a lock that is held for longer than a start takes.

    Its holder may be an agent that waits for a slow gateway: it is to be ended by hand only, and not first.
    """
    again = "sleep 10 && aasm-py doctor"
    if pid is None:
        found = f"{path} is held by a process that cannot be seen from here; nobody else can start a gateway"
        return Finding("start lock", "warn", found, again)
    if process_is_stopped(pid):
        found = f"{path} is held by {_named(pid)}, which was stopped; nobody else can start a gateway"
        return Finding("start lock", "fail", found, f"kill -CONT {pid}; or: kill {pid}")
    found = f"{path} is held by {_named(pid)} for more than {_PATIENCE:g} s; it starts a gateway, or hangs"
    return Finding("start lock", "warn", found, f"{again}; or: kill {pid}")


def _named(pid: int | None) -> str:
    return "a process that cannot be seen from here" if pid is None else f"pid {pid} ({process_name(pid)})"


def _text(path: str) -> dict[str, str]:
    try:
        lines = read_small(path, 4096).decode("ascii", "replace").splitlines()
    except OSError:
        return {}
    return dict(line.split("=", 1) for line in lines if "=" in line)


CHECKS: tuple[Check, ...] = (Check("pid file", "home", pid_file), Check("start lock", "home", start_lock))
