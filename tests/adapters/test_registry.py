"""Which adapters there are, in which order, and that they say truthfully how they stand."""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import agent_assembly
from agent_assembly.adapters import hooks
from agent_assembly.adapters.base import FrameworkAdapter
from agent_assembly.adapters.built_in import BuiltInAdapter
from agent_assembly.adapters.langchain import LangChainAdapter
from agent_assembly.adapters.registry import AdapterRegistry, priority_of
from agent_assembly.adapters.table import ADAPTERS, ENTRY_POINT_GROUP, PRIORITIES, THIRD_PARTY_PRIORITY
from agent_assembly.adapters.versions import admitted, check_specifier
from agent_assembly.exceptions import AdapterValidationError

CHECKOUT = Path(agent_assembly.__file__).parent.parent


class Third(FrameworkAdapter):
    """A third party's adapter for a framework that is always there."""

    key = "third"
    package = "json"

    def __init__(self) -> None:
        self.registered: list[Any] = []

    def get_framework_name(self) -> str:
        return self.key

    def get_supported_versions(self) -> tuple[str, ...]:
        return (">=1",)

    def register_hooks(self, interceptor: Any) -> None:
        self.registered.append(interceptor)

    def unregister_hooks(self) -> None:
        self.registered.clear()


class Named:
    """An entry point as `importlib.metadata` gives it."""

    def __init__(self, name: str, offered: Any) -> None:
        self.name = name
        self._offered = offered

    def load(self) -> Any:
        if isinstance(self._offered, Exception):
            raise self._offered
        return self._offered


def registry_of(*entry_points: Named) -> AdapterRegistry:
    return AdapterRegistry(lambda: entry_points)


def test_the_documented_order_holds() -> None:
    """The ranks are those of the reference, and third parties rank between the frameworks and MCP."""
    assert dict(PRIORITIES) == {
        "langchain": 0,
        "langgraph": 1,
        "crewai": 2,
        "pydantic_ai": 3,
        "openai": 4,
        "google_adk": 5,
        "mcp": 99,
    }
    assert THIRD_PARTY_PRIORITY == 50
    first, *_, last = registry_of(Named("t", Third)).get_available_adapters_by_priority()
    assert (first.get_framework_name(), last.get_framework_name()) == ("langchain", "third")
    assert priority_of(last) == 50


def test_every_row_leads_to_an_adapter() -> None:
    """Each built-in adapter exists under the key, the triggers and the versions of its row."""
    for row, adapter in zip(ADAPTERS, registry_of().get_available_adapters_by_priority(), strict=True):
        assert isinstance(adapter, BuiltInAdapter)
        assert adapter.get_framework_name() == row.key
        assert tuple(adapter.get_supported_versions()) == row.versions
        assert all(importlib.util.find_spec(trigger) for trigger in row.triggers)
        assert importlib.metadata.version(row.distribution)
        for specifier in row.versions:
            check_specifier(specifier)


def test_looking_for_adapters_imports_no_framework() -> None:
    """The registry asks whether frameworks could be imported, and imports none of them."""
    program = (
        "import sys\nfrom agent_assembly.adapters.registry import AdapterRegistry\n"
        "from agent_assembly.adapters import registry\n"
        "found = registry.AdapterRegistry().get_available_adapters_by_priority()\n"
        "print(*[each.get_framework_name() for each in found])\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules} & {'langchain_core', 'langgraph'}))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert result.stdout == "langchain langgraph\n\n"


def test_a_framework_that_is_not_installed_is_skipped() -> None:
    """An adapter whose framework cannot be imported is not available."""

    class Elsewhere(Third):
        package = "no_such_framework"

    found = registry_of(Named("t", Elsewhere)).get_available_adapters_by_priority()
    assert [each.get_framework_name() for each in found] == ["langchain", "langgraph"]


def test_a_blocked_framework_is_not_available(monkeypatch: pytest.MonkeyPatch) -> None:
    """A framework whose import the program has forbidden is not available; one without a spec that is loaded is."""
    monkeypatch.setitem(sys.modules, "langchain_core", None)
    assert not LangChainAdapter().is_available()
    monkeypatch.setitem(sys.modules, "langchain_core", types.ModuleType("langchain_core"))
    assert LangChainAdapter().is_available()


def test_a_documented_framework_keeps_its_rank_for_a_third_party() -> None:
    """An adapter for a framework that the reference ranks, and that nobody built in, takes that rank."""

    class Crew(Third):
        key = "crewai"

    adapters = registry_of(Named("t", Third), Named("c", Crew)).get_available_adapters_by_priority()
    assert [each.get_framework_name() for each in adapters] == ["langchain", "langgraph", "crewai", "third"]


class Taking(Third):
    key = "langchain"


class Half(FrameworkAdapter):
    def get_framework_name(self) -> str:
        return "half"

    def get_supported_versions(self) -> tuple[str, ...]:
        return ()


class Nameless(Third):
    key = ""


class Vague(Third):
    def get_supported_versions(self) -> Any:
        return ("newest",)


class OneText(Third):
    def get_supported_versions(self) -> Any:
        return ">=1"


class Demanding(Third):
    def __init__(self, required: str) -> None:
        super().__init__()


@pytest.mark.parametrize(
    ("offered", "problem"),
    [
        (ImportError("no module x"), "cannot be loaded: ImportError: no module x"),
        (object(), "is not a subclass of FrameworkAdapter"),
        (dict, "is not a subclass of FrameworkAdapter"),
        (Half, "lacks the methods register_hooks, unregister_hooks"),
        (Nameless, "breaks the contract: get_framework_name() returned '' instead of a name"),
        (Vague, "breaks the contract: 'newest' is not a version specifier such as '>=0.3,<2'"),
        (OneText, "breaks the contract: get_supported_versions() returned '>=1' instead of a sequence of specifiers"),
        (Demanding, "breaks the contract: "),
        (Taking, "claims the framework 'langchain', which has a built-in adapter already"),
    ],
)
def test_a_broken_third_party_adapter_is_named(offered: Any, problem: str) -> None:
    """What a third party's adapter breaks is said with the name of its entry point, and how to get rid of it."""
    with pytest.raises(AdapterValidationError) as caught:
        registry_of(Named("their-adapter", offered)).get_available_adapters_by_priority()
    message = str(caught.value)
    assert message.startswith(f"the adapter of entry point 'their-adapter' (group {ENTRY_POINT_GROUP}) ")
    assert problem in message
    assert message.endswith("; fix or uninstall its distribution")


def test_two_adapters_for_one_framework_are_one_too_many() -> None:
    """The second third-party adapter for a framework is refused, by its entry point's name."""
    with pytest.raises(AdapterValidationError, match=r"'b'.*claims the framework 'third'.*entry point 'a'"):
        registry_of(Named("a", Third), Named("b", Third)).get_available_adapters_by_priority()


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory of installed distributions."""
    directory = tmp_path / "site"
    directory.mkdir()
    monkeypatch.syspath_prepend(str(directory))
    yield directory
    sys.modules.pop("their_module", None)


def test_an_installed_distribution_brings_its_adapter(installed: Path) -> None:
    """An adapter is found by the metadata of the distribution that offers it, nothing else being typed."""
    (installed / "their_module.py").write_text(
        "from agent_assembly.adapters.base import FrameworkAdapter\n"
        "class Theirs(FrameworkAdapter):\n"
        "    package = 'json'\n"
        "    def get_framework_name(self): return 'theirs'\n"
        "    def get_supported_versions(self): return ['>=1']\n"
        "    def register_hooks(self, interceptor): pass\n"
        "    def unregister_hooks(self): pass\n"
    )
    metadata = installed / "their_distribution-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: their-distribution\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{ENTRY_POINT_GROUP}]\nany = their_module:Theirs\n")
    found = AdapterRegistry().get_available_adapters_by_priority()
    assert [each.get_framework_name() for each in found] == ["langchain", "langgraph", "theirs"]


class TestStates:
    def test_an_armed_adapter_says_so_with_the_version(self, interceptor: Any) -> None:
        """The report names what is installed, what is supported, and that the hooks are in place."""
        for row in ADAPTERS:
            for trigger in row.triggers:
                importlib.import_module(trigger)
        registry = registry_of()
        registry.register_hooks(interceptor)
        try:
            for report in registry.report():
                assert report.state == "armed"
                assert report.in_range is True
                assert report.framework_version == importlib.metadata.version(report.key.replace("chain", "chain-core"))
                assert report.priority == PRIORITIES[report.key]
        finally:
            assert registry.unregister_hooks() == []
        assert {report.state for report in registry.report()} == {"off"}

    def test_an_adapter_waits_for_its_framework(self) -> None:
        """Until the framework is imported the adapter is not armed, and does not say it is."""
        program = (
            "from agent_assembly.adapters.registry import AdapterRegistry\n"
            "class Any:\n    on_deny = 'raise'; enforcement_mode = 'enforce'\n"
            "registry = AdapterRegistry()\n"
            "registry.register_hooks(Any())\n"
            "print(*[report.state for report in registry.report()])\n"
            "from langchain_core.tools import BaseTool\n"
            "print(*[report.state for report in registry.report()])\n"
            "import langgraph.prebuilt\n"
            "print(*[report.state for report in registry.report()])\n"
        )
        result = subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONPATH": str(CHECKOUT)},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert result.stdout.splitlines() == ["waiting waiting", "armed waiting", "armed armed"]

    def test_a_failing_adapter_undoes_those_before_it(self, interceptor: Any) -> None:
        """When one adapter cannot register, none stays registered, and the report says which one failed."""

        class Failing(Third):
            def register_hooks(self, interceptor: Any) -> None:
                raise OSError("no place")

        from langchain_core.tools import BaseTool

        before = {name: id(value) for name, value in vars(BaseTool).items()}
        registry = registry_of(Named("t", Failing))
        with pytest.raises(OSError, match="no place"):
            registry.register_hooks(interceptor)
        assert {name: id(value) for name, value in vars(BaseTool).items()} == before
        assert [report.state for report in registry.report()] == ["off", "off", "failed: no place"]

    def test_unregistering_goes_on_after_an_error(self, interceptor: Any) -> None:
        """An adapter that cannot unregister keeps no other one from it."""

        class Stuck(Third):
            def unregister_hooks(self) -> None:
                raise OSError("stuck")

        registry = registry_of(Named("t", Stuck))
        registry.register_hooks(interceptor)
        assert [str(error) for error in registry.unregister_hooks()] == ["stuck"]
        assert {report.state for report in registry.report()} == {"off"}


class Moved:
    """A BaseTool of a version that has its choke point elsewhere."""

    def invoke(self) -> None: ...

    async def ainvoke(self) -> None: ...


class TestMissingChokePoint:
    """A version of LangChain whose tool calls pass elsewhere cannot be governed."""

    @pytest.fixture
    def moved(self, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
        module = types.ModuleType("langchain_core.tools.base")
        module.BaseTool = Moved  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "langchain_core.tools.base", module)
        return module

    def test_enforcing_fails(self, moved: types.ModuleType) -> None:
        """Under enforcement registering fails with what is missing, and leaves nothing behind."""
        adapter = LangChainAdapter()
        before = dict(vars(Moved))
        with pytest.raises(
            AdapterValidationError, match=r"Moved has no run and no arun: the tool calls of this version"
        ):
            adapter.register_hooks(Interceptor("enforce"))  # type: ignore[arg-type]
        assert dict(vars(Moved)) == before
        assert hooks._watcher not in sys.meta_path
        assert adapter.state.startswith("failed: ")

    def test_half_of_the_hooks_is_none(self, moved: types.ModuleType) -> None:
        """When one of several hooks cannot be put in place, those before it are taken away again."""

        class Stubborn(type):
            def __setattr__(cls, name: str, value: Any) -> None:
                if name == "arun":
                    raise TypeError("not here")
                super().__setattr__(name, value)

        class Tool(Moved, metaclass=Stubborn):
            def run(self) -> None: ...

            async def arun(self) -> None: ...

        moved.BaseTool = Tool  # type: ignore[attr-defined]
        before = {name: id(value) for name, value in vars(Tool).items()}
        adapter = LangChainAdapter()
        with pytest.raises(TypeError, match="not here"):
            adapter.register_hooks(Interceptor("enforce"))  # type: ignore[arg-type]
        assert {name: id(value) for name, value in vars(Tool).items()} == before
        assert adapter.state == "failed: not here"

    def test_observing_says_so(self, moved: types.ModuleType, caplog: pytest.LogCaptureFixture) -> None:
        """Where nothing is enforced the program goes on, and the adapter's state and a warning say what is not seen."""
        adapter = LangChainAdapter()
        adapter.register_hooks(Interceptor("observe"))  # type: ignore[arg-type]
        try:
            assert adapter.state.startswith("failed: ")
            assert "are not governed" in caplog.text
        finally:
            adapter.unregister_hooks()


class Interceptor:
    on_deny = "raise"

    def __init__(self, mode: str) -> None:
        self.enforcement_mode = mode


def test_another_version_is_governed_with_a_warning(
    interceptor: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A version outside the range is governed as long as its choke points are there, and is said to be outside."""
    monkeypatch.setattr("agent_assembly.adapters.built_in.installed_version", lambda distribution: "9.1")
    adapter = LangChainAdapter()
    with caplog.at_level(logging.WARNING, "agent_assembly"):
        adapter.register_hooks(interceptor)
    try:
        assert adapter.state == "armed"
    finally:
        adapter.unregister_hooks()
    assert "langchain-core 9.1 is outside the versions that its adapter was made for (>=0.3,<2)" in caplog.text


@pytest.mark.parametrize(
    ("version", "specifiers", "expected"),
    [
        ("0.3", [">=0.3,<2"], True),
        ("0.3.86", [">=0.3,<2"], True),
        ("1.7.2", [">=0.3,<2"], True),
        ("1.7.2.dev4+local", [">=0.3,<2"], True),
        ("0.2.43", [">=0.3,<2"], False),
        ("2", [">=0.3,<2"], False),
        ("2.0.0rc1", [">=0.3,<2"], False),
        ("1.30", [">=1,<2", ">=3"], True),
        ("2.5", [">=1,<2", ">=3"], False),
        ("3.1", [">=1,<2", ">=3"], True),
        ("1.2.0", ["==1.2"], True),
        ("1.2.1", ["!=1.2.1"], False),
        ("1.2", [">1.2"], False),
        ("1.2", ["<=1.2"], True),
        ("unknown", [">=1"], False),
        ("1.0", [], False),
    ],
)
def test_versions_are_compared_by_their_numbers(version: str, specifiers: list[str], expected: bool) -> None:
    """A version is supported when one of the specifiers admits it; a pre-release counts as its release."""
    assert admitted(version, specifiers) is expected
