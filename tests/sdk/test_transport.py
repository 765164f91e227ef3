"""Both transports against real servers that misbehave: what is no whole answer is an error, bounded in size."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable

import pytest
from support.bad_servers import KINDS, Server, failure, get, ok, open_transports, start_servers, started

from agent_assembly.client import transport as module
from agent_assembly.client.httpx_transport import HttpxTransport
from agent_assembly.client.transport import ANSWER_LIMIT, Transport

serve = pytest.fixture(start_servers)
connect = pytest.fixture(params=KINDS)(open_transports)


def test_an_exchange(serve: Callable[..., Server], connect: Callable[..., Transport]) -> None:
    """Method, path, headers and body arrive; status, lower-case headers and the whole body come back."""
    server = started(serve, lambda request: ok(b"answer" * 10_000, b"X-Mixed-Case: Yes\r\n"))
    transport = connect(server.url + "/prefix")
    response = transport.exchange("POST", "/v1/check", {"Content-Type": "text/x"}, b"body" * 100_000, 5)
    assert (response.status, response.body) == (200, b"answer" * 10_000)
    assert response.headers["x-mixed-case"] == "Yes"
    head, _, body = server.received[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /prefix/v1/check HTTP/1.1\r\n")
    assert b"content-type: text/x" in head.lower()
    assert b"host: 127.0.0.1:%d" % server.port in head.lower()
    assert b"accept-encoding: identity" in head.lower()
    assert body == b"body" * 100_000


@pytest.mark.parametrize("status", [201, 204, 304, 400, 401, 404, 429, 500, 503])
def test_every_status_is_an_answer(
    status: int, serve: Callable[..., Server], connect: Callable[..., Transport]
) -> None:
    """What a status means is not the transport's business; the connection can be used again."""
    body = b"" if status in (204, 304) else b"text"
    server = started(
        serve, lambda request: b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)
    )
    transport = connect(server.url)
    for _ in range(2):
        response = get(transport)
        assert (response.status, response.body) == (status, body)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(
    status: int, serve: Callable[..., Server], connect: Callable[..., Transport]
) -> None:
    """A credential goes where it was meant to go: the redirect is the answer."""
    other = started(serve, lambda request: ok())
    location = f"Location: {other.url}/stolen".encode()
    server = started(serve, lambda r: b"HTTP/1.1 %d X\r\n%s\r\nContent-Length: 0\r\n\r\n" % (status, location))
    assert get(connect(server.url)).status == status
    assert other.connections == []


def test_chunked_answers_and_interim_answers(serve: Callable[..., Server], connect: Callable[..., Transport]) -> None:
    """A body in chunks and a 100 Continue before the answer are ordinary HTTP."""
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\n\r\n"
    server = started(serve, lambda request: b"HTTP/1.1 100 Continue\r\n\r\n" + chunked)
    transport = connect(server.url)
    for _ in range(2):
        assert get(transport).body == b"abcdefg"
    assert len(server.connections) == 1


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nConnection: close\r\n", b"HTTP/1.0 200 OK\r\n"])
@pytest.mark.parametrize("length", [True, False])
def test_an_answer_that_closes_the_connection_is_read_whole(
    head: bytes, length: bool, serve: Callable[..., Server], connect: Callable[..., Transport]
) -> None:
    """A large body that comes late, on a connection that ends with it, arrives whole."""
    body = os.urandom(300_000)
    holder: list[Server] = []

    def handle(connection: socket.socket, number: int) -> None:
        holder[0].request(connection, number)
        connection.sendall(head + (b"Content-Length: %d\r\n" % len(body) if length else b"") + b"\r\n")
        time.sleep(0.05)
        connection.sendall(body)

    holder.append(serve(handle))
    transport = connect(holder[0].url)
    for _ in range(2):
        assert get(transport).body == body
    assert len(holder[0].connections) == 2


GARBAGE = {
    "text": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 50,
    "zeros": b"\0" * 5000,
    "escape": b"HTTP/1.1 \x1b[31mred\r\n\r\n",
    "no status": b"HTTP/1.1\r\n\r\n",
    "letters for a status": b"HTTP/1.1 abc OK\r\n\r\n",
    "a line without end": b"x" * 300_000,
    "a header without end": b"HTTP/1.1 200 OK\r\nX: " + b"y" * 300_000,
    "headers without end": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50_000,
    "a bad chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n",
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_named_and_shown_safely(
    name: str, serve: Callable[..., Server], connect: Callable[..., Transport]
) -> None:
    """What does not speak HTTP is no gateway; the message can be printed on any terminal."""
    server = started(serve, lambda request: GARBAGE[name], keep=False)
    error = failure(connect(server.url))
    assert error.code == "gateway_error"
    assert str(error).startswith(f"what answers at {server.url} does not speak like a gateway: ")
    assert len(str(error)) < 300


HALVES = {
    "half a status line": b"HTTP/1.1 20",
    "half a header": b"HTTP/1.1 200 OK\r\nContent-Le",
    "headers without their end": b"HTTP/1.1 200 OK\r\nX: y\r\n",
    "half a body": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
    "half a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nhalf",
    "no last chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
}


@pytest.mark.parametrize("name", HALVES)
def test_half_an_answer_is_none(name: str, serve: Callable[..., Server], connect: Callable[..., Transport]) -> None:
    """An answer that stops anywhere is an error, never a shorter answer."""
    server = started(serve, lambda request: HALVES[name], keep=False)
    error = failure(connect(server.url))
    assert error.code in ("gateway_error", "gateway_unreachable")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_huge_answer_is_cut_off(
    chunked: bool, serve: Callable[..., Server], connect: Callable[..., Transport]
) -> None:
    """An answer beyond the bound is an error after as many bytes, not when memory ends."""
    sent = [0]

    def handle(connection: socket.socket, number: int) -> None:
        framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 100000000000"
        connection.sendall(b"HTTP/1.1 200 OK\r\n%s\r\n\r\n" % framing)
        piece = b"x" * 65536
        while True:
            connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
            sent[0] += len(piece)

    error = failure(connect(serve(handle).url), timeout=20)
    assert str(ANSWER_LIMIT) in str(error)
    assert error.code == "gateway_error"
    assert sent[0] < 4 * ANSWER_LIMIT


def test_the_proxies_of_the_environment_are_ignored(
    serve: Callable[..., Server], connect: Callable[..., Transport], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Verdicts do not travel through whatever HTTP_PROXY names."""
    proxy = started(serve, lambda request: ok(b"proxy"))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv(name.lower(), proxy.url)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    server = started(serve, lambda request: ok(b"gateway"))
    assert get(connect(server.url)).body == b"gateway"
    assert proxy.connections == []


def test_the_httpx_transport_is_preferred(serve: Callable[..., Server]) -> None:
    """With httpx installed it is used; the standard library serves where it is not."""
    transport = module.open_transport("http://127.0.0.1:1")
    assert isinstance(transport, HttpxTransport)
    transport.close()
