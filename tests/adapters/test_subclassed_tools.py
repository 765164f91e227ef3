"""A subclass that overrides what LangChain calls is governed in its own code: one verdict for each attempt."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from langchain_core.tools import BaseTool, StructuredTool

from agent_assembly.exceptions import ToolExecutionBlockedError

CALL = {"name": "write", "args": {"text": "hello"}, "id": "call-1", "type": "tool_call"}
WAYS: dict[str, Callable[[BaseTool, Any], Any]] = {
    "invoke": lambda made, given: made.invoke(given),
    "ainvoke": lambda made, given: asyncio.run(made.ainvoke(given)),
    "run": lambda made, given: made.run(given.get("args", given)),
    "arun": lambda made, given: asyncio.run(made.arun(given.get("args", given))),
}


class Writing(BaseTool):
    """What the subclasses below have in common: a body that leaves a trace."""

    name: str = "write"
    description: str = "writes"
    witness: Path

    def write(self, text: str) -> str:
        with self.witness.open("a") as file:
            file.write(f"{text}\n")
        return f"wrote {text}"

    def _run(self, text: str) -> str:
        return self.write(text)


def text_of(given: Any) -> str:
    arguments = given["args"] if isinstance(given, dict) and "args" in given else given
    return str(arguments["text"] if isinstance(arguments, dict) else arguments)


class OwnRun(Writing):
    """Works in run() and arun() themselves, and never calls the base."""

    def run(self, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        return self.write(text_of(tool_input))

    async def arun(self, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        return self.write(text_of(tool_input))


class PassingRun(Writing):
    """Overrides run() and arun() and goes on to the base."""

    def run(self, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        return super().run(tool_input, *args, **kwargs)

    async def arun(self, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        return await super().arun(tool_input, *args, **kwargs)


class DeeperRun(PassingRun):
    """An override of an override."""

    def run(self, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        return super().run(tool_input, *args, **kwargs)

    async def arun(self, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        return await super().arun(tool_input, *args, **kwargs)


class PassingAll(PassingRun):
    """Overrides every way in, each going on to the base."""

    def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        return super().invoke(input, config, **kwargs)

    async def ainvoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        return await super().ainvoke(input, config, **kwargs)


class OwnInvoke(Writing):
    """Works in invoke() and ainvoke() themselves."""

    def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        return self.write(text_of(input))

    async def ainvoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        return self.write(text_of(input))


class RunMixin:
    """Overrides run() and arun() without being a tool itself."""

    def run(self, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        return self.write(text_of(tool_input))  # type: ignore[attr-defined]

    async def arun(self, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        return self.write(text_of(tool_input))  # type: ignore[attr-defined]


class Mixed(RunMixin, Writing):
    pass


class MixedDeeper(Mixed):
    pass


class AsyncThroughThread(Writing):
    """Its asynchronous run is its synchronous one, in a thread."""

    async def arun(self, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(self.run, tool_input, *args, **kwargs)


class SyncThroughLoop(Writing):
    """Its synchronous run is its asynchronous one, in a loop."""

    def run(self, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        with ThreadPoolExecutor(1) as pool:
            context = contextvars.copy_context()
            coroutine = self.arun(tool_input, *args, **kwargs)
            return pool.submit(context.run, asyncio.run, coroutine).result()


class PlainFunctionReturningAwaitable(Writing):
    """Its arun() is no coroutine function, but what it returns can be awaited."""

    def arun(self, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        return super().arun(tool_input, *args, **kwargs)


class OwnSignature(Writing):
    """Its run() has parameters of its own."""

    def run(self, text: Any = "", **kwargs: Any) -> Any:
        return self.write(text_of(text))

    async def arun(self, text: Any = "", **kwargs: Any) -> Any:
        return self.write(text_of(text))


class StructuredSubclass(StructuredTool):
    """A subclass of LangChain's own tool class, which chooses between thread and coroutine in ainvoke()."""

    def run(self, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
        return super().run(tool_input, *args, **kwargs)

    def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        return super().invoke(input, config, **kwargs)


def structured(witness: Path) -> BaseTool:
    def write(text: str) -> str:
        with witness.open("a") as file:
            file.write(f"{text}\n")
        return f"wrote {text}"

    return StructuredSubclass.from_function(write, name="write", description="writes")


CLASSES = [
    OwnRun,
    PassingRun,
    DeeperRun,
    PassingAll,
    OwnInvoke,
    Mixed,
    MixedDeeper,
    AsyncThroughThread,
    SyncThroughLoop,
    PlainFunctionReturningAwaitable,
    OwnSignature,
]
MAKERS = {cls.__name__: (lambda witness, cls=cls: cls(witness=witness)) for cls in CLASSES}
MAKERS["StructuredSubclass"] = structured


def written(witness: Path) -> list[str]:
    return witness.read_text().splitlines() if witness.exists() else []


@pytest.mark.parametrize("given", [CALL, {"text": "hello"}], ids=["tool call", "arguments"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", MAKERS)
class TestOverrides:
    def test_one_verdict_for_one_call(self, kind: str, way: str, given: Any, witness: Path, interceptor: Any) -> None:
        """However many layers a call passes, it is judged once, with the arguments that the caller gave."""
        WAYS[way](MAKERS[kind](witness), given)
        assert written(witness) == ["hello"]
        assert interceptor.account == [("write", "returned")]
        assert interceptor.arguments() == [{"text": "hello"}]
        if given is CALL and way in ("invoke", "ainvoke"):
            assert interceptor.calls[0].call_id == "call-1"

    def test_a_denied_override_does_not_run(
        self, kind: str, way: str, given: Any, witness: Path, interceptor: Any
    ) -> None:
        """The code of an override is part of the tool: it does not run either."""
        interceptor.deny("write")
        with pytest.raises(ToolExecutionBlockedError):
            WAYS[way](MAKERS[kind](witness), given)
        assert not witness.exists()
        assert interceptor.account == [("write", "refused")]

    def test_replaced_arguments_reach_the_body(
        self, kind: str, way: str, given: Any, witness: Path, interceptor: Any
    ) -> None:
        """Arguments that the verdict replaces count for all layers, without a second verdict."""
        interceptor.redact("write", {"text": "***"})
        WAYS[way](MAKERS[kind](witness), given)
        assert written(witness) == ["***"]
        assert interceptor.account == [("write", "returned")]


def test_a_class_made_later_is_governed(witness: Path, interceptor: Any) -> None:
    """A subclass that is defined while governance is on is governed from the start."""

    class Late(Writing):
        def run(self, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
            return self.write(text_of(tool_input))

    interceptor.deny("write")
    with pytest.raises(ToolExecutionBlockedError):
        Late(witness=witness).invoke(CALL)
    assert not witness.exists()


def test_a_class_that_keeps_its_subclasses_to_itself_is_governed(witness: Path, interceptor: Any) -> None:
    """An __init_subclass__ that does not call its base's hides no subclass."""

    class Closed(Writing):
        def __init_subclass__(cls, **kwargs: Any) -> None:
            pass

    class Below(Closed):
        def run(self, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
            return self.write(text_of(tool_input))

    interceptor.deny("write")
    with pytest.raises(ToolExecutionBlockedError):
        Below(witness=witness).invoke(CALL)
    assert not witness.exists()


def test_the_arguments_of_class_definitions_reach_their_owner(interceptor: Any) -> None:
    """What a class statement passes to __init_subclass__ arrives there, once."""
    seen: list[tuple[str, str]] = []

    class Tagged(Writing):
        def __init_subclass__(cls, tag: str = "", **kwargs: Any) -> None:
            super().__init_subclass__(**kwargs)
            seen.append((cls.__name__, tag))

    class Below(Tagged, tag="t"):
        pass

    assert seen == [("Below", "t")]


def test_a_second_run_is_a_second_attempt(witness: Path, interceptor: Any) -> None:
    """An override that runs the base twice makes two attempts: the second has a verdict of its own."""

    class Twice(Writing):
        def run(self, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
            super().run(tool_input, *args, **kwargs)
            return super().run(tool_input, *args, **kwargs)

    Twice(witness=witness).invoke(CALL)
    assert written(witness) == ["hello", "hello"]
    assert interceptor.account == [("write", "returned"), ("write", "returned")]
    assert interceptor.calls[1].parent_event_id == interceptor.calls[0].event_id


def test_other_arguments_are_another_call(witness: Path, interceptor: Any) -> None:
    """An override that changes the arguments needs a verdict about what it made of them."""

    class Changing(Writing):
        def run(self, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
            return super().run({"text": "something else"}, *args, **kwargs)

    Changing(witness=witness).invoke(CALL)
    assert interceptor.arguments() == [{"text": "hello"}, {"text": "something else"}]
    assert len(interceptor.account) == 2


def test_another_name_is_another_call(witness: Path, interceptor: Any) -> None:
    """A tool that takes another name on the way needs a verdict under that name."""

    class Renaming(Writing):
        def run(self, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
            self.name = "erase"
            return super().run(tool_input, *args, **kwargs)

    interceptor.deny("erase")
    with pytest.raises(ToolExecutionBlockedError):
        Renaming(witness=witness).invoke(CALL)
    assert not witness.exists()
    assert interceptor.account == [("write", "raised"), ("erase", "refused")]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_tool_that_calls_itself_makes_calls_of_its_own(asynchronous: bool, witness: Path, interceptor: Any) -> None:
    """A body that calls its own tool again, with the very same arguments, makes another call."""

    class Recursive(PassingAll):
        depth: int = 2

        def _run(self, text: str) -> str:
            self.write(text)
            if self.depth:
                self.depth -= 1
                return str(self.invoke(CALL).content)
            return "bottom"

    made = Recursive(witness=witness)
    result = asyncio.run(made.ainvoke(CALL)) if asynchronous else made.invoke(CALL)
    assert result.content == "bottom"
    assert interceptor.account == [("write", "returned")] * 3


def test_a_body_that_takes_another_way_into_its_tool_makes_a_call_of_its_own(witness: Path, interceptor: Any) -> None:
    """What a body calls is never covered by the verdict about the body, whichever method it takes."""

    class Crossing(Writing):
        def _run(self, text: str) -> str:
            with ThreadPoolExecutor(1) as pool:
                context = contextvars.copy_context()
                return str(pool.submit(context.run, asyncio.run, self.arun({"text": text})).result())

        async def _arun(self, text: str) -> str:
            return self.write(text)

    assert Crossing(witness=witness).run({"text": "hello"}) == "wrote hello"
    assert interceptor.account == [("write", "returned")] * 2
    assert interceptor.calls[1].parent_event_id == interceptor.calls[0].event_id


def test_an_override_that_calls_itself_makes_calls_of_its_own(witness: Path, interceptor: Any) -> None:
    """An override that enters itself again gets no use of the verdict that it runs under."""

    class Recursive(Writing):
        depth: int = 1

        def run(self, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
            if self.depth:
                self.depth -= 1
                return self.run(tool_input, *args, **kwargs)
            return self.write(text_of(tool_input))

    Recursive(witness=witness).invoke(CALL)
    assert interceptor.account == [("write", "returned")] * 2


def test_another_instance_is_another_call(witness: Path, interceptor: Any) -> None:
    """A tool that hands its call on to another tool of the same name and arguments makes a second call."""
    inner = PassingRun(witness=witness)

    class Delegating(Writing):
        def run(self, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
            return inner.run(tool_input, *args, **kwargs)

    Delegating(witness=witness).invoke(CALL)
    assert interceptor.account == [("write", "returned")] * 2


def test_a_verdict_does_not_outlive_its_call(witness: Path, interceptor: Any) -> None:
    """What an override leaves running, with a copy of its context, has no use of its verdict once it has returned."""
    later: list[Callable[[], Any]] = []

    class Deferring(Writing):
        def run(self, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
            context = contextvars.copy_context()
            base_run = super().run
            later.append(lambda: context.run(base_run, tool_input, *args, **kwargs))
            return "later"

    assert Deferring(witness=witness).invoke(CALL) == "later"
    interceptor.deny("write")
    with pytest.raises(ToolExecutionBlockedError):
        later[0]()
    assert not witness.exists()
    assert interceptor.account == [("write", "returned"), ("write", "refused")]


def test_one_verdict_serves_one_thread(witness: Path, interceptor: Any) -> None:
    """An override that runs the base in two threads at once, each with its context: one needs a verdict of its own."""
    together = threading.Barrier(2)

    class Forking(Writing):
        def run(self, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
            base_run = super().run

            def one() -> Any:
                together.wait(10)
                return base_run(tool_input, *args, **kwargs)

            contexts = [contextvars.copy_context() for _ in range(2)]
            with ThreadPoolExecutor(2) as pool:
                runs = [pool.submit(context.run, one) for context in contexts]
                return runs[0].result()

    Forking(witness=witness).invoke(CALL)
    assert len(written(witness)) == 2
    assert interceptor.account == [("write", "returned")] * 2


def test_a_wrapped_function_is_no_governed_one(witness: Path, interceptor: Any) -> None:
    """An override that copies the base's attributes, as functools.wraps does, is not mistaken for the governed base."""

    class Wrapped(Writing):
        @functools.wraps(BaseTool.run)
        def run(self, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
            return self.write(text_of(tool_input))

    interceptor.deny("write")
    with pytest.raises(ToolExecutionBlockedError):
        Wrapped(witness=witness).invoke(CALL)
    assert not witness.exists()


def test_a_borrowed_base_method_is_governed_once(witness: Path, interceptor: Any) -> None:
    """A class that names the base's governed method as its own is judged once."""

    class Borrowing(PassingRun):
        run = BaseTool.run

    Borrowing(witness=witness).invoke(CALL)
    assert interceptor.account == [("write", "returned")]


def test_classes_that_the_program_drops_can_go(interceptor: Any) -> None:
    """Governing a class does not keep it alive."""

    def make() -> weakref.ref[type]:
        class Passing(Writing):
            def run(self, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
                return super().run(tool_input, *args, **kwargs)

        return weakref.ref(Passing)

    dropped = make()
    gc.collect()
    assert dropped() is None
