"""The small HTTP exchange of the launcher, against servers that answer as no server should."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from agent_assembly.core.exchange import decode_json, encode_json, http_exchange
from agent_assembly.exceptions import GatewayError

Answer = Callable[[socket.socket], None]
Serve = Callable[[Answer], int]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Answer every connection to a free port with the given function; return the port."""
    listeners: list[socket.socket] = []

    def start(answer: Answer) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def loop() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    try:
                        answer(connection)
                    except OSError:
                        pass

        threading.Thread(target=loop, daemon=True).start()
        return int(listener.getsockname()[1])

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def says(data: bytes) -> Answer:
    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(data)

    return answer


def ask(port: int, timeout: float = 2.0) -> tuple[int, dict[str, str], bytes]:
    return http_exchange("127.0.0.1", port, "GET", "/healthz", {}, b"", timeout)


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokmore", b"ok"),
        (b"HTTP/1.1 200 OK\r\n\r\nto the end", b"to the end"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n", b"abcde"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", b"x"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
    ],
)
def test_reads_every_framing_that_a_server_may_choose(serve: Serve, data: bytes, body: bytes) -> None:
    """A body ends with its length, its last chunk, or the connection."""
    assert ask(serve(says(data)))[2] == body


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"x" * 200_000,
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 3_000_000,
    ],
)
def test_what_is_no_gateway_is_called_so(serve: Serve, data: bytes) -> None:
    """Garbage, half answers and floods give GatewayError gateway_error (or unreachable, when the flood is cut off)."""
    with pytest.raises(GatewayError) as caught:
        ask(serve(says(data)))
    assert caught.value.code in ("gateway_error", "gateway_unreachable")


def test_a_trickle_ends_at_the_deadline(serve: Serve) -> None:
    """A server that sends a byte now and then does not hold the caller longer than it wanted to wait."""

    def trickle(connection: socket.socket) -> None:
        connection.recv(65536)
        for _ in range(100):
            connection.sendall(b"H")
            time.sleep(0.05)

    began = time.monotonic()
    with pytest.raises(GatewayError) as caught:
        ask(serve(trickle), timeout=0.4)
    assert caught.value.code == "gateway_timeout"
    assert time.monotonic() - began < 2.0


def test_a_silent_server_ends_at_the_deadline(serve: Serve) -> None:
    """A server that accepts and says nothing gives gateway_timeout."""
    with pytest.raises(GatewayError) as caught:
        ask(serve(lambda connection: time.sleep(1.0)), timeout=0.2)
    assert caught.value.code == "gateway_timeout"


def test_nobody_listening_is_unreachable() -> None:
    """A refused connection gives gateway_unreachable, and says so in words."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(GatewayError, match="connection refused") as caught:
        ask(port)
    assert caught.value.code == "gateway_unreachable"


def test_a_name_is_resolved(serve: Serve) -> None:
    """Hosts may be names; those that do not exist are unreachable."""
    port = serve(says(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
    assert http_exchange("localhost", port, "GET", "/", {}, b"", 5.0)[0] == 200
    with pytest.raises(GatewayError, match="cannot be resolved"):
        http_exchange("no-such-host.invalid", port, "GET", "/", {}, b"", 5.0)


@pytest.mark.parametrize(
    "value", [None, True, 0, -5, 2**80, "", 'quo"te\n\u2028é\U0001f600', [], {}, {"a": [1, {"b": None}], "c": "d"}]
)
def test_json_is_the_standard_librarys(value: object) -> None:
    """What is encoded reads back equal, here and in the standard library."""
    text = encode_json(value)
    assert json.loads(text) == value
    assert decode_json(text.encode()) == value


@pytest.mark.parametrize("data", [b"", b"{", b"[1,]", b"nope", b"{} {}", b'{"a" 1}', b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_a_value_error(data: bytes) -> None:
    """Garbage never raises anything else."""
    with pytest.raises(ValueError):  # noqa: PT011 - the type is the contract
        decode_json(data)
