"""The usual transport: httpx, over a connection pool whose network backend keeps to a deadline and proves connections.

httpx's own pool does neither: its time-outs are for each read, and it cannot be handed a network backend.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import httpcore
import httpx

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

_TRANSLATED: tuple[tuple[type[Exception], type[httpx.TransportError]], ...] = (
    (httpcore.TimeoutException, httpx.TimeoutException),
    (httpcore.ConnectError, httpx.ConnectError),
    (httpcore.ReadError, httpx.ReadError),
    (httpcore.WriteError, httpx.WriteError),
    (httpcore.RemoteProtocolError, httpx.RemoteProtocolError),
    (httpcore.ProtocolError, httpx.ProtocolError),
    (httpcore.NetworkError, httpx.NetworkError),
    (httpcore.UnsupportedProtocol, httpx.UnsupportedProtocol),
)


class HttpxTransport(Transport):
    """Over httpx, with keep-alive connections shared by all threads."""

    def __init__(self, url: str, prover: Prover | None = None) -> None:
        self._url = url
        self._deadline = Deadline()
        pool = httpcore.ConnectionPool(
            ssl_context=httpx.create_ssl_context(trust_env=True) if url.startswith("https:") else None,
            # As many as there are threads that wait: the deadline bounds them, not a queue.
            max_connections=None,
            max_keepalive_connections=8,
            keepalive_expiry=30.0,
            network_backend=_Backend(self._deadline, prover),
        )
        self._client = httpx.Client(
            base_url=url,
            transport=_PoolTransport(pool, self._deadline),
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
                content = bounded(response.iter_raw(), self._url)
            finally:
                response.close()
            return Response(response.status_code, lower(response.headers.items()), content)
        except (httpx.TimeoutException, TimeoutError):
            raise timed_out(self._url, timeout) from None
        except (httpx.ConnectError, httpx.ReadError, httpx.WriteError) as error:
            raise unreachable(self._url, error) from None
        except httpx.RemoteProtocolError as error:
            if "disconnected" in str(error):
                raise unreachable(self._url, error) from None
            raise malformed(self._url, error) from None
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise malformed(self._url, error) from None
        except RuntimeError:
            if not self._client.is_closed:
                raise
            raise unreachable(self._url, "the connection was closed here") from None

    def close(self) -> None:
        self._client.close()


class _Stream(httpcore.NetworkStream):
    """A connection whose reads and writes share the deadline of the thread's exchange."""

    def __init__(self, inner: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._inner = inner
        self._deadline = deadline
        self._unsent = bytearray()

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002 - the deadline rules
        self._flush()
        return self._inner.read(max_bytes, _remaining(self._deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002 - the deadline rules
        # Head and body come one by one; together they are one packet, and one time that the gateway is woken.
        self._unsent += buffer
        if len(self._unsent) > WRITE_BYTES:
            self._flush()

    def _flush(self) -> None:
        unsent, self._unsent = bytes(self._unsent), bytearray()
        # In pieces, since the peer may take its time for each of them.
        for start in range(0, len(unsent), WRITE_BYTES):
            self._inner.write(unsent[start : start + WRITE_BYTES], _remaining(self._deadline))

    def close(self) -> None:
        self._inner.close()

    def start_tls(self, ssl_context: Any, server_hostname: str | None = None, *_: Any, **__: Any) -> _Stream:
        secured = self._inner.start_tls(ssl_context, server_hostname, _remaining(self._deadline))
        return _Stream(secured, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _Backend(httpcore.NetworkBackend):
    """Opens connections in time, and lets the prover have each before anything is sent on it."""

    def __init__(self, deadline: Deadline, prover: Prover | None) -> None:
        self._inner = httpcore.SyncBackend()
        self._deadline = deadline
        self._prover = prover

    def connect_tcp(self, host: str, port: int, *_: Any, **__: Any) -> _Stream:
        stream = _Stream(connected(lambda: self._connect(host, port), _number), self._deadline)
        if self._prover is not None:
            try:
                self._prover(stream.write, lambda: stream.read(65536))
            except BaseException:
                stream.close()
                raise
        return stream

    def _connect(self, host: str, port: int) -> httpcore.NetworkStream:
        options = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),)
        return self._inner.connect_tcp(host, port, timeout=_remaining(self._deadline), socket_options=options)


def _number(stream: httpcore.NetworkStream) -> int:
    return int(stream.get_extra_info("socket").fileno())


def _remaining(deadline: Deadline) -> float:
    try:
        return deadline.remaining()
    except TimeoutError as error:
        raise httpcore.ReadTimeout(str(error)) from None


class _PoolTransport(httpx.BaseTransport):
    """An httpx transport over a pool of ours."""

    def __init__(self, pool: httpcore.ConnectionPool, deadline: Deadline) -> None:
        self._pool = pool
        self._deadline = deadline

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        assert isinstance(request.stream, httpx.SyncByteStream)
        try:
            response = self._pool.handle_request(
                httpcore.Request(
                    method=request.method,
                    url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                    headers=request.headers.raw,
                    content=request.stream,
                    # Waiting for a connection has no socket to time out on.
                    extensions={"timeout": {"pool": self._deadline.remaining()}},
                )
            )
        except Exception as error:  # noqa: BLE001 - raised again, translated where it is of httpcore
            _translate(error)
        return httpx.Response(
            status_code=response.status,
            headers=response.headers,
            stream=_Body(response),
            extensions=response.extensions,
        )

    def close(self) -> None:
        self._pool.close()


class _Body(httpx.SyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._response.iter_stream()
        except Exception as error:  # noqa: BLE001 - raised again, translated where it is of httpcore
            _translate(error)

    def close(self) -> None:
        self._response.close()


def _translate(error: Exception) -> NoReturn:
    for theirs, ours in _TRANSLATED:
        if isinstance(error, theirs):
            raise ours(str(error)) from error
    raise error
