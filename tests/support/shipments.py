"""A shipper between a spool and a gateway that answers as the test says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from agent_assembly.client.records import Writer, segment_header
from agent_assembly.client.shipper import Shipper
from agent_assembly.client.spool import SEGMENT_BYTES, Spool
from agent_assembly.exceptions import GatewayError

INSTANCE = "ab" * 16
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
    """What `Gateway.answer` is while the gateway fails."""

    def answer(_: Batch) -> None:
        raise GatewayError("no", code=code, status=status)

    return answer


def open_spool(directory: Path) -> Iterator[Spool]:
    """The fixture `spool`: the spool of this process, in `directory`."""
    made = Spool(str(directory), INSTANCE, segment_header(Writer("a", INSTANCE, ""), 1, "h", "0"), 16 * SEGMENT_BYTES)
    yield made
    made.close()


def new_gateway() -> Gateway:
    """The fixture `gateway`: takes everything until it is told otherwise."""
    return Gateway()


def open_shipper(spool: Spool, gateway: Gateway) -> Iterator[Shipper]:
    """The fixture `shipper`: sends what is in `spool` to `gateway`, and is stopped after the test."""
    made = Shipper(spool, INSTANCE, gateway.send, gateway.heartbeat)
    yield made
    gateway.answer = lambda batch: None
    made.stop(5)


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for `condition`, and fail when it does not come true in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def accept(spool: Spool, *names: str) -> list[bytes]:
    """Put BEGIN and END of each name into the spool, and return these records."""
    made = []
    for name in names:
        spool.begin(name, f"b {name}".encode())
        spool.end(name, f"e {name}".encode())
        made += [f"b {name}".encode(), f"e {name}".encode()]
    return made
