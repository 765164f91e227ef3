"""Imports of the SDK in the middle of somebody else's program, whose own `json.py` must neither break nor be broken.

The script's directory and the current one come first on `sys.path`, so a file of the user's there stands before the
standard library's and before what the SDK needs. Inside `isolated()` they do not count for the importing thread.
"""

from __future__ import annotations

import os
import sys
from _thread import RLock, get_ident
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_LOCK_SECONDS = 30.0

_lock = RLock()
_depth = 0
# The SDK's own copies of modules whose names the user's files have outside.
_ours: dict[str, ModuleType] = {}


@contextmanager
def isolated() -> Iterator[None]:
    """Import in the block as if the script's directory and the current one were not on `sys.path`.

    Modules of the user's that have the names of others are set aside for the block, and what the block imported under
    such names is kept for the next one. Other threads see `sys.path` as it was.
    """
    global _depth
    # Bounded: a thread that waits here may hold the import lock of a module that the other one needs.
    locked = _lock.acquire(timeout=_LOCK_SECONDS)
    try:
        directories = _user_directories() if _depth == 0 else []
        if not directories:
            yield
            return
        _depth += 1
        try:
            with _without(directories):
                yield
        finally:
            _depth -= 1
    finally:
        if locked:
            _lock.release()


def _user_directories() -> list[str]:
    """The entries of `sys.path` that stand for the script's directory or the current one."""
    try:
        current = os.getcwd()
    except OSError:
        current = ""
    main = getattr(sys.modules.get("__main__"), "__file__", None) or (sys.argv[0] if sys.argv else "")
    script = os.path.dirname(os.path.abspath(main)) if main and main != "-c" else ""
    users = {"", ".", current, script, os.path.realpath(script) if script else ""}
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    # Where the SDK itself comes from, its dependencies do too.
    return [entry for entry in sys.path if entry in users and _absolute(entry) != here]


@contextmanager
def _without(directories: Sequence[str]) -> Iterator[None]:
    finder = _IsolatedFinder(directories)
    aside = {name: module for name, module in list(sys.modules.items()) if finder.shadows(name, module)}
    for name in aside:
        sys.modules.pop(name, None)
    sys.modules.update(_ours)
    before = set(sys.modules)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        if finder in sys.meta_path:
            sys.meta_path.remove(finder)
        for name in set(sys.modules) - before:
            top = name.partition(".")[0]
            # A part of a package that was there before stays with it.
            if (top not in before or top in _ours) and finder.offered_by_user(top):
                _ours[name] = sys.modules[name]
        for name in _ours:
            sys.modules.pop(name, None)
        sys.modules.update(aside)


class _IsolatedFinder:
    """Finds top-level modules for one thread as if `directories` were not on `sys.path`."""

    def __init__(self, directories: Sequence[str]) -> None:
        self._directories = list(directories)
        self._thread = get_ident()
        self._roots = tuple({os.path.join(_absolute(entry), "") for entry in directories})
        self._offered: dict[str, bool] = {}

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> Any:
        if path is not None or get_ident() != self._thread:
            return None
        for finder in list(sys.meta_path):
            if finder is self:
                continue
            find = getattr(finder, "find_spec", None)
            if find is None:
                continue
            # Only this finder looks at the path that it is given; the built-in and frozen ones refuse to be given one.
            given = self._rest() if getattr(finder, "__name__", "") == "PathFinder" else None
            spec = find(fullname, given, target)
            if spec is not None:
                return spec
        raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)

    def _rest(self) -> list[str]:
        return [entry for entry in sys.path if entry not in self._directories]

    def offered_by_user(self, name: str) -> bool:
        """Whether the set-aside directories have a module of that name; a mere folder does not count."""
        if name not in self._offered:
            spec = _path_finder().find_spec(name, self._directories)
            self._offered[name] = spec is not None and spec.origin is not None
        return self._offered[name]

    def shadows(self, name: str, module: ModuleType) -> bool:
        """Whether `module` is the user's own and stands before one that the rest of the path has too."""
        top = name.partition(".")[0]
        if top == "__main__" or top == "agent_assembly":
            return False
        origin = getattr(sys.modules.get(top, module), "__file__", None)
        if not isinstance(origin, str) or not os.path.abspath(origin).startswith(self._roots):
            return False
        if not self.offered_by_user(top):
            return False  # installed below the directory, as in a virtual environment beside the program
        spec = _path_finder().find_spec(top, self._rest())
        return top in sys.stdlib_module_names or (spec is not None and spec.origin is not None)


def _absolute(entry: str) -> str:
    try:
        return os.path.abspath(entry)
    except OSError:
        return entry  # the current directory is gone


def _path_finder() -> Any:
    import _frozen_importlib_external

    return _frozen_importlib_external.PathFinder
