"""What a look at the set-up found: one row a check, and the table of them that needs nothing but a stream.

Loaded when something is refused, also into programs of users: no library but the standard one.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
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


def plain_table(findings: Iterable[Finding]) -> str:
    """The rows as aligned text with a heading, each line indented by two and ended by a line feed."""
    rows = [COLUMNS, *(finding.row() for finding in findings)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]  # noqa: B905
    return "".join(f"  {line}\n" for line in lines)
