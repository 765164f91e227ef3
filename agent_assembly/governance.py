"""The contract that adapters are written against: a call, its verdict, its outcome, and who gives the verdict.

An adapter captures a `ToolCall`, asks `before_tool`, runs the tool when the verdict does not block it, and hands the
`Outcome` to `after_tool`, exactly once for each `before_tool`, whatever happened in between.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Literal, NamedTuple

from agent_assembly.canonical import MAX_ARGUMENTS_BYTES, ArgumentsTooLarge, canonical_bytes, clean_text
from agent_assembly.exceptions import AgentError, MCPToolBlockedError, PolicyViolationError, ToolExecutionBlockedError

Decision = Literal["allow", "deny", "redact", "approve"]
Status = Literal["returned", "raised", "refused", "cancelled", "suspended", "unknown"]
OnDeny = Literal["raise", "refuse"]
EnforcementMode = Literal["enforce", "observe", "disabled"]

__all__ = [
    "Decision",
    "EnforcementMode",
    "GovernanceInterceptor",
    "OnDeny",
    "Outcome",
    "Status",
    "ToolCall",
    "Verdict",
    "after_tool",
    "after_tool_async",
    "before_tool",
    "before_tool_async",
    "blocked_error",
    "current_call",
    "installed_interceptor",
]


def new_event_id() -> str:
    """Return 32 hexadecimal digits that sort by time: 12 of unix milliseconds, 20 random."""
    return f"{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"


class ToolCall:
    """One attempt of one call of one tool, as the verdict, the digest and the record see it.

    `arguments` is the live mapping that the tool will get; `args_json` its canonical form at the time of capture, or
    None when that is larger than the bound. The interceptor fills in `attempt` and `digest`.
    """

    __slots__ = (
        "_open",
        "agent_name",
        "args_json",
        "arguments",
        "attempt",
        "began_ns",
        "call_id",
        "cwd",
        "digest",
        "event_id",
        "framework",
        "kind",
        "limit",
        "parent_event_id",
        "server",
        "tool",
    )

    def __init__(
        self,
        *,
        tool: str,
        framework: str,
        arguments: Mapping[str, Any],
        call_id: str | None = None,
        server: str | None = None,
        agent_name: str | None = None,
        limit: int = MAX_ARGUMENTS_BYTES,
    ) -> None:
        """Capture the call; what cannot be represented is marked so in the canonical form, and raises nothing."""
        self.kind = "tool"
        self.tool = clean_text(tool)
        self.framework = framework
        self.server = None if server is None else clean_text(server)
        self.agent_name = clean_text(agent_name) if issubclass(type(agent_name), str) else None  # type: ignore[arg-type]
        self.arguments = arguments
        self.limit = limit
        self.event_id = new_event_id()
        self.call_id = clean_text(call_id) if call_id else self.event_id
        self.attempt = 1
        self.digest = ""
        self.began_ns = 0
        self._open = False
        outer = _current.get()
        # A context copied while the outer call ran may outlive it: only an open call is a parent.
        self.parent_event_id = outer.event_id if outer is not None and outer._open else None
        try:
            self.cwd = clean_text(os.getcwd())
        except OSError:
            self.cwd = ""
        self.args_json = self._canonical()

    def _canonical(self) -> bytes | None:
        try:
            return canonical_bytes(self.arguments, self.limit)
        except ArgumentsTooLarge:
            return None

    def unchanged(self) -> bool:
        """Whether the live arguments are still those that were captured; look again after any wait."""
        return self._canonical() == self.args_json

    def __repr__(self) -> str:
        return f"ToolCall(tool={self.tool!r}, framework={self.framework!r}, event_id={self.event_id!r})"


class Verdict(NamedTuple):
    """What was decided about a call, by which rule of which policy.

    `code` is the stable word for why (see the reference), `reason` a sentence that a model can work with. `arguments`
    replaces the call's own when the decision is redact. `blocked` says whether the body must not run: the decision,
    seen through the enforcement mode.
    """

    decision: Decision
    reason: str
    code: str
    blocked: bool
    rule: str | None = None
    policy: str | None = None
    revision: str | None = None
    decided_by: Literal["gateway", "agent"] = "gateway"
    enforcement_mode: EnforcementMode = "enforce"
    evaluated: bool = True
    arguments: Mapping[str, Any] | None = None
    approval_id: str | None = None


class Outcome(NamedTuple):
    """What became of a call: how it ended, what it returned, or the exception that it raised."""

    status: Status
    result: Any = None
    error: BaseException | None = None


class GovernanceInterceptor(ABC):
    """Gives verdicts and keeps records; one for each process, shared by all adapters, safe in threads."""

    on_deny: OnDeny
    # As in force: the gateway may demand more than was asked for.
    enforcement_mode: EnforcementMode

    @abstractmethod
    def before_tool(self, call: ToolCall) -> Verdict:
        """Decide about `call` and write the record's begin. Waits; never raises an Exception."""

    @abstractmethod
    async def before_tool_async(self, call: ToolCall) -> Verdict:
        """Decide about `call` without blocking the event loop."""

    @abstractmethod
    def after_tool(self, call: ToolCall, outcome: Outcome) -> Any:
        """Write the record's end and return the result that the caller is to get. Never raises an Exception."""

    async def after_tool_async(self, call: ToolCall, outcome: Outcome) -> Any:
        """Like `after_tool`; there is nothing to wait for unless a subclass says so."""
        return self.after_tool(call, outcome)


_current: ContextVar[ToolCall | None] = ContextVar("agent_assembly_call", default=None)
_installed: GovernanceInterceptor | None = None


class current_call:  # noqa: N801 - used like a function, as `contextlib.suppress` is
    """Make `call` the outer call of whatever its body does, for the length of a `with` block."""

    __slots__ = ("_call", "_token")

    def __init__(self, call: ToolCall) -> None:
        self._call = call

    def __enter__(self) -> None:
        self._call._open = True
        self._token = _current.set(self._call)

    def __exit__(self, *_: object) -> None:
        self._call._open = False
        try:
            _current.reset(self._token)
        except ValueError:
            # Closed in another context than it was opened in (a generator handed between tasks): `_open` has ended it.
            pass


def install_interceptor(interceptor: GovernanceInterceptor | None) -> None:
    """Make `interceptor` the one that this module's functions use; None takes it away."""
    global _installed
    _installed = interceptor


def installed_interceptor() -> GovernanceInterceptor:
    """Return the active interceptor; raise AgentError when governance is not active in this process."""
    if _installed is None:
        raise AgentError("governance is not active in this process; call init_assembly() or start it with aasm-run")
    return _installed


def before_tool(call: ToolCall) -> Verdict:
    """Decide about `call` with the active interceptor."""
    return installed_interceptor().before_tool(call)


async def before_tool_async(call: ToolCall) -> Verdict:
    """Decide about `call` with the active interceptor, without blocking the event loop."""
    return await installed_interceptor().before_tool_async(call)


def after_tool(call: ToolCall, outcome: Outcome) -> Any:
    """Write the end of `call`'s record and return the result that the caller is to get."""
    return installed_interceptor().after_tool(call, outcome)


async def after_tool_async(call: ToolCall, outcome: Outcome) -> Any:
    """Like `after_tool`, from a coroutine."""
    return await installed_interceptor().after_tool_async(call, outcome)


def blocked_error(call: ToolCall, verdict: Verdict) -> ToolExecutionBlockedError:
    """Return the exception that a blocked call raises: MCPToolBlockedError for MCP, else PolicyViolationError."""
    facts = {
        "tool_name": call.tool,
        "reason": verdict.reason,
        "rule": verdict.rule,
        "policy": verdict.policy,
        "code": verdict.code,
        "event_id": call.event_id,
    }
    if call.framework == "mcp":
        return MCPToolBlockedError(verdict.reason, server=call.server, **facts)
    return PolicyViolationError(verdict.reason, **facts)
