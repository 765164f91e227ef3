"""What dead processes left in the spool: all of it is found, by one adopter, and nothing that is no record."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support.spools import BOUND, HEADER, INSTANCE, OTHER, adopted, child, files, open_spool, spool_directory, stored

from agent_assembly.client.spool import MAGIC, Spool, frame, frames, orphans

directory = pytest.fixture(spool_directory)
spool = pytest.fixture(open_spool)


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


@pytest.mark.parametrize(
    "data",
    [b"AASMSP2\n" + frame(HEADER), b"notes of somebody", MAGIC + b"\1" * 50],
    ids=["another format", "notes", "damaged header"],
)
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
