"""An interceptor that follows a script and keeps account, and the real frameworks under it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent_assembly.adapters.langchain import LangChainAdapter
from agent_assembly.adapters.langgraph import LangGraphAdapter
from agent_assembly.governance import GovernanceInterceptor, Outcome, ToolCall, Verdict

ALLOW = Verdict("allow", "nothing forbids it", "default", blocked=False)


class ScriptedInterceptor(GovernanceInterceptor):
    """Allows what the script does not mention. `calls` are those that it was asked about, `ended` those that ended."""

    def __init__(self) -> None:
        self.on_deny = "raise"
        self.enforcement_mode = "enforce"
        self.script: dict[str, Callable[[ToolCall], Verdict]] = {}
        self.replace_result: Callable[[ToolCall, Any], Any] = lambda call, result: result
        self.calls: list[ToolCall] = []
        self.ended: list[tuple[ToolCall, Outcome]] = []
        self._lock = threading.Lock()

    def deny(self, tool: str, reason: str = "not here") -> None:
        self.script[tool] = lambda call: Verdict(
            "deny", reason, "rule", blocked=self.enforcement_mode == "enforce", rule="no", policy="test"
        )

    def redact(self, tool: str, arguments: Mapping[str, Any]) -> None:
        self.script[tool] = lambda call: Verdict("redact", "masked", "rule", blocked=False, arguments=arguments)

    def before_tool(self, call: ToolCall) -> Verdict:
        with self._lock:
            self.calls.append(call)
        return self.script.get(call.tool, lambda _: ALLOW)(call)

    async def before_tool_async(self, call: ToolCall) -> Verdict:
        return self.before_tool(call)

    def after_tool(self, call: ToolCall, outcome: Outcome) -> Any:
        with self._lock:
            self.ended.append((call, outcome))
        return self.replace_result(call, outcome.result)

    @property
    def account(self) -> list[tuple[str, str]]:
        """Tool and outcome of every attempt, in the order in which they began; each began and ended exactly once."""
        statuses = {id(call): outcome.status for call, outcome in self.ended}
        assert len(statuses) == len(self.ended), "a call ended twice"
        assert statuses.keys() == {id(call) for call in self.calls}, "a call did not end"
        return [(call.tool, statuses[id(call)]) for call in self.calls]

    def arguments(self) -> list[dict[str, Any]]:
        return [dict(call.arguments) for call in self.calls]


@pytest.fixture
def interceptor() -> Iterator[ScriptedInterceptor]:
    """LangChain and LangGraph under an interceptor; every call that was begun must have been ended by the end."""
    scripted = ScriptedInterceptor()
    adapters = [LangChainAdapter(), LangGraphAdapter()]
    for adapter in adapters:
        adapter.register_hooks(scripted)
    yield scripted
    for adapter in reversed(adapters):
        adapter.unregister_hooks()
    assert scripted.account is not None


@pytest.fixture
def witness(tmp_path: Path) -> Path:
    """The file that a tool writes when its body runs."""
    return tmp_path / "ran"
