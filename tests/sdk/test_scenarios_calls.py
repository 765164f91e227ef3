"""Every way to call a tool, under every way into governance: one verdict and one record for each attempt.

The scenarios are in `scenarios/`; each of its programs makes all of its calls in one process.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sdk.conftest import POLICY
from support.gateway import Gateway
from support.programs import program, run_command

SCENARIOS = Path(__file__).parent / "scenarios"
WAYS = ["launched", "first", "late"]


def run_scenarios(name: str, way: str, gateway: Gateway) -> tuple[dict[str, Any], Counter[str]]:
    """Run a program of scenarios; return what each expects and says, and how often each tool's body ran."""
    marks = gateway.home.parent / "marks"
    marks.touch()
    command: list[str | Path] = [sys.executable, SCENARIOS / name, way, gateway.url, marks]
    if way == "launched":
        command = [program("aasm-run"), "--agent-id", "bot", *command]
    result = run_command(command, gateway.home, timeout=100)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1]), Counter(marks.read_text().split())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["calls.py", "agents.py"])
def test_each_attempt_has_one_verdict_and_one_record(name: str, way: str, start_gateway: Any) -> None:
    """As many records as attempts; the bodies of denied tools never ran, those of the others once each."""
    if name == "agents.py" and importlib.util.find_spec("langchain.agents.middleware") is None:
        pytest.skip("agents of LangChain before 1.0 are other ones")
    gateway = start_gateway(policy=POLICY)
    account, ran = run_scenarios(name, way, gateway)
    problems = {scenario: said["problem"] for scenario, said in account.items() if said["problem"]}
    assert not problems, "\n".join(problems.values())
    expected = Counter({tool: count for said in account.values() for tool, count in said["expected"].items()})
    rows = gateway.audit(seconds=20)
    assert Counter(row["tool"] for row in rows) == expected
    assert ran == Counter({tool: count for tool, count in expected.items() if tool.startswith("read_")})
    verdicts = {(row["tool"].partition("_")[0], row["decision"]) for row in rows}
    assert verdicts == {("read", "allow"), ("delete", "deny")}
    assert {row["outcome"] for row in rows if row["decision"] == "deny"} == {"refused"}
    assert len({row["event_id"] for row in rows}) == len(rows)
