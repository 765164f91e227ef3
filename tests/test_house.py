"""The rules of the house, held by reading the source: who may import whom, what may be imported before the user's
program, and that what is written down is what is there."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from importlib.metadata import distribution, version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

import agent_assembly
import agent_assembly.diagnosis
import agent_assembly.exceptions
import agent_assembly.launching
from agent_assembly.adapters import table as adapter_table

ROOT = Path(__file__).resolve().parent.parent
FRAMEWORKS = {"agents", "autogen_agentchat", "crewai", "google", "langchain", "langchain_core", "langgraph", "mcp"}
# Everything that launcher and bootstrap import before the first governed framework.
LIGHT = (
    "agent_assembly/__init__.py",
    "agent_assembly/_version.py",
    "agent_assembly/core/__init__.py",
    "agent_assembly/core/bootstrap.py",
    "agent_assembly/core/exchange.py",
    "agent_assembly/core/home.py",
    "agent_assembly/core/local_gateway.py",
    "agent_assembly/core/modes.py",
    "agent_assembly/core/proof.py",
    "agent_assembly/core/settings.py",
    "agent_assembly/core/target.py",
    "agent_assembly/adapters/__init__.py",
    "agent_assembly/adapters/hooks.py",
    "agent_assembly/adapters/table.py",
    "agent_assembly/exceptions/__init__.py",
    "agent_assembly/launching.py",
    "aasm_py/__init__.py",
    "aasm_py/host.py",
    "aasm_py/options.py",
    "aasm_py/own_path.py",
    "aasm_py/plan.py",
    "aasm_py/preflight.py",
    "aasm_py/run.py",
    "sitecustomize/sitecustomize.py",
)
# What bare CPython 3.10 to 3.14 has imported anyway, or has built in. Of other modules only what is imported inside a
# function, by a path that not every start takes.
LIGHT_MAY_IMPORT = {
    *("__future__", "agent_assembly", "aasm_py", "contextvars", "errno", "os", "stat", "sys", "time"),
    *("_frozen_importlib", "_json", "_sha2", "_sha256", "_socket", "_thread", "_weakref"),
}
FILE_LIMIT = 500


class Import(NamedTuple):
    """One imported module, with the name taken from it, and whether importing the file imports it."""

    module: str
    name: str | None
    at_import: bool
    line: int


def python_files(*directories: str) -> list[Path]:
    return [path for directory in directories for path in sorted((ROOT / directory).rglob("*.py"))]


def imports_of(path: Path) -> list[Import]:
    """Every import of a file but those that only the type checker sees."""
    return list(_imports(ast.parse(path.read_text()).body, at_import=True, package=_package(path)))


def _package(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1])


def _imports(body: list[ast.stmt], *, at_import: bool, package: str) -> Iterator[Import]:
    for node in body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, None, at_import, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield Import(module, alias.name, at_import, node.lineno)
        elif isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            yield from _imports(node.orelse, at_import=at_import, package=package)
        else:
            inside = at_import and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            for child in getattr(node, "handlers", []):
                # What is imported because something else could not be: not on the way of every start.
                yield from _imports(child.body, at_import=False, package=package)
            for field in ("body", "orelse", "finalbody"):
                yield from _imports(getattr(node, field, []), at_import=inside, package=package)


def shown(path: Path, found: Import) -> str:
    return f"{path.relative_to(ROOT)}:{found.line} imports {found.module}" + (f".{found.name}" if found.name else "")


def test_the_reader_of_imports_sees_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The helper of these tests finds imports in every place, and knows which of them importing the file runs."""
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    source = tmp_path / "package" / "inner" / "module.py"
    source.parent.mkdir(parents=True)
    source.write_text(
        "import a.b\nfrom . import c\nfrom ..d import e\n"
        "try:\n    import f\nexcept ImportError:\n    import g\nfinally:\n    import h\n"
        "if TYPE_CHECKING:\n    import unseen\nelse:\n    import i\n"
        "class K:\n    import j\n    def m(self):\n        import late\n"
        "with x:\n    import k\n"
    )
    found = imports_of(source)
    assert [(row.module, row.name) for row in found if row.at_import] == [
        ("a.b", None),
        ("package.inner", "c"),
        ("package.d", "e"),
        ("f", None),
        ("h", None),
        ("i", None),
        ("j", None),
        ("k", None),
    ]
    assert [row.module for row in found if not row.at_import] == ["g", "late"]


def test_the_command_line_uses_public_names_of_the_sdk_only() -> None:
    """`aasm_py` takes what the SDK's public modules offer in `__all__`, and nothing else."""
    public = {
        "agent_assembly": set(agent_assembly.__all__),
        "agent_assembly.diagnosis": set(agent_assembly.diagnosis.__all__),
        "agent_assembly.exceptions": set(agent_assembly.exceptions.__all__),
        "agent_assembly.launching": set(agent_assembly.launching.__all__),
    }
    wrong = []
    for path in python_files("aasm_py"):
        for found in imports_of(path):
            if found.module.split(".")[0] != "agent_assembly":
                continue
            if found.name not in public.get(found.module, set()):
                wrong.append(shown(path, found))
    assert not wrong


def test_the_sdk_knows_neither_the_command_line_nor_its_libraries() -> None:
    """`agent_assembly` imports no `aasm_py`, Typer, Rich or psutil."""
    above = {"aasm_py", "typer", "rich", "psutil", "click"}
    wrong = [
        shown(path, found)
        for path in python_files("agent_assembly")
        for found in imports_of(path)
        if found.module.split(".")[0] in above
    ]
    assert not wrong


def _renders(name: str) -> bool:
    return name.startswith("render")


def test_rich_is_for_rendering_alone() -> None:
    """Modules called `render…` alone import Rich, and are imported only when there is something to render."""
    wrong = []
    for path in python_files("aasm_py"):
        for found in imports_of(path):
            if path.name.startswith("render"):
                continue
            named = (found.name or "", found.module.rpartition(".")[2])
            if found.module.split(".")[0] == "rich" or (found.at_import and any(map(_renders, named))):
                wrong.append(shown(path, found))
    assert not wrong


# The modules of single frameworks; everything else in `adapters/` is the engine, which serves them all.
ADAPTERS = {row.adapter.partition(":")[0] for row in adapter_table.ADAPTERS}


def modules_of(found: Import) -> set[str]:
    """The modules that an import may mean: `from a import b` is `a`, or the module `a.b`."""
    return {found.module, f"{found.module}.{found.name}"}


def test_adapters_know_the_contract_and_not_each_other() -> None:
    """A framework's adapter imports the contract, the exceptions and the engine; no other adapter, not the core."""
    contract = {"agent_assembly", "agent_assembly.governance", "agent_assembly.exceptions"}
    wrong = []
    for adapter in ADAPTERS:
        path = ROOT / (adapter.replace(".", "/") + ".py")
        for found in imports_of(path):
            ours = found.module.split(".")[0] == "agent_assembly"
            engine = found.module.startswith("agent_assembly.adapters") and not modules_of(found) & ADAPTERS
            if ours and not engine and found.module not in contract:
                wrong.append(shown(path, found))
    assert not wrong


def test_only_the_table_names_adapters() -> None:
    """Neither the core nor the engine imports a framework's adapter by name: rows of the table say where they are."""
    wrong = [
        shown(path, found)
        for path in python_files("agent_assembly", "aasm_py", "sitecustomize")
        for found in imports_of(path)
        if modules_of(found) & ADAPTERS
    ]
    assert not wrong


def test_frameworks_are_imported_by_the_users_program_only() -> None:
    """Nothing of ours imports a framework when it is imported itself."""
    wrong = [
        shown(path, found)
        for path in python_files("agent_assembly", "aasm_py", "sitecustomize")
        for found in imports_of(path)
        if found.at_import and found.module.split(".")[0] in FRAMEWORKS
    ]
    assert not wrong


@pytest.mark.parametrize("name", LIGHT)
def test_light_modules_import_what_is_there_anyway(name: str) -> None:
    """What runs before the user's program imports built-in modules and other light modules; the rest comes late."""
    path = ROOT / name
    light = {str(Path(other).with_suffix("")).replace("/", ".").removesuffix(".__init__") for other in LIGHT}
    wrong = []
    for found in imports_of(path):
        if not found.at_import:
            continue
        top = found.module.split(".")[0]
        heavy_of_ours = top in ("agent_assembly", "aasm_py") and not (
            found.module in light if found.name is None else {found.module, f"{found.module}.{found.name}"} & light
        )
        if top not in LIGHT_MAY_IMPORT or heavy_of_ours:
            wrong.append(shown(path, found))
    assert not wrong


def test_no_file_grows_beyond_its_noun() -> None:
    """No source file has more than 500 lines."""
    sources = [
        *python_files("agent_assembly", "aasm_py", "sitecustomize", "scripts", "tests", "examples", "benchmarks")
    ]
    sources += [path for path in (ROOT / "native").rglob("*.rs") if "target" not in path.relative_to(ROOT).parts]
    long = {
        str(path.relative_to(ROOT)): count
        for path in sources
        if (count := len(path.read_text().splitlines())) > FILE_LIMIT
    }
    assert not long


def test_every_setting_is_explained_in_a_sentence() -> None:
    """A setting's help is one sentence, and no two settings share a variable or an option."""
    rows = agent_assembly.SETTINGS
    assert all(re.fullmatch(r"[A-Z].*[.)]\.?", row.help) for row in rows)
    assert len({row.variable for row in rows}) == len({row.option for row in rows}) == len(rows)


def test_the_versions_agree() -> None:
    """Distribution, module, native workspace and the pins of the extra `runtime` are of one version."""
    expected = agent_assembly.__version__
    assert version("agent-assembly") == expected
    workspace = (ROOT / "native" / "Cargo.toml").read_text().partition("[workspace.package]")[2]
    native = re.search(r'^version = "([^"]+)"', workspace, re.MULTILINE)
    assert native is not None
    assert native[1] == expected
    runtime = [line for line in distribution("agent-assembly").requires or [] if "runtime" in line]
    assert sorted(line.partition(";")[0].strip() for line in runtime) == [
        f"agent-assembly-core=={expected}",
        f"agent-assembly-gateway=={expected}",
    ]
    assert {version("agent-assembly-core"), version("agent-assembly-gateway")} == {expected}


def test_the_installed_files_are_those_of_the_checkout() -> None:
    """The tests run the built wheel, and it holds every source file, byte for byte."""
    installed = {str(path): path for path in distribution("agent-assembly").files or []}
    expected = {str(path.relative_to(ROOT)): path for path in python_files("agent_assembly", "aasm_py")}
    expected["aasm_py/_bootstrap/sitecustomize.py"] = ROOT / "sitecustomize" / "sitecustomize.py"
    expected.update(
        {f"aasm_py/_completions/{path.relative_to(ROOT / 'completions')}": path for path in completion_files()}
    )
    expected["agent_assembly/py.typed"] = ROOT / "agent_assembly" / "py.typed"
    shipped = {
        name for name in installed if name.startswith(("agent_assembly/", "aasm_py/")) and "__pycache__" not in name
    }
    assert shipped == expected.keys()
    stale = [name for name, path in expected.items() if installed[name].locate().read_bytes() != path.read_bytes()]
    assert not stale, "type: make build"


def test_a_wheel_can_be_built_from_the_source_distribution() -> None:
    """What goes into the wheel, and what it is built by, is in the source distribution too."""
    project = pytest.importorskip("tomllib").loads((ROOT / "pyproject.toml").read_text())
    targets = project["tool"]["hatch"]["build"]["targets"]
    wheel = targets["wheel"]
    sources = [*wheel["packages"], *wheel["force-include"], *wheel["shared-data"], *wheel["shared-scripts"]]
    sources += [project["project"]["readme"], *project["project"]["license-files"]]
    included = [Path(entry.lstrip("/")) for entry in targets["sdist"]["include"]]
    missing = [source for source in sources if not any(Path(source).is_relative_to(entry) for entry in included)]
    assert not missing


def completion_files() -> list[Path]:
    return [path for path in sorted((ROOT / "completions").rglob("*")) if path.is_file()]


def test_completions_are_where_shells_look() -> None:
    """The wheel puts each completion script below the prefix, under the directory and name that its shell reads."""
    places = {
        "bash": "share/bash-completion/completions",
        "zsh": "share/zsh/site-functions",
        "fish": "share/fish/vendor_completions.d",
    }
    for path in completion_files():
        installed = Path(sys.prefix) / places[path.parent.name] / path.name
        assert installed.read_bytes() == path.read_bytes(), "type: make build"


def test_the_bootstrap_is_data_and_no_module_of_the_environment() -> None:
    """Installing us gives the environment no `sitecustomize`: only programs that aasm-run starts see ours."""
    found = find_spec("sitecustomize")
    assert found is None or found.origin != str(Path(agent_assembly.__file__).parents[1] / "sitecustomize.py")
    names = [path.parts[0] for path in distribution("agent-assembly").files or []]
    assert "sitecustomize" not in names
    assert "sitecustomize.py" not in names


def test_the_launcher_is_a_script_without_a_wrapper() -> None:
    """`aasm-run` imports the launcher and the built-in `gc`, and nothing else, whoever installed it."""
    text = (Path(sys.executable).parent / "aasm-run").read_text()
    assert text.startswith("#!")
    imported = [node for node in ast.walk(ast.parse(text)) if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert [ast.unparse(node) for node in imported] == ["import gc", "from aasm_py.run import main"]


def test_typing_information_is_shipped() -> None:
    """Type checkers of other projects see our annotations."""
    assert (Path(agent_assembly.__file__).parent / "py.typed").exists()
