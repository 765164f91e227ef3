"""Tools called in every way that LangChain knows, in one process. See `ground.py`."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

from ground import (
    CALL,
    Mixed,
    Override,
    OwnInvoke,
    OwnRun,
    Passing,
    classes,
    coroutine_tool,
    denied,
    denied_async,
    main,
    mark,
    message,
    pair,
    scenario,
)
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda, RunnableParallel
from langchain_core.tools import (
    BaseTool,
    InjectedToolArg,
    InjectedToolCallId,
    StructuredTool,
    Tool,
    ToolException,
    convert_runnable_to_tool,
    create_retriever_tool,
)

from agent_assembly import PolicyViolationError

# Tools that exist before governance begins when it begins late.
EARLY = pair("made_before")
EARLY_BOUND = tuple(RunnableLambda(each.invoke) for each in pair("bound_before"))


@scenario(read=1, delete=1)
def made_before(name: str) -> None:
    read, delete = EARLY
    assert read.invoke(CALL) == "did read_made_before"
    denied(lambda: delete.invoke(CALL))


@scenario(read=1, delete=1)
def bound_before(name: str) -> None:
    read, delete = EARLY_BOUND
    read.invoke(CALL)
    denied(lambda: delete.invoke(CALL))


@scenario(read=4, delete=4)
def plain_calls(name: str) -> None:
    read, delete = pair(name)
    for call in (
        lambda each: each.invoke(CALL),
        lambda each: each.invoke(message(each.name)),
        lambda each: each.run(CALL),
        lambda each: each.run(tool_input=CALL, tool_call_id="x"),
    ):
        call(read)
        denied(lambda call=call: call(delete))


@scenario(read=3, delete=3)
async def awaited_calls(name: str) -> None:
    read, delete = pair(name)
    for call in (
        lambda each: each.ainvoke(CALL),
        lambda each: each.ainvoke(message(each.name)),
        lambda each: each.arun(CALL),
    ):
        await call(read)
        await denied_async(call(delete))


@scenario(read=2, delete=2)
async def coroutine_only(name: str) -> None:
    read, delete = pair(name, coroutine_tool)
    for call in (lambda each: each.ainvoke(CALL), lambda each: each.arun(CALL)):
        await call(read)
        await denied_async(call(delete))


@scenario(read=1, delete=1)
def coroutine_called_in_step(name: str) -> None:
    """A tool that has no synchronous body raises NotImplementedError, after its verdict."""
    read, delete = pair(name, coroutine_tool)
    try:
        read.invoke(CALL)
    except NotImplementedError:
        mark(read.name)
    denied(lambda: delete.invoke(CALL))


@scenario(read=2, delete=2)
async def single_input(name: str) -> None:
    read, delete = (
        Tool(name=f"{verb}_{name}", description="d", func=lambda _, verb=verb: mark(f"{verb}_{name}"))
        for verb in ("read", "delete")
    )
    read.invoke("k")
    await read.ainvoke("k")
    denied(lambda: delete.invoke("k"))
    await denied_async(delete.ainvoke("k"))


@scenario(read=6, delete=6)
async def batches(name: str) -> None:
    read, delete = pair(name)
    assert len(read.batch([CALL, CALL])) == 2
    assert len(await read.abatch([CALL, CALL])) == 2
    assert len([*read.batch_as_completed([CALL, CALL])]) == 2
    found = delete.batch([CALL, CALL], return_exceptions=True) + await delete.abatch(
        [CALL, CALL], return_exceptions=True
    )
    found += [error for _, error in delete.batch_as_completed([CALL, CALL], return_exceptions=True)]
    assert [type(each) for each in found] == [PolicyViolationError] * 6


@scenario(read=4, delete=4)
async def streams(name: str) -> None:
    read, delete = pair(name)
    assert [*read.stream(CALL)]
    assert [each async for each in read.astream(CALL)]
    assert [each async for each in read.astream_events(CALL, version="v2")]
    assert [*(RunnableLambda(lambda each: each) | read).stream(CALL)]

    async def drain(stream: Any) -> None:
        async for _ in stream:
            pass

    denied(lambda: [*delete.stream(CALL)])
    await denied_async(drain(delete.astream(CALL)))
    await denied_async(drain(delete.astream_events(CALL, version="v2")))
    denied(lambda: [*(RunnableLambda(lambda each: each) | delete).stream(CALL)])


@scenario(read=6, delete=8)
def bindings(name: str) -> None:
    """Bindings, pipelines and retries: as many verdicts as attempts."""
    read, delete = pair(name)
    for wrap in (
        lambda each: each.with_config({"tags": ["x"]}),
        lambda each: each.bind(),
        lambda each: each | str,
        lambda each: RunnableParallel(a=each),
        lambda each: each.with_listeners(),
        lambda each: each.with_retry(stop_after_attempt=3, wait_exponential_jitter=False),
    ):
        wrap(read).invoke(CALL)
        denied(lambda wrap=wrap: wrap(delete).invoke(CALL))


@scenario(read=1, delete=1)
def fallbacks(name: str) -> None:
    """Falling back from a denied tool runs the other one, with a verdict of its own."""
    read, delete = pair(name)
    assert delete.with_fallbacks([read]).invoke(CALL) == f"did read_{name}"


@scenario(read=5, delete=5)
async def subclasses(name: str) -> None:
    for kind in (Override, OwnRun, OwnInvoke, Passing, Mixed):
        read, delete = classes(name, kind)
        read.invoke(CALL)
        denied(lambda delete=delete: delete.invoke(CALL))


@scenario(read=4, delete=4)
async def subclasses_awaited(name: str) -> None:
    for kind in (Override, OwnRun, OwnInvoke, Passing):
        read, delete = classes(name, kind)
        await read.ainvoke(CALL)
        await denied_async(delete.ainvoke(CALL))


@scenario(read=2, delete=2)
def subclass_made_late(name: str) -> None:
    """A class that is made while the program runs, by statement and by type()."""

    class Late(OwnRun):
        def run(self, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
            return mark(self.name)

    made = type("Made", (Override,), {"run": lambda self, tool_input, *a, **k: mark(self.name), "__module__": __name__})
    for kind in (Late, made):
        read, delete = classes(name, kind)
        read.invoke(CALL)
        denied(lambda delete=delete: delete.invoke(CALL))


@scenario(read=5, delete=5)
def copies(name: str) -> None:
    read, delete = classes(name, Override)
    for make in (
        copy.copy,
        copy.deepcopy,
        lambda each: each.model_copy(update={"tags": ["x"]}),
        lambda each: pickle.loads(pickle.dumps(each)),
        lambda each: type(each).model_construct(**dict(each)),
    ):
        make(read).invoke(CALL)
        denied(lambda make=make: make(delete).invoke(CALL))


@scenario(read=3, delete=3)
def runnables_as_tools(name: str) -> None:
    def body(verb: str) -> Callable[[dict[str, str]], str]:
        return lambda _: mark(f"{verb}_{name}")

    class Shelf(BaseRetriever):
        verb: str

        def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
            mark(f"{self.verb}_{name}")
            return [Document("x")]

    for make in (
        lambda verb: RunnableLambda(body(verb)).as_tool(arg_types={"key": str}, name=f"{verb}_{name}", description="d"),
        lambda verb: convert_runnable_to_tool(
            RunnableLambda(body(verb)), arg_types={"key": str}, name=f"{verb}_{name}", description="d"
        ),
    ):
        make("read").invoke(CALL)
        denied(lambda make=make: make("delete").invoke(CALL))
    read, delete = (create_retriever_tool(Shelf(verb=verb), f"{verb}_{name}", "d") for verb in ("read", "delete"))
    read.invoke({"query": "k"})
    denied(lambda: delete.invoke({"query": "k"}))


@scenario(read=3, delete=3)
def answers_of_other_kinds(name: str) -> None:
    """Artifacts, direct returns, injected arguments."""

    def both(key: str) -> tuple[str, bytes]:
        return mark(f"read_{name}"), b"x"

    def both_denied(key: str) -> tuple[str, bytes]:
        return mark(f"delete_{name}"), b"x"

    for verb, function in (("read", both), ("delete", both_denied)):
        made = StructuredTool.from_function(
            function, name=f"{verb}_{name}", description="d", response_format="content_and_artifact"
        )
        if verb == "read":
            assert made.invoke(message(made.name)).artifact == b"x"
        else:
            denied(lambda made=made: made.invoke(message(made.name)))
    read, delete = pair(name, return_direct=True)
    read.invoke(message(read.name))
    denied(lambda: delete.invoke(message(delete.name)))

    def injected(verb: str) -> BaseTool:
        def body(key: str, state: Annotated[object, InjectedToolArg], id_: Annotated[str, InjectedToolCallId]) -> str:
            return mark(f"{verb}_{name}")

        return StructuredTool.from_function(body, name=f"{verb}_{name}", description="d")

    injected("read").invoke(message(f"read_{name}", {"key": "k", "state": object()}))
    denied(lambda: injected("delete").invoke(message(f"delete_{name}", {"key": "k", "state": object()})))


@scenario(read=1, delete=1)
def handled_errors(name: str) -> None:
    """A tool's own handler of its errors does not see a denial."""

    def made(verb: str) -> BaseTool:
        def body(key: str) -> str:
            mark(f"{verb}_{name}")
            raise ToolException("of the tool")

        return StructuredTool.from_function(
            body, name=f"{verb}_{name}", description="d", handle_tool_error=True, handle_validation_error=True
        )

    assert made("read").invoke(CALL) == "of the tool"
    denied(lambda: made("delete").invoke(CALL))


@scenario(read=2, delete=2)
def tools_in_tools(name: str) -> None:
    """The inner call of a tool has its own verdict; its denial reaches the caller through the outer one."""
    read, delete = pair(name)

    def deleting(key: str) -> Any:
        mark(f"read_{name}")
        return delete.invoke(CALL)

    carrier = StructuredTool.from_function(deleting, name=f"read_{name}", description="d")
    denied(lambda: carrier.invoke(CALL))
    denied(lambda: StructuredTool.from_function(deleting, name=f"delete_{name}", description="d").invoke(CALL))
    read.invoke(CALL)


@scenario(read=6)
def recursion(name: str) -> None:
    def body(depth: int) -> int:
        mark(f"read_{name}")
        return depth if depth == 0 else int(made.invoke({"depth": depth - 1}))

    made = StructuredTool.from_function(body, name=f"read_{name}", description="d")
    assert made.invoke({"depth": 5}) == 0


@scenario(read=40, delete=40)
def threads(name: str) -> None:
    read, delete = pair(name)
    with ThreadPoolExecutor(16) as pool:
        futures = [pool.submit(each.invoke, CALL) for _ in range(20) for each in (read, delete)]
        contexts = [
            pool.submit(contextvars.copy_context().run, each.invoke, CALL) for _ in range(20) for each in (read, delete)
        ]
    outcomes = [type(future.exception()) for future in futures + contexts]
    assert outcomes == [type(None), PolicyViolationError] * 40


@scenario(read=100, delete=100)
async def two_hundred_at_once(name: str) -> None:
    read, delete = pair(name, coroutine_tool)
    found = await asyncio.gather(
        *(each.ainvoke(CALL) for _ in range(100) for each in (read, delete)), return_exceptions=True
    )
    assert [type(each) for each in found] == [str, PolicyViolationError] * 100


@scenario(read=1)
def generators(name: str) -> None:
    def body(key: str) -> Any:
        yield mark(f"read_{name}")

    assert [*StructuredTool.from_function(body, name=f"read_{name}", description="d").invoke(CALL)]


@scenario(read=2, delete=2)
def code_from_text(name: str) -> None:
    """Tools that exec'd code defines and calls, in a module that is none."""
    space: dict[str, Any] = {"Override": Override, "BaseTool": BaseTool, "mark": mark, "name": name}
    source = """
class Own(Override):
    def run(self, tool_input, *args, **kwargs):
        return mark(self.name)
made = [kind(name=f"{verb}_{name}") for kind in (Own, Override) for verb in ("read", "delete")]
"""
    exec(source, space)
    for each in space["made"]:
        if each.name.startswith("read"):
            each.invoke(CALL)
        else:
            denied(lambda each=each: each.invoke(CALL))


@scenario(read=1, delete=1)
def other_loops(name: str) -> None:
    """An event loop in another thread."""
    read, delete = pair(name, coroutine_tool)
    problems: list[BaseException] = []

    async def act() -> None:
        await read.ainvoke(CALL)
        await denied_async(delete.ainvoke(CALL))

    def run() -> None:
        try:
            asyncio.run(act())
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert not problems, problems


if __name__ == "__main__":
    main()
