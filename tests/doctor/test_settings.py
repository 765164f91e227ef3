"""The rows about settings say what holds, where it came from, what it shadows, and what to type when it is wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.setups import Setup

from aasm_py.doctor import settings
from aasm_py.doctor.look import Look

KEY = "sk-planted-0123456789"


@pytest.fixture
def setup(home: Path) -> Setup:
    return Setup(home)


def configure(setup: Setup, text: str | bytes, mode: int = 0o600) -> Path:
    path = setup.home / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


def test_nothing_set_is_well(setup: Setup) -> None:
    """Each row says what then holds."""
    del setup.variables["AASM_GATEWAY_PORT"]
    rows = setup.rows("gateway_url", "api_key", "mode", "enforcement_mode", "settings", "configuration file")
    assert {row.status for row in rows.values()} == {"ok"}
    assert rows["mode"].found == "auto; runs as sdk-only"
    assert str(setup.home / "config.yaml") in rows["configuration file"].found


def test_a_value_says_where_it_came_from(setup: Setup) -> None:
    """A variable by its name, an entry of the file by path and line."""
    path = configure(setup, "# mine\nmode: sdk-only\nteam_id: red\n")
    setup.variables["AASM_ENFORCEMENT_MODE"] = "observe"
    rows = setup.rows("mode", "enforcement_mode", "settings", "configuration file")
    assert rows["mode"].found == f"sdk-only, from {path}:2"
    assert rows["enforcement_mode"].found.startswith("observe, from variable AASM_ENFORCEMENT_MODE")
    assert f"team_id red, from {path}:3" in rows["settings"].found
    assert "2 settings (mode, team_id)" in rows["configuration file"].found
    assert {row.status for row in rows.values()} == {"ok"}


def test_an_empty_variable_is_told_and_counts_for_nothing(setup: Setup) -> None:
    setup.variables["AASM_GATEWAY_URL"] = ""
    row = setup.row("gateway_url")
    assert row.status == "ok"
    assert "AASM_GATEWAY_URL is empty" in row.found


@pytest.mark.parametrize("value", [KEY, f"{KEY}\x01", "schlüssel-0123456789"])
def test_a_key_is_never_shown(setup: Setup, value: str) -> None:
    """Neither one that holds, nor one that cannot be used, nor one that is shadowed."""
    configure(setup, "api_key: file-planted-987\n")
    setup.variables |= {"AASM_API_KEY": value, "AASM_GATEWAY_URL": "http://127.0.0.1:9"}
    for row in setup.rows("api_key", "configuration file", "settings").values():
        assert value not in repr(row)
        assert "planted" not in repr(row)
        assert "0123456789" not in repr(row)


def test_a_key_is_measured(setup: Setup) -> None:
    setup.variables |= {"AASM_API_KEY": KEY, "AASM_GATEWAY_URL": "http://127.0.0.1:9"}
    assert setup.row("api_key").found == "set (21 characters), from variable AASM_API_KEY"


def test_a_key_that_goes_nowhere_is_told(setup: Setup) -> None:
    """Without gateway_url it is sent to nobody."""
    setup.variables["AASM_API_KEY"] = KEY
    setup.mended("api_key", "warn", "it is sent nowhere")


def test_a_key_that_travels_in_the_open_is_told(setup: Setup) -> None:
    setup.variables |= {"AASM_API_KEY": KEY, "AASM_GATEWAY_URL": "http://gateway.invalid"}
    row = setup.row("gateway_url")
    assert row.status == "warn"
    assert "without encryption" in row.found
    setup.variables["AASM_GATEWAY_URL"] = "https://gateway.invalid"
    assert setup.row("gateway_url").status == "ok"


SHADOWED = [
    ("gateway_url", "http://127.0.0.1:9", "http://127.0.0.1:10"),
    ("api_key", "one-planted", "two-planted"),
    ("mode", "sdk-only", "auto"),
    ("enforcement_mode", "enforce", "observe"),
]


@pytest.mark.parametrize("alternative", [0, 1])
@pytest.mark.parametrize(("name", "wins", "loses"), SHADOWED)
def test_what_is_shadowed_by_another_value_is_told(
    setup: Setup, name: str, wins: str, loses: str, alternative: int
) -> None:
    """Either of the two can be taken away, by typing."""
    path = configure(setup, f"team_id: red\n{name}: {loses}\n")
    setup.variables |= {"AASM_GATEWAY_URL": "http://127.0.0.1:9"} if name == "api_key" else {}
    setup.variables[f"AASM_{name.upper()}"] = wins
    row = setup.row(name)
    assert row.status == "warn"
    assert "from variable AASM_" in row.found
    assert f"{path}:2 says" in row.found
    assert (loses in row.found) == (name != "api_key")
    setup.type(row.remedy, alternative)
    assert setup.row(name).status == "ok"
    assert setup.row("configuration file").status == "ok"
    assert "team_id: red" in path.read_text()


def test_what_is_shadowed_by_the_same_value_is_well(setup: Setup) -> None:
    """A slash at the end makes no other address."""
    path = configure(setup, "gateway_url: http://127.0.0.1:9/\n")
    setup.variables["AASM_GATEWAY_URL"] = "http://127.0.0.1:9"
    row = setup.row("gateway_url")
    assert row.status == "ok"
    assert f"the same in {path}:1" in row.found


def test_an_option_shadows_a_variable(setup: Setup) -> None:
    """As under `aasm-run`, which gives its options to the doctor."""
    look = Look({**setup.environ, "AASM_MODE": "auto"}, arguments={"mode": "sdk-only"})
    row = settings.mode(look)
    assert (row.status, row.remedy) == ("warn", "unset AASM_MODE")
    assert row.found.startswith("sdk-only, from argument; variable AASM_MODE says auto")


DOCUMENTED = [
    ("mode", "sdkonly", "mode must be one of: auto, ebpf, proxy, sdk-only", "sdk-only"),
    ("mode", "kernel", "mode must be one of: auto, ebpf, proxy, sdk-only", "auto"),
    # Near a mode that this build does not have: that would be the next thing to be refused.
    ("mode", "ebpff", "mode must be one of: auto, ebpf, proxy, sdk-only", "auto"),
    (
        "enforcement_mode",
        "Observe",
        "enforcement_mode must be one of: enforce, observe, disabled",
        "observe",
    ),
    ("enforcement_mode", "off", "enforcement_mode must be one of: enforce, observe, disabled", "enforce"),
]


@pytest.mark.parametrize(("name", "value", "message", "near"), DOCUMENTED)
def test_an_invalid_variable_has_the_documented_message(
    setup: Setup, name: str, value: str, message: str, near: str
) -> None:
    """Word for word; it can be taken back, or be what was probably meant."""
    variable = f"AASM_{name.upper()}"
    setup.variables[variable] = value
    row = setup.row(name)
    assert row.status == "fail"
    assert row.found == f"{message} (variable {variable} is {value!r})"
    assert row.remedy == f"unset {variable}; or: export {variable}={near}"
    for alternative in (0, 1):
        setup.variables[variable] = value
        setup.type(row.remedy, alternative)
        assert setup.row(name).status == "ok"


@pytest.mark.parametrize("alternative", [0, 1])
@pytest.mark.parametrize(("name", "value", "message", "near"), DOCUMENTED)
def test_an_invalid_line_has_the_documented_message(
    setup: Setup, name: str, value: str, message: str, near: str, alternative: int
) -> None:
    """With path and line, in one row that fails; it and that of the file are well when the line is put right."""
    path = configure(setup, f"\nteam_id: red\n{name}: {value}\n")
    rows = setup.rows(name, "configuration file")
    assert (rows[name].status, rows["configuration file"].status) == ("fail", "skip")
    assert rows[name].found == f"{message} ({path}:3)"
    assert f"{path}:3 " in rows["configuration file"].found
    assert rows["configuration file"].found.endswith(f"see the row {name}")
    setup.type(rows[name].remedy, alternative)
    assert {row.status for row in setup.rows(name, "configuration file").values()} == {"ok"}
    assert "team_id: red" in path.read_text()
    assert (f"{name}: {near}\n" in path.read_text()) == (alternative == 0)


@pytest.mark.parametrize(
    ("value", "mended"),
    [
        ("localhost:7391", "http://localhost:7391"),
        (" http://127.0.0.1:9 ", "http://127.0.0.1:9"),
        ("ftp://x", "http://127.0.0.1:7391"),
    ],
)
def test_an_invalid_address_is_mended(setup: Setup, value: str, mended: str) -> None:
    setup.variables["AASM_GATEWAY_URL"] = value
    row = setup.row("gateway_url")
    assert row.status == "fail"
    assert row.remedy.endswith(f"export AASM_GATEWAY_URL={mended}")
    setup.type(row.remedy, 1)
    assert setup.row("gateway_url").status == "ok"


def test_a_password_in_an_address_is_never_shown(setup: Setup) -> None:
    setup.variables["AASM_GATEWAY_URL"] = "https://me:planted@host"
    row = setup.row("gateway_url")
    assert row.status == "fail"
    assert "planted" not in repr(row)


@pytest.mark.parametrize("name", ["mode", "enforcement_mode"])
def test_the_command_names_the_way_out_of_an_invalid_variable(setup: Setup, name: str) -> None:
    setup.variables[f"AASM_{name.upper()}"] = "nonsense"
    setup.mended(name, "fail", f"{name} must be one of: ")


def test_the_command_names_the_way_out_of_an_invalid_address(setup: Setup) -> None:
    setup.variables["AASM_GATEWAY_URL"] = "nonsense//"
    setup.mended("gateway_url", "fail", "must ")


@pytest.mark.parametrize("wanted", ["ebpf", "proxy"])
def test_a_mode_that_cannot_be_had_says_where_it_was_asked_for(setup: Setup, wanted: str) -> None:
    """By variable, and by path and line."""
    setup.variables["AASM_MODE"] = wanted
    row = setup.row("mode")
    assert row.status == "fail"
    assert row.found.endswith(f"({wanted}, from variable AASM_MODE)")
    setup.type(row.remedy)
    assert setup.row("mode").status == "ok"
    path = configure(setup, f"mode: {wanted}\n")
    row = setup.row("mode")
    assert row.status == "fail"
    assert f"from {path}:1" in row.found
    setup.type(row.remedy)
    assert setup.row("mode").status == "ok"


def test_ebpf_off_linux_has_the_documented_message(setup: Setup) -> None:
    look = Look({**setup.environ, "AASM_MODE": "ebpf"})
    row = settings.mode(look, "darwin")
    assert row.status == "fail"
    assert "eBPF mode is not supported on this platform." in row.found


def test_governance_that_is_switched_off_is_told(setup: Setup) -> None:
    setup.variables["AASM_ENFORCEMENT_MODE"] = "disabled"
    setup.mended("enforcement_mode", "warn", "nothing is denied")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("AASM_GATEWAYURL", "AASM_GATEWAY_URL"),
        ("AASM_ENFORCEMENT", "AASM_ENFORCEMENT_MODE"),
        ("aasm_mode", "AASM_MODE"),
        ("AASM_APIKEY", "AASM_API_KEY"),
    ],
)
def test_a_variable_that_is_no_setting_is_told(setup: Setup, name: str, meant: str) -> None:
    """It can be unset, or be given its right name, and its value is not shown."""
    setup.variables[name] = "planted"
    row = setup.row("settings")
    assert row.status == "warn"
    assert f"{name} is no setting, did you mean {meant}?" in row.found
    assert row.remedy.startswith(f"unset {name}; or: ")
    assert "planted" not in repr(row)
    setup.type(row.remedy, 1)
    assert setup.variables[meant] == "planted"
    assert setup.row("settings").status == "ok"


def test_the_command_names_the_way_out_of_a_typing_error(setup: Setup) -> None:
    setup.variables |= {"AASM_GATEWAYPORT": "1", "AASM_WHATEVER": "2"}
    setup.mended("settings", "warn", "AASM_WHATEVER is no setting")


def test_what_the_launcher_sets_is_known(setup: Setup) -> None:
    """Inside a run nothing of it is called a mistake."""
    for name in ("AASM_RUN_ID", "AASM_GATEWAY_SOURCE", "AASM_RUN_POLICY", "AASM_WATCHED", "AASM_OPERATOR_TOKEN"):
        setup.variables[name] = "x"
    rows = setup.rows("settings", "configuration file")
    assert rows["settings"].status == "ok"
    assert rows["configuration file"].status == "skip"


def test_all_invalid_variables_go_with_one_line(setup: Setup) -> None:
    setup.variables |= {"AASM_DEPTH": "minus", "AASM_CHECK_TIMEOUT": "0", "AASM_CHILDREN": "some", "AASM_X": "y"}
    row = setup.row("settings")
    assert row.status == "fail"
    for said in (
        "depth (from variable AASM_DEPTH)",
        "check_timeout",
        "children must be one of",
        "AASM_X is no setting",
    ):
        assert said in row.found
    setup.type(row.remedy)
    assert setup.row("settings").status == "ok"


def test_a_shadowed_other_setting_is_told(setup: Setup) -> None:
    path = configure(setup, "team_id: red\n")
    setup.variables["AASM_TEAM_ID"] = "blue"
    row = setup.row("settings")
    assert (row.status, row.remedy) == ("warn", "unset AASM_TEAM_ID")
    assert f"team_id blue, from variable AASM_TEAM_ID; {path}:1 says red" in row.found


def test_a_value_of_a_file_that_cannot_be_used_is_not_said_to_be_missing(setup: Setup) -> None:
    configure(setup, "gateway_url: http://127.0.0.1:9\nfrobnicate: 1\n")
    assert setup.row("gateway_url").found.endswith("config.yaml is not counted, since it cannot be used")


BROKEN_FILES: list[tuple[str, str | bytes, str]] = [
    ("twice", "team_id: red\nteam_id: blue\n", "team_id is given twice"),
    ("near", "team_id: red\ngatewayurl: http://127.0.0.1:9\n", "did you mean 'gateway_url'?"),
    ("unknown", "team_id: red\nfrobnicate: 1\n", "unknown setting 'frobnicate'"),
    ("home", "team_id: red\nhome: /tmp\n", "home cannot be set"),
    ("number", "team_id: red\ndepth: deep\n", "depth must be a whole number"),
    ("latin", "team_id: red\ndelegation_reason: für\n".encode("latin-1"), "not UTF-8"),
    ("utf-16", "team_id: red\n".encode("utf-16"), "not UTF-8"),
    ("large", "#" * (65 << 10), "larger than 65536 bytes"),
]


@pytest.mark.parametrize(("text", "message"), [row[1:] for row in BROKEN_FILES], ids=[row[0] for row in BROKEN_FILES])
def test_a_broken_file_is_put_right_by_typing(setup: Setup, text: str | bytes, message: str) -> None:
    """What was right in it stays."""
    path = configure(setup, text)
    row = setup.row("configuration file")
    assert row.status == "fail"
    assert message in row.found
    assert str(path) in row.found
    setup.type(row.remedy)
    after = setup.row("configuration file")
    assert after.status == "ok", after
    assert "red" in path.read_text() if path.exists() else message.startswith("larger")


@pytest.mark.parametrize(
    "text", ["mode: [auto\n", "- a\n- b\n", "mode: >\n  sdk\n  only\n", "\tmode: auto\n", "{mode: x}"]
)
def test_a_file_that_is_no_list_of_settings_is_opened_in_the_editor(setup: Setup, text: str) -> None:
    """Which is what the person says it is."""
    path = configure(setup, text)
    (row,) = (each for each in setup.rows("mode", "configuration file").values() if each.status == "fail")
    assert f"{path}:" in row.found
    setup.variables["EDITOR"] = "truncate -s 0"
    setup.type(row.remedy)
    assert setup.row("configuration file").status == "ok"


def test_a_broken_file_says_what_the_reader_wanted(setup: Setup) -> None:
    """Punctuation is nobody's key."""
    path = configure(setup, "mode: [auto\nteam_id")
    assert setup.row("configuration file").found == f"{path}:2:8: expected ',' or ']', but got '<stream end>'"


def test_a_setting_that_is_given_twice_is_taken_out_once(setup: Setup) -> None:
    """Another value in the second line would leave two lines."""
    path = configure(setup, "mode: auto\nmode: sdk-only\n")
    setup.type(setup.row("mode").remedy)
    assert path.read_text() == "mode: auto\n"
    assert {row.status for row in setup.rows("mode", "configuration file").values()} == {"ok"}


@pytest.mark.parametrize("line", ["api_key: *planted-123\n", "planted-123: x\n", "api_key: !planted-123!x y\n"])
def test_a_broken_file_shows_no_key(setup: Setup, line: str) -> None:
    """Whatever the reader quotes of it."""
    configure(setup, line)
    row = setup.row("configuration file")
    assert row.status == "fail"
    assert "planted" not in repr(row)


@pytest.mark.parametrize(("mode", "status"), [(0o666, "fail"), (0o620, "fail"), (0o644, "warn"), (0o640, "warn")])
def test_a_file_that_is_open_to_others_is_closed(setup: Setup, mode: int, status: str) -> None:
    """By typing, and by the repair, twice."""
    path = configure(setup, "mode: auto\n", mode)
    row = setup.row("configuration file")
    assert row.status == status
    assert row.repair is not None
    for _ in range(2):
        row.repair.act()
    assert setup.row("configuration file").status == "ok"
    path.chmod(mode)
    setup.type(row.remedy)
    assert setup.row("configuration file").status == "ok"
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_command_names_the_way_out_of_an_open_file(setup: Setup, capfd: pytest.CaptureFixture[str]) -> None:
    configure(setup, "mode: auto\n", 0o666)
    setup.mended("configuration file", "fail", "can be written by others")


def test_looking_at_an_open_file_prints_nothing(setup: Setup, capfd: pytest.CaptureFixture[str]) -> None:
    """The row is the warning."""
    configure(setup, "mode: auto\n", 0o644)
    assert setup.row("configuration file").status == "warn"
    assert capfd.readouterr() == ("", "")


def _directory(path: Path) -> None:
    path.mkdir()
    (path / "inside").write_text("kept")


def _link(path: Path) -> None:
    real = path.with_name("elsewhere.yaml")
    real.write_text("mode: auto\n")
    path.symlink_to(real)


ODD_FILES = {
    "directory": _directory,
    "pipe": os.mkfifo,
    "link": _link,
    "dangling": lambda path: path.symlink_to(path.with_name("nowhere")),
}


@pytest.mark.parametrize("kind", ODD_FILES)
def test_what_is_no_file_makes_room_for_one(setup: Setup, kind: str) -> None:
    """Without waiting for it, and what was in it is kept."""
    path = setup.home / "config.yaml"
    ODD_FILES[kind](path)
    row = setup.row("configuration file")
    assert row.status == "fail"
    assert str(path) in row.found
    setup.type(row.remedy)
    assert setup.row("configuration file").status == "ok"
    if kind == "directory":
        assert (setup.home / "config.yaml.old1" / "inside").read_text() == "kept"
    if kind == "link":
        assert path.read_text() == "mode: auto\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_another_user_is_taken_back(setup: Setup) -> None:
    path = configure(setup, "mode: auto\n")
    os.chown(path, 12345, -1)
    row = setup.row("configuration file")
    assert row.status == "fail"
    assert "uid 12345" in row.found
    setup.type(row.remedy)
    assert setup.row("configuration file").status == "ok"
