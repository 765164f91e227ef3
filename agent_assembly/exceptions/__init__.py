"""Every error that the SDK raises.

AssemblyError
├── AgentError                  registering an agent, its life cycle
├── PolicyError                 a policy that cannot be loaded or evaluated
├── GatewayError                the gateway cannot be reached, or answers wrongly
├── ConfigurationError          arguments, variables or files that cannot be used
├── AdapterValidationError      an adapter that breaks its contract
├── OpTerminatedError           the gateway ended an operation
└── ToolExecutionBlockedError   a tool call was not allowed to run
    ├── MCPToolBlockedError     … of an MCP server
    └── PolicyViolationError    … by the policy
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

__all__ = [
    "AdapterValidationError",
    "AgentError",
    "AssemblyError",
    "ConfigurationError",
    "GatewayError",
    "MCPToolBlockedError",
    "OpTerminatedError",
    "PolicyError",
    "PolicyViolationError",
    "ToolExecutionBlockedError",
]


def _restore(cls: type[AssemblyError], args: tuple[Any, ...], attributes: dict[str, Any]) -> AssemblyError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error


class AssemblyError(Exception):
    """Base of every error that the SDK raises."""

    def __reduce__(self) -> tuple[Callable[..., AssemblyError], tuple[Any, ...]]:
        # Keyword-only arguments would make the default refuse to unpickle, and errors do cross process pools.
        return _restore, (type(self), self.args, self.__dict__)


class AgentError(AssemblyError):
    """Registering an agent failed, or its life cycle was broken."""


class PolicyError(AssemblyError):
    """A policy cannot be loaded or evaluated.

    `diagnostics` holds one mapping for each finding: file, line, column, text, message, suggestion.
    """

    def __init__(self, message: str = "", *, diagnostics: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(message)
        self.diagnostics = list(diagnostics)


class GatewayError(AssemblyError):
    """The gateway cannot be reached, or what answered is not a gateway of ours.

    `code` is the stable word of the failure (`gateway_unreachable`, `gateway_timeout`, or the code of the gateway's own
    answer), `status` the HTTP status when there was one.
    """

    def __init__(self, message: str = "", *, code: str = "gateway_error", status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class ConfigurationError(AssemblyError):
    """A setting is missing, malformed, or contradicts what is active."""


class AdapterValidationError(AssemblyError):
    """An adapter does not fulfil the `FrameworkAdapter` contract."""


class OpTerminatedError(AssemblyError):
    """The gateway ended the operation `op_id`."""

    def __init__(self, message: str, *, op_id: str) -> None:
        super().__init__(message)
        self.op_id = op_id


class ToolExecutionBlockedError(AssemblyError):
    """A tool call was stopped before its body ran.

    `tool_name`, `reason`, `rule` and `policy` say what was stopped and by what; `code` is the verdict's stable word and
    `event_id` finds the attempt in the audit log. Each is None where it is not known.
    """

    def __init__(
        self,
        message: str = "",
        *,
        tool_name: str | None = None,
        reason: str | None = None,
        rule: str | None = None,
        policy: str | None = None,
        code: str | None = None,
        event_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.tool_name = tool_name
        self.reason = reason
        self.rule = rule
        self.policy = policy
        self.code = code
        self.event_id = event_id


class MCPToolBlockedError(ToolExecutionBlockedError):
    """A tool call to the MCP server `server` was stopped before it was sent."""

    def __init__(
        self,
        message: str,
        *,
        tool_name: str | None = None,
        server: str | None = None,
        reason: str | None = None,
        rule: str | None = None,
        policy: str | None = None,
        code: str | None = None,
        event_id: str | None = None,
    ) -> None:
        super().__init__(
            message, tool_name=tool_name, reason=reason, rule=rule, policy=policy, code=code, event_id=event_id
        )
        self.server = server


class PolicyViolationError(ToolExecutionBlockedError):
    """The policy denied a tool call."""
