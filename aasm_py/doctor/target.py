"""The rows about the program that the doctor is asked about."""

from __future__ import annotations

import difflib
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from typing import Any

from aasm_py.doctor.arming import Arming, arm
from aasm_py.doctor.look import Check, Look
from aasm_py.doctor.subject import IGNORING, facts, installer, is_supported, subject, target, without_flags
from aasm_py.plan import OLDEST
from agent_assembly import __version__
from agent_assembly.diagnosis import YES, Finding
from agent_assembly.launching import NO, Target

_LISTED = 5000


def program(look: Look) -> list[Finding]:
    """Whether the command can be started, what it comes down to, and whether that can be governed."""
    if not look.command:
        return []
    found, name = target(look), look.command[0]
    if found.kind == "missing":
        return [Finding("target", "fail", found.reason, _start_instead(look, found))]
    if found.governed == NO:
        said = f"{name} is not governed: {found.reason}"
        remedy = f"{_governed_instead(look, found)}; or: {_launch('--allow-ungoverned', *look.command)}"
        return [Finding("target", "fail" if look.enforces else "warn", said, remedy)]
    script = found.script[:1]
    if found.kind == "python" and script and not script[0].startswith("-") and not os.path.exists(script[0]):
        near = _near(os.path.basename(script[0]), _names(os.path.dirname(script[0]) or "."))
        remedy = f"name the script as it is called: {near}" if near else "name a script that is there"
        return [Finding("target", "fail", f"{script[0]} is not there", remedy)]
    if found.governed != YES:
        return [Finding("target", "warn", found.reason, _inside(look, found))]
    by = f", run by {found.interpreter}" if found.interpreter not in (None, found.path) else ""
    why = f": {found.reason}" if found.reason else ""
    return [Finding("target", "ok", f"{found.path} ({found.kind}{by}){why}")]


def python(look: Look) -> list[Finding]:
    """The Python that the command starts."""
    check = "target python"
    if not look.command:
        return []
    which = subject(look)
    if not which.words:
        return [Finding(check, "skip", which.unknown)]
    answer = facts(look)
    if answer.facts is None:
        see = shlex.join([*which.words, "-c", "pass"])
        return [Finding(check, "fail", f"{shlex.join(which.words)} {answer.problem}", f"{see}; or: use another Python")]
    known = answer.facts
    said = f"Python {known['version']}, {known['executable']}, environment {known['prefix']}"
    if not is_supported(known["number"]):
        return [Finding(check, "fail", f"{said}: it is older than {OLDEST[0]}.{OLDEST[1]}", _with_own_python(look))]
    return [Finding(check, "ok", said)]


def sdk(look: Look) -> list[Finding]:
    """Whether that Python's environment holds the SDK, and in which version."""
    check = "target sdk"
    if not look.command:
        return []
    known = _known(look)
    if isinstance(known, str):
        return [Finding(check, "skip", known)]
    install = installer(look)
    if known["sdk"] is None:
        said = "is not installed" if known["missing"] else f"cannot be imported: {known['error']}"
        remedy = install.line(look, f"agent-assembly=={__version__}", again=not known["missing"])
        return [Finding(check, "fail" if look.enforces else "warn", f"{said}, in {known['prefix']}", remedy)]
    said = f"version {known['sdk']}, {known['place']}"
    if known["sdk"] != __version__:
        line = install.line(look, f"agent-assembly=={__version__}")
        return [Finding(check, "warn", f"{said}; that of this doctor is {__version__}", line)]
    return [Finding(check, "ok", said)]


def bootstrap(look: Look) -> list[Finding]:
    """Whether the bootstrap is armed when that Python is started with the same flags as `aasm-run` would start it."""
    check = "target bootstrap"
    if not look.command:
        return []
    known = _known(look)
    if isinstance(known, str):
        return [Finding(check, "skip", known)]
    if known["sdk"] is None:
        return [Finding(check, "skip", "without the SDK there is nothing to arm")]
    if target(look).governed == NO:
        return [Finding(check, "skip", "the program is not governed; see the row target")]
    found: Arming = look.once("target armed", lambda: arm(look, subject(look).words))
    if not found.armed:
        again = installer(look).line(look, f"agent-assembly=={__version__}", again=True)
        return [Finding(check, "fail" if look.enforces else "warn", found.problem, found.remedy or again)]
    after = f", then runs the sitecustomize in {found.chained}" if found.chained else ""
    return [Finding(check, "ok", f"armed before the program's first line{after}")]


def _known(look: Look) -> dict[str, Any] | str:
    """The facts of a Python that the SDK could run on, else why there is nothing to look at."""
    which = subject(look)
    if not which.words:
        return which.unknown
    known = facts(look).facts
    if known is None or not is_supported(known["number"]):
        return "see the row target python"
    return known


def _start_instead(look: Look, found: Target) -> str:
    """What to type instead of a command that cannot be started."""
    name, rest = look.command[0], look.command[1:]
    is_script = name.endswith(".py") and os.path.isfile(name)
    if is_script or found.path.endswith(".py"):
        return _launch("python", name if is_script else found.path, *rest)
    if os.path.isdir(name):
        return _launch("python", name, *rest) if os.path.isfile(os.path.join(name, "__main__.py")) else found.remedy
    if found.code == 126 and found.path:
        return f"chmod +x {shlex.quote(found.path)}"
    if os.access(os.path.join(os.curdir, name), os.X_OK) and os.sep not in name:
        return _launch(os.path.join(os.curdir, name), *rest)
    if name.startswith("python"):
        near = "python3" if _on_path(look, "python3") else sys.executable
    else:
        near = _near(name, [each for path in look.environ.get("PATH", "").split(os.pathsep) for each in _names(path)])
    return _launch(near, *rest) if near else found.remedy


def _governed_instead(look: Look, found: Target) -> str:
    """What to type instead of a command whose Python would not load the bootstrap."""
    if found.kind == "python" and found.flags and look.command[1 : 1 + len(found.flags)] == found.flags:
        return _launch(look.command[0], *without_flags(found.flags, IGNORING), *found.script)
    if found.kind == "python script" and found.interpreter is not None:
        return _launch(found.interpreter, *found.script)
    return found.remedy or "see the rows above"


def _with_own_python(look: Look) -> str:
    return _launch(sys.executable, *target(look).script)


def _inside(look: Look, found: Target) -> str:
    """How to ask the doctor about the program that a wrapper starts."""
    words = look.command
    for position, word in enumerate(words[1:-1], 1):
        if word in ("run", "exec") and not words[position + 1].startswith("-"):
            return shlex.join([*words[: position + 1], "aasm-py", "doctor", "--", *words[position + 1 :]])
    name = os.path.basename(found.path)
    return f"put the doctor inside, before the program that {name} starts: aasm-py doctor -- PROGRAM"


def _launch(*words: str) -> str:
    return shlex.join(["aasm-run", *words])


def _near(name: str, names: Sequence[str]) -> str:
    found = difflib.get_close_matches(name, {each for each in names if each[:1] == name[:1]}, 1, 0.75)
    return found[0] if found else ""


def _names(directory: str) -> list[str]:
    try:
        with os.scandir(directory) as rows:
            return [row.name for _, row in zip(range(_LISTED), rows, strict=False)]
    except OSError:
        return []


def _on_path(look: Look, name: str) -> bool:
    return shutil.which(name, path=look.environ.get("PATH", os.defpath)) is not None


CHECKS: tuple[Check, ...] = (
    Check("target", "target", program),
    Check("target python", "target", python),
    Check("target sdk", "target", sdk),
    Check("target bootstrap", "target", bootstrap),
)
