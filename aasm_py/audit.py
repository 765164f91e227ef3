"""Records of the audit log, as the control plane gives them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from agent_assembly import GatewayError

if TYPE_CHECKING:
    from datetime import datetime

    from aasm_py.control import Control

Row = dict[str, Any]
# Is told what is being done, for those who wait.
Tell = Callable[[str], None]

PAGE = 1000
POLL_SECONDS = 0.5
# The index follows the log within a second; a list that is asked for right after a run waits for it that long.
INDEX_PATIENCE_SECONDS = 3.0


def _silent(text: str) -> None:
    """Nobody waits, or nobody can be told."""


class Filters(NamedTuple):
    """Which records are meant; None means any."""

    agent: str | None = None
    tool: str | None = None
    decision: str | None = None
    run: str | None = None
    since: datetime | None = None

    def parameters(self) -> dict[str, Any]:
        return {**self._asdict(), "since": self.since.isoformat() if self.since else None}


def latest(control: Control, filters: Filters, limit: int, tell: Tell = _silent) -> list[Row]:
    """Return the latest `limit` records that fit (0: all), in the order in which they happened."""
    wait_for_index(control, tell)
    rows: list[Row] = []
    before: int | None = None
    while limit == 0 or len(rows) < limit:
        size = PAGE if limit == 0 else min(PAGE, limit - len(rows))
        page = _page(control, filters, order="desc", before=before, limit=size)
        rows += page
        tell(f"reading the audit log: {len(rows)} records")
        if len(page) < size:
            break
        before = page[-1]["seq"]
    rows.reverse()
    return rows


def count(control: Control, filters: Filters, tell: Tell = _silent) -> int:
    """Return how many records fit."""
    wait_for_index(control, tell)
    answer = control.get("/v1/audit", {**filters.parameters(), "count": "true", "limit": 1})
    total = answer.get("total")
    if not isinstance(total, int):
        raise GatewayError(f"the gateway at {control.url} gave no total; it may be older than this command")
    return total


def follow(
    connect: Callable[[], Control], filters: Filters, backlog: int, lost: Callable[[str], None]
) -> Iterator[Row]:
    """Yield the last `backlog` records that fit, then each further one as it comes, for ever.

    A record is yielded when its call has ended; one that is still open at the second look is yielded open, and again
    when it ends. `lost` is told once when the gateway goes away; whoever starts it again is found.
    """
    last: int | None = None
    waiting: dict[int, bool] = {}
    gone = False
    while True:
        try:
            with connect() as control:
                if last is None:
                    first = latest(control, filters, backlog) if backlog else []
                    last = first[-1]["seq"] if first else _head(control)
                    for row in first:
                        if row["outcome"] is None:
                            waiting[row["seq"]] = True
                        yield row
                gone = False
                while True:
                    time.sleep(POLL_SECONDS)
                    # What is open is asked for again, but not for ever: a page back is far enough.
                    floor = max(min(waiting, default=last + 1) - 1, last - PAGE)
                    for row in _page(control, filters, order="asc", after=floor, limit=PAGE):
                        yield from _settled(row, last, waiting)
                        last = max(last, row["seq"])
                    for seq in [seq for seq in waiting if seq <= last - PAGE]:
                        del waiting[seq]
        except GatewayError as error:
            if last is None or error.status in (401, 403):
                raise
            if not gone:
                lost(str(error))
                gone = True
            time.sleep(POLL_SECONDS)


def _settled(row: Row, last: int, waiting: dict[int, bool]) -> Iterator[Row]:
    """Yield `row` if there is something new to say of it; `waiting` maps open records to whether they were shown."""
    seq = row["seq"]
    if row["outcome"] is not None:
        if seq > last or waiting.pop(seq, None) is not None:
            yield row
    elif seq > last:
        waiting[seq] = False
    elif waiting.get(seq) is False:
        waiting[seq] = True
        yield row


def wait_for_index(control: Control, tell: Tell = _silent) -> None:
    """Wait until what was in the log at the call is in the index, or patience ends."""
    deadline = time.monotonic() + INDEX_PATIENCE_SECONDS
    wanted: int | None = None
    while True:
        answer = control.get("/v1/audit", {"limit": 1})
        wanted = answer["head"]["seq"] if wanted is None else wanted
        if answer["indexed_through"] >= wanted or time.monotonic() > deadline:
            return
        tell(f"waiting for the index: {answer['indexed_through']} of {wanted} lines")
        time.sleep(0.05)


def _head(control: Control) -> int:
    head: int = control.get("/v1/audit", {"limit": 1})["head"]["seq"]
    return head


def _page(control: Control, filters: Filters, **parameters: Any) -> list[Row]:
    rows = control.get("/v1/audit", {**filters.parameters(), **parameters}).get("records")
    if not isinstance(rows, list):
        raise GatewayError(f"the gateway at {control.url} gave no records; it may be older than this command")
    return [decided(row) for row in rows]


def decided(row: Row) -> Row:
    """The row with the verdict that the call met: the agent's own where that was another than the gateway's.

    An agent denies what was allowed when the arguments changed meanwhile, for one; `gateway_verdict` then keeps the
    other.
    """
    own = row.get("agent_verdict")
    if not isinstance(own, dict):
        return row
    met = {name: own.get(name) for name in ("decision", "reason", "code")}
    given = {name: row.get(name) for name in met}
    return {**row, **met, "rule": None, "gateway_verdict": given}
