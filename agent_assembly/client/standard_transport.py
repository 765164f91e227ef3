"""The transport that needs the standard library alone."""

from __future__ import annotations

import http.client
import io
import ssl
import threading
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from agent_assembly.client.descriptors import connected
from agent_assembly.client.transport import (
    WRITE_BYTES,
    Deadline,
    Prover,
    Response,
    Transport,
    bounded,
    lower,
    malformed,
    timed_out,
    unreachable,
)
from agent_assembly.exceptions import GatewayError

_IDLE_LIMIT = 8


class StandardTransport(Transport):
    """Over `http.client`: connections that nobody uses just now are kept for the next exchange, of whatever thread."""

    def __init__(self, url: str, prover: Prover | None = None) -> None:
        parts = urlsplit(url)
        self._url = url
        self._secure = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._secure else 80)
        self._prefix = parts.path.rstrip("/")
        self._prover = prover
        self._lock = threading.Lock()
        self._idle: list[_Connection] = []
        self._closed = False

    def exchange(self, method: str, path: str, headers: Mapping[str, str], body: bytes, timeout: float) -> Response:
        deadline = Deadline()
        deadline.at = time.monotonic() + timeout
        try:
            return self._attempt(method, path, headers, body, deadline, timeout)
        except GatewayError as error:
            if error.code != "gateway_unreachable" or self._closed:
                raise
        # What else lies idle is as old as the one that broke.
        self._close_idle()
        return self._attempt(method, path, headers, body, deadline, timeout)

    def _attempt(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes, deadline: Deadline, timeout: float
    ) -> Response:
        connection: _Connection | None = None
        reusable = False
        try:
            connection = self._take(deadline)
            connection.http.request(method, self._prefix + path, body=body, headers=dict(headers))
            response = connection.http.getresponse()
            if connection.socket.ended:
                # `http.client` takes the end of the connection for the end of the headers.
                raise malformed(self._url, "half an answer")
            content = bounded(iter(lambda: response.read(65536), b""), self._url)
            if response.length:
                raise malformed(self._url, f"an answer that lacks its last {response.length} bytes")
            reusable = not response.will_close
            return Response(response.status, lower(response.getheaders()), content)
        except TimeoutError:
            raise timed_out(self._url, timeout) from None
        except (http.client.RemoteDisconnected, ssl.SSLError, OSError) as error:
            raise unreachable(self._url, error) from None
        except (http.client.HTTPException, ValueError) as error:
            raise malformed(self._url, error) from None
        finally:
            if connection is not None:
                self._give_back(connection, reusable)

    def _take(self, deadline: Deadline) -> _Connection:
        with self._lock:
            if self._closed:
                raise unreachable(self._url, "the connection was closed here")
            if self._idle:
                connection = self._idle.pop()
                connection.socket.deadline = deadline
                return connection
        connection = connected(lambda: _Connection(self._secure, self._host, self._port, deadline), _Connection.number)
        try:
            if self._prover is not None:
                self._prover(connection.socket.sendall, lambda: connection.socket.recv(65536))
        except BaseException:
            connection.socket.shut()
            raise
        return connection

    def _give_back(self, connection: _Connection, reusable: bool) -> None:
        with self._lock:
            if reusable and not self._closed and len(self._idle) < _IDLE_LIMIT:
                self._idle.append(connection)
                return
        connection.socket.shut()

    def _close_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.socket.shut()

    def close(self) -> None:
        self._closed = True
        self._close_idle()


class _Connection:
    """A connection of `http.client` over a socket that keeps to a deadline."""

    __slots__ = ("http", "socket")

    def __init__(self, secure: bool, host: str, port: int, deadline: Deadline) -> None:
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        self.http = kind(host, port, timeout=deadline.remaining())
        try:
            self.http.connect()
        except BaseException:
            self.http.close()
            raise
        self.socket = _TimedSocket(self.http.sock, deadline)
        self.http.sock = self.socket

    def number(self) -> int:
        return self.socket.fileno()

    def close(self) -> None:
        self.socket.shut()


class _TimedSocket:
    """A socket whose every operation gets what is left of the exchange's time."""

    def __init__(self, inner: Any, deadline: Deadline) -> None:
        self._inner = inner
        self.deadline = deadline
        # Whether the peer has closed, as far as was read.
        self.ended = False

    def _timed(self) -> Any:
        self._inner.settimeout(self.deadline.remaining())
        return self._inner

    def fileno(self) -> int:
        return int(self._inner.fileno())

    def sendall(self, data: Any) -> None:
        view = memoryview(data)
        for start in range(0, len(view), WRITE_BYTES):
            self._timed().sendall(view[start : start + WRITE_BYTES])

    def recv(self, size: int) -> bytes:
        return bytes(self._timed().recv(size))

    def recv_into(self, buffer: Any) -> int:
        size = int(self._timed().recv_into(buffer))
        self.ended = self.ended or not size
        return size

    def makefile(self, *_: Any) -> Any:
        return io.BufferedReader(_RawReader(self))

    def close(self) -> None:
        """Do nothing: `http.client` closes before it reads the body of a last answer. See `shut`."""

    def shut(self) -> None:
        self._inner.close()


class _RawReader(io.RawIOBase):
    def __init__(self, timed: _TimedSocket) -> None:
        self._timed_socket = timed

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._timed_socket.recv_into(buffer)
