"""The gateway: checks a second, its answers' times, what it holds in memory, and how soon it is there.

`.venv/bin/python benchmarks/bench_gateway.py [--record]`
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from measuring import (
    BIN,
    ROUNDS,
    CheckFailed,
    Gateway,
    Summary,
    Worker,
    clean_environment,
    count_records,
    environment,
    find_aasm,
    free_port,
    gateway,
    interleave,
    percentile,
    ratio,
    spawn,
    temporary,
)
from million import RECORDS, million_home
from report import Report, run

CLIENTS = (1, 2, 4)
REQUESTS = 1200
LOAD_ROUNDS = 15
KINDS = ("healthz", "check")
TICK = 1 / os.sysconf("SC_CLK_TCK")
HEALTHY_SECONDS = 20.0
HEALTHY_LIMIT, MEMORY_LIMIT = 50, 25
# Long enough for what a start leaves to the background.
SETTLING_SECONDS = 1.0


class Load(NamedTuple):
    """One round of one load: requests a second, each one's time in µs, and processor time in µs a request."""

    rate: float
    each: list[float]
    gateway_processor: float
    client_processor: float


class Start(NamedTuple):
    """One start: milliseconds from spawn to the first 200, and megabytes resident then and a moment later."""

    healthy: float
    memory: float
    settled: float


def measure(report: Report) -> None:
    with temporary() as directory:
        load(report, directory)
        starts(report, directory)


def load(report: Report, directory: Path) -> None:
    with gateway(directory / "home") as running:
        time.sleep(SETTLING_SECONDS)
        idle = memory(running.pid)
        workers: list[Worker] = []
        try:
            for number in range(max(CLIENTS)):
                command: list[str | Path] = [
                    BIN / "python",
                    Path(__file__).with_name("load.py"),
                    str(running.port),
                    running.home,
                ]
                workers.append(Worker([*command, f"load-{number}"], environment(running.home)))
            found, ends = _rounds(running, workers)
            for worker in workers:
                worker.close()
        finally:
            for worker in workers:
                worker.kill()
        loaded, peak = memory(running.pid), memory(running.pid, "VmHWM")
        checks = 0
        for number in range(len(workers)):
            made = (LOAD_ROUNDS + 1) * sum(REQUESTS // clients for clients in CLIENTS if number < clients)
            count_records(running, made, agent=f"load-{number}", outcome="returned", decision="allow")
            checks += made
    _load_tables(report, found, ends)
    report.note(
        f"All {checks:,} checks are in the audit log, each allowed and ended, and the log verifies. Each client is a "
        "Python process with one kept connection that waits for every answer (closed loop). Clients and gateway share "
        "the cores of this machine, and with more clients than cores less one they compete with it: the processor "
        "columns say what is whose. The baseline is `GET /healthz` on the same connections: the same HTTP, but no "
        "credential, verdict or record."
    )
    report.note(
        f"Resident on a home that was empty before: {idle:.1f} MB idle, {loaded:.1f} MB after the load, {peak:.1f} MB "
        "at its peak (1 MB = 10⁶ bytes)."
    )


def _rounds(running: Gateway, workers: Sequence[Worker]) -> tuple[dict[tuple[str, int], list[Load]], list[float]]:
    found: dict[tuple[str, int], list[Load]] = {}
    ends: list[float] = []
    for number in range(-1, LOAD_ROUNDS):
        for clients in CLIENTS:
            for kind in KINDS if number % 2 else reversed(KINDS):
                result = _one(running, workers[:clients], kind)
                if kind == "check":
                    for worker in workers[:clients]:
                        ends += worker.ask(do="end")
                if number >= 0:
                    found.setdefault((kind, clients), []).append(result)
    return found, ends


def _one(running: Gateway, workers: Sequence[Worker], kind: str) -> Load:
    for worker in workers:
        worker.ask(do=f"prepare {kind}", count=REQUESTS // len(workers))
    before = processor(running.pid)
    for worker in workers:
        worker.send(do="go")
    answers: list[dict[str, Any]] = [worker.answer() for worker in workers]
    used = processor(running.pid) - before
    seconds = (max(answer["last"] for answer in answers) - min(answer["first"] for answer in answers)) / 1e9
    return Load(
        REQUESTS / seconds,
        [value / 1000 for answer in answers for value in answer["each"]],
        used * 1e6 / REQUESTS,
        sum(answer["processor"] for answer in answers) * 1e6 / REQUESTS,
    )


def _load_tables(report: Report, found: dict[tuple[str, int], list[Load]], ends: Sequence[float]) -> None:
    rows = []
    for clients in CLIENTS:
        base, checks = found["healthz", clients], found["check", clients]
        medians = [percentile(result.each, 0.5) for result in checks]
        tails = [percentile(result.each, 0.99) for result in checks]
        rows.append(
            (
                str(clients),
                Summary.of([result.rate for result in checks]).text(digits=0),
                Summary.of([result.rate for result in base]).text(digits=0),
                ratio([result.rate for result in checks], [result.rate for result in base]),
                Summary.of(medians).text(digits=0),
                Summary.of(tails).text(digits=0),
                # Ticks are too coarse for one round.
                f"{sum(result.gateway_processor for result in checks) / len(checks):.0f}",
                f"{sum(result.client_processor for result in checks) / len(checks):.0f}",
            )
        )
    head = ("clients", "checks/s", "healthz/s", "ratio", "p50, µs", "p99, µs", "processor, gateway, µs", "client, µs")
    report.table(head, rows)
    report.note(
        f"Ends of calls in batches of up to 500 by `POST /v1/events`, answered when they are on the disk: "
        f"{Summary.of(ends).text('ms')} a batch, {len(ends)} batches."
    )


def starts(report: Report, directory: Path) -> None:
    million, rate = million_home()
    fresh = _fresh_homes(directory)
    found = interleave(
        {
            "version": partial(spawn, [find_aasm(), "version"], environment(directory)),
            "empty": lambda: start(next(fresh)),
            "million": partial(start, million),
        },
        rounds=ROUNDS,
    )
    base = [result.wall for result in found["version"]]
    rows = [("`aasm version`, from spawn to exit", Summary.of(base).text(), "1", "–", "–", str(len(base)))]
    for key, name in (("empty", "an empty home"), ("million", f"a home of {RECORDS:,} records")):
        results: list[Start] = found[key]
        healthy = [result.healthy for result in results]
        resident, settled = Summary.of([r.memory for r in results]), Summary.of([r.settled for r in results])
        rows.append(
            (name, Summary.of(healthy).text(), ratio(healthy, base), resident.text(), settled.text(), str(len(results)))
        )
        report.bar(f"healthy on {name}", Summary.of(healthy).median, HEALTHY_LIMIT, "ms")
        report.bar(f"resident on {name}, a moment after the start", settled.high, MEMORY_LIMIT, "MB")
    report.note("From spawn to the first 200 on `/healthz`, files in the page cache:")
    report.table(("start", "healthy, ms", "ratio", "resident then, MB", "1 s later, MB", "n"), rows)
    size = sum(file.stat().st_size for file in million.rglob("*") if file.is_file())
    report.note(
        f"The {RECORDS:,} records were taken by `POST /v1/events` at {rate:,.0f} a second (one client, batches of "
        f"4,000, once, when that home was made; not in turn with anything); the home has {size / 1e6:,.0f} MB."
    )


def _fresh_homes(directory: Path) -> Iterator[Path]:
    number = 0
    while True:
        number += 1
        home = directory / f"fresh-{number}"
        home.mkdir(mode=0o700)
        yield home


def start(home: Path) -> Start:
    """Start a gateway, wait until it is healthy, look at its memory, and end it."""
    port = free_port()
    command = [str(find_aasm()), "start", "--mode", "local", "--foreground", "--port", str(port), "--home", str(home)]
    silent: list[tuple[Any, ...]] = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1, 2)]
    began = time.perf_counter()
    pid = os.posix_spawn(command[0], command, clean_environment(AASM_HOME=str(home)), file_actions=silent)
    try:
        deadline = began + HEALTHY_SECONDS
        while not _healthy(port):
            if os.waitpid(pid, os.WNOHANG)[0]:
                pid = 0
                raise CheckFailed(f"the gateway ended instead of becoming healthy on {home}")
            if time.perf_counter() > deadline:
                raise CheckFailed(f"the gateway was not healthy within {HEALTHY_SECONDS:g} s on {home}")
            time.sleep(0.0005)
        healthy = (time.perf_counter() - began) * 1000
        resident = memory(pid)
        time.sleep(SETTLING_SECONDS)
        return Start(healthy, resident, memory(pid))
    finally:
        if pid:
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)


def _healthy(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(f"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
            return connection.recv(4096).startswith(b"HTTP/1.1 200")
    except ConnectionError:
        return False


def memory(pid: int, field: str = "VmRSS") -> float:
    """What the process holds, in MB of 10⁶ bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024 / 1e6
    raise CheckFailed(f"process {pid} has no {field}")


def processor(pid: int) -> float:
    """The process's user and system time, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK


if __name__ == "__main__":
    if sys.platform != "linux":
        raise SystemExit("this benchmark reads /proc, which only Linux has")
    raise SystemExit(run("bench_gateway", "The gateway", measure))
