"""Programs that close, fork, replace and end themselves in every way stay governed, through both ways in.

Each program has an agent of its own in one gateway; what it tried is compared with what its agent has on record.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sdk.conftest import POLICY
from support.gateway import Gateway
from support.programs import program, run_command

WAYS = ["launched", "init"]
# In the first process only: a worker that imports the program anew does not begin governance itself.
INIT = """
if __name__ == "__main__":
    from agent_assembly import init_assembly
    context = init_assembly(gateway_url={url!r}, agent_id={agent!r})
"""
TOOLS = """
import asyncio, os, signal, sys, threading, time
from langchain_core.tools import BaseTool, StructuredTool, tool

def mark(name):
    with open({marks!r}, "a") as file:
        file.write(name + "\\n")
    return name

@tool
def read_x(key: str = "k") -> str:
    "Reads."
    return mark("read_x")

@tool
def delete_x(key: str = "k") -> str:
    "Deletes."
    return mark("delete_x")

async def coroutine(key: str = "k") -> str:
    return mark("read_async")

read_async = StructuredTool.from_function(coroutine=coroutine, name="read_async", description="d")

def both():
    read_x.invoke({{"key": "k"}})
    attempt(delete_x)

def attempt(denied):
    try:
        denied.invoke({{"key": "k"}})
    except Exception as error:
        assert type(error).__name__ == "PolicyViolationError", error
"""
BOTH = {("read_x", "allow", "returned"): 1, ("delete_x", "deny", "refused"): 1}
READ_DENIED = {"read_x": 1}


class Ran:
    """What a program said, what its agent has on record, and which bodies ran."""

    def __init__(self, said: subprocess.CompletedProcess[str], rows: list[dict[str, Any]], marks: Path) -> None:
        self.said = said
        self.rows = rows
        self.records = Counter((row["tool"], row["decision"], row["outcome"]) for row in rows)
        self.bodies = Counter(marks.read_text().split())


Run = Callable[..., Ran]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One gateway for all programs here."""
    home = tmp_path_factory.mktemp("programs") / "home"
    home.mkdir(mode=0o700)
    gateway = Gateway(home, policy=POLICY).start()
    yield gateway
    gateway.stop()


@pytest.fixture
def run(shared: Gateway, tmp_path: Path) -> Run:
    """`run(way, code, before=…)` runs a program whose tools are defined before `code`, and `before` before all else."""

    def run(way: str, code: str, *, before: str = "", options: tuple[str, ...] = (), code_of_exit: int = 0) -> Ran:
        agent, marks = f"{way}-{os.urandom(6).hex()}", tmp_path / "marks"
        marks.touch()
        script = tmp_path / "agent.py"
        begin = INIT.format(url=shared.url, agent=agent) if way == "init" else ""
        script.write_text(before + begin + TOOLS.format(marks=str(marks)) + code)
        command: list[str | Path] = [sys.executable, script]
        if way == "launched":
            command = [program("aasm-run"), "--agent-id", agent, *options, *command]
        said = run_command(command, shared.home, cwd=tmp_path)
        assert said.returncode == code_of_exit, said.stderr
        return Ran(said, shared.audit(agent=agent, seconds=20), marks)

    return run


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "before",
    [
        pytest.param("import os; os.environ.clear()\n", id="empties-its-environment"),
        pytest.param("import os; os.environ['AASM_ENFORCEMENT_MODE'] = 'disabled'\n", id="loosens-its-environment"),
        pytest.param("import os; os.environ['AASM_HOME'] = '/nowhere'\n", id="names-another-home"),
        pytest.param("import os; os.chdir('/')\n", id="changes-directory"),
        pytest.param("import sys; sys.path[:] = sys.path[1:]\n", id="changes-its-path"),
        pytest.param("import sys; sys.meta_path[:] = list(sys.meta_path)[::-1]\n", id="reorders-its-finders"),
    ],
)
def test_what_a_program_does_to_its_surroundings_is_no_way_out(run: Run, before: str, way: str) -> None:
    """The settings of a run are those that it was started with; those of init_assembly() the ones that it resolved."""
    ran = run(way, before + "both()\n", before=before if way == "launched" else "")
    assert ran.records == BOTH
    assert ran.bodies == READ_DENIED


@pytest.mark.parametrize("way", WAYS)
def test_the_numbers_of_closed_streams_stay_the_programs(run: Run, way: str) -> None:
    """No file and no connection of ours gets them: what a program writes there would go into a record."""
    code = """
for number in (0, 1, 2):
    os.close(number)
both()
taken = [number for number in (0, 1, 2) if os.path.exists(f"/proc/self/fd/{number}")]
os._exit(7 if taken else 0)
"""
    ran = run(way, code)
    assert ran.records == BOTH


@pytest.mark.parametrize("way", WAYS)
def test_a_daemon_is_governed(run: Run, way: str) -> None:
    """Two forks, a session of its own, another directory, no streams, and an end without clean-up."""
    code = """
middle = os.fork()
if not middle:
    os.setsid()
    if not os.fork():
        os.chdir("/")
        os.closerange(0, 3)
        both()
        open(mark_of_end, "w").close()
    os._exit(0)
os.waitpid(middle, 0)
while not os.path.exists(mark_of_end):
    time.sleep(0.01)
"""
    ran = run(way, "mark_of_end = os.path.abspath('ended')\n" + code)
    assert ran.records == BOTH
    assert ran.bodies == READ_DENIED


@pytest.mark.parametrize("way", WAYS)
def test_a_tree_of_forks_is_governed(run: Run, way: str) -> None:
    """Each of fifteen processes has its own verdicts, and is an instance of its own."""
    code = """
def tree(depth):
    both()
    for _ in range(2 if depth else 0):
        child = os.fork()
        if not child:
            tree(depth - 1)
            os._exit(0)
        os.waitpid(child, 0)
tree(3)
"""
    ran = run(way, code)
    assert ran.records == dict.fromkeys(BOTH, 15)
    assert len({row["instance_id"] for row in ran.rows}) == 15


@pytest.mark.parametrize("way", WAYS)
def test_a_fork_inside_a_tool_has_one_record(run: Run, way: str) -> None:
    """The call is the parent's; the child that returns from it adds nothing, and is governed."""
    code = """
@tool
def read_fork(key: str = "k") -> str:
    "Forks."
    mark("read_fork")
    child = os.fork()
    if child:
        os.waitpid(child, 0)
    return "parent" if child else "child"

answer = read_fork.invoke({"key": "k"})
attempt(delete_x)
"""
    ran = run(way, code)
    assert ran.records == {("read_fork", "allow", "returned"): 1, ("delete_x", "deny", "refused"): 2}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_are_governed_however_they_are_started(run: Run, method: str, way: str) -> None:
    """Processes and pools of `multiprocessing`, and a worker of a worker."""
    code = f"""
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
method = multiprocessing.get_context({method!r})

def work(depth):
    both()
    if depth:
        child = method.Process(target=work, args=(depth - 1,))
        child.start()
        child.join()

if __name__ == "__main__":
    child = method.Process(target=work, args=(1,))
    child.start()
    child.join()
    with ProcessPoolExecutor(1, mp_context=method) as pool:
        pool.submit(work, 0).result()
"""
    ran = run(way, code)
    assert ran.records == dict.fromkeys(BOTH, 3)
    assert ran.bodies == {"read_x": 3}


def test_workers_after_the_end_of_governance_are_left_alone(run: Run) -> None:
    """shutdown() gives `multiprocessing` back what it had."""
    code = """
import multiprocessing.spawn

def work():
    delete_x.invoke({"key": "k"})

if __name__ == "__main__":
    inside = multiprocessing.spawn.get_preparation_data
    context.shutdown()
    assert multiprocessing.spawn.get_preparation_data is not inside
    assert "agent_assembly" not in inside("x")
    child = multiprocessing.get_context("spawn").Process(target=work)
    child.start()
    child.join()
    sys.exit(child.exitcode)
"""
    ran = run("init", code)
    assert ran.records == {}
    assert ran.bodies == {"delete_x": 1}


@pytest.mark.parametrize("way", WAYS)
def test_a_program_that_replaces_itself_stays_governed(run: Run, way: str) -> None:
    """exec ends a program without clean-up: what it had begun is on record, and what follows is governed."""
    code = """
both()
if len(sys.argv) == 1:
    os.execv(sys.executable, [sys.executable, __file__, "again"])
"""
    assert run(way, code).records == dict.fromkeys(BOTH, 2)


@pytest.mark.parametrize("way", WAYS)
def test_modules_that_are_made_anew_are_governed(run: Run, way: str) -> None:
    """Reloading a framework, and importing it again after it was forgotten, changes nothing."""
    code = """
import importlib
import langchain_core.tools.base
importlib.reload(langchain_core.tools.base)

class Reloaded(langchain_core.tools.base.BaseTool):
    name: str = "delete_reloaded"
    description: str = "d"

    def _run(self, key: str = "k") -> str:
        return mark(self.name)

attempt(Reloaded())
for name in [name for name in sys.modules if name.startswith("langchain_core")]:
    del sys.modules[name]
from langchain_core.tools import tool as another
attempt(another(delete_x.func))
attempt(delete_x)
"""
    ran = run(way, code)
    assert ran.records == {("delete_reloaded", "deny", "refused"): 1, ("delete_x", "deny", "refused"): 2}
    assert ran.bodies == {}


@pytest.mark.parametrize("way", WAYS)
def test_calls_while_the_interpreter_ends_are_on_record(run: Run, way: str) -> None:
    """At exit no thread can be had any more: the check of an awaited call is made without."""
    code = """
import atexit
atexit.register(lambda: (asyncio.run(read_async.ainvoke({"key": "k"})), both()))
read_x.invoke({"key": "k"})
"""
    # Registered before governance begins, so run after governance has settled.
    late = """
import atexit
atexit.register(lambda: both())
"""
    ran = run(way, code, before=late)
    assert ran.records == {
        ("read_async", "allow", "returned"): 1,
        ("read_x", "allow", "returned"): 3,
        ("delete_x", "deny", "refused"): 2,
    }


@pytest.mark.parametrize("way", WAYS)
def test_threads_that_outlive_the_main_one_are_governed(run: Run, way: str) -> None:
    """The rest of a program's threads has verdicts; a daemon thread's call has an unknown outcome."""
    code = """
@tool
def read_daemon(key: str = "k") -> str:
    "Never ends."
    mark("read_daemon")
    time.sleep(60)

def work():
    for _ in range(5):
        time.sleep(0.02)
        both()

threading.Thread(target=work).start()
threading.Thread(target=read_daemon.invoke, args=({"key": "k"},), daemon=True).start()
"""
    ran = run(way, code)
    assert ran.records == {**dict.fromkeys(BOTH, 5), ("read_daemon", "allow", "unknown"): 1}


@pytest.mark.parametrize("way", WAYS)
def test_a_signal_in_the_middle_of_a_call_ends_the_program_as_ever(run: Run, way: str) -> None:
    """SIGTERM has its own effect and exit code; the call is on record."""
    code = """
@tool
def read_killed(key: str = "k") -> str:
    "Is ended."
    os.kill(os.getpid(), signal.SIGTERM)

read_killed.invoke({"key": "k"})
"""
    ran = run(way, code, code_of_exit=-signal.SIGTERM)
    assert ran.records == {("read_killed", "allow", "unknown"): 1}


@pytest.mark.parametrize("way", WAYS)
def test_cancelled_calls_have_one_record_each(run: Run, way: str) -> None:
    """Before, during and after the check, and also when the event loop is closed over a call."""
    code = """
async def forever(key: str = "k") -> str:
    await asyncio.sleep(60)

read_slow = StructuredTool.from_function(coroutine=forever, name="read_slow", description="d")

async def cancel_after(seconds):
    task = asyncio.create_task(read_slow.ainvoke({"key": "k"}))
    await asyncio.sleep(seconds)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        pass

async def act():
    await asyncio.gather(*(cancel_after(0.002 * number) for number in range(1, 41)))
    try:
        await asyncio.wait_for(read_slow.ainvoke({"key": "k"}), 0.3)
    except asyncio.TimeoutError:
        pass

asyncio.run(act())
loop = asyncio.new_event_loop()
task = loop.create_task(read_slow.ainvoke({"key": "k"}))
for _ in range(2):
    loop.call_soon(loop.stop)
    loop.run_forever()
del task
loop.close()
time.sleep(0.2)
"""
    ran = run(way, code)
    assert {(tool, outcome) for tool, _, outcome in ran.records} == {("read_slow", "cancelled")}
    assert sum(ran.records.values()) == 42


@pytest.mark.parametrize("way", WAYS)
def test_arguments_that_change_while_the_loop_is_busy_are_denied(run: Run, way: str) -> None:
    """What runs is what was checked, also when others had their turn between the verdict and the body."""
    code = """
async def join(items: list[str]) -> str:
    return mark("read_list")

read_list = StructuredTool.from_function(coroutine=join, name="read_list", description="d")

async def act():
    items = ["harmless"]
    call = asyncio.create_task(read_list.ainvoke({"items": items}))
    for _ in range(3):
        await asyncio.sleep(0)
    time.sleep(0.5)
    items[0] = "something else"
    try:
        await call
    except Exception as error:
        print(type(error).__name__, error.code)

asyncio.run(act())
"""
    ran = run(way, code)
    assert ran.said.stdout == "PolicyViolationError arguments_changed\n"
    assert [row["outcome"] for row in ran.rows] == ["refused"]
    assert ran.bodies == {}


def test_the_launchers_context_is_not_the_programs_to_end(run: Run) -> None:
    """Under aasm-run, ending the context that is active leaves governance where it was."""
    code = """
from agent_assembly import current_context
current_context().shutdown()
with current_context():
    pass
assert current_context().active
both()
"""
    assert run("launched", code).records == BOTH


def test_a_program_says_itself_how_denials_reach_it(run: Run) -> None:
    """on_deny of the program's own init_assembly() holds within it, and the launcher's after it."""
    code = """
from agent_assembly import init_assembly
with init_assembly(on_deny="refuse") as inner:
    assert inner.on_deny == "refuse"
    assert "is denied" in delete_x.invoke({"key": "k"})
attempt(delete_x)
"""
    assert run("launched", code).records == {("delete_x", "deny", "refused"): 2}


def test_strict_refuses_workers_that_would_not_be_governed(run: Run) -> None:
    """`multiprocessing` starts its processes without an audit event; they are refused all the same."""
    code = """
import multiprocessing
if __name__ == "__main__":
    del os.environ["AASM_RUN_ID"]
    try:
        multiprocessing.get_context("spawn").Process(target=both).start()
    except PermissionError as error:
        print(type(error).__name__)
"""
    ran = run("launched", code, options=("--children", "strict"))
    assert ran.said.stdout == "UngovernedChildError\n"
    assert ran.records == {}
