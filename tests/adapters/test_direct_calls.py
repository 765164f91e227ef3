"""A tool that the program calls itself is governed, whichever way it is called."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import pytest
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool, InjectedToolArg, InjectedToolCallId, StructuredTool, Tool, tool

from agent_assembly.exceptions import MCPToolBlockedError, PolicyViolationError, ToolExecutionBlockedError
from agent_assembly.governance import ToolCall, Verdict

WAYS: dict[str, Callable[[BaseTool, Any], Any]] = {
    "invoke": lambda made, given: made.invoke(given),
    "ainvoke": lambda made, given: asyncio.run(made.ainvoke(given)),
    "run": lambda made, given: made.run(given),
    "run by keyword": lambda made, given: made.run(tool_input=given),
    "arun": lambda made, given: asyncio.run(made.arun(given)),
    "batch": lambda made, given: made.batch([given])[0],
    "abatch": lambda made, given: asyncio.run(made.abatch([given]))[0],
    "stream": lambda made, given: all_of(made.stream(given)),
    "astream": lambda made, given: asyncio.run(all_of_async(made.astream(given))),
    "with_retry": lambda made, given: made.with_retry(wait_exponential_jitter=False).invoke(given),
    "with_config": lambda made, given: made.with_config(tags=["t"]).invoke(given),
    "chained": lambda made, given: (made | (lambda result: result)).invoke(given),
}


def all_of(items: Any) -> Any:
    (only,) = list(items)
    return only


async def all_of_async(items: Any) -> Any:
    return all_of([item async for item in items])


def writing_tool(kind: str, witness: Path) -> BaseTool:
    def write(text: str) -> str:
        witness.write_text(text)
        return f"wrote {text}"

    async def awrite(text: str) -> str:
        return write(text)

    class Writer(BaseTool):
        name: str = "write"
        description: str = "writes"

        def _run(self, text: str) -> str:
            return write(text)

    if kind == "async function":
        return StructuredTool.from_function(write, awrite, name="write", description="writes")
    if kind == "single input":
        return Tool("write", write, "writes")
    if kind == "subclass":
        return Writer()
    return StructuredTool.from_function(write, name="write", description="writes")


@pytest.mark.parametrize("kind", ["function", "async function", "single input", "subclass"])
@pytest.mark.parametrize("way", WAYS)
class TestEveryWay:
    def test_an_allowed_call_gives_its_result(self, way: str, kind: str, witness: Path, interceptor: Any) -> None:
        """One verdict, one end, and the tool's own result."""
        assert WAYS[way](writing_tool(kind, witness), {"text": "hello"}) == "wrote hello"
        assert witness.read_text() == "hello"
        assert interceptor.account == [("write", "returned")]
        assert interceptor.arguments() == [{"text": "hello"}]

    def test_a_denied_call_does_not_run(self, way: str, kind: str, witness: Path, interceptor: Any) -> None:
        """The body of a denied call never runs; the caller gets the documented error with its facts."""
        interceptor.deny("write")
        # LangChain tries again what raised: each attempt is asked about.
        attempts = 3 if way == "with_retry" else 1
        with pytest.raises(ToolExecutionBlockedError) as caught:
            WAYS[way](writing_tool(kind, witness), {"text": "hello"})
        assert not witness.exists()
        assert interceptor.account == [("write", "refused")] * attempts
        assert type(caught.value) is PolicyViolationError
        assert not isinstance(caught.value, MCPToolBlockedError)
        facts = caught.value
        assert (facts.tool_name, facts.reason, facts.rule, facts.policy) == ("write", "not here", "no", "test")
        assert facts.event_id == interceptor.calls[-1].event_id

    def test_a_refusal_is_an_answer(self, way: str, kind: str, witness: Path, interceptor: Any) -> None:
        """With on_deny "refuse" the caller gets the refusal as the tool's result, as text where no id is known."""
        interceptor.deny("write", "ask a person")
        interceptor.on_deny = "refuse"
        answer = WAYS[way](writing_tool(kind, witness), {"text": "hello"})
        assert not witness.exists()
        assert answer == "ask a person"
        assert interceptor.account == [("write", "refused")]

    def test_observing_lets_a_denied_call_run(self, way: str, kind: str, witness: Path, interceptor: Any) -> None:
        """Whether a denial blocks is the interceptor's word, not the adapter's."""
        interceptor.enforcement_mode = "observe"
        interceptor.deny("write")
        assert WAYS[way](writing_tool(kind, witness), {"text": "hello"}) == "wrote hello"
        assert interceptor.account == [("write", "returned")]


CALL = {"name": "write", "args": {"text": "hello"}, "id": "call-7", "type": "tool_call"}


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "batch", "astream"])
def test_the_models_call_id_is_the_calls_own(way: str, witness: Path, interceptor: Any) -> None:
    """A call that a model made keeps its id, and a refusal of it is the message that the model expects."""
    made = writing_tool("function", witness)
    assert WAYS[way](made, CALL).content == "wrote hello"
    interceptor.deny("write", "ask a person")
    interceptor.on_deny = "refuse"
    refused = WAYS[way](made, CALL)
    assert isinstance(refused, ToolMessage)
    assert (refused.status, refused.tool_call_id, refused.name) == ("error", "call-7", "write")
    assert refused.content == "ask a person"
    assert [call.call_id for call in interceptor.calls] == ["call-7", "call-7"]
    assert interceptor.arguments() == [{"text": "hello"}] * 2


def test_text_counts_as_the_first_argument(witness: Path, interceptor: Any) -> None:
    """A text input reaches the verdict under the name that the tool knows it by."""

    @tool
    def write(path: str) -> str:
        """Write."""
        return path

    for made in (write, writing_tool("subclass", witness), writing_tool("single input", witness)):
        made.invoke("there")
    assert interceptor.arguments() == [{"path": "there"}, {"text": "there"}, {"input": "there"}]


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_replaced_arguments_are_what_runs(way: str, interceptor: Any) -> None:
    """A verdict that replaces arguments replaces what the model gave, and nothing that was injected."""
    seen: list[tuple[str, str, str]] = []

    @tool
    def send(text: str, account: Annotated[str, InjectedToolArg], call: Annotated[str, InjectedToolCallId]) -> str:
        """Send."""
        seen.append((text, account, call))
        return text

    interceptor.redact("send", {"text": "***"})
    given = {"name": "send", "args": {"text": "secret", "account": "a-1"}, "id": "call-1", "type": "tool_call"}
    assert WAYS[way](send, given).content == "***"
    assert seen == [("***", "a-1", "call-1")]
    assert interceptor.arguments() == [{"text": "secret"}]
    assert given["args"] == {"text": "secret", "account": "a-1"}
    assert interceptor.account == [("send", "returned")]


def test_replaced_text_stays_text(interceptor: Any) -> None:
    """A text input whose argument is replaced is a text input still."""
    interceptor.redact("shout", {"text": "***"})

    @tool
    def shout(text: str) -> str:
        """Shout."""
        return text.upper()

    assert shout.invoke("secret") == "***"


def test_a_replaced_result_is_what_the_caller_gets(interceptor: Any) -> None:
    """What the interceptor makes of a result is what the caller gets."""
    interceptor.replace_result = lambda call, result: f"<{result}>"

    @tool
    def shout(text: str) -> str:
        """Shout."""
        return text.upper()

    assert shout.invoke("a") == "<A>"
    assert asyncio.run(shout.ainvoke("a")) == "<A>"


def test_arguments_that_change_on_the_way_do_not_reach_the_tool(interceptor: Any) -> None:
    """What is judged is what runs, also when someone else changes the dictionary meanwhile."""
    given = {"text": "harmless"}

    def meanwhile(_: ToolCall) -> Verdict:
        given["text"] = "harmful"
        return Verdict("allow", "", "default", blocked=False)

    interceptor.script["shout"] = meanwhile

    @tool
    def shout(text: str) -> str:
        """Shout."""
        return text.upper()

    assert shout.invoke(given) == "HARMLESS"


def test_threads_do_not_mix_their_calls(interceptor: Any) -> None:
    """One tool in many threads at once: a verdict for each call, each with its own arguments."""
    together = threading.Barrier(8)

    @tool
    def double(number: int) -> int:
        """Double."""
        together.wait(10)
        return 2 * number

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda number: double.invoke({"number": number}), range(8)))
    assert results == [2 * number for number in range(8)]
    assert interceptor.account == [("double", "returned")] * 8
    assert sorted(given["number"] for given in interceptor.arguments()) == list(range(8))


def test_a_tool_called_by_a_tool_knows_its_outer_call(interceptor: Any) -> None:
    """A call from within another tool has its own verdict, and names the outer call as its parent."""

    @tool
    def inner(text: str) -> str:
        """Inner."""
        return text

    @tool
    def outer(text: str) -> str:
        """Outer."""
        return inner.invoke(text)

    assert outer.invoke("a") == "a"
    assert interceptor.account == [("outer", "returned"), ("inner", "returned")]
    first_call, second_call = interceptor.calls
    assert (first_call.parent_event_id, second_call.parent_event_id) == (None, first_call.event_id)


def test_the_result_of_a_tool_with_an_artifact_can_be_a_refusal(interceptor: Any) -> None:
    """A tool that returns content and artifact is refused like any other."""
    interceptor.deny("draw")
    interceptor.on_deny = "refuse"

    @tool(response_format="content_and_artifact")
    def draw(text: str) -> tuple[str, bytes]:
        """Draw."""
        return text, b"picture"

    assert draw.invoke("a") == "not here"
    refused = draw.invoke({"name": "draw", "args": {"text": "a"}, "id": "call-1", "type": "tool_call"})
    assert (refused.status, refused.artifact) == ("error", None)


def test_a_tool_with_a_plain_schema_is_read_as_it_is_called(interceptor: Any) -> None:
    """A tool whose schema is JSON, not a model, has the arguments that the caller gave."""
    schema = {"title": "shout", "description": "d", "type": "object", "properties": {"text": {"type": "string"}}}
    made = StructuredTool(name="shout", description="d", args_schema=schema, func=lambda text: text.upper())
    assert made.invoke({"text": "a"}) == "A"
    assert interceptor.arguments() == [{"text": "a"}]
