"""Real servers that misbehave as a test says, and transports of both kinds that ask them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agent_assembly.client.httpx_transport import HttpxTransport
from agent_assembly.client.standard_transport import StandardTransport
from agent_assembly.client.transport import Response, Transport
from agent_assembly.exceptions import GatewayError

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


def start_servers() -> Iterator[Callable[..., Server]]:
    """The fixture `serve`: `serve(handler, port)` starts a server, which is closed after the test."""
    servers: list[Server] = []

    def start(handler: Handler, port: int = 0) -> Server:
        servers.append(Server(handler, port))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def open_transports(request: pytest.FixtureRequest) -> Iterator[Callable[..., Transport]]:
    """The fixture `connect`: `connect(url)` opens a transport of the kind `request.param`, closed after the test."""
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
    """An ordinary answer."""
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s" % (len(body), headers, body)


def started(
    serve: Callable[..., Server], make: Callable[[bytes], bytes], port: int = 0, *, keep: bool = True
) -> Server:
    """Start a server that answers each request with `make(request)`."""
    holder: list[Server] = []
    # The handler needs its server, which exists only once the handler is given.
    server = serve(lambda connection, number: answering(holder, make, keep=keep)(connection, number), port)
    holder.append(server)
    return server


def get(transport: Transport, path: str = "/x", timeout: float = 5.0, body: bytes = b"") -> Response:
    """Make one exchange: a POST when there is a body."""
    return transport.exchange("POST" if body else "GET", path, {"X-Test": "1"}, body, timeout)


def failure(transport: Transport, timeout: float = 5.0, slack: float = 1.0, body: bytes = b"") -> GatewayError:
    """The error of an exchange that fails in time, and says why on one line."""
    began = time.monotonic()
    with pytest.raises(GatewayError) as caught:
        get(transport, timeout=timeout, body=body)
    assert time.monotonic() - began < timeout + slack, "the deadline holds"
    assert "\n" not in str(caught.value)
    assert str(caught.value).isprintable()
    return caught.value


def hang(connection: socket.socket) -> None:
    """Keep the connection open until the client has enough of it."""
    while connection.recv(65536):
        pass
