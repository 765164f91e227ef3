"""What a program that starts other programs under governance needs of the SDK: which gateway, which mode, which target.

Public, and the only door through which launcher and command line take such things. Imported before the user's program:
see the import rules.
"""

from __future__ import annotations

from agent_assembly.core.local_gateway import (
    Gateway,
    NotStarted,
    announce_run,
    locate,
    probe,
    read_pid_file,
)
from agent_assembly.core.modes import resolve_mode
from agent_assembly.core.settings import SETTINGS, Setting, Settings, resolve_settings
from agent_assembly.core.target import NO, Files, Target, examine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agent_assembly.core.local_gateway import Tried as Tried

__all__ = [
    "NO",
    "SETTINGS",
    "Files",
    "Gateway",
    "NotStarted",
    "Setting",
    "Settings",
    "Target",
    "announce_run",
    "examine",
    "locate",
    "probe",
    "read_pid_file",
    "resolve_mode",
    "resolve_settings",
]
