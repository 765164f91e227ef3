"""What `aasm-run` shows when it refuses: the doctor's failing rows, with the refusal itself among them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from aasm_py.doctor.examination import examine
from aasm_py.doctor.look import Look
from aasm_py.doctor.table import CHECKS
from agent_assembly.diagnosis import Finding

# Frameworks are not what a launch is refused for, and modes are only when one is asked for, which the settings show.
_BESIDE_THE_POINT = ("adapters", "modes")
# The groups whose rows say better what the launcher could not do than its own row does.
_BETTER = {"settings": ("settings", "home"), "gateway": ("settings", "home", "gateway"), "target sdk": ("target",)}
# A warning for the doctor, who may have come in the midst of a start; the reason, for a launcher that has waited.
_HELD = "start lock"


def show_failing(
    refused: Finding, environ: Mapping[str, str], command: Sequence[str], arguments: Mapping[str, Any]
) -> None:
    """Print to standard error the rows that fail for this launch; nothing where nobody would see them."""
    if sys.stderr is None:
        return
    rows = failing(refused, environ, command, arguments)
    from aasm_py import render_doctor

    render_doctor.diagnosis(rows, sys.stderr)


def failing(
    refused: Finding, environ: Mapping[str, str], command: Sequence[str], arguments: Mapping[str, Any]
) -> list[Finding]:
    """Return the rows that fail for this launch; `refused` is one of them, unless checks say better what it is for."""
    checks = [check for check in CHECKS if check.group not in _BESIDE_THE_POINT]
    found = [row for row in examine(Look(environ, command, arguments), checks) if _hinders(row, refused)]
    groups = _BETTER.get(refused.check, ())
    better = {refused.check, *(check.name for check in CHECKS if check.group in groups)}
    if any(row.check in better or refused.found in row.found for row in found):
        return found
    return [*found, refused]


def _hinders(row: Finding, refused: Finding) -> bool:
    return row.status == "fail" or (row.check == _HELD and row.status == "warn" and refused.check == "gateway")
