"""Options and plan: everything that is decided before anything is done, on a machine made of plain values."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from aasm_py.options import UsageError, help_text, option_settings, parse_options
from aasm_py.plan import LaunchPlan, Refusal, Sdk, plan, python_path
from agent_assembly.core.local_gateway import Gateway, Probe
from agent_assembly.core.settings import SETTINGS, Settings, resolve_settings
from agent_assembly.core.target import Files
from agent_assembly.exceptions import AssemblyError, GatewayError

OUTER = {"AASM_RUN_ID": "run-00000000000000aa", "AASM_GATEWAY_URL": "http://127.0.0.1:1234"}


class Machine(Files):
    """A host whose gateway answers and whose Python holds the SDK, unless told otherwise."""

    def __init__(self, home: Path, *, sdk: Sdk | None = None, problem: AssemblyError | None = None) -> None:
        self.home = home
        self._sdk = sdk or Sdk(True, "/site-packages")
        self._problem = problem

    def settings(self, arguments: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
        return resolve_settings(arguments, environ)

    def sdk(self, interpreter: str, flags: Sequence[str], environ: Mapping[str, str]) -> Sdk:
        return self._sdk

    def gateway(self, settings: Settings, tried: list[Any]) -> tuple[Gateway | None, AssemblyError | None]:
        if self._problem is not None:
            return None, self._problem
        return Gateway("http://127.0.0.1:1234", "local gateway (gateway.pid)", Probe(""), explicit=False), None

    def policy(self, path: str) -> tuple[str, str]:
        return path, "text"

    def new_run_id(self) -> str:
        return "run-0123456789abcdef"

    def bootstrap_directory(self) -> str:
        return "/boot"


def make(tmp_path: Path, *words: str, environ: Mapping[str, str] | None = None, **machine: Any) -> LaunchPlan:
    variables = {"PATH": os.environ["PATH"], "AASM_HOME": str(tmp_path), **(environ or {})}
    return plan(parse_options(words), variables, Machine(tmp_path, **machine))  # type: ignore[arg-type]  # a host in all but name


def changes(chosen: LaunchPlan) -> dict[str, str | None]:
    return {name: value for name, value, _ in chosen.environment}


def test_every_setting_has_an_option() -> None:
    """The options are the table of settings; `auto_start` is turned off by --no-start."""
    shown = help_text()
    for row in SETTINGS:
        assert (row.option in shown) is not row.internal, row.name
    assert len(option_settings()) == sum(not row.internal for row in SETTINGS) - 1


def test_options_end_at_the_first_word_that_is_none() -> None:
    """What follows the command is the command's, also where it looks like an option of ours."""
    options = parse_options(["--agent-id", "a", "--on-deny=refuse", "python", "--agent-id", "b"])
    assert options.command == ("python", "--agent-id", "b")
    assert options.settings == {"agent_id": "a", "on_deny": "refuse"}


def test_two_dashes_end_the_options() -> None:
    """`--` is taken away, once."""
    assert parse_options(["--quiet", "--", "--", "x"]).command == ("--", "x")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gateway_url", "x"], "did you mean --gateway-url"),
        (["--agent-id"], "--agent-id needs a value"),
        (["--quiet=yes"], "--quiet takes no value"),
        (["--agent-id", "a b"], r"agent_id \(from --agent-id\) must match"),
        (["--mode", "fast"], "mode must be one of: auto, ebpf, proxy, sdk-only"),
        (["--enforcement-mode=hard"], "enforcement_mode must be one of: enforce, observe, disabled"),
        (["--json"], "--json goes with --explain"),
        (["--frobnicate"], "see: aasm-run --help"),
    ],
)
def test_a_wrong_option_says_what_is_wrong(words: list[str], message: str) -> None:
    """Unknown names get a near match, bad values the rule that they break."""
    with pytest.raises(UsageError, match=message):
        parse_options(words)


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        ("", "/boot"),
        ("/a", "/boot:/a"),
        ("/a:/b", "/boot:/a:/b"),
        ("/boot", "/boot"),
        ("/a:/boot:/b", "/boot:/a:/b"),
        ("/boot:/boot", "/boot"),
        ("/other/aasm_py/_bootstrap:/a", "/boot:/a"),
        ("/a:", "/boot:/a:"),
    ],
)
def test_python_path_gets_the_bootstrap_once(present: str, expected: str) -> None:
    """In front, exactly once; what the user put there stays, and no current directory is added."""
    assert python_path(present, "/boot") == expected


def test_the_program_need_not_read_the_file(tmp_path: Path) -> None:
    """What a person set as an option or in the file reaches the program as a variable; defaults do not."""
    config = tmp_path / "config.yaml"
    config.write_text("team_id: blue\ncheck_timeout: 2\n")
    config.chmod(0o600)
    chosen = changes(make(tmp_path, "--agent-id", "a1", "--no-start", sys.executable, "x"))
    assert chosen["AASM_TEAM_ID"] == "blue"
    assert chosen["AASM_CHECK_TIMEOUT"] == "2.0"
    assert chosen["AASM_AGENT_ID"] == "a1"
    assert chosen["AASM_AUTO_START"] == "false"
    assert "AASM_MODE" not in chosen


def test_a_relative_home_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program may change its directory."""
    monkeypatch.chdir(tmp_path)
    assert changes(make(tmp_path, sys.executable, environ={"AASM_HOME": "here"}))["AASM_HOME"] == str(tmp_path / "here")


def test_the_operators_token_is_withheld(tmp_path: Path) -> None:
    """A program never sees what opens the control plane."""
    assert changes(make(tmp_path, sys.executable, environ={"AASM_OPERATOR_TOKEN": "t"}))["AASM_OPERATOR_TOKEN"] is None


def test_secrets_are_masked(tmp_path: Path) -> None:
    """Neither the table nor the JSON shows an API key."""
    chosen = make(tmp_path, "--api-key", "hunter2", sys.executable)
    assert changes(chosen)["AASM_API_KEY"] == "hunter2"
    assert "hunter2" not in repr(chosen.rows())
    assert "hunter2" not in repr(chosen.as_json())


def test_a_plan_is_frozen(tmp_path: Path) -> None:
    """Nobody changes a plan between its making and its execution."""
    with pytest.raises(AttributeError):
        make(tmp_path, sys.executable).run_id = "other"


@pytest.mark.parametrize("mode", ["observe", "disabled"])
def test_without_enforcement_the_ungoverned_runs_and_is_noted(tmp_path: Path, mode: str) -> None:
    """A program that cannot be governed is refused under enforce alone."""
    with pytest.raises(Refusal, match="-I makes Python ignore") as caught:
        make(tmp_path, sys.executable, "-I", "x")
    assert caught.value.code == 78
    assert "--allow-ungoverned" in caught.value.remedy
    for options in (["--enforcement-mode", mode], ["--allow-ungoverned"]):
        chosen = make(tmp_path, *options, sys.executable, "-I", "x")
        assert chosen.ungoverned
        assert "runs ungoverned" in chosen.notes[0]


def test_a_python_without_the_sdk_is_refused_with_the_command_to_type(tmp_path: Path) -> None:
    """The environment that has to hold the SDK is the target's."""
    with pytest.raises(Refusal) as caught:
        make(tmp_path, sys.executable, "x", sdk=Sdk(False, "/elsewhere", (3, 12)))
    assert caught.value.remedy == f"type: {sys.executable} -m pip install agent-assembly"


def test_an_old_python_is_refused(tmp_path: Path) -> None:
    """Installing would not help there."""
    with pytest.raises(Refusal, match=r"older than 3\.10") as caught:
        make(tmp_path, sys.executable, "x", sdk=Sdk(False, "Python 3.9 is older than 3.10", (3, 9)))
    assert "3.10 or later" in caught.value.remedy


@pytest.mark.parametrize("mode", ["proxy", "ebpf"])
def test_a_mode_that_does_not_exist_yet_is_refused(tmp_path: Path, mode: str) -> None:
    """Never replaced by a weaker one."""
    with pytest.raises(Refusal):
        make(tmp_path, "--mode", mode, sys.executable)


def test_the_mode_says_why_it_is_not_a_stronger_one(tmp_path: Path) -> None:
    """`auto` is no promise: what it came to is in the plan."""
    rows = {what: (value, source) for what, value, source in make(tmp_path, sys.executable).rows()}
    assert rows["mode"][0] == "sdk-only"
    assert "auto resolved to sdk-only" in rows["mode"][1]


def test_a_missing_gateway_is_part_of_the_plan(tmp_path: Path) -> None:
    """Planning does not fail for it: what follows from it is for the execution."""
    chosen = make(tmp_path, sys.executable, problem=GatewayError("nobody", code="gateway_unreachable"))
    assert chosen.gateway is None
    assert "nobody" in repr(chosen.rows())


def test_a_run_inside_a_run_is_the_same_run(tmp_path: Path) -> None:
    """Its restrictions hold for everything that it starts."""
    chosen = make(tmp_path, sys.executable, environ=OUTER)
    assert chosen.run_id == chosen.outer_run == OUTER["AASM_RUN_ID"]


@pytest.mark.parametrize(
    ("words", "environ"),
    [
        (["--enforcement-mode", "observe"], {}),
        (["--enforcement-mode", "disabled"], {"AASM_ENFORCEMENT_MODE": "observe"}),
        (["--children", "off"], {}),
        (["--children", "inherit"], {"AASM_CHILDREN": "strict"}),
        (["--gateway-url", "http://127.0.0.1:9"], {}),
        (["--home", "/elsewhere"], {}),
        (["--allow-ungoverned"], {}),
        (["--policy", "own.yaml"], {"AASM_RUN_POLICY": "outer.yaml"}),
    ],
)
def test_a_run_inside_a_run_cannot_loosen_it(tmp_path: Path, words: list[str], environ: dict[str, str]) -> None:
    """Weaker enforcement, another gateway, or losing the outer policy are refused with 78."""
    with pytest.raises(Refusal, match=f"inside {OUTER['AASM_RUN_ID']}") as caught:
        make(tmp_path, *words, sys.executable, environ={**OUTER, **environ})
    assert caught.value.code == 78


def test_a_run_inside_a_run_may_be_stricter(tmp_path: Path) -> None:
    """A policy of its own makes it a run of its own; stricter settings are its own affair."""
    chosen = make(tmp_path, "--policy", "p.yaml", sys.executable, environ=OUTER)
    assert chosen.outer_run == ""
    assert chosen.run_id == "run-0123456789abcdef"
    environ = {**OUTER, "AASM_ENFORCEMENT_MODE": "observe"}
    assert make(tmp_path, "--enforcement-mode", "enforce", sys.executable, environ=environ).enforces
