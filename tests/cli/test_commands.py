"""The other commands of `aasm-py`: agents, runs, the gateway, explain, and what every command shares."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from support.calls import make_calls
from support.gateway import Gateway
from support.programs import aasm_py, program, run_agent, run_command


def test_agents_are_listed_with_their_state(gateway: Gateway) -> None:
    """An agent that registered is known by its identity, in the table and as JSON."""
    make_calls(gateway, ["read_file"], agent="ada")
    rows = json.loads(aasm_py(["agents", "--json"], gateway.home).stdout)
    assert [row["agent_id"] for row in rows] == ["ada"]
    table = aasm_py(["agents"], gateway.home)
    assert (table.returncode, table.stderr) == (0, "")
    assert "ada" in table.stdout


def test_runs_are_listed_with_their_command(gateway: Gateway) -> None:
    """What aasm-run started is known by its run id and its command line."""
    assert run_agent(["-c", "print('ran')"], gateway).stdout == "ran\n"
    (run,) = json.loads(aasm_py(["runs", "--json"], gateway.home).stdout)
    assert run["run_id"].startswith("run-")
    assert run["command"][-1] == "print('ran')"
    assert run["run_id"] in aasm_py(["runs"], gateway.home).stdout


def test_nothing_known_is_a_line_for_people_and_an_empty_array_for_programs(gateway: Gateway) -> None:
    """Empty lists are no errors."""
    for key in ("agents", "runs"):
        assert aasm_py([key], gateway.home).stdout == f"no {key}\n"
        assert json.loads(aasm_py([key, "--json"], gateway.home).stdout) == []


def test_the_gateway_is_started_found_and_stopped(home: Path) -> None:
    """start, status and stop pass on what `aasm` says, with its exit codes: 3 for a gateway that does not run."""
    assert aasm_py(["gateway", "status"], home).returncode == 3
    started = aasm_py(["gateway", "start", "--port", "0"], home)
    assert started.returncode == 0, started.stderr
    status = aasm_py(["gateway", "status", "--json"], home)
    assert status.returncode == 0
    assert json.loads(status.stdout)["pid"] > 0
    assert aasm_py(["audit", "count"], home).stdout == "0\n"
    again = aasm_py(["gateway", "start", "--port", "0"], home)
    assert again.returncode == 0
    assert aasm_py(["gateway", "stop"], home).returncode == 0
    assert aasm_py(["gateway", "status"], home).returncode == 3


def test_a_policy_that_does_not_check_is_not_started(home: Path, tmp_path: Path) -> None:
    """The gateway's message names file and line; nothing runs afterwards."""
    policy = tmp_path / "policy.yaml"
    policy.write_text("apiVersion: agent-assembly/v1\nkind: Policy\nmetadata: {name: x}\ndefalt: deny\n")
    result = aasm_py(["gateway", "start", "--port", "0", "--policy", str(policy)], home)
    assert result.returncode == 1
    assert f"{policy}:4:1" in result.stderr
    assert aasm_py(["gateway", "status"], home).returncode == 3


def test_explain_shows_the_launch_and_runs_nothing(home: Path, tmp_path: Path) -> None:
    """`explain` prints the plan that `aasm-run --explain` prints, starts no gateway and not the program."""
    marker = tmp_path / "ran"
    command = [sys.executable, "-c", f"open({str(marker)!r}, 'w')"]
    mine = aasm_py(["explain", "--json", "--", *command], home)
    assert mine.returncode == 0, mine.stderr
    theirs = run_command([program("aasm-run"), "--explain", "--json", "--", *command], home)
    assert json.loads(mine.stdout).keys() == json.loads(theirs.stdout).keys()
    table = aasm_py(["explain", "--", *command], home)
    assert table.returncode == 0
    assert sys.executable in table.stdout
    assert "\x1b" not in table.stdout
    assert not marker.exists()
    assert not (home / "gateway.pid").exists()


def test_the_version_is_the_distributions(home: Path) -> None:
    """`--version` prints one line."""
    result = aasm_py(["--version"], home)
    assert (result.returncode, result.stdout) == (0, f"aasm-py {version('agent-assembly')}\n")


@pytest.mark.parametrize("words", [[], ["audit"], ["gateway"], ["audit", "list"], ["gateway", "start"], ["explain"]])
def test_every_command_has_help(home: Path, words: list[str]) -> None:
    """`--help` explains a command on standard output."""
    result = aasm_py([*words, "--help"], home)
    assert result.returncode == 0
    assert "Usage:" in result.stdout
