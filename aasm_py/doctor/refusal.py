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


def show_failing(
    refused: Finding, environ: Mapping[str, str], command: Sequence[str], arguments: Mapping[str, Any]
) -> None:
    """Print to standard error the rows that fail for this launch, and how to see all of them."""
    rows = failing(refused, environ, command, arguments)
    if sys.stderr is None:
        return
    from aasm_py import render_doctor

    render_doctor.diagnosis(rows, sys.stderr)


def failing(
    refused: Finding, environ: Mapping[str, str], command: Sequence[str], arguments: Mapping[str, Any]
) -> list[Finding]:
    """Return the rows that fail for this launch; `refused` is one of them, unless a check says the same better."""
    checks = [check for check in CHECKS if check.group not in _BESIDE_THE_POINT]
    found = [row for row in examine(Look(environ, command, arguments), checks) if row.status == "fail"]
    if any(row.check == refused.check or refused.found in row.found for row in found):
        return found
    return [*found, refused]
