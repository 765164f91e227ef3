"""A gateway of this user's that is newer than the SDK: what is understood is used, what is not denies."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sdk.conftest import Marks
from support.bad_servers import Server, ok, start_servers, started

from agent_assembly import AssemblyContext, ToolExecutionBlockedError, current_context, init_assembly
from agent_assembly.core.proof import health_proof

serve = pytest.fixture(start_servers)
SECRET = b"0123456789abcdef" * 4


class Newer:
    """Answers like a gateway of version 9; `verdict` is merged into its answers to checks."""

    def __init__(self) -> None:
        self.port = 0
        self.verdict: dict[str, Any] = {}

    def answer(self, request: bytes) -> bytes:
        target = request.split(b" ")[1].decode()
        body = request.partition(b"\r\n\r\n")[2]
        said: dict[str, Any] = {"moons": [1, 2], "more": {"than": "you know"}}
        if target.startswith("/healthz"):
            proof = health_proof(SECRET, target.partition("=")[2], self.port)
            said |= {"status": "splendid", "version": "9.0.0", "mode": "galactic", "proof": proof}
        elif target == "/v1/agents":
            said |= {"session_token": "t", "enforcement_mode": "enforce", "policy_revision": "s/1/1"}
            said |= {"gateway_version": "9.0.0"}
        elif target == "/v1/check":
            said |= {"decision_id": json.loads(body)["event_id"], "reason": "So it is.", "code": "astral"}
            said |= self.verdict
        return ok(json.dumps(said).encode())


@pytest.fixture
def newer(serve: Callable[..., Server], home: Path) -> Iterator[Newer]:
    secret = home / "gateway.secret"
    secret.write_bytes(SECRET + b"\n")
    secret.chmod(0o600)
    gateway = Newer()
    server = started(serve, gateway.answer)
    gateway.port = server.port
    yield gateway
    while (context := current_context()) is not None:
        context.shutdown()


def begin(newer: Newer) -> AssemblyContext:
    return init_assembly(gateway_url=f"http://127.0.0.1:{newer.port}")


def test_what_is_unknown_beside_a_verdict_does_not_disturb(newer: Newer, marks: Marks) -> None:
    """Unknown fields and codes are passed over; the decision counts."""
    newer.verdict = {"decision": "allow"}
    with begin(newer) as context:
        assert context.gateway_version == "9.0.0"
        assert marks.read_record.invoke({"key": "1"}) == "read_record 1"


@pytest.mark.parametrize("decision", ["quarantine", "ALLOW", "", None, True, {"allow": 1}, "redact", "approve"])
def test_a_decision_that_cannot_be_carried_out_denies(decision: object, newer: Newer, marks: Marks) -> None:
    """A word of tomorrow is no permission today; neither is one that this SDK knows and cannot fulfil."""
    newer.verdict = {"decision": decision}
    with begin(newer), pytest.raises(ToolExecutionBlockedError):
        marks.read_record.invoke({"key": "1"})
    assert marks.ran() == []


def test_a_verdict_on_another_call_denies(newer: Newer, marks: Marks) -> None:
    """An answer that belongs to another question answers nothing."""
    newer.verdict = {"decision": "allow", "decision_id": "0" * 32}
    with begin(newer), pytest.raises(ToolExecutionBlockedError):
        marks.read_record.invoke({"key": "1"})
    assert marks.ran() == []
