"""The checks are run at once and to one deadline, and none of them can spoil the table."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

from aasm_py.doctor.examination import as_json, examine, exit_code, repair
from aasm_py.doctor.look import Check, Look
from aasm_py.doctor.runner import run_checks
from aasm_py.doctor.table import CHECKS
from agent_assembly.diagnosis import Finding, Repair

ROOT = Path(__file__).resolve().parents[2]


def _look(seconds: float = 20.0, **environ: str) -> Look:
    return Look(environ, seconds=seconds)


def _says(name: str, *findings: Finding) -> Check:
    return Check(name, "settings", lambda look: list(findings))


def test_rows_come_in_the_order_of_the_table() -> None:
    """Whichever check ends first."""
    gate = threading.Event()

    def late(look: Look) -> Finding:
        gate.wait(10)
        return Finding("late", "ok", "here")

    def early(look: Look) -> Finding:
        gate.set()
        return Finding("early", "ok", "here")

    rows = run_checks(_look(), [Check("late", "home", late), Check("early", "home", early)])
    assert [row.check for row in rows] == ["late", "early"]


def test_a_check_that_hangs_costs_its_own_row() -> None:
    """It fails under its name, the others are shown, and nobody waits beyond the deadline."""
    gate = threading.Event()
    began = time.monotonic()
    rows = run_checks(
        _look(seconds=0.3),
        [
            Check("stuck", "home", lambda look: gate.wait(60) or Finding("stuck", "ok", "no")),
            _says("fine", Finding("fine", "ok", "yes")),
        ],  # type: ignore[arg-type, return-value]
    )
    gate.set()
    assert [(row.check, row.status) for row in rows] == [("stuck", "fail"), ("fine", "ok")]
    assert "did not end in time" in rows[0].found
    assert time.monotonic() - began < 30


def test_a_check_that_breaks_is_a_row_that_fails() -> None:
    """With the error's name, and without a traceback."""

    def broken(look: Look) -> Finding:
        raise KeyError("surprise")

    (row,) = run_checks(_look(), [Check("broken", "home", broken)])
    assert (row.check, row.status) == ("broken", "fail")
    assert "KeyError: 'surprise'" in row.found
    assert row.remedy


def test_what_several_checks_need_is_found_out_once() -> None:
    """Also when they ask at the same moment, and also when it cannot be had."""
    calls: list[str] = []

    def compute() -> int:
        calls.append("value")
        return 7

    def fail() -> int:
        calls.append("error")
        raise OSError("gone")

    def ask(look: Look) -> Finding:
        try:
            look.once("error", fail)
        except OSError as error:
            return Finding("ask", "ok", f"{look.once('value', compute)} {error}")
        raise AssertionError

    look = _look()
    rows = run_checks(look, [Check("ask", "home", ask)] * 8)
    assert {row.found for row in rows} == {"7 gone"}
    assert sorted(calls) == ["error", "value"]


def test_the_exit_code_says_whether_anything_fails() -> None:
    """Warnings do not count."""
    assert exit_code([Finding("a", "warn", "x", "y"), Finding("b", "skip", "x")]) == 0
    assert exit_code([Finding("a", "ok", "x"), Finding("b", "fail", "x", "y")]) == 1


def test_a_repair_that_fails_is_told_and_does_not_stop_the_others(tmp_path: Path) -> None:
    """What could not be done keeps its remedy."""

    def refuse() -> None:
        raise PermissionError(13, "Permission denied")

    done = tmp_path / "done"
    rows = repair(
        [
            Finding("a", "fail", "x", "do it by hand", Repair("mend a", refuse)),
            Finding("b", "warn", "x", "y", Repair("mend b", done.touch)),
            Finding("c", "fail", "x", "y"),
        ]
    )
    assert [(row.check, row.status) for row in rows] == [("a", "fail"), ("b", "ok")]
    assert "Permission denied" in rows[0].found
    assert done.exists()


def test_every_row_of_the_table_of_checks_has_a_name_of_its_own() -> None:
    """Names are what people search for; groups are the ones that are documented."""
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names) > 25
    assert {check.group for check in CHECKS} <= {
        "settings", "home", "gateway", "runtime", "adapters", "modes", "target"
    }  # fmt: skip


def test_every_row_that_is_not_well_says_what_to_type(home: Path) -> None:
    """For a home without a gateway, as for every other state that the other tests make."""
    rows = examine(Look({"AASM_HOME": str(home), "PATH": "/usr/bin:/bin"}))
    assert [row for row in rows if row.status in ("warn", "fail") and not row.remedy] == []
    assert [row for row in rows if not row.found] == []
    schema = json.loads((ROOT / "docs" / "doctor.schema.json").read_text())
    assert set(schema["properties"]["checks"]["items"]["required"]) == set(as_json(rows)["checks"][0])


def test_settings_that_cannot_be_read_hold_nothing_up() -> None:
    """As on a file system that does not answer: the rows are there, and what might be secret is not shown."""
    gate = threading.Event()
    look = _look(seconds=0.5)
    threading.Thread(target=lambda: look.once("settings", lambda: gate.wait(60)), daemon=True).start()
    while "settings" not in look._locks:
        time.sleep(0.001)
    rows = examine(look, [_says("fine", Finding("fine", "ok", "key sk-planted"))])
    gate.set()
    assert [(row.check, row.status) for row in rows] == [("fine", "ok")]
    assert "sk-planted" not in rows[0].found
