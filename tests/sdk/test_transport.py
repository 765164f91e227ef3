"""Transports against real servers that misbehave: bounded in time and size, and nothing is said to strangers."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_assembly.client import transport as module
from agent_assembly.client.gateway import GatewayClient
from agent_assembly.client.transport import ANSWER_LIMIT, HttpxTransport, Response, StandardTransport, Transport
from agent_assembly.core.proof import client_proof, health_proof
from agent_assembly.exceptions import GatewayError
from agent_assembly.governance import ToolCall

Handler = Callable[[socket.socket, int], None]
KINDS = {"httpx": HttpxTransport, "standard": StandardTransport}


class Server:
    """A server whose every connection is handled by `handler(connection, number)` in a thread of its own."""

    def __init__(self, handler: Handler, port: int = 0) -> None:
        self.handler = handler
        self.connections: list[socket.socket] = []
        self.received: list[bytes] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", port), backlog=100)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            number = len(self.connections)
            self.connections.append(connection)
            self.received.append(b"")
            thread = threading.Thread(target=self._handle, args=(connection, number))
            self._threads.append(thread)
            thread.start()

    def _handle(self, connection: socket.socket, number: int) -> None:
        try:
            self.handler(connection, number)
        except OSError:
            pass
        finally:
            connection.close()

    def request(self, connection: socket.socket, number: int) -> bytes:
        """Read one request; empty when the client closed."""
        data = b""
        while True:
            head, separator, body = data.partition(b"\r\n\r\n")
            if separator:
                lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                if len(body) >= (int(lengths[0].split(b":")[1]) if lengths else 0):
                    return data
            chunk = connection.recv(65536)
            if not chunk:
                return b""
            data += chunk
            self.received[number] += chunk

    def close(self) -> None:
        """Die as a killed process does: listener and connections at once."""
        for each in (self._listener, *self.connections):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            each.close()
        self._accepting.join()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(handler: Handler, port: int = 0) -> Server:
        servers.append(Server(handler, port))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture(params=KINDS)
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[..., Transport]]:
    opened: list[Transport] = []

    def open_one(url: str, prover: Any = None) -> Transport:
        opened.append(KINDS[request.param](url, prover))
        return opened[-1]

    yield open_one
    for transport in opened:
        transport.close()
        transport.close()


def answering(server: list[Server], make: Callable[[bytes], bytes], *, keep: bool = True) -> Handler:
    """A handler that answers each request with `make(request)`."""

    def handle(connection: socket.socket, number: int) -> None:
        while request := server[0].request(connection, number):
            connection.sendall(make(request))
            if not keep:
                return

    return handle


def ok(body: bytes = b"{}", headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s" % (len(body), headers, body)


def started(
    serve: Callable[..., Server], make: Callable[[bytes], bytes], port: int = 0, *, keep: bool = True
) -> Server:
    holder: list[Server] = []
    # The handler needs its server, which exists only once the handler is given.
    server = serve(lambda connection, number: answering(holder, make, keep=keep)(connection, number), port)
    holder.append(server)
    return server


def get(transport: Transport, path: str = "/x", timeout: float = 5.0, body: bytes = b"") -> Response:
    return transport.exchange("POST" if body else "GET", path, {"X-Test": "1"}, body, timeout)


def failure(transport: Transport, timeout: float = 5.0, slack: float = 1.0, body: bytes = b"") -> GatewayError:
    began = time.monotonic()
    with pytest.raises(GatewayError) as caught:
        get(transport, timeout=timeout, body=body)
    assert time.monotonic() - began < timeout + slack, "the deadline holds"
    assert "\n" not in str(caught.value)
    assert str(caught.value).isprintable()
    return caught.value


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


def test_connections_are_kept(serve: Callable[..., Server], connect: Callable[..., Transport]) -> None:
    """One exchange after the other uses one connection, from whatever thread."""
    server = started(serve, lambda request: ok())
    transport = connect(server.url)
    for _ in range(5):
        get(transport)
        thread = threading.Thread(target=get, args=(transport,))
        thread.start()
        thread.join()
    assert len(server.connections) == 1


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


def test_a_closed_port_cannot_be_reached(serve: Callable[..., Server], connect: Callable[..., Transport]) -> None:
    """Nobody there: unreachable, at once."""
    server = started(serve, lambda request: ok())
    server.close()
    assert failure(connect(server.url), timeout=0.5).code == "gateway_unreachable"


@pytest.mark.parametrize("reset", [False, True])
def test_a_server_that_closes_without_an_answer_is_asked_twice(
    reset: bool, serve: Callable[..., Server], connect: Callable[..., Transport]
) -> None:
    """A connection that broke before the answer is tried once more on a new one, and no more."""
    holder: list[Server] = []

    def handle(connection: socket.socket, number: int) -> None:
        holder[0].request(connection, number)
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    holder.append(serve(handle))
    assert failure(connect(holder[0].url)).code == "gateway_unreachable"
    assert len(holder[0].connections) == 2


def test_a_second_try_that_works_is_an_answer(serve: Callable[..., Server], connect: Callable[..., Transport]) -> None:
    """One broken connection is not noticed."""
    holder: list[Server] = []

    def handle(connection: socket.socket, number: int) -> None:
        if number:
            answering(holder, lambda request: ok(b"second"))(connection, number)

    holder.append(serve(handle))
    assert get(connect(holder[0].url)).body == b"second"


def test_connections_that_went_stale_are_replaced(
    serve: Callable[..., Server], connect: Callable[..., Transport]
) -> None:
    """After the gateway was restarted, every thread's next exchange works, however many connections lay idle."""
    arrived = threading.Barrier(6)
    first = started(serve, lambda request: ok(b"first") if arrived.wait(10) is not None else b"")
    transport = connect(first.url)
    threads = [threading.Thread(target=get, args=(transport,)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(first.connections) == 6
    first.close()
    started(serve, lambda request: ok(b"second"), first.port)
    for _ in range(8):
        assert get(transport).body == b"second"


def hang(connection: socket.socket) -> None:
    """Keep the connection open until the client has enough of it."""
    while connection.recv(65536):
        pass


SLOW: dict[str, Callable[[socket.socket], None]] = {
    "says nothing": hang,
    "stops in the headers": lambda c: (c.sendall(b"HTTP/1.1 200 OK\r\nContent-"), hang(c))[1],
    "stops in the body": lambda c: (c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"), hang(c))[1],
    "trickles the headers": lambda c: trickle(c, b"HTTP/1.1 200 OK\r\nX: " + b"y" * 500),
    "trickles the body": lambda c: trickle(c, b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n" + b"y" * 500, 40),
    "trickles chunks": lambda c: trickle(
        c, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 99, 45
    ),
    "says continue for ever": lambda c: trickle(c, b"HTTP/1.1 100 Continue\r\n\r\n" * 500, 25, 25),
}


def trickle(connection: socket.socket, data: bytes, at_once: int = 1, each: int = 1) -> None:
    connection.sendall(data[:at_once])
    for position in range(at_once, len(data), each):
        time.sleep(0.02)
        connection.sendall(data[position : position + each])


@pytest.mark.parametrize("name", SLOW)
def test_the_deadline_is_for_the_whole_exchange(
    name: str, serve: Callable[..., Server], connect: Callable[..., Transport]
) -> None:
    """However the time is spent, by silence or byte after byte, it ends when it was said, as a timeout."""
    server = serve(lambda connection, number: SLOW[name](connection))
    error = failure(connect(server.url), timeout=0.3, slack=0.4)
    assert error.code == "gateway_timeout"
    assert str(error) == f"the gateway {server.url} did not answer within 0.3 s"


def test_a_server_that_does_not_read_is_slow_too(
    serve: Callable[..., Server], connect: Callable[..., Transport]
) -> None:
    """Sending a large body is part of the time, also when the peer takes a little of it now and then."""

    def sip(connection: socket.socket, number: int) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        while connection.recv(20_000):
            time.sleep(0.1)

    server = serve(sip)
    error = failure(connect(server.url), timeout=0.6, slack=0.6, body=b"x" * (30 << 20))
    assert error.code in ("gateway_timeout", "gateway_unreachable")


def test_a_connection_after_a_timeout_is_not_used_again(
    serve: Callable[..., Server], connect: Callable[..., Transport]
) -> None:
    """An answer that comes too late is never taken for the answer to the next question."""
    holder: list[Server] = []

    def handle(connection: socket.socket, number: int) -> None:
        while request := holder[0].request(connection, number):
            if b"/slow" in request:
                time.sleep(0.4)
            connection.sendall(ok(b"slow" if b"/slow" in request else b"quick"))

    holder.append(serve(handle))
    transport = connect(holder[0].url)
    assert get(transport, "/quick").body == b"quick"
    with pytest.raises(GatewayError):
        get(transport, "/slow", 0.2)
    for _ in range(3):
        assert get(transport, "/quick").body == b"quick"


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


def test_threads_get_their_own_answers(serve: Callable[..., Server], connect: Callable[..., Transport]) -> None:
    """Many threads at once: each gets the answer to what it asked, and none waits for another."""
    server = started(serve, lambda request: time.sleep(0.05) or ok(request.split(b" ")[1]))
    transport = connect(server.url)
    wrong: list[object] = []

    def work(thread: int) -> None:
        for number in range(5):
            path = f"/{thread}/{number}"
            try:
                answer = get(transport, path)
                if answer.body != path.encode():
                    wrong.append(answer)
            except GatewayError as error:
                wrong.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(40)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert time.monotonic() - began < 6, "forty threads wait for their own five answers, not for each other's"


def test_no_exchange_waits_for_a_free_connection(
    serve: Callable[..., Server], connect: Callable[..., Transport]
) -> None:
    """As many exchanges as there are threads are under way at once: each is answered only when all have arrived."""
    together = threading.Barrier(25)
    server = started(serve, lambda request: ok(b"%d" % together.wait(4)))
    transport = connect(server.url)
    answers: list[bytes] = []
    threads = [threading.Thread(target=lambda: answers.append(get(transport).body)) for _ in range(25)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(int, answers)) == list(range(25))


def test_waiting_threads_keep_their_own_deadlines(
    serve: Callable[..., Server], connect: Callable[..., Transport]
) -> None:
    """While many exchanges hang for long, a short one ends when it was said."""
    server = serve(lambda connection, number: hang(connection))
    transport = connect(server.url)
    threads = [threading.Thread(target=failure, args=(transport, 1.0)) for _ in range(20)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    failure(transport, timeout=0.3, slack=0.5)
    for thread in threads:
        thread.join()


def test_short_lived_threads_leave_no_connections(
    serve: Callable[..., Server], connect: Callable[..., Transport]
) -> None:
    """A program that makes each call in a new thread does not collect descriptors."""
    server = started(serve, lambda request: ok())
    transport = connect(server.url)
    get(transport)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(30):
        thread = threading.Thread(target=get, args=(transport,))
        thread.start()
        thread.join()
    assert len(os.listdir("/proc/self/fd")) <= before + 2


def test_a_closed_transport_is_unreachable(serve: Callable[..., Server], connect: Callable[..., Transport]) -> None:
    """An exchange that comes after closing is an error of ours, without a connection."""
    server = started(serve, lambda request: ok())
    transport = connect(server.url)
    get(transport)
    transport.close()
    assert failure(transport).code == "gateway_unreachable"
    assert len(server.connections) == 1


@pytest.mark.parametrize("url", ["http://does-not-exist.invalid", "https://127.0.0.1:{}", "http://[::1]:{}"])
def test_what_cannot_be_connected_is_unreachable(
    url: str, serve: Callable[..., Server], connect: Callable[..., Transport]
) -> None:
    """Names without address, servers without TLS, and addresses that nobody listens on."""
    server = serve(lambda connection, number: connection.sendall(connection.recv(9)[:0] + b"HTTP/1.1 400 X\r\n\r\n"))
    assert failure(connect(url.format(server.port)), timeout=5, slack=5).code == "gateway_unreachable"


# A home with a secret, and a gateway that proves to know it.

SECRET = b"0123456789abcdef" * 4


@pytest.fixture
def home(tmp_path: Path) -> Path:
    directory = tmp_path / "home"
    directory.mkdir(mode=0o700)
    path = directory / "gateway.secret"
    path.write_bytes(SECRET + b"\n")
    path.chmod(0o600)
    return directory


def proving(
    server_port: Callable[[], int], secret: bytes, answer: Callable[[bytes], bytes]
) -> Callable[[bytes], bytes]:
    """A gateway: proves itself when it is asked on /healthz, else answers with `answer`."""

    def make(request: bytes) -> bytes:
        target = request.split(b" ")[1].decode()
        if target.startswith("/healthz?challenge="):
            proof = health_proof(secret, target.partition("=")[2], server_port())
            return ok(json.dumps({"status": "ok", "proof": proof}).encode())
        return answer(request)

    return make


REGISTERED = {
    "session_token": "token",
    "agent_id": "a",
    "instance_id": "i",
    "enforcement_mode": "enforce",
    "policy_revision": "x/1/1",
    "policies": ["p"],
    "policy_source": "files",
    "gateway_version": "1",
}


def gateway_server(serve: Callable[..., Server], secret: bytes = SECRET, port: int = 0, answer: Any = None) -> Server:
    holder: list[Server] = []
    reply = answer or (lambda request: ok(json.dumps(REGISTERED).encode()))
    holder.append(started(serve, proving(lambda: holder[0].port, secret, reply), port))
    return holder[0]


@pytest.fixture(params=KINDS)
def client_for(
    request: pytest.FixtureRequest, home: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], GatewayClient]]:
    if request.param == "standard":
        # As in an environment that has no httpx.
        monkeypatch.setitem(__import__("sys").modules, "httpx", None)
    opened: list[GatewayClient] = []

    def make(url: str) -> GatewayClient:
        opened.append(GatewayClient(url, home=str(home)))
        assert type(opened[-1]._transport) is KINDS[request.param]
        return opened[-1]

    yield make
    for client in opened:
        client.close()


def secrets_in(server: Server) -> list[bytes]:
    """Requests on a server's connections that are more than the question for its proof."""
    return [data for data in server.received if data and not data.startswith(b"GET /healthz?challenge=")]


def test_a_gateway_that_proves_itself_gets_the_request(
    serve: Callable[..., Server], client_for: Callable[[str], GatewayClient]
) -> None:
    """Each new connection is proven once; then register, check and records travel on it."""
    server = gateway_server(serve)
    client = client_for(server.url)
    assert client.register({"agent_id": "a"}, 5).session_token == "token"
    assert client.register({"agent_id": "a"}, 5).policies == ("p",)
    assert len(server.connections) == 1
    assert server.received[0].count(b"GET /healthz") == 1
    assert server.received[0].count(b"Authorization: AASM-Proof") == 2


LIARS: dict[str, Callable[[bytes], bytes]] = {
    "no proof": lambda request: ok(b'{"status":"ok"}'),
    "a wrong proof": lambda request: ok(b'{"proof":"%s"}' % (b"0" * 64)),
    "another type": lambda request: ok(b'{"proof":[1]}'),
    "odd text": lambda request: ok(b'{"proof":"\\ud800%s"}' % (b"0" * 63)),
    "a list": lambda request: ok(b"[]"),
    "no JSON": lambda request: ok(b"hello"),
    "deep JSON": lambda request: ok(b"[" * 16_000),
    "not found": lambda request: b"HTTP/1.1 404 X\r\nContent-Length: 2\r\n\r\n{}",
    "garbage": lambda request: b"\x00\x01\r\n\r\n",
    "no length": lambda request: b"HTTP/1.1 200 OK\r\n\r\n{}",
    "an absurd length": lambda request: b"HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n{}" % (b"9" * 6000),
    "a length that is none": lambda request: b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n\r\n{}",
    "two lengths": lambda request: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "endless headers": lambda request: b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000,
    "the challenge": lambda request: ok(b'{"proof":"%s"}' % request.split(b" ")[1].partition(b"=")[2]),
}


@pytest.mark.parametrize("name", LIARS)
def test_a_stranger_on_the_port_never_gets_the_request(
    name: str, serve: Callable[..., Server], client_for: Callable[[str], GatewayClient]
) -> None:
    """Whatever it answers to the question for its proof, neither token nor call is sent to it."""
    server = started(serve, LIARS[name], keep=False)
    client = client_for(server.url)
    for act in (
        lambda: client.register({"agent_id": "a"}, 3),
        lambda: client.check("token", ToolCall(tool="t", framework="f", arguments={}), 3),
        lambda: client.send_records("token", b"batch", 3),
    ):
        with pytest.raises(GatewayError) as caught:
            act()
        assert caught.value.code in ("gateway_error", "gateway_unreachable")
        assert "\n" not in str(caught.value)
    assert secrets_in(server) == []
    assert len(server.connections) >= 3


def test_a_stranger_that_hangs_is_bounded(
    serve: Callable[..., Server], client_for: Callable[[str], GatewayClient]
) -> None:
    """The question for the proof is part of the time that was given."""
    server = serve(lambda connection, number: hang(connection))
    began = time.monotonic()
    with pytest.raises(GatewayError) as caught:
        client_for(server.url).register({"agent_id": "a"}, 0.4)
    assert caught.value.code == "gateway_timeout"
    assert time.monotonic() - began < 1
    assert secrets_in(server) == []


def test_an_answer_relayed_from_another_port_proves_nothing(
    serve: Callable[..., Server], client_for: Callable[[str], GatewayClient]
) -> None:
    """A program in the middle that passes the challenge on to the real gateway is found out by the port."""
    real = gateway_server(serve)

    def relay(request: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", real.port)) as connection:
            connection.sendall(request)
            connection.settimeout(5)
            return connection.recv(65536)

    middle = started(serve, relay)
    with pytest.raises(GatewayError, match="is not the gateway of"):
        client_for(middle.url).register({"agent_id": "a"}, 5)
    assert secrets_in(middle) == []


def test_who_takes_the_port_over_gets_nothing(
    serve: Callable[..., Server], client_for: Callable[[str], GatewayClient]
) -> None:
    """The gateway dies in the middle of a session and another program takes its port: it sees nothing of a call."""
    real = gateway_server(serve)
    client = client_for(real.url)
    token = client.register({"agent_id": "a"}, 5).session_token
    real.close()
    thief = gateway_server(serve, secret=b"f" * 64, port=real.port)
    call = ToolCall(tool="t", framework="f", arguments={"secret": "value"})
    for _ in range(3):
        with pytest.raises(GatewayError, match="is not the gateway of"):
            client.check(token, call, 5)
    assert thief.connections
    assert secrets_in(thief) == []
    assert not any(token.encode() in data or b"value" in data for data in thief.received)
    thief.close()
    again = gateway_server(serve, port=real.port)
    assert client.register({"agent_id": "a"}, 5).session_token == "token"
    assert len(again.connections) == 1


def test_without_a_secret_nothing_is_sent(
    serve: Callable[..., Server], client_for: Callable[[str], GatewayClient], home: Path
) -> None:
    """A home whose secret is missing, damaged or open to others is an error that says so."""
    server = gateway_server(serve)
    path = home / "gateway.secret"
    for change in (lambda: path.write_bytes(b"short"), lambda: path.chmod(0o666), path.unlink):
        change()
        with pytest.raises(GatewayError, match="secret"):
            client_for(server.url).register({"agent_id": "a"}, 5)
    assert secrets_in(server) == []


def test_the_proof_of_the_caller_is_used_once() -> None:
    """Two proofs for the same request differ, and the query is not part of what is proven."""
    one, two = (client_proof(SECRET, "POST", "/v1/agents?x=1", b"{}") for _ in range(2))
    assert one != two
    assert one.startswith("AASM-Proof ")
    assert len(one.split(".")) == 3


ANSWERS: dict[str, tuple[bytes, str]] = {
    "no JSON": (ok(b"hello"), "gateway_error"),
    "an empty body": (ok(b""), "gateway_error"),
    "a list": (ok(b"[1]"), "gateway_error"),
    "null": (ok(b"null"), "gateway_error"),
    "deep JSON": (ok(b"[" * 200_000), "gateway_error"),
    "not UTF-8": (ok(b'{"session_token": "\xff"}'), "gateway_error"),
    "nothing of it": (ok(b"{}"), "gateway_error"),
    "another type": (ok(json.dumps({**REGISTERED, "session_token": 5}).encode()), "gateway_error"),
    "another mode": (ok(json.dumps({**REGISTERED, "enforcement_mode": "off"}).encode()), "gateway_error"),
    "no policies": (ok(json.dumps({**REGISTERED, "policies": None}).encode()), "gateway_error"),
    "a stranger's 401": (b"HTTP/1.1 401 X\r\nContent-Length: 6\r\n\r\n<html>", "gateway_error"),
    "a problem": (b'HTTP/1.1 401 X\r\nContent-Length: 23\r\n\r\n{"code":"bad_session" }', "bad_session"),
    "a number for a code": (b'HTTP/1.1 500 X\r\nContent-Length: 10\r\n\r\n{"code":5}', "gateway_error"),
    "a list for a problem": (b"HTTP/1.1 500 X\r\nContent-Length: 2\r\n\r\n[]", "gateway_error"),
    "a code with escapes": (b'HTTP/1.1 500 X\r\nContent-Length: 22\r\n\r\n{"code":"\\u001b[31m" }', "gateway_error"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_wrong_answers_of_a_gateway_are_errors_of_ours(
    name: str, serve: Callable[..., Server], client_for: Callable[[str], GatewayClient]
) -> None:
    """Whatever the gateway answers, the caller gets a registration or a GatewayError with a stable code."""
    answer, code = ANSWERS[name]
    server = gateway_server(serve, answer=lambda request: answer)
    with pytest.raises(GatewayError) as caught:
        client_for(server.url).register({"agent_id": "a"}, 5)
    assert caught.value.code == code
    assert caught.value.status == (int(answer[9:12]) if answer[9:12] != b"200" else None)
    assert str(caught.value).isprintable()


def test_what_a_problem_says_is_fit_for_a_terminal(
    serve: Callable[..., Server], client_for: Callable[[str], GatewayClient]
) -> None:
    """Details of an answer are shown on one line, bounded, and without control characters."""
    problem = json.dumps({"code": "invalid_value", "detail": "a\n\x1b[31mb" + "x" * 1_000_000}).encode()
    answer = b"HTTP/1.1 422 X\r\nContent-Length: %d\r\n\r\n%s" % (len(problem), problem)
    with pytest.raises(GatewayError) as caught:
        client_for(gateway_server(serve, answer=lambda request: answer).url).register({"agent_id": "a"}, 5)
    assert (caught.value.code, caught.value.status) == ("invalid_value", 422)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1200


def test_a_check_sends_the_bytes_that_the_digest_covers(
    serve: Callable[..., Server], client_for: Callable[[str], GatewayClient]
) -> None:
    """The arguments travel as they were captured, byte for byte, in a body that is valid JSON."""
    server = gateway_server(serve, answer=lambda request: ok(b"{}"))
    arguments = {"é": [1.0, 2**70, float("nan"), b"x"], "b": {"a\ud800": None}}
    call = ToolCall(tool="t", framework="f", arguments=arguments)
    client_for(server.url).check("token", call, 5)
    body = server.received[0].rpartition(b"\r\n\r\n")[2]
    assert call.args_json is not None
    assert body.endswith(b',"args":' + call.args_json + b"}")
    assert json.loads(body)["event_id"] == call.event_id


def test_the_httpx_transport_is_preferred(serve: Callable[..., Server]) -> None:
    """With httpx installed it is used; the standard library serves where it is not."""
    transport = module.open_transport("http://127.0.0.1:1")
    assert isinstance(transport, HttpxTransport)
    transport.close()
