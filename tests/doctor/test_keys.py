"""The row `gateway key`: to whom an API key is sent, and whether it is taken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.bad_servers import Server, ok, start_servers, started
from support.doctor import type_remedy
from support.gateway import Gateway
from support.look import row, rows, shell
from support.odd_gateways import free_port

from agent_assembly.core.proof import client_proof, read_secret

serve = pytest.fixture(start_servers)
Serve = Callable[..., Server]
KEY = "sk-planted-0123456789abcdef"
HEALTH = json.dumps({"status": "ok", "version": "0.1.0", "policy_source": "files", "policy_revision": "a/0/1"}).encode()


@pytest.fixture
def environ(home: Path) -> dict[str, str]:
    return shell(home, AASM_API_KEY=KEY, AASM_GATEWAY_PORT=free_port())


@pytest.fixture
def other_home(tmp_path: Path) -> Path:
    """A home that cannot recognise the gateway of the first one."""
    directory = tmp_path / "other"
    directory.mkdir(mode=0o700)
    return directory


def remote(serve: Serve, status: str, problem: dict[str, object]) -> Server:
    """A gateway of somebody else that answers an announcement with `status`."""
    body = json.dumps(problem).encode()
    refusal = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    return started(serve, lambda request: ok(HEALTH) if request.startswith(b"GET /healthz") else refusal, keep=False)


def test_ones_own_gateway_needs_none_and_is_sent_none(gateway: Gateway, environ: dict[str, str]) -> None:
    found = row(environ, "gateway key")
    assert (found.status, found.remedy) == ("ok", "")
    assert found.found == "none is needed: the gateway is your own; the one of variable AASM_API_KEY is not sent"


def test_a_key_is_not_sent_to_what_was_only_probed(serve: Serve, environ: dict[str, str]) -> None:
    """Whoever sits on the port of the local gateway hears of no key, nor of anything else that is secret."""
    server = remote(serve, "401 Unauthorized", {"code": "x"})
    found = rows({**environ, "AASM_GATEWAY_PORT": str(server.port)})
    assert found["port"].status == "fail"
    assert found["gateway"].status == found["gateway key"].status == "skip"
    heard = b"".join(server.received)
    assert b"GET /healthz" in heard
    assert b"authorization" not in heard.lower()
    assert KEY.encode() not in heard


def test_a_real_gateway_that_takes_no_keys(gateway: Gateway, other_home: Path, environ: dict[str, str]) -> None:
    """It says so; with its own home named, none is needed. Nothing is registered by asking."""
    environ |= {"AASM_HOME": str(other_home), "AASM_GATEWAY_URL": gateway.url}
    found = row(environ, "gateway key")
    assert found.status == "fail"
    assert "refuses the one of variable AASM_API_KEY: 401 api_keys_unavailable" in found.found
    assert (gateway.control("/v1/runs"), gateway.control("/v1/agents")) == ({"runs": []}, {"agents": []})
    environ = type_remedy(found.remedy, environ, other_home)
    assert row(environ, "gateway key").status == "ok"


def test_what_is_asked_leaves_nothing_behind_where_it_is_allowed(gateway: Gateway) -> None:
    """A caller who is believed gets a complaint about the empty announcement, and that is all that comes of it."""
    before = gateway.control("/v1/audit", limit=1)["head"]
    proof = client_proof(read_secret(str(gateway.home)), "POST", "/v1/runs", b"{}")
    status, body = gateway.request("POST", "/v1/runs", b"{}", {"Authorization": proof})
    assert status in (400, 422), body
    assert gateway.control("/v1/runs") == {"runs": []}
    assert gateway.control("/v1/audit", limit=1)["head"] == before


def test_a_key_that_is_taken(serve: Serve, environ: dict[str, str]) -> None:
    server = remote(serve, "422 Unprocessable Entity", {"code": "invalid_value"})
    environ["AASM_GATEWAY_URL"] = server.url
    found = row(environ, "gateway key")
    assert (found.status, found.found) == ("ok", f"{server.url} takes the one of variable AASM_API_KEY")
    asked = server.received[-1]
    assert asked.startswith(b"POST /v1/runs ")
    assert asked.endswith(b"\r\n\r\n{}")


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
def test_a_key_that_is_refused_is_not_shown(serve: Serve, environ: dict[str, str], status: str) -> None:
    """Also where the gateway repeats it."""
    server = remote(serve, status, {"code": "key_unknown", "detail": f"the key {KEY} is not known\n{KEY}"})
    environ["AASM_GATEWAY_URL"] = server.url
    found = row(environ, "gateway key")
    assert found.status == "fail"
    assert f"{status[:3]} key_unknown: the key *** is not known" in found.found
    assert found.remedy == "export AASM_API_KEY='the key that its operator gave you'"
    assert KEY not in found.found + found.remedy


def test_a_stale_key_that_hides_the_right_one(serve: Serve, home: Path, environ: dict[str, str]) -> None:
    """The variable wins over the file: the remedy takes it back."""
    problem = b'{"code": "key_unknown"}'
    refusal = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: %d\r\n\r\n%s" % (len(problem), problem)
    complaint = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"

    def answer(request: bytes) -> bytes:
        if request.startswith(b"GET /healthz"):
            return ok(HEALTH)
        return complaint if b"Bearer the-right-one" in request else refusal

    (home / "config.yaml").write_text("api_key: the-right-one\n")
    (home / "config.yaml").chmod(0o600)
    environ["AASM_GATEWAY_URL"] = started(serve, answer, keep=False).url
    found = row(environ, "gateway key")
    assert found.status == "fail"
    assert found.remedy.startswith("unset AASM_API_KEY; or: ")
    environ = type_remedy(found.remedy, environ, home)
    assert row(environ, "gateway key").status == "ok"


def test_an_answer_that_says_nothing_about_the_key(serve: Serve, environ: dict[str, str]) -> None:
    environ["AASM_GATEWAY_URL"] = remote(serve, "503 Service Unavailable", {"code": "busy"}).url
    found = row(environ, "gateway key")
    assert (found.status, "does not say whether it takes the key: 503 busy" in found.found) == ("skip", True)


def test_a_key_that_would_cross_a_network_in_the_clear(serve: Serve, environ: dict[str, str]) -> None:
    """It is not sent now, and the row says that programs would send it."""
    server = remote(serve, "422 Unprocessable Entity", {})
    # Another way to write 127.0.0.1, which is not known to be of this machine.
    url = f"http://127.1:{server.port}"
    environ["AASM_GATEWAY_URL"] = url
    found = row(environ, "gateway key")
    assert found.status == "warn"
    assert found.found == f"programs send it in the clear over the network to {url}; it was not tried now"
    assert found.remedy == f"export AASM_GATEWAY_URL=https://127.1:{server.port}"
    assert KEY.encode() not in b"".join(server.received)
