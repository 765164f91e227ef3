"""However a tool call ends, it ends once in the record, and the program sees what it would see without us."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.tools import BaseTool, StructuredTool, ToolException, tool

import agent_assembly
from agent_assembly.adapters.langchain import LangChainAdapter
from agent_assembly.exceptions import PolicyViolationError, ToolExecutionBlockedError
from agent_assembly.governance import Outcome, ToolCall, Verdict

WAYS: dict[str, Callable[[BaseTool, Any], Any]] = {
    "invoke": lambda made, given: made.invoke(given),
    "ainvoke": lambda made, given: asyncio.run(made.ainvoke(given)),
    "run": lambda made, given: made.run(given),
    "arun": lambda made, given: asyncio.run(made.arun(given)),
}


def failing(error: BaseException, *, asynchronous: bool) -> BaseTool:
    def fail(text: str) -> str:
        raise error

    async def afail(text: str) -> str:
        raise error

    return StructuredTool.from_function(fail, afail if asynchronous else None, name="fail", description="fails")


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync tool", "async tool"])
@pytest.mark.parametrize("way", WAYS)
def test_the_tools_own_error_passes_unchanged(way: str, asynchronous: bool, interceptor: Any) -> None:
    """The caller catches the very exception that the tool raised, and our part of its traceback is one frame."""
    error = ValueError("the tool's own")
    with pytest.raises(ValueError, match="the tool's own") as caught:
        WAYS[way](failing(error, asynchronous=asynchronous), {"text": "a"})
    assert caught.value is error
    assert error.__cause__ is None
    assert error.__context__ is None
    ours = [frame.name for frame in traceback.extract_tb(error.__traceback__) if "agent_assembly" in frame.filename]
    assert ours == ["governed"]
    assert interceptor.account == [("fail", "raised")]
    assert interceptor.ended[0][1].error is error


@pytest.mark.parametrize("way", ["invoke", "run", "arun"])
def test_an_interrupted_program_cancels_the_call(way: str, interceptor: Any) -> None:
    """A KeyboardInterrupt in a tool reaches the program, and the call has ended as cancelled."""
    with pytest.raises(KeyboardInterrupt):
        WAYS[way](failing(KeyboardInterrupt(), asynchronous=way == "arun"), {"text": "a"})
    assert interceptor.account == [("fail", "cancelled")]


def test_a_tool_that_ends_the_program_has_raised(interceptor: Any) -> None:
    """SystemExit passes, and is recorded."""
    with pytest.raises(SystemExit):
        failing(SystemExit(3), asynchronous=False).invoke({"text": "a"})
    assert interceptor.account == [("fail", "raised")]


@pytest.mark.parametrize("method", ["ainvoke", "arun"])
def test_a_cancelled_task_cancels_its_call(method: str, interceptor: Any) -> None:
    """Cancelling the task in which an asynchronous tool waits ends the call as cancelled."""

    async def program() -> None:
        waiting = asyncio.Event()

        async def wait(text: str) -> str:
            waiting.set()
            await asyncio.sleep(60)
            return text

        made = StructuredTool.from_function(coroutine=wait, name="wait", description="waits")
        task = asyncio.create_task(getattr(made, method)({"text": "a"}))
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(program())
    assert interceptor.account == [("wait", "cancelled")]


def test_a_call_that_is_dropped_half_way_is_cancelled(interceptor: Any) -> None:
    """A coroutine that is closed while the tool waits ends its call, without waiting for anything itself."""

    class Wait(BaseTool):
        name: str = "wait"
        description: str = "waits"

        def _run(self, text: str) -> str:
            raise NotImplementedError

        async def arun(self, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
            await asyncio.sleep(60)

    async def program() -> None:
        coroutine = Wait().arun({"text": "a"})
        coroutine.send(None)
        coroutine.close()

    asyncio.run(program())
    assert interceptor.account == [("wait", "cancelled")]


@pytest.mark.parametrize("way", WAYS)
def test_an_error_that_langchain_handles_is_a_result(way: str, interceptor: Any) -> None:
    """A tool that turns its ToolException into an answer has returned."""

    @tool
    def fail(text: str) -> str:
        """Fail."""
        raise ToolException(text)

    fail.handle_tool_error = True
    assert WAYS[way](fail, {"text": "not now"}) == "not now"
    assert interceptor.account == [("fail", "returned")]


class Listener(BaseCallbackHandler):
    """Writes down what LangChain reports of tools."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def on_tool_start(self, serialized: Any, input_str: str, **kwargs: Any) -> None:
        self.heard.append(("start", serialized["name"], input_str, kwargs.get("inputs"), kwargs.get("metadata")))

    def on_tool_end(self, output: Any, **kwargs: Any) -> None:
        self.heard.append(("end", output))

    def on_tool_error(self, error: BaseException, **kwargs: Any) -> None:
        self.heard.append(("error", type(error).__name__))


def heard(way: str, given: Any) -> list[tuple[Any, ...]]:
    @tool
    def shout(text: str) -> str:
        """Shout."""
        if text == "fail":
            raise ValueError(text)
        return text.upper()

    listener = Listener()
    config = {"callbacks": [listener], "metadata": {"of": "the user"}, "tags": ["t"]}
    try:
        if way in ("invoke", "ainvoke"):
            result = getattr(shout, way)(given, config)
        else:
            result = getattr(shout, way)(given, callbacks=[listener], metadata={"of": "the user"})
        if asyncio.iscoroutine(result):
            asyncio.run(result)
    except (ValueError, ToolExecutionBlockedError):
        pass
    return listener.heard


@pytest.mark.parametrize("given", [{"text": "a"}, "a", {"text": "fail"}], ids=["arguments", "text", "failing"])
@pytest.mark.parametrize("way", WAYS)
def test_callbacks_hear_what_they_heard_before(way: str, given: Any, request: pytest.FixtureRequest) -> None:
    """Governance changes nothing of what LangChain reports of an allowed call."""
    before = heard(way, given)
    request.getfixturevalue("interceptor")
    assert heard(way, given) == before
    assert [event[0] for event in before] == ["start", "error" if given == {"text": "fail"} else "end"]


@pytest.mark.parametrize("way", WAYS)
def test_callbacks_hear_nothing_of_a_denied_call(way: str, interceptor: Any) -> None:
    """A tool that did not run did not start."""
    interceptor.deny("shout")
    assert heard(way, {"text": "a"}) == []
    assert interceptor.account == [("shout", "refused")]


class TestWithoutVerdict:
    """An interceptor or a tool that fails in the middle of the question."""

    @pytest.mark.parametrize("way", WAYS)
    def test_no_verdict_is_a_denial(self, way: str, witness: Path, interceptor: Any) -> None:
        """When the interceptor itself fails, nothing runs under enforcement, and the error says why."""
        interceptor.script["write"] = fail_to_decide
        with pytest.raises(
            PolicyViolationError, match="no verdict could be had: ZeroDivisionError: out of order"
        ) as caught:
            WAYS[way](writing(witness), {"text": "a"})
        assert not witness.exists()
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        assert interceptor.account == [("write", "refused")]

    @pytest.mark.parametrize("mode", ["observe", "disabled"])
    @pytest.mark.parametrize("way", WAYS)
    def test_observing_runs_without_a_verdict(self, way: str, mode: str, witness: Path, interceptor: Any) -> None:
        """The same failure stops nothing where nothing is enforced."""
        interceptor.enforcement_mode = mode
        interceptor.script["write"] = fail_to_decide
        WAYS[way](writing(witness), {"text": "a"})
        assert witness.read_text() == "a"
        assert interceptor.account == [("write", "returned")]

    @pytest.mark.parametrize("way", WAYS)
    def test_a_call_that_cannot_be_read_is_a_denial(self, way: str, witness: Path, interceptor: Any) -> None:
        """A tool whose name or arguments cannot be had does not run, and its record names an opaque argument."""
        made = writing(witness, unreadable=True)
        with pytest.raises(PolicyViolationError, match="its arguments could not be read: RuntimeError: no name"):
            WAYS[way](made, {"text": "a"})
        assert not witness.exists()
        assert [call.tool for call in interceptor.calls] == ["Write"]
        assert b"$opaque" in interceptor.calls[0].args_json
        assert interceptor.account == [("Write", "refused")]

    def test_arguments_that_cannot_be_replaced_do_not_run(self, witness: Path, interceptor: Any) -> None:
        """When the verdict's arguments cannot be put in place, the original ones do not run instead."""
        interceptor.redact("write", {"text": "a"})
        interceptor.script["write"] = lambda call: Verdict(
            "redact",
            "",
            "rule",
            blocked=False,
            arguments=3,  # type: ignore[arg-type]
        )
        with pytest.raises(PolicyViolationError):
            writing(witness).invoke({"text": "a"})
        assert not witness.exists()
        assert interceptor.account == [("write", "refused")]

    @pytest.mark.parametrize("way", WAYS)
    def test_an_account_that_fails_changes_no_result(self, way: str, witness: Path) -> None:
        """An interceptor that fails after the call takes nothing from what the tool returned."""

        class Forgetful:
            on_deny = "raise"
            enforcement_mode = "enforce"

            def before_tool(self, call: ToolCall) -> Verdict:
                return Verdict("allow", "", "default", blocked=False)

            async def before_tool_async(self, call: ToolCall) -> Verdict:
                return self.before_tool(call)

            def after_tool(self, call: ToolCall, outcome: Outcome) -> Any:
                raise OSError("disk full")

            async def after_tool_async(self, call: ToolCall, outcome: Outcome) -> Any:
                return self.after_tool(call, outcome)

        adapter = LangChainAdapter()
        adapter.register_hooks(Forgetful())  # type: ignore[arg-type]
        try:
            assert WAYS[way](writing(witness), {"text": "a"}) == "wrote"
        finally:
            adapter.unregister_hooks()


def fail_to_decide(_: ToolCall) -> Verdict:
    raise ZeroDivisionError("out of order")


def writing(witness: Path, *, unreadable: bool = False) -> BaseTool:
    class Write(BaseTool):
        name: str = "write"
        description: str = "writes"

        def _run(self, text: str) -> str:
            witness.write_text(text)
            return "wrote"

        def __getattribute__(self, attribute: str) -> Any:
            if attribute == "name" and unreadable:
                raise RuntimeError("no name")
            return super().__getattribute__(attribute)

    return Write()


class TestUnregistering:
    def test_every_attribute_is_as_it_was(self, interceptor: Any) -> None:
        """Registering and unregistering, again and again, leaves the very same objects in every class."""
        import langchain_core.tools as tools

        class Overriding(BaseTool):
            def run(self, *args: Any, **kwargs: Any) -> Any:
                return super().run(*args, **kwargs)

        governed = snapshot(BaseTool, Overriding, StructuredTool, tools.Tool)
        for _ in range(2):
            adapter = LangChainAdapter()
            adapter.register_hooks(interceptor)
            assert snapshot(BaseTool, Overriding, StructuredTool, tools.Tool) != governed
            adapter.unregister_hooks()
            assert snapshot(BaseTool, Overriding, StructuredTool, tools.Tool) == governed

    def test_a_program_without_governance_has_langchains_own_methods(self) -> None:
        """After the last adapter went, the methods are LangChain's own, and no class has one that it had not."""
        before = snapshot(BaseTool, StructuredTool)
        adapter = LangChainAdapter()
        interceptor = Allowing()
        adapter.register_hooks(interceptor)  # type: ignore[arg-type]
        adapter.unregister_hooks()
        adapter.unregister_hooks()
        assert snapshot(BaseTool, StructuredTool) == before
        assert BaseTool.run.__module__ == "langchain_core.tools.base"
        assert not hasattr(BaseTool.run, "__wrapped__")

    def test_a_kept_method_works_without_governance(self, witness: Path) -> None:
        """A governed method that the program kept for itself goes on to the tool, and asks nobody any more."""
        adapter = LangChainAdapter()
        interceptor = Allowing()
        adapter.register_hooks(interceptor)  # type: ignore[arg-type]
        kept, kept_async = BaseTool.run, BaseTool.arun
        adapter.unregister_hooks()
        assert kept(writing(witness), {"text": "a"}) == "wrote"
        assert asyncio.run(kept_async(writing(witness), {"text": "a"})) == "wrote"
        assert interceptor.asked == 0

    def test_what_others_patched_on_top_stays(
        self, witness: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Someone who patched the governed method keeps the patch; ours under it becomes inert, and that is said."""
        adapter = LangChainAdapter()
        interceptor = Allowing()
        adapter.register_hooks(interceptor)  # type: ignore[arg-type]
        governed = BaseTool.run
        seen: list[str] = []

        def theirs(self: BaseTool, *args: Any, **kwargs: Any) -> Any:
            seen.append(self.name)
            return governed(self, *args, **kwargs)

        original = governed.__wrapped__  # type: ignore[attr-defined]
        BaseTool.run = theirs  # type: ignore[method-assign]
        try:
            adapter.unregister_hooks()
            assert BaseTool.run is theirs
            assert writing(witness).invoke({"text": "a"}) == "wrote"
        finally:
            BaseTool.run = original  # type: ignore[method-assign]
        assert seen == ["write"]
        assert interceptor.asked == 0
        assert "langchain_core.tools.base.BaseTool.run was patched by someone else" in caplog.text


class Allowing:
    """Allows everything and counts the questions."""

    on_deny = "raise"
    enforcement_mode = "enforce"
    asked = 0

    def before_tool(self, call: ToolCall) -> Verdict:
        self.asked += 1
        return Verdict("allow", "", "default", blocked=False)


def snapshot(*classes: type) -> list[dict[str, int]]:
    return [{name: id(value) for name, value in vars(cls).items()} for cls in classes]


RELOADING = """
import importlib, sys
import agent_assembly
from agent_assembly.adapters.langchain import LangChainAdapter
from agent_assembly.governance import Verdict

class Counting:
    on_deny, enforcement_mode, asked = "raise", "enforce", 0
    def before_tool(self, call):
        self.asked += 1
        return Verdict("allow", "", "default", blocked=False)
    def after_tool(self, call, outcome):
        return outcome.result

counting, adapter = Counting(), LangChainAdapter()
adapter.register_hooks(counting)
import langchain_core.tools.base as base
first = base.BaseTool
importlib.reload(base)
second = base.BaseTool
assert first is not second
for cls in (first, second):
    class Echo(cls):
        name: str = "echo"
        description: str = "echoes"
        def _run(self, text: str) -> str:
            return text
    assert Echo().invoke({"text": "a"}) == "a"
print(counting.asked)
adapter._imported(base)
Echo().invoke({"text": "a"})
print(counting.asked)
adapter.unregister_hooks()
print([hasattr(vars(cls)[name], "__wrapped__") for cls in (first, second) for name in ("run", "arun")])
"""


def test_a_reloaded_framework_is_governed_once() -> None:
    """After a reload the new classes are governed like the old ones, one verdict a call, and all are given back."""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RELOADING],
        env={"PYTHONPATH": str(Path(agent_assembly.__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.stdout.splitlines() == ["2", "3", "[False, False, False, False]"], result.stderr
