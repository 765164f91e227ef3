"""Worker processes that `multiprocessing` starts anew (spawn, forkserver), governed as forked ones are.

What a worker is told first about its surroundings carries settings and gateway along. Reading them there begins
governance, before the worker imports the program or reads what it is to do. Under `aasm-run` the environment does that.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from agent_assembly.adapters.hooks import Patches, unwatch, watch

_MODULE = "multiprocessing.spawn"
_KEY = "agent_assembly"


class _Heritage:
    """Unpickles as the answer of `begin(*facts)`: beginning is all that it is for."""

    def __init__(self, begin: Callable[..., object], facts: tuple[Any, ...]) -> None:
        self._begin = begin
        self._facts = facts

    def __reduce__(self) -> tuple[Any, ...]:
        return self._begin, self._facts


class Workers:
    """Lets workers that are started from now on call `begin(*facts)` first; both must be picklable."""

    def __init__(self, begin: Callable[..., object], facts: tuple[Any, ...]) -> None:
        self._heritage = _Heritage(begin, facts)
        self._patches = Patches()

    def arm(self) -> None:
        """Wait for `multiprocessing`, which most programs never import."""
        watch(_MODULE, self._imported)

    def disarm(self) -> list[str]:
        """Undo `arm`; return the places that someone else has patched over."""
        unwatch(_MODULE, self._imported)
        return self._patches.undo()

    def _imported(self, module: ModuleType) -> None:
        original = module.get_preparation_data
        if self._patches.holds(original):
            return

        @functools.wraps(original)
        def get_preparation_data(*args: Any, **kwargs: Any) -> Mapping[str, Any]:
            data: dict[str, Any] = original(*args, **kwargs)
            return {**data, _KEY: self._heritage} if self._patches.active else data

        self._patches.patch(module, "get_preparation_data", get_preparation_data)
