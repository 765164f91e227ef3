"""One HTTP exchange with the gateway, bounded in time and size, over connections that the gateway has proven to own.

`Transport` is the interface. `HttpxTransport` is the usual one; `StandardTransport` serves where the SDK runs as an
injected copy beside a program that has no httpx. Neither uses the environment's proxies.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from agent_assembly.exceptions import GatewayError

ANSWER_LIMIT = 8 << 20
WRITE_BYTES = 16 << 10
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


class Deadline(threading.local):
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


def bounded(chunks: Iterable[bytes], url: str) -> bytes:
    """Join `chunks`; raise GatewayError when they are more than an answer may be."""
    parts: list[bytes] = []
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > ANSWER_LIMIT:
            raise malformed(url, f"an answer of more than {ANSWER_LIMIT} bytes")
        parts.append(chunk)
    return b"".join(parts)


def lower(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers by lower-case name."""
    return {name.lower(): value for name, value in headers}


def open_transport(url: str, prover: Prover | None = None) -> Transport:
    """Return the transport that this environment can have."""
    try:
        from agent_assembly.client.httpx_transport import HttpxTransport
    except ImportError:
        from agent_assembly.client.standard_transport import StandardTransport

        return StandardTransport(url, prover)
    return HttpxTransport(url, prover)
