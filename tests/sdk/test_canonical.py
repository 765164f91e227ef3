"""The canonical form: one JSON text for equal values, made without running anything of the user's."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import functools
import hashlib
import json
import math
import os
import pathlib
import random
import sys
import threading
import time
import uuid
import zoneinfo
from collections import Counter, OrderedDict, UserDict, defaultdict, deque, namedtuple
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any, ClassVar

import pydantic
import pytest

from agent_assembly.canonical import (
    MAX_ARGUMENTS_BYTES,
    MAX_DEPTH,
    ArgumentsTooLarge,
    canonical_bytes,
    clean_text,
    digest,
    type_name,
)
from agent_assembly.governance import ToolCall


def form(value: Any, limit: int = MAX_ARGUMENTS_BYTES) -> str:
    return canonical_bytes(value, limit).decode()


def parsed(value: Any) -> Any:
    return json.loads(canonical_bytes(value))


def in_bytes(data: bytes) -> str:
    return f'{{"$bytes":{{"length":{len(data)},"sha256":"{hashlib.sha256(data).hexdigest()}"}}}}'


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
class Plain:
    x: int
    y: list[int] = dataclasses.field(default_factory=list)
    kind: ClassVar[str] = "not a field"
    later: int = dataclasses.field(default=7, init=False)


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


ran: list[str] = []


def tattle(name: str) -> Callable[..., Any]:
    def method(*_: Any, **__: Any) -> Any:
        ran.append(name)
        raise RuntimeError(name)

    return method


# fmt: off
SPECIAL = [
    "__repr__", "__str__", "__getattr__", "__getattribute__", "__iter__", "__len__", "__eq__", "__hash__",
    "__bool__", "__contains__", "__getitem__", "__format__", "__bytes__", "__int__", "__float__", "__index__",
    "__dir__", "__lt__", "__le__", "__gt__", "__ge__", "__ne__", "__call__", "__reduce__", "__fspath__",
    "__reduce_ex__", "__sizeof__", "__copy__", "__deepcopy__", "__length_hint__", "__reversed__", "__missing__",
    "__next__", "__enter__", "__complex__", "__buffer__", "__instancecheck__", "__subclasscheck__", "__neg__",
    "__abs__", "__add__", "__sub__", "__and__", "__rshift__", "__round__", "__trunc__", "__mod__", "__getstate__",
    "__get__", "__aiter__", "__await__", "__json__", "items", "keys", "values", "get", "copy", "encode", "decode",
    "isoformat", "tobytes", "utcoffset", "isascii", "startswith", "replace", "join", "bit_length", "hex",
    "as_tuple", "model_dump", "dict", "conjugate", "is_integer",
]
# fmt: on


def hostile_namespace() -> dict[str, Any]:
    names = {name: tattle(name) for name in SPECIAL}
    for name in ("__class__", "__dataclass_params__", "value", "_value_", "name", "__module__", "__wrapped__"):
        names[name] = property(tattle(name))
    return names


class HostileMeta(type):
    """A metaclass that tattles whenever somebody asks its classes for something."""

    __module__ = property(tattle("meta.__module__"))  # type: ignore[assignment]
    __name__ = property(tattle("meta.__name__"))
    __mro__ = property(tattle("meta.__mro__"))  # type: ignore[assignment]
    __dict__ = property(tattle("meta.__dict__"))  # type: ignore[assignment]
    __hash__ = tattle("meta.__hash__")  # type: ignore[assignment]
    __eq__ = tattle("meta.__eq__")  # type: ignore[assignment]
    __repr__ = tattle("meta.__repr__")
    __instancecheck__ = tattle("meta.__instancecheck__")
    __subclasscheck__ = tattle("meta.__subclasscheck__")
    __getattribute__ = tattle("meta.__getattribute__")
    __iter__ = tattle("meta.__iter__")
    __len__ = tattle("meta.__len__")
    __bool__ = tattle("meta.__bool__")


def hostile_values() -> Iterator[tuple[str, Any]]:
    bases: list[tuple[type, tuple[Any, ...]]] = [
        (object, ()),
        (str, ("text",)),
        (int, (5,)),
        (float, (1.5,)),
        (bytes, (b"abc",)),
        (bytearray, (b"abc",)),
        (list, ([1, 2],)),
        (tuple, ([1, 2],)),
        (dict, ({"a": 1},)),
        (set, ([1],)),
        (frozenset, ([1],)),
        (dt.datetime, (2026, 1, 2)),
        (dt.date, (2026, 1, 2)),
        (dt.time, (1, 2)),
        (decimal.Decimal, ("1.5",)),
        (Exception, ("x",)),
    ]
    for base, arguments in bases:
        for meta in (type, HostileMeta):
            cls = meta("Hostile", (base,), hostile_namespace())
            value = base.__new__(cls, *arguments)
            if base in (list, set, bytearray):
                base.__init__(value, *arguments)
            elif base is dict:
                dict.update(value, *arguments)
            yield f"{base.__name__}-{meta.__name__}", value


HOSTILE = dict(hostile_values())


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: [v], lambda v: {"k": v}, lambda v: (v, {"a": [v]})])
def test_no_code_of_the_users_runs(name: str, wrap: Callable[[Any], Any]) -> None:
    """Whatever a class and its metaclass define, converting a value calls none of it, and raises nothing."""
    ran.clear()
    text = form(wrap(HOSTILE[name]))
    assert ran == []
    json.loads(text)


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("str", '"text"'),
        ("int", "5"),
        ("float", "1.5"),
        ("bytes", in_bytes(b"abc")),
        ("bytearray", in_bytes(b"abc")),
        ("list", "[1,2]"),
        ("tuple", "[1,2]"),
        ("dict", '{"a":1}'),
        ("set", '{"$set":[1]}'),
        ("frozenset", '{"$set":[1]}'),
        ("datetime", '"2026-01-02T00:00:00"'),
        ("date", '"2026-01-02"'),
        ("time", '"01:02:00"'),
        ("Decimal", '"1.5"'),
    ],
)
def test_a_subclass_shows_what_it_holds_and_not_what_it_says(base: str, expected: str) -> None:
    """A subclass of a built-in type that overrides everything is read as the built-in type reads it."""
    assert form(HOSTILE[f"{base}-type"]) == expected
    assert form(HOSTILE[f"{base}-HostileMeta"]) == expected


def test_hostile_keys_run_nothing() -> None:
    """Keys of a subclass of text are read as text; other keys by their content."""

    class Key(str):
        __slots__ = ()
        __class__ = property(tattle("__class__"))  # type: ignore[assignment]
        __repr__ = __str__ = __format__ = startswith = isascii = tattle("method")

    table: dict[Any, Any] = {Key("b"): 1, "a": 2}
    ran.clear()
    assert form(table) == '{"a":2,"b":1}'
    assert ran == []


def test_a_lying_class_gains_nothing() -> None:
    """What only claims to be a text, a list or a mapping is opaque, under its real name."""
    for claimed in (str, int, list, dict, bytes, set, enum.Enum, dt.date, pathlib.Path):
        value = type("Liar", (), {"__class__": claimed, "__module__": "m"})()
        assert form(value) == '{"$opaque":"m.Liar"}'


def test_time_zones_of_the_users_compute_nothing() -> None:
    """A time zone with code of its own makes the time opaque."""

    class Zone(dt.tzinfo):
        utcoffset = dst = tzname = tattle("zone")  # type: ignore[assignment]

    ran.clear()
    moment = dt.datetime(2026, 1, 2, tzinfo=Zone())
    assert form([moment, moment.timetz()]) == '[{"$opaque":"datetime.datetime"},{"$opaque":"datetime.time"}]'
    assert ran == []


def test_paths_of_the_users_are_opaque() -> None:
    """A subclass of a path computes its text itself, so it is not asked."""

    class Mine(type(pathlib.Path())):  # type: ignore[misc]
        __str__ = __fspath__ = tattle("path")

    ran.clear()
    assert "$opaque" in form(Mine("/x"))
    assert ran == []


def test_dataclasses_with_code_of_their_own() -> None:
    """Properties, descriptors and overridden `__dict__` are not run; a field behind one is opaque."""

    class Descriptor:
        def __get__(self, *_: Any) -> Any:
            if _[0] is not None:
                ran.append("__get__")
            return 1

        def __set__(self, *_: Any) -> None:
            pass

    @dataclasses.dataclass
    class Guarded:
        x: Any = Descriptor()  # noqa: RUF009 - a descriptor is meant to be shared
        y: int = 2
        __getattribute__ = tattle("__getattribute__")

    ran.clear()
    kept = form(Guarded.__new__(Guarded))
    assert ran == []
    assert json.loads(kept)["x"] == {"$opaque": type_name(Descriptor)}

    @dataclasses.dataclass
    class Imitation:
        x: int = 1
        __dict__ = property(tattle("__dict__"))  # type: ignore[assignment]

    ran.clear()
    assert "$opaque" in form(Imitation.__new__(Imitation))
    assert ran == []


def test_pydantic_models_compute_nothing() -> None:
    """Serializers, computed fields and properties of a model are not run; its private attributes are not arguments."""

    class Computing(pydantic.BaseModel):
        x: int
        _private: str = "p"

        @pydantic.computed_field  # type: ignore[prop-decorator]
        @property
        def y(self) -> int:
            ran.append("y")
            return 1

        @pydantic.field_serializer("x")
        def show(self, value: int) -> int:
            ran.append("show")
            return 0

        @pydantic.model_serializer(mode="wrap")
        def whole(self, handler: Any) -> Any:
            ran.append("whole")
            return {}

    value = Computing(x=3)
    ran.clear()
    assert form(value) == '{"x":3}'
    assert ran == []


def test_slots_that_hold_nothing_are_left_out() -> None:
    """A field that was deleted or never set does not make the rest unreadable."""
    value = Slotted(1, 2)
    del value.y
    assert form(value) == '{"x":1}'


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


def test_type_names_are_plain_text() -> None:
    """Type names that are no text, hostile text, or missing do not run or raise anything."""

    class Name(str):
        __slots__ = ()
        __str__ = __format__ = __repr__ = tattle("name")

    ran.clear()
    assert type_name(type("T", (), {"__module__": 5})) == "?.T"
    assert type_name(type("T", (), {"__module__": Name("m")})) == "m.T"
    assert type_name(type("T", (), {"__module__": "m", "__qualname__": Name("q\ud800")})) == "m.q\ufffd"
    assert ran == []


def test_clean_text_is_plain_text() -> None:
    """Text comes back as the exact type, without lone surrogates; pairs that UTF-16 would join stay two characters."""
    assert clean_text("a\ud83d\ude00") == "a\ufffd\ufffd"
    assert type(clean_text(HOSTILE["str-type"])) is str


def test_a_call_captures_whatever_it_is_given(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Capturing a call raises nothing: names are cleaned, a directory may lack a name in UTF-8, or be gone."""
    odd = os.fsencode(tmp_path) + b"/\xff\xfe"
    os.mkdir(odd)
    monkeypatch.chdir(os.fsdecode(odd))
    call = ToolCall(tool="t\ud800", framework="f", arguments={"x": object()}, server="s\udfff", agent_name="a\udc00")
    assert (call.tool, call.server, call.agent_name) == ("t\ufffd", "s\ufffd", "a\ufffd")
    json.dumps(call.cwd).encode()
    assert call.cwd.encode().decode() == call.cwd
    os.rmdir(odd)
    assert ToolCall(tool="t", framework="f", arguments={}).cwd == ""
    ran.clear()
    ToolCall(tool="t", framework="f", arguments={}, agent_name=HOSTILE["object-type"])
    assert ran == []
    monkeypatch.chdir(tmp_path)


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
