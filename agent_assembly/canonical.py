"""The canonical form of a call's arguments: one JSON text for verdict, digest and record.

The form is defined in the reference ("The canonical call"). Converting runs no code of the user's: types are told apart
by their real class, never by `isinstance` (which asks the value's own `__class__`), contents are read by the methods of
the built-in types and from where CPython stores attributes, and everything else is only named.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import hashlib
import json
import math
import pathlib
import re
import sys
import types
import uuid
from typing import Any

MAX_ARGUMENTS_BYTES = 1 << 20
MAX_DEPTH = 64

_INT64 = 1 << 63
_SURROGATES = re.compile("[\ud800-\udfff]")


class ArgumentsTooLarge(Exception):
    """The canonical form would be larger than the bound."""


def canonical_bytes(value: Any, limit: int = MAX_ARGUMENTS_BYTES) -> bytes:
    """Return the canonical JSON of `value` in UTF-8; raise ArgumentsTooLarge beyond `limit` bytes.

    What fails while it is represented (a mapping that changes under the reader, for one) becomes opaque. Work and
    memory are bounded by `limit`, not by the size of `value`.
    """
    plain = _Reader(limit).read(value, 0)
    encoded = _dump(plain)
    if len(encoded) > limit:
        raise ArgumentsTooLarge
    return encoded


def digest(tool: str, agent: str, server: str | None, args_json: bytes) -> str:
    """Return `sha256:` and the hash that binds the arguments to who calls what."""
    hashed = hashlib.sha256(b'{"agent":')
    hashed.update(_dump(clean_text(agent)))
    hashed.update(b',"args":')
    hashed.update(args_json)
    hashed.update(b',"server":')
    hashed.update(_dump(None if server is None else clean_text(server)))
    hashed.update(b',"tool":')
    hashed.update(_dump(clean_text(tool)))
    hashed.update(b"}")
    return f"sha256:{hashed.hexdigest()}"


_encoder = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), check_circular=False)


def _dump(plain: Any) -> bytes:
    return _encoder.encode(plain).encode()


def clean_text(value: str) -> str:
    """Return `value` as plain text that UTF-8 can carry: lone surrogates become U+FFFD."""
    if type(value) is not str:
        # A subclass may have its own idea of every method, this one included.
        value = str.__str__(value)
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        return _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", value)
    return value


# Read by their descriptors: a metaclass could put something of its own in front of `cls.__mro__` and the like.
_mro = type.__dict__["__mro__"].__get__
_namespace = type.__dict__["__dict__"].__get__
_module = type.__dict__["__module__"].__get__
_qualname = type.__dict__["__qualname__"].__get__
_TYPE_NAME_LIMIT = 512


def type_name(cls: type) -> str:
    """Return `module.Type` without running anything that the class or its metaclass defines."""
    parts = []
    for read in (_module, _qualname):
        try:
            part = read(cls)
        except AttributeError:
            part = None
        parts.append(clean_text(part) if issubclass(type(part), str) else "?")
    return ".".join(parts)[:_TYPE_NAME_LIMIT]


def _opaque(value: Any) -> dict[str, str]:
    return {"$opaque": type_name(type(value))}


class _Reader:
    """One conversion: how much may still be read, and which containers are open above the present one."""

    __slots__ = ("_above", "_budget")

    def __init__(self, limit: int) -> None:
        self._budget = limit
        self._above: set[int] = set()

    def _spend(self, amount: int) -> None:
        self._budget -= amount
        if self._budget < 0:
            raise ArgumentsTooLarge

    def read(self, value: Any, depth: int) -> Any:
        self._spend(1)
        if value is None or value is True or value is False:
            return value
        cls = type(value)
        try:
            if cls is str:
                return self._text(value)
            if cls is dict or cls is list:
                return self._container(value, cls, depth)
            if issubclass(cls, enum.Enum):
                return self._enum(value, cls, depth)
            if issubclass(cls, int):
                return self._integer(int.__index__(value))
            if issubclass(cls, float):
                return self._float(float.__float__(value))
            if issubclass(cls, str):
                return self._text(str.__str__(value))
            if issubclass(cls, (bytes, bytearray, memoryview)):
                return _bytes(value, cls)
            text = _plain_text(value, cls)
            return self._container(value, cls, depth) if text is None else self._text(text)
        except ArgumentsTooLarge:
            raise
        except Exception:  # noqa: BLE001 - a container that changed while it was read, a value that cannot be had
            return _opaque(value)

    def _text(self, value: str) -> str:
        self._spend(len(value))
        return clean_text(value)

    def _integer(self, value: int) -> Any:
        if -_INT64 <= value < _INT64:
            return value
        self._spend(value.bit_length() // 4)
        return {"$int": _digits(value)}

    def _float(self, value: float) -> Any:
        return value if math.isfinite(value) else {"$float": _NOT_FINITE[repr(value)]}

    def _enum(self, value: Any, cls: type, depth: int) -> Any:
        stored = _stored(value, cls)
        if depth >= MAX_DEPTH or stored is None:
            return _opaque(value)
        return self.read(stored["_value_"], depth + 1)

    def _container(self, value: Any, cls: type, depth: int) -> Any:
        if depth >= MAX_DEPTH or id(value) in self._above:
            return _opaque(value)
        self._above.add(id(value))
        try:
            if issubclass(cls, dict):
                self._spend_for_items(dict.__len__(value))
                return self._mapping(list(dict.items(value)), depth)
            if issubclass(cls, list):
                self._spend_for_items(list.__len__(value))
                return [self.read(item, depth + 1) for item in list.__iter__(value)]
            if issubclass(cls, tuple):
                self._spend_for_items(tuple.__len__(value))
                return [self.read(item, depth + 1) for item in tuple.__iter__(value)]
            for kind in (set, frozenset):
                if issubclass(cls, kind):
                    self._spend_for_items(kind.__len__(value))
                    items = [self.read(item, depth + 1) for item in tuple(kind.__iter__(value))]
                    return {"$set": sorted(items, key=_dump)}
            fields = _fields(value, cls)
            return _opaque(value) if fields is None else self._mapping(list(fields.items()), depth)
        finally:
            self._above.discard(id(value))

    def _spend_for_items(self, count: int) -> None:
        """Pay for commas and the closing bracket, before a copy is made of what is too large in any case."""
        self._spend(count or 1)

    def _mapping(self, items: list[tuple[Any, Any]], depth: int) -> Any:
        if not all(_is_text(type(key)) for key, _ in items):
            pairs = [[self.read(key, depth + 1), self.read(item, depth + 1)] for key, item in items]
            return {"$map": sorted(pairs, key=_dump)}
        plain: dict[str, Any] = {}
        for key, item in items:
            name = clean_text(key)
            self._spend(len(name) + 3)
            plain["$" + name if name.startswith("$") else name] = self.read(item, depth + 1)
        if len(plain) != len(items):
            # Two keys that differ only by a lone surrogate would hide one another.
            raise ValueError("keys collide")
        return plain


_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
_PATHS = (pathlib.PurePosixPath, pathlib.PureWindowsPath, pathlib.PosixPath, pathlib.WindowsPath)
_UUID_NUMBER: Any = vars(uuid.UUID)["int"]
_DIRECT_BITS = 8192


def _is_text(cls: type) -> bool:
    return issubclass(cls, str) and not issubclass(cls, enum.Enum)


def _bytes(value: Any, cls: type) -> Any:
    if issubclass(cls, bytes):
        data: Any = value if cls is bytes else bytes.__getitem__(value, slice(None))
    elif issubclass(cls, bytearray):
        data = value if cls is bytearray else bytearray.__getitem__(value, slice(None))
    else:
        data = value.cast("B") if value.c_contiguous and value.format == "B" else value.tobytes()
    return {"$bytes": {"length": len(data), "sha256": hashlib.sha256(data).hexdigest()}}


def _digits(value: int) -> str:
    """Decimal digits of an integer in little more than linear time, whatever limit the program has put on `str`."""
    with decimal.localcontext(decimal.Context(prec=decimal.MAX_PREC, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN)):
        powers: dict[int, decimal.Decimal] = {}

        def convert(part: int, bits: int) -> decimal.Decimal:
            if bits <= _DIRECT_BITS:
                return decimal.Decimal(part)
            half = bits >> 1
            if half not in powers:
                powers[half] = decimal.Decimal(2) ** half
            high = part >> half
            return convert(high, bits - half) * powers[half] + convert(part - (high << half), half)

        sign = "-" if value < 0 else ""
        return f"{sign}{convert(abs(value), value.bit_length()):f}"


def _plain_text(value: Any, cls: type) -> str | None:
    """Return the text of a date, time, UUID, decimal or path; None for everything else."""
    if issubclass(cls, dt.datetime):
        return dt.datetime.isoformat(value) if _is_known_zone(dt.datetime.tzinfo.__get__(value)) else None
    if issubclass(cls, dt.date):
        return dt.date.isoformat(value)
    if issubclass(cls, dt.time):
        return dt.time.isoformat(value) if _is_known_zone(dt.time.tzinfo.__get__(value)) else None
    if issubclass(cls, uuid.UUID):
        digits = f"{int.__index__(_UUID_NUMBER.__get__(value)):032x}"
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
    if issubclass(cls, decimal.Decimal):
        # The letter of the exponent follows the program's decimal context.
        return decimal.Decimal.__str__(value).replace("e", "E")
    if any(cls is known for known in _PATHS):
        return str(value)
    return None


def _is_known_zone(zone: Any) -> bool:
    """Whether a time zone is of the standard library; another one computes its offset with code of its own."""
    cls = type(zone)
    return zone is None or cls is dt.timezone or cls is getattr(sys.modules.get("zoneinfo"), "ZoneInfo", None)


def _stored(value: Any, cls: type) -> dict[Any, Any] | None:
    """Return the instance's `__dict__` from where CPython keeps it, or None; raise TypeError for an imitation."""
    for base in _mro(cls):
        descriptor = _namespace(base).get("__dict__")
        if descriptor is not None:
            found = descriptor.__get__(value) if type(descriptor) is types.GetSetDescriptorType else None
            if not issubclass(type(found), dict):
                raise TypeError("no __dict__ of its own")
            return found
    return None


_MISSING = object()
# Class variables and init-only arguments stand among the declared fields and are none.
_FIELD = vars(dataclasses)["_FIELD"]
_FIELD_KIND: Any = vars(dataclasses.Field)["_field_type"]


def _in_class(value: Any, cls: type, name: str) -> Any:
    """Return what slot or class attribute `name` holds; a descriptor with code of its own is returned unread."""
    for base in _mro(cls):
        found = _namespace(base).get(name, _MISSING)
        if found is not _MISSING:
            try:
                return found.__get__(value) if type(found) is types.MemberDescriptorType else found
            except AttributeError:
                return _MISSING
    return _MISSING


def _fields(value: Any, cls: type) -> dict[Any, Any] | None:
    """What an instance of a dataclass or Pydantic model holds; None for other objects."""
    for base in _mro(cls):
        namespace = _namespace(base)
        declared = namespace.get("__dataclass_fields__")
        if type(declared) is dict:
            held = dict(dict.items(_stored(value, cls) or {}))
            for name, field in declared.items():
                if name not in held and type(field) is dataclasses.Field and _FIELD_KIND.__get__(field) is _FIELD:
                    # In a slot, or never set and still the default that the class holds.
                    found = _in_class(value, cls, name)
                    if found is not _MISSING:
                        held[name] = found
            return held
        if "__pydantic_fields__" in namespace or "__pydantic_core_schema__" in namespace:
            held = dict(dict.items(_stored(value, cls) or {}))
            extra = _in_class(value, cls, "__pydantic_extra__")
            return {**held, **dict(dict.items(extra))} if issubclass(type(extra), dict) else held
    return None
