"""The rows `agents` and `denials`: what the home's own gateway tells its operator."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from support.calls import make_calls
from support.doctor import type_remedy
from support.gateway import Gateway, clean_environment
from support.look import row, rows, shell
from support.odd_gateways import skewed, start_detached
from support.programs import program

POLICY = """apiVersion: agent-assembly/v1
kind: Policy
metadata: {name: house}
default: deny
rules:
  - id: no-deletions
    on: tool
    match: {tool: "delete_*"}
    effect: deny
    reason: Customer data is kept.
  - id: reading
    on: tool
    match: {tool: "read_*"}
    effect: allow
"""

# Calls the tools that it is told on standard input, one a line, and says what became of them.
AGENT = """
import json, sys
from agent_assembly import init_assembly
from agent_assembly.governance import Outcome, ToolCall, after_tool, before_tool

with init_assembly(**json.loads(sys.argv[1])):
    for line in sys.stdin:
        call = ToolCall(tool=line.strip(), framework="test", arguments={})
        verdict = before_tool(call)
        after_tool(call, Outcome("refused" if verdict.blocked else "returned"))
        print(verdict.code, flush=True)
"""

# Imports a framework when it is told to.
LATE = """
import sys
for line in sys.stdin:
    from langchain_core.tools import BaseTool
    print("imported", flush=True)
"""


class Process:
    """A program that does one thing for each line that it is told."""

    def __init__(self, command: Sequence[str], home: Path, environ: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            command,
            env=clean_environment(AASM_HOME=str(home), **environ),
            cwd=home.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self.process.pid

    def tell(self, line: str) -> str:
        """Say a line and return the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def end(self) -> None:
        """End it as it ends by itself; its records are with the gateway then."""
        if self.process.stdin is not None and not self.process.stdin.closed:
            self.process.communicate(timeout=30)


Start = Callable[..., Process]


@pytest.fixture
def start(home: Path) -> Iterator[Start]:
    """Start a program: `start(command, VARIABLE=value)`."""
    running: list[Process] = []

    def start(command: Sequence[object], **environ: str) -> Process:
        running.append(Process([str(word) for word in command], home, environ))
        return running[-1]

    yield start
    for each in running:
        if each.process.poll() is None:
            each.process.kill()
        each.process.communicate()


@pytest.fixture
def agent(start: Start) -> Callable[..., Process]:
    """Start an agent of the SDK that is registered: `agent(agent_id=…)`, or with variables."""

    def begin(**settings: str) -> Process:
        environ = {name: settings.pop(name) for name in list(settings) if name.isupper()}
        process = start([sys.executable, "-c", AGENT, json.dumps(settings)], **environ)
        assert process.tell("read_first")
        return process

    return begin


def test_before_any_agent(gateway: Gateway) -> None:
    found = rows(shell(gateway.home), "agents", "denials")
    assert (found["agents"].status, found["agents"].found) == ("ok", "no agent has registered yet")
    assert (found["denials"].status, found["denials"].found) == ("ok", "none in the last hour")


def test_who_runs(gateway: Gateway, agent: Callable[..., Process]) -> None:
    """By agent, pid and mode; those that nothing is blocked in are named once more."""
    strict, lenient = agent(agent_id="strict-one"), agent(agent_id="trial", enforcement_mode="observe")
    found = row(shell(gateway.home), "agents")
    assert found.status == "ok"
    assert found.found == (
        f"2 running: trial (pid {lenient.pid}, observe), strict-one (pid {strict.pid}, enforce); "
        f"nothing is blocked in trial (pid {lenient.pid}, observe)"
    )


def test_when_all_have_ended(gateway: Gateway) -> None:
    make_calls(gateway, ["read_it"], agent="worker")
    found = row(shell(gateway.home), "agents")
    assert found.found.startswith("none runs now; the last one was worker, registered ")


def test_a_run_that_never_checked_in(home: Path, tmp_path: Path, start: Start) -> None:
    """After half a minute its command is asked about, without its secrets; it is silent when a process registers.

    The gateway's clock is late, so that half a minute need not be waited for.
    """
    start_detached(home, environ=skewed(-45, tmp_path))
    script = tmp_path / "late agent.py"
    script.write_text(LATE)
    late = start([program("aasm-run"), sys.executable, script, "--password", "hunter2"])
    environ = shell(home)
    deadline = time.monotonic() + 20
    while (found := row(environ, "agents")).status == "ok" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert found.status == "warn"
    assert f"(pid {late.pid}: {sys.executable} '{script}')" in found.found
    assert "hunter2" not in found.found + found.remedy
    assert found.remedy == f"cd {tmp_path} && aasm-py doctor -- {sys.executable} '{script}'"
    late.tell("import")
    deadline = time.monotonic() + 20
    while (found := row(environ, "agents")).status == "warn" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (found.status, f"(pid {late.pid}, enforce)" in found.found) == ("ok", True)


def test_a_run_that_has_just_begun_or_is_over_is_no_news(gateway: Gateway, start: Start, tmp_path: Path) -> None:
    script = tmp_path / "waiting.py"
    script.write_text("print('ready', flush=True); input()")
    waiting = start([program("aasm-run"), sys.executable, script])
    assert waiting.process.stdout is not None
    waiting.process.stdout.readline()
    assert gateway.control("/v1/runs")["runs"]
    assert row(shell(gateway.home), "agents").status == "ok"


def test_a_late_run_that_is_over_is_no_news(home: Path, tmp_path: Path, start: Start) -> None:
    late = start_detached(home, environ=skewed(-45, tmp_path))
    start([program("aasm-run"), sys.executable, "-c", "pass"]).process.wait()
    assert late.control("/v1/runs")["runs"]
    assert row(shell(home), "agents").status == "ok"


def test_what_the_policy_denies_is_as_it_should_be(start_gateway: Callable[..., Gateway], home: Path) -> None:
    """With rule and reason, and the command that lists them."""
    gateway = start_gateway(policy=POLICY)
    make_calls(gateway, ["read_it", "delete_it", "delete_that", "other"])
    found = row(shell(home), "denials")
    assert found.status == "ok"
    assert found.found.startswith("3 in the last hour; 2 by rule no-deletions, 1 by the policy's default; the newest: ")
    assert "`other`" in found.found
    assert found.remedy == "aasm-py audit list --decision deny --since 1h"
    type_remedy(found.remedy, shell(home), home)


def test_what_was_denied_for_want_of_time(
    start_gateway: Callable[..., Gateway], home: Path, agent: Callable[..., Process]
) -> None:
    """More time is the remedy; what was denied before the gateway's last start is past."""
    gateway = start_gateway(policy=POLICY)
    hurried = agent(AASM_CHECK_TIMEOUT="0.3")
    gateway.pause()
    assert hurried.tell("read_it") == "gateway_timeout"
    gateway.resume()
    hurried.end()
    environ = shell(home)
    found = row(environ, "denials")
    assert found.status == "warn"
    assert "1 because the gateway did not answer in time (gateway_timeout)" in found.found
    assert found.remedy.startswith("export AASM_CHECK_TIMEOUT=15; or: aasm stop && aasm start")
    assert type_remedy(found.remedy, environ, home)["AASM_CHECK_TIMEOUT"] == "15"
    type_remedy(found.remedy, environ, home, alternative=1)
    found = row(environ, "denials")
    assert (found.status, "1 for want of a verdict, before the gateway was started" in found.found) == ("ok", True)


def test_what_was_denied_while_there_was_no_gateway(
    start_gateway: Callable[..., Gateway], home: Path, agent: Callable[..., Process]
) -> None:
    """It is known afterwards, and past with the gateway that has come back."""
    gateway = start_gateway(policy=POLICY)
    port = gateway.port
    lonely = agent(gateway_url=gateway.url)
    gateway.stop()
    assert lonely.tell("read_it") == "gateway_unreachable"
    again = Gateway(home).start(port=port)
    try:
        lonely.end()
        found = row(shell(home), "denials")
        assert (found.status, "1 for want of a verdict" in found.found) == ("ok", True), found
    finally:
        again.stop()


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: path.chmod(0o644)])
def test_without_the_operators_token_nothing_is_asked(gateway: Gateway, spoil: Callable[[Path], None]) -> None:
    """The rows say why they are empty."""
    spoil(gateway.home / "operator.token")
    found = rows(shell(gateway.home), "agents", "denials")
    assert [each.status for each in found.values()] == ["skip", "skip"]
    assert all("operator.token" in each.found for each in found.values())


def test_a_token_of_another_gateway_is_refused(gateway: Gateway) -> None:
    (gateway.home / "operator.token").write_text("aasm_op_" + "0" * 64 + "\n")
    found = row(shell(gateway.home), "denials")
    assert (found.status, "401" in found.found) == ("skip", True)


def test_without_a_gateway_nothing_is_asked(home: Path) -> None:
    found = rows(shell(home, AASM_GATEWAY_PORT=9), "agents", "denials")
    assert {each.found for each in found.values()} == {"no gateway answers; see the row gateway"}
