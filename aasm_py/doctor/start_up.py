"""The rows about what happens when a Python starts: bootstrap, sitecustomize, PYTHONPATH."""

from __future__ import annotations

import os
import shlex
import sys
from typing import Any

from aasm_py.doctor import byte_code
from aasm_py.doctor.arming import arm
from aasm_py.doctor.child import Answer, ask_python
from aasm_py.doctor.installing import own_installer
from aasm_py.doctor.launchers import other_launchers
from aasm_py.doctor.look import Check, Look
from aasm_py.doctor.python_path import python_path_row
from aasm_py.doctor.search_path import outside_a_run
from aasm_py.host import Host
from agent_assembly import __version__
from agent_assembly.diagnosis import Finding

SDK = f"agent-assembly=={__version__}"
_SECONDS = 2.0
_REPORTED = "Error in sitecustomize; set PYTHONVERBOSE for traceback:"

# What launcher and bootstrap import is asked of them: a list of it here would be a second one to keep.
_START = """
facts["path"] = list(sys.path)
facts["sitecustomize"] = getattr(sys.modules.get("sitecustomize"), "__file__", None)
before = set(sys.modules)
import aasm_py.run, agent_assembly.core.bootstrap
from _frozen_importlib_external import MAGIC_NUMBER, cache_from_source
facts["magic"] = list(MAGIC_NUMBER)
ours = [name for name in set(sys.modules) - before if name.split(".")[0] in ("aasm_py", "agent_assembly")]
files = [sys.modules[name].__file__ for name in ours]
files.append(os.path.join(aasm_py.host.Host().bootstrap_directory(), "sitecustomize.py"))
facts["sources"] = [[file, cache_from_source(file)] for file in sorted(files)]
"""


def started(look: Look) -> Answer:
    """What this Python says when it starts, outside a run: its path, its sitecustomize, and what a launch loads."""

    def ask() -> Answer:
        return ask_python([sys.executable, "-B"], _START, outside_a_run(look.environ), look.left(_SECONDS))

    return look.once("started python", ask)


def bootstrap(look: Look) -> Finding:
    """Whether the bootstrap is there, arms this Python, and need not be compiled at each start."""
    check, directory, reinstall = "bootstrap", Host().bootstrap_directory(), own_installer()
    file = os.path.join(directory, "sitecustomize.py")
    if not os.path.isfile(file):
        return Finding(check, "fail", f"{file} is missing", reinstall.line(look, SDK, again=True))
    if not os.access(file, os.R_OK):
        readable = f"chmod a+rx {shlex.quote(directory)} && chmod a+r {shlex.quote(file)}"
        return Finding(check, "fail", f"{file} cannot be read", readable)
    arming = arm(look, [sys.executable])
    if not arming.armed:
        remedy = arming.remedy or reinstall.line(look, SDK, again=True)
        return Finding(check, "fail" if look.enforces else "warn", f"{directory}: {arming.problem}", remedy)
    return _byte_code(look, f"{directory}, armed when this Python starts with it")


def _byte_code(look: Look, armed: str) -> Finding:
    facts = started(look).facts
    if facts is None:
        return Finding("bootstrap", "ok", armed)
    found = byte_code.inspect([(source, cached) for source, cached in facts["sources"]], bytes(facts["magic"]))
    if not found.stale:
        return Finding("bootstrap", "ok", f"{armed}; {found.number} modules are compiled")
    if not found.writable:
        again = "each start compiles them, as they cannot be kept"
    elif look.environ.get("PYTHONDONTWRITEBYTECODE"):
        again = "each start compiles them, as PYTHONDONTWRITEBYTECODE is set"
    else:
        again = "the next start is slow"
    are = "is" if len(found.stale) == 1 else "are"
    said = f"{armed}; {len(found.stale)} of {found.number} modules {are} not compiled: {again}"
    return Finding("bootstrap", "warn", said, found.compile_line(look.environ), found.repair())


def sitecustomize(look: Look) -> Finding:
    """The sitecustomize that Python would load without us: ours runs it."""
    check, answer = "sitecustomize", started(look)
    if answer.facts is None:
        see = shlex.join([sys.executable, "-c", "pass"])
        return Finding(check, "fail", f"this Python {answer.problem}", f"{see}; or: see the row PYTHONPATH")
    files = _sitecustomize_files(answer.facts)
    error = _reported(answer.ended.error if answer.ended else "")
    if error:
        name = files[0] if files else "sitecustomize"
        away = f"mv {shlex.quote(name)} {shlex.quote(name + '.off')}; or: mend it"
        return Finding(check, "warn", f"{name}: {error}; every Python says so when it starts", away)
    if not files:
        return Finding(check, "ok", "there is no other one")
    return Finding(check, "ok", f"{files[0]} is run after the bootstrap")


def _sitecustomize_files(facts: dict[str, Any]) -> list[str]:
    found = []
    for entry in facts["path"]:
        for name in (os.path.join("sitecustomize", "__init__.py"), "sitecustomize.py"):
            path = os.path.join(entry, name)
            if os.path.isfile(path):
                found.append(path)
                break
    return found


def _reported(text: str) -> str:
    """The error of sitecustomize in what Python said on standard error."""
    _, found, after = text.partition(_REPORTED)
    return (after.strip().splitlines() or ["it raised an error"])[0][:300] if found else ""


def python_path(look: Look) -> Finding:
    """PYTHONPATH, which every import of every program looks through."""
    facts = started(look).facts
    return python_path_row(look, facts["path"] if facts is not None else sys.path)


CHECKS: tuple[Check, ...] = (
    Check("bootstrap", "runtime", bootstrap),
    Check("sitecustomize", "runtime", sitecustomize),
    Check("PYTHONPATH", "runtime", python_path),
    Check("other launchers", "runtime", other_launchers),
)
