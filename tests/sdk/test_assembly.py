"""`init_assembly()` against a real gateway: what is governed, what is said, and what is left behind."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.tools import BaseTool
from sdk.conftest import Marks
from support.gateway import Gateway

from agent_assembly import (
    AssemblyContext,
    ConfigurationError,
    GatewayError,
    PolicyViolationError,
    ToolExecutionBlockedError,
    current_context,
    init_assembly,
)

Initialise = Callable[..., AssemblyContext]


def hooked() -> dict[str, Any]:
    """Every attribute of the class that LangChain's tool calls pass."""
    return dict(vars(BaseTool))


def test_a_denied_tool_does_not_run_and_an_allowed_one_does(
    house: Gateway, initialise: Initialise, marks: Marks
) -> None:
    """One verdict and one record for each attempt; the body of a denied call never runs."""
    with initialise():
        assert marks.read_record.invoke({"key": "7"}) == "read_record 7"
        with pytest.raises(PolicyViolationError, match="kept for ten years") as denied:
            marks.delete_record.invoke({"key": "7"})
    assert marks.ran() == ["read_record-7"]
    assert (denied.value.tool_name, denied.value.rule, denied.value.policy) == ("delete_record", "no-deletes", "house")
    rows = house.audit()
    assert [(row["tool"], row["decision"], row["outcome"]) for row in rows] == [
        ("read_record", "allow", "returned"),
        ("delete_record", "deny", "refused"),
    ]
    assert {row["agent_id"] for row in rows} == {"bot"}
    assert house.verify().returncode == 0


def test_coroutines_are_governed_like_calls(house: Gateway, initialise: Initialise, marks: Marks) -> None:
    """Parallel calls from one event loop get one verdict and one record each."""

    async def many() -> list[Any]:
        calls = [marks.read_record.ainvoke({"key": str(number)}) for number in range(20)]
        calls += [marks.delete_record.ainvoke({"key": str(number)}) for number in range(20)]
        return await asyncio.gather(*calls, return_exceptions=True)

    with initialise():
        results = asyncio.run(many())
    assert [isinstance(result, ToolExecutionBlockedError) for result in results] == [False] * 20 + [True] * 20
    assert len(marks.ran()) == 20
    assert sorted(row["decision"] for row in house.audit()) == ["allow"] * 20 + ["deny"] * 20


def test_the_context_says_what_is(house: Gateway, initialise: Initialise) -> None:
    """Mode, registration, gateway, policy and adapters are those in force."""
    context = initialise(team_id="support")
    assert (context.mode, context.requested_mode) == ("sdk-only", "auto")
    assert context.mode_note is not None
    assert "sdk-only" in context.mode_note
    assert context.registered
    assert context.enforcement_mode == "enforce"
    assert (context.gateway_url, context.policies, context.policy_source) == (house.url, ("house",), "files")
    assert context.policy_revision
    assert context.degraded == ()
    assert [state.name for state in context.adapters] == ["langchain", "langgraph"]
    agents = house.control("/v1/agents")["agents"]
    assert [(agent["agent_id"], agent["instance_id"], agent["team_id"]) for agent in agents] == [
        ("bot", context.instance_id, "support")
    ]


def test_shutdown_leaves_every_attribute_as_it_was(initialise: Initialise) -> None:
    """Hooks are undone by identity, and the registry is left."""
    before = hooked()
    with initialise() as context:
        assert hooked() != before
    after = hooked()
    assert after.keys() == before.keys()
    assert [name for name in before if before[name] is not after[name]] == []
    assert current_context() is None
    assert not context.active
    assert not context.registered
    context.shutdown()


def test_a_second_call_returns_the_same_context(initialise: Initialise) -> None:
    """Compatible arguments give the active context; only the outermost block ends it."""
    with initialise() as outer:
        with initialise() as inner:
            assert inner is outer
        assert outer.active
        assert init_assembly() is outer
        with pytest.raises(ConfigurationError, match="another agent_id"):
            initialise(agent_id="someone-else")
        with pytest.raises(ConfigurationError, match="another api_key") as wrong_key:
            init_assembly(api_key="hidden-key")
        assert "hidden-key" not in str(wrong_key.value)
    assert not outer.active


def test_governance_can_begin_again(house: Gateway, initialise: Initialise, marks: Marks) -> None:
    """After a shutdown nothing is governed, and a new beginning governs again."""
    with initialise():
        pass
    marks.delete_record.invoke({"key": "ungoverned"})
    with initialise(), pytest.raises(PolicyViolationError):
        marks.delete_record.invoke({"key": "governed"})
    assert marks.ran() == ["delete_record-ungoverned"]
    assert len(house.audit()) == 1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"mode": "kernel"}, ConfigurationError, "mode must be one of: auto, ebpf, proxy, sdk-only"),
        (
            {"enforcement_mode": "hard"},
            ConfigurationError,
            "enforcement_mode must be one of: enforce, observe, disabled",
        ),
        ({"mode": "proxy"}, ConfigurationError, "not available in this build"),
        ({"agent_id": "two words"}, ConfigurationError, "agent_id"),
        ({"agent_id": "x" * 129}, ConfigurationError, "agent_id"),
        ({"delegation_reason": "x" * 257}, ConfigurationError, "delegation_reason"),
        ({"gateway_url": ""}, ConfigurationError, "gateway_url is required"),
        ({"gateway_url": "http://127.0.0.1:9"}, GatewayError, "cannot be reached"),
    ],
)
def test_what_cannot_be_used_is_refused_and_nothing_has_changed(
    arguments: dict[str, str], error: type[Exception], message: str
) -> None:
    """A failing call raises, and neither a hook nor a context stays behind."""
    before = hooked()
    with pytest.raises(error, match=message):
        init_assembly(**{"gateway_url": "http://127.0.0.1:9", **arguments})  # type: ignore[arg-type]
    assert hooked() == before
    assert current_context() is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the other message is for other platforms")
def test_the_kernel_layer_is_not_claimed() -> None:
    """Mode ebpf is refused while it does not exist, whatever the platform could do."""
    with pytest.raises(ConfigurationError, match="not available in this build"):
        init_assembly(gateway_url="http://127.0.0.1:9", mode="ebpf")


def test_without_any_gateway_the_documented_message_says_so(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Nothing given, nothing answering, starting forbidden: `gateway_url is required`."""
    monkeypatch.setenv("AASM_AUTO_START", "no")
    monkeypatch.setenv("AASM_GATEWAY_PORT", "9")
    with pytest.raises(ConfigurationError) as missing:
        init_assembly()
    assert str(missing.value) == "gateway_url is required"
    assert list(home.iterdir()) == []


def test_a_refusal_lets_the_model_choose_another_way(initialise: Initialise, marks: Marks) -> None:
    """With on_deny="refuse" the caller gets a message instead of an exception."""
    with initialise(on_deny="refuse"):
        answer = marks.delete_record.invoke(
            {"type": "tool_call", "id": "c1", "name": "delete_record", "args": {"key": "1"}}
        )
    assert answer.status == "error"
    assert "kept for ten years" in answer.content
    assert marks.ran() == []


def test_observe_lets_the_call_pass_and_records_what_would_have_happened(
    house: Gateway, initialise: Initialise, marks: Marks
) -> None:
    """The same verdict, no consequence."""
    with initialise(enforcement_mode="observe"):
        marks.delete_record.invoke({"key": "1"})
    assert marks.ran() == ["delete_record-1"]
    (row,) = house.audit()
    assert (row["decision"], row["enforcement_mode"], row["outcome"]) == ("deny", "observe", "returned")


def test_disabled_evaluates_nothing_and_says_so(house: Gateway, initialise: Initialise, marks: Marks) -> None:
    """Records of a disabled agent are marked unevaluated."""
    with initialise(enforcement_mode="disabled"):
        marks.delete_record.invoke({"key": "1"})
    (row,) = house.audit()
    assert (row["code"], row["evaluated"], row["outcome"]) == ("unevaluated", False, "returned")


def test_an_exception_of_the_tool_is_the_callers(house: Gateway, initialise: Initialise) -> None:
    """The very object passes through, and the record names its type."""
    error = KeyError("mine")

    class Failing(BaseTool):
        name: str = "failing"
        description: str = "fails"

        def _run(self) -> str:
            raise error

    with initialise(), pytest.raises(KeyError) as raised:
        Failing().invoke({})
    assert raised.value is error
    (row,) = house.audit()
    assert (row["outcome"], row["error_type"]) == ("raised", "KeyError")


def test_a_tool_within_a_tool_names_its_outer_call(house: Gateway, initialise: Initialise, marks: Marks) -> None:
    """The inner record points to the outer one."""

    class Outer(BaseTool):
        name: str = "outer"
        description: str = "calls another"

        def _run(self) -> str:
            return str(marks.read_record.invoke({"key": "1"}))

    with initialise():
        Outer().invoke({})
        marks.read_record.invoke({"key": "2"})
    rows = {row["digest"]: row for row in house.audit()}
    outer, inner, alone = sorted(rows.values(), key=lambda row: int(row["seq"]))
    assert outer["parent_event_id"] is None
    assert inner["parent_event_id"] == outer["event_id"]
    assert alone["parent_event_id"] is None
