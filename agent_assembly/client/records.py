"""Audit records in the wire form of `native/wire/proto/spool.proto`.

Written out by hand because an agent's environment is full of pins on protobuf: the messages need three field types.
"""

from __future__ import annotations

import hashlib
import time
from typing import Any, NamedTuple

from agent_assembly.canonical import type_name
from agent_assembly.governance import Outcome, ToolCall, Verdict

BEGIN, END, LOSS = 1, 2, 3

# Bounds of what a record stores of one text; the audit log is for facts about calls, not for their content.
_TEXT_LIMIT = 4096
_NAME_LIMIT = 512
_ERROR_TYPE_LIMIT = 160
_STATUS_LIMIT = 16
_ID_LIMIT = 128
_UINT64 = (1 << 64) - 1
# An END holds identifiers and a short error type only: space for it is reserved before the body of the tool runs.
END_LIMIT = 768


class Writer(NamedTuple):
    """Whose records they are."""

    agent_id: str
    instance_id: str
    run_id: str


def segment_header(writer: Writer, pid: int, host: str, sdk_version: str) -> bytes:
    """Encode a `SegmentHeader`."""
    return b"".join(
        (
            _number(1, 1),
            _text(2, writer.instance_id),
            _text(3, writer.agent_id),
            _text(4, writer.run_id),
            _number(5, pid),
            _text(6, host),
            _fixed64(7, time.time_ns()),
            _text(8, sdk_version),
        )
    )


def begin_record(writer: Writer, call: ToolCall, verdict: Verdict) -> bytes:
    """Encode the BEGIN of an attempt: the call without its arguments, and the verdict."""
    return _record(writer, call.event_id, BEGIN) + _message(7, _call(call)) + _message(8, _verdict(verdict))


def end_record(writer: Writer, call: ToolCall, outcome: Outcome, duration_ns: int) -> bytes:
    """Encode the END of an attempt, in at most END_LIMIT bytes."""
    error = "" if outcome.error is None else type_name(type(outcome.error)).removeprefix("builtins.")
    body = _text(1, outcome.status, _STATUS_LIMIT) + _text(2, error, _ERROR_TYPE_LIMIT) + _number(3, duration_ns)
    return _record(writer, call.event_id, END) + _message(9, body)


def loss_record(writer: Writer, event_id: str, lost: int) -> bytes:
    """Encode that `lost` records could not be kept."""
    return _record(writer, event_id, LOSS) + _number(10, lost)


def batch(payloads: list[bytes], adopted: bool = False) -> bytes:
    """Encode a `Batch` of encoded records."""
    return b"".join(_message(1, payload) for payload in payloads) + (_number(2, 1) if adopted else b"")


def torn_loss(header: bytes, name: str) -> bytes:
    """Encode that the segment `name` with this header is damaged behind what could be read of it; always the same."""
    fields = _fields(header)
    writer = Writer(_decoded(fields, 3), _decoded(fields, 2), _decoded(fields, 4))
    return loss_record(writer, hashlib.sha256(f"spool {name}".encode()).hexdigest()[:32], 1)


def unknown_ends(payloads: list[bytes]) -> list[bytes]:
    """Return an END with outcome unknown for each BEGIN among `payloads` that has none: its process died."""
    opened: dict[str, Writer] = {}
    for payload in payloads:
        fields = _fields(payload)
        event_id = _decoded(fields, 1)
        if fields.get(2) == BEGIN:
            opened[event_id] = Writer(_decoded(fields, 4), _decoded(fields, 5), _decoded(fields, 6))
        elif fields.get(2) == END:
            opened.pop(event_id, None)
    outcome = _message(9, _text(1, "unknown"))
    return [_record(writer, event_id, END) + outcome for event_id, writer in opened.items()]


def _record(writer: Writer, event_id: str, phase: int) -> bytes:
    return b"".join(
        (
            _text(1, event_id, _ID_LIMIT),
            _number(2, phase),
            _fixed64(3, time.time_ns()),
            _text(4, writer.agent_id, _ID_LIMIT),
            _text(5, writer.instance_id, _ID_LIMIT),
            _text(6, writer.run_id, _ID_LIMIT),
        )
    )


def _call(call: ToolCall) -> bytes:
    return b"".join(
        (
            _text(1, call.call_id, _NAME_LIMIT),
            _number(2, call.attempt),
            _text(3, call.kind),
            _text(4, call.tool, _NAME_LIMIT),
            _text(5, call.framework),
            _text(6, call.server or "", _NAME_LIMIT),
            _text(7, call.agent_name or "", _NAME_LIMIT),
            _text(8, call.parent_event_id or ""),
            _text(9, call.digest),
            _number(10, len(call.args_json) if call.args_json is not None else 0),
            _text(11, call.cwd, _TEXT_LIMIT),
        )
    )


def _verdict(verdict: Verdict) -> bytes:
    return b"".join(
        (
            _text(1, verdict.decision),
            _text(2, verdict.reason, _TEXT_LIMIT),
            _text(3, verdict.rule or "", _NAME_LIMIT),
            _text(4, verdict.policy or "", _NAME_LIMIT),
            _text(5, verdict.revision or "", _NAME_LIMIT),
            _text(6, verdict.code),
            _text(7, verdict.decided_by),
            _text(8, verdict.enforcement_mode),
            _number(9, int(verdict.evaluated)),
        )
    )


def _fields(payload: bytes) -> dict[int, Any]:
    """Decode the top level of a message that `frames` found whole; stops at what it does not understand."""
    fields: dict[int, Any] = {}
    position = 0
    while position < len(payload):
        key, position = _read_varint(payload, position)
        if key & 7 == 0:
            fields[key >> 3], position = _read_varint(payload, position)
        elif key & 7 == 1:
            position += 8
        elif key & 7 == 2:
            length, position = _read_varint(payload, position)
            fields[key >> 3] = payload[position : position + length]
            position += length
        elif key & 7 == 5:
            position += 4
        else:
            break
    return fields


def _decoded(fields: dict[int, Any], number: int) -> str:
    value = fields.get(number)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else ""


def _read_varint(payload: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(payload) and shift < 64:
        byte = payload[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    return value, position


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(min(value, _UINT64)) if value > 0 else b""


def _fixed64(field: int, value: int) -> bytes:
    return _varint(field << 3 | 1) + value.to_bytes(8, "little")


def _message(field: int, payload: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(payload)) + payload


def _text(field: int, value: str, limit: int = _NAME_LIMIT) -> bytes:
    if not value:
        return b""
    encoded = value.encode("utf-8", "replace")
    if len(encoded) > limit:
        # Cut between characters, and say that it was cut.
        encoded = encoded[: limit - 3].decode("utf-8", "ignore").encode() + b"..."
    return _message(field, encoded)
