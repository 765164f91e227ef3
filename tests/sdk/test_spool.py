"""The spool: what was accepted outlives the process that wrote it, and an END always has room."""

from __future__ import annotations

import fcntl
import itertools
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_assembly.client import spool as module
from agent_assembly.client.records import END_LIMIT, Writer, begin_record, segment_header
from agent_assembly.client.spool import MAGIC, SEGMENT_BYTES, Spool, SpoolFull, frame, frames, orphans
from agent_assembly.governance import ToolCall, Verdict

INSTANCE = "ab" * 16
OTHER = "cd" * 16
HEADER = segment_header(Writer("agent", INSTANCE, ""), 1, "host", "0.1.0")
BOUND = 8 * SEGMENT_BYTES


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "home" / "spool"


@pytest.fixture
def spool(directory: Path) -> Iterator[Spool]:
    made = Spool(str(directory), INSTANCE, HEADER, BOUND)
    yield made
    made.close()


def files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.seg"))


def stored(directory: Path) -> list[bytes]:
    """The records of every segment, as whoever finds the files reads them."""
    return [payload for path in files(directory) for payload in list(frames(path.read_bytes()))[1:]]


def adopted(directory: Path, own: str = OTHER) -> list[bytes]:
    found = []
    for orphan in orphans(str(directory), own):
        found += orphan.payloads
        orphan.release()
    return found


def child(program: str, directory: Path, *words: str) -> subprocess.Popen[str]:
    prelude = (
        f"import os, sys, signal, threading, time, random; sys.path[:] = {sys.path!r}\n"
        "from agent_assembly.client.spool import *\n"
        f"spool = Spool({str(directory)!r}, sys.argv[1], {HEADER!r}, {BOUND})\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", prelude + program, *(words or (INSTANCE,))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_nothing_is_made_before_the_first_record(directory: Path) -> None:
    """A process that governs nothing leaves no file."""
    Spool(str(directory), INSTANCE, HEADER, BOUND).close()
    assert not directory.exists()


def test_the_format_is_the_documented_one(spool: Spool, directory: Path) -> None:
    """Magic, then frames of length, CRC-32 and payload, little endian; zeros behind; mode 0600 in a 0700 directory."""
    spool.begin("1", b"one")
    spool.end("1", b"two")
    (path,) = files(directory)
    assert path.name == f"{INSTANCE}-000001.seg"
    expected = b"AASMSP1\n"
    for payload in (HEADER, b"one", b"two"):
        expected += len(payload).to_bytes(4, "little") + zlib.crc32(payload).to_bytes(4, "little") + payload
    assert path.read_bytes() == expected.ljust(SEGMENT_BYTES, b"\0")
    assert path.stat().st_mode & 0o777 == 0o600
    assert directory.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_blocks * 512 >= SEGMENT_BYTES, "the space is really there"


@pytest.mark.parametrize("ending", ["os._exit(3)", "os.kill(os.getpid(), signal.SIGKILL)", "os.abort()"])
def test_what_was_accepted_survives_the_death_of_the_process(ending: str, directory: Path) -> None:
    """However a process ends in the middle of its calls, every record that it had accepted can be adopted."""
    program = f"""
for number in range(200):
    spool.begin(str(number), b'begin %d' % number)
    if number % 3: spool.end(str(number), b'end %d' % number)
{ending}
"""
    process = child(program, directory)
    process.communicate()
    assert process.returncode != 0
    expected = [text for n in range(200) for text in ([b"begin %d" % n, b"end %d" % n] if n % 3 else [b"begin %d" % n])]
    assert adopted(directory) == expected


def test_a_kill_at_any_moment_loses_nothing_that_was_accepted(directory: Path) -> None:
    """A process says on standard output what was accepted; after SIGKILL at a random moment all of that is there."""
    program = """
out = os.fdopen(1, 'wb', buffering=0)
for number in range(10**9):
    spool.begin(str(number), b'b%d' % number + b'x' * random.randrange(3000))
    out.write(b'b%d\\n' % number)
    spool.end(str(number), b'e%d' % number)
    out.write(b'e%d\\n' % number)
"""
    source = random.Random(11)
    for round_number in range(6):
        here = directory / str(round_number)
        process = child(program, here)
        assert process.stdout is not None
        process.stdout.readline()
        killer = threading.Timer(source.random() * 0.05, process.kill)
        killer.start()
        said = process.stdout.read().split("\n")[:-1]
        process.wait()
        killer.join()
        process.stdout.close()
        assert process.stdin is not None
        process.stdin.close()
        found = [payload.rstrip(b"x").decode() for payload in adopted(here)]
        expected = ["b0", *said]
        assert found[: len(expected)] == expected
        assert len(found) <= len(expected) + 1


def lock_of(path: Path) -> str:
    """Who holds the lock, as another process sees it."""
    program = (
        "import fcntl, os, sys; fd = os.open(sys.argv[1], os.O_RDWR)\n"
        "try: fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB); print('free')\n"
        "except OSError: print('held')"
    )
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, str(path)], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_the_lock_lives_as_long_as_its_owner(directory: Path) -> None:
    """Held while the owner lives, also when it hangs; dropped at its death, however it died."""
    process = child("spool.begin('1', b'one'); print('ready', flush=True); time.sleep(60)", directory)
    assert process.stdout is not None
    process.stdout.readline()
    (path,) = files(directory)
    os.kill(process.pid, signal.SIGSTOP)
    assert lock_of(path) == "held"
    assert adopted(directory) == []
    process.kill()
    process.communicate()
    assert lock_of(path) == "free"
    assert adopted(directory) == [b"one"]


def test_a_fork_does_not_inherit_the_lock(spool: Spool, directory: Path) -> None:
    """The lock stays the parent's: a child that lets go of everything does not drop it, and does not keep it alive."""
    spool.begin("1", b"one")
    (path,) = files(directory)
    pid = os.fork()
    if pid == 0:
        try:
            spool.abandon()
            # Opening and closing the file would drop the lock if this process held it.
            os.close(os.open(path, os.O_RDWR))
            assert adopted(directory, "ef" * 16) == []
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert lock_of(path) == "held"
    spool.end("1", b"two")
    assert stored(directory) == [b"one", b"two"]


def test_a_child_that_outlives_its_parent_does_not_hold_the_records_back(directory: Path) -> None:
    """Inherited descriptors in a forked child keep nobody from adopting what a dead parent left."""
    program = """
spool.begin('1', b'one')
if os.fork() == 0:
    print(os.getpid(), flush=True)
    time.sleep(60)
os._exit(0)
"""
    process = child(program, directory)
    assert process.stdout is not None
    grandchild = int(process.stdout.readline())
    process.wait()
    try:
        assert adopted(directory) == [b"one"]
    finally:
        os.kill(grandchild, signal.SIGKILL)
        process.communicate()


def test_a_forked_child_writes_a_spool_of_its_own(spool: Spool, directory: Path) -> None:
    """Parent and child after a fork do not write into each other's segments."""
    spool.begin("1", b"parent")
    pid = os.fork()
    if pid == 0:
        spool.abandon()
        own = Spool(str(directory), OTHER, HEADER, BOUND)
        own.begin("2", b"child")
        os._exit(0)
    os.waitpid(pid, 0)
    spool.end("1", b"parent end")
    # Read last: opening and closing the own file here drops its lock.
    assert adopted(directory, INSTANCE) == [b"child"]
    assert sorted(stored(directory)) == [b"child", b"parent", b"parent end"]


def test_two_spools_of_one_process_do_not_adopt_each_other(spool: Spool, directory: Path) -> None:
    """Record locks do not keep a process from its own files; a live segment of the same process is left alone."""
    other = Spool(str(directory), OTHER, HEADER, BOUND)
    spool.begin("1", b"one")
    other.begin("2", b"two")
    assert adopted(directory, INSTANCE) == []
    assert adopted(directory, OTHER) == []
    assert [lock_of(path) for path in files(directory)] == ["held", "held"]
    other.close()
    assert adopted(directory, INSTANCE) == [b"two"]
    assert [lock_of(path) for path in files(directory)] == ["held", "free"]


ADOPTER = """
sys.stdin.readline()
for orphan in orphans(sys.argv[2], sys.argv[1]):
    print(os.path.basename(orphan.path), flush=True)
    orphan.delete()
"""


def test_each_segment_is_adopted_exactly_once(directory: Path) -> None:
    """Several adopters at once, processes and threads: each segment goes to one of them."""
    for number in range(30):
        made = Spool(str(directory), f"{number:032x}", HEADER, BOUND)
        made.begin("1", b"one")
        made.close()
    names = [path.name for path in files(directory)]
    assert len(names) == 30
    processes = [child(ADOPTER, directory, f"{n + 100:032x}", str(directory)) for n in range(3)]
    said: list[str] = []

    def adopt() -> None:
        for orphan in orphans(str(directory), OTHER):
            said.append(os.path.basename(orphan.path))
            orphan.delete()

    threads = [threading.Thread(target=adopt) for _ in range(3)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for process in processes:
        said += process.communicate()[0].split()
    assert sorted(said) == names
    assert files(directory) == []


def test_what_was_adopted_and_let_go_can_be_adopted_again(directory: Path) -> None:
    """An adopter that could not send leaves the segment to the next one."""
    made = Spool(str(directory), INSTANCE, HEADER, BOUND)
    made.begin("1", b"one")
    made.close()
    assert adopted(directory) == adopted(directory) == [b"one"]
    assert len(files(directory)) == 1


@pytest.mark.parametrize("then", ["orphan.delete()", "kept.append(orphan)"])
def test_a_segment_taken_for_an_orphan_at_its_birth_is_made_anew(then: str, directory: Path) -> None:
    """Adopters that lock or delete new files between creation and lock cost a file name, not a record."""
    directory.mkdir(parents=True, mode=0o700)
    program = f"""
kept = []
print('ready', flush=True)
while True:
    for orphan in orphans(sys.argv[2], 'none'): {then}
"""
    adopter = child(program, directory, OTHER, str(directory))
    assert adopter.stdout is not None
    adopter.stdout.readline()
    try:
        end = time.monotonic() + 2
        for number in itertools.count():
            made = Spool(str(directory), f"{number:032x}", HEADER, BOUND)
            made.begin("1", b"one")
            made.end("1", b"two")
            (segment,) = made._segments
            # Not by name: opening and closing the file here would drop the lock.
            assert list(frames(os.pread(segment.descriptor, 4096, 0)))[1:] == [b"one", b"two"]
            assert os.fstat(segment.descriptor).st_nlink == 1
            made.shipped(segment, segment.written)
            made.close()
            if time.monotonic() > end:
                break
    finally:
        adopter.kill()
        adopter.communicate()


def segment_bytes(payloads: list[bytes], size: int = 4096) -> bytes:
    return (MAGIC + b"".join(map(frame, [HEADER, *payloads]))).ljust(size, b"\0")


def test_truncation_at_every_offset_leaves_a_prefix() -> None:
    """A torn file gives the records that are whole, in order, and no exception."""
    payloads = [b"one", b"two" * 50, b"\0" * 20, b"4"]
    data = segment_bytes(payloads, 512)
    for length in range(len(data) + 1):
        found = list(frames(data[:length]))
        assert found == [HEADER, *payloads][: len(found)]
    assert list(frames(data)) == [HEADER, *payloads]


def test_a_flipped_bit_anywhere_leaves_a_prefix() -> None:
    """Damage ends the segment where it is; nothing that is wrong is taken for a record."""
    payloads = [b"one", b"two" * 20, b"three"]
    data = segment_bytes(payloads, 400)
    for position in range(len(data) * 8):
        broken = bytearray(data)
        broken[position // 8] ^= 1 << position % 8
        found = list(frames(bytes(broken)))
        assert found == [HEADER, *payloads][: len(found)]


def test_random_bytes_are_no_records() -> None:
    """Whatever a file holds, reading it raises nothing and returns at once, also for lengths beyond all bounds."""
    source = random.Random(2)
    for _ in range(2000):
        assert list(frames(MAGIC + source.randbytes(source.randrange(200)))) == []
    for length in (0xFFFFFFFF, 1 << 31, (16 << 20) + 1):
        assert list(frames(MAGIC + length.to_bytes(4, "little") + b"\0" * 100)) == []
    assert list(frames(b"")) == list(frames(b"AASMSP2\n" + frame(b"x"))) == []


def put(directory: Path, data: bytes, name: str = f"{INSTANCE}-000001.seg") -> Path:
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = directory / name
    path.write_bytes(data)
    path.chmod(0o600)
    return path


def test_damage_is_noticed(directory: Path) -> None:
    """What can be read of a damaged segment is adopted, and that something is missing is known."""
    data = segment_bytes([b"one", b"two"])
    path = put(directory, data)
    for broken, torn in ((data, False), (data[:-1000], False), (data.replace(b"two", b"twx"), True)):
        path.write_bytes(broken)
        (orphan,) = orphans(str(directory), OTHER)
        assert (orphan.payloads, orphan.torn) == ([b"one"] if torn else [b"one", b"two"], torn)
        assert orphan.header == HEADER
        orphan.release()


@pytest.mark.parametrize("data", [b"AASMSP2\n" + frame(HEADER), b"notes of somebody", MAGIC + b"\1" * 50])
def test_what_is_not_understood_is_not_deleted(directory: Path, data: bytes) -> None:
    """A segment of another format, or with a damaged header, is left where it is."""
    path = put(directory, data)
    assert list(orphans(str(directory), OTHER)) == []
    assert path.read_bytes() == data


@pytest.mark.parametrize("data", [b"", b"\0" * 100, MAGIC, MAGIC + b"\0" * 100])
def test_an_empty_segment_is_cleared_away(directory: Path, data: bytes) -> None:
    """An owner that died before its first record leaves nothing behind for ever."""
    put(directory, data)
    (orphan,) = orphans(str(directory), OTHER)
    assert orphan.payloads == []
    if data in (b"", b"\0" * 100):
        assert not orphan.torn
    orphan.delete()
    assert files(directory) == []


def test_strange_segments_are_not_adopted(directory: Path, tmp_path: Path) -> None:
    """Symbolic links, directories, pipes, files that others can write, and of absurd size, are passed over."""
    good = put(directory, segment_bytes([b"good"]), "f-000001.seg")
    outside = tmp_path / "outside.seg"
    outside.write_bytes(segment_bytes([b"outside"]))
    outside.chmod(0o600)
    (directory / "a-000001.seg").symlink_to(outside)
    (directory / "b-000001.seg").mkdir()
    os.mkfifo(directory / "c-000001.seg", 0o600)
    put(directory, segment_bytes([b"open"]), "d-000001.seg").chmod(0o622)
    os.truncate(put(directory, segment_bytes([b"huge"]), "e-000001.seg"), 1 << 40)
    (directory / "readme.txt").write_text("x")
    assert adopted(directory) == [b"good"]
    assert good.exists()
    if os.geteuid() == 0:
        os.chown(good, 65534, -1)
        assert adopted(directory) == []


def test_a_spool_directory_of_others_is_not_read(directory: Path, tmp_path: Path) -> None:
    """Nothing is adopted from a directory that others can write or that is a link, or that is not there."""
    put(directory, segment_bytes([b"one"]))
    directory.chmod(0o777)
    assert adopted(directory) == []
    directory.chmod(0o700)
    link = tmp_path / "link"
    link.symlink_to(directory)
    assert adopted(link) == []
    assert adopted(tmp_path / "missing") == []


def test_every_call_that_was_begun_can_be_ended(directory: Path) -> None:
    """Fill the spool to its bound with open calls: each still gets the longest END, within the preallocated files."""
    made = Spool(str(directory), INSTANCE, HEADER, 2 * SEGMENT_BYTES)
    source = random.Random(4)
    begun: list[str] = []

    def begin_for_ever() -> None:
        while True:
            name = str(len(begun))
            made.begin(name, source.randbytes(source.randrange(1, 6000)))
            begun.append(name)

    with pytest.raises(SpoolFull, match=r"the bound is 2097152 \(setting spool_max_bytes\)"):
        begin_for_ever()
    assert len(begun) > 300
    with pytest.raises(SpoolFull):
        made.note(b"x" * 10_000)
    source.shuffle(begun)
    for name in begun:
        made.end(name, b"e" * END_LIMIT)
    assert {path.stat().st_size for path in files(directory)} == {SEGMENT_BYTES}
    assert sum(payload == b"e" * END_LIMIT for payload in stored(directory)) == len(begun)
    made.close()


def test_room_comes_back_when_records_were_taken(directory: Path) -> None:
    """A full spool accepts again as soon as the gateway has what it holds; shipped segments disappear."""
    made = Spool(str(directory), INSTANCE, HEADER, SEGMENT_BYTES)
    for number in itertools.count():
        try:
            made.begin(str(number), b"x" * 5000)
        except SpoolFull:
            break
        made.end(str(number), b"y")
    for segment, _, position in made.pending(10 * SEGMENT_BYTES):
        made.shipped(segment, position)
    assert made.waiting() == 0
    made.begin("again", b"x" * 5000)
    assert [path.name for path in files(directory)] == [f"{INSTANCE}-000002.seg"]
    made.close()


def test_a_segment_that_owes_an_end_is_kept(spool: Spool, directory: Path) -> None:
    """Shipped records of an open call stay on disk: without them nobody would know that its END is missing."""
    spool.begin("1", b"one")
    ((segment, payloads, position),) = spool.pending(1000)
    assert payloads == [b"one"]
    spool.shipped(segment, position)
    spool.delete_shipped()
    assert len(files(directory)) == 1
    spool.end("1", b"two")
    ((segment, payloads, position),) = spool.pending(1000)
    assert payloads == [b"two"]
    spool.shipped(segment, position)
    spool.delete_shipped()
    assert files(directory) == []


def test_a_record_larger_than_a_segment_gets_one_of_its_size(spool: Spool, directory: Path) -> None:
    """Size is bounded by the spool, not by the usual segment."""
    large = b"x" * (2 * SEGMENT_BYTES)
    spool.begin("1", large)
    spool.end("1", b"e" * END_LIMIT)
    assert stored(directory) == [large, b"e" * END_LIMIT]
    with pytest.raises(SpoolFull):
        spool.begin("2", b"x" * BOUND)


def test_closing_with_open_calls_leaves_them_for_adoption(spool: Spool, directory: Path) -> None:
    """Closing is final: later records are refused, and what is there can be adopted, with the open BEGIN in it."""
    call = ToolCall(tool="t", framework="f", arguments={})
    begin = begin_record(Writer("a", INSTANCE, ""), call, Verdict("allow", "r", "rule", False))
    spool.begin("1", begin)
    spool.begin("2", b"two")
    spool.end("2", b"end")
    spool.close()
    spool.close()
    for act in (lambda: spool.end("1", b"x"), lambda: spool.begin("3", b"x"), lambda: spool.note(b"x")):
        with pytest.raises(SpoolFull, match="closed"):
            act()
    assert adopted(directory) == [begin, b"two", b"end"]


def test_a_shipment_that_ends_after_closing_harms_nothing(spool: Spool) -> None:
    """The acknowledgement of a batch may arrive when the spool is closed already."""
    spool.begin("1", b"one")
    pending = list(spool.pending(1000))
    spool.close()
    for segment, _, position in pending:
        spool.shipped(segment, position)
    assert list(spool.pending(1000)) == []


def test_an_end_without_begin_needs_room_like_any_record(spool: Spool, directory: Path) -> None:
    """The END of a call whose BEGIN was refused is kept if there is room."""
    spool.end("never begun", b"end")
    assert stored(directory) == [b"end"]


def test_a_segment_that_somebody_cut_is_an_error_and_no_crash(spool: Spool, directory: Path) -> None:
    """A live segment that was changed from outside is reported, not sent."""
    spool.begin("1", b"one" * 100)
    os.truncate(files(directory)[0], 100)
    with pytest.raises(module.AssemblyError, match="was changed by someone else"):
        list(spool.pending(1000))


FULL = """
resource = __import__('resource')
{limit}
names = []
try:
    while True:
        spool.begin(str(len(names)), b'b' * 3000)
        names.append(str(len(names)))
except SpoolFull as error:
    print(str(error))
for name in names:
    spool.end(name, b'e' * 768)
print(len(names))
os._exit(0)
"""


def check_full(process: subprocess.Popen[str], directory: Path) -> str:
    said, count = process.communicate(timeout=60)[0].splitlines()
    found = adopted(directory)
    assert (found.count(b"b" * 3000), found.count(b"e" * 768)) == (int(count), int(count))
    return said


def test_a_limit_of_file_size_is_noticed_before_the_body_runs(directory: Path) -> None:
    """RLIMIT_FSIZE below a segment refuses the first BEGIN, and leaves no file behind."""
    process = child(FULL.format(limit="resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))"), directory)
    assert "cannot grow: File too large" in check_full(process, directory)
    assert files(directory) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 500_000


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_full_disk_is_noticed_before_the_body_runs(tmp_path: Path) -> None:
    """On a full disk BEGIN is refused with the reason, and every call that was begun before is ended all the same."""
    disk = tmp_path / "disk"
    disk.mkdir(mode=0o700)
    mounting = ["mount", "-t", "tmpfs", "-o", "size=3m,mode=0700", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        process = child(FULL.format(limit=""), disk / "spool")
        assert "cannot grow: the disk is full" in check_full(process, disk / "spool")
        assert 1 <= len(files(disk / "spool")) <= 3
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_directory_that_cannot_be_used_is_a_full_spool(tmp_path: Path) -> None:
    """Whatever keeps a record from being written has one type, so that nobody takes it for something else."""
    (tmp_path / "file").touch(mode=0o600)
    for path in (tmp_path / "file", tmp_path / "file" / "spool", Path("/proc/nowhere")):
        made = Spool(str(path), INSTANCE, HEADER, BOUND)
        with pytest.raises(SpoolFull):
            made.begin("1", b"x")
        with pytest.raises(SpoolFull):
            made.note(b"x")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(SpoolFull, match="can be written by others"):
        Spool(str(tmp_path / "open"), INSTANCE, HEADER, BOUND).begin("1", b"x")


def test_no_descriptor_leaks(directory: Path) -> None:
    """Making, refusing, shipping, adopting and closing give every descriptor back, and none is inherited."""

    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    for number in range(20):
        made = Spool(str(directory), f"{number:032x}", HEADER, SEGMENT_BYTES)
        made.begin("1", b"one")
        (segment,) = made._segments
        assert fcntl.fcntl(segment.descriptor, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
        with pytest.raises(SpoolFull):
            made.begin("2", b"x" * SEGMENT_BYTES)
        made.close()
    adopted(directory)
    assert descriptors() == before


def test_threads_and_a_shipper_at_once(directory: Path) -> None:
    """Many threads begin and end calls while another one ships: everything arrives once, in order for each call."""
    made = Spool(str(directory), INSTANCE, HEADER, BOUND)
    arrived: list[bytes] = []
    done = threading.Event()

    def work(thread: int) -> None:
        source = random.Random(thread)
        open_calls: list[str] = []
        for number in range(400):
            name = f"{thread}.{number}"
            made.begin(name, f"b {name} ".encode() + b"x" * source.randrange(4000))
            open_calls.append(name)
            while open_calls and source.random() < 0.6:
                ended = open_calls.pop(source.randrange(len(open_calls)))
                made.end(ended, f"e {ended} ".encode())
        for name in open_calls:
            made.end(name, f"e {name} ".encode())

    def ship() -> None:
        while not done.is_set() or made.waiting():
            for segment, payloads, position in made.pending(50_000):
                arrived.extend(payloads)
                made.shipped(segment, position)

    shipper = threading.Thread(target=ship)
    workers = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in (shipper, *workers):
        thread.start()
    for thread in workers:
        thread.join()
    done.set()
    shipper.join()
    made.close()
    assert files(directory) == []
    names = [payload.split(b" ")[:2] for payload in arrived]
    assert len(names) == len(set(map(tuple, names))) == 6 * 400 * 2
    position = {tuple(name): index for index, name in enumerate(names)}
    assert all(position[b"b", name] < position[b"e", name] for kind, name in names if kind == b"e")
