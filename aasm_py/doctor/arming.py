"""Starts a Python as `aasm-run` would, up to the user's first line, and asks whether the bootstrap is armed in it."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Sequence
from typing import NamedTuple

from aasm_py.doctor.child import ask_python
from aasm_py.doctor.look import Look
from aasm_py.host import Host
from aasm_py.plan import python_path
from agent_assembly.diagnosis import COLUMNS, EXIT_REFUSED

SECONDS = 2.5
# What the bootstrap says of itself in a run that merely observes.
_UNGOVERNED = "aasm-run: this Python is not governed: "

_CODE = """
bootstrap = sys.modules.get("agent_assembly.core.bootstrap")
loaded = sys.modules.get("sitecustomize")
facts.update(
    armed=bootstrap is not None and bootstrap.is_armed(),
    chained=list(getattr(sys, "_aasm_sitecustomize", ())),
    loaded=getattr(loaded, "__file__", None),
    isolated=bool(sys.flags.ignore_environment),
    no_site=bool(sys.flags.no_site),
)
"""


class Arming(NamedTuple):
    """Whether the bootstrap was armed, or why not and what to do; `chained` is the directory of the sitecustomize that
    ran after it, if any, `error` what was said on standard error."""

    armed: bool
    problem: str = ""
    remedy: str = ""
    chained: str = ""
    error: str = ""


def arm(look: Look, python: Sequence[str], seconds: float = SECONDS) -> Arming:
    """Start `python` (with its flags) in the environment of a run that nobody announced and that has no gateway."""
    bootstrap = Host().bootstrap_directory()
    with socket.socket() as nobody, tempfile.TemporaryDirectory(prefix="aasm-doctor-") as home:
        # Bound and not listened to: whoever asks for a gateway there is refused at once.
        nobody.bind(("127.0.0.1", 0))
        environ = {
            **{name: value for name, value in look.environ.items() if not name.startswith("AASM_")},
            "PYTHONPATH": python_path(look.environ.get("PYTHONPATH", ""), bootstrap),
            "AASM_RUN_ID": f"run-{os.urandom(8).hex()}",
            "AASM_GATEWAY_URL": f"http://127.0.0.1:{nobody.getsockname()[1]}",
            "AASM_HOME": home,
            "AASM_CHILDREN": look.settings.children,
            "AASM_ENFORCEMENT_MODE": look.settings.enforcement_mode or "",
        }
        seconds = look.left(seconds)
        answer = ask_python(python, _CODE, environ, seconds)
    error = answer.ended.error.strip() if answer.ended is not None else ""
    if answer.facts is None:
        if answer.ended is not None and answer.ended.code == EXIT_REFUSED:
            problem, remedy = refusal(error)
            # Who asks the doctor need not be told to.
            if remedy.startswith("aasm-py doctor"):
                remedy = "see the row of that adapter" if "of entry point" in problem else ""
            return Arming(False, problem or answer.problem, remedy, error=error)
        return Arming(False, answer.problem, error=error)
    facts = answer.facts
    _, complains, why = error.partition(_UNGOVERNED)
    if complains:
        return Arming(False, why.splitlines()[0], error=error)
    if facts["armed"]:
        others = [
            directory for directory in facts["chained"] if os.path.realpath(directory) != os.path.realpath(bootstrap)
        ]
        return Arming(True, chained=others[-1] if others else "", error=error)
    return Arming(False, _why_not(facts, error), error=error)


def refusal(text: str) -> tuple[str, str]:
    """What was found and what to do, in the first row of a refusal's table; empty where there is no such table."""
    lines = text.splitlines()
    for number, heading in enumerate(lines[:-1]):
        if heading.split()[:1] == [COLUMNS[0]] and heading.endswith(COLUMNS[2]):
            found = lines[number + 1][heading.index(COLUMNS[2]) :].strip()
            arrow, _, remedy = lines[number + 2].strip().partition(" ") if number + 2 < len(lines) else ("", "", "")
            return found, remedy if arrow == "->" else ""
    return "", ""


def _why_not(facts: dict[str, object], error: str) -> str:
    if facts["isolated"]:
        return "it ignores PYTHONPATH, through which the bootstrap comes"
    if facts["no_site"]:
        return "it does not load sitecustomize, which is the bootstrap"
    last = error.splitlines()[-1:]
    if last:
        return f"the bootstrap was not armed: {last[0][:300]}"
    if facts["loaded"]:
        return f"{facts['loaded']} was loaded instead of the bootstrap"
    return "the bootstrap was not loaded"
