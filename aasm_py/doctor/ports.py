"""Who listens on a port of this machine, and the row about the port of the local gateway."""

from __future__ import annotations

import os
import pwd
import shlex
import socket
from collections.abc import Sequence
from typing import NamedTuple

import psutil

from aasm_py.doctor.commands import set_line
from aasm_py.doctor.look import Look
from aasm_py.doctor.sighting import Sighting, is_loopback, sight
from aasm_py.doctor.words import shown_command
from agent_assembly.diagnosis import Finding, split_url

_CONNECT_SECONDS = 0.5
_TRIED_PORTS = 200
# Addresses of which one answers who dials 127.0.0.1.
_LOOPBACK = ("127.0.0.1", "0.0.0.0", "::", "::ffff:127.0.0.1", "::ffff:0.0.0.0")  # noqa: S104 - compared, not bound


class Holder(NamedTuple):
    """A listening process; without `pid` it is not to be seen, and `user` says whose it is where that is known.

    `home` is that of a gateway.
    """

    pid: int | None = None
    words: str = ""
    user: str = ""
    mine: bool = False
    home: str = ""

    def __str__(self) -> str:
        if self.pid is not None:
            of_another = f" of user {self.user}" if self.user and not self.mine else ""
            gateway = f", the gateway of {self.home}" if self.home else ""
            return f"{self.words} (pid {self.pid}{gateway}){of_another}"
        whose = f" of user {self.user}" if self.user and not self.mine else ""
        return f"a process{whose} that is not visible from here"


def holder(look: Look, port: int) -> Holder:
    """Who listens on `port` of 127.0.0.1; nothing is known of it when it is another user's."""
    return look.once(f"holder of {port}", lambda: _holder(port))


def is_own(look: Look, port: int) -> bool:
    """Whether it is the gateway of this home that listens on `port`, whether it answers or not."""
    found = holder(look, port)
    return bool(found.home) and look.home is not None and os.path.realpath(found.home) == os.path.realpath(look.home)


def other_port_line(look: Look, port: int) -> str:
    """What to type when `port` is held: another one, which is free now; then to end the holder, if that is allowed."""
    lines = []
    free = free_port(port)
    if free is not None:
        lines.append(set_line(look, "gateway_port", str(free)))
    found = holder(look, port)
    if found.mine and found.home:
        lines.append(f"aasm stop --home {shlex.quote(found.home)}")
    elif found.mine and found.pid is not None:
        lines.append(f"kill {found.pid}")
    return "; or: ".join(lines) or f"end what listens on port {port}"


def free_port(port: int) -> int | None:
    """The first port above `port` that nobody listens on now."""
    for candidate in range(port + 1, min(port + _TRIED_PORTS, 65536)):
        with socket.socket() as trial:
            # As the gateway's own: what has just been closed does not count.
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("127.0.0.1", candidate))
            except OSError:
                continue
            return candidate
    return None


def is_taken(port: int, timeout: float) -> bool:
    """Whether somebody listens on `port` of 127.0.0.1, found out without taking it for a moment."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout).close()
    except ConnectionRefusedError:
        return False
    except OSError:
        # Neither refused nor accepted: a listener whose queue is full.
        return True
    return True


def _holder(port: int) -> Holder:
    try:
        rows = psutil.net_connections("tcp")
    except psutil.Error:
        return Holder()
    pids = {
        row.pid
        for row in rows
        if row.status == psutil.CONN_LISTEN and row.laddr and row.laddr.port == port and row.laddr.ip in _LOOPBACK
    }
    # A listening socket that was inherited has several holders; the first of them opened it.
    visible = sorted(pid for pid in pids if pid is not None)
    if not visible:
        user, mine = _owner(port)
        return Holder(user=user, mine=mine)
    return _process(visible[0])


def _process(pid: int) -> Holder:
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            name, user = process.name(), process.username()
            mine = process.uids().effective == os.geteuid()
            command: Sequence[str] = process.cmdline() if mine else ()
            home = _home_of(process, command) if mine and name == "aasm" else ""
    except (psutil.Error, OSError):
        return Holder(pid, "a process")
    words = shown_command(command) if name.startswith(("python", "pypy")) else name
    return Holder(pid, words or name, user, mine, home)


def _home_of(process: psutil.Process, command: Sequence[str]) -> str:
    for index, word in enumerate(command):
        if word == "--home" and index + 1 < len(command):
            return command[index + 1]
        if word.startswith("--home="):
            return word.removeprefix("--home=")
    environ = process.environ()
    return environ.get("AASM_HOME") or (os.path.join(environ["HOME"], ".aasm") if environ.get("HOME") else "")


def _owner(port: int) -> tuple[str, bool]:
    """The user of a listening socket whose process cannot be seen, as Linux tells everybody."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="utf-8") as file:
                rows = [line.split() for line in file.readlines()[1:]]
        except OSError:
            continue
        for row in rows:
            if len(row) > 7 and row[1].endswith(f":{port:04X}") and row[3] == "0A" and row[7].isdigit():
                uid = int(row[7])
                try:
                    return pwd.getpwuid(uid).pw_name, uid == os.geteuid()
                except KeyError:
                    return f"uid {uid}", uid == os.geteuid()
    return "", False


def check_port(look: Look) -> Finding:
    """Whether the local gateway's port is free or its own."""
    if "gateway_port" in look.problems:
        return Finding("port", "skip", str(look.problems["gateway_port"]))
    port = look.settings.gateway_port
    seen = sight(look)
    listens = split_url(seen.url)[2] if seen.url else 0
    if seen.state == "own" and listens == port and is_loopback(seen.url):
        return Finding("port", "ok", f"{port} is your gateway's{_pid_of(look, port)}")
    if look.settings.gateway_url is not None:
        return Finding("port", "skip", f"{port} is not used: gateway_url ({seen.source}) names {seen.url}")
    if seen.state == "stuck" and listens == port:
        return Finding("port", "skip", f"{port} is your gateway's{_pid_of(look, port)}, which does not answer")
    if is_own(look, port):
        asked = f", which cannot be asked: {seen.problem}" if seen.problem else ""
        return Finding("port", "skip", f"{port} is held by your gateway (pid {holder(look, port).pid}){asked}")
    elsewhere = f"; your gateway listens on {listens}" if seen.state == "own" else ""
    if not is_taken(port, look.left(_CONNECT_SECONDS)):
        return Finding("port", "ok", f"{port} is free{elsewhere}")
    return _taken(look, seen, port, elsewhere)


def _taken(look: Look, seen: Sighting, port: int, elsewhere: str) -> Finding:
    held = f"{port} (gateway_port, {look.settings.source('gateway_port')}) is held by {holder(look, port)}"
    if seen.state == "own":
        line = set_line(look, "gateway_port", str(split_url(seen.url)[2]))
        return Finding("port", "warn", f"{held}{elsewhere}, and the next one could not start", line)
    return Finding("port", "fail", held, other_port_line(look, port))


def _pid_of(look: Look, port: int) -> str:
    known = look.pid_file
    return f" (pid {known.pid})" if known is not None and known.port == port else ""
