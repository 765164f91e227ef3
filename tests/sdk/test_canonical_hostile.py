"""The canonical form of values whose classes have code of their own: none of it runs."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import pydantic
import pytest
from support.canonical_forms import form, in_bytes

from agent_assembly.canonical import clean_text, type_name
from agent_assembly.governance import ToolCall

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
