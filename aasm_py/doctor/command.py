"""What `aasm-py doctor` does: looks, repairs where asked, writes the bundle, and shows what was found."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import TextIO

from aasm_py.doctor.examination import as_json, examine, exit_code, repair
from aasm_py.doctor.look import Look
from aasm_py.progress import Waiting
from agent_assembly.diagnosis import Finding


def diagnose(command: Sequence[str], *, json_wanted: bool = False, fix: bool = False, report: str | None = None) -> int:
    """Print the table of findings about this set-up, and about `command`; return 0 when nothing fails, else 1.

    With `fix` what can safely be repaired is repaired first, and the table shows what is left. Raises
    ConfigurationError when the bundle `report` cannot be written.
    """
    if report is not None:
        from aasm_py.doctor.bundle import check_destination

        check_destination(report)
    look = Look(os.environ, command)
    findings = _examined(look)
    repaired = repair(findings) if fix else []
    if repaired:
        # Everything anew: what a broken file hid may be the next thing to mend.
        look = Look(os.environ, command)
        findings = _examined(look)
    if report is not None:
        from aasm_py.doctor.bundle import write_bundle
        from aasm_py.doctor.redaction import Redactor

        write_bundle(report, look, findings, Redactor(look))
    if json_wanted:
        _print(json.dumps(as_json(findings), indent=2) + "\n")
    else:
        _show(findings)
    # What programs read is on standard output alone.
    stream = sys.stderr if json_wanted else sys.stdout
    for row in repaired:
        _print(f"{'repaired' if row.status == 'ok' else 'not repaired'}  {row.check}: {row.found}\n", stream)
    if fix and not repaired:
        _print("nothing that could safely be repaired was found\n", stream)
    if report is not None:
        _print(f"wrote {report}; read it before you send it to anyone\n", stream)
    return exit_code(findings)


def _examined(look: Look) -> list[Finding]:
    with Waiting("looking") as waiting:
        return examine(look, done=lambda check: waiting(f"looking; {check.name} is done"))


def _show(findings: Sequence[Finding]) -> None:
    from aasm_py import render_doctor

    render_doctor.diagnosis(findings)
    render_doctor.summary(findings)


def _print(text: str, stream: TextIO | None = None) -> None:
    (stream or sys.stdout).write(text)
    (stream or sys.stdout).flush()
