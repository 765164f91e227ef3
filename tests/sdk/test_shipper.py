"""The shipper: everything that was accepted arrives, in order, at least once, and nobody waits longer than was said."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support.shipments import INSTANCE, Batch, Gateway, accept, fail, new_gateway, open_shipper, open_spool, until
from support.spools import spool_directory

from agent_assembly.client import shipper as module
from agent_assembly.client.shipper import BATCH_BYTES, Shipper
from agent_assembly.client.spool import Spool
from agent_assembly.exceptions import GatewayError

directory = pytest.fixture(spool_directory)
spool = pytest.fixture(open_spool)
gateway = pytest.fixture(new_gateway)
shipper = pytest.fixture(open_shipper)


def hang(release: threading.Event) -> None:
    release.wait(20)


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
