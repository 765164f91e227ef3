"""The canonical form as text, and a value that has one."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any, ClassVar

from agent_assembly.canonical import MAX_ARGUMENTS_BYTES, canonical_bytes


def form(value: Any, limit: int = MAX_ARGUMENTS_BYTES) -> str:
    """The canonical form of `value`."""
    return canonical_bytes(value, limit).decode()


def in_bytes(data: bytes) -> str:
    """The form of `data`: its length and digest, not its content."""
    return f'{{"$bytes":{{"length":{len(data)},"sha256":"{hashlib.sha256(data).hexdigest()}"}}}}'


@dataclasses.dataclass
class Plain:
    """A dataclass with a default, a field set later, and something that is no field."""

    x: int
    y: list[int] = dataclasses.field(default_factory=list)
    kind: ClassVar[str] = "not a field"
    later: int = dataclasses.field(default=7, init=False)
