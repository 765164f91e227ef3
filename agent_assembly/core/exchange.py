"""One small HTTP/1.1 exchange and the JSON in it, without the modules that make start-up slow.

Bounded in time and size, also against a server that sends a byte a second. Imported before the user's program: see the
import rules. Gateways behind https are asked by `https_exchange`, which costs what TLS costs.
"""

from __future__ import annotations

import time
from _socket import AF_INET, AF_INET6, IPPROTO_TCP, SOCK_STREAM, TCP_NODELAY, gaierror, getaddrinfo, socket

from agent_assembly.exceptions import GatewayError

try:
    from _json import encode_basestring_ascii as _quote
    from _json import make_scanner
except ImportError:  # an interpreter without the accelerator
    _quote = make_scanner = None  # type: ignore[assignment, misc]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

HEAD_LIMIT = 64 << 10
BODY_LIMIT = 1 << 20


def http_exchange(
    host: str, port: int, method: str, path: str, headers: Mapping[str, str], body: bytes, timeout: float
) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers with lower-case names, and body; raise GatewayError after `timeout` seconds in all.

    `code` of the error is `gateway_unreachable`, `gateway_timeout` or, when what answers does not speak HTTP,
    `gateway_error`.
    """
    deadline = time.monotonic() + timeout
    place = f"{host}:{port}"
    connection = None
    try:
        connection = _connect(host, port, deadline)
        connection.settimeout(_left(deadline))
        connection.sendall(request_head(method, path, place, headers, len(body)) + body)
        return _read_answer(connection, deadline, place)
    except TimeoutError:
        raise GatewayError(f"{place} did not answer within {timeout:g} s", code="gateway_timeout") from None
    except OSError as error:
        raise GatewayError(f"{place} cannot be reached: {reason(error)}", code="gateway_unreachable") from None
    finally:
        if connection is not None:
            connection.close()


def reason(error: OSError) -> str:
    """The system's words for `error`, in lower case as the middle of a sentence wants them."""
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]


def request_head(method: str, path: str, place: str, headers: Mapping[str, str], length: int) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {place}", "Connection: close", "Accept: application/json"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if length or method == "POST":
        lines += ["Content-Type: application/json", f"Content-Length: {length}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _connect(host: str, port: int, deadline: float) -> socket:
    last: OSError | None = None
    for family, address in _addresses(host.strip("[]"), port, deadline):
        connection = socket(family, SOCK_STREAM)
        try:
            connection.settimeout(_left(deadline))
            connection.connect(address)
            connection.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
            return connection
        except OSError as error:
            connection.close()
            last = error
    raise last or OSError("the name has no address")


def _addresses(host: str, port: int, deadline: float) -> list[tuple[int, Any]]:
    if host.replace(".", "").isdigit():
        return [(AF_INET, (host, port))]
    if ":" in host:
        return [(AF_INET6, (host, port, 0, 0))]
    # The resolver has no deadline of its own: it gets a thread that is left behind when it takes too long.
    from _thread import allocate_lock, start_new_thread

    found: list[Any] = []
    done = allocate_lock()
    done.acquire()

    def resolve() -> None:
        try:
            found.extend(getaddrinfo(host, port, 0, SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            found.append(error)
        finally:
            done.release()

    start_new_thread(resolve, ())
    if not done.acquire(timeout=_left(deadline)):
        raise TimeoutError
    if found and isinstance(found[0], Exception):
        known = isinstance(found[0], gaierror) and len(found[0].args) > 1
        raise OSError(f"the name {host} cannot be resolved: {found[0].args[1] if known else found[0]}")
    return [(row[0], row[4]) for row in found]


def _read_answer(connection: socket, deadline: float, place: str) -> tuple[int, dict[str, str], bytes]:
    data = b""
    while True:
        head, separator, rest = data.partition(b"\r\n\r\n")
        if separator:
            status, headers = _parse_head(head, place)
            if status >= 200:
                break
            data = rest  # an interim answer; the real one follows
            continue
        if len(data) > HEAD_LIMIT:
            raise _malformed(place, "headers without end")
        chunk = _receive(connection, deadline)
        if not chunk:
            raise _malformed(place, "it stopped in the middle of its headers" if data else "it closed the connection")
        data += chunk
    length = headers.get("content-length")
    chunked = headers.get("transfer-encoding", "").lower() == "chunked"
    if length is not None and not (length.isascii() and length.isdigit() and int(length) <= BODY_LIMIT):
        raise _malformed(place, f"a body of length {length[:20]}")
    whole = 0 if status in (204, 304) else int(length) if length is not None and not chunked else None
    while whole is None or len(rest) < whole:
        if chunked and rest.endswith(b"0\r\n\r\n") and (body := _unchunk(rest)) is not None:
            return status, headers, body
        if len(rest) > 2 * BODY_LIMIT:
            raise _malformed(place, f"more than {BODY_LIMIT} bytes")
        chunk = _receive(connection, deadline)
        if not chunk:
            if whole is not None or chunked:
                raise _malformed(place, "it stopped in the middle of its answer")
            break
        rest += chunk
    return status, headers, rest if whole is None else rest[:whole]


def _receive(connection: socket, deadline: float) -> bytes:
    connection.settimeout(_left(deadline))
    return connection.recv(65536)


def _parse_head(head: bytes, place: str) -> tuple[int, dict[str, str]]:
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/1.") or len(words[1]) != 3 or not words[1].isdigit():
        raise _malformed(place, "no HTTP")
    headers = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return int(words[1]), headers


def _unchunk(data: bytes) -> bytes | None:
    """The body in `data`, or None while it is not whole."""
    body = b""
    while True:
        size, separator, data = data.partition(b"\r\n")
        try:
            length = int(size.split(b";")[0], 16)
        except ValueError:
            return None
        if not separator or length < 0 or len(data) < length + 2:
            return None
        if length == 0:
            return body
        body, data = body + data[:length], data[length + 2 :]


def _malformed(place: str, what: str) -> GatewayError:
    return GatewayError(f"what answers at {place} is no gateway: {what}", code="gateway_error")


class _ScannerOptions:
    """What the C scanner wants to know; the standard decoder's own values."""

    strict = True
    object_hook = object_pairs_hook = array_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float

    def __init__(self) -> None:
        self.memo: dict[str, str] = {}


def decode_json(data: bytes) -> Any:
    """Return the value in `data`; raise ValueError when it is no JSON."""
    if make_scanner is None:
        import json

        return json.loads(data)
    text = data.decode("utf-8").strip(" \t\r\n")
    try:
        value, end = make_scanner(_ScannerOptions())(text, 0)  # type: ignore[arg-type]
    except (StopIteration, RecursionError, ImportError, AttributeError):
        # The last two: the scanner looks its exception up in `json`, which may be a file of the user's.
        raise ValueError("no JSON") from None
    if end != len(text):
        raise ValueError("more than one JSON value")
    return value


def encode_json(value: Any) -> str:
    """Return compact JSON of None, booleans, integers, text, lists and mappings with text keys."""
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        if _quote is None:
            import json

            return json.dumps(value)
        return _quote(value)
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, (list, tuple)):
        return "[" + ",".join([encode_json(item) for item in value]) + "]"
    if isinstance(value, dict):
        return "{" + ",".join([f"{encode_json(str(name))}:{encode_json(item)}" for name, item in value.items()]) + "}"
    raise TypeError(f"{type(value).__name__} has no place here")
