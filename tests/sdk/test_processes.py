"""Forks, threads and sudden ends: every process that runs a governed tool has its own instance and loses no record."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest
from sdk.conftest import Marks
from support.gateway import Gateway, clean_environment

from agent_assembly import AssemblyContext

Initialise = Callable[..., AssemblyContext]


def in_child(act: Callable[[], None]) -> int:
    """Run `act` in a forked child that ends without any clean-up; return its exit code."""
    child = os.fork()
    if child == 0:
        try:
            act()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_forked_child_is_an_instance_of_its_own(house: Gateway, initialise: Initialise, marks: Marks) -> None:
    """Same agent, new instance; its records arrive although it ends by os._exit, and the parent goes on."""
    with initialise() as context:
        marks.read_record.invoke({"key": "parent"})
        parent = context.instance_id
        assert in_child(lambda: marks.read_record.invoke({"key": "child"})) == 0
        marks.read_record.invoke({"key": "parent-again"})
        assert context.instance_id == parent
    rows = house.audit()
    assert len(rows) == 3
    assert [row["outcome"] for row in rows] == ["returned"] * 3
    instances = [row["instance_id"] for row in rows]
    assert instances.count(parent) == 2
    assert len(set(instances)) == 2


def test_a_denied_tool_does_not_run_in_a_forked_child(house: Gateway, initialise: Initialise, marks: Marks) -> None:
    """The hooks that a child inherits are governed hooks."""
    with initialise():
        assert in_child(lambda: marks.delete_record.invoke({"key": "child"})) == 1
    assert marks.ran() == []
    assert [row["decision"] for row in house.audit()] == ["deny"]


def test_a_fork_while_other_threads_check_leaves_no_lock_behind(
    house: Gateway, initialise: Initialise, marks: Marks
) -> None:
    """Children forked at any moment of a busy process are governed and end."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            marks.read_record.invoke({"key": "thread"})

    with initialise():
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            codes = [in_child(lambda: marks.read_record.invoke({"key": "child"})) for _ in range(10)]
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    assert codes == [0] * 10
    assert {row["outcome"] for row in house.audit()} == {"returned"}


def test_threads_get_a_verdict_each(house: Gateway, initialise: Initialise, marks: Marks) -> None:
    """Calls from many threads at once: one record each, none lost."""
    with initialise():
        threads = [
            threading.Thread(target=marks.read_record.invoke, args=({"key": f"{number}"},)) for number in range(40)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(marks.ran()) == 40
    assert len(house.audit()) == 40


PROGRAM = """
import os, sys, time
from agent_assembly import init_assembly
from langchain_core.tools import tool

@tool
def slow(key: str) -> str:
    "Waits to be killed."
    print("running", flush=True)
    time.sleep(60)

@tool
def quick(key: str) -> str:
    "Returns."
    return key

init_assembly(gateway_url=sys.argv[1], agent_id="bot")
for number in range(20):
    quick.invoke({"key": str(number)})
ending = sys.argv[2]
if ending == "killed":
    slow.invoke({"key": "x"})
elif ending == "os._exit":
    os._exit(3)
elif ending == "exit":
    sys.exit(4)
elif ending == "raises":
    raise RuntimeError("of the program")
"""


def start_program(house: Gateway, ending: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, house.url, ending],
        env=clean_environment(AASM_HOME=str(house.home)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(("ending", "code"), [("returns", 0), ("exit", 4), ("raises", 1), ("os._exit", 3)])
def test_every_record_arrives_however_the_program_ends(house: Gateway, ending: str, code: int) -> None:
    """Exit codes stay the program's own, and twenty calls are twenty records."""
    program = start_program(house, ending)
    _, errors = program.communicate(timeout=60)
    assert program.returncode == code, errors
    rows = house.audit()
    assert [row["outcome"] for row in rows] == ["returned"] * 20


def test_a_call_whose_process_was_killed_has_an_unknown_outcome(house: Gateway) -> None:
    """What was begun is on record, and said to be unknown."""
    with start_program(house, "killed") as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "running\n"
        program.send_signal(signal.SIGKILL)
        program.wait(30)
    rows = house.audit(seconds=20)
    assert sorted(row["outcome"] for row in rows) == ["returned"] * 20 + ["unknown"]
    assert [row["tool"] for row in rows if row["outcome"] == "unknown"] == ["slow"]


def test_records_of_a_killed_program_survive_a_killed_gateway(house: Gateway) -> None:
    """With both dead at once, everything that was accepted is in the log after the next start, once."""
    with start_program(house, "killed") as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "running\n"
        house.kill()
        program.kill()
        program.wait(30)
    house.start(port=house.port)
    rows = house.audit(seconds=20)
    assert sorted(row["outcome"] for row in rows) == ["returned"] * 20 + ["unknown"]
    assert house.verify().returncode == 0


def test_a_program_ends_promptly_while_the_gateway_hangs(house: Gateway) -> None:
    """Waiting for the gateway at exit is bounded; the records stay in the spool."""
    with start_program(house, "returns") as program:
        deadline = time.monotonic() + 30
        while len(house.audit(settled=False)) < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        house.pause()
        began = time.monotonic()
        program.wait(60)
        waited = time.monotonic() - began
    house.resume()
    assert waited < 15
    deadline = time.monotonic() + 20
    while list((house.home / "spool").glob("*.seg")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list((house.home / "spool").glob("*.seg")) == []
