"""Records: what is written by hand is the protobuf of spool.proto, and an END fits into the room reserved for it."""

from __future__ import annotations

import random
import re
import string
import time
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from agent_assembly.client import records
from agent_assembly.client.records import END_LIMIT, Writer
from agent_assembly.governance import Outcome, ToolCall, Verdict

PROTO = Path(__file__).resolve().parents[2] / "native" / "wire" / "proto" / "spool.proto"
WRITER = Writer("agent-1", "ab" * 16, "run-0123456789abcdef")


def compiled(source: str) -> dict[str, Any]:
    """Message classes of the .proto text, by name: a compiler for as much of the language as the file uses."""
    source = re.sub(r"//[^\n]*", "", source)
    package = re.search(r"package ([\w.]+);", source)
    assert package is not None
    file = descriptor_pb2.FileDescriptorProto(name="spool.proto", package=package[1], syntax="proto3")
    enums = set(re.findall(r"enum (\w+)", source))
    for kind, name, body in re.findall(r"(message|enum) (\w+) \{(.*?)\}", source, re.DOTALL):
        if kind == "enum":
            enum = file.enum_type.add(name=name)
            for value, number in re.findall(r"(\w+) = (\d+);", body):
                enum.value.add(name=value, number=int(number))
            continue
        message = file.message_type.add(name=name)
        for repeated, type_name, field_name, number in re.findall(r"(repeated )?(\w+) (\w+) = (\d+);", body):
            field = message.field.add(name=field_name, number=int(number), label=3 if repeated else 1)
            scalar = f"TYPE_{type_name.upper()}"
            if scalar in descriptor_pb2.FieldDescriptorProto.Type.keys():  # noqa: SIM118 - no mapping
                field.type = descriptor_pb2.FieldDescriptorProto.Type.Value(scalar)
            else:
                field.type = 14 if type_name in enums else 11
                field.type_name = f".{package[1]}.{type_name}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        message.name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package[1]}.{message.name}"))
        for message in file.message_type
    }


MESSAGES = compiled(PROTO.read_text())


def decoded(name: str, payload: bytes) -> Any:
    message = MESSAGES[name].FromString(payload)
    again = MESSAGES[name]()
    again.CopyFrom(message)
    again.DiscardUnknownFields()
    assert again == message, "fields that spool.proto does not know"
    assert not unknown_bytes(message)
    return message


def unknown_bytes(message: Any) -> int:
    bare = type(message)()
    bare.CopyFrom(message)
    bare.DiscardUnknownFields()
    return int(message.ByteSize() - bare.ByteSize())


def call(**more: Any) -> ToolCall:
    made = ToolCall(tool="delete", framework="langchain", arguments={"a": 1}, **more)
    made.digest = "sha256:" + "0" * 64
    return made


VERDICT = Verdict(
    decision="deny",
    reason="The policy says no.",
    code="rule",
    blocked=True,
    rule="no-deletions",
    policy="company",
    revision="0123abcd/1/7",
)


def test_the_compiler_of_this_test_knows_the_whole_file() -> None:
    """Every message and every field of spool.proto is in the descriptors that the tests compare with."""
    fields = sum(len(cls.DESCRIPTOR.fields) for cls in MESSAGES.values())
    assert (
        fields == len(re.findall(r"^  [\w ]+ = \d+;", PROTO.read_text(), re.MULTILINE)) - 4
    )  # four values of the enum
    assert set(MESSAGES) == set(re.findall(r"^message (\w+)", PROTO.read_text(), re.MULTILINE))


def test_a_segment_header_round_trips() -> None:
    """Every field of the header arrives."""
    before = time.time_ns()
    header = decoded("SegmentHeader", records.segment_header(WRITER, 4711, "höst", "0.1.0"))
    assert (header.format, header.instance_id, header.agent_id) == (1, WRITER.instance_id, "agent-1")
    assert (header.run_id, header.pid, header.host, header.sdk_version) == (WRITER.run_id, 4711, "höst", "0.1.0")
    assert before <= header.created_unix_nanos <= time.time_ns()


def test_a_begin_round_trips() -> None:
    """Every field of call and verdict arrives under its name."""
    made = call(call_id="call-1", server="files", agent_name="helper")
    made.attempt, made.parent_event_id = 300, "cd" * 16
    before = time.time_ns()
    begin = decoded("Record", records.begin_record(WRITER, made, VERDICT))
    assert (begin.event_id, begin.phase, begin.lost) == (made.event_id, 1, 0)
    assert before <= begin.time_unix_nanos <= time.time_ns()
    assert (begin.agent_id, begin.instance_id, begin.run_id) == tuple(WRITER)
    assert not begin.HasField("outcome")
    expected_call = {
        "call_id": "call-1",
        "attempt": 300,
        "kind": "tool",
        "tool": "delete",
        "framework": "langchain",
        "server": "files",
        "agent_name": "helper",
        "parent_event_id": "cd" * 16,
        "digest": made.digest,
        "arguments_bytes": len(made.args_json or b""),
        "cwd": made.cwd,
    }
    assert {field.name: getattr(begin.call, field.name) for field in begin.call.DESCRIPTOR.fields} == expected_call
    expected_verdict = {
        "decision": "deny",
        "reason": "The policy says no.",
        "rule": "no-deletions",
        "policy": "company",
        "revision": "0123abcd/1/7",
        "code": "rule",
        "decided_by": "gateway",
        "enforcement_mode": "enforce",
        "evaluated": True,
    }
    assert {f.name: getattr(begin.verdict, f.name) for f in begin.verdict.DESCRIPTOR.fields} == expected_verdict


def test_what_is_missing_is_empty() -> None:
    """None is the empty value of its field, for arguments too large to be represented as well."""
    made = ToolCall(tool="t", framework="f", arguments={"a": "x" * 100}, limit=10)
    begin = decoded(
        "Record", records.begin_record(Writer("a", "b", ""), made, VERDICT._replace(rule=None, policy=None))
    )
    assert (begin.run_id, begin.call.server, begin.call.agent_name, begin.call.arguments_bytes) == ("", "", "", 0)
    assert (begin.verdict.rule, begin.verdict.policy) == ("", "")


def test_no_argument_is_in_a_record() -> None:
    """Arguments never touch the disk: a record holds their size and digest only."""
    made = ToolCall(tool="t", framework="f", arguments={"password": "hunter2"})
    assert b"hunter2" not in records.begin_record(WRITER, made, VERDICT)
    error = ValueError("hunter2")
    assert b"hunter2" not in records.end_record(WRITER, made, Outcome("raised", "hunter2", error), 1)


@pytest.mark.parametrize("error", [None, ValueError("x"), KeyboardInterrupt(), type("Ü" * 300, (Exception,), {})()])
@pytest.mark.parametrize("duration", [0, -5, 1, 127, 128, 2**32, 2**63, 2**64 - 1, 2**64, 2**200])
def test_an_end_round_trips(error: BaseException | None, duration: int) -> None:
    """Status, type of the error and duration arrive; a duration beyond the field stays within it."""
    made = call()
    end = decoded("Record", records.end_record(WRITER, made, Outcome("raised", error=error), duration))
    assert (end.event_id, end.phase, end.outcome.status) == (made.event_id, 2, "raised")
    assert end.outcome.duration_nanos == max(0, min(duration, 2**64 - 1))
    if error is None:
        assert end.outcome.error_type == ""
    elif isinstance(error, (ValueError, KeyboardInterrupt)):
        assert end.outcome.error_type == type(error).__name__
    else:
        assert end.outcome.error_type.endswith("...")
    assert not end.HasField("call")
    assert not end.HasField("verdict")


def test_an_end_fits_into_its_room_whatever_it_holds() -> None:
    """No identifiers, status, type of error or duration make an END larger than the room reserved for it."""
    source = random.Random(3)
    alphabets = [string.ascii_letters, "é", "🦆", "\ud800", "\x00", "\uffff"]

    def text() -> str:
        return source.choice(alphabets) * source.choice([0, 1, 64, 128, 129, 5000])

    largest = 0
    for _ in range(2000):
        made = call()
        made.event_id = text()
        cls = type("E" + clean(text()), (Exception,), {"__module__": text()})
        outcome = Outcome(text(), error=cls())  # type: ignore[arg-type]
        payload = records.end_record(Writer(text(), text(), text()), made, outcome, source.choice([0, 2**64, 2**70]))
        decoded("Record", payload)
        largest = max(largest, len(payload))
    assert END_LIMIT // 2 < largest <= END_LIMIT


def clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode().replace("\0", "0")


def test_the_type_of_an_error_runs_nothing() -> None:
    """An exception class whose metaclass answers every question with an error still gets its END."""

    class Meta(type):
        def __getattribute__(cls, name: str) -> Any:
            raise RuntimeError(name)

    cls = Meta("Nasty", (Exception,), {"__module__": 5})
    end = decoded("Record", records.end_record(WRITER, call(), Outcome("raised", error=cls()), 1))
    assert end.outcome.error_type == "?.Nasty"


def test_long_text_is_cut_between_characters_and_says_so() -> None:
    """Names and reasons are bounded in bytes, stay valid UTF-8, and end in dots when they were cut."""
    for letter in ("x", "é", "€", "🦆"):
        made = call(server=letter * 5000, call_id=letter * 5000)
        begin = decoded("Record", records.begin_record(WRITER, made, VERDICT._replace(reason=letter * 9000)))
        for value, limit in ((begin.call.server, 512), (begin.call.call_id, 512), (begin.verdict.reason, 4096)):
            assert limit - 6 <= len(value.encode()) <= limit
            assert value.strip(letter) == "..."
    exact = decoded("Record", records.begin_record(WRITER, call(server="s" * 512), VERDICT))
    assert exact.call.server == "s" * 512


def test_a_loss_and_a_batch_round_trip() -> None:
    """A loss carries its number; a batch carries its payloads unchanged and in order."""
    loss = decoded("Record", records.loss_record(WRITER, "ef" * 16, 70000))
    assert (loss.phase, loss.lost, loss.event_id) == (3, 70000, "ef" * 16)
    payloads = [records.loss_record(WRITER, f"{i:032x}", i + 1) for i in range(500)]
    for adopted in (False, True):
        batch = decoded("Batch", records.batch(payloads, adopted))
        assert [record.lost for record in batch.records] == list(range(1, 501))
        assert batch.adopted is adopted
    assert not decoded("Batch", records.batch([])).records


def test_begins_without_end_become_unknown() -> None:
    """Exactly the calls that were begun and not ended get an END, in their writer's name."""
    calls = [call() for _ in range(4)]
    other = Writer("é" * 20, "cd" * 16, "")
    payloads = [records.begin_record(WRITER, each, VERDICT) for each in calls[:3]]
    payloads.append(records.begin_record(other, calls[3], VERDICT))
    payloads.append(records.end_record(WRITER, calls[1], Outcome("returned"), 1))
    payloads.append(records.loss_record(WRITER, calls[0].event_id, 1))
    ends = [decoded("Record", payload) for payload in records.unknown_ends(payloads)]
    assert [end.event_id for end in ends] == [calls[0].event_id, calls[2].event_id, calls[3].event_id]
    assert {(end.phase, end.outcome.status) for end in ends} == {(2, "unknown")}
    assert (ends[0].agent_id, ends[0].instance_id, ends[0].run_id) == tuple(WRITER)
    assert (ends[2].agent_id, ends[2].instance_id, ends[2].run_id) == tuple(other)
    assert records.unknown_ends([]) == []


def test_reading_strange_payloads_raises_nothing() -> None:
    """Payloads of another version, cut or random, are passed over."""
    begin = records.begin_record(WRITER, call(), VERDICT)
    source = random.Random(5)
    for _ in range(3000):
        data = bytearray(begin[: source.randrange(len(begin) + 1)])
        for _ in range(source.randrange(4)):
            if data:
                data[source.randrange(len(data))] = source.randrange(256)
        records.unknown_ends([bytes(data), source.randbytes(source.randrange(40))])
    later = begin + b"\xa5\x01" + b"abcd" + b"\xaa\x01\x03xyz" + b"\xb1\x01" + b"12345678" + b"\xb8\x01\x05"
    assert len(records.unknown_ends([later])) == 1
    swapped = b"\x08\x01" + begin[34:]
    assert len(records.unknown_ends([swapped])) == 1


def test_a_torn_segment_is_one_loss_however_often_it_is_read() -> None:
    """The record of a damaged segment belongs to its writer and has one event id for one file."""
    header = records.segment_header(WRITER, 1, "h", "0")
    one, two = (decoded("Record", records.torn_loss(header, "a-000001.seg")) for _ in range(2))
    assert (one.agent_id, one.instance_id, one.run_id) == tuple(WRITER)
    assert (one.phase, one.lost, one.event_id) == (3, 1, two.event_id)
    assert re.fullmatch("[0-9a-f]{32}", one.event_id)
    assert decoded("Record", records.torn_loss(header, "a-000002.seg")).event_id != one.event_id
