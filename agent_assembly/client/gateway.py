"""The gateway as the SDK speaks to it: each route of the data plane is one method."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from agent_assembly._version import __version__
from agent_assembly.client.transport import Response, Transport, malformed, open_transport
from agent_assembly.core.proof import client_proof, health_proof, read_secret, same_text
from agent_assembly.exceptions import ConfigurationError, GatewayError
from agent_assembly.governance import ToolCall

_JSON = "application/json"
_PROTOBUF = "application/x-protobuf"
_CODE = re.compile("[a-z_]{1,64}")
_DETAIL_LIMIT = 1000


class Registration(NamedTuple):
    """What the gateway answered when the instance was registered."""

    session_token: str
    enforcement_mode: str
    policy_revision: str
    policy_source: str
    policies: tuple[str, ...]
    gateway_version: str


class GatewayClient:
    """Speaks to one gateway; safe in threads, not across a fork.

    With `home`, the gateway is one of this user's own: every connection is proven by the home's secret before anything
    is sent on it, and registering is proven likewise. Without, `api_key` is the credential. Each method raises
    GatewayError with the stable code of what went wrong, within the timeout it was given.
    """

    def __init__(
        self, url: str, *, home: str | None = None, api_key: str | None = None, transport: Transport | None = None
    ) -> None:
        self.url = url
        self._home = home
        self._api_key = api_key
        self._transport = transport or open_transport(url, self._prover() if home is not None else None)

    def register(self, instance: Mapping[str, Any], timeout: float) -> Registration:
        """Register an instance; the same one again gets the same registration."""
        body = _encode(instance)
        answer = self._json("POST", "/v1/agents", body, self._credential("POST", "/v1/agents", body), timeout)
        try:
            return Registration(
                session_token=_text(answer["session_token"]),
                enforcement_mode=_enforcement_mode(answer["enforcement_mode"]),
                policy_revision=_text(answer["policy_revision"]),
                policy_source=_text(answer.get("policy_source", "")),
                policies=tuple(_text(name) for name in answer.get("policies", ())),
                gateway_version=_text(answer.get("gateway_version", "")),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise malformed(self.url, f"registration answered without {error}") from None

    def heartbeat(self, session_token: str, agent_id: str, timeout: float) -> dict[str, Any]:
        """Say that the instance lives; return the policy revision in force and the agent's signals."""
        path = f"/v1/agents/{quote(agent_id, safe='')}/heartbeat"
        return self._json("POST", path, b"{}", _bearer(session_token), timeout)

    def leave(self, session_token: str, agent_id: str, timeout: float) -> None:
        """Say that the instance ends."""
        path = f"/v1/agents/{quote(agent_id, safe='')}"
        self._checked(self._transport.exchange("DELETE", path, _bearer(session_token), b"", timeout))

    def check(self, session_token: str, call: ToolCall, timeout: float) -> dict[str, Any]:
        """Ask for the verdict on `call`, whose arguments are within the bound."""
        assert call.args_json is not None
        head = _encode(
            {
                "event_id": call.event_id,
                "call_id": call.call_id,
                "attempt": call.attempt,
                "kind": call.kind,
                "tool": call.tool,
                "framework": call.framework,
                "server": call.server,
                "agent_name": call.agent_name,
                "parent_event_id": call.parent_event_id,
                "cwd": call.cwd,
                "digest": call.digest,
            }
        )
        # The digest is over these very bytes: they are passed on, not encoded again.
        body = head[:-1] + b',"args":' + call.args_json + b"}"
        return self._json("POST", "/v1/check", body, _bearer(session_token), timeout)

    def send_records(self, session_token: str, batch: bytes, timeout: float) -> dict[str, Any]:
        """Hand over an encoded batch; return only when the gateway has made durable what it accepted."""
        headers = {**_bearer(session_token), "Content-Type": _PROTOBUF}
        return self._decode(self._transport.exchange("POST", "/v1/events", headers, batch, timeout))

    def close(self) -> None:
        """Close every connection. Idempotent."""
        self._transport.close()

    def _json(self, method: str, path: str, body: bytes, headers: Mapping[str, str], timeout: float) -> dict[str, Any]:
        return self._decode(self._transport.exchange(method, path, {**headers, "Content-Type": _JSON}, body, timeout))

    def _checked(self, response: Response) -> Response:
        if 200 <= response.status < 300:
            return response
        code, detail = "gateway_error", ""
        try:
            problem = json.loads(response.body)
            if _CODE.fullmatch(problem["code"]):
                code, detail = problem["code"], _one_line(problem.get("detail") or problem.get("title") or "")
        except (ValueError, KeyError, TypeError, RecursionError):
            # Not a problem document: a proxy or a stranger; the status is all there is to say.
            pass
        raise GatewayError(
            f"the gateway {self.url} answered {response.status}: {detail or code}", code=code, status=response.status
        )

    def _decode(self, response: Response) -> dict[str, Any]:
        self._checked(response)
        try:
            answer = json.loads(response.body)
        except (ValueError, RecursionError) as error:
            raise malformed(self.url, error) from None
        if not isinstance(answer, dict):
            raise malformed(self.url, "an answer that is not an object")
        return answer

    def _credential(self, method: str, path: str, body: bytes) -> dict[str, str]:
        if self._home is not None:
            return {"Authorization": client_proof(self._secret(), method, path, body)}
        return _bearer(self._api_key) if self._api_key else {}

    def _secret(self) -> bytes:
        # Read each time: a gateway started on a home that was made anew has a new one.
        assert self._home is not None
        try:
            return read_secret(self._home)
        except ConfigurationError as error:
            raise GatewayError(str(error), code="gateway_error") from None

    def _prover(self) -> Callable[[Callable[[bytes], None], Callable[[], bytes]], None]:
        parts = urlsplit(self.url)
        port = parts.port or 80
        host = f"[{parts.hostname}]:{port}" if ":" in (parts.hostname or "") else f"{parts.hostname}:{port}"

        def prove(send: Callable[[bytes], None], receive: Callable[[], bytes]) -> None:
            challenge = os.urandom(16).hex()
            send(f"GET /healthz?challenge={challenge} HTTP/1.1\r\nHost: {host}\r\nAccept: {_JSON}\r\n\r\n".encode())
            health = _read_answer(receive, self.url)
            if not same_text(str(health.get("proof")), health_proof(self._secret(), challenge, port)):
                raise GatewayError(
                    f"what answers at {self.url} is not the gateway of {self._home}; see who holds the port, or set "
                    "AASM_GATEWAY_PORT to another one",
                    code="gateway_error",
                )

        return prove


def _read_answer(receive: Callable[[], bytes], url: str) -> dict[str, Any]:
    """Read one small answer from a connection that no HTTP library owns yet."""
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = receive()
        if not chunk or len(data) > 16384:
            raise malformed(url, "no answer to the health question")
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    lengths = [line.split(":", 1)[1].strip() for line in lines if line.lower().startswith("content-length:")]
    if " 200" not in lines[0] or len(lengths) != 1 or not lengths[0].isdigit() or int(lengths[0]) > 16384:
        raise malformed(url, "an answer to the health question that is none")
    while len(body) < int(lengths[0]):
        chunk = receive()
        if not chunk:
            raise malformed(url, "half an answer to the health question")
        body += chunk
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise malformed(url, error) from None
    return answer if isinstance(answer, dict) else {}


def _encode(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).encode()


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", "User-Agent": f"agent-assembly/{__version__}"}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("text")
    return value


def _one_line(value: Any) -> str:
    """What a stranger says, fit for a terminal and a log."""
    return "".join(letter if letter.isprintable() else " " for letter in str(value)[:_DETAIL_LIMIT]).strip()


def _enforcement_mode(value: Any) -> str:
    if value not in ("enforce", "observe", "disabled"):
        raise ValueError("a known enforcement_mode")
    return str(value)
