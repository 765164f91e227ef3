"""What happens to a call when no verdict can be had: nothing runs unchecked under enforce, and records say why."""

from __future__ import annotations

import http.server
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from langchain_core.tools import BaseTool, tool
from sdk.conftest import Marks
from support.gateway import Gateway
from support.programs import aasm_py

from agent_assembly import AssemblyContext, ToolExecutionBlockedError

Initialise = Callable[..., AssemblyContext]


def denied(call: Callable[[], object]) -> ToolExecutionBlockedError:
    with pytest.raises(ToolExecutionBlockedError) as caught:
        call()
    return caught.value


def test_a_killed_gateway_denies_and_records_reach_the_log_later(
    house: Gateway, initialise: Initialise, marks: Marks
) -> None:
    """Killed in the midst of a run, every further call is denied; both kinds of record survive until it is back."""
    with initialise():
        marks.read_record.invoke({"key": "before"})
        house.kill()
        error = denied(lambda: marks.read_record.invoke({"key": "after"}))
        assert error.code == "gateway_unreachable"
        house.start(port=house.port)
        marks.read_record.invoke({"key": "again"})
    assert marks.ran() == ["read_record-again", "read_record-before"]
    rows = house.audit()
    assert [
        (row["decision"], row["code"], row["outcome"]) for row in sorted(rows, key=lambda row: row["event_id"])
    ] == [
        ("allow", "default", "returned"),
        ("deny", "gateway_unreachable", "refused"),
        ("allow", "default", "returned"),
    ]
    assert house.verify().returncode == 0


def test_a_stopped_gateway_denies_within_the_timeout(
    house: Gateway, initialise: Initialise, marks: Marks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway that accepts and never answers costs `check_timeout`, not for ever."""
    monkeypatch.setenv("AASM_CHECK_TIMEOUT", "0.5")
    with initialise():
        house.pause()
        began = time.monotonic()
        error = denied(lambda: marks.read_record.invoke({"key": "1"}))
        assert time.monotonic() - began < 5
        assert error.code == "gateway_timeout"
        house.resume()
    assert marks.ran() == []


def test_under_observe_the_call_passes_and_the_record_says_that_there_was_no_verdict(
    house: Gateway, initialise: Initialise, marks: Marks
) -> None:
    """Observe never stops a program; what it could not check is written down as such."""
    with initialise(enforcement_mode="observe"):
        house.kill()
        marks.delete_record.invoke({"key": "1"})
        house.start(port=house.port)
    (row,) = house.audit()
    assert (row["code"], row["evaluated"], row["outcome"]) == ("gateway_unreachable", False, "returned")
    assert marks.ran() == ["delete_record-1"]


@contextmanager
def impostor(port: int) -> Iterator[list[bytes]]:
    """Someone else's server on the gateway's port, which allows everything; yields what it was sent."""
    received: list[bytes] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            received.append(self.requestline.encode() + str(self.headers).encode() + body)
            event_id = json.loads(body).get("event_id") if body.startswith(b"{") else None
            said = json.dumps(
                {
                    "status": "ok",
                    "version": "0.1.0",
                    "proof": "0" * 64,
                    "decision": "allow",
                    "decision_id": event_id,
                    "code": "rule",
                    "reason": "Anything goes.",
                }
            ).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        do_GET = do_POST = do_DELETE = answer

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        allow_reuse_address = True
        daemon_threads = True

    server = Server(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_an_impostor_on_the_gateways_port_is_not_believed(house: Gateway, initialise: Initialise, marks: Marks) -> None:
    """Whoever takes the port over gets neither the session token nor the arguments, and its verdict is none."""
    with initialise():
        marks.read_record.invoke({"key": "1"})
        port = house.port
        house.kill()
        with impostor(port) as received:
            error = denied(lambda: marks.read_record.invoke({"key": "secret-argument"}))
        assert error.code == "gateway_error"
        assert received
        assert not any(b"secret-argument" in request or b"Authorization" in request for request in received)
        house.start(port=port)
    assert marks.ran() == ["read_record-1"]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x00\xff\x00\xff",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\noops",
        b'HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{"decision":"allow"}',
    ],
    ids=["closes", "garbage", "half", "401", "500", "unproven"],
)
def test_what_does_not_speak_like_a_gateway_denies(
    answer: bytes, house: Gateway, initialise: Initialise, marks: Marks
) -> None:
    """Whatever comes back instead of a proof, the body does not run."""
    with initialise():
        port = house.port
        house.kill()
        with socket.create_server(("127.0.0.1", port)) as listener:

            def serve() -> None:
                while True:
                    try:
                        connection, _ = listener.accept()
                    except OSError:
                        return
                    with connection:
                        connection.recv(65536)
                        connection.sendall(answer)

            thread = threading.Thread(target=serve, daemon=True)
            thread.start()
            error = denied(lambda: marks.read_record.invoke({"key": "1"}))
            listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        assert error.code in ("gateway_error", "gateway_unreachable")
        house.start(port=port)
    assert marks.ran() == []


def test_arguments_beyond_the_bound_are_denied(house: Gateway, initialise: Initialise, marks: Marks) -> None:
    """A verdict on part of the arguments would be none."""
    with initialise():
        error = denied(lambda: marks.read_record.invoke({"key": "x" * (1 << 20)}))
    assert error.code == "arguments_too_large"
    assert marks.ran() == []
    (row,) = house.audit()
    assert (row["decision"], row["code"], row["outcome"]) == ("deny", "arguments_too_large", "refused")


def test_arguments_that_change_during_the_check_are_denied(house: Gateway, initialise: Initialise) -> None:
    """What runs is what was judged, or it does not run."""
    ran: list[object] = []

    @tool
    def take(values: list[int]) -> str:
        """Takes a list."""
        ran.append(values)
        return "taken"

    values = [1]
    stop = threading.Event()

    def mutate() -> None:
        while not stop.is_set():
            values.append(1)
            time.sleep(0.0001)

    with initialise():
        thread = threading.Thread(target=mutate)
        thread.start()
        try:
            error = denied(lambda: take.invoke({"values": values}))
        finally:
            stop.set()
            thread.join()
    assert error.code == "arguments_changed"
    assert ran == []
    (row,) = house.audit(decision="deny")
    assert (row["agent_verdict"]["code"], row["outcome"]) == ("arguments_changed", "refused")
    (shown,) = json.loads(aasm_py(["audit", "list", "--decision", "deny", "--json"], house.home).stdout)
    assert (shown["decision"], shown["code"]) == ("deny", "arguments_changed")


def test_arguments_that_cannot_be_represented_are_marked_and_nothing_of_theirs_is_run(
    house: Gateway, initialise: Initialise
) -> None:
    """An object that raises when it is looked at is opaque to the policy, and the tool gets it untouched."""

    class Hostile:
        def __iter__(self) -> Iterator[object]:
            raise AssertionError("looked at")

        __len__ = __bool__ = __reduce__ = __iter__  # type: ignore[assignment]

    got: list[object] = []

    class Takes(BaseTool):
        name: str = "takes"
        description: str = "takes anything"

        def _run(self, thing: object) -> str:
            got.append(thing)
            return "ok"

    hostile = Hostile()
    with initialise():
        assert Takes().run({"thing": hostile}) == "ok"
    assert got == [hostile]
    (row,) = house.audit()
    assert row["outcome"] == "returned"


def test_a_full_spool_denies_under_enforce(
    house: Gateway, initialise: Initialise, marks: Marks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that could not be recorded does not run; when there is room again, calls run and the loss is known."""
    spool = house.home / "spool"
    with initialise() as context:
        spool.rmdir()
        spool.write_text("in the way")
        error = denied(lambda: marks.read_record.invoke({"key": "1"}))
        assert error.code == "spool_full"
        assert any("could not be kept" in reason for reason in context.degraded)
        spool.unlink()
        marks.read_record.invoke({"key": "2"})
    assert marks.ran() == ["read_record-2"]


def test_a_gateway_started_anew_on_a_new_home_is_joined_again(
    house: Gateway, initialise: Initialise, marks: Marks
) -> None:
    """Its secret and its sessions are gone: the SDK reads the new secret and registers again."""
    with initialise():
        house.stop()
        for name in ("gateway.secret", "operator.token"):
            os.unlink(house.home / name)
        house.start(port=house.port)
        marks.read_record.invoke({"key": "1"})
    assert marks.ran() == ["read_record-1"]
