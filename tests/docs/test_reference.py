"""Nothing is left out: settings, options, checks and messages are all in the documentation, and none is invented."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main
from support.gateway import find_aasm
from support.messages import MESSAGES, TEMPLATES, printed
from support.pages import DOCS, ROOT, code, headings, prose, spans

import agent_assembly
from aasm_py import main as command_line
from aasm_py.doctor.table import CHECKS
from aasm_py.options import FLAGS, option_settings

COMMAND_LINE = (DOCS / "command-line.md").read_text()
TROUBLESHOOTING = DOCS / "troubleshooting.md"


def test_every_setting_is_documented() -> None:
    """The table of `docs/configuration.md` is what `scripts/document_settings.py` makes of the table of settings."""
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        from document_settings import page_with
    finally:
        sys.path.remove(str(ROOT / "scripts"))
    page = (DOCS / "configuration.md").read_text()
    assert page == page_with(page, agent_assembly.SETTINGS), "type: .venv/bin/python scripts/document_settings.py"


def mentioned(option: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", COMMAND_LINE) is not None


def test_every_option_of_the_launcher_is_documented() -> None:
    """`docs/command-line.md` has each option of `aasm-run`."""
    rows = [*FLAGS, *option_settings()]
    assert [row.option for row in rows if not mentioned(row.option)] == []


def commands_of(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        if not inner.hidden:
            yield from commands_of(inner, f"{path} {name}")


def test_every_command_of_aasm_py_is_documented() -> None:
    """`docs/command-line.md` has each command of `aasm-py`, and each option."""
    found = dict(commands_of(typer.main.get_command(command_line.app), "aasm-py"))
    names = {path.rpartition(" ")[2] for path in found}
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b", COMMAND_LINE)] == []
    options = {
        option
        for command in found.values()
        for parameter in command.params
        for option in parameter.opts
        if option.startswith("--") and not getattr(parameter, "hidden", False)
    }
    assert len(options) > 10
    assert [option for option in sorted(options) if not mentioned(option)] == []


def test_every_command_of_the_gateway_program_is_documented() -> None:
    """`docs/command-line.md` has each command of `aasm`, and each option."""

    def look(*words: str) -> None:
        text = subprocess.run([find_aasm(), *words, "--help"], capture_output=True, text=True, check=True).stdout
        options.update(re.findall(r"^ +(?:-\w, +)?(--[\w-]+)", text, re.MULTILINE))
        for name in re.findall(r"^  ([a-z]+)  ", text.partition("Commands:")[2].partition("\n\n")[0], re.MULTILINE):
            commands.add(name)
            if name != "help":
                look(*words, name)

    options: set[str] = set()
    commands: set[str] = set()
    look()
    assert {"start", "stop", "status", "audit", "verify"} <= commands
    assert [name for name in sorted(commands) if f"`aasm {name}" not in COMMAND_LINE and name != "verify"] == []
    assert [option for option in sorted(options) if not mentioned(option)] == []


def test_every_check_of_the_doctor_is_documented() -> None:
    """The tables of `docs/doctor.md` name the doctor's checks, all of them, and no other."""
    names = {check.name for check in CHECKS}
    table = prose(DOCS / "doctor.md").partition("## All checks")[2]
    documented = {
        name for row in re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE) for name in re.findall("`(.+?)`", row)
    }
    adapters = {name for name in documented if name.startswith("adapter ")}
    assert names - documented == set()
    assert documented - names - adapters == set()
    assert {name.removeprefix("adapter ") for name in adapters} <= {"langchain", "langgraph"}


TITLES = [code(text) for level, text in headings(TROUBLESHOOTING) if level == 3]


@pytest.mark.parametrize("title", TITLES)
def test_every_message_of_the_page_is_one(title: str) -> None:
    """A heading of `docs/troubleshooting.md` is a message that the code prints, with `…` for what differs."""
    forms = {title, title.removeprefix("aasm-run: ")}
    assert any(printed(form, template) for template in TEMPLATES for form in forms)


def test_every_message_of_the_reference_pages_is_there() -> None:
    """The documented messages have a heading of their own."""
    assert {
        "gateway_url is required",
        "mode must be one of: auto, ebpf, proxy, sdk-only",
        "enforcement_mode must be one of: enforce, observe, disabled",
        "eBPF mode is not supported on this platform.",
        "Failed to initialize assembly runtime: …",
    } <= set(TITLES)


def test_every_message_of_the_code_is_on_the_page() -> None:
    """What launcher, SDK, command line and gateway print when something is wrong can be looked up."""
    # The headings leave the blanks and the marks of code as they are; in the text, lines may break anywhere.
    page = _squeezed(TROUBLESHOOTING.read_text())
    missing = [
        f"{place}: {template}"
        for place, template in MESSAGES
        if not all(_squeezed(piece) in page for piece in template.split("…") if len(piece.strip(_ENDS)) >= 12)
    ]
    assert not missing, "not in docs/troubleshooting.md:\n" + "\n".join(missing)


_ENDS = " \n`'\"()[]:;,."


def _squeezed(text: str) -> str:
    return re.sub(r"[\s`]+", "", text.strip(_ENDS))


def test_titles_and_spans_of_the_page_are_read() -> None:
    """The readers of these tests see what the page has."""
    assert len(TITLES) > 100
    assert "aasm status" in spans(TROUBLESHOOTING)
