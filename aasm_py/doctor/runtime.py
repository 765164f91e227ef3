"""The rows about what is installed: this Python, the program aasm, the native module."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Sequence

from aasm_py.doctor.child import Ended, ask_python, run
from aasm_py.doctor.commands import aasm_program
from aasm_py.doctor.installing import own_installer
from aasm_py.doctor.look import Check, Look
from aasm_py.doctor.search_path import outside_a_run
from aasm_py.doctor.sighting import local_gateway
from agent_assembly import __version__
from agent_assembly.diagnosis import Finding

OLDEST, NEWEST = (3, 10), (3, 14)
RUNTIME = "agent-assembly[runtime]"
CORE = f"agent-assembly-core=={__version__}"
GATEWAY = f"agent-assembly-gateway=={__version__}"

_PROGRAM_SECONDS = 2.0
_MODULE_SECONDS = 2.0

# Where the distribution itself is there, the import error behind ours says what is wrong with it.
_NATIVE = """
try:
    import agent_assembly._core as core
    facts.update(version=core.__version__, file=sys.modules["agent_assembly_core._core"].__file__)
except ImportError as error:
    cause = error.__cause__ or error
    facts.update(missing=getattr(cause, "name", None) == "agent_assembly_core", error=str(cause))
except Exception as error:
    facts.update(missing=False, error="%s: %s" % (type(error).__name__, error))
"""


def python(_: Look) -> Finding:
    """The Python that runs the launcher and the command line."""
    return judge_python(sys.version_info[:2], free_threaded(), platform.python_implementation())


def free_threaded() -> bool:
    """Whether this Python was built without the global lock."""
    return bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def judge_python(version: Sequence[int], without_lock: bool, implementation: str) -> Finding:
    """The row for a Python of that kind."""
    found = f"{implementation} {platform.python_version()}, {sys.executable}"
    if not OLDEST <= tuple(version) <= NEWEST or implementation != "CPython":
        newest = f"python{NEWEST[0]}.{NEWEST[1]}"
        said = f"{found}: agent-assembly was tried on CPython {_text(OLDEST)} to {_text(NEWEST)} only"
        return Finding("python", "warn", said, f"{newest} -m venv .venv && .venv/bin/pip install '{RUNTIME}'")
    if without_lock:
        found += ", free-threaded: the native module is not made for it, and not needed for verdicts"
    return Finding("python", "ok", found)


def program(look: Look) -> Finding:
    """The program `aasm`: which one would be started, whether it runs, and whether it is of the SDK's version."""
    path = aasm_program(look)
    if path is None:
        return _no_program(look)
    found = _version_of(look, path)
    install = own_installer()
    if isinstance(found, Finding):
        return found
    if found != __version__:
        said = f"{path} is version {found}, the SDK {__version__}"
        return Finding("aasm program", "warn", said, install.line(look, GATEWAY))
    said = f"{path}, version {found}"
    typed = shutil.which("aasm", path=look.environ.get("PATH", os.defpath))
    add = f'export PATH={shlex.quote(os.path.dirname(path))}:"$PATH"'
    if typed is None:
        return Finding("aasm program", "warn", f"{said}, is not on PATH: it is used, but cannot be typed", add)
    if os.path.realpath(typed) != os.path.realpath(path):
        other = _version_of(look, typed)
        if other != __version__:
            shown = "does not run" if isinstance(other, Finding) else f"is version {other}"
            return Finding("aasm program", "warn", f"{said}, but the one on PATH, {typed}, {shown}", add)
    return Finding("aasm program", "ok", said)


def _no_program(look: Look) -> Finding:
    idle = _not_executable(look)
    if idle is not None:
        said, remedy = f"{idle} is not executable", f"chmod +x {shlex.quote(idle)}"
    else:
        said, remedy = "is not installed", own_installer().line(look, RUNTIME)
    if look.settings.gateway_url is not None:
        return Finding("aasm program", "warn", f"{said}; not needed as long as the gateway that was named runs", remedy)
    if local_gateway(look).state in ("own", "stuck"):
        return Finding("aasm program", "warn", f"{said}; the gateway that runs cannot be started again", remedy)
    return Finding("aasm program", "fail", f"{said}: no local gateway can be started", remedy)


def _not_executable(look: Look) -> str | None:
    for directory in [os.path.dirname(sys.executable), *look.environ.get("PATH", "").split(os.pathsep)]:
        path = os.path.join(directory, "aasm")
        if os.path.isabs(directory) and os.path.isfile(path):
            return path
    return None


def _version_of(look: Look, path: str) -> str | Finding:
    """What the program says it is, or the row that says why it says nothing."""
    seconds = look.left(_PROGRAM_SECONDS)
    try:
        ended = run([path, "version"], look.environ, seconds)
    except OSError as error:
        ended = Ended(126, "", error.strerror or str(error))
    words = ended.output.split()
    if ended.code == 0 and len(words) == 2 and words[0] == "aasm":
        return words[1]
    why = ended.why(seconds) if ended.code != 0 else f"says {ended.output.strip()[:60]!r} when asked for its version"
    # Where it was not pip that put it there, the one that pip puts beside this Python is found before it.
    return Finding("aasm program", "fail", f"{path} {why}", own_installer().line(look, GATEWAY, again=True))


def native_module(look: Look) -> Finding:
    """The optional native module, imported in a child: a broken one could end the process."""
    seconds = look.left(_MODULE_SECONDS)
    answer = ask_python([sys.executable], _NATIVE, outside_a_run(look.environ), seconds)
    install, check = own_installer(), "native module"
    if free_threaded():
        return Finding(check, "ok", "is not made for free-threaded Python; verdicts come from the gateway as always")
    if answer.facts is None:
        return Finding(check, "warn", f"its import {answer.problem}; optional", install.line(look, CORE, again=True))
    facts = answer.facts
    if "version" not in facts:
        if facts["missing"]:
            return Finding(check, "warn", "is not installed; optional", install.line(look, RUNTIME))
        said = f"cannot be loaded: {facts['error']}; optional"
        return Finding(check, "warn", said, install.line(look, CORE, again=True))
    if facts["version"] != __version__:
        said = f"is version {facts['version']}, the SDK {__version__}"
        return Finding(check, "warn", said, install.line(look, CORE))
    return Finding(check, "ok", f"version {facts['version']}, {facts['file']}")


def _text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


CHECKS: tuple[Check, ...] = (
    Check("python", "runtime", python),
    Check("aasm program", "runtime", program),
    Check("native module", "runtime", native_module),
)
