"""Points in time as people type them."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

from agent_assembly import ConfigurationError

_AGO = re.compile(r"([0-9]{1,9})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_moment(text: str, now: datetime | None = None) -> datetime:
    """Return the moment that `text` names: `10m` ago (s, m, h, d, w), or RFC 3339; raise ConfigurationError else.

    A date without time is its midnight, a time without offset is local.
    """
    ago = _AGO.fullmatch(text.strip())
    now = now or datetime.now(timezone.utc)
    try:
        if ago:
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        # Python 3.10 reads neither the Z nor a lower-case t.
        moment = datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text.strip().replace("t", "T")))
        return moment.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        raise ConfigurationError(
            f"{text!r} is no moment; write 10m, 2h, 1d (that long ago), 2026-01-31 or 2026-01-31T08:00:00Z"
        ) from None
