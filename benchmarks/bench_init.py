"""What `import agent_assembly` and `init_assembly()` cost in a program that was started without the launcher.

`.venv/bin/python benchmarks/bench_init.py [--record]`
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from measuring import (
    BIN,
    ROUNDS,
    CheckFailed,
    Gateway,
    Summary,
    capture,
    differences,
    environment,
    free_port,
    gateway,
    interleave,
    ratio,
    spawn,
    stop_gateway_of,
    temporary,
)
from report import Report, run

COLD_ROUNDS = 15

BARE, IMPORT, HTTPX = "bare Python", "`import agent_assembly`", "`import httpx`, which the SDK builds on"
WARM, COLD = "`init_assembly()`, the gateway runs", "`init_assembly()`, starting the gateway"
COLD_RUN = "`aasm-run python -c pass`, starting the gateway"

INIT = 'import agent_assembly; agent_assembly.init_assembly(agent_id="benchmark", mode="sdk-only")'
# Prints what each step took, in milliseconds, as the program itself sees it.
STEPS = """
import time
moments = [time.perf_counter()]
import agent_assembly
moments.append(time.perf_counter())
context = agent_assembly.init_assembly(agent_id="benchmark", mode="sdk-only")
moments.append(time.perf_counter())
assert context.registered and context.mode == "sdk-only", context
context.shutdown()
moments.append(time.perf_counter())
print([(after - before) * 1000 for before, after in zip(moments, moments[1:])])
"""


class Steps(NamedTuple):
    """What a program waits for, in milliseconds."""

    imported: float
    initialised: float
    shut_down: float

    @classmethod
    def taken(cls, environ: Mapping[str, str]) -> Steps:
        return cls(*json.loads(capture([BIN / "python", "-c", STEPS], environ)))


class ColdHome:
    """A home that nobody has used and a port that nobody listens on; the gateway that gets started there is ended."""

    _number = 0

    def __init__(self, directory: Path) -> None:
        ColdHome._number += 1
        self.home = directory / f"cold-{ColdHome._number}"
        self.environ = environment(self.home, AASM_GATEWAY_PORT=str(free_port()))

    def __enter__(self) -> Mapping[str, str]:
        return self.environ

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        started = (self.home / "gateway.pid").exists()
        stop_gateway_of(self.home)
        if kind is None and not started:
            raise CheckFailed("a cold start left no gateway behind: it did not start one")


def cold_wall(directory: Path, command: Sequence[str | Path]) -> float:
    with ColdHome(directory) as environ:
        return spawn(command, environ).wall


def cold_steps(directory: Path) -> Steps:
    with ColdHome(directory) as environ:
        return Steps.taken(environ)


def measure(report: Report) -> None:
    with temporary() as directory, gateway(directory / "home") as running:
        whole_processes(report, directory, running)
        inside(report, directory, running)
        registered = {agent["agent_id"] for agent in running.control("/v1/agents")["agents"]}
        if registered != {"benchmark"}:
            report.fail(f"the gateway that ran knows the agents {sorted(registered)}, not only `benchmark`")


def whole_processes(report: Report, directory: Path, running: Gateway) -> None:
    python, environ = BIN / "python", environment(running.home)
    commands = {BARE: "pass", HTTPX: "import httpx", IMPORT: "import agent_assembly", WARM: INIT}
    cases = {name: partial(_wall, [python, "-c", code], environ) for name, code in commands.items()}
    wall = interleave(cases, rounds=ROUNDS)
    cold_cases = {
        BARE: partial(_wall, [python, "-c", "pass"], environ),
        COLD: partial(cold_wall, directory, [python, "-c", INIT]),
        COLD_RUN: partial(cold_wall, directory, [BIN / "aasm-run", "--quiet", "python", "-c", "pass"]),
    }
    cold = interleave(cold_cases, rounds=COLD_ROUNDS, warm_up=1)
    rows = [_row(name, wall[name], wall[BARE]) for name in cases]
    rows += [_row(name, cold[name], cold[BARE]) for name in (COLD, COLD_RUN)]
    report.note("Whole processes, from spawn to exit, which for `init_assembly()` includes leaving the registry:")
    report.table(("process", "wall, ms", "over bare Python, ms", "ratio", "n"), rows)


def inside(report: Report, directory: Path, running: Gateway) -> None:
    environ = environment(running.home)
    found = interleave(
        {"runs": partial(Steps.taken, environ), "is started": partial(cold_steps, directory)},
        rounds=COLD_ROUNDS,
        warm_up=1,
    )
    report.note("As the program itself sees it, no framework imported:")
    rows = []
    for state, steps in found.items():
        imports = Summary.of([step.imported for step in steps])
        init = Summary.of([step.initialised for step in steps])
        leaving = Summary.of([step.shut_down for step in steps])
        rows.append((f"the gateway {state}", imports.text(), init.text(), leaving.text(), str(init.rounds)))
    report.table(("", "`import agent_assembly`, ms", "`init_assembly()`, ms", "`shutdown()`, ms", "n"), rows)


def _wall(command: Sequence[str | Path], environ: Mapping[str, str]) -> float:
    return spawn(command, environ).wall


def _row(name: str, values: Sequence[float], base: Sequence[float]) -> tuple[str, ...]:
    own = values is base
    over = "–" if own else Summary.of(differences(values, base)).text()
    return name, Summary.of(values).text(), over, "1" if own else ratio(values, base), str(len(values))


if __name__ == "__main__":
    raise SystemExit(run("bench_init", "`init_assembly()` without the launcher", measure))
