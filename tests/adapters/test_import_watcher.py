"""The watcher tells when a named module has run, and leaves no other trace in the import system."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import agent_assembly
from agent_assembly.adapters.hooks import ImportWatcher

CHECKOUT = Path(agent_assembly.__file__).parent.parent


class Modules:
    """A directory of modules that the import system finds; their names are theirs alone."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def write(self, name: str, text: str = "value = 1\n") -> str:
        path = self.directory.joinpath(*name.split("."))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".py").write_text(text)
        importlib.invalidate_caches()
        return name


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Modules]:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield Modules(tmp_path)
    for name in set(sys.modules) - before:
        if name.startswith("watched"):
            del sys.modules[name]


@pytest.fixture
def watcher() -> Iterator[ImportWatcher]:
    made = ImportWatcher()
    yield made
    if made in sys.meta_path:
        sys.meta_path.remove(made)


def test_a_watched_module_is_announced_when_it_has_run(modules: Modules, watcher: ImportWatcher) -> None:
    """The callback gets the module, after its body and before whoever imports it goes on."""
    name = modules.write("watched_plain", "value = 1\nvalue = 2\n")
    seen: list[int] = []
    watcher.watch(name, lambda module: seen.append(module.value))
    assert seen == []
    importlib.import_module(name)
    importlib.import_module(name)
    assert seen == [2]


def test_a_module_that_is_there_is_announced_at_once(modules: Modules, watcher: ImportWatcher) -> None:
    """Whoever comes late is told at once, and what the callback raises then is the caller's."""
    module = importlib.import_module(modules.write("watched_early"))
    seen: list[ModuleType] = []
    watcher.watch("watched_early", seen.append)
    assert seen == [module]
    with pytest.raises(ZeroDivisionError):
        watcher.watch("watched_early", lambda module: 1 // 0)
    importlib.reload(module)
    assert seen == [module, module]


def test_the_loader_is_the_modules_own(modules: Modules, watcher: ImportWatcher) -> None:
    """During its body and afterwards, a watched module has the loader that it would have without us."""
    name = modules.write("watched_loader", "import sys\nduring = (__loader__, sys.modules[__name__].__spec__.loader)\n")
    watcher.watch(name, lambda module: None)
    module = importlib.import_module(name)
    assert {type(each) for each in (*module.during, module.__loader__, module.__spec__.loader)} == {
        importlib.machinery.SourceFileLoader
    }
    assert module.__file__ == str(modules.directory / "watched_loader.py")


def test_a_spec_answers_like_any_other(modules: Modules, watcher: ImportWatcher) -> None:
    """Looking a watched module up without importing it gives a loader that can do what the real one can."""
    name = modules.write("watched_spec", "value = 1\n")
    watcher.watch(name, lambda module: None)
    spec = importlib.util.find_spec(name)
    assert spec is not None
    loader: Any = spec.loader
    assert isinstance(loader, importlib.machinery.SourceFileLoader)
    assert loader.get_source(name) == "value = 1\n"
    assert loader.get_code(name).co_filename == spec.origin
    assert loader.is_package(name) is False
    assert name not in sys.modules


def test_a_package_keeps_its_resources(modules: Modules, watcher: ImportWatcher) -> None:
    """A watched package has its path, its submodules and its files."""
    from importlib import resources

    modules.write("watched_package.__init__", "")
    modules.write("watched_package.inner", "value = 3\n")
    (modules.directory / "watched_package" / "data.txt").write_text("data")
    seen: list[str] = []
    for name in ("watched_package", "watched_package.inner"):
        watcher.watch(name, lambda module: seen.append(module.__name__))
    assert importlib.import_module("watched_package.inner").value == 3
    assert seen == ["watched_package", "watched_package.inner"]
    assert resources.files("watched_package").joinpath("data.txt").read_text() == "data"


def test_a_namespace_package_is_announced(modules: Modules, watcher: ImportWatcher) -> None:
    """A package without a body is announced as well, and is the namespace package that it would be without us."""
    modules.write("watched_namespace.inner", "value = 3\n")
    modules.write("watched_other.inner", "value = 3\n")
    seen: list[str] = []
    for name in ("watched_namespace", "watched_namespace.inner"):
        watcher.watch(name, lambda module: seen.append(module.__name__))
    importlib.import_module("watched_namespace.inner")
    assert seen == ["watched_namespace", "watched_namespace.inner"]
    importlib.import_module("watched_other.inner")
    watched, other = sys.modules["watched_namespace"], sys.modules["watched_other"]
    assert type(watched.__loader__) is type(other.__loader__)
    assert type(watched.__path__) is type(other.__path__)
    assert getattr(watched, "__file__", "none") == getattr(other, "__file__", "none")


def test_reloading_announces_again(modules: Modules, watcher: ImportWatcher) -> None:
    """Each run of the body is announced: a reload undoes what hooks did to the module."""
    name = modules.write("watched_reload", "value = 1\n")
    seen: list[int] = []
    watcher.watch(name, lambda module: seen.append(module.value))
    module = importlib.import_module(name)
    modules.write(name, "value = 'two'\n")
    importlib.reload(module)
    assert seen == [1, "two"]


@pytest.mark.parametrize("watched_first", [True, False])
def test_a_lazy_module_stays_lazy(watched_first: bool, modules: Modules, watcher: ImportWatcher) -> None:
    """A module that importlib's LazyLoader imports is announced when it runs, not before."""
    name = modules.write("watched_lazy", "import sys\nsys.watched_lazy_ran = True\nvalue = 1\n")
    seen: list[int] = []

    def callback(module: ModuleType) -> None:
        seen.append(module.value)

    if watched_first:
        watcher.watch(name, callback)
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    lazy = importlib.util.LazyLoader(spec.loader)
    spec.loader = lazy
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    lazy.exec_module(module)
    if not watched_first:
        watcher.watch(name, callback)
    assert not hasattr(sys, "watched_lazy_ran")
    assert seen == []
    try:
        assert module.value == 1
    finally:
        del sys.watched_lazy_ran  # type: ignore[attr-defined]
    assert seen == [1]
    assert type(module.__spec__.loader) is importlib.machinery.SourceFileLoader  # type: ignore[union-attr]


def test_a_failing_hook_goes_to_the_handler(modules: Modules, watcher: ImportWatcher) -> None:
    """What a callback raises reaches the handler, with the module's name; the import and the other callbacks go on."""
    name = modules.write("watched_failing")
    errors: list[tuple[str, str]] = []
    seen: list[str] = []
    watcher.set_error_handler(lambda error, module: errors.append((str(error), module)))
    watcher.watch(name, fail)
    watcher.watch(name, lambda module: seen.append(module.__name__))
    assert importlib.import_module(name).value == 1
    assert errors == [("no hook", name)]
    assert seen == [name]


def test_without_a_handler_a_failing_hook_fails_the_import(modules: Modules, watcher: ImportWatcher) -> None:
    """Nobody said that the program may go on without the hook: the import fails, and can be tried again."""
    name = modules.write("watched_fatal")
    watcher.watch(name, fail)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no hook"):
            importlib.import_module(name)
        assert name not in sys.modules
    watcher.unwatch(name, fail)
    importlib.import_module(name)


def fail(_: ModuleType) -> None:
    raise RuntimeError("no hook")


def test_a_body_that_fails_is_not_announced(modules: Modules, watcher: ImportWatcher) -> None:
    """A module whose body raises has not run; when it does later, it is announced."""
    name = modules.write("watched_broken", "raise ValueError('broken')\n")
    seen: list[str] = []
    watcher.watch(name, lambda module: seen.append(module.__name__))
    with pytest.raises(ValueError, match="broken"):
        importlib.import_module(name)
    assert seen == []
    modules.write(name, "value = 1  # repaired\n")
    importlib.import_module(name)
    assert seen == [name]


def test_a_missing_module_is_missing(watcher: ImportWatcher) -> None:
    """Watching a module that does not exist changes nothing of the error."""
    watcher.watch("watched_missing", fail)
    with pytest.raises(ModuleNotFoundError, match="No module named 'watched_missing'"):
        importlib.import_module("watched_missing")


def test_without_a_watch_the_finder_is_gone(watcher: ImportWatcher) -> None:
    """The finder is on the path of imports only while something is watched."""
    before = list(sys.meta_path)
    watcher.watch("watched_a", fail)
    watcher.watch("watched_b", fail)
    assert sys.meta_path == [watcher, *before]
    watcher.unwatch("watched_a", fail)
    watcher.unwatch("watched_b", fail)
    watcher.unwatch("watched_b", fail)
    assert sys.meta_path == before


def test_a_module_in_the_middle_of_its_body_is_announced_at_its_end(modules: Modules, watcher: ImportWatcher) -> None:
    """A watch that begins while the module's own body runs is told when the body has run."""
    name = modules.write("watched_middle", "import sys\nsys.watched_begin(__name__)\nvalue = 1\n")
    seen: list[int] = []
    sys.watched_begin = lambda name: watcher.watch(name, lambda module: seen.append(module.value))  # type: ignore[attr-defined]
    try:
        module = importlib.import_module(name)
    finally:
        del sys.watched_begin  # type: ignore[attr-defined]
    assert seen == [1]
    assert type(module.__spec__) is importlib.machinery.ModuleSpec
    assert module.__spec__._initializing is False  # type: ignore[attr-defined]


def test_a_module_that_another_thread_is_importing_is_announced_at_its_end(
    modules: Modules, watcher: ImportWatcher
) -> None:
    """A watch that begins while another thread runs the body neither waits nor sees half a module."""
    name = modules.write("watched_thread", "import sys\nsys.watched_gate()\nvalue = 1\n")
    inside, go_on = threading.Event(), threading.Event()
    seen: list[int] = []

    def gate() -> None:
        inside.set()
        assert go_on.wait(10)

    sys.watched_gate = gate  # type: ignore[attr-defined]
    try:
        thread = threading.Thread(target=importlib.import_module, args=(name,))
        thread.start()
        assert inside.wait(10)
        watcher.watch(name, lambda module: seen.append(module.value))
        assert seen == []
        go_on.set()
        thread.join(10)
    finally:
        go_on.set()
        del sys.watched_gate  # type: ignore[attr-defined]
    assert seen == [1]


def test_a_body_that_fails_in_the_middle_of_a_watch_is_not_announced(modules: Modules, watcher: ImportWatcher) -> None:
    """The same when the body then raises: nothing is announced until the module runs to its end."""
    name = modules.write("watched_stumble", "import sys\nsys.watched_begin(__name__)\nraise ValueError('broken')\n")
    seen: list[str] = []
    sys.watched_begin = lambda name: watcher.watch(name, lambda module: seen.append(module.__name__))  # type: ignore[attr-defined]
    try:
        with pytest.raises(ValueError, match="broken"):
            importlib.import_module(name)
    finally:
        del sys.watched_begin  # type: ignore[attr-defined]
    assert seen == []
    modules.write(name, "value = 1  # repaired, and of another length\n")
    importlib.import_module(name)
    assert seen == [name]


class Grabbing(MetaPathFinder):
    """A finder in front that asks nobody, as some tools that rewrite source code put there."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        return importlib.machinery.PathFinder.find_spec(name, path, target) if name.startswith("watched") else None


def test_a_finder_in_front_hides_no_module(modules: Modules, watcher: ImportWatcher) -> None:
    """A module that another finder brought in past us is announced with the next import of anything."""
    modules.write("watched_hidden", "import watched_dependency\nvalue = 1\n")
    modules.write("watched_dependency")
    seen: list[int] = []
    watcher.watch("watched_hidden", lambda module: seen.append(module.value))
    grabbing = Grabbing()
    sys.meta_path.insert(0, grabbing)
    try:
        importlib.import_module("watched_hidden")
    finally:
        sys.meta_path.remove(grabbing)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("no_such_module")
    assert seen == [1]


class Asking(MetaPathFinder):
    """A finder in front that looks names up through all finders, and follows the loader that it gets."""

    def __init__(self) -> None:
        self.asking: set[str] = set()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name in self.asking or not name.startswith("watched"):
            return None
        self.asking.add(name)
        try:
            return importlib.util.find_spec(name)
        finally:
            self.asking.discard(name)


@pytest.mark.parametrize("in_front", [True, False])
def test_another_watcher_works_beside_this_one(in_front: bool, modules: Modules, watcher: ImportWatcher) -> None:
    """A finder of the same kind, in front or behind, costs neither of the two its announcement."""
    name = modules.write("watched_beside")
    seen: list[str] = []
    watcher.watch(name, lambda module: seen.append(module.__name__))
    asking = Asking()
    sys.meta_path.insert(0 if in_front else 1, asking)
    try:
        importlib.import_module(name)
    finally:
        sys.meta_path.remove(asking)
    assert seen == [name]


def test_a_module_that_puts_another_in_its_place_is_announced_as_that(modules: Modules, watcher: ImportWatcher) -> None:
    """What is announced is what the importer gets."""
    text = "import sys, types\nother = types.ModuleType(__name__)\nother.value = 9\nsys.modules[__name__] = other\n"
    seen: list[int] = []
    watcher.watch(modules.write("watched_replaced", text), lambda module: seen.append(module.value))
    importlib.import_module("watched_replaced")
    assert seen == [9]


class Legacy:
    """A loader that knows only the protocol of Python 2."""

    def load_module(self, name: str) -> ModuleType:
        module = ModuleType(name)
        module.__loader__ = self
        vars(module)["value"] = 4
        return sys.modules.setdefault(name, module)


class LegacyFinder(MetaPathFinder):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        return importlib.machinery.ModuleSpec(name, Legacy()) if name == "watched_legacy" else None  # type: ignore[arg-type]


@pytest.mark.skipif(sys.version_info >= (3, 15), reason="the import system has dropped the protocol")
@pytest.mark.filterwarnings("ignore:.*load_module.*", "ignore:.*exec_module.*")
def test_a_loader_of_the_old_protocol_is_followed(watcher: ImportWatcher) -> None:
    """A module that its loader makes and runs in one step is announced too."""
    seen: list[int] = []
    watcher.watch("watched_legacy", lambda module: seen.append(module.value))
    finder = LegacyFinder()
    sys.meta_path.append(finder)
    try:
        module = importlib.import_module("watched_legacy")
    finally:
        sys.meta_path.remove(finder)
        sys.modules.pop("watched_legacy", None)
    assert seen == [4]
    assert isinstance(module.__loader__, Legacy)


PROGRAM = """
import sys
from agent_assembly.adapters.hooks import watch
import runpy
watch("watched_main", lambda module: print("announced", module.__name__))
{run}
"""


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        ("sys.argv = ['x']; runpy.run_module('watched_main', run_name='__main__', alter_sys=True)", ["runs __main__"]),
        (
            "runpy.run_module('watched_main', run_name='__main__'); import watched_main",
            ["runs __main__", "runs watched_main", "announced watched_main"],
        ),
    ],
)
def test_a_watched_module_can_be_the_program(run: str, expected: list[str], modules: Modules) -> None:
    """`python -m` with a watched module runs it; it is announced when it is imported under its own name."""
    modules.write("watched_main", "print('runs', __name__)\n")
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(run=run)],
        env={"PYTHONPATH": f"{modules.directory}:{CHECKOUT}"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert result.stdout.splitlines() == expected
    assert result.stderr == ""


def test_watching_imports_nothing(modules: Modules) -> None:
    """The watcher and the table bring no module along that a bare interpreter has not got."""
    source = "import sys; before = set(sys.modules)\n{}print(*sorted(set(sys.modules) - before))"
    statement = "import agent_assembly.adapters.hooks as hooks, agent_assembly.adapters.table as table\n"
    statement += "for row in table.ADAPTERS:\n    for name in row.triggers: hooks.watch(name, print)\n"
    result = subprocess.run(
        [sys.executable, "-S", "-c", source.format(statement)],
        env={"PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    brought = {name for name in result.stdout.split() if not name.startswith("agent_assembly")}
    assert brought <= {"__future__", "os", "stat", "_stat", "posixpath", "genericpath", "os.path", "_collections_abc"}
