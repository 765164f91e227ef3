"""The shipper: everything that was accepted arrives, in order, at least once, and nobody waits longer than was said."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent_assembly.client import records
from agent_assembly.client import shipper as module
from agent_assembly.client.records import Writer, begin_record, end_record, segment_header
from agent_assembly.client.shipper import BATCH_BYTES, Shipper
from agent_assembly.client.spool import MAGIC, SEGMENT_BYTES, Spool, frame
from agent_assembly.exceptions import GatewayError
from agent_assembly.governance import Outcome, ToolCall, Verdict

INSTANCE = "ab" * 16
DEAD = "cd" * 16
VERDICT = Verdict("allow", "r", "rule", False)
Batch = tuple[list[bytes], bool]


def unpacked(batch: bytes) -> Batch:
    """The records of an encoded Batch, and whether it is marked adopted."""
    found, adopted, position = [], False, 0
    while position < len(batch):
        key = batch[position]
        position += 1
        if key == 0x10:
            adopted = bool(batch[position])
            position += 1
            continue
        assert key == 0x0A
        length, shift = 0, 0
        while True:
            byte = batch[position]
            position += 1
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        found.append(batch[position : position + length])
        position += length
    return found, adopted


class Gateway:
    """Takes batches; `answer` may raise or wait before one counts as taken."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.tries: list[float] = []
        self.beats = 0
        self.answer: Callable[[Batch], None] = lambda batch: None

    def send(self, batch: bytes, timeout: float) -> None:
        assert timeout > 0
        self.tries.append(time.monotonic())
        content = unpacked(batch)
        self.answer(content)
        self.batches.append(content)

    def heartbeat(self) -> None:
        self.beats += 1

    def own(self) -> list[bytes]:
        return [record for taken, adopted in self.batches if not adopted for record in taken]

    def foreign(self) -> list[bytes]:
        return [record for taken, adopted in self.batches if adopted for record in taken]


def fail(code: str = "gateway_unreachable", status: int | None = None) -> Callable[[Batch], None]:
    def answer(_: Batch) -> None:
        raise GatewayError("no", code=code, status=status)

    return answer


def hang(release: threading.Event) -> None:
    release.wait(20)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "home" / "spool"


@pytest.fixture
def spool(directory: Path) -> Iterator[Spool]:
    made = Spool(str(directory), INSTANCE, segment_header(Writer("a", INSTANCE, ""), 1, "h", "0"), 16 * SEGMENT_BYTES)
    yield made
    made.close()


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


@pytest.fixture
def shipper(spool: Spool, gateway: Gateway) -> Iterator[Shipper]:
    made = Shipper(spool, INSTANCE, gateway.send, gateway.heartbeat)
    yield made
    gateway.answer = lambda batch: None
    made.stop(5)


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def accept(spool: Spool, *names: str) -> list[bytes]:
    made = []
    for name in names:
        spool.begin(name, f"b {name}".encode())
        spool.end(name, f"e {name}".encode())
        made += [f"b {name}".encode(), f"e {name}".encode()]
    return made


def orphan(directory: Path, *payloads: bytes, name: str = DEAD, damage: bytes = b"") -> Path:
    """A segment whose owner is dead."""
    header = segment_header(Writer("dead", name, ""), 1, "h", "0")
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = directory / f"{name}-000001.seg"
    path.write_bytes((MAGIC + b"".join(map(frame, [header, *payloads])) + damage).ljust(4096, b"\0"))
    path.chmod(0o600)
    return path


def test_the_thread_starts_with_the_first_record(spool: Spool, shipper: Shipper, gateway: Gateway) -> None:
    """No record, no thread; then records arrive in order, and a burst travels together."""
    assert shipper._thread is None
    expected = accept(spool, *map(str, range(50)))
    shipper.notify()
    until(lambda: gateway.own() == expected)
    assert len(gateway.batches) < 10
    assert shipper._thread is not None
    assert shipper._thread.daemon
    assert shipper.problem is None
    until(lambda: spool.waiting() == 0)


def test_batches_are_bounded(spool: Spool, shipper: Shipper, gateway: Gateway) -> None:
    """A batch holds as many bytes as the bound, or one record that is larger."""
    for number in range(60):
        spool.note(b"%d" % number + b"x" * 50_000)
    spool.note(b"y" * (2 * BATCH_BYTES))
    assert shipper.flush(10)
    for taken, _ in gateway.batches:
        assert len(taken) == 1 or sum(map(len, taken)) <= BATCH_BYTES + 50_002
    assert len(gateway.own()) == 61


def test_failures_are_tried_again_with_growing_pauses(
    spool: Spool, shipper: Shipper, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the gateway fails, the pauses double and the reason can be seen; then everything arrives, in order."""
    monkeypatch.setattr(module, "_FIRST_RETRY", 0.02)
    gateway.answer = fail()
    expected = accept(spool, "1", "2")
    shipper.notify()
    until(lambda: len(gateway.tries) >= 5)
    pauses = [later - earlier for earlier, later in itertools.pairwise(gateway.tries[:5])]
    assert all(later > earlier * 1.2 for earlier, later in itertools.pairwise(pauses)), pauses
    assert shipper.problem == "no"
    gateway.answer = lambda batch: None
    expected += accept(spool, "3")
    until(lambda: gateway.own() == expected)
    until(lambda: shipper.problem is None)


@pytest.mark.parametrize("error", [OSError("odd"), ValueError(), RuntimeError("closed"), MemoryError(), KeyError("x")])
def test_no_error_ends_the_thread(error: Exception, spool: Spool, shipper: Shipper, gateway: Gateway) -> None:
    """Whatever goes wrong while sending, the thread lives on and sends when it can."""

    def answer(_: Batch) -> None:
        raise error

    gateway.answer = answer
    expected = accept(spool, "1")
    shipper.notify()
    until(lambda: shipper.problem is not None)
    assert not shipper.flush(0.2)
    gateway.answer = lambda batch: None
    until(lambda: gateway.own() == expected)


def test_random_failures_lose_nothing(
    spool: Spool, shipper: Shipper, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway takes some batches, refuses some, and takes some without saying so: all arrive at least once."""
    monkeypatch.setattr(module, "_FIRST_RETRY", 0.001)
    monkeypatch.setattr(module, "_LAST_RETRY", 0.01)
    source = random.Random(9)
    silently: list[Batch] = []

    def answer(batch: Batch) -> None:
        choice = source.random()
        if choice < 0.2:
            raise GatewayError("down", code="gateway_unreachable")
        if choice < 0.4:
            silently.append(batch)
            raise GatewayError("late", code="gateway_timeout")
        if choice < 0.5:
            raise ValueError("odd")

    gateway.answer = answer
    expected: set[bytes] = set()
    for number in range(300):
        expected.update(accept(spool, str(number)))
        shipper.notify()
        if number % 10 == 0:
            time.sleep(0.005)
    until(lambda: spool.waiting() == 0)
    assert set(gateway.own()) == expected
    first = {record: index for index, record in reversed(list(enumerate(gateway.own())))}
    for number in range(300):
        assert first[b"b %d" % number] < first[b"e %d" % number]
    order = sorted((first[b"b %d" % number], number) for number in range(300))
    assert [number for _, number in order] == list(range(300))
    assert silently, "the case that this is about did happen"


@pytest.mark.parametrize("timeout", [0.0, 0.3])
def test_flush_returns_in_time_when_sending_hangs(
    timeout: float, spool: Spool, shipper: Shipper, gateway: Gateway
) -> None:
    """While the thread hangs in a send, flush waits as long as it was told and says that not all arrived."""
    release = threading.Event()
    gateway.answer = lambda batch: hang(release)
    accept(spool, "1")
    shipper.notify()
    until(lambda: bool(gateway.tries))
    began = time.monotonic()
    assert shipper.flush(timeout) is False
    assert time.monotonic() - began < timeout + 0.5
    release.set()
    assert shipper.flush(5)


def test_flush_is_bounded_over_all_batches(spool: Spool, shipper: Shipper, gateway: Gateway) -> None:
    """A gateway that takes its time for each of many batches cannot stretch a flush beyond its bound."""
    gateway.answer = lambda batch: time.sleep(0.1)
    for number in range(80):
        spool.note(b"%d" % number + b"x" * 100_000)
    began = time.monotonic()
    assert shipper.flush(0.35) is False
    assert time.monotonic() - began < 0.8
    assert 2 <= len(gateway.batches) <= 5


def test_flush_is_bounded_while_others_keep_writing(spool: Spool, shipper: Shipper, gateway: Gateway) -> None:
    """Records that keep coming do not make a flush endless."""
    stop = threading.Event()

    def write() -> None:
        for number in itertools.count():
            if stop.is_set():
                return
            accept(spool, str(number))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        began = time.monotonic()
        shipper.flush(0.5)
        assert time.monotonic() - began < 2
    finally:
        stop.set()
        thread.join()


def test_flush_gives_up_at_once_when_nobody_is_there(spool: Spool, shipper: Shipper, gateway: Gateway) -> None:
    """At the end of a program nobody waits for a gateway that cannot be reached; one that is busy is asked again."""
    gateway.answer = fail("gateway_unreachable")
    accept(spool, "1")
    began = time.monotonic()
    assert shipper.flush(5) is False
    assert time.monotonic() - began < 1
    assert len(gateway.tries) == 1
    gateway.answer = fail("unavailable", 503)
    assert shipper.flush(0.3) is False
    assert len(gateway.tries) >= 3
    gateway.answer = lambda batch: None
    assert shipper.flush(5)
    assert shipper.problem is None


def test_flush_with_nothing_to_send_sends_nothing(shipper: Shipper, gateway: Gateway) -> None:
    """An idle process ends without talking to anybody."""
    assert shipper.flush(0.0)
    assert gateway.tries == []


def test_stop_is_bounded_and_final(spool: Spool, shipper: Shipper, gateway: Gateway) -> None:
    """Stopping waits at most as long as it was told for a send that hangs; afterwards no thread starts again."""
    release = threading.Event()
    gateway.answer = lambda batch: hang(release)
    accept(spool, "1")
    shipper.notify()
    until(lambda: bool(gateway.tries))
    began = time.monotonic()
    shipper.stop(0.2)
    assert time.monotonic() - began < 0.7
    release.set()
    thread = shipper._thread
    assert thread is not None
    thread.join(5)
    assert not thread.is_alive()
    accept(spool, "2")
    shipper.notify()
    shipper.stop(0.2)
    assert not thread.is_alive()
    assert spool.waiting() > 0
    assert shipper.flush(5)


def test_stop_does_not_wait_for_the_next_try(spool: Spool, shipper: Shipper, gateway: Gateway) -> None:
    """A thread that pauses after failures ends at once."""
    gateway.answer = fail()
    accept(spool, "1")
    shipper.notify()
    until(lambda: len(gateway.tries) >= 4)
    began = time.monotonic()
    shipper.stop(5)
    assert time.monotonic() - began < 0.3


def test_stop_before_the_first_record_starts_nothing(spool: Spool, shipper: Shipper, gateway: Gateway) -> None:
    """A shipper that was stopped stays so, and stopping twice is fine."""
    shipper.stop(0)
    shipper.stop(0)
    accept(spool, "1")
    shipper.notify()
    assert shipper._thread is None
    assert gateway.tries == []


def begun(count: int) -> tuple[list[ToolCall], list[bytes]]:
    calls = [ToolCall(tool="t", framework="f", arguments={}) for _ in range(count)]
    return calls, [begin_record(Writer("dead", DEAD, ""), call, VERDICT) for call in calls]


def test_orphans_are_sent_with_the_ends_that_they_lack(
    directory: Path, spool: Spool, shipper: Shipper, gateway: Gateway
) -> None:
    """Records of the dead travel marked as adopted; calls without END get one that says unknown; the file goes."""
    calls, begins = begun(3)
    end = end_record(Writer("dead", DEAD, ""), calls[1], Outcome("returned"), 5)
    path = orphan(directory, *begins, end)
    own = accept(spool, "1")
    shipper.notify()
    until(lambda: not path.exists())
    assert gateway.own() == own
    sent = gateway.foreign()
    assert sent[:4] == [*begins, end]
    assert [unknown for unknown in sent[4:] if b"unknown" in unknown] == sent[4:]
    assert [record[2:34].decode() for record in sent[4:]] == [calls[0].event_id, calls[2].event_id]
    assert gateway.batches[0] == (own, False), "what is one's own goes first"


def test_a_torn_orphan_is_reported(directory: Path, spool: Spool, shipper: Shipper, gateway: Gateway) -> None:
    """Damage behind the last whole record is recorded as a loss, not passed over in silence."""
    _, begins = begun(1)
    path = orphan(directory, *begins, damage=frame(b"lost")[:-1] + b"X")
    accept(spool, "1")
    shipper.notify()
    until(lambda: not path.exists())
    sent = gateway.foreign()
    assert sent[0] == begins[0]
    assert len(sent) == 3
    assert (
        sent[2]
        == records.torn_loss(segment_header(Writer("dead", DEAD, ""), 1, "h", "0"), path.name)[:36] + sent[2][36:]
    )


def test_a_large_orphan_travels_in_bounded_batches(
    directory: Path, spool: Spool, shipper: Shipper, gateway: Gateway
) -> None:
    """Adopted records are sent in batches too, and the file is deleted only after the last of them."""
    path = orphan(directory, *[b"\x0a\x01%d" % (n % 10) + b"\x82\x01\xd0\x86\x03" + b"x" * 50_000 for n in range(50)])
    gateway.answer = lambda batch: None if path.exists() else pytest.fail("deleted too early")
    accept(spool, "1")
    shipper.notify()
    until(lambda: not path.exists())
    assert len(gateway.foreign()) == 50
    assert max(sum(map(len, taken)) for taken, adopted in gateway.batches if adopted) <= BATCH_BYTES


def test_an_orphan_that_could_not_be_sent_stays(
    directory: Path, spool: Spool, shipper: Shipper, gateway: Gateway
) -> None:
    """Adopting fails and is tried again; until it worked the file is there for others."""
    path = orphan(directory, *begun(2)[1])
    gateway.answer = lambda batch: fail("gateway_timeout")(batch) if batch[1] else None
    accept(spool, "1")
    shipper.notify()
    until(lambda: shipper.problem is not None)
    assert path.exists()
    gateway.answer = lambda batch: None
    until(lambda: not path.exists())
    assert len(gateway.foreign()) == 4


def test_an_orphan_that_is_refused_holds_nothing_up(
    directory: Path, spool: Spool, shipper: Shipper, gateway: Gateway
) -> None:
    """What the gateway will never take stays where it is; later orphans and own records go on."""
    refused = orphan(directory, b"\x0a\x01refused", name="11" * 16)
    fine = orphan(directory, *begun(1)[1], name="22" * 16)
    gateway.answer = lambda batch: fail("invalid", 422)(batch) if b"\x0a\x01refused" in batch[0] else None
    accept(spool, "1")
    shipper.notify()
    until(lambda: not fine.exists())
    assert refused.exists()
    more = accept(spool, "2")
    shipper.notify()
    until(lambda: gateway.own()[-2:] == more)
    assert shipper.problem is None


@pytest.mark.parametrize("status", [401, 408, 429, 500, 503, None])
def test_a_refusal_that_passes_is_no_reason_to_skip(
    status: int | None, directory: Path, spool: Spool, shipper: Shipper, gateway: Gateway
) -> None:
    """An expired session, too many requests and a gateway in trouble say nothing about the records."""
    path = orphan(directory, *begun(1)[1])
    refusals = iter([True])
    gateway.answer = lambda batch: fail("x", status)(batch) if batch[1] and next(refusals, False) else None
    accept(spool, "1")
    shipper.notify()
    until(lambda: not path.exists())


def test_a_live_process_next_door_is_not_adopted(
    directory: Path, spool: Spool, shipper: Shipper, gateway: Gateway
) -> None:
    """Only the segments of the dead are sent: the same file is left alone until its owner is killed."""
    program = (
        f"import sys, time; sys.path[:] = {sys.path!r}\n"
        "from agent_assembly.client.spool import Spool\n"
        f"s = Spool({str(directory)!r}, {DEAD!r}, b'header', 1 << 22)\n"
        "s.begin('1', b'\\x0a\\x01n'); print('x', flush=True)\n"
        "time.sleep(60)"
    )
    neighbour = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert neighbour.stdout is not None
    neighbour.stdout.readline()
    try:
        accept(spool, "1")
        shipper.notify()
        until(lambda: len(gateway.own()) == 2)
        time.sleep(0.1)
        assert gateway.foreign() == []
    finally:
        os.kill(neighbour.pid, signal.SIGKILL)
        neighbour.communicate()
    later = Shipper(spool, INSTANCE, gateway.send, gateway.heartbeat)
    later.notify()
    until(lambda: gateway.foreign() == [b"\x0a\x01n"])
    later.stop(5)


def test_the_heartbeat_goes_on_while_an_orphan_cannot_be_sent(
    directory: Path, spool: Spool, shipper: Shipper, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway hears that the instance lives, also when adopting fails again and again."""
    monkeypatch.setattr(module, "_HEARTBEAT", 0.05)
    monkeypatch.setattr(module, "_FIRST_RETRY", 0.02)
    monkeypatch.setattr(module, "_LAST_RETRY", 0.05)
    orphan(directory, *begun(1)[1])
    gateway.answer = lambda batch: fail("gateway_timeout")(batch) if batch[1] else None
    accept(spool, "1")
    shipper.notify()
    until(lambda: gateway.beats >= 3)


def test_the_end_of_the_interpreter_is_quiet(directory: Path) -> None:
    """A program that ends while its shipper works, or with records that came too late, says nothing and ends with 0."""
    program = (
        f"import atexit, sys, time; sys.path[:] = {sys.path!r}\n"
        "from agent_assembly.client.spool import Spool\nfrom agent_assembly.client.shipper import Shipper\n"
        f"s = Spool({str(directory)!r}, {INSTANCE!r}, b'header', 1 << 22)\n"
        "def send(batch, timeout): time.sleep(0.01)\n"
        f"ship = Shipper(s, {INSTANCE!r}, send, lambda: None)\n"
        "def late(): s.begin('2', b'y'); ship.notify()\n"
        "class Later:\n    def __del__(self): late()\n"
        "kept = Later(); atexit.register(late); s.begin('1', b'x'); ship.notify()"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, "")
