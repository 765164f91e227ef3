"""The shipper and what the dead left: it arrives whole, marked as adopted, and holds nothing else up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.shipments import INSTANCE, Gateway, accept, fail, new_gateway, open_shipper, open_spool, until
from support.spools import spool_directory

from agent_assembly.client import records
from agent_assembly.client import shipper as module
from agent_assembly.client.records import Writer, begin_record, end_record, segment_header
from agent_assembly.client.shipper import BATCH_BYTES, Shipper
from agent_assembly.client.spool import MAGIC, Spool, frame
from agent_assembly.governance import Outcome, ToolCall, Verdict

DEAD = "cd" * 16
VERDICT = Verdict("allow", "r", "rule", False)

directory = pytest.fixture(spool_directory)
spool = pytest.fixture(open_spool)
gateway = pytest.fixture(new_gateway)
shipper = pytest.fixture(open_shipper)


def orphan(directory: Path, *payloads: bytes, name: str = DEAD, damage: bytes = b"") -> Path:
    """A segment whose owner is dead."""
    header = segment_header(Writer("dead", name, ""), 1, "h", "0")
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = directory / f"{name}-000001.seg"
    path.write_bytes((MAGIC + b"".join(map(frame, [header, *payloads])) + damage).ljust(4096, b"\0"))
    path.chmod(0o600)
    return path


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
