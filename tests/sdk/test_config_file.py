"""config.yaml: what is wrong is said with line and column, and nobody else may write it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent_assembly.core.config_file import read_config_file
from agent_assembly.exceptions import ConfigurationError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text("")
    path.chmod(0o600)
    return path


def read(file: Path, text: str | bytes) -> dict[str, tuple[object, str]]:
    file.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    return read_config_file(str(file))


def complaint(file: Path, text: str | bytes) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read(file, text)
    message = str(caught.value)
    assert "\n" not in message, "a message is one line"
    return message


def test_entries_know_their_line(file: Path) -> None:
    """Each value comes with path and line; comments, blank lines, a byte order mark and quotes do not matter."""
    entries = read(file, "\ufeff# top\n\nagent_id: a\n'team_id' : \"b\"   # beside\ndepth: 3\nauto_start: off\n")
    assert entries == {
        "agent_id": ("a", f"{file}:3"),
        "team_id": ("b", f"{file}:4"),
        "depth": ("3", f"{file}:5"),
        "auto_start": ("off", f"{file}:6"),
    }


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", "---\n", "{}\n", "null\n"])
def test_an_empty_file_says_nothing(file: Path, text: str) -> None:
    """A file without entries is no error."""
    assert read(file, text) == {}


def test_a_missing_file_says_nothing(tmp_path: Path) -> None:
    """The file is optional."""
    assert read_config_file(str(tmp_path / "config.yaml")) == {}


@pytest.mark.parametrize("value", ["", "~", "null", "Null", "NULL"])
def test_null_counts_as_not_given(file: Path, value: str) -> None:
    """A name without a value leaves the setting to its default."""
    assert read(file, f"agent_id: {value}\n") == {}


@pytest.mark.parametrize(
    ("text", "place", "problem"),
    [
        ("agent_id: a\nagent_id: b\n", "2:1", "agent_id is given twice"),
        ("agent_id: a\n'agent_id': b\n", "2:1", "agent_id is given twice"),
        ("agent_id: a\n? agent_id\n: b\n", "2:3", "agent_id is given twice"),
        ("\nagentid: a\n", "2:1", "unknown setting 'agentid', did you mean 'agent_id'?"),
        ("gateway-url: x\n", "1:1", "unknown setting 'gateway-url', did you mean 'gateway_url'?"),
        ("zzz: 1\n", "1:1", "unknown setting 'zzz'; known: "),
        ("home: /x\n", "1:1", "home cannot be set in the file that it holds; set AASM_HOME"),
        ("run_id: x\n", "1:1", "unknown setting 'run_id'"),
        ("gateway_source: x\n", "1:1", "unknown setting 'gateway_source'"),
        ("? [a]\n: b\n", "1:3", "expected the name of a setting"),
        ("? {a: b}\n: b\n", "1:3", "expected the name of a setting"),
        ("1: x\n", "1:1", "unknown setting '1'"),
        ("'': x\n", "1:1", "unknown setting ''"),
        ("<<: {agent_id: a}\n", "1:1", "unknown setting '<<'"),
        ("agent_id:\n  nested: 1\n", "2:3", "agent_id takes one value"),
        ("agent_id: [a]\n", "1:11", "agent_id takes one value"),
        ("agent_id:\n- a\n", "2:1", "agent_id takes one value"),
        ("agent_id: 2020-01-01\n", "1:11", "agent_id takes plain text, a number or true/false; quote it"),
        ("agent_id: !!binary aGk=\n", "1:11", "agent_id takes plain text"),
        ("agent_id: !mine x\n", "1:11", "agent_id takes plain text"),
        ("agent_id: !!python/object/apply:os.system ['true']\n", "1:11", "agent_id takes one value"),
        ("agent_id: !!python/name:os.system x\n", "1:11", "agent_id takes plain text"),
        ("- a\n", "1:1", "expected `name: value` lines"),
        ("just text\n", "1:1", "expected `name: value` lines"),
        ("agent_id\n", "1:1", "expected `name: value` lines"),
        ("agent_id: a b: c\n", "1:14", ""),
        ("agent_id: a\n team_id: b\n", "2:9", ""),
        ("agent_id: 'a\n", "2:1", ""),
        ("agent_id: {a\n", "2:1", ""),
        ("agent_id: *missing\n", "1:11", "found undefined alias"),
        ("---\nagent_id: a\n---\nagent_id: b\n", "3:1", ""),
        ("agent_id: a\n\tteam_id: b\n", "2:1", ""),
        ("agent_id: a\nteam_id: @b\n", "2:10", ""),
        ("agent_id: a\nteam_id: b\x00c\n", "2:11", "the character U+0000 has no place in YAML"),
        ("agent_id: a\x1b\n", "1:12", "the character U+001B has no place in YAML"),
        ("mode: magic\n", "1:7", "mode must be one of: auto, ebpf, proxy, sdk-only"),
        ("\n  \nenforcement_mode: off\n", "3:19", "enforcement_mode must be one of: enforce, observe, disabled"),
        ("agent_id: 'a b'\n", "1:11", "agent_id must match ^[A-Za-z0-9_.-]{1,128}$"),
        ("depth: yes\n", "1:8", "depth must be a whole number"),
        ("depth: 1.5\n", "1:8", "depth must be a whole number"),
        ("depth: 0x10\n", "1:8", "depth must be a whole number"),
        ("gateway_port: 70000\n", "1:15", "gateway_port must be at most 65535"),
        ("auto_start: 2\n", "1:13", "auto_start must be true or false"),
        ("gateway_url: localhost\n", "1:14", "gateway_url must begin with http:// or https://"),
        ("agent_id: ''\n", "1:11", "agent_id must match"),
    ],
)
def test_what_is_wrong_is_said_with_line_and_column(file: Path, text: str, place: str, problem: str) -> None:
    """Each message begins with path, line and column of what is meant, and says what to do with it."""
    message = complaint(file, text)
    assert message.startswith(f"{file}:{place}: "), message
    assert problem in message


@pytest.mark.parametrize(("text", "place"), [(b"agent_id: \xff\n", "1:11"), (b"# \xc3\xa9\nteam_id: a\xe9\n", "2:11")])
def test_bytes_that_are_not_utf8_are_placed(file: Path, text: bytes, place: str) -> None:
    """A file in another encoding is refused at the first byte that is not UTF-8."""
    assert complaint(file, text) == f"{file}:{place}: not UTF-8; save the file as UTF-8"
    assert "UTF-8" in complaint(file, "agent_id: a\n".encode("utf-16"))


def test_anchors_are_only_another_way_to_write_a_value(file: Path) -> None:
    """An alias stands for the value of its anchor; an explicit plain tag changes nothing."""
    entries = read(file, "agent_id: &x same\nteam_id: *x\ndepth: !!int 3\n")
    assert [value for value, _ in entries.values()] == ["same", "same", "3"]


def test_a_bomb_of_aliases_does_not_expand(file: Path) -> None:
    """Nested aliases are refused as nested, without being multiplied out."""
    lines = ["a: &a [x, x]"] + [f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]" for i in range(20)]
    began = time.monotonic()
    assert complaint(file, "\n".join(lines)).startswith(f"{file}:1:1: ")
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("unit", ["[", "{a: ", "- ", "? ", "[{"])
def test_deep_nesting_is_refused_and_nothing_breaks(file: Path, unit: str) -> None:
    """However deep the nesting, the answer is a message of ours, within a second or two."""
    began = time.monotonic()
    message = complaint(file, "agent_id: " * (unit[0] in "[{") + unit * (60_000 // len(unit)))
    assert message.startswith(f"{file}:")
    assert time.monotonic() - began < 5


def test_a_huge_file_is_refused_before_it_is_read(file: Path) -> None:
    """A file of settings is small: what is larger than the bound is refused, also a sparse terabyte."""
    os.truncate(file, 1 << 40)
    with pytest.raises(ConfigurationError, match="is larger than"):
        read_config_file(str(file))
    os.truncate(file, 0)
    began = time.monotonic()
    assert "is given twice" in complaint(file, "agent_id: x\n" * 5000)
    assert time.monotonic() - began < 5


def test_other_things_than_files_are_refused(tmp_path: Path, file: Path) -> None:
    """A directory, a symbolic link and a pipe are no configuration; none of them is opened."""
    directory = tmp_path / "directory"
    directory.mkdir(mode=0o700)
    link = tmp_path / "link"
    link.symlink_to(file)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    for path, problem in ((directory, "is not a file"), (link, "is a symbolic link"), (pipe, "is not a file")):
        with pytest.raises(ConfigurationError, match=problem):
            read_config_file(str(path))


@pytest.mark.parametrize("mode", [0o602, 0o620, 0o666, 0o622])
def test_a_file_that_others_can_write_is_refused(file: Path, mode: int) -> None:
    """Who could write it would decide what is enforced; the message is the command that mends it."""
    file.chmod(mode)
    with pytest.raises(ConfigurationError) as caught:
        read_config_file(str(file))
    assert str(caught.value) == f"configuration {file} can be written by others; type: chmod 0600 {file}"


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o644])
def test_a_file_that_others_can_read_is_warned_about(file: Path, mode: int, capsys: pytest.CaptureFixture[str]) -> None:
    """It may hold the API key: one line on standard error, and the settings apply."""
    file.chmod(mode)
    assert read(file, "agent_id: a\n")["agent_id"][0] == "a"
    assert capsys.readouterr().err == (
        f"agent-assembly: configuration {file} can be read by others; type: chmod 0600 {file}\n"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_another_user_is_refused(file: Path) -> None:
    """A configuration must be the user's own."""
    os.chown(file, 65534, 65534)
    with pytest.raises(ConfigurationError, match="belongs to another user"):
        read_config_file(str(file))


@pytest.mark.parametrize(
    "closing",
    ["sys.stderr.close()", "sys.stderr = None", "os.close(2)", "os.dup2(os.open('/dev/full', os.O_WRONLY), 2)"],
)
def test_the_warning_is_not_worth_the_programs_life(file: Path, closing: str) -> None:
    """A program that closed its standard error reads its settings and ends with its own exit code."""
    file.write_text("agent_id: a\n")
    file.chmod(0o644)
    program = (
        f"import os, sys; sys.path[:] = {sys.path!r}\n"
        "from agent_assembly.core.config_file import read_config_file\n"
        f"{closing}\n"
        f"assert read_config_file({str(file)!r})['agent_id'][0] == 'a'\n"
        "print('fine')"
    )
    result = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "fine\n")
