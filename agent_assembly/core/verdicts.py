"""Where verdicts come from: one interface for whoever decides, near or far."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, cast, get_args

from agent_assembly.core.instance import AgentInstance
from agent_assembly.exceptions import GatewayError
from agent_assembly.governance import Decision, ToolCall, Verdict

_DECISIONS = frozenset(get_args(Decision))


class VerdictSource(ABC):
    """Decides about calls. `decide` may wait; it raises GatewayError when no verdict can be had."""

    @abstractmethod
    def decide(self, call: ToolCall, timeout: float) -> Verdict:
        """Return the verdict as the policy gives it; `blocked` is set by the caller, who knows the posture."""


class GatewayVerdicts(VerdictSource):
    """Asks the gateway about each call."""

    def __init__(self, instance: AgentInstance) -> None:
        self._instance = instance

    def decide(self, call: ToolCall, timeout: float) -> Verdict:
        answer = self._instance.check(call, timeout)
        decision = answer.get("decision")
        if decision not in _DECISIONS or answer.get("decision_id") != call.event_id:
            # A verdict about something else, or of a kind that is not understood here, is no verdict.
            raise GatewayError(f"the gateway gave no verdict on this call (decision {str(decision)[:40]!r})")
        code = _text(answer, "code") or "rule"
        return Verdict(
            decision=cast("Decision", decision),
            reason=_text(answer, "reason") or f"The policy says {decision}.",
            code=code,
            blocked=False,
            evaluated=code != "unevaluated",
            rule=_text(answer, "rule"),
            policy=_text(answer, "policy"),
            revision=_text(answer, "revision"),
        )


class NoVerdicts(VerdictSource):
    """Evaluates nothing: what enforcement mode `disabled` stands for."""

    def decide(self, call: ToolCall, timeout: float) -> Verdict:  # noqa: ARG002 - there is nothing to decide
        return local_verdict("allow", "unevaluated", "Enforcement is disabled; the policy was not asked.")


def local_verdict(decision: Literal["allow", "deny"], code: str, reason: str) -> Verdict:
    """A verdict that this process gave without a policy."""
    return Verdict(decision=decision, reason=reason, code=code, blocked=False, decided_by="agent", evaluated=False)


def _text(answer: Mapping[str, Any], name: str) -> str | None:
    value = answer.get(name)
    return value if isinstance(value, str) and value else None
