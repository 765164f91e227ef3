"""The rows about `gateway.pid` and the start lock: which process holds them, and when they may be taken away."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.gateway import Gateway
from support.setups import Setup

from aasm_py.doctor import locks, pid_file


@pytest.fixture
def setup(home: Path) -> Setup:
    return Setup(home)


def _left_behind(home: Path, text: str) -> Path:
    path = home / "gateway.pid"
    path.write_text(text)
    path.chmod(0o600)
    return path


STALE = "pid=4190000\nport=7391\nversion=0.1.0\nstarted=1\n"


@pytest.mark.parametrize("text", [STALE, "", "\0\xff garbage\n", "pid=x\n"])
def test_a_stale_pid_file_is_removed(setup: Setup, text: str) -> None:
    """By typing, and by the repair, twice."""
    path = _left_behind(setup.home, text)
    row = setup.row("pid file")
    assert row.status == "warn"
    assert row.repair is not None
    for _ in range(2):
        row.repair.act()
    assert not path.exists()
    _left_behind(setup.home, text)
    setup.type(row.remedy)
    assert setup.row("pid file").status == "ok"


def test_the_command_names_the_way_out_of_a_stale_pid_file(setup: Setup, gateway: Gateway) -> None:
    """Also by starting a gateway, as after a crash."""
    gateway.kill()
    setup.mended("pid file", "warn", f"names pid {gateway.pid}, port {gateway.port}")
    _left_behind(setup.home, STALE)
    setup.mended("pid file", "warn", "stale", alternative=1)


def test_a_live_pid_file_is_never_repaired(setup: Setup, gateway: Gateway) -> None:
    """Whatever the row said a moment before."""
    with pytest.raises(OSError, match="a gateway runs"):
        pid_file.remove_stale(str(setup.home))
    assert (setup.home / "gateway.pid").exists()


def test_a_pid_file_is_not_repaired_while_a_gateway_is_started(setup: Setup) -> None:
    """The start lock says so."""
    path = _left_behind(setup.home, STALE)
    with locks.flocked(str(setup.home / "gateway.start.lock"), create=True) as got:
        assert got
        with pytest.raises(OSError, match="a gateway is being started"):
            pid_file.remove_stale(str(setup.home))
        assert setup.row("pid file").found == "a gateway is being started just now"
    assert path.exists()


def test_a_pid_file_that_was_removed_is_missed(setup: Setup, gateway: Gateway) -> None:
    """The gateway still writes the log, and no other one can start."""
    (setup.home / "gateway.pid").unlink()
    row = setup.row("pid file")
    assert row.status == "fail"
    assert f"pid {gateway.pid} (aasm)" in row.found
    setup.type(row.remedy)
    gateway.stop()
    assert setup.row("pid file").status == "ok"


def test_garbage_in_the_pid_file_of_a_live_gateway_is_told(setup: Setup, gateway: Gateway) -> None:
    (setup.home / "gateway.pid").write_text("garbage")
    row = setup.row("pid file")
    assert row.status == "fail"
    assert f"pid {gateway.pid} (aasm)" in row.found
    setup.type(row.remedy)
    gateway.stop()
    assert setup.row("pid file").status == "ok"


def test_without_proc_a_lock_is_still_a_lock(gateway: Gateway, tmp_path: Path) -> None:
    """A container may have none: the holder is then not named, and nothing breaks."""
    empty = tmp_path / "proc"
    empty.mkdir()
    home = str(gateway.home)
    assert pid_file.find_holder(home, str(empty)) == ("live", None)
    gateway.kill()
    assert pid_file.find_holder(home, str(empty)).state == "stale"
    (gateway.home / "gateway.pid").unlink()
    assert pid_file.find_holder(home, str(empty)).state == "none"


def test_looking_does_not_keep_a_gateway_from_starting(setup: Setup) -> None:
    """However often somebody looks meanwhile."""
    looker = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import sys; sys.path[:] = {sys.path!r}\nfrom aasm_py.doctor import pid_file\n"
            f"while True: pid_file.find_holder({str(setup.home)!r}, '/nonexistent')",
        ]
    )
    try:
        for _ in range(3):
            gateway = Gateway(setup.home).start()
            assert gateway.stop() == 0
    finally:
        looker.kill()
        looker.wait()


# The start lock.


@pytest.fixture
def hold(home: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Start a process that holds the start lock."""
    started = []

    def start() -> subprocess.Popen[str]:
        program = (
            "import fcntl, os, sys, time\n"
            "descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)\n"
            "fcntl.flock(descriptor, fcntl.LOCK_EX); print('held', flush=True); time.sleep(600)"
        )
        words = [sys.executable, "-c", program, str(home / "gateway.start.lock")]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_a_start_lock_that_is_held_names_its_holder(setup: Setup, hold: Callable[[], subprocess.Popen[str]]) -> None:
    """It may be an agent: to end it is not the first that is said."""
    holder = hold()
    row = setup.row("start lock")
    assert row.status == "warn"
    assert f"pid {holder.pid} (" in row.found
    assert not row.remedy.startswith("kill")
    setup.type(row.remedy, alternative=1)
    holder.wait()
    assert setup.row("start lock").status == "ok"


def test_a_start_lock_of_a_stopped_process_is_released(setup: Setup, hold: Callable[[], subprocess.Popen[str]]) -> None:
    """Nobody else can start a gateway until it goes on or ends."""
    holder = hold()
    os.kill(holder.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, holder.pid, os.WSTOPPED | os.WNOWAIT)
    row = setup.told("start lock")
    assert row["status"] == "fail"
    assert "was stopped" in row["found"]
    setup.type(row["remedy"])
    assert setup.row("start lock").status == "warn"
    os.kill(holder.pid, signal.SIGSTOP)
    setup.type(row["remedy"], alternative=1)
    os.kill(holder.pid, signal.SIGCONT)
    holder.wait()
    assert setup.told("start lock")["status"] == "ok"


def test_a_start_lock_that_is_free_is_well(setup: Setup) -> None:
    """Its file stays where it is."""
    (setup.home / "gateway.start.lock").touch(0o600)
    assert setup.row("start lock").found == "free: nobody is starting a gateway"


def test_a_start_lock_that_others_can_write_is_closed(setup: Setup) -> None:
    path = setup.home / "gateway.start.lock"
    path.touch()
    path.chmod(0o666)
    setup.mended("start lock", "fail", "can be written by others")


def test_a_holder_that_cannot_be_seen_is_told(setup: Setup) -> None:
    """As one in another container."""
    row = pid_file.held_lock(None, "/lock")
    assert row.status == "warn"
    assert "cannot be seen from here" in row.found


def test_the_list_of_locks_is_read_as_the_kernel_writes_it(tmp_path: Path) -> None:
    """Waiting processes, other kinds of locks and other files are passed over; without a list nothing is said."""
    file = tmp_path / "lock"
    file.touch()
    status = file.stat()
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    (tmp_path / "locks").write_text(
        f"1: POSIX  ADVISORY  WRITE 11 {device}:{status.st_ino} 0 EOF\n"
        f"2: FLOCK  ADVISORY  WRITE 12 {device}:{status.st_ino + 1} 0 EOF\n"
        f"3: -> FLOCK  ADVISORY  WRITE 13 {device}:{status.st_ino} 0 EOF\n"
        "4: nonsense\n"
        f"5: FLOCK  ADVISORY  WRITE 14 {device}:{status.st_ino} 0 EOF\n"
    )
    assert locks.flock_holder(str(file), str(tmp_path)) == 14
    assert locks.flock_holder(str(file), str(tmp_path / "nowhere")) is None
    with open(file, "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert locks.flock_holder(str(file)) in (os.getpid(), None)
        assert locks.is_held(str(file))
    assert locks.is_held(str(file)) is False
    assert locks.is_held(str(tmp_path / "nowhere")) is None
