"""One examination: the checks run, secrets taken out, repairs made where they were asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from aasm_py.doctor.look import Check, Look
from aasm_py.doctor.redaction import Redactor
from aasm_py.doctor.runner import run_checks
from aasm_py.doctor.table import CHECKS
from agent_assembly.diagnosis import Finding

EXIT_FAILED = 1
_UNKNOWN = "not shown: what is secret could not be read in time"


def examine(look: Look, checks: Sequence[Check] = CHECKS, done: Callable[[Check], None] | None = None) -> list[Finding]:
    """Return what the checks found, in their order and without secrets."""
    redactors: list[Redactor] = []
    # It reads the files that hold secrets, and must not be what hangs in the end.
    preparing = threading.Thread(target=_prepare, args=(look, redactors), daemon=True)
    preparing.start()
    findings = run_checks(look, checks, done)
    preparing.join(look.left())
    return [_shown(finding, redactors[0] if redactors else None) for finding in findings]


def _prepare(look: Look, redactors: list[Redactor]) -> None:
    try:
        redactors.append(Redactor(look))
    except TimeoutError:
        # Without it nothing is shown that could be a secret.
        return


def _shown(finding: Finding, redactor: Redactor | None) -> Finding:
    if redactor is None:
        return Finding(finding.check, finding.status, _UNKNOWN, "see whether the home directory can be read")
    texts = (redactor.text(finding.found), redactor.text(finding.remedy))
    return Finding(redactor.text(finding.check), finding.status, *texts, finding.repair)


def repair(findings: Sequence[Finding]) -> list[Finding]:
    """Make the repairs that the findings offer; return one row each: what was done, or why it could not be."""
    rows = []
    for finding in findings:
        if finding.repair is None:
            continue
        try:
            finding.repair.act()
        except OSError as error:
            said = f"{finding.repair.what}: could not be done: {error.strerror or error}"
            rows.append(Finding(finding.check, "fail", said, finding.remedy))
        else:
            rows.append(Finding(finding.check, "ok", f"{finding.repair.what}: done"))
    return rows


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """The findings in the form of the published schema."""
    return {
        "checks": [
            {"check": check, "status": status, "found": found, "remedy": remedy}
            for check, status, found, remedy in (finding.row() for finding in findings)
        ]
    }


def exit_code(findings: Sequence[Finding]) -> int:
    """0 when nothing fails, else 1."""
    return EXIT_FAILED if any(finding.status == "fail" for finding in findings) else 0
