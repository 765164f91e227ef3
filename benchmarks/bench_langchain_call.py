"""What governance adds to one call of a LangChain tool: verdict by HTTP, record in the spool.

Two programs make the same calls in turn, one governed, one that never loaded the SDK.

`.venv/bin/python benchmarks/bench_langchain_call.py [--record]`
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from measuring import BIN, ROUNDS, Gateway, Summary, Worker, count_records, environment, gateway, percentile, temporary
from report import Report, run

CALLS = 100
AGENT = "benchmark"
SYNC, ASYNC, PARALLEL = "`invoke`", "`ainvoke`, one at a time", "`ainvoke`, 10 at a time"
BARE, TRIP = "`before_tool` + `after_tool`", "bare round trip to the gateway"
GOVERNED_ONLY = (BARE, TRIP)


class Batch(NamedTuple):
    """What `CALLS` calls took: each alone, and all together; in microseconds."""

    each: list[float]
    together: float


def measure(report: Report) -> None:
    with temporary() as directory, gateway(directory / "home") as running:
        workers = [_worker(running, kind) for kind in ("governed", "ungoverned")]
        try:
            found = _rounds(*workers)
            bodies = [worker.ask(case="bodies") for worker in workers]
            for worker in workers:
                worker.close()
        finally:
            for worker in workers:
                worker.kill()
        made = (ROUNDS + 1) * CALLS
        if bodies != [3 * made, 3 * made]:
            report.fail(f"the tool's body ran {bodies[0]} and {bodies[1]} times, not {3 * made}")
        count_records(running, 3 * made, agent=AGENT, tool="add", outcome="returned", decision="allow")
        count_records(running, made, agent=AGENT, tool="bare", outcome="returned", decision="allow")
        _tables(report, found)
        report.note(
            f"All {4 * made:,} governed calls are in the audit log, each allowed and returned, and the log verifies. "
            f"The tool adds two numbers, so that what is left is the price of the call; {ROUNDS} rounds of {CALLS} "
            "calls each. The bare round trip is `GET /healthz` on a connection that is kept: less than it no verdict "
            "over HTTP can cost."
        )


def _worker(running: Gateway, kind: str) -> Worker:
    environ = environment(running.home, AASM_AGENT_ID=AGENT, AASM_ENFORCEMENT_MODE="enforce")
    return Worker([BIN / "python", __file__, "--worker", kind, str(running.port)], environ)


def _rounds(governed: Worker, ungoverned: Worker) -> dict[tuple[str, bool], list[Batch]]:
    found: dict[tuple[str, bool], list[Batch]] = {}
    for number in range(-1, ROUNDS):
        for case in (SYNC, ASYNC, PARALLEL, *GOVERNED_ONLY):
            sides = [(governed, True)] if case in GOVERNED_ONLY else [(governed, True), (ungoverned, False)]
            for worker, is_governed in sides if number % 2 else reversed(sides):
                batch = Batch(*worker.ask(case=case))
                if number >= 0:
                    found.setdefault((case, is_governed), []).append(batch)
    return found


def _tables(report: Report, found: dict[tuple[str, bool], list[Batch]]) -> None:
    rows, shared = [], []
    trip = _medians(found[TRIP, True])
    for case in (SYNC, ASYNC, PARALLEL, BARE, TRIP):
        values = _medians(found[case, True])
        base = trip if case in GOVERNED_ONLY else _medians(found[case, False])
        plain = "–" if case in GOVERNED_ONLY else Summary.of(base).text(digits=0)
        medians = (Summary.of(values).median, Summary.of(base).median)
        added = "–" if case == TRIP else f"{medians[0] - medians[1]:,.0f}"
        times = f"{medians[0] / medians[1]:.1f} times" + (" of the round trip" if case in GOVERNED_ONLY else "")
        tail = percentile([value for batch in found[case, True] for value in batch.each], 0.99)
        rows.append((case, plain, Summary.of(values).text(digits=0), f"{tail:,.0f}", added, times))
        if case != TRIP:
            rates = [
                Summary.of([CALLS * 1e6 / batch.together for batch in found[case, side]]).text(digits=0)
                if (case, side) in found
                else "–"
                for side in (False, True)
            ]
            shared.append((case, *rates))
    report.table(("call", "ungoverned, µs", "governed, µs", "p99, µs", "added, µs", "ratio"), rows)
    report.note(
        "The columns in µs are the rounds' p50, p99 is over all governed calls; of 10 at a time, each waits for the "
        "others. Calls a second, one program:"
    )
    report.table(("call", "ungoverned", "governed"), shared)


def _medians(batches: Sequence[Batch]) -> list[float]:
    return [percentile(batch.each, 0.5) for batch in batches]


# The programs that make the calls.


def work(kind: str, port: int) -> None:
    """Answer each line of standard input until it ends."""
    acts: dict[str, Callable[[], Batch]] = {}
    context = None
    if kind == "governed":
        from agent_assembly import init_assembly

        context = init_assembly()
        acts[BARE] = _bare
        acts[TRIP] = _trips(port)
    from langchain_core.tools import StructuredTool

    bodies = [0]

    def add(left: int, right: int) -> int:
        """Add two numbers."""
        bodies[0] += 1
        return left + right

    async def add_async(left: int, right: int) -> int:
        return add(left, right)

    tool = StructuredTool.from_function(add, coroutine=add_async)
    loop = asyncio.new_event_loop()
    arguments = {"left": 2, "right": 40}
    acts[SYNC] = lambda: _timed(lambda: tool.invoke(arguments))
    acts[ASYNC] = lambda: loop.run_until_complete(_timed_async(lambda: tool.ainvoke(arguments), 1))
    acts[PARALLEL] = lambda: loop.run_until_complete(_timed_async(lambda: tool.ainvoke(arguments), 10))
    for line in sys.stdin:
        case = json.loads(line)["case"]
        print(json.dumps(bodies[0] if case == "bodies" else acts[case]()), flush=True)
    loop.close()
    if context is not None:
        context.shutdown()
    if "agent_assembly" in sys.modules and kind != "governed":
        raise SystemExit("the ungoverned program loaded the SDK")


def _timed(call: Callable[[], Any]) -> Batch:
    each, first = [], time.perf_counter_ns()
    for _ in range(CALLS):
        began = time.perf_counter_ns()
        call()
        each.append((time.perf_counter_ns() - began) / 1000)
    return Batch(each, (time.perf_counter_ns() - first) / 1000)


async def _timed_async(call: Callable[[], Awaitable[Any]], parallel: int) -> Batch:
    each = []

    async def one() -> None:
        began = time.perf_counter_ns()
        await call()
        each.append((time.perf_counter_ns() - began) / 1000)

    first = time.perf_counter_ns()
    for _ in range(CALLS // parallel):
        await asyncio.gather(*(one() for _ in range(parallel)))
    return Batch(each, (time.perf_counter_ns() - first) / 1000)


def _bare() -> Batch:
    from agent_assembly import Outcome, ToolCall
    from agent_assembly.governance import after_tool, before_tool

    def one() -> None:
        call = ToolCall(tool="bare", framework="benchmark", arguments={"left": 2, "right": 40})
        if before_tool(call).blocked:
            raise SystemExit("a call was denied that the policy allows")
        after_tool(call, Outcome("returned", 42))

    return _timed(one)


def _trips(port: int) -> Callable[[], Batch]:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    request = f"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()

    def one() -> None:
        connection.sendall(request)
        if not connection.recv(65536).startswith(b"HTTP/1.1 200"):
            raise SystemExit("the gateway is not well")

    return lambda: _timed(one)


if __name__ == "__main__":
    if "--worker" in sys.argv:
        work(sys.argv[-2], int(sys.argv[-1]))
    else:
        raise SystemExit(run("bench_langchain_call", "A governed LangChain call", measure))
