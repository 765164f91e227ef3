"""The example of the README does what the README says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.gateway import Gateway
from support.programs import aasm_py, run_agent, run_command

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "langchain_support_bot"


def test_ungoverned_it_deletes_the_customer(home: Path) -> None:
    """The example shows something: without governance the deletion happens."""
    result = run_command([sys.executable, EXAMPLE / "agent.py"], home)
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith("database customer C-42 is GONE\n")


def test_a_denied_call_raises_and_the_program_catches_it(gateway: Gateway) -> None:
    """By default the denied tool raises ToolExecutionBlockedError before its body runs."""
    result = run_agent([EXAMPLE / "agent.py"], gateway, options=["--policy", EXAMPLE / "policy.yaml"])
    assert result.returncode == 0, result.stderr
    assert "Order A-1001 of customer C-42 was delivered" in result.stdout
    assert "blocked  delete_customer: " in result.stdout
    assert "Customer data is deleted by people only" in result.stdout
    assert result.stdout.endswith("database customer C-42 is still there\n")
    rows = gateway.audit()
    assert [(row["tool"], row["decision"], row["outcome"], row["rule"]) for row in rows] == [
        ("look_up_order", "allow", "returned", "read-orders"),
        ("delete_customer", "deny", "refused", "no-deletions"),
    ]


def test_a_refused_call_lets_the_model_choose_another_way(gateway: Gateway) -> None:
    """With `--on-deny refuse` the model reads the reason and opens a ticket instead."""
    options = ["--policy", EXAMPLE / "policy.yaml", "--on-deny", "refuse"]
    result = run_agent([EXAMPLE / "agent.py"], gateway, options=options)
    assert result.returncode == 0, result.stderr
    assert "Ticket T-7 is open" in result.stdout
    assert result.stdout.endswith("database customer C-42 is still there\n")
    rows = gateway.audit()
    assert [(row["tool"], row["decision"]) for row in rows] == [
        ("look_up_order", "allow"),
        ("delete_customer", "deny"),
        ("open_ticket", "allow"),
    ]


@pytest.mark.slow
def test_the_policy_in_the_home_governs_every_run(home: Path) -> None:
    """The operator's policy needs no option: the launcher starts the gateway, which reads it from the home."""
    policies = home / "policies"
    policies.mkdir(mode=0o700)
    (policies / "support-bot.yaml").write_text((EXAMPLE / "policy.yaml").read_text())
    (policies / "support-bot.yaml").chmod(0o600)
    Gateway(home).start().stop()
    assert aasm_py(["gateway", "start", "--port", "0"], home).returncode == 0
    result = run_agent([EXAMPLE / "agent.py"], Gateway(home))
    assert "blocked  delete_customer: " in result.stdout, result.stderr
