"""Points in time as people type them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from aasm_py.moments import parse_moment
from agent_assembly import ConfigurationError

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("text", "ago"),
    [
        ("30s", timedelta(seconds=30)),
        ("10m", timedelta(minutes=10)),
        ("2h", timedelta(hours=2)),
        ("1d", timedelta(days=1)),
        ("1w", timedelta(weeks=1)),
        (" 0s ", timedelta()),
    ],
)
def test_a_length_of_time_is_that_long_ago(text: str, ago: timedelta) -> None:
    """A number and a unit count back from now."""
    assert parse_moment(text, NOW) == NOW - ago


@pytest.mark.parametrize(
    "text", ["2026-01-31T08:00:00Z", "2026-01-31t08:00:00z", "2026-01-31T09:00:00+01:00", "2026-01-31 08:00:00+00:00"]
)
def test_rfc_3339_is_read_with_its_offset(text: str) -> None:
    """Offsets, Z in either case and a blank for the T mean the same moment."""
    assert parse_moment(text) == datetime(2026, 1, 31, 8, tzinfo=timezone.utc)


def test_a_date_is_its_local_midnight() -> None:
    """Without an offset it is local time."""
    assert parse_moment("2026-01-31") == datetime(2026, 1, 31).astimezone()


@pytest.mark.parametrize("text", ["", "soon", "10", "10x", "-5m", "1h30m", "2026-13-01", "999999999w", "\u0661\u0660m"])
def test_anything_else_is_refused_with_what_can_be_written(text: str) -> None:
    """The message shows the forms."""
    with pytest.raises(ConfigurationError, match="is no moment; write 10m, 2h, 1d"):
        parse_moment(text, NOW)
