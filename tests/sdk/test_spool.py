"""The spool of a live process: records are where they were said to be, and an END always has room."""

from __future__ import annotations

import fcntl
import itertools
import os
import random
import resource
import shutil
import subprocess
import threading
import zlib
from pathlib import Path

import pytest
from support.spools import BOUND, HEADER, INSTANCE, adopted, child, files, open_spool, spool_directory, stored

from agent_assembly.client import spool as module
from agent_assembly.client.records import END_LIMIT, Writer, begin_record
from agent_assembly.client.spool import SEGMENT_BYTES, Spool, SpoolFull
from agent_assembly.governance import ToolCall, Verdict

directory = pytest.fixture(spool_directory)
spool = pytest.fixture(open_spool)


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
