"""The gateway's contract, spoken by a second implementation: proofs, digest and chain are computed here anew."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import time
from pathlib import Path
from typing import Any

import pytest
from support.gateway import Gateway, find_aasm
from support.programs import run_command


def secret_hmac(gateway: Gateway, text: str) -> str:
    secret = (gateway.home / "gateway.secret").read_text().strip()
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def proof(gateway: Gateway, method: str, path: str, body: str) -> str:
    stamp, nonce = int(time.time()), secrets.token_hex(16)
    digest = hashlib.sha256(body.encode()).hexdigest()
    mac = secret_hmac(gateway, f"aasm-client-v1\n{method}\n{path}\n{stamp}\n{nonce}\n{digest}")
    return f"AASM-Proof {stamp}.{nonce}.{mac}"


def ask(gateway: Gateway, method: str, path: str, body: str = "", authorization: str = "") -> tuple[int, Any]:
    headers = {"Authorization": authorization} if authorization else {}
    status, content = gateway.request(method, path, body.encode(), headers)
    return status, json.loads(content)


def register(gateway: Gateway, agent_id: str) -> str:
    body = json.dumps(
        {
            "agent_id": agent_id,
            "instance_id": secrets.token_hex(16),
            "sdk_version": "0",
            "python_version": "3",
            "frameworks": [{"name": "langchain", "version": "1"}],
            "pid": os.getpid(),
            "host": "elsewhere",
        }
    )
    status, answer = ask(gateway, "POST", "/v1/agents", body, proof(gateway, "POST", "/v1/agents", body))
    assert status == 201, answer
    return f"Bearer {answer['session_token']}"


def check(gateway: Gateway, session: str, agent_id: str, tool: str, arguments: Any) -> tuple[int, Any]:
    call = {"agent": agent_id, "args": arguments, "server": None, "tool": tool}
    canonical = json.dumps(call, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    body = {
        "event_id": f"{int(time.time() * 1000):012x}{secrets.token_hex(10)}",
        "call_id": "call-1",
        "attempt": 1,
        "kind": "tool",
        "tool": tool,
        "framework": "langchain",
        "server": None,
        "agent_name": None,
        "parent_event_id": None,
        "cwd": "/",
        "args": arguments,
        "digest": "sha256:" + hashlib.sha256(canonical.encode()).hexdigest(),
    }
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return ask(gateway, "POST", "/v1/check", text, session)


def test_the_gateway_proves_itself_for_its_port_and_the_challenge(gateway: Gateway) -> None:
    """The proof is the HMAC of challenge and port, and is not given without a challenge."""
    challenge = secrets.token_hex(16)
    _, health = ask(gateway, "GET", f"/healthz?challenge={challenge}")
    assert health["proof"] == secret_hmac(gateway, f"aasm-health-v1\n{challenge}\n{gateway.port}")
    _, health = ask(gateway, "GET", "/healthz")
    assert "proof" not in health
    assert (health["status"], health["policy_source"]) == ("ok", "starter")


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"path": "/tmp/ä", "n": -1, "x": 1.5, "none": None, "list": [True, False, {"$int": "123456789012345678901"}]},
        {"text": 'quotes " and \\ and controls \n \t \x01 \x1f and \x7f and 😀'},
    ],
)
def test_a_digest_made_elsewhere_is_the_gateway_s(gateway: Gateway, arguments: Any) -> None:
    """Canonical calls have the same digest on both sides, whatever characters they hold."""
    session = register(gateway, "support-bot")
    status, verdict = check(gateway, session, "support-bot", "größe_😀", arguments)
    assert (status, verdict.get("decision")) == (200, "allow"), verdict


def test_every_line_of_the_log_is_hashed_and_linked(gateway: Gateway) -> None:
    """The stored bytes hash to what stands before them, and each line names the hash of the one before."""
    session = register(gateway, "a")
    for _ in range(5):
        status, _ = check(gateway, session, "a", "read_file", {})
        assert status == 200
    gateway.stop()
    previous, numbers = "0" * 64, []
    for line in (gateway.home / "audit" / f"{1:020d}.log").read_bytes().splitlines():
        stated, _, content = line.partition(b" ")
        assert hashlib.sha256(content).hexdigest() == stated.decode()
        record = json.loads(content)
        assert list(record)[:4] == ["seq", "prev", "time", "type"]
        assert record["prev"] == previous
        previous = stated.decode()
        numbers.append(record["seq"])
    assert numbers == list(range(1, len(numbers) + 1))
    assert json.loads((gateway.home / "audit" / "head").read_text()) == {"seq": numbers[-1], "hash": previous}


def test_the_control_plane_needs_the_operator(gateway: Gateway) -> None:
    """A session token opens nothing that is the operator's."""
    session = register(gateway, "a")
    for path in ("/v1/agents", "/v1/runs", "/v1/audit"):
        assert ask(gateway, "GET", path, "", session)[0] == 401
        assert gateway.control(path)


def test_what_it_was_started_with_holds_after_a_crash_until_it_is_stopped(home: Path, tmp_path: Path) -> None:
    """Whoever starts a killed gateway again, an agent for one, gets no laxer one; `aasm stop` forgets."""
    policy = tmp_path / "strict.yaml"
    policy.write_text(
        "apiVersion: agent-assembly/v1\nkind: Policy\nmetadata: {name: strict}\ndefault: deny\nrules: []\n"
    )
    policy.chmod(0o600)
    Gateway(home, options=["--policy", str(policy), "--min-enforcement", "enforce"]).start().kill()

    def status() -> Any:
        shown = run_command([find_aasm(), "status", "--json"], home)
        return json.loads(shown.stdout)

    again = Gateway(home).start()
    assert (status()["policy"]["names"], status()["min_enforcement"]) == (["strict"], "enforce")
    again.kill()
    policy.unlink()
    refused = run_command([find_aasm(), "start", "--foreground", "--port", "0"], home)
    assert refused.returncode == 1
    assert "strict.yaml" in refused.stderr
    assert run_command([find_aasm(), "stop"], home).returncode == 0
    forgotten = Gateway(home).start()
    assert status()["policy"]["source"] == "starter"
    forgotten.stop()
