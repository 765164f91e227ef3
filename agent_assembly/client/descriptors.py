"""Files and connections of ours keep clear of the numbers of the standard streams.

A program may have closed one of its streams and still write to it: that must reach neither a record nor the gateway.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from typing import Protocol, TypeVar

_LAST_STANDARD = 2


class _Closable(Protocol):
    def close(self) -> None: ...


Connection = TypeVar("Connection", bound=_Closable)


def raised(descriptor: int) -> int:
    """Return `descriptor`, or in its place another of the same file where it has the number of a standard stream."""
    if descriptor > _LAST_STANDARD:
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _LAST_STANDARD + 1)
    finally:
        os.close(descriptor)


def connected(connect: Callable[[], Connection], number: Callable[[Connection], int]) -> Connection:
    """Return what `connect` opens, again where it has the `number` of a standard stream."""
    low: list[Connection] = []
    try:
        while True:
            connection = connect()
            if number(connection) > _LAST_STANDARD:
                return connection
            # Holds the number until one is open that does not have it.
            low.append(connection)
    finally:
        for each in low:
            each.close()
