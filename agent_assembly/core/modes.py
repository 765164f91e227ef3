"""Which interception layer a mode stands for, and which of them exist."""

from __future__ import annotations

import sys

from agent_assembly.core.settings import MODES
from agent_assembly.exceptions import ConfigurationError


def resolve_mode(requested: str, platform: str = sys.platform) -> tuple[str, str | None]:
    """Return the mode that runs, and why it is not a stronger one; raise ConfigurationError for one that cannot be had.

    A mode asked for by name is never replaced by a weaker one.
    """
    if requested == "ebpf":
        if not platform.startswith("linux"):
            raise ConfigurationError("eBPF mode is not supported on this platform.")
        raise ConfigurationError("mode ebpf is not available in this build; use mode sdk-only")
    if requested == "proxy":
        raise ConfigurationError("mode proxy is not available in this build; use mode sdk-only")
    if requested == "auto":
        return "sdk-only", "auto resolved to sdk-only: ebpf and proxy are not available in this build"
    if requested != "sdk-only":
        raise ConfigurationError(f"mode must be one of: {', '.join(MODES)}")
    return "sdk-only", None
