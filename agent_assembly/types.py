"""The closed sets of values that settings, verdicts and records are made of."""

from typing import Literal

from agent_assembly.governance import Decision, EnforcementMode, OnDeny, Status

Mode = Literal["auto", "ebpf", "proxy", "sdk-only"]

__all__ = ["Decision", "EnforcementMode", "Mode", "OnDeny", "Status"]
