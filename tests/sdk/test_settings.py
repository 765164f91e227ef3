"""Settings: one table, one order of sources, and messages that name the place and keep secrets."""

from __future__ import annotations

import copy
import os
import pickle
import pwd
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agent_assembly.core.settings import BY_NAME, SETTINGS, Setting, Settings, home_directory, resolve_settings
from agent_assembly.exceptions import ConfigurationError

SECRET = "sk-very-secret-0123456789"

# For each kind of row two values, as arguments, that differ from each other and from the default.
SAMPLES: dict[str, tuple[Any, Any, Any]] = {
    "gateway_url": ("http://a:1", "http://b:2", "http://c:3"),
    "api_key": ("key-a", "key-b", "key-c"),
    "agent_id": ("agent-a", "agent-b", "agent-c"),
    "mode": ("sdk-only", "proxy", "ebpf"),
    "enforcement_mode": ("enforce", "observe", "disabled"),
    "on_deny": ("refuse", "raise", "refuse"),
    "team_id": ("team-a", "team-b", "team-c"),
    "parent_agent_id": ("parent-a", "parent-b", "parent-c"),
    "delegation_reason": ("because a", "because b", "because c"),
    "spawned_by_tool": ("tool a", "tool b", "tool c"),
    "depth": (1, 2, 3),
    "gateway_port": (1001, 1002, 1003),
    "auto_start": (False, True, False),
    "children": ("strict", "off", "inherit"),
    "check_timeout": (1.5, 2.5, 3.5),
    "bundle_max_age": (0.0, 0.0, 0.0),
    "max_arguments_bytes": (2048, 4096, 8192),
    "spool_max_bytes": (1 << 20, 2 << 20, 3 << 20),
    "run_id": ("run-a", "run-b", "run-c"),
    "gateway_source": ("here", "there", "elsewhere"),
}
ROWS = [row for row in SETTINGS if row.name != "home"]


def in_file(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    directory = tmp_path / "home"
    directory.mkdir(mode=0o700)
    return directory


def write(home: Path, text: str) -> Path:
    path = home / "config.yaml"
    path.write_text(text)
    path.chmod(0o600)
    return path


def resolve(home: Path, arguments: Mapping[str, Any] | None = None, **variables: str) -> Settings:
    return resolve_settings(arguments, {"AASM_HOME": str(home), **variables})


def complaint(home: Path, arguments: Mapping[str, Any] | None = None, **variables: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        resolve(home, arguments, **variables)
    message = str(caught.value)
    assert "\n" not in message, "a message is one line"
    return message


@pytest.mark.parametrize("row", SETTINGS, ids=lambda row: row.name)
def test_every_row_can_be_explained(row: Setting) -> None:
    """Each setting has a sentence of help, a variable, an option, and a default that it would take itself."""
    assert row.help.endswith(".")
    assert row.variable == f"AASM_{row.name.upper()}"
    assert row.option == ("--no-start" if row.name == "auto_start" else f"--{row.name.replace('_', '-')}")
    assert row.kind in ("text", "identifier", "url", "choice", "integer", "number", "boolean", "path")
    assert bool(row.choices) == (row.kind == "choice")
    if row.default is not None:
        assert row.parse(row.default, "default") == row.default


def test_names_are_unique() -> None:
    """No two rows share a name."""
    assert len(BY_NAME) == len(SETTINGS)
    assert set(SAMPLES) | {"home"} == set(BY_NAME), "each row has a sample below"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_argument_wins_over_variable_over_file_over_default(row: Setting, home: Path) -> None:
    """Each setting can be given in each place that it claims; the nearest wins and the others are named as shadowed."""
    first, second, third = SAMPLES[row.name]
    name, variables = row.name, {row.variable: in_file(second)}
    default = resolve(home)
    assert (default[name], default.source(name), default.shadowed(name)) == (row.default, "default", ())
    assert not default.is_set(name)

    place: tuple[str, ...] = ()
    if not row.internal:
        path = write(home, f"# a comment\n{name}: {in_file(third)}\n")
        place = (f"{path}:2",)
        from_file = resolve(home)
        assert (from_file[name], from_file.source(name)) == (third, place[0])
        assert from_file.is_set(name)

    from_variable = resolve(home, None, **variables)
    expected = () if name == "run_id" else place  # AASM_RUN_ID says that the launcher has read the file
    assert (from_variable[name], from_variable.source(name)) == (second, f"variable {row.variable}")
    assert from_variable.shadowed(name) == expected

    from_argument = resolve(home, {name: first}, **variables)
    assert (from_argument[name], from_argument.source(name)) == (first, "argument")
    assert from_argument.shadowed(name) == (f"variable {row.variable}", *expected)
    assert getattr(from_argument, name) == first


def test_the_file_is_not_read_inside_a_run(home: Path) -> None:
    """AASM_RUN_ID means that the launcher has read the file; even a broken one is not looked at again."""
    write(home, "agent_id: from-file\nnonsense: 1\n")
    assert resolve(home, AASM_RUN_ID="run-0123456789abcdef").agent_id == "agent-assembly-default"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_an_empty_variable_and_none_count_as_not_given(row: Setting, home: Path) -> None:
    """`AASM_X=` and an argument of None leave the value to the next place."""
    settings = resolve(home, {row.name: None}, **{row.variable: ""})
    assert settings.source(row.name) == "default"


def test_the_documented_messages_are_exact(home: Path) -> None:
    """The two messages of the troubleshooting page stand word for word, from whatever place the value came."""
    mode = "mode must be one of: auto, ebpf, proxy, sdk-only"
    posture = "enforcement_mode must be one of: enforce, observe, disabled"
    assert complaint(home, {"mode": "magic"}) == mode
    assert complaint(home, AASM_MODE="magic") == mode
    assert complaint(home, {"enforcement_mode": "off"}) == posture
    assert complaint(home, AASM_ENFORCEMENT_MODE="ENFORCE") == posture
    path = write(home, "mode: magic\n")
    assert complaint(home) == f"{path}:1:7: {mode}"


@pytest.mark.parametrize("value", ["", " auto", "auto\n", 0, True, [], {}, b"auto", ["auto"], object()])
def test_a_choice_takes_its_words_and_nothing_like_them(value: object, home: Path) -> None:
    """Values that only look like a choice are refused, hashable or not."""
    assert complaint(home, {"mode": value}).startswith("mode must be one of: ")


@pytest.mark.parametrize("name", ["agent_id", "team_id", "parent_agent_id"])
@pytest.mark.parametrize("value", ["a", "A" * 128, "a.b-c_d", "0", "..."])
def test_identifiers_that_fit(name: str, value: str, home: Path) -> None:
    """Identifiers match ^[A-Za-z0-9_.-]{1,128}$."""
    assert resolve(home, {name: value})[name] == value


@pytest.mark.parametrize("name", ["agent_id", "team_id", "parent_agent_id"])
@pytest.mark.parametrize(
    "value", ["", "a" * 129, "a b", "a/b", "é", "a\n", "\x00", "\u0430", "٣", 5, b"a", ["a"], True]
)
def test_identifiers_that_do_not_fit(name: str, value: object, home: Path) -> None:
    """Anything else is refused, naming setting, place and rule; a trailing newline does not slip through."""
    message = complaint(home, {name: value})
    assert message.startswith(f"{name} (from argument) must ")


def test_a_delegation_reason_has_256_characters(home: Path) -> None:
    """256 characters fit, also when they take more bytes; 257 are refused."""
    for letter in "xé🦆":
        assert resolve(home, {"delegation_reason": letter * 256}).delegation_reason == letter * 256
        message = complaint(home, {"delegation_reason": letter * 257})
        assert message == "delegation_reason (from argument) must be at most 256 characters, not 257"
    assert "not 257" in complaint(home, AASM_DELEGATION_REASON="x" * 257)


@pytest.mark.parametrize("value", ["a\nb", "a\x00b", "a\rb", "a\x1b[31m", "\x7f", "\x85", "\ud800"])
def test_text_has_no_control_characters(value: str, home: Path) -> None:
    """What ends in headers, JSON and terminals holds neither controls nor lone surrogates."""
    for name in ("delegation_reason", "spawned_by_tool", "api_key"):
        message = complaint(home, {name: value})
        assert message.startswith(f"{name} (from argument) must not contain control characters")
        assert value not in message


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("depth", -1, "must be at least 0"),
        ("depth", 1001, "must be at most 1000"),
        ("depth", "1.5", "must be a whole number"),
        ("depth", 1.5, "must be a whole number"),
        ("depth", True, "must be a number"),
        ("depth", "", "must be a whole number"),
        ("depth", "9" * 5000, "must be a whole number"),
        ("depth", float("nan"), "must be a whole number"),
        ("depth", float("inf"), "must be a whole number"),
        ("depth", [1], "must be a number"),
        ("depth", b"1", "must be a number"),
        ("gateway_port", 0, "must be at least 1"),
        ("gateway_port", 65536, "must be at most 65535"),
        ("gateway_port", "http", "must be a whole number"),
        ("check_timeout", 0, "must be at least 0.01"),
        ("check_timeout", float("nan"), "must be a number"),
        ("check_timeout", "nan", "must be a number"),
        ("check_timeout", "inf", "must be at most 600"),
        ("check_timeout", 10**400, "must be a number"),
        ("check_timeout", "-inf", "must be at least 0.01"),
        ("bundle_max_age", 1, "must be at most 0"),
        ("max_arguments_bytes", 1023, "must be at least 1024"),
        ("max_arguments_bytes", (1 << 20) + 1, "must be at most 1048576"),
        ("spool_max_bytes", (1 << 20) - 1, "must be at least 1048576"),
    ],
)
def test_numbers_keep_to_their_bounds(name: str, value: object, problem: str, home: Path) -> None:
    """Numbers outside their bounds, not whole where they must be, or not numbers, are refused."""
    assert complaint(home, {name: value}).startswith(f"{name} (from argument) {problem}")


@pytest.mark.parametrize("value", ["5", 5, 5.0, " 5 "])
def test_whole_numbers_may_be_written_in_several_ways(value: object, home: Path) -> None:
    """A whole number is taken as text, integer or float."""
    assert resolve(home, {"depth": value}).depth == 5


@pytest.mark.parametrize(
    ("value", "meaning"),
    [
        ("1", True),
        ("TRUE", True),
        ("yes", True),
        (" on ", True),
        (True, True),
        ("0", False),
        ("False", False),
        ("NO", False),
        ("off", False),
        (False, False),
        (0, False),
    ],
)
def test_booleans_have_four_spellings_a_side(value: object, meaning: bool, home: Path) -> None:
    """1, true, yes, on and 0, false, no, off, in any case."""
    assert resolve(home, {"auto_start": value}).auto_start is meaning


@pytest.mark.parametrize("value", ["", "2", "y", "tru", 2, 1.0, None.__class__, [], b"true"])
def test_anything_else_is_no_boolean(value: object, home: Path) -> None:
    """Nothing is guessed: other words are refused."""
    assert complaint(home, {"auto_start": value}).startswith("auto_start (from argument) must be true or false")


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("http://127.0.0.1:7391", "http://127.0.0.1:7391"),
        ("https://gateway.example.com/", "https://gateway.example.com"),
        ("https://gateway.example.com/prefix//", "https://gateway.example.com/prefix"),
        ("http://[::1]:7391", "http://[::1]:7391"),
        ("http://localhost", "http://localhost"),
    ],
)
def test_urls_lose_their_last_slash_only(value: str, kept: str, home: Path) -> None:
    """A base URL is kept as it was written, without the slashes at its end."""
    assert resolve(home, {"gateway_url": value}).gateway_url == kept


@pytest.mark.parametrize(
    "value",
    [
        "",
        "localhost:7391",
        "ftp://host",
        "http:/host",
        "http://",
        "http:///x",
        "http://:80",
        "http://host:0",
        "http://host:65536",
        "http://host:abc",
        "http://host:",
        "http://host:²",
        "http://[::1",
        "http://[::1]x:1",
        "http://ho st",
        "http://host/a b",
        "http://host?x=1",
        "http://host#x",
        "http://hôst",
        "http://host\r\nX: y",
        "http://host\x00",
        "file:///etc/passwd",
        "http://a:b:c",
        "//host",
        "javascript:alert(1)",
        "http://\ud800",
    ],
)
def test_what_is_no_base_url_is_refused(value: str, home: Path) -> None:
    """Other schemes, missing hosts, ports that are none, spaces, queries and control characters are refused."""
    assert complaint(home, {"gateway_url": value}).startswith("gateway_url (from argument) must ")


@pytest.mark.parametrize(
    "pattern",
    [
        "http://user:{}@host",
        "http://{}@host",
        "ftp://user:{}@host",
        "user:{}@host",
        "http:/user:{}@host",
        "https://host/{}@x",
        "http:\\\\user:{}@host",
        "http://user:{}@host:99999",
    ],
)
def test_a_password_in_a_url_is_refused_and_never_shown(pattern: str, home: Path) -> None:
    """Credentials do not belong into a URL; the message names api_key and not the password."""
    for arguments, variables in (
        ({"gateway_url": pattern.format(SECRET)}, {}),
        ({}, {"AASM_GATEWAY_URL": pattern.format(SECRET)}),
    ):
        message = complaint(home, arguments, **variables)
        assert message.endswith("must not carry a password; use api_key")
        assert SECRET not in message
    write(home, f"gateway_url: '{pattern.format(SECRET)}'\n")
    assert SECRET not in complaint(home)


@pytest.mark.parametrize("url", ["http://host/?key={}", "http://host:0/#{}", "ftp://host?a=b#{}", "?{}"])
def test_what_a_url_has_behind_its_path_is_never_shown(url: str, home: Path) -> None:
    """A query or fragment may be a secret; the message shows what stands before it."""
    message = complaint(home, {"gateway_url": url.format(SECRET)})
    assert SECRET not in message
    assert f"not '{url.partition('?')[0].partition('#')[0]}" in message


def test_secrets_are_in_no_representation(home: Path) -> None:
    """Neither repr nor a message of any kind shows a secret's value."""
    settings = resolve(home, {"api_key": SECRET})
    assert settings.api_key == SECRET
    assert SECRET not in repr(settings)
    assert SECRET not in str(settings)
    assert "api_key=***" in repr(settings)
    assert "api_key=None" in repr(resolve(home))
    for bad in (SECRET + "\n", SECRET + "é", SECRET.encode(), [SECRET]):
        assert SECRET not in complaint(home, {"api_key": bad})
    write(home, f'api_key: "{SECRET}\\n"\n')
    assert SECRET not in complaint(home)
    write(home, f"api_key: [{SECRET}]\n")
    assert SECRET not in complaint(home)


def test_settings_can_be_copied_and_pickled(home: Path) -> None:
    """Settings cross process pools, and an unknown name is an AttributeError."""
    settings = resolve(home, {"agent_id": "a"})
    for other in (copy.copy(settings), copy.deepcopy(settings), pickle.loads(pickle.dumps(settings))):
        assert other.agent_id == "a"
        assert other.source("agent_id") == "argument"
    with pytest.raises(AttributeError):
        _ = settings.nonsense
    assert settings.replaced("test", agent_id="b").agent_id == "b"
    assert settings.replaced("test", agent_id="b").source("agent_id") == "test"
    assert settings.agent_id == "a"
    assert set(settings) == set(BY_NAME)


def test_unknown_names_are_refused(home: Path) -> None:
    """A misspelt argument is an error; variables that only look like ours are somebody else's."""
    assert complaint(home, {"agentid": "x"}) == "unknown setting: agentid"
    assert resolve(home, {"agentid": None}, AASM_NONSENSE="1").agent_id == "agent-assembly-default"


def test_the_home_directory_and_where_it_was_named(tmp_path: Path) -> None:
    """Argument, then AASM_HOME, then ~/.aasm of the given environment."""
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    assert home_directory({"home": one}, {"AASM_HOME": two}) == (one, "argument")
    assert home_directory({"home": Path(one)}, {}) == (one, "argument")
    assert home_directory({}, {"AASM_HOME": two, "HOME": one}) == (two, "variable AASM_HOME")
    assert home_directory({}, {"AASM_HOME": "", "HOME": one}) == (f"{one}/.aasm", "default")
    settings = resolve_settings({"home": one}, {"AASM_HOME": two})
    assert settings.home == one
    assert settings.source("home") == "argument"
    assert settings.shadowed("home") == ("variable AASM_HOME",)


def test_without_home_the_password_database_is_asked() -> None:
    """HOME unset or empty is no directory: the user's entry says where the home is."""
    expected = os.path.join(pwd.getpwuid(os.getuid()).pw_dir, ".aasm")
    assert home_directory({}, {}) == (expected, "default")
    assert home_directory({}, {"HOME": ""}) == (expected, "default")


def test_a_home_that_cannot_be_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HOME relative, values that are no text, and a relative path without a current directory are errors of ours."""
    with pytest.raises(ConfigurationError, match="set HOME or AASM_HOME"):
        home_directory({}, {"HOME": "somewhere"})
    for value in (5, b"/x", ["/x"], "/x\0y", "/x\ny"):
        with pytest.raises(ConfigurationError, match=r"home \(from argument\) must"):
            home_directory({"home": value}, {})
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(ConfigurationError, match="current directory that is gone"):
        home_directory({}, {"AASM_HOME": "relative"})


def test_a_relative_home_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative AASM_HOME means the current directory of now, also after the program changes it."""
    monkeypatch.chdir(tmp_path)
    assert home_directory({}, {"AASM_HOME": "here"}) == (str(tmp_path / "here"), "variable AASM_HOME")


def test_a_home_that_is_no_directory_is_named(tmp_path: Path) -> None:
    """A file where the home should be is an error that says so."""
    path = tmp_path / "home"
    path.write_text("")
    path.chmod(0o600)
    assert complaint(path) == f"{path} is not a directory; set AASM_HOME to one"


def test_a_home_that_others_can_write_is_refused(home: Path, tmp_path: Path) -> None:
    """Whoever can write the home could put a configuration there; a symbolic link is refused likewise."""
    home.chmod(0o777)
    assert "can be written by others" in complaint(home)
    home.chmod(0o700)
    link = tmp_path / "link"
    link.symlink_to(home)
    assert "is a symbolic link" in complaint(link)


def test_resolving_loads_no_heavy_module(home: Path) -> None:
    """Settings are resolved before the user's program: without a file, nothing slow is imported for them."""
    heavy = "typing dataclasses enum re json pathlib logging inspect threading subprocess socket argparse contextlib "
    heavy += "functools collections yaml httpx ssl typing_extensions"
    program = (
        "import sys; before = set(sys.modules)\n"
        "from agent_assembly.core.settings import resolve_settings\n"
        f"resolve_settings({{}}, {{'AASM_HOME': {str(home)!r}, 'AASM_GATEWAY_URL': 'http://h:1'}})\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    result = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path[:] = {sys.path!r}\n{program}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not set(heavy.split()) & set(result.stdout.split())
