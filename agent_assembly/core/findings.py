"""What a look at the set-up found: one row a check, and the table of them that needs nothing but a stream.

Loaded when something is refused, also into programs of users: no library but the standard one.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Literal

    Status = Literal["ok", "warn", "fail", "skip"]

COLUMNS = ("check", "status", "what was found", "what to do")


class Repair:
    """Something safe that mends what a check found: `what` says it in a few words, `act` does it and may raise OSError.

    Acting twice is the same as once, and nothing that was recorded is lost by it.
    """

    __slots__ = ("act", "what")

    def __init__(self, what: str, act: Callable[[], None]) -> None:
        self.what = what
        self.act = act


class Finding:
    """What one check found: `found` as a fact in one line, `remedy` as what to type.

    Of `status`: "fail" does not work, "warn" works but not as it should, "ok" was looked at, "skip" could not be.
    """

    __slots__ = ("check", "found", "remedy", "repair", "status")

    def __init__(self, check: str, status: Status, found: str, remedy: str = "", repair: Repair | None = None) -> None:
        self.check = check
        self.status: Status = status
        self.found = found
        self.remedy = remedy
        self.repair = repair

    def row(self) -> tuple[str, str, str, str]:
        """The row in the order of `COLUMNS`; line ends become blanks."""
        return (self.check, self.status, " ".join(self.found.split()), " ".join(self.remedy.split()))

    def __repr__(self) -> str:
        return f"Finding({self.check!r}, {self.status!r}, {self.found!r}, {self.remedy!r})"


def aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    """The rows as lines of text below the heading, each cell as wide as its column."""
    rows = [COLUMNS, *rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]  # noqa: B905


def plain_table(findings: Iterable[Finding]) -> str:
    """The findings below a heading, what to do on a line of its own; lines are indented by two, ended by a line feed.

    Whoever prints it knows no terminal's width: long cells side by side would be cut apart anywhere.
    """
    rows = [(*COLUMNS[:3], ""), *(finding.row() for finding in findings)]
    name, status = (max(len(row[column]) for row in rows) for column in (0, 1))
    lines = []
    for row in rows:
        lines.append(f"  {row[0].ljust(name)}  {row[1].ljust(status)}  {row[2]}\n")
        if row[3]:
            lines.append(f"{' ' * (name + status + 6)}-> {row[3]}\n")
    return "".join(lines)
