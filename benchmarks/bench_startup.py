"""What `aasm-run` adds to the start of a program: whole processes, from spawn to exit, byte code warm.

`.venv/bin/python benchmarks/bench_startup.py [--record]`
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from measuring import (
    BIN,
    ROOT,
    CheckFailed,
    Gateway,
    Spawned,
    Summary,
    capture,
    differences,
    environment,
    gateway,
    interleave,
    ratio,
    spawn,
    temporary,
)
from report import Report, run

PASS = ("-c", "pass")
OWN_ROUNDS, PEER_ROUNDS = 41, 15
CONFIG = "agent_id: benchmark\nteam_id: measurements\n"

BARE, ALL, BOOTSTRAP = "bare Python", "aasm-run python", "bootstrap alone"
TRUE, LAUNCHER, CONFIGURED = "/bin/true", "aasm-run /bin/true", "aasm-run python, with config.yaml"
PEER_BARE = "bare Python of the peers' environment"

# Exporters off, no traffic, and of ddtrace not even the tracer: nothing but what their start costs at least.
PEER_VARIABLES = {
    "OTEL_TRACES_EXPORTER": "none",
    "OTEL_METRICS_EXPORTER": "none",
    "OTEL_LOGS_EXPORTER": "none",
    "DD_TRACE_ENABLED": "false",
    "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
    "DD_REMOTE_CONFIGURATION_ENABLED": "false",
    "DD_CRASHTRACKING_ENABLED": "false",
    "DD_TRACE_STARTUP_LOGS": "false",
    "NEW_RELIC_LICENSE_KEY": "0" * 40,
    "NEW_RELIC_APP_NAME": "benchmark",
    "NEW_RELIC_DEVELOPER_MODE": "true",
    "NEW_RELIC_LOG": "stderr",
    "NEW_RELIC_LOG_LEVEL": "critical",
}
# Each launcher, and a module that is loaded when it did its work.
PEERS = (
    (("opentelemetry-instrument",), "opentelemetry.sdk"),
    (("ddtrace-run",), "ddtrace.bootstrap.sitecustomize"),
    (("newrelic-admin", "run-program"), "newrelic.config"),
)


def peers() -> Path:
    """Return the `bin` directory of an environment of this Python that holds the peers."""
    import environments  # beside the build's scripts, where `measuring` finds them

    requirements = ROOT / "benchmarks" / "peers.txt"

    def install(directory: Path) -> None:
        uv = environments.tools() / "uv"
        python = directory / "bin" / "python"
        environments.run([uv, "venv", "--quiet", "--no-project", "--python", sys.executable, directory])
        installing: list[str | Path] = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", python]
        environments.run([*installing, "-r", requirements])

    key = environments.fingerprint([requirements, sys.version, sys.executable])
    return environments.cached(f"peers-{key}", install) / "bin"


def run_variables(home: Path) -> dict[str, str]:
    """Return the environment as `aasm-run` sets it for a program."""
    base = environment(home)
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    seen: dict[str, str] = json.loads(capture([BIN / "aasm-run", "python", "-c", code], base))
    added = {name: value for name, value in seen.items() if name == "PYTHONPATH" or name.startswith("AASM_")}
    # The bootstrap itself sets this one; a program that had it from above would be a child of a governed one.
    added.pop("AASM_WATCHED", None)
    if "AASM_RUN_ID" not in added:
        raise CheckFailed("aasm-run set no AASM_RUN_ID")
    return {**base, **added}


def require_module(command: Sequence[str | Path], environ: Mapping[str, str], module: str) -> None:
    code = f"import sys; print({module!r} in sys.modules)"
    if capture([*command, "-c", code], environ).strip() != "True":
        raise CheckFailed(f"{command[0]} did not load {module}: what it costs would be the cost of nothing")


class Launches:
    """Counts what should afterwards be found in the gateway's list of runs."""

    def __init__(self, command: Sequence[str | Path], home: Path) -> None:
        self.command = command
        self.environ = environment(home)
        self.count = 0

    def __call__(self) -> Spawned:
        self.count += 1
        return spawn(self.command, self.environ)


def measure(report: Report) -> None:
    with (
        temporary() as directory,
        gateway(directory / "home") as plain,
        gateway(directory / "configured") as configured,
    ):
        (configured.home / "config.yaml").write_text(CONFIG)
        (configured.home / "config.yaml").chmod(0o600)
        ours(report, plain, configured)
        theirs(report, plain)


def ours(report: Report, plain: Gateway, configured: Gateway) -> None:
    python, launcher = BIN / "python", BIN / "aasm-run"
    base, governed = environment(plain.home), run_variables(plain.home)
    require_module([launcher, "python"], base, "agent_assembly.core.bootstrap")
    require_module([python], governed, "agent_assembly.core.bootstrap")
    before = len(plain.control("/v1/runs")["runs"])
    whole = Launches([launcher, "python", *PASS], plain.home)
    alone = Launches([launcher, "--quiet", "--allow-ungoverned", "/bin/true"], plain.home)
    with_file = Launches([launcher, "python", *PASS], configured.home)
    cases: dict[str, Callable[[], Spawned]] = {
        BARE: partial(spawn, [python, *PASS], base),
        BOOTSTRAP: partial(spawn, [python, *PASS], governed),
        ALL: whole,
        CONFIGURED: with_file,
        TRUE: partial(spawn, ["/bin/true"], base),
        LAUNCHER: alone,
    }
    results = interleave(cases, rounds=OWN_ROUNDS)
    wall = {name: [result.wall for result in found] for name, found in results.items()}
    for running, expected in ((plain, before + whole.count + alone.count), (configured, with_file.count)):
        found = len(running.control("/v1/runs")["runs"])
        if found != expected:
            report.fail(f"{expected} launches were announced as {found} runs")

    over_bare = differences(wall[ALL], wall[BARE])
    rows = [
        ("launcher and bootstrap, over bare Python", over_bare, 25),
        ("launcher, `aasm-run /bin/true` over `/bin/true`", differences(wall[LAUNCHER], wall[TRUE]), 14),
        ("launcher, `aasm-run python` over the bootstrap alone", differences(wall[ALL], wall[BOOTSTRAP]), 14),
        ("bootstrap, over bare Python", differences(wall[BOOTSTRAP], wall[BARE]), 8),
    ]
    for what, values, limit in rows:
        report.bar(what, Summary.of(values).median, limit, "ms")
    baselines = {LAUNCHER: TRUE, TRUE: TRUE}
    report.table(
        ("`python -c pass` under", "wall, ms", "over its baseline, ms", "ratio", "processor, ms", "n"),
        [_row(name, baselines.get(name, BARE), results) for name in cases],
    )


def theirs(report: Report, plain: Gateway) -> None:
    try:
        bin_directory = peers()
    except SystemExit:
        report.fail("the peers could not be installed; their rows are missing")
        return
    environ = {**environment(plain.home), **PEER_VARIABLES}
    environ["PATH"] = f"{bin_directory}:{environ['PATH']}"
    cases: dict[str, Callable[[], Spawned]] = {
        BARE: partial(spawn, [BIN / "python", *PASS], environment(plain.home)),
        ALL: partial(spawn, [BIN / "aasm-run", "python", *PASS], environment(plain.home)),
        PEER_BARE: partial(spawn, [bin_directory / "python", *PASS], environ),
    }
    for words, module in PEERS:
        command = [bin_directory / words[0], *words[1:], bin_directory / "python"]
        require_module(command, environ, module)
        cases[" ".join(words)] = partial(spawn, [*command, *PASS], environ)
    results = interleave(cases, rounds=PEER_ROUNDS, warm_up=1)
    baselines = dict.fromkeys((BARE, ALL), BARE)
    report.note("Against others, in rounds of their own:")
    report.table(
        ("`python -c pass` under", "wall, ms", "over its baseline, ms", "ratio", "processor, ms", "n"),
        [_row(name, baselines.get(name, PEER_BARE), results) for name in cases],
    )
    pins = [line for line in (ROOT / "benchmarks" / "peers.txt").read_text().splitlines() if "==" in line]
    report.note(
        f"Peers: {', '.join(pins)}, same interpreter, byte code compiled, exporters off, no traffic; of ddtrace the "
        "tracer is off too. The gateway is warm, `pass` imports no framework. Processor time is the process's own, "
        "user and system."
    )


def _row(name: str, baseline: str, results: Mapping[str, Sequence[Spawned]]) -> tuple[str, ...]:
    wall = [result.wall for result in results[name]]
    base = [result.wall for result in results[baseline]]
    own = name == baseline
    return (
        name,
        Summary.of(wall).text(),
        "–" if own else Summary.of(differences(wall, base)).text(),
        "1" if own else ratio(wall, base),
        Summary.of([result.processor for result in results[name]]).text(),
        str(len(wall)),
    )


if __name__ == "__main__":
    raise SystemExit(run("bench_startup", "Start-up", measure))
