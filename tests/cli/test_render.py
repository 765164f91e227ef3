"""What people see of values that come from agents."""

from __future__ import annotations

import re

import pytest

from aasm_py.render import audit_table, clean, listing

RECORD = {
    "seq": 7,
    "time": "2026-01-31T08:00:00.123456Z",
    "agent_id": "ada",
    "tool": "search",
    "decision": "deny",
    "rule": None,
    "outcome": None,
    "reason": "",
    "enforcement_mode": "observe",
}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("größer 東京 🙂", "größer 東京 🙂"),
        ("a\tb\nc", r"a\tb\nc"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\x9b31m", r"\x9b31m"),
        ("\u202eabc", r"\u202eabc"),
        ("\ud800", r"\ud800"),
        (None, "None"),
    ],
)
def test_only_what_prints_is_printed(text: object, shown: str) -> None:
    """Controls, direction marks and lone surrogates become escapes; every script and symbol stays."""
    assert clean(text) == shown


def test_an_open_record_and_a_verdict_that_did_not_bite_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    """A call without an end is open; a denial under observe is marked, since the tool ran."""
    audit_table([RECORD])
    assert "deny (observe)" in (line := capsys.readouterr().out.splitlines()[1])
    assert "open" in line
    assert "2026-01-31" in line


@pytest.mark.parametrize("width", ["40", "80", "300"])
def test_on_a_terminal_of_any_width_the_reason_is_readable(
    width: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A reason stands whole below its record; records that were simply allowed have none there."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", width)
    reason = "Tool `delete_file` is denied by rule `no-deletions` of policy `desk`: nobody deletes here."
    audit_table([{**RECORD, "reason": reason}, {**RECORD, "decision": "allow", "reason": "because"}])
    text = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert reason in " ".join(text.split())
    assert "because" not in text
    assert max(len(line) for line in text.splitlines()) <= int(width)


def test_square_brackets_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing of a value is read as markup."""
    listing([{"host": "[bold]x[/bold]", "command": ["python", "[red]"]}], ["host", "command"], "none")
    out = capsys.readouterr().out
    assert "[bold]x[/bold]" in out
    assert "python [red]" in out
