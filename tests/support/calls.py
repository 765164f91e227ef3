"""An agent small enough for tests that are not about frameworks: it makes given calls through the real SDK."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from support.gateway import Gateway
from support.programs import run_command

_AGENT = """
import json, sys
from agent_assembly import init_assembly
from agent_assembly.governance import Outcome, ToolCall, after_tool, before_tool

with init_assembly(**json.loads(sys.argv[1])):
    for tool, arguments in json.loads(sys.argv[2]):
        call = ToolCall(tool=tool, framework="test", arguments=arguments)
        verdict = before_tool(call)
        after_tool(call, Outcome("refused" if verdict.blocked else "returned"))
        print(tool, verdict.decision, flush=True)
"""


def make_calls(
    gateway: Gateway,
    calls: Sequence[str | tuple[str, Mapping[str, Any]]],
    *,
    agent: str = "tester",
    **settings: Any,
) -> subprocess.CompletedProcess[str]:
    """Let the agent `agent` make `calls` (a tool's name, or name and arguments) one after the other, and end."""
    pairs = [(call, {}) if isinstance(call, str) else call for call in calls]
    arguments = {"agent_id": agent, "gateway_url": gateway.url, **settings}
    command = [sys.executable, "-c", _AGENT, json.dumps(arguments), json.dumps(pairs)]
    result = run_command(command, gateway.home)
    assert result.returncode == 0, result.stderr
    return result
