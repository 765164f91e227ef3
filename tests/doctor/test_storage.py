"""The rows about what the home holds: records that wait, the log's size and end, and the room on the disk."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest
from support.gateway import Gateway
from support.programs import program
from support.setups import Setup
from support.spools import HEADER, INSTANCE, OTHER, child

from aasm_py.doctor import audit_log, storage
from aasm_py.doctor.amounts import age, size
from aasm_py.doctor.storage import Filling, Space, space_row
from agent_assembly.client.spool import SEGMENT_BYTES, Spool
from agent_assembly.client.spool_state import UNSEEN, SegmentState, SpoolState, spool_state

MIB = 1 << 20
NOTE = "spool.note(loss_record(Writer('agent', sys.argv[1], ''), os.urandom(16).hex(), 1))"


@pytest.fixture
def setup(home: Path) -> Setup:
    return Setup(home)


@pytest.fixture
def write(setup: Setup) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a process that has records in a spool of its own, and lives: `write(NOTE, INSTANCE)`."""
    started = []

    def start(text: str = NOTE, instance: str = INSTANCE) -> subprocess.Popen[str]:
        text = (
            "from agent_assembly.client.records import *\n"
            "spool._header = segment_header(Writer('agent', sys.argv[1], ''), 1, 'host', '0.1.0')\n"
            f"{text}\nprint('written', flush=True); time.sleep(600)"
        )
        process = child(text, setup.home / "spool", instance)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not become true"
        time.sleep(0.1)


# The spool.


def test_a_spool_of_a_living_process_is_well(setup: Setup, write: Callable[..., subprocess.Popen[str]]) -> None:
    """It is counted, and its lock is left to its owner."""
    process = write()
    (segment,) = spool_state(str(setup.home / "spool")).segments
    assert segment == SegmentState(segment.path, INSTANCE, SEGMENT_BYTES, segment.modified, process.pid)
    row = setup.row("spool")
    assert row.status == "ok"
    assert row.found.startswith("1 segment, 1.0 MiB, the oldest ")
    assert row.found.endswith("; 1 of processes that run")
    assert spool_state(str(setup.home / "spool")).segments[0].owner == process.pid


def test_what_the_dead_left_is_adopted_when_the_gateway_that_is_named_starts(
    setup: Setup, write: Callable[..., subprocess.Popen[str]]
) -> None:
    """The row says whose it is, and is gone once the records are in the log."""
    for instance in (INSTANCE, OTHER):
        end(write(NOTE, instance))
    row = setup.told("spool")
    assert row["status"] == "warn"
    assert row["found"].startswith("2 segments (2.0 MiB, the oldest ")
    assert "of 2 processes that ended wait for a gateway" in row["found"]
    setup.type(row["remedy"])
    wait_until(lambda: setup.row("spool").found == "empty: no records wait for a gateway")
    assert setup.told("spool")["status"] == "ok"
    log = next((setup.home / "audit").glob("0*.log")).read_text()
    assert log.count('"type":"loss"') == 2


def test_records_for_a_remote_gateway_are_not_given_to_a_local_one(
    setup: Setup, write: Callable[..., subprocess.Popen[str]]
) -> None:
    """The next program takes them along."""
    end(write())
    setup.variables["AASM_GATEWAY_URL"] = "https://gateway.invalid"
    row = setup.row("spool")
    assert row.status == "warn"
    assert row.remedy.startswith("start a program with aasm-run")


def test_looking_takes_no_lock_of_this_process(setup: Setup) -> None:
    """An agent that shows the table when it refuses still owns its segments afterwards."""
    directory = setup.home / "spool"
    spool = Spool(str(directory), INSTANCE, HEADER, 8 * MIB)
    spool.note(b"x")
    try:
        (segment,) = spool_state(str(directory)).segments
        assert segment.owner == os.getpid()
        assert setup.row("spool").status == "ok"
        program = (
            "import fcntl, os, sys; fd = os.open(sys.argv[1], os.O_RDWR)\n"
            "try: fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB); print('free')\n"
            "except OSError: print('held')"
        )
        words = [sys.executable, "-I", "-S", "-c", program, segment.path]
        assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "held\n"
    finally:
        spool.close()


FILL = """
for number in range(3000):
    spool.note(loss_record(Writer('agent', sys.argv[1], ''), os.urandom(16).hex(), 1) + bytes(3000))
"""


@pytest.mark.parametrize(("bound", "status"), [(64 * MIB, "ok"), (10 * MIB, "warn"), (8 * MIB + 1, "warn")])
def test_a_spool_that_is_nearly_full_is_told(
    setup: Setup, write: Callable[..., subprocess.Popen[str]], bound: int, status: str
) -> None:
    """Before calls are denied."""
    process = write("spool._max_bytes = 64 << 20\n" + FILL)
    setup.variables["AASM_SPOOL_MAX_BYTES"] = str(bound)
    row = setup.row("spool")
    assert row.status == status
    if status != "ok":
        assert f"the spool of pid {process.pid} holds 8." in row.found
        assert "spool_max_bytes" in row.found
        assert "its calls are denied" in row.found
        assert "aasm start" in row.remedy


def test_a_full_spool_fails(setup: Setup, write: Callable[..., subprocess.Popen[str]]) -> None:
    """Nothing more fits, and the process says so to its own calls."""
    process = write(f"try:\n    while True: {NOTE[:-1]} + bytes(3000))\nexcept SpoolFull: pass")
    setup.variables["AASM_SPOOL_MAX_BYTES"] = str(8 * MIB)
    row = setup.row("spool")
    assert row.status == "fail"
    assert f"the spool of pid {process.pid} holds " in row.found
    assert "of 8.0 MiB (spool_max_bytes); its calls are denied" in row.found
    setup.variables["AASM_ENFORCEMENT_MODE"] = "observe"
    assert "its records are lost" in setup.row("spool").found


def test_only_what_the_living_hold_counts_against_their_bound() -> None:
    """A process may fill its own spool; segments of the dead are in nobody's way."""
    dead = [SegmentState(f"/s/{INSTANCE}-{n:06}.seg", INSTANCE, MIB, 0.0, None) for n in range(90)]
    live = [SegmentState(f"/s/{OTHER}-{n:06}.seg", OTHER, MIB, 0.0, 7) for n in range(2)]
    assert storage.fillings(SpoolState((*dead, *live)), 100 * MIB, lives=False) == []
    many = [SegmentState(f"/s/{OTHER}-{n:06}.seg", OTHER, 4 * MIB, 0.0, UNSEEN) for n in range(25)]
    assert storage.fillings(SpoolState(tuple(many)), 100 * MIB, lives=True) == [Filling(UNSEEN, 100 * MIB, True)]


def old(path: Path, seconds: float) -> Path:
    moment = time.time() - seconds
    os.utime(path, (moment, moment))
    return path


def test_a_draft_of_a_dead_process_is_removed(setup: Setup) -> None:
    """By typing, and by the repair, twice. Nothing was recorded in it."""
    directory = setup.home / "spool"
    directory.mkdir(mode=0o700)
    draft = directory / f"{INSTANCE}-000001.seg.new"

    def leave() -> None:
        draft.write_bytes(bytes(100))
        old(draft, 3600)

    leave()
    row = setup.row("spool")
    assert row.status == "warn"
    assert str(draft) in row.found
    assert row.repair is not None
    for _ in range(2):
        row.repair.act()
    assert not draft.exists()
    leave()
    setup.mended("spool", "warn", "without records")


def test_a_draft_that_somebody_writes_is_left_alone(setup: Setup) -> None:
    """By its lock, and by its age."""
    directory = setup.home / "spool"
    directory.mkdir(mode=0o700)
    draft = directory / f"{INSTANCE}-000001.seg.new"
    draft.write_bytes(bytes(100))
    assert setup.row("spool").status == "ok"
    holder = (
        "import fcntl, os, sys, time; fd = os.open(sys.argv[1], os.O_RDWR)\n"
        "fcntl.lockf(fd, fcntl.LOCK_EX); print('held', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", holder, str(draft)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        old(draft, 3600)
        state = spool_state(str(directory))
        assert [each.owner for each in state.drafts] == [process.pid]
        assert setup.row("spool").status == "ok"
        with pytest.raises(OSError, match="unavailable"):
            storage.delete_draft(state.drafts[0])
        assert draft.exists()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("content", [b"AASMSP9\n" + bytes(100), b"garbage", b"AASMSP1\n\xff\xff\xff\xff" + bytes(90)])
def test_a_damaged_segment_is_set_aside(setup: Setup, gateway: Gateway, content: bytes) -> None:
    """The gateway leaves it where it is; it is kept elsewhere."""
    path = setup.home / "spool" / f"{INSTANCE}-000001.seg"
    path.write_bytes(content)
    path.chmod(0o600)
    old(path, 3600)
    wait_until(lambda: "is left where it is" in gateway.log())
    setup.mended("spool", "warn", "damaged at the start")
    assert (setup.home / "spool-set-aside" / path.name).read_bytes() == content


@pytest.mark.parametrize("kind", ["pipe", "link", "directory"])
def test_what_is_no_segment_is_moved_away(setup: Setup, kind: str) -> None:
    """And nobody waits for it."""
    directory = setup.home / "spool"
    directory.mkdir(mode=0o700)
    path = directory / f"{INSTANCE}-000001.seg"
    {"pipe": os.mkfifo, "link": lambda path: path.symlink_to("/etc/hostname"), "directory": os.mkdir}[kind](path)
    row = setup.row("spool")
    assert row.status == "warn"
    setup.type(row.remedy)
    assert setup.row("spool").status == "ok"


def test_a_spool_that_others_can_write_is_closed(setup: Setup) -> None:
    """The SDK would deny every call."""
    (setup.home / "spool").mkdir(mode=0o777)
    (setup.home / "spool").chmod(0o777)
    setup.mended("spool", "fail", "can be written by others")


def test_ten_thousand_segments_cost_little(setup: Setup) -> None:
    """Those beyond the bound are counted."""
    directory = setup.home / "spool"
    directory.mkdir(mode=0o700)
    for number in range(2500):
        (directory / f"{INSTANCE}-{number:06}.seg").touch(0o600)
    state = spool_state(str(directory))
    assert len(state.segments) == 2000
    assert state.unopened == 500
    assert "500 more were not looked at" in storage.described(state, time.time())


# The audit log.


def test_a_log_in_use_is_well(setup: Setup, gateway: Gateway) -> None:
    """Its writer is named."""
    wait_until(lambda: " in 1 segment, through line " in setup.row("audit log").found)
    row = setup.row("audit log")
    assert row.status == "ok"
    assert " in 1 segment, through line " in row.found
    assert f"written by pid {gateway.pid} (aasm)" in row.found
    gateway.stop()
    assert setup.row("audit log").found.endswith("written by nobody now")


def newest(home: Path) -> Path:
    return max((home / "audit").glob("0*.log"))


def test_a_log_of_two_gigabytes_costs_nothing(setup: Setup, gateway: Gateway) -> None:
    """Only its end is read."""
    gateway.stop()
    path = newest(setup.home)
    last = path.read_bytes().splitlines(keepends=True)[-1]
    with open(path, "r+b") as file:
        file.truncate(2 << 30)
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + last)
    read = _bytes_read()
    row = setup.row("audit log")
    assert _bytes_read() - read < 64 * MIB
    assert row.status == "ok", row
    assert row.found.startswith("2.0 GiB in 1 segment, through line ")


def test_a_log_of_zeros_costs_little(setup: Setup, gateway: Gateway) -> None:
    gateway.stop()
    with open(newest(setup.home), "r+b") as file:
        file.truncate(2 << 30)
    (setup.home / "log" / "gateway.log").write_bytes(b"")
    with open(setup.home / "log" / "gateway.log", "r+b") as file:
        file.truncate(2 << 30)
    read = _bytes_read()
    row = setup.row("audit log")
    assert _bytes_read() - read < 64 * MIB
    assert row.status == "fail"
    assert "is no line of an audit log" in row.found


def _bytes_read() -> int:
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        pytest.skip("what this process reads is not counted here")
    return int(next(line for line in lines if line.startswith("rchar")).split()[1])


def test_a_cut_tail_is_noticed(setup: Setup, gateway: Gateway) -> None:
    """By the head, which names a later line; the command that is named says the same."""
    gateway.stop()
    path = newest(setup.home)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    row = setup.told("audit log")
    assert row["status"] == "fail"
    assert "1 line missing at the end of the audit log" in row["found"]
    assert gateway.verify().returncode == 1
    with pytest.raises(AssertionError, match="audit verify"):
        setup.type(row["remedy"])


def test_another_last_line_is_noticed(setup: Setup, gateway: Gateway) -> None:
    gateway.stop()
    head = setup.home / "audit" / "head"
    said = json.loads(head.read_text())
    head.write_text(json.dumps({**said, "hash": "0" * 64}))
    row = setup.row("audit log")
    assert row.status == "fail"
    assert "is not the one that the head names" in row.found


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"seq": "x"}', b"\xff" * 9000])
def test_a_head_that_cannot_be_understood_is_noticed(setup: Setup, gateway: Gateway, content: bytes) -> None:
    gateway.stop()
    (setup.home / "audit" / "head").write_bytes(content)
    row = setup.row("audit log")
    assert row.status == "fail"
    assert "the head of the audit log cannot be understood" in row.found


def test_a_damaged_end_that_the_gateway_cut_off_is_told(setup: Setup, gateway: Gateway) -> None:
    """It is evidence: it can be put elsewhere, and is kept."""
    gateway.stop()
    path = newest(setup.home)
    content = bytearray(path.read_bytes())
    content[-4] ^= 1
    path.write_bytes(content)
    gateway.start()
    row = setup.told("audit log")
    assert row["status"] == "warn"
    assert ".cut-" in row["found"]
    assert "audit verify" in row["remedy"]
    setup.type(row["remedy"], alternative=1)
    assert setup.told("audit log")["status"] == "ok"
    assert len(list((setup.home / "audit-set-aside").glob("*.cut-*"))) == 1


def test_a_head_that_is_a_pipe_keeps_nobody_waiting(setup: Setup, gateway: Gateway) -> None:
    gateway.stop()
    head = setup.home / "audit" / "head"
    head.unlink()
    os.mkfifo(head)
    assert setup.row("audit log").status == "fail"


def test_what_the_gateway_complains_about_is_told() -> None:
    """The last complaint of the last hour, and how many there were."""
    now = datetime(2030, 1, 2, 3, 4, 5, tzinfo=timezone.utc).timestamp()
    text = (
        "half a line\n"
        "2030-01-02T01:00:00.000001Z ERROR long ago\n"
        "2030-01-02T03:00:00.000001Z  INFO gateway 0.1.0 listening\n"
        "2030-01-02T03:01:00.000001Z  WARN the spool cannot be read: x\n"
        f"2030-01-02T03:02:05.000001Z ERROR {'y' * 500}\n"
    )
    said = audit_log.complaints(text, now)
    assert said == f"; gateway.log: 2 complaints in the last hour, 2 min ago ERROR {'y' * 120}…"
    assert audit_log.complaints(text, now + 7200) == ""


# The disk.


@pytest.mark.parametrize(
    ("space", "status", "found"),
    [
        (Space(10 << 30, 20 << 30, 1000), "ok", "10.0 GiB free of 20.0 GiB on /"),
        (Space(255 * MIB, 20 << 30, None), "warn", "less than 256 MiB"),
        (Space(16 * MIB - 1, 20 << 30, 5), "fail", "too little for a record"),
        (Space(0, 0, 5), "fail", "too little for a record"),
        (Space(10 << 30, 20 << 30, 0), "fail", "no room for more files"),
    ],
)
def test_room_is_judged_by_bytes_and_by_files(space: Space, status: str, found: str) -> None:
    row = space_row(space, "/", None)
    assert row.status == status
    assert found in row.found
    assert (row.remedy == "") == (status == "ok")


def test_a_limit_of_the_shell_is_told(setup: Setup) -> None:
    """A file that may not grow to a segment's size ends the agent by a signal."""
    program = (
        f"import sys; sys.path[:] = {sys.path!r}\nimport os\nfrom aasm_py.doctor.storage import disk_space\n"
        "from aasm_py.doctor.look import Look\nprint(*disk_space(Look(os.environ)).row(), sep='\\n')"
    )
    ask = f"{shlex.quote(sys.executable)} -c {shlex.quote(program)}"
    environ = setup.environ

    def asked(words: str) -> list[str]:
        command = ["bash", "-c", f"ulimit -S -f 512; {words}{ask}"]
        return subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout.splitlines()

    _, status, found, remedy = asked("")
    assert status == "fail"
    assert "512 KiB at most" in found
    assert asked(f"{remedy}; ")[1] != "fail"


DOCTOR = (
    "import json, sys; rows = {row['check']: row for row in json.load(sys.stdin)['checks']}; row = rows['disk space']; "
    "print(row['status'], row['found'], row['remedy'], sep='\\n')"
)


@pytest.mark.parametrize(("megabytes", "status"), [(8, "fail"), (64, "warn"), (300, "ok")])
def test_a_small_disk_is_told(setup: Setup, megabytes: int, status: str) -> None:
    """On a real file system of that size, mounted in a namespace of the test's own; the home that is named has room."""
    ask = f"{program('aasm-py')} doctor --json | {shlex.quote(sys.executable)} -c {shlex.quote(DOCTOR)}"
    script = (
        f"mount -t tmpfs -o size={megabytes}m,mode=700 tmpfs {shlex.quote(str(setup.home))} || exit 1\n"
        f'said=$({ask}); echo "$said"; remedy=$(echo "$said" | tail -n 1)\n'
        f'echo then; case "$remedy" in export*) eval "${{remedy%%; or: *}}";; esac; {ask}'
    )
    flags = "-m" if os.geteuid() == 0 else "-rm"
    environ = {**setup.environ, "HOME": str(setup.home.parent)}
    result = subprocess.run(["unshare", flags, "bash", "-c", script], env=environ, capture_output=True, text=True)
    if result.returncode and ("unshare" in result.stderr or "mount" in result.stderr):
        pytest.skip(f"nothing can be mounted here: {result.stderr.strip()}")
    lines, _, after = (part.splitlines() for part in result.stdout.partition("then\n"))
    assert lines[0] == status, result
    assert f"on {setup.home}" in lines[1]
    assert after[0] == "ok", result
    if status != "ok":
        assert lines[2].startswith(f"export AASM_HOME={setup.home.parent}/.aasm; or: make room on {setup.home}")


def test_the_disk_of_a_home_that_is_not_there_is_that_of_its_parent(setup: Setup) -> None:
    setup.home.rmdir()
    row = setup.row("disk space")
    assert row.status in ("ok", "warn")
    assert " free of " in row.found


def test_amounts_are_read_at_a_glance() -> None:
    assert [size(number) for number in (0, 1023, 1536, 150 << 20, 3 << 50)] == [
        "0 bytes", "1023 bytes", "1.5 KiB", "150 MiB", "3072 TiB",
    ]  # fmt: skip
    assert [age(seconds) for seconds in (-5, 90, 150, 7300, 200000)] == ["0 s", "90 s", "2 min", "2 h", "2 d"]
