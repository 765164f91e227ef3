"""What is replaced in a process is put back, and nothing that is not ours is touched."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

from agent_assembly.adapters.hooks import Patches


class Base:
    def own(self) -> str:
        return "own"

    @classmethod
    def of_class(cls) -> str:
        return cls.__name__

    @staticmethod
    def static() -> str:
        return "static"


def replacement() -> Any:
    def replaced(*args: Any, **kwargs: Any) -> str:
        return "replaced"

    return replaced


def test_undoing_restores_by_identity() -> None:
    """Methods, class methods and static methods are the very same objects again."""
    before = dict(vars(Base))
    patches = Patches()
    for name in ("own", "of_class", "static"):
        patches.patch(Base, name, replacement())
    assert Base().own() == "replaced"
    assert patches.undo() == []
    assert dict(vars(Base)) == before
    assert all(vars(Base)[name] is value for name, value in before.items())


def test_what_was_absent_is_absent_again() -> None:
    """An attribute that hid an inherited one is deleted, not set to the inherited one."""

    class Child(Base):
        pass

    patches = Patches()
    patches.patch(Child, "own", replacement())
    assert Child().own() == "replaced"
    assert Base().own() == "own"
    patches.undo()
    assert "own" not in vars(Child)
    assert Child().own() == "own"


def test_modules_can_be_patched() -> None:
    """A function of a module is an attribute like any other."""
    module = ModuleType("some_module")
    module.work = original = lambda: "own"  # type: ignore[attr-defined]
    patches = Patches()
    patches.patch(module, "work", replacement())
    assert module.work() == "replaced"
    module.work = lambda: "theirs"
    assert patches.undo() == ["some_module.work"]
    assert module.work() == "theirs"
    module.work = original


def test_the_last_patch_is_undone_first() -> None:
    """An attribute that was patched twice comes back through both."""

    class Owner(Base):
        pass

    patches = Patches()
    first, second = replacement(), replacement()
    patches.patch(Owner, "own", first)
    patches.patch(Owner, "own", second)
    assert patches.holds(vars(Owner)["own"])
    assert patches.undo() == []
    assert "own" not in vars(Owner)


def test_someone_elses_patch_is_left_alone_and_named() -> None:
    """What was patched on top of ours stays, and the caller learns where."""

    class Owner(Base):
        pass

    patches = Patches()
    patches.patch(Owner, "own", replacement())
    inner = Owner.own
    Owner.own = theirs = lambda self: f"theirs on {inner(self)}"  # type: ignore[method-assign, assignment]
    assert not patches.holds(vars(Owner)["own"])
    assert patches.undo() == [f"{__name__}.{Owner.__qualname__}.own"]
    assert vars(Owner)["own"] is theirs
    assert patches.active is False


def test_after_undoing_nothing_is_patched_any_more() -> None:
    """A patch that comes too late, from another thread perhaps, is none."""

    class Owner(Base):
        pass

    patches = Patches()
    patches.undo()
    patches.patch(Owner, "own", replacement())
    assert "own" not in vars(Owner)


def test_patches_do_not_keep_classes_alive() -> None:
    """A class that the program drops goes, patched or not."""
    patches = Patches()

    def make() -> weakref.ref[type]:
        class Dropped(Base):
            def own(self) -> str:
                return super().own()

        patches.patch(Dropped, "own", replacement())
        return weakref.ref(Dropped)

    dropped = [make() for _ in range(300)]
    gc.collect()
    assert not any(each() for each in dropped)
    patches.undo()


def test_every_subclass_is_visited() -> None:
    """Those that exist, those that come, at any depth, also below a class that keeps its subclasses to itself."""

    class Root:
        pass

    class Existing(Root):
        def __init_subclass__(cls) -> None:
            pass

    class Below(Existing):
        pass

    patches = Patches()
    visited: list[str] = []
    patches.each_subclass(Root, lambda cls: visited.append(cls.__name__))
    assert set(visited) == {"Existing", "Below"}

    class Late(Root):
        pass

    class LateBelow(Below):
        pass

    assert {"Late", "LateBelow"} <= set(visited)
    assert "__init_subclass__" in vars(Root)
    patches.undo()
    assert "__init_subclass__" not in vars(Root)
    visited.clear()

    class TooLate(Root):
        pass

    assert visited == []


def test_threads_may_patch_at_once() -> None:
    """Many threads patching and making classes leave nothing behind."""

    class Root:
        def work(self) -> str:
            return "own"

    patches = Patches()

    def visit(cls: type) -> None:
        if "work" in vars(cls) and not patches.holds(vars(cls)["work"]):
            patches.patch(cls, "work", replacement())

    patches.each_subclass(Root, visit)

    def make(number: int) -> type:
        return type(f"Made{number}", (Root,), {"work": lambda self: "own"})

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(make, range(200)))
    assert {cls().work() for cls in made} == {"replaced"}
    assert patches.undo() == []
    assert {cls().work() for cls in made} == {"own"}
