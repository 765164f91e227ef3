"""The rows about what happens when a Python starts: bootstrap, sitecustomize, PYTHONPATH, other launchers."""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path

import pytest
from support.doctor import type_remedy
from support.own_python import OwnPython
from support.wheels import offline, unpack, wheel

from aasm_py.doctor.arming import refusal
from aasm_py.doctor.byte_code import ByteCode
from aasm_py.doctor.launchers import LAUNCHERS


@pytest.fixture
def own(tmp_path: Path) -> OwnPython:
    return OwnPython(tmp_path)


def row_of(
    own: OwnPython, check: str, variables: dict[str, str] | None = None, cwd: Path | None = None
) -> dict[str, str]:
    return own.rows(only=[check], variables=variables, cwd=cwd)[check]


def cold(own: OwnPython) -> dict[str, str]:
    """Take the byte code away; return the variables of a shell in which no Python writes it."""
    for cached in own.site.glob("a*/**/*.pyc"):
        cached.unlink()
    return {**own.variables, "PYTHONDONTWRITEBYTECODE": "1"}


def test_the_bootstrap_arms_this_python(own: OwnPython) -> None:
    """Tried in a child, and without a trace in the home; compiled, there is nothing to add."""
    own.rows(only=["bootstrap"])
    row = row_of(own, "bootstrap", type_remedy(row_of(own, "bootstrap", cold(own))["remedy"], own.variables, own.home))
    assert row["status"] == "ok", row
    assert f"{own.site}/aasm_py/_bootstrap, armed" in row["found"]
    assert list(own.home.iterdir()) == []


def test_missing_byte_code_is_compiled(own: OwnPython) -> None:
    """Where Python must not write it, each start would compile: the remedy is typed, and it is there."""
    variables = cold(own)
    row = row_of(own, "bootstrap", variables)
    assert row["status"] == "warn"
    assert "PYTHONDONTWRITEBYTECODE is set" in row["found"]
    variables = type_remedy(row["remedy"], variables, own.directory)
    assert row_of(own, "bootstrap", variables)["status"] == "ok"


def test_byte_code_older_than_its_source_is_missing(own: OwnPython) -> None:
    """As Python itself judges: by the moment and the size of the source."""
    variables = type_remedy(row_of(own, "bootstrap", cold(own))["remedy"], cold(own), own.directory)
    source = own.site / "agent_assembly" / "core" / "settings.py"
    facts = source.stat()
    os.utime(source, (facts.st_atime, facts.st_mtime + 60))
    row = row_of(own, "bootstrap", variables)
    assert row["status"] == "warn"
    assert " 1 of " in row["found"]
    variables = type_remedy(row["remedy"], variables, own.directory)
    assert row_of(own, "bootstrap", variables)["status"] == "ok"


def test_byte_code_can_be_kept_elsewhere(own: OwnPython) -> None:
    """Where this user cannot write into the packages, Python is told of another place."""
    packages = (str(own.site / "aasm_py"), str(own.site / "agent_assembly"))
    variables = {**cold(own), "XDG_CACHE_HOME": str(own.directory / "cache")}
    line = ByteCode(("x",), 1, False, packages).compile_line(variables)
    line = line.replace(sys.executable, str(own.path))
    variables = type_remedy(line, variables, own.directory)
    assert variables["PYTHONPYCACHEPREFIX"].startswith(str(own.directory / "cache"))
    assert row_of(own, "bootstrap", variables)["status"] == "ok"


def test_who_has_no_home_keeps_byte_code_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """No directory is called `~`."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    line = ByteCode(("x",), 1, False, ("/package",)).compile_line({})
    assert line.startswith(f"export PYTHONPYCACHEPREFIX=/var/tmp/cache-{os.getuid()}/python; ")


def test_compiling_is_a_repair_that_can_be_made_twice(tmp_path: Path) -> None:
    """`--fix` does it where it can be written, and offers nothing where it cannot."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "module.py").write_text("x = 1\n")
    repair = ByteCode(("x",), 1, True, (str(package),)).repair()
    assert repair is not None
    repair.act()
    repair.act()
    assert list(package.glob("__pycache__/module.*.pyc"))
    assert ByteCode(("x",), 1, False, (str(package),)).repair() is None


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["missing", "empty"])
def test_a_bootstrap_that_does_nothing_fails(own: OwnPython, broken: str) -> None:
    """Programs would run ungoverned, and say nothing. What is missing is installed again."""
    own.add_pip()
    file = own.site / "aasm_py" / "_bootstrap" / "sitecustomize.py"
    file.unlink()
    if broken == "empty":
        file.touch()
    row = row_of(own, "bootstrap")
    assert row["status"] == "fail"
    own.sdk_wheel(own.directory)
    type_remedy(row["remedy"], {**own.variables, **offline(own.directory)}, own.directory)
    assert row_of(own, "bootstrap")["status"] in ("ok", "warn")


def test_what_the_bootstrap_says_when_it_refuses_is_what_the_row_says(own: OwnPython) -> None:
    """A third party's adapter that cannot be loaded ends every program: its own row says what to type."""
    adapter = wheel(
        own.directory,
        "own-adapter",
        "1.0",
        {"own_adapter.py": "raise RuntimeError('broken')"},
        entry_points="[agent_assembly.adapters]\nown = own_adapter:Adapter\n",
    )
    unpack(adapter, own.site)
    row = row_of(own, "bootstrap")
    assert row["status"] == "fail"
    assert "RuntimeError: broken" in row["found"]
    assert row["remedy"] == "see the row of that adapter"
    observed = row_of(own, "bootstrap", {**own.variables, "AASM_ENFORCEMENT_MODE": "observe"})
    assert observed["status"] == "warn"


def test_the_table_of_a_refusal_is_read() -> None:
    """Its columns stand where the heading says."""
    text = "why\n  check  status  what was found\n  one    fail    the cause\n                 -> type this\n"
    assert refusal(text) == ("the cause", "type this")
    assert refusal(text.partition("->")[0].rstrip(" ")) == ("the cause", "")
    assert refusal("") == refusal("check\n") == ("", "")


def test_without_another_sitecustomize_there_is_nothing_to_say(own: OwnPython) -> None:
    """Unless this Python's system brings one, which is run after ours."""
    assert row_of(own, "sitecustomize")["status"] == "ok"


def test_a_sitecustomize_of_the_users_is_run_after_ours(own: OwnPython) -> None:
    """And named."""
    file = own.module("sitecustomize", "x = 1\n")
    row = row_of(own, "sitecustomize")
    assert (row["status"], row["found"]) == ("ok", f"{file} is run after the bootstrap")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("this is no Python\n", "SyntaxError"),
        ("raise ValueError('mine')\n", "ValueError: mine"),
        ("import no_such", "No"),
    ],
)
def test_a_broken_sitecustomize_is_a_warning(own: OwnPython, text: str, error: str) -> None:
    """Python complains at each start: the remedy moves it away."""
    file = own.module("sitecustomize", text)
    row = row_of(own, "sitecustomize")
    assert row["status"] == "warn"
    assert row["found"].startswith(f"{file}: ")
    assert error in row["found"]
    type_remedy(row["remedy"], own.variables, own.directory)
    assert row_of(own, "sitecustomize")["status"] == "ok"


def _directory(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _archive(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("module.py", "")
    return path


def test_a_python_path_without_faults(own: OwnPython) -> None:
    """Unset, empty, a directory, a zip file, and the bootstrap's own directory."""
    fine = _directory(own.directory / "fine")
    own.module("package.module", site=fine)
    archive = _archive(own.directory / "archive.zip")
    bootstrap = own.site / "aasm_py" / "_bootstrap"
    assert row_of(own, "PYTHONPATH")["found"] == "is not set"
    for value in ("", str(fine), f"{bootstrap}:{fine}:{archive}"):
        assert row_of(own, "PYTHONPATH", {**own.variables, "PYTHONPATH": value})["status"] == "ok", value


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("{fine}:", "an empty entry stands for the current directory"),
        (":", "an empty entry stands for the current directory"),
        ("{fine}:{missing}", "missing"),
        ("{fine}:{fine}/", "is there twice"),
        ("{fine}:{file}", "is neither a directory nor a zip file"),
        ("fine", "means another directory in each current one"),
        ("{json}:{fine}", "hides json, logging of the standard library"),
        ("{sdk}:{fine}", "hides the agent_assembly that is installed in"),
        ("{framework}:{fine}", "hides the langchain_core that is installed in"),
        ("{a file's name with $HOME and 'quotes'}:{fine}", "missing"),
    ],
)
def test_a_fault_of_python_path_is_named_and_cleaned(own: OwnPython, value: str, found: str) -> None:
    """The remedy is the whole command, and what was good stays."""
    fine, json, sdk, framework = (_directory(own.directory / name) for name in ("fine", "js", "sdk", "framework"))
    own.module("json", site=json)
    own.module("logging.handlers", site=json)
    own.module("agent_assembly.module", site=sdk)
    own.module("langchain_core.module", site=framework)
    own.module("langchain_core.module")
    (own.directory / "file").touch()
    places = {"fine": fine, "json": json, "sdk": sdk, "framework": framework, "file": own.directory / "file"}
    for name, place in places.items():
        value = value.replace(f"{{{name}}}", str(place))
    value = value.replace("{", f"{own.directory}/").replace("}", "")
    row = row_of(own, "PYTHONPATH", {**own.variables, "PYTHONPATH": value})
    assert row["status"] == "warn"
    assert found in row["found"]
    variables = type_remedy(row["remedy"], {**own.variables, "PYTHONPATH": value}, own.directory)
    assert variables.get("PYTHONPATH", "") == (str(fine) if "fine" in value else "")
    assert row_of(own, "PYTHONPATH", variables)["status"] == "ok"


@pytest.mark.parametrize("there", [True, False])
def test_a_thousand_entries_are_too_many(own: OwnPython, there: bool) -> None:
    """Each import looks into all of them; what of it is needed, the row cannot know."""
    entries = [own.directory / "many" / str(number) for number in range(1000)]
    if there:
        for entry in entries:
            _directory(entry)
    variables = {**own.variables, "PYTHONPATH": ":".join(map(str, entries))}
    # On a busy machine this may be more than can be looked through in time, which is another row's text.
    rows = (row_of(own, "PYTHONPATH", variables) for _ in range(5))
    row = next(row for row in rows if row["status"] != "fail")
    assert row["status"] == "warn"
    assert "1000 entries" in row["found"]
    assert len(row["found"]) < 1000
    variables = type_remedy(row["remedy"], variables, own.directory)
    assert row_of(own, "PYTHONPATH", variables)["status"] == "ok"


def test_the_users_modules_in_the_current_directory_are_not_imported(own: OwnPython) -> None:
    """No check looks into it, whatever it holds."""
    work = _directory(own.directory / "work")
    for name in ("json", "langchain_core", "agent_assembly", "logging", "typing", "sitecustomize", "asyncio"):
        own.module(name, f"open({str(work / 'imported')!r}, 'a').write(__name__)", site=work)
    rows = own.rows("python", "agent.py", cwd=work)
    assert not (work / "imported").exists()
    assert rows["bootstrap"]["status"] != "fail"


@pytest.mark.parametrize("launcher", LAUNCHERS, ids=lambda launcher: launcher.directory)
def test_other_launchers_are_named(own: OwnPython, launcher: object) -> None:
    """One that runs nobody after itself is a warning, and taken off PYTHONPATH by the remedy."""
    name, directory, chains = launcher  # type: ignore[misc, attr-defined]
    entry = _directory(own.directory / "site-packages" / directory)
    fine = _directory(own.directory / "fine")
    variables = {**own.variables, "PYTHONPATH": f"{entry}:{fine}"}
    row = row_of(own, "other launchers", variables)
    assert name in row["found"]
    assert row["status"] == ("ok" if chains else "warn")
    if not chains:
        variables = type_remedy(row["remedy"], variables, own.directory)
        assert variables["PYTHONPATH"] == str(fine)
        assert row_of(own, "other launchers", variables)["found"] == "none"


def test_launchers_that_need_no_sitecustomize_are_named(own: OwnPython) -> None:
    """By the variables with which they come."""
    variables = {**own.variables, "COVERAGE_PROCESS_START": "/x/.coveragerc", "DEBUGPY_RUNNING": "true"}
    row = row_of(own, "other launchers", variables)
    assert row["status"] == "ok"
    assert "coverage" in row["found"]
    assert "debugpy" in row["found"]
