"""What people see: tables in colour on a terminal, the same columns without either in a pipe.

The only module that imports Rich. Names and reasons come from agents: nothing of them may steer the terminal.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from aasm_py.streams import clean, terminal_width

if TYPE_CHECKING:
    from aasm_py.plan import LaunchPlan

# Wider than any row: what is piped into another program is never cut or wrapped.
_PIPE_WIDTH = 100_000
_STACKED_BELOW = 70
# Columns that are shown whole or not at all, and those without which a table is still worth reading, in the order in
# which they go.
_WHOLE = ("seq", "time", "decision", "outcome", "state", "pid", "instances", "last seen", "announced at")
_EXPENDABLE = ("pid", "host", "rule", "enforcement mode", "seq", "policy", "run id", "outcome", "last seen", "time")
_LEAST, _GAP = 8, 2
_STYLE = re.compile(r"\x1b\[[0-9;]*m")
_END_BLANKS = re.compile(rf"(?: |{_STYLE.pattern})+$")
_NOTHING = "–"

_DECISIONS = {"allow": "green", "deny": "bold red", "redact": "yellow", "approve": "cyan"}
_OUTCOMES = {"returned": "green", "raised": "yellow", "refused": "red", "open": "dim", "unknown": "bold yellow"}


def audit_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print records as a table, or one line saying that there are none.

    On a terminal the reason stands below the records that were not simply allowed; in a pipe it is the last column.
    """
    console = _console()
    if not rows:
        console.print("no records", style="dim")
        return
    if not console.is_terminal:
        cells = [(*_record(row), Text(clean(row["reason"] or ""))) for row in rows]
        _print(_table(("seq", "time", "agent", "tool", "decision", "rule", "outcome", "reason"), cells))
        return
    names = ("seq", "time", "agent", "tool", "decision", "rule", "outcome")
    lines = _lines(_table(names, [_record(row) for row in rows]))
    # No column wraps, so each record is one line.
    print(lines[0])
    for row, line in zip(rows, lines[1:], strict=True):
        print(line)
        if not _plainly_allowed(row) and row["reason"]:
            _print(Padding(Text(clean(row["reason"]), style="dim"), (0, 0, 0, 6)))


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
    names = [column.replace("_", " ") for column in columns]
    _print(_table(names, [[_cell(column, row.get(column)) for column in columns] for row in rows]))


def launch_plan(plan: LaunchPlan) -> str:
    """Return what `aasm-run` would do as the lines of a table, with the source of each value."""
    rows = [(clean(what), clean(value), clean(source)) for what, value, source in plan.rows()]
    if _console().width < _STACKED_BELOW:
        stacked = Group(*(part for row in rows for part in _stacked(*row)))
        return "".join(f"{line}\n" for line in _lines(stacked))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("what", "value", "from"):
        table.add_column(column, no_wrap=column == "what", overflow="fold")
    for what, value, source in rows:
        table.add_row(Text(what, style="bold"), Text(value), Text(source, style="dim"))
    return "".join(f"{line}\n" for line in _lines(table))


def _stacked(what: str, value: str, source: str) -> Iterator[RenderableType]:
    yield Text(what, style="bold")
    yield Padding(Text(value, overflow="fold"), (0, 0, 0, 2))
    if source:
        yield Padding(Text(f"from: {source}", style="dim", overflow="fold"), (0, 0, 0, 2))


class WaitingLine:
    """A line on standard error with a moving sign, shown from its making until `end()`, which leaves no trace of it."""

    def __init__(self, text: str) -> None:
        self._status = Console(stderr=True, highlight=False, markup=False, emoji=False).status(
            Text(clean(text)), spinner="line"
        )
        self._status.start()

    def change(self, text: str) -> None:
        self._status.update(Text(clean(text)))

    def end(self) -> None:
        self._status.stop()


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


def _table(names: Sequence[str], rows: Sequence[Sequence[Text]]) -> Table:
    """A table of one line a row, as wide as the terminal allows: see `_fit`."""
    natural = [max(cell_len(name), *(row[column].cell_len for row in rows)) for column, name in enumerate(names)]
    widths = _fit(names, natural, _console().width)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, width in widths.items():
        table.add_column(names[column], no_wrap=True, overflow="ellipsis", max_width=width)
    for row in rows:
        table.add_row(*(row[column] for column in widths))
    return table


def _fit(names: Sequence[str], natural: Sequence[int], width: int) -> dict[int, int]:
    """Return the columns that have room in `width`, with their widths.

    First the widest of those that may be cut are cut, evenly; when that does not do, whole columns are left out.
    """
    kept = dict(enumerate(natural))
    for expendable in (None, *_EXPENDABLE):
        if expendable in names:
            kept.pop(names.index(expendable), None)
        cut = [column for column in kept if names[column] not in _WHOLE]
        room = width - _GAP * (len(kept) - 1) - sum(size for column, size in kept.items() if column not in cut)
        if sum(min(natural[column], _LEAST) for column in cut) <= room:
            break
    most = max((natural[column] for column in cut), default=0)
    while most > _LEAST and sum(min(natural[column], most) for column in cut) > room:
        most -= 1
    return {column: min(size, most) if column in cut else size for column, size in kept.items()}


def _print(shown: RenderableType) -> None:
    print("\n".join(_lines(shown)))


def _lines(shown: RenderableType) -> list[str]:
    # Not Console.capture(): older and newer versions of it touch the stream, too, which may be closed.
    file = io.StringIO()
    there = _console()
    console = Console(file=file, force_terminal=there.is_terminal, highlight=False, markup=False, emoji=False)
    console.width = there.width
    console.print(shown)
    # Rich fills rows up to the width of the table; in a pipe those blanks are noise, and on a terminal they may wrap.
    return [_END_BLANKS.sub(lambda end: "".join(_STYLE.findall(end[0])), line) for line in file.getvalue().splitlines()]


def _console() -> Console:
    console = Console(highlight=False, markup=False, emoji=False)
    # Rich's own idea of the width follows whatever COLUMNS says.
    console.width = terminal_width() if console.is_terminal else _PIPE_WIDTH
    return console
