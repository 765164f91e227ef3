"""Who holds a file's lock: by the kernel's own list, which disturbs nobody, or by trying for an instant."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

PROC = "/proc"
_LIST_BYTES = 4 << 20


def flock_holder(path: str, proc: str = PROC) -> int | None:
    """The process that holds a `flock` of `path`; None when none can be seen, which does not mean that there is none.

    The list knows processes of this container only, and not the devices of layered file systems.
    """
    try:
        status = os.stat(path, follow_symlinks=False)
        with open(os.path.join(proc, "locks"), encoding="ascii", errors="replace") as file:
            lines = file.read(_LIST_BYTES).splitlines()
    except OSError:
        return None
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for line in lines:
        fields = line.split()
        # `1: FLOCK ADVISORY WRITE 1234 08:01:4711 0 EOF`; one that waits for it has `->` in its second place.
        if len(fields) >= 6 and fields[1] == "FLOCK" and fields[5] == device and fields[4].isdigit():
            return int(fields[4])
    return None


def is_held(path: str) -> bool | None:
    """Whether somebody holds a `flock` of `path`; None when it cannot be opened. Takes it for an instant if not."""
    try:
        # Shared: two who only look do not take each other for the holder.
        with flocked(path, shared=True) as got:
            return not got
    except OSError:
        return None


@contextmanager
def flocked(path: str, *, create: bool = False, shared: bool = False) -> Iterator[bool]:
    """Hold the `flock` of a regular file, if it can be had at once: yields whether. Raises OSError without a file."""
    import fcntl

    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_CREAT if create else 0)
    descriptor = os.open(path, flags, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path} is not a file")
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def process_name(pid: int) -> str:
    """What the program of a process is called, "unknown" where that cannot be learnt."""
    try:
        import psutil

        return str(psutil.Process(pid).name())
    except Exception:  # noqa: BLE001 - psutil raises what it likes without /proc; a name is not worth a row
        return "unknown"


def process_is_stopped(pid: int) -> bool:
    """Whether a process was stopped (Ctrl-Z, SIGSTOP, a debugger) and so does nothing."""
    try:
        import psutil

        return psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    except Exception:  # noqa: BLE001 - as above
        return False
