"""`AASM_CHILDREN=strict`: child processes that cannot be governed are refused where they would be started.

All that this does to a process is one audit hook, and one function of `multiprocessing` that is put under it. Such a
hook cannot be taken away again: strict holds until the process ends.
"""

from __future__ import annotations

import os
import sys
from _thread import get_ident
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from agent_assembly.adapters.hooks import watch
from agent_assembly.core.target import YES, Files, examine
from agent_assembly.exceptions import AssemblyError

_unrestricted: set[int] = set()
# What each child must be given, as it was when the program began: what the program does to its own environment later
# is no way out.
_required: dict[str, str] = {}
_bootstrap = ""
_REQUIRED_NAMES = ("AASM_RUN_ID", "AASM_GATEWAY_URL", "AASM_ENFORCEMENT_MODE", "AASM_CHILDREN")


class UngovernedChildError(AssemblyError, PermissionError):
    """A child process was refused because nothing in it would be governed."""


def refuse_ungoverned_children(environ: Mapping[str, str], bootstrap: str) -> None:
    """Refuse, from now on, every child that cannot be governed, or that is not given what `environ` has. Idempotent.

    `bootstrap` is the directory that has to be on a child's PYTHONPATH.
    """
    global _bootstrap
    if not _bootstrap:
        _bootstrap = bootstrap
        _required.update({name: environ[name] for name in _REQUIRED_NAMES if name in environ})
        sys.addaudithook(_audit)
        watch("multiprocessing.util", _audit_spawn)


@contextmanager
def unrestricted() -> Iterator[None]:
    """Let the present thread start what it likes in the block: our own gateway is not the agent's child."""
    thread = get_ident()
    _unrestricted.add(thread)
    try:
        yield
    finally:
        _unrestricted.discard(thread)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    reader = _EVENTS.get(event)
    if reader is None or get_ident() in _unrestricted:
        return
    command, environment = reader(arguments)
    problem = ungoverned(command, environment)
    if problem:
        shown = " ".join(command)[:200]
        raise UngovernedChildError(f"AASM_CHILDREN=strict refuses to start {shown!r}: {problem}")


def _audit_spawn(module: Any) -> None:
    """Refuse in `multiprocessing` too, which starts its processes without an audit event."""
    start = module.spawnv_passfds

    def spawnv_passfds(path: Any, arguments: Any, *rest: Any, **more: Any) -> Any:
        _audit("os.posix_spawn", (path, arguments, None))
        return start(path, arguments, *rest, **more)

    module.spawnv_passfds = spawnv_passfds


def ungoverned(command: Sequence[str], environment: Mapping[str, str] | None) -> str:
    """Say why nothing in `command` would be governed; empty text when it would be."""
    if not command:
        return "it is run by a shell, which can start anything"
    given = os.environ if environment is None else environment
    for name in _REQUIRED_NAMES:
        if given.get(name) != _required.get(name):
            return f"its environment lacks {name}, or changes it"
    if _bootstrap not in given.get("PYTHONPATH", "").split(os.pathsep):
        return "its PYTHONPATH lacks the bootstrap"
    target = examine(command, given, Files())
    if target.kind == "missing":
        # The caller gets the system's own error, as it would without us.
        return ""
    return "" if target.governed == YES else target.reason


def _text(value: Any) -> str:
    try:
        return os.fsdecode(value)
    except TypeError:
        return str(value)


def _environment(value: Any) -> Mapping[str, str] | None:
    if value is None or not hasattr(value, "items"):
        return None
    return {_text(name): _text(item) for name, item in value.items()}


def _words(executable: Any, arguments: Any) -> list[str]:
    if isinstance(arguments, (str, bytes)) or hasattr(arguments, "__fspath__"):
        arguments = [arguments]
    words = [_text(word) for word in arguments]
    return [_text(executable) if executable is not None else words[0], *words[1:]] if words else []


_EVENTS: dict[str, Callable[[tuple[Any, ...]], tuple[list[str], Mapping[str, str] | None]]] = {
    "subprocess.Popen": lambda a: (_words(a[0], a[1]), _environment(a[3])),
    "os.exec": lambda a: (_words(a[0], a[1]), _environment(a[2])),
    "os.posix_spawn": lambda a: (_words(a[0], a[1]), _environment(a[2])),
    "os.spawn": lambda a: (_words(a[1], a[2]), _environment(a[3])),
    "os.system": lambda _: ([], None),
}
