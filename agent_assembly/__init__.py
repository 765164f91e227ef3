"""Agent Assembly: policy and audit for the tool calls of AI agents.

Names are loaded when they are first used: importing this package costs next to nothing.
"""

from agent_assembly._version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agent_assembly.adapters.base import FrameworkAdapter
    from agent_assembly.adapters.registry import AdapterRegistry
    from agent_assembly.client.gateway import GatewayClient
    from agent_assembly.core.assembly import current_context, init_assembly
    from agent_assembly.core.context import AdapterState, AssemblyContext
    from agent_assembly.core.settings import SETTINGS, Setting, Settings, home_directory, resolve_settings
    from agent_assembly.core.spawn import SpawnContext, child_environment, current_spawn_context, spawn_context
    from agent_assembly.exceptions import (
        AdapterValidationError,
        AgentError,
        AssemblyError,
        ConfigurationError,
        GatewayError,
        MCPToolBlockedError,
        OpTerminatedError,
        PolicyError,
        PolicyViolationError,
        ToolExecutionBlockedError,
    )
    from agent_assembly.governance import GovernanceInterceptor, Outcome, ToolCall, Verdict

# Where each public name lives.
_HOMES = {
    "AdapterRegistry": "adapters.registry",
    "AdapterState": "core.context",
    "AdapterValidationError": "exceptions",
    "AgentError": "exceptions",
    "AssemblyContext": "core.context",
    "AssemblyError": "exceptions",
    "ConfigurationError": "exceptions",
    "FrameworkAdapter": "adapters.base",
    "GatewayClient": "client.gateway",
    "GatewayError": "exceptions",
    "GovernanceInterceptor": "governance",
    "MCPToolBlockedError": "exceptions",
    "OpTerminatedError": "exceptions",
    "Outcome": "governance",
    "PolicyError": "exceptions",
    "PolicyViolationError": "exceptions",
    "SETTINGS": "core.settings",
    "Setting": "core.settings",
    "Settings": "core.settings",
    "SpawnContext": "core.spawn",
    "ToolCall": "governance",
    "ToolExecutionBlockedError": "exceptions",
    "Verdict": "governance",
    "child_environment": "core.spawn",
    "current_context": "core.assembly",
    "current_spawn_context": "core.spawn",
    "home_directory": "core.settings",
    "init_assembly": "core.assembly",
    "resolve_settings": "core.settings",
    "spawn_context": "core.spawn",
}

__all__ = [
    "SETTINGS",
    "AdapterRegistry",
    "AdapterState",
    "AdapterValidationError",
    "AgentError",
    "AssemblyContext",
    "AssemblyError",
    "ConfigurationError",
    "FrameworkAdapter",
    "GatewayClient",
    "GatewayError",
    "GovernanceInterceptor",
    "MCPToolBlockedError",
    "OpTerminatedError",
    "Outcome",
    "PolicyError",
    "PolicyViolationError",
    "Setting",
    "Settings",
    "SpawnContext",
    "ToolCall",
    "ToolExecutionBlockedError",
    "Verdict",
    "__version__",
    "child_environment",
    "current_context",
    "current_spawn_context",
    "home_directory",
    "init_assembly",
    "resolve_settings",
    "spawn_context",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Not importlib.import_module: it is one more module for something that the statement behind it does.
    module = __import__(f"{__name__}.{home}", fromlist=(name,))
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
