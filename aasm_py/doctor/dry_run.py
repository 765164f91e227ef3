"""Lets a Python arm its adapters dry, in children: one that crashes or hangs costs the row of its framework alone."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from aasm_py.doctor.child import Child
from aasm_py.doctor.look import Look
from aasm_py.doctor.search_path import outside_a_run
from aasm_py.doctor.subject import subject, target

INITIALIZATION = "initialization"
# After so long without a word the others are looked at in a child of their own, at the same time.
_PATIENCE = 1.5
# What is left of the look's time for the row itself.
_RESERVE = 0.4

# The directories of the user's program come as words; what the SDK is imported from stays.
_CODE = """
import sys, os
dropped = sys.argv[1].split(os.pathsep)
sys.path[:] = [
    entry
    for entry in sys.path
    if entry and (entry not in dropped or os.path.isfile(os.path.join(entry, "agent_assembly", "__init__.py")))
]
from agent_assembly.adapters.dry_run import main
main(int(sys.argv[-1]), sys.argv[2:-1])
os._exit(0)
"""


class DryRun(NamedTuple):
    """`frameworks` are those there are adapters for, `reports` what was said of each unit; empty with a `problem`."""

    frameworks: Sequence[Mapping[str, Any]]
    reports: Mapping[str, Mapping[str, Any]]
    problem: str = ""


def dry_run(look: Look) -> DryRun:
    """Arm the adapters of the Python that is looked at, once."""
    return look.once("dry run", lambda: _Pursuit(look).result())


class _Pursuit:
    """Asks children until each unit has a report: what was said of it, or how the child ended that looked at it."""

    def __init__(self, look: Look) -> None:
        self._words = subject(look).plain
        self._environ = outside_a_run(look.environ)
        self._dropped = os.pathsep.join(_directories_of_the_program(look))
        self._seconds = look.left() - _RESERVE
        self._deadline = time.monotonic() + self._seconds
        self._header: dict[str, Any] = {}
        self._problem = ""
        self._reports: dict[str, dict[str, Any]] = {}

    def result(self) -> DryRun:
        try:
            self._follow(())
        except OSError as error:
            self._problem = f"cannot be started: {error.strerror or error}"
        if not self._header:
            return DryRun((), {}, self._problem or "said nothing")
        return DryRun(self._header["frameworks"], {name: self._reports[name] for name in self._header["units"]})

    def _follow(self, done: Sequence[str]) -> None:
        """Look at everything but `done`."""
        aside: threading.Thread | None = None
        with Child([*self._words, "-c", _CODE, self._dropped, *done], self._environ, asked=True) as child:
            waiting = self._begin(child)
            while waiting:
                patient = aside is not None or len(waiting) == 1
                try:
                    line = child.line(self._left() if patient else min(_PATIENCE, self._left()))
                except TimeoutError:
                    if patient or self._left() <= 0.05:
                        self._note(waiting, {"slow": self._seconds})
                        break
                    aside = threading.Thread(target=self._follow, args=((*done, waiting[0]),), daemon=True)
                    aside.start()
                    waiting = waiting[:1]
                    continue
                if line is None:
                    crashed, *rest = waiting
                    self._note([crashed], {"crashed": child.ended(self._left()).why(self._seconds)})
                    if rest:
                        self._follow((*done, crashed))
                    break
                name = waiting.pop(0)
                self._note([name], json.loads(line))
                done = (*done, name)
        if aside is not None:
            aside.join(self._left())

    def _begin(self, child: Child) -> list[str]:
        try:
            line = child.line(self._left())
        except TimeoutError:
            line = None
        if line is None:
            self._problem = child.ended(self._left()).why(self._seconds)
            return []
        header: dict[str, Any] = json.loads(line)
        if not self._header:
            self._header = header
            self._reports = {name: {"slow": self._seconds} for name in header["units"]}
        return list(header["units"])

    def _note(self, names: Sequence[str], report: dict[str, Any]) -> None:
        for name in names:
            self._reports[name] = report

    def _left(self) -> float:
        return max(0.05, self._deadline - time.monotonic())


def _directories_of_the_program(look: Look) -> list[str]:
    """The current directory, and that of the program's script: what lies there is the user's."""
    try:
        found = [os.getcwd()]
    except OSError:
        found = []
    script = target(look).script[:1] if look.command else ()
    if script and not script[0].startswith("-"):
        directory = os.path.dirname(os.path.abspath(script[0]))
        found += [directory, os.path.realpath(directory)]
    return found
