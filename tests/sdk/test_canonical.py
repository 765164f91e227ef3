"""The canonical form: one JSON text for equal values, and two for different ones."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import hashlib
import json
import math
import pathlib
import random
import sys
import uuid
import zoneinfo
from collections import Counter, OrderedDict, UserDict, defaultdict, deque, namedtuple
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import pydantic
import pytest
from support.canonical_forms import Plain, form, in_bytes

from agent_assembly.canonical import ArgumentsTooLarge, canonical_bytes, digest
from agent_assembly.governance import ToolCall


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Word(str, enum.Enum):
    YES = "yes"


class Access(enum.Flag):
    READ = 1
    WRITE = 2


Point = namedtuple("Point", "x y")


@dataclasses.dataclass
class Slotted:
    __slots__ = ("x", "y")
    x: int
    y: int


@dataclasses.dataclass
class Parent:
    x: int


@dataclasses.dataclass
class SlottedChild(Parent):
    __slots__ = ("z",)
    z: int


@dataclasses.dataclass
class WithInitVar:
    x: int
    seed: dataclasses.InitVar[int] = 5


class Model(pydantic.BaseModel):
    name: str
    number: int = 1


class OpenModel(pydantic.BaseModel, extra="allow"):
    name: str


TABLE: list[tuple[Any, str]] = [
    ("text", '"text"'),
    ("", '""'),
    ('"\\/\b\f\n\r\t', '"\\"\\\\/\\b\\f\\n\\r\\t"'),
    ("\x00\x1f\x7f\x80\u2028", '"\\u0000\\u001f\x7f\x80\u2028"'),
    ("é🦆", '"é🦆"'),
    ("a\ud800b\udfff", '"a\ufffdb\ufffd"'),
    (True, "true"),
    (False, "false"),
    (None, "null"),
    (0, "0"),
    (-(2**63), "-9223372036854775808"),
    (2**63 - 1, "9223372036854775807"),
    (2**63, '{"$int":"9223372036854775808"}'),
    (-(2**63) - 1, '{"$int":"-9223372036854775809"}'),
    (10**5000, '{"$int":"1' + "0" * 5000 + '"}'),
    (-(10**20000), '{"$int":"-1' + "0" * 20000 + '"}'),
    (1.0, "1.0"),
    (1e21, "1e+21"),
    (0.1, "0.1"),
    (-0.0, "-0.0"),
    (5e-324, "5e-324"),
    (math.nan, '{"$float":"NaN"}'),
    (math.inf, '{"$float":"Infinity"}'),
    (-math.inf, '{"$float":"-Infinity"}'),
    (b"", in_bytes(b"")),
    (b"abc", in_bytes(b"abc")),
    (bytearray(b"abc"), in_bytes(b"abc")),
    (memoryview(b"abc"), in_bytes(b"abc")),
    (memoryview(b"abcdef")[::2], in_bytes(b"ace")),
    (memoryview(b"abcdef")[::-1], in_bytes(b"fedcba")),
    (memoryview(b"abcdef").cast("H"), in_bytes(b"abcdef")),
    (memoryview(b"abcdef").cast("B", (2, 3)), in_bytes(b"abcdef")),
    (memoryview(b""), in_bytes(b"")),
    ([1, [2], ()], "[1,[2],[]]"),
    ((1, 2), "[1,2]"),
    (Point(1, 2), "[1,2]"),
    ({3, 1, 2}, '{"$set":[1,2,3]}'),
    (frozenset({"b", "a"}), '{"$set":["a","b"]}'),
    (set(), '{"$set":[]}'),
    ({frozenset({1}), frozenset()}, '{"$set":[{"$set":[1]},{"$set":[]}]}'),
    ({"b": 1, "a": 2}, '{"a":2,"b":1}'),
    ({"\uffff": 1, "\U00010000": 2}, '{"\uffff":1,"\U00010000":2}'),
    ({"$a": 1, "$$a": 2, "a$": 3}, '{"$$$a":2,"$$a":1,"a$":3}'),
    ({"$opaque": "x"}, '{"$$opaque":"x"}'),
    ({1: "a", "b": 2}, '{"$map":[["b",2],[1,"a"]]}'),
    ({None: 1}, '{"$map":[[null,1]]}'),
    ({(1, 2): 3}, '{"$map":[[[1,2],3]]}'),
    ({}, "{}"),
    (OrderedDict(b=1, a=2), '{"a":2,"b":1}'),
    (defaultdict(list, a=[1]), '{"a":[1]}'),
    (Counter("aab"), '{"a":2,"b":1}'),
    (Colour.RED, '"red"'),
    (Level.HIGH, "3"),
    (Word.YES, '"yes"'),
    (Access.READ | Access.WRITE, "3"),
    ({Word.YES: 1}, '{"$map":[["yes",1]]}'),
    (dt.date(2026, 1, 2), '"2026-01-02"'),
    (dt.time(1, 2, 3), '"01:02:03"'),
    (dt.datetime(2026, 1, 2, 3, 4, 5, 6), '"2026-01-02T03:04:05.000006"'),
    (dt.datetime(2026, 1, 2, tzinfo=dt.timezone.utc), '"2026-01-02T00:00:00+00:00"'),
    (dt.datetime(2026, 7, 2, tzinfo=zoneinfo.ZoneInfo("Etc/GMT-2")), '"2026-07-02T00:00:00+02:00"'),
    (uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
    (pathlib.Path("/a/b"), '"/a/b"'),
    (pathlib.PureWindowsPath("C:/a"), '"C:\\\\a"'),
    (decimal.Decimal("1.50"), '"1.50"'),
    (decimal.Decimal("1e+500"), '"1E+500"'),
    (decimal.Decimal("-NaN"), '"-NaN"'),
    (Plain(1, [2]), '{"later":7,"x":1,"y":[2]}'),
    (Slotted(1, 2), '{"x":1,"y":2}'),
    (SlottedChild(1, 9), '{"x":1,"z":9}'),
    (WithInitVar(1, 2), '{"x":1}'),
    (dataclasses.make_dataclass("Under", ["__hidden"])(1), '{"__hidden":1}'),
    (Model(name="a"), '{"name":"a","number":1}'),
    (OpenModel(name="a", more=[1]), '{"more":[1],"name":"a"}'),
    (object(), '{"$opaque":"builtins.object"}'),
    (Plain, '{"$opaque":"builtins.type"}'),
    (len, '{"$opaque":"builtins.builtin_function_or_method"}'),
    (1j, '{"$opaque":"builtins.complex"}'),
    (deque([1]), '{"$opaque":"collections.deque"}'),
    (UserDict(a=1), '{"$opaque":"collections.UserDict"}'),
    (MappingProxyType({"a": 1}), '{"$opaque":"builtins.mappingproxy"}'),
    (range(3), '{"$opaque":"builtins.range"}'),
    (dt.timedelta(1), '{"$opaque":"datetime.timedelta"}'),
    (Exception("x"), '{"$opaque":"builtins.Exception"}'),
]


@pytest.mark.parametrize(
    ("value", "expected"), TABLE, ids=[f"{i}-{type(v).__name__}" for i, (v, _) in enumerate(TABLE)]
)
def test_the_table_of_the_contract(value: Any, expected: str) -> None:
    """Each row of the contract's table, at the top and inside other values."""
    assert form(value) == expected
    assert form([value]) == f"[{expected}]"
    assert form({"k": value}) == f'{{"k":{expected}}}'
    json.loads(form(value))


def test_the_limit_of_digits_does_not_matter() -> None:
    """A program that limits the length of integers in text changes nothing in their form."""
    old = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)
    try:
        assert form(10**3000) == '{"$int":"1' + "0" * 3000 + '"}'
    finally:
        sys.set_int_max_str_digits(old)


def test_the_decimal_context_of_the_program_does_not_matter() -> None:
    """Precision, traps and letters of the program's decimal context change nothing."""
    huge = (1 << 50_000) - 1
    expected = form([huge, decimal.Decimal("1e500")])
    with decimal.localcontext() as context:
        context.prec, context.capitals, context.Emax, context.rounding = 3, 0, 5, decimal.ROUND_UP
        for signal in context.traps:
            context.traps[signal] = True
        assert form([huge, decimal.Decimal("1e500")]) == expected


@pytest.mark.parametrize("bits", [64, 8191, 8192, 8193, 16384, 100_001])
def test_digits_of_huge_integers_are_right(bits: int) -> None:
    """Halving large integers gives the digits that `str` gives."""
    source = random.Random(bits)
    old = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        for value in (1 << bits, (1 << bits) - 1, source.getrandbits(bits) | 1 << (bits - 1)):
            assert form(value) == f'{{"$int":"{value}"}}' or value < 1 << 63
            assert form(-value) == f'{{"$int":"{-value}"}}' or value <= 1 << 63
    finally:
        sys.set_int_max_str_digits(old)


def test_the_digest_binds_agent_server_tool_and_arguments() -> None:
    """The digest is SHA-256 over the canonical object of the four, and differs when any of them does."""
    args = {"b": 1, "a": "é"}
    whole = canonical_bytes({"tool": "t", "server": None, "agent": "a", "args": args})
    assert digest("t", "a", None, canonical_bytes(args)) == "sha256:" + hashlib.sha256(whole).hexdigest()
    base = ("t", "a", "s", b"{}")
    others = [("u", "a", "s", b"{}"), ("t", "b", "s", b"{}"), ("t", "a", None, b"{}"), ("t", "a", "s", b'{"x":1}')]
    assert len({digest(*each) for each in (base, *others)}) == 5
    assert digest("t\ud800", "a", None, b"{}") == digest("t\ufffd", "a", None, b"{}")


def random_value(source: random.Random, depth: int = 0) -> Any:
    leaves: list[Callable[[], Any]] = [
        lambda: source.choice([None, True, False, 0, 1, -1, 1.0, 0.0, "", "a", "$", "$a", "$int", "\u2028", "\x01"]),
        lambda: source.randint(-(2**70), 2**70),
        lambda: source.uniform(-1e300, 1e300),
        lambda: "".join(
            chr(source.choice([source.randrange(0xD800), source.randrange(0xE000, 0x110000)])) for _ in "ab"
        ),
        lambda: source.randbytes(source.randrange(4)),
    ]
    if depth > 4:
        return source.choice(leaves)()
    nested: list[Callable[[], Any]] = [
        lambda: [random_value(source, depth + 1) for _ in range(source.randrange(4))],
        lambda: {random_value(source, 9): random_value(source, depth + 1) for _ in range(source.randrange(4))},
        lambda: {f"${source.randrange(9)}": random_value(source, depth + 1) for _ in range(source.randrange(4))},
        lambda: {random_value(source, 9) for _ in range(source.randrange(4))},
    ]
    return source.choice(leaves + nested * 2)()


def rebuilt(value: Any, source: random.Random) -> Any:
    """An equal value from other objects, its mappings and sets filled in another order."""
    if isinstance(value, dict):
        items = [(key, rebuilt(item, source)) for key, item in value.items()]
        source.shuffle(items)
        return dict(items)
    if isinstance(value, set):
        items = list(value)
        source.shuffle(items)
        return set(items)
    if isinstance(value, list):
        return [rebuilt(item, source) for item in value]
    return value


def shape(value: Any) -> Any:
    """What the table tells apart, as a value that Python can compare."""
    if isinstance(value, dict):
        return ("map", frozenset((shape(key), shape(item)) for key, item in value.items()))
    if isinstance(value, set):
        return ("set", frozenset(map(shape, value)))
    if isinstance(value, list):
        return ("list", *map(shape, value))
    return (type(value).__name__, repr(value))


def test_equal_values_have_one_form_and_different_values_have_two() -> None:
    """Over random nested values: valid JSON, the same for a rebuilt equal value, and never shared by unequal ones."""
    source = random.Random(7)
    seen: dict[str, Any] = {}
    for _ in range(4000):
        value = random_value(source)
        text = form(value)
        json.loads(text)
        assert form(rebuilt(value, source)) == text
        known = seen.setdefault(text, value)
        assert shape(known) == shape(value), (known, value)
    assert len(seen) > 2000


def test_the_bound_counts_the_form_exactly() -> None:
    """A form of exactly the bound passes, one byte more is too large, whatever the value is made of."""
    values = ["x" * 500, "é" * 200, "\x00" * 100, [1] * 300, {str(i): i for i in range(80)}, [[]] * 100, 1 << 3000]
    values += [[], {}, (), set(), [()] * 50, {"a": {}}, [{}, [], [[]]], {(): ()}, Model(name="")]
    values += [dict.fromkeys(range(50)), {"$": b"x"}, set(range(60)), [Plain(1)] * 9, decimal.Decimal("1e300")]
    for value in values:
        size = len(canonical_bytes(value))
        assert canonical_bytes(value, size)
        with pytest.raises(ArgumentsTooLarge):
            canonical_bytes(value, size - 1)


def test_collapsing_keys_hide_nothing() -> None:
    """Two keys that would become one by replacing lone surrogates make the mapping opaque."""
    assert form(dict.fromkeys(["\ud800", "\udfff"], 1)) == '{"$opaque":"builtins.dict"}'
    assert form({"\ud800": 1}) == '{"\ufffd":1}'


def test_generators_and_files_are_not_consumed() -> None:
    """What can be read only once is left as it is."""
    numbers = iter([1, 2, 3])
    made = (number for number in [1, 2])
    assert form([numbers, made]) == '[{"$opaque":"builtins.list_iterator"},{"$opaque":"builtins.generator"}]'
    assert list(numbers) == [1, 2, 3]
    assert list(made) == [1, 2]


def test_a_released_memoryview_is_opaque() -> None:
    """What cannot be read any more is opaque."""
    view = memoryview(b"abc")
    view.release()
    assert form(view) == '{"$opaque":"builtins.memoryview"}'


def test_slots_that_hold_nothing_are_left_out() -> None:
    """A field that was deleted or never set does not make the rest unreadable."""
    value = Slotted(1, 2)
    del value.y
    assert form(value) == '{"x":1}'


def test_a_call_knows_whether_its_arguments_changed() -> None:
    """`unchanged` looks at the live arguments again, deep inside too."""
    arguments: dict[str, Any] = {"a": [1]}
    call = ToolCall(tool="t", framework="f", arguments=arguments)
    assert call.unchanged()
    arguments["a"].append(2)
    assert not call.unchanged()
    arguments["a"].pop()
    assert call.unchanged()
    large = ToolCall(tool="t", framework="f", arguments={"a": "x" * 100}, limit=50)
    assert large.args_json is None
