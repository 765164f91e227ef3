"""What the benchmarks share: processes and their times, interleaved rounds, statistics, and a real gateway."""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path += [str(ROOT / "tests"), str(ROOT / "scripts")]

from environments import fingerprint  # noqa: E402 - found through the path above
from support.gateway import (  # noqa: E402 - found through the path above
    Gateway,
    clean_environment,
    find_aasm,
    stop_gateway_of,
)

__all__ = [
    "BIN",
    "POLICY",
    "ROOT",
    "ROUNDS",
    "WORK",
    "CheckFailed",
    "Gateway",
    "Spawned",
    "Summary",
    "Worker",
    "capture",
    "clean_environment",
    "count_records",
    "differences",
    "environment",
    "find_aasm",
    "fingerprint",
    "free_port",
    "gateway",
    "interleave",
    "percentile",
    "ratio",
    "spawn",
    "stop_gateway_of",
    "temporary",
]

BIN = Path(sys.executable).parent
WORK = ROOT / "benchmarks" / ".work"
ROUNDS = 21

# What an operator might write: one rule denies, and the calls of the benchmarks pass all of them.
POLICY = """\
apiVersion: agent-assembly/v1
kind: Policy
metadata: {name: benchmark}
default: allow
rules:
  - {id: no-deletes, on: tool, match: {tool: "delete_*"}, effect: deny, reason: Nobody deletes.}
  - {id: no-shell, on: tool, match: {tool: "*shell*"}, effect: deny, reason: No shells.}
  - {id: no-payments, on: tool, match: {tool: "pay_*"}, effect: deny, reason: People pay.}
"""


class CheckFailed(Exception):
    """What was measured did not do what it was measured for."""


class Spawned(NamedTuple):
    """A process from its start to its end: wall-clock and processor time, in milliseconds."""

    wall: float
    processor: float


class Summary(NamedTuple):
    """Median, smallest and largest of as many rounds."""

    median: float
    low: float
    high: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Summary:
        return cls(statistics.median(values), min(values), max(values), len(values))

    def text(self, unit: str = "", digits: int = 1) -> str:
        """`median (smallest to largest)`."""
        shown = f"{self.median:,.{digits}f}{unit and ' ' + unit}"
        return f"{shown} ({self.low:,.{digits}f} to {self.high:,.{digits}f})"


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` (0 to 1) of all are at most (nearest rank)."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def differences(values: Sequence[float], baseline: Sequence[float]) -> list[float]:
    """Value minus baseline, round by round: what else went on in a round is in both."""
    return [value - base for value, base in zip(values, baseline, strict=True)]


def ratio(values: Sequence[float], baseline: Sequence[float]) -> str:
    """How many times the baseline's median, as text."""
    return f"{statistics.median(values) / statistics.median(baseline):.2f} times"


def interleave(
    cases: Mapping[str, Callable[[], Any]], *, rounds: int = ROUNDS, warm_up: int = 2
) -> dict[str, list[Any]]:
    """Measure each case once a round, in an order that changes from round to round; return the results by case."""
    order = list(cases)
    shuffle = random.Random(len(order)).shuffle
    results: dict[str, list[Any]] = {name: [] for name in order}
    for number in range(-warm_up, rounds):
        shuffle(order)
        for name in order:
            result = cases[name]()
            if number >= 0:
                results[name].append(result)
    return results


def environment(home: Path, **more: str) -> dict[str, str]:
    """Variables of a person at a terminal: this environment's programs first on PATH, `home` as AASM_HOME."""
    path = f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return clean_environment(PATH=path, AASM_HOME=str(home), **more)


def spawn(command: Sequence[str | Path], environ: Mapping[str, str], expected: int = 0) -> Spawned:
    """Run `command` silently to its end; raise CheckFailed with what it says when it does not end with `expected`."""
    words = [str(word) for word in command]
    silent: list[tuple[Any, ...]] = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1, 2)]
    began = time.perf_counter_ns()
    pid = os.posix_spawn(words[0], words, dict(environ), file_actions=silent)
    _, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter_ns() - began
    code = os.waitstatus_to_exitcode(status)
    if code != expected:
        capture(words, environ)
        raise CheckFailed(f"{' '.join(words)} ended with {code}, and not when run again")
    return Spawned(wall / 1e6, (usage.ru_utime + usage.ru_stime) * 1e3)


def capture(command: Sequence[str | Path], environ: Mapping[str, str]) -> str:
    """Run `command` and return what it prints; raise CheckFailed when it fails."""
    words = [str(word) for word in command]
    result = subprocess.run(
        words, env=dict(environ), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )
    if result.returncode:
        raise CheckFailed(f"{' '.join(words)} ended with {result.returncode}: {result.stderr.strip()[-600:]}")
    return result.stdout


@contextlib.contextmanager
def temporary() -> Iterator[Path]:
    """A directory outside the checkout, which is also the working directory; removed with what runs from it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    directory = Path(tempfile.mkdtemp(prefix="agent-assembly-bench-"))
    before = Path.cwd()
    os.chdir(directory)
    try:
        yield directory
    finally:
        os.chdir(before)
        for pid_file in directory.glob("*/gateway.pid"):
            stop_gateway_of(pid_file.parent)
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def gateway(home: Path) -> Iterator[Gateway]:
    """A healthy gateway with the benchmark's policy; its log is verified and the process ended afterwards."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    running = Gateway(home, policy=POLICY)
    try:
        yield running.start()
        verified = running.verify()
        if verified.returncode:
            raise CheckFailed(f"the audit log does not verify: {verified.stdout}{verified.stderr}")
    finally:
        running.stop()


def count_records(running: Gateway, expected: int, *, seconds: float = 20.0, **filters: object) -> None:
    """Wait until the audit log holds exactly `expected` records that fit; raise CheckFailed when it never does."""
    deadline = time.monotonic() + seconds
    while True:
        answer = running.control("/v1/audit", limit=1, count="true", **filters)
        indexed = answer["indexed_through"] >= answer["head"]["seq"]
        if indexed and answer["total"] == expected:
            return
        if time.monotonic() > deadline or (indexed and answer["total"] > expected):
            raise CheckFailed(f"the audit log holds {answer['total']} records of {filters}, not {expected}")
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class Worker:
    """A child process that answers one line of JSON with another; ended by closing its standard input."""

    def __init__(self, command: Sequence[str | Path], environ: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [str(word) for word in command],
            env=dict(environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **question: object) -> Any:
        self.send(**question)
        return self.answer()

    def send(self, **question: object) -> None:
        stream = self._stream(self._process.stdin)
        stream.write(json.dumps(question) + "\n")
        stream.flush()

    def answer(self) -> Any:
        line = self._stream(self._process.stdout).readline()
        if not line:
            raise CheckFailed(f"a worker ended with {self._process.wait(10)}")
        return json.loads(line)

    def close(self) -> None:
        """Let it end as programs do; raise CheckFailed when it does not end well."""
        self._stream(self._process.stdin).close()
        try:
            code = self._process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
            raise CheckFailed("a worker did not end") from None
        self._stream(self._process.stdout).close()
        if code:
            raise CheckFailed(f"a worker ended with {code}")

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)

    @staticmethod
    def _stream(stream: IO[str] | None) -> IO[str]:
        assert stream is not None
        return stream
