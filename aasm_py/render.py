"""What people see: tables in colour on a terminal, the same columns without either in a pipe.

The only module that imports Rich. Names and reasons come from agents: nothing of them may steer the terminal.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from aasm_py.plan import LaunchPlan

# Wider than any row: what is piped into another program is never cut or wrapped.
_PIPE_WIDTH = 100_000
_NOTHING = "–"

_DECISIONS = {"allow": "green", "deny": "bold red", "redact": "yellow", "approve": "cyan"}
_OUTCOMES = {"returned": "green", "raised": "yellow", "refused": "red", "open": "dim", "unknown": "bold yellow"}


def audit_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print records as a table, or one line saying that there are none.

    On a terminal the reason stands below the records that were not simply allowed; in a pipe it is the last column.
    """
    if not rows:
        _console().print("no records", style="dim")
        return
    console = _console()
    columns = ("seq", "time", "agent", "tool", "decision", "rule", "outcome")
    table = _table(*columns, *(() if console.is_terminal else ("reason",)))
    for row in rows:
        table.add_row(*_record(row), *(() if console.is_terminal else (Text(clean(row["reason"] or "")),)))
    lines = _lines(table)
    if not console.is_terminal:
        print("\n".join(lines))
        return
    # No column wraps, so each record is one line.
    print(lines[0])
    for row, line in zip(rows, lines[1:], strict=True):
        print(line)
        if _plainly_allowed(row) or not row["reason"]:
            continue
        console.print(Padding(Text(clean(row["reason"]), style="dim"), (0, 0, 0, 6)))


def audit_line(row: Mapping[str, Any]) -> None:
    """Print one record as a line, at once; with its reason unless it was simply allowed."""
    reason = [] if _plainly_allowed(row) else [Text(clean(row["reason"] or ""))]
    _console().print(Text("  ").join([*_record(row), *reason]), soft_wrap=True)
    sys.stdout.flush()


def listing(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], nothing: str) -> None:
    """Print `columns` of each row as a table, or the line `nothing`."""
    if not rows:
        _console().print(nothing, style="dim")
        return
    table = _table(*(column.replace("_", " ") for column in columns))
    for row in rows:
        table.add_row(*(_cell(column, row.get(column)) for column in columns))
    _print(table)


def launch_plan(plan: LaunchPlan) -> None:
    """Print what `aasm-run` would do, with the source of each value."""
    table = _table("what", "value", "from")
    for what, value, source in plan.rows():
        table.add_row(Text(clean(what), style="bold"), Text(clean(value)), Text(clean(source), style="dim"))
    _print(table)


def clean(text: object) -> str:
    """Return `text` with everything that could move the cursor, colour or end the line shown as an escape."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in str(text)
    )


def _plainly_allowed(row: Mapping[str, Any]) -> bool:
    return row["decision"] == "allow" and row["outcome"] in (None, "returned")


def _record(row: Mapping[str, Any]) -> tuple[Text, Text, Text, Text, Text, Text, Text]:
    decision, outcome = str(row["decision"] or _NOTHING), str(row["outcome"] or "open")
    mode = row.get("enforcement_mode")
    bites = mode in (None, "enforce") or decision == "allow"
    return (
        Text(str(row["seq"]), style="dim", justify="right"),
        _cell("time", row["time"]),
        _cell("agent_id", row["agent_id"]),
        Text(clean(row["tool"] or _NOTHING), style="bold"),
        Text(clean(decision if bites else f"{decision} ({mode})"), style=_DECISIONS.get(decision, "")),
        _cell("rule", row["rule"]),
        Text(clean(outcome), style=_OUTCOMES.get(outcome, "")),
    )


def _cell(column: str, value: Any) -> Text:
    if value is None or value in ("", []):
        return Text(_NOTHING, style="dim")
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, (list, tuple)):
        return Text(clean(" ".join(map(str, value))))
    if isinstance(value, str) and (column == "time" or column.endswith(("_at", "_seen", "started"))):
        return Text(_moment(value), style="dim")
    return Text(clean(value))


def _moment(text: str) -> str:
    """Return the local time, with the date unless it is today's."""
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone()
    except ValueError:
        return clean(text)
    today = moment.date() == datetime.now(moment.tzinfo).date()
    return moment.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        wraps = column in ("value", "from", "command")
        table.add_column(column, no_wrap=not wraps, overflow="fold" if wraps else "ellipsis")
    return table


def _print(table: Table) -> None:
    print("\n".join(_lines(table)))


def _lines(table: Table) -> list[str]:
    console = _console()
    with console.capture() as capture:
        console.print(table)
    # Rich fills rows up to the width of the table; in a pipe those blanks are noise.
    return [line.rstrip() for line in capture.get().splitlines()]


def _console() -> Console:
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    return console
