"""The rows about the agent frameworks of an interpreter: what is there, and whether its calls can be governed."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from typing import Any

from aasm_py.doctor.dry_run import INITIALIZATION, DryRun, dry_run
from aasm_py.doctor.look import Check, Look
from aasm_py.doctor.python_path import unhidden
from aasm_py.doctor.search_path import python_path, without
from aasm_py.doctor.subject import facts, installer, subject
from agent_assembly import __version__
from agent_assembly.diagnosis import Finding

_INITIALIZED = "Failed to initialize assembly runtime: "

Report = Mapping[str, Any]


def adapters(look: Look) -> list[Finding]:
    """One row for each framework that is installed, and one that names them and those that are not."""
    unknown = _unknown(look)
    if unknown:
        return [Finding("adapters", "skip", unknown)]
    found = dry_run(look)
    if found.problem:
        again = installer(look).line(look, f"agent-assembly=={__version__}", again=True)
        return [Finding("adapters", "fail", f"{_python(look)} {found.problem}", unhidden(look) or again)]
    rows = [_adapter(look, name, report) for name, report in found.reports.items() if name != INITIALIZATION]
    return [_summary(look, found), *(row for row in rows if row is not None)]


def initialization(look: Look) -> Finding:
    """What `init_assembly()` would say of its hooks, once the frameworks are imported."""
    unknown = _unknown(look)
    found = dry_run(look) if not unknown else None
    if found is None or found.problem:
        return Finding(INITIALIZATION, "skip", unknown or "see the row adapters")
    report = found.reports[INITIALIZATION]
    if "crashed" in report or "slow" in report:
        return Finding(INITIALIZATION, "skip", "the import of a framework did not get that far; see its row")
    if report["error"] is None:
        return Finding(INITIALIZATION, "ok", "init_assembly() can put its hooks in place")
    error = report["error"]
    said = error if error.startswith(_INITIALIZED) else f"{_INITIALIZED}{report['kind']}: {error}"
    broken = [_adapter(look, name, each) for name, each in found.reports.items() if name != INITIALIZATION]
    remedy = next((row.remedy for row in broken if row is not None and row.status == "fail"), "")
    return Finding(INITIALIZATION, "fail", said, remedy or "see the rows of the adapters")


def _python(look: Look) -> str:
    known = facts(look).facts if look.command else None
    return known["executable"] if known is not None else subject(look).words[0]


def _unknown(look: Look) -> str:
    """Why there is nothing to look at, empty when there is."""
    which = subject(look)
    if not which.words:
        return which.unknown
    if look.command:
        known = facts(look).facts
        if known is None:
            return "the Python of the command does not answer; see the row target python"
        if known["sdk"] is None:
            return "the Python of the command does not hold the SDK; see the row target sdk"
    return ""


def _summary(look: Look, found: DryRun) -> Finding:
    there = [row["key"] for row in found.frameworks if row["present"]]
    others = [str(report["key"]) for report in found.reports.values() if "offered_by" in report]
    absent = [f"{row['key']} ({row['distribution']})" for row in found.frameworks if not row["present"]]
    said = f"installed in {_python(look)}: {', '.join([*there, *others]) or 'no framework that is governed'}"
    return Finding("adapters", "ok", said + (f"; not installed: {', '.join(absent)}" if absent else ""))


def _adapter(look: Look, name: str, report: Report) -> Finding | None:
    """The row of one framework; None for one that a third party's adapter waits for in vain."""
    check = f"adapter {report.get('key') or name.partition(' ')[0]}"
    if "slow" in report or "crashed" in report:
        return _unanswered(look, check, name, report)
    if report["state"] == "absent":
        return None
    if "offered_by" in report:
        return _third_party(look, check, report)
    version = f"{report['distribution']} {report['version'] or 'of an unknown version'}"
    inside = installer(look).line(look, _requirement(report))
    if report["error"] is not None and report["importing"]:
        again = installer(look).line(look, _requirement(report), again=True)
        said = f"{version} cannot be imported: {report['error']}"
        return Finding(check, "fail", said, _hidden(look, report) or again)
    if report["error"] is not None:
        return Finding(check, "fail", f"{version}: {report['error']}", _hidden(look, report) or inside)
    if report["state"] != "armed":
        return Finding(check, "fail", f"{version} was imported, and its adapter is still {report['state']}", inside)
    if report["in_range"] is False:
        return Finding(check, "warn", f"{version}, armed, but its adapter was made for {_range(report)}", inside)
    return Finding(check, "ok", f"{version}, armed (supported: {_range(report)})")


def _third_party(look: Look, check: str, report: Report) -> Finding:
    by = f"adapter of {report['offered_by']}"
    if report["error"] is not None:
        away = installer(look).away(look, report["offered_by"].partition(" ")[0])
        return Finding(check, "fail", f"{by}: {report['error']}", f"{away}; or: mend it")
    version = f" for {report['distribution']} {report['version']}" if report["version"] else ""
    if report["in_range"] is False:
        inside = installer(look).line(look, _requirement(report))
        return Finding(check, "warn", f"{by}{version}, but made for {_range(report)}", inside)
    return Finding(check, "ok", f"{by}{version}, registered")


def _unanswered(look: Look, check: str, name: str, report: Report) -> Finding:
    """The row of a framework in which the child hung, or with which it went down."""
    known = next((row for row in dry_run(look).frameworks if row["key"] == name), None)
    if "slow" in report:
        what = known["trigger"] if known is not None else "agent_assembly.adapters.dry_run"
        trace = shlex.join([*subject(look).plain, "-X", "importtime", "-c", f"import {what}"])
        return Finding(check, "warn", f"was not imported within {report['slow']:.1f} s; see what takes so long", trace)
    if known is not None:
        remedy = installer(look).line(look, _requirement(known), again=True)
    else:
        remedy = installer(look).away(look, name.partition("(")[2].partition(" ")[0])
    return Finding(check, "fail", f"Python {report['crashed']}, while it was imported and armed", remedy)


def _requirement(report: Report) -> str:
    return f"{report['distribution']}{report['supported'][0]}"


def _range(report: Report) -> str:
    return " or ".join(report["supported"])


def _hidden(look: Look, report: Report) -> str:
    """The command that takes what hides the framework, or something that it needs, off PYTHONPATH."""
    entries = python_path(look.environ)
    hiding = [entry for entry in entries if entry and os.path.abspath(entry) in report["hiding"]]
    return without(entries, hiding) if hiding else ""


CHECKS: tuple[Check, ...] = (
    Check("adapters", "adapters", adapters),
    Check(INITIALIZATION, "adapters", initialization),
)
