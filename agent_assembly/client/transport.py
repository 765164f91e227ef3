"""One HTTP exchange with the gateway, bounded in time and size, over connections that the gateway has proven to own.

`Transport` is the interface; `HttpxTransport` is the usual one, `StandardTransport` needs the standard library alone
and serves where the SDK runs as an injected copy beside a program that has no httpx. Neither uses the environment's
proxies.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, NoReturn
from urllib.parse import urlsplit

from agent_assembly.exceptions import GatewayError

ANSWER_LIMIT = 8 << 20
_WRITE_BYTES = 16 << 10
_IDLE_LIMIT = 8
# Handed a function that sends bytes on a new connection and one that reads from it; raises when the peer is not ours.
Prover = Callable[[Callable[[bytes], None], Callable[[], bytes]], None]


class Response(NamedTuple):
    """Status, headers with lower-case names, and the whole body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Transport(ABC):
    """Exchanges requests with one gateway; safe in threads."""

    @abstractmethod
    def exchange(self, method: str, path: str, headers: Mapping[str, str], body: bytes, timeout: float) -> Response:
        """Return the answer; raise GatewayError after `timeout` seconds in all, however slowly the bytes come.

        A connection that broke before the answer began is tried once more on a new one: every request of ours may
        arrive twice.
        """

    @abstractmethod
    def close(self) -> None:
        """Close every connection. Idempotent."""


class _Deadline(threading.local):
    """When the exchange of the present thread has to be over."""

    at: float = 0.0

    def remaining(self) -> float:
        left = self.at - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline has passed")
        return left


def unreachable(url: str, cause: object) -> GatewayError:
    return GatewayError(f"the gateway {url} cannot be reached: {cause}", code="gateway_unreachable")


def timed_out(url: str, timeout: float) -> GatewayError:
    return GatewayError(f"the gateway {url} did not answer within {timeout:g} s", code="gateway_timeout")


def malformed(url: str, cause: object) -> GatewayError:
    shown = "".join(letter if letter.isprintable() else "?" for letter in str(cause)[:120])
    return GatewayError(f"what answers at {url} does not speak like a gateway: {shown}", code="gateway_error")


class HttpxTransport(Transport):
    """Over httpx, with keep-alive connections shared by all threads."""

    def __init__(self, url: str, prover: Prover | None = None) -> None:
        import httpcore
        import httpx

        self._url = url
        self._deadline = _Deadline()
        self._httpx = httpx
        context = httpx.create_ssl_context(trust_env=True) if url.startswith("https:") else None
        pool = httpcore.ConnectionPool(
            ssl_context=context,
            # As many as there are threads that wait: the deadline bounds them, not a queue.
            max_connections=None,
            max_keepalive_connections=8,
            keepalive_expiry=30.0,
            network_backend=_backend(httpcore, self._deadline, prover),
        )
        self._client = httpx.Client(
            base_url=url,
            transport=_pool_transport(httpx, httpcore, pool, self._deadline),
            trust_env=False,
            follow_redirects=False,
            # Answers are read as they come.
            headers={"Accept-Encoding": "identity"},
        )

    def exchange(self, method: str, path: str, headers: Mapping[str, str], body: bytes, timeout: float) -> Response:
        self._deadline.at = time.monotonic() + timeout
        try:
            return self._attempt(method, path, headers, body, timeout)
        except GatewayError as error:
            if error.code != "gateway_unreachable":
                raise
        return self._attempt(method, path, headers, body, timeout)

    def _attempt(self, method: str, path: str, headers: Mapping[str, str], body: bytes, timeout: float) -> Response:
        try:
            request = self._client.build_request(method, path, headers=dict(headers), content=body)
            response = self._client.send(request, stream=True)
            try:
                content = _bounded(response.iter_raw(), self._url)
            finally:
                response.close()
            return Response(response.status_code, _lower(response.headers.items()), content)
        except (self._httpx.TimeoutException, TimeoutError):
            raise timed_out(self._url, timeout) from None
        except (self._httpx.ConnectError, self._httpx.ReadError, self._httpx.WriteError) as error:
            raise unreachable(self._url, error) from None
        except self._httpx.RemoteProtocolError as error:
            if "disconnected" in str(error):
                raise unreachable(self._url, error) from None
            raise malformed(self._url, error) from None
        except (self._httpx.HTTPError, self._httpx.InvalidURL, ValueError) as error:
            raise malformed(self._url, error) from None
        except RuntimeError:
            if not self._client.is_closed:
                raise
            raise unreachable(self._url, "the connection was closed here") from None

    def close(self) -> None:
        self._client.close()


def _backend(httpcore: Any, deadline: _Deadline, prover: Prover | None) -> Any:
    """A network backend whose reads and writes share one deadline, and that proves each new connection."""

    class Stream(httpcore.NetworkStream):  # type: ignore[misc]  # imported late, hence untyped
        def __init__(self, inner: Any) -> None:
            self._inner = inner
            self._unsent = bytearray()

        def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002 - the deadline rules
            self._flush()
            return bytes(_in_time(self._inner.read, max_bytes))

        def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002 - the deadline rules
            # Head and body come one by one; together they are one packet, and one time that the gateway is woken.
            self._unsent += buffer
            if len(self._unsent) > _WRITE_BYTES:
                self._flush()

        def _flush(self) -> None:
            unsent, self._unsent = bytes(self._unsent), bytearray()
            # In pieces, since the peer may take its time for each of them.
            for start in range(0, len(unsent), _WRITE_BYTES):
                _in_time(self._inner.write, unsent[start : start + _WRITE_BYTES])

        def close(self) -> None:
            self._inner.close()

        def start_tls(self, ssl_context: Any, server_hostname: Any = None, *_: Any, **__: Any) -> Any:
            return Stream(self._inner.start_tls(ssl_context, server_hostname, _remaining()))

        def get_extra_info(self, info: str) -> Any:
            return self._inner.get_extra_info(info)

    class Backend(httpcore.NetworkBackend):  # type: ignore[misc]  # imported late, hence untyped
        def __init__(self) -> None:
            self._inner = httpcore.SyncBackend()

        def connect_tcp(self, host: str, port: int, *_: Any, **__: Any) -> Any:
            stream = Stream(
                self._inner.connect_tcp(
                    host, port, timeout=_remaining(), socket_options=((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),)
                )
            )
            if prover is not None:
                try:
                    prover(stream.write, lambda: stream.read(65536))
                except BaseException:
                    stream.close()
                    raise
            return stream

    def _remaining() -> float:
        try:
            return deadline.remaining()
        except TimeoutError as error:
            raise httpcore.ReadTimeout(str(error)) from None

    def _in_time(act: Callable[..., Any], argument: Any) -> Any:
        return act(argument, _remaining()) or b""

    return Backend()


def _pool_transport(httpx: Any, httpcore: Any, pool: Any, deadline: _Deadline) -> Any:
    """An httpx transport over `pool`; httpx's own does not take a network backend."""
    translated = (
        (httpcore.TimeoutException, httpx.TimeoutException),
        (httpcore.ConnectError, httpx.ConnectError),
        (httpcore.ReadError, httpx.ReadError),
        (httpcore.WriteError, httpx.WriteError),
        (httpcore.RemoteProtocolError, httpx.RemoteProtocolError),
        (httpcore.ProtocolError, httpx.ProtocolError),
        (httpcore.NetworkError, httpx.NetworkError),
        (httpcore.UnsupportedProtocol, httpx.UnsupportedProtocol),
    )

    def translate(error: BaseException) -> NoReturn:
        for ours, theirs in translated:
            if isinstance(error, ours):
                raise theirs(str(error)) from error
        raise error

    class Body(httpx.SyncByteStream):  # type: ignore[misc]  # imported late, hence untyped
        def __init__(self, stream: Any) -> None:
            self._stream = stream

        def __iter__(self) -> Any:
            try:
                yield from self._stream
            except Exception as error:  # noqa: BLE001 - raised again, translated where it is of httpcore
                translate(error)

        def close(self) -> None:
            self._stream.close()

    class PoolTransport(httpx.BaseTransport):  # type: ignore[misc]  # imported late, hence untyped
        def handle_request(self, request: Any) -> Any:
            url = request.url
            try:
                response = pool.handle_request(
                    httpcore.Request(
                        method=request.method,
                        url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                        headers=request.headers.raw,
                        content=request.stream,
                        # Waiting for a connection has no socket to time out on.
                        extensions={"timeout": {"pool": deadline.remaining()}},
                    )
                )
            except Exception as error:  # noqa: BLE001 - raised again, translated where it is of httpcore
                translate(error)
            return httpx.Response(
                status_code=response.status,
                headers=response.headers,
                stream=Body(response.stream),
                extensions=response.extensions,
            )

        def close(self) -> None:
            pool.close()

    return PoolTransport()


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
        deadline = _Deadline()
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
        self, method: str, path: str, headers: Mapping[str, str], body: bytes, deadline: _Deadline, timeout: float
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
            content = _bounded(iter(lambda: response.read(65536), b""), self._url)
            if response.length:
                raise malformed(self._url, f"an answer that lacks its last {response.length} bytes")
            reusable = not response.will_close
            return Response(response.status, _lower(response.getheaders()), content)
        except TimeoutError:
            raise timed_out(self._url, timeout) from None
        except (http.client.RemoteDisconnected, ssl.SSLError, OSError) as error:
            raise unreachable(self._url, error) from None
        except (http.client.HTTPException, ValueError) as error:
            raise malformed(self._url, error) from None
        finally:
            if connection is not None:
                self._give_back(connection, reusable)

    def _take(self, deadline: _Deadline) -> _Connection:
        with self._lock:
            if self._closed:
                raise unreachable(self._url, "the connection was closed here")
            if self._idle:
                connection = self._idle.pop()
                connection.socket.deadline = deadline
                return connection
        connection = _Connection(self._secure, self._host, self._port, deadline)
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

    def __init__(self, secure: bool, host: str, port: int, deadline: _Deadline) -> None:
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        self.http = kind(host, port, timeout=deadline.remaining())
        try:
            self.http.connect()
        except BaseException:
            self.http.close()
            raise
        self.socket = _TimedSocket(self.http.sock, deadline)
        self.http.sock = self.socket


class _TimedSocket:
    """A socket whose every operation gets what is left of the exchange's time."""

    def __init__(self, inner: Any, deadline: _Deadline) -> None:
        self._inner = inner
        self.deadline = deadline
        # Whether the peer has closed, as far as was read.
        self.ended = False

    def _timed(self) -> Any:
        self._inner.settimeout(self.deadline.remaining())
        return self._inner

    def sendall(self, data: Any) -> None:
        view = memoryview(data)
        for start in range(0, len(view), _WRITE_BYTES):
            self._timed().sendall(view[start : start + _WRITE_BYTES])

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


def _bounded(chunks: Iterable[bytes], url: str) -> bytes:
    parts: list[bytes] = []
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > ANSWER_LIMIT:
            raise malformed(url, f"an answer of more than {ANSWER_LIMIT} bytes")
        parts.append(chunk)
    return b"".join(parts)


def _lower(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers}


def open_transport(url: str, prover: Prover | None = None) -> Transport:
    """Return the transport that this environment can have."""
    try:
        return HttpxTransport(url, prover)
    except ImportError:
        return StandardTransport(url, prover)
