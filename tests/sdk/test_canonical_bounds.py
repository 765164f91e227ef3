"""The canonical form of what is huge, endless or changing: bounded in time, size and depth."""

from __future__ import annotations

import decimal
import enum
import functools
import json
import pathlib
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from support.canonical_forms import Plain, form

from agent_assembly.canonical import MAX_DEPTH, ArgumentsTooLarge, canonical_bytes

HUGE: dict[str, Callable[[], Any]] = {
    "text": lambda: "x" * 200_000_000,
    "list": lambda: [None] * 20_000_000,
    "tuple": lambda: (None,) * 20_000_000,
    "shared lists": lambda: functools.reduce(lambda inner, _: [inner, inner], range(60), ["x"]),
    "shared maps": lambda: functools.reduce(lambda inner, _: {"a": inner, "b": inner}, range(60), {}),
    "dict": lambda: dict.fromkeys(range(3_000_000)),
    "set": lambda: set(range(3_000_000)),
    "integer": lambda: 1 << 200_000_000,
    "integer within the first estimate": lambda: (1 << 3_490_000) - 1,
    "keys": lambda: {"k" * 50_000_000: 1},
    "decimal": lambda: decimal.Decimal("1" * 5_000_000),
    "path": lambda: pathlib.PurePosixPath("x" * 50_000_000),
    "many huge": lambda: ["x" * 1_000_000] * 1000,
}


@pytest.mark.parametrize("name", HUGE)
def test_what_is_huge_is_refused_quickly(name: str) -> None:
    """Time is bounded by the bound of the form, not by the size of the value."""
    value = HUGE[name]()
    began = time.monotonic()
    with pytest.raises(ArgumentsTooLarge):
        canonical_bytes(value)
    assert time.monotonic() - began < 5


def test_a_name_of_a_type_is_short() -> None:
    """An opaque value costs at most a line, however its type is called."""
    value = type("x" * 1_000_000, (), {})()
    assert len(canonical_bytes(value)) < 600


def test_cycles_and_depth_end() -> None:
    """A cycle is opaque where it closes, and so is what is nested deeper than the bound; siblings are no cycle."""
    loop: list[Any] = [1]
    loop.append(loop)
    assert form(loop) == '[1,{"$opaque":"builtins.list"}]'
    table: dict[str, Any] = {}
    table["self"] = {"again": table}
    assert form(table) == '{"self":{"again":{"$opaque":"builtins.dict"}}}'
    shared = [1]
    assert form([shared, shared]) == "[[1],[1]]"
    held = Plain(1)
    held.y = [held]  # type: ignore[list-item]
    assert '"$opaque"' in form(held)
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    assert form(deep) == "[" * MAX_DEPTH + '{"$opaque":"builtins.list"}' + "]" * MAX_DEPTH


def test_an_enum_of_itself_ends() -> None:
    """An enum whose value is the enum again is opaque instead of endless."""

    class Odd(enum.Enum):
        ONE = 1

    Odd.ONE._value_ = Odd.ONE
    assert "$opaque" in form(Odd.ONE)


def test_changing_values_are_read_without_harm() -> None:
    """Containers that another thread changes meanwhile give valid JSON, something opaque, or too much; no error."""
    table: dict[Any, Any] = {str(i): [i] for i in range(100)}
    items: list[Any] = list(range(100))
    group: set[int] = set(range(100))
    stop = threading.Event()

    def change() -> None:
        source = random.Random(1)
        while not stop.is_set():
            key = str(source.randrange(200))
            table.pop(key, None) if source.random() < 0.5 else table.update({key: [key]})
            items.append(key) if len(items) < 150 else items.clear()
            group.symmetric_difference_update({source.randrange(200)})

    thread = threading.Thread(target=change)
    thread.start()
    try:
        end = time.monotonic() + 1
        while time.monotonic() < end:
            json.loads(canonical_bytes([table, items, group]))
    finally:
        stop.set()
        thread.join()


def test_a_growing_list_ends_at_the_bound() -> None:
    """A list that grows as fast as it is read ends in too large, not in never."""
    stop = threading.Event()
    items: list[Any] = [0] * 1000
    thread = threading.Thread(target=lambda: [items.extend([0] * 1000) for _ in iter(stop.is_set, True)] and None)
    thread.start()
    try:
        began = time.monotonic()
        with pytest.raises(ArgumentsTooLarge):
            [canonical_bytes(items, 200_000) for _ in range(10_000)]
        assert time.monotonic() - began < 20
    finally:
        stop.set()
        thread.join()
