"""Everything that the product changes in a process: who is told of an import, and which attributes are replaced.

Imported before the user's program: see the import rules. What is put in place here does nothing of its own; adapters
say what, this module says how, and takes it away again without a trace.
"""

from __future__ import annotations

import os
import sys
from _thread import RLock
from _weakref import ref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _frozen_importlib import ModuleSpec
    from collections.abc import Callable, Sequence
    from types import ModuleType
    from typing import Any

    Hook = Callable[[ModuleType], None]
    ErrorHandler = Callable[[Exception, str], None]

# One for everything here: it is held for moments only, and a forked child has to be given a new one.
_lock: Any = RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_lock._at_fork_reinit)


class ImportWatcher:
    """A finder on `sys.meta_path` that tells when one of a few named modules has run its body.

    It asks only about watched names; every other import passes it at the price of a look into a dictionary. It finds
    nothing itself: the finders behind it do, and the loader that they give is followed by ours.
    """

    def __init__(self) -> None:
        self._callbacks: dict[str, tuple[Hook, ...]] = {}
        self._pending: dict[str, None] = {}
        self._bodies: set[str] = set()
        self._notified: set[str] = set()
        self._on_error: ErrorHandler = _raise

    def set_error_handler(self, handler: ErrorHandler | None) -> None:
        """Let `handler(error, module_name)` decide what a failing hook means.

        What it raises fails the import. Without a handler the hook's own error does, as a module whose hooks are not in
        place is not governed.
        """
        self._on_error = handler or _raise

    def watch(self, name: str, callback: Hook) -> None:
        """Call `callback(module)` when the body of module `name` has run, and again after each reload.

        Called at once when the module is already there; what it raises then goes to the caller, and it is not kept.
        While threads import the same module it may be called once more than that.
        """
        with _lock:
            if callback in self._callbacks.get(name, ()):
                return
            self._callbacks[name] = (*self._callbacks.get(name, ()), callback)
            if self not in sys.meta_path:
                sys.meta_path.insert(0, self)
            module = self._finished(name)
            if module is None:
                self._pending[name] = None
        if module is not None:
            try:
                callback(module)
            except BaseException:
                self.unwatch(name, callback)
                raise

    def unwatch(self, name: str, callback: Hook) -> None:
        """Forget `callback`; without any left, the watcher leaves `sys.meta_path`."""
        with _lock:
            rest = tuple(kept for kept in self._callbacks.get(name, ()) if kept != callback)
            if rest:
                self._callbacks[name] = rest
                return
            self._callbacks.pop(name, None)
            self._pending.pop(name, None)
            if not self._callbacks and self in sys.meta_path:
                sys.meta_path.remove(self)

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> Any:
        """Return the spec that the finders behind this one give for a watched name, its loader followed by ours."""
        if self._pending:
            self._catch_up()
        if fullname not in self._callbacks:
            return None
        finders = list(sys.meta_path)
        # Those in front have been asked already.
        behind = finders[finders.index(self) + 1 :] if self in finders else finders
        for finder in behind:
            find = getattr(finder, "find_spec", None)
            spec = None if find is None else find(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = self._followed(spec.loader, fullname)
                elif spec.submodule_search_locations is not None:
                    # A namespace package: it has no loader, and no body.
                    _announce_at_the_end(spec, self._notify)
                return spec
        return None

    def _followed(self, loader: Any, name: str) -> Any:
        if isinstance(loader, _FollowedLoader) and loader._watcher is self:
            return loader
        kind = _FollowedLoader if hasattr(loader, "exec_module") else _FollowedLegacyLoader
        return kind(loader, name, self)

    def _catch_up(self) -> None:
        """Notice modules that came in past us, through a finder that was put in front and asks nobody."""
        for name in tuple(self._pending):
            if name in sys.modules:
                with _lock:
                    module = self._finished(name) if name in self._pending else None
                if module is not None:
                    self._notify(name, module)

    def _finished(self, name: str) -> ModuleType | None:
        """The module when its body has run; else see to it that we are told when it has. Called under the lock."""
        module = sys.modules.get(name)
        if module is None or name in self._bodies:
            return None
        if name in self._notified:
            # Its hooks are running now, in this thread or another; the body is done.
            return module
        if type(module).__name__ == "_LazyModule":
            spec = object.__getattribute__(module, "__spec__")
            spec.loader = self._followed(spec.loader, name)
            return None
        spec = getattr(module, "__spec__", None)
        if getattr(spec, "_initializing", False) and _announce_at_the_end(spec, self._notify):
            self._pending.pop(name, None)
            # Between the two looks the other thread may have come to the end.
            return None if getattr(spec, "_initializing", False) else module
        return module

    def _notify(self, name: str, module: ModuleType) -> None:
        with _lock:
            self._pending.pop(name, None)
            self._bodies.discard(name)
            self._notified.add(name)
            callbacks = self._callbacks.get(name, ())
        try:
            for callback in callbacks:
                try:
                    callback(module)
                except Exception as error:  # noqa: BLE001 - each hook on its own, whatever it raises
                    self._on_error(error, name)
        finally:
            self._notified.discard(name)


def _raise(error: Exception, _: str) -> None:
    raise error


class _FollowedLoader:
    """Stands in for a loader until the module runs, and is nowhere to be found afterwards.

    Whatever else is asked of a loader (code, source, data, resources, its class) is answered by the one behind it.
    """

    def __init__(self, loader: Any, name: str, watcher: ImportWatcher) -> None:
        self._loader = loader
        self._name = name
        self._watcher = watcher

    def __getattr__(self, attribute: str) -> Any:
        return getattr(object.__getattribute__(self, "_loader"), attribute)

    @property  # type: ignore[misc]  # isinstance() is to see the loader's own class
    def __class__(self) -> Any:
        return type(self._loader)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        create = getattr(self._loader, "create_module", None)
        module: ModuleType | None = None if create is None else create(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        spec: Any = module.__spec__
        if spec is not None and spec.loader is self:
            spec.loader = self._loader
        if getattr(module, "__loader__", None) is self:
            module.__loader__ = self._loader
        self._watcher._bodies.add(self._name)
        try:
            self._loader.exec_module(module)
        finally:
            self._watcher._bodies.discard(self._name)
        # A body may put another object in its own place.
        self._watcher._notify(self._name, sys.modules.get(self._name, module))


class _FollowedLegacyLoader:
    """The same for a loader of the old protocol, which makes and runs the module in one step."""

    def __init__(self, loader: Any, name: str, watcher: ImportWatcher) -> None:
        self._loader = loader
        self._name = name
        self._watcher = watcher

    def __getattr__(self, attribute: str) -> Any:
        return getattr(object.__getattribute__(self, "_loader"), attribute)

    def load_module(self, name: str) -> ModuleType:
        module: ModuleType = self._loader.load_module(name)
        spec = getattr(module, "__spec__", None)
        if spec is not None and spec.loader is self:
            spec.loader = self._loader
        self._watcher._notify(name, sys.modules.get(name, module))
        return module


def _announce_at_the_end(spec: Any, notify: Callable[[str, ModuleType], None]) -> bool:
    """Call `notify` when the import system marks `spec` as initialised; False for a spec that does not allow that.

    For a module that no loader of ours runs: the mark is an attribute that is set in any case, after the body and
    before anyone else gets the module.
    """
    plain = type(spec)
    if isinstance(vars(plain).get("_initializing"), property):
        return True

    class Announcing(plain):  # type: ignore[valid-type,misc]  # the spec keeps its own class as base
        @property
        def _initializing(self) -> bool:
            return bool(self.__dict__.get("_initializing", False))

        @_initializing.setter
        def _initializing(self, value: bool) -> None:
            if value:
                self.__dict__["_initializing"] = value
                return
            self.__class__ = plain
            try:
                if sys.modules.get(self.name) is not None:
                    notify(self.name, sys.modules[self.name])
            finally:
                self.__dict__["_initializing"] = value

    try:
        spec.__class__ = Announcing
    except TypeError:
        return False
    return True


_watcher = ImportWatcher()
watch = _watcher.watch
unwatch = _watcher.unwatch
set_error_handler = _watcher.set_error_handler


_ABSENT = object()
_MARK = "__agent_assembly_patch__"


class _Patch:
    """One replaced attribute: where, by what, and what was there.

    It hangs on the replacement and nowhere else, so that a class which the program drops goes with its patches.
    """

    __slots__ = ("__weakref__", "attribute", "owner", "patches", "replacement", "saved")

    def __init__(self, patches: Patches, owner: Any, attribute: str, replacement: Any, saved: object) -> None:
        self.patches = patches
        self.owner = owner
        self.attribute = attribute
        self.replacement = replacement
        self.saved = saved

    def __reduce__(self) -> tuple[Any, ...]:
        # A class that travels by value takes its replacements along, and not what they hang on.
        return _nothing, ()

    def restore(self) -> bool:
        """Put back what was there; False when someone else has replaced it since, whose work is left alone."""
        if vars(self.owner).get(self.attribute, _ABSENT) is not self.replacement:
            return False
        if self.saved is _ABSENT:
            delattr(self.owner, self.attribute)
        else:
            setattr(self.owner, self.attribute, self.saved)
        return True


def _nothing() -> None:
    return None


class Patches:
    """A set of replaced attributes that is undone as one.

    Replacements look at `active` and do nothing of their own once it is False: one that somebody wrapped or kept stays
    callable for ever. Replacements must be functions or other objects that take attributes. Safe in threads.
    """

    def __init__(self, active: bool = True) -> None:
        self.active = active
        self._patches: list[ref[_Patch]] = []
        self._crowded = 64

    def __reduce__(self) -> tuple[Any, ...]:
        return Patches, (False,)

    def patch(self, owner: Any, attribute: str, replacement: Any) -> None:
        """Replace `owner`'s own `attribute`, or give it one that hides the inherited."""
        with _lock:
            if not self.active:
                return
            patch = _Patch(self, owner, attribute, replacement, vars(owner).get(attribute, _ABSENT))
            replacement.__dict__[_MARK] = patch
            if len(self._patches) > self._crowded:
                self._patches = [kept for kept in self._patches if kept() is not None]
                self._crowded = 2 * len(self._patches) + 64
            self._patches.append(ref(patch))
            setattr(owner, attribute, replacement)

    def holds(self, candidate: object) -> bool:
        """Whether `candidate` is one of these replacements (and not a copy of its attributes, as wraps() makes)."""
        patch = getattr(candidate, "__dict__", {}).get(_MARK)
        return isinstance(patch, _Patch) and patch.replacement is candidate and patch.patches is self

    def undo(self) -> list[str]:
        """Restore everything, last first; return the places that someone else has patched over in the meantime."""
        with _lock:
            self.active = False
            patches = [patch for kept in reversed(self._patches) if (patch := kept()) is not None]
            self._patches.clear()
            return [_place(patch.owner, patch.attribute) for patch in patches if not patch.restore()]

    def each_subclass(self, base: type, visit: Callable[[type], None]) -> None:
        """Call `visit` with every subclass of `base`, those that exist and those that are made from now on.

        A class may be visited more than once.
        """
        self._announce_subclasses(base, visit)
        waiting: list[type] = type.__subclasses__(base)
        seen = {id(base)}
        while waiting:
            subclass = waiting.pop()
            if id(subclass) not in seen:
                seen.add(id(subclass))
                waiting.extend(type.__subclasses__(subclass))
                self._arrived(subclass, visit)

    def _arrived(self, subclass: type, visit: Callable[[type], None]) -> None:
        # A class with an __init_subclass__ of its own need not pass the call on to the base.
        if "__init_subclass__" in vars(subclass):
            self._announce_subclasses(subclass, visit)
        visit(subclass)

    def _announce_subclasses(self, base: Any, visit: Callable[[type], None]) -> None:
        saved = vars(base).get("__init_subclass__")
        if self.holds(saved):
            return

        def __init_subclass__(cls: Any, /, **arguments: Any) -> None:  # noqa: N807 - it is one
            if saved is None:
                super(base, cls).__init_subclass__(**arguments)
            else:
                saved.__get__(None, cls)(**arguments)
            if self.active:
                self._arrived(cls, visit)

        __init_subclass__.__doc__ = getattr(saved, "__doc__", None)
        self.patch(base, "__init_subclass__", classmethod(__init_subclass__))


def _place(owner: Any, attribute: str) -> str:
    name = getattr(owner, "__qualname__", None)
    return f"{owner.__module__}.{name}.{attribute}" if name else f"{owner.__name__}.{attribute}"
