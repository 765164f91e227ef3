"""The row about PYTHONPATH: what is in it that does nothing, costs time, or hides something."""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Iterator, Sequence
from importlib.machinery import FrozenImporter

from aasm_py.doctor.look import Look
from aasm_py.doctor.search_path import is_bootstrap, path_line, python_path, without
from agent_assembly.diagnosis import ADAPTERS, Finding

CHECK = "PYTHONPATH"
MANY = 100
_NAMES = 4000
_SHOWN = 3
# The SDK, what it needs, and what it governs.
_OURS = ("agent_assembly", "agent_assembly_core", "httpx", "yaml", *(row.package for row in ADAPTERS))


def python_path_row(look: Look, path: Sequence[str]) -> Finding:
    """Judge PYTHONPATH; `path` is what the Python in question makes of it and of what is installed."""
    entries = python_path(look.environ)
    if not entries:
        return Finding(CHECK, "ok", "is not set")
    problems: dict[str, list[str]] = {}
    kept: list[str] = []
    for entry in entries:
        problem = _problem(entry, kept, path)
        if problem:
            problems.setdefault(problem, []).append(entry)
            if entry and problem == _RELATIVE:
                kept.append(os.path.abspath(entry))
        else:
            kept.append(entry)
    if len(entries) > MANY:
        problems[f"{len(entries)} entries, and every import looks into them"] = []
    if not problems:
        number = f"{len(entries)} entries" if len(entries) > 1 else entries[0]
        return Finding(CHECK, "ok", f"{number}, nothing hidden by them")
    said = "; ".join(f"{_some(found)} ({problem})" if any(found) else problem for problem, found in problems.items())
    return Finding(CHECK, "warn", said, path_line(kept if len(kept) <= MANY else []))


def unhidden(look: Look) -> str:
    """The command that takes off PYTHONPATH what hides the standard library; empty where nothing does."""
    entries = python_path(look.environ)
    hiding = [entry for entry in entries if os.path.isdir(entry) and not is_bootstrap(entry) and _hidden(entry, ())]
    return without(entries, hiding) if hiding else ""


_RELATIVE = "means another directory in each current one"


def _problem(entry: str, before: Sequence[str], path: Sequence[str]) -> str:
    """What is wrong with an entry, empty for nothing."""
    if not entry:
        return "an empty entry stands for the current directory, whatever lies there"
    if not os.path.isabs(entry):
        return _RELATIVE
    if any(os.path.normpath(entry) == os.path.normpath(other) for other in before):
        return "is there twice"
    if os.path.isdir(entry):
        return "" if is_bootstrap(entry) else _hidden(entry, path)
    if not os.path.lexists(entry):
        return "missing"
    return "" if os.path.isfile(entry) and zipfile.is_zipfile(entry) else "is neither a directory nor a zip file"


def _hidden(entry: str, path: Sequence[str]) -> str:
    """Which modules in `entry` hide others of the same name."""
    real = os.path.realpath(entry)
    if real == os.path.realpath(os.path.dirname(os.__file__)):
        return ""
    modules = sorted(set(_modules(entry)) & sys.stdlib_module_names)
    hiding = [name for name in modules if name not in sys.builtin_module_names and not _is_frozen(name)]
    if hiding:
        return f"hides {_some(hiding)} of the standard library"
    for name in _OURS:
        behind = path[_position(entry, path) + 1 :] if _offers(entry, name) else ()
        for other in behind:
            if _offers(other, name) and os.path.realpath(other) != real:
                return f"hides the {name} that is installed in {other}"
    return ""


def _offers(directory: str, name: str) -> bool:
    return os.path.isfile(os.path.join(directory, name, "__init__.py")) or os.path.isfile(
        os.path.join(directory, f"{name}.py")
    )


def _position(entry: str, path: Sequence[str]) -> int:
    plain = os.path.normpath(entry)
    return next((index for index, other in enumerate(path) if os.path.normpath(other) == plain), -1)


def _modules(directory: str) -> Iterator[str]:
    """The top-level modules that a directory offers, as far as a bounded look at it shows."""
    try:
        with os.scandir(directory) as rows:
            for _, row in zip(range(_NAMES), rows, strict=False):
                stem, _, ending = row.name.partition(".")
                package = not ending and os.path.isfile(os.path.join(directory, stem, "__init__.py"))
                if package or ending == "py" or ending.endswith(("so", "pyd")):
                    yield stem
    except OSError:
        return


def _is_frozen(name: str) -> bool:
    return FrozenImporter.find_spec(name) is not None


def _some(words: Sequence[str]) -> str:
    shown = ", ".join(words[:_SHOWN])
    return shown if len(words) <= _SHOWN else f"{shown} and {len(words) - _SHOWN} more"
