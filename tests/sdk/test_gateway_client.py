"""The client of the gateway: nothing is said to strangers, and no answer is believed unread."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.bad_servers import KINDS, Server, hang, ok, start_servers, started

from agent_assembly.client.gateway import GatewayClient
from agent_assembly.core.proof import client_proof, health_proof
from agent_assembly.exceptions import GatewayError
from agent_assembly.governance import ToolCall

serve = pytest.fixture(start_servers)

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
        monkeypatch.setitem(sys.modules, "httpx", None)
        monkeypatch.delitem(sys.modules, "agent_assembly.client.httpx_transport")
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
