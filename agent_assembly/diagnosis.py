"""What a look at the set-up needs of the SDK: the settings with their problems, the home's files, and the adapters.

Public, and the door through which the doctor takes such things; heavier than `launching`, and not for programs that
start in milliseconds.
"""

from __future__ import annotations

from agent_assembly.adapters.table import ADAPTERS
from agent_assembly.client.spool import SEGMENT_BYTES
from agent_assembly.client.spool_state import SegmentState, SpoolState, delete_draft, spool_state, written_bytes
from agent_assembly.core.bootstrap import EXIT_REFUSED
from agent_assembly.core.config_file import read_config_file
from agent_assembly.core.findings import COLUMNS, Finding, Repair, aligned, plain_table
from agent_assembly.core.local_gateway import (
    LOCAL_SOURCE,
    Probe,
    find_aasm_program,
    gateway_exchange,
    probe,
    read_pid_file,
    split_url,
)
from agent_assembly.core.policy_check import check_policies
from agent_assembly.core.proof import PidFile, holds_lock
from agent_assembly.core.settings import SETTINGS, Setting, Settings, resolve_settings
from agent_assembly.core.target import YES, is_python_name

__all__ = [
    "ADAPTERS",
    "COLUMNS",
    "EXIT_REFUSED",
    "LOCAL_SOURCE",
    "SEGMENT_BYTES",
    "SETTINGS",
    "YES",
    "Finding",
    "PidFile",
    "Probe",
    "Repair",
    "SegmentState",
    "Setting",
    "Settings",
    "SpoolState",
    "aligned",
    "check_policies",
    "delete_draft",
    "find_aasm_program",
    "gateway_exchange",
    "holds_lock",
    "is_python_name",
    "plain_table",
    "probe",
    "read_config_file",
    "read_pid_file",
    "resolve_settings",
    "split_url",
    "spool_state",
    "written_bytes",
]
