"""Sizes and ages as people read them."""

from __future__ import annotations

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")
_SPANS = ((86400, "d"), (3600, "h"), (60, "min"))


def size(count: float) -> str:
    """Bytes in the largest unit that leaves a number of at least one: `0 bytes`, `1.5 MiB`."""
    unit = 0
    while count >= 1024 and unit < len(_UNITS) - 1:
        count /= 1024
        unit += 1
    return f"{count:.0f} {_UNITS[unit]}" if unit == 0 or count >= 100 else f"{count:.1f} {_UNITS[unit]}"


def age(seconds: float) -> str:
    """Seconds in the largest unit that leaves at least two of it: `90 s`, `5 min`, `3 d`. Never negative."""
    for length, name in _SPANS:
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {name}"
    return f"{max(seconds, 0):.0f} s"


def count(number: int, noun: str) -> str:
    """`1 segment`, `2 segments`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
