"""Starts the local gateway: detached, once however many ask at the same moment, and with nothing of the caller's.

The cold path of `local_gateway`: loaded only when no gateway runs.
"""

from __future__ import annotations

import fcntl
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

from agent_assembly.core.children import unrestricted
from agent_assembly.core.home import check_owned, ensure_directory
from agent_assembly.core.local_gateway import Probe, probe, read_pid_file
from agent_assembly.exceptions import ConfigurationError, GatewayError

_PROBE_SECONDS = 1.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.02
_LOG_TAIL_LINES = 5
# The gateway outlives the agent and must not carry its secrets: only what a program needs to run at all is passed on.
_PASSED_ON = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "RUST_LOG")

# The shell starts it in the background and ends: the gateway is nobody's child and cannot become a zombie of the
# agent's. `<&3` gives it the pipe that tells us, by closing, that it died; the shell would give it /dev/null.
_SHELL = ("/bin/sh", "-c", '{ "$@" <&3 3<&- & } 3<&0', "sh")


def start_gateway(home: str, port: int, program: str, timeout: float) -> Probe:
    """Start `program` for `home` on `port` unless its gateway runs by now; return the probe of a healthy one.

    Raises GatewayError with what the gateway said when it is not healthy within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    ensure_directory(home, "home directory")
    with _only_one(home, deadline):
        known = read_pid_file(home)
        for candidate in {known.port if known else port, port}:
            result = probe(candidate, home, _PROBE_SECONDS)
            if result.ours:
                return result
        result = _launch(home, port, program, deadline)
        result.started = True
        return result


@contextmanager
def _only_one(home: str, deadline: float) -> Iterator[None]:
    path = os.path.join(home, "gateway.start.lock")
    check_owned(path, "lock")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigurationError(f"lock {path} cannot be made: {error.strerror}") from None
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise GatewayError(
                        f"another process has been starting the gateway of {home} for too long; see who holds {path}",
                        code="gateway_timeout",
                    ) from None
                time.sleep(0.005)
        yield
    finally:
        os.close(descriptor)


def _launch(home: str, port: int, program: str, deadline: float) -> Probe:
    words = [program, "start", "--mode", "local", "--foreground", "--port", str(port), "--home", home]
    environment = {name: value for name, value in os.environ.items() if name in _PASSED_ON or name.startswith("LC_")}
    reading, writing = os.pipe()
    log = os.path.join(home, "log", "gateway.log")
    # What is there already was said by others.
    before = os.path.getsize(log) if os.path.isfile(log) else 0
    with tempfile.TemporaryFile() as complaints:
        try:
            with unrestricted():
                shell = subprocess.Popen(
                    [*_SHELL, *words],
                    stdin=reading,
                    stdout=subprocess.DEVNULL,
                    stderr=complaints,
                    close_fds=True,
                    start_new_session=True,
                    cwd=home,
                    env=environment,
                )
                shell.wait()
        except OSError as error:
            os.close(writing)
            raise GatewayError(f"{program} cannot be started: {error.strerror}", code="gateway_unreachable") from None
        finally:
            os.close(reading)
        try:
            return _healthy(home, port, _ended(writing), deadline)
        except GatewayError as error:
            said = _tail(log, before, complaints)
            raise GatewayError(f"{error}{said}", code=error.code) from None
        finally:
            os.close(writing)


def _ended(writing: int) -> Callable[[], bool]:
    watch = select.poll()
    watch.register(writing, 0)
    return lambda: any(event & (select.POLLERR | select.POLLHUP) for _, event in watch.poll(0))


def _healthy(home: str, port: int, ended: Callable[[], bool], deadline: float) -> Probe:
    pause = _FIRST_PAUSE
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise GatewayError("the gateway was started and did not become healthy in time", code="gateway_timeout")
        over = ended()
        known = read_pid_file(home)
        result = probe(known.port if known else port, home, min(left, _PROBE_SECONDS))
        if result.ours:
            return result
        if over:
            raise GatewayError("the gateway was started and ended at once", code="gateway_unreachable")
        time.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE)


def _tail(log: str, before: int, complaints: IO[bytes]) -> str:
    """What the gateway said last: on its standard error, else in its log after the first `before` bytes."""
    complaints.seek(0)
    text = complaints.read(16384)
    if not text.strip():
        try:
            with open(log, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                # A shorter one is a new one.
                file.seek(max(before if before <= size else 0, size - 16384))
                text = file.read()
        except OSError:
            return ""
    lines = text.decode("utf-8", "replace").strip().splitlines()[-_LOG_TAIL_LINES:]
    return ": " + "\n  ".join(lines) if lines else ""
