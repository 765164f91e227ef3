"""A refusal: the program does not run, and people read why and what to type, whatever else is wrong."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from support.programs import program, run_command

from aasm_py import run
from aasm_py.doctor import redaction, refusal
from aasm_py.options import parse_options
from aasm_py.plan import Refusal

SECRET = "sk-proj-Zq8w1n5RtY2uPlantedBx"


def refused(home: Path, *words: str, **environ: str) -> list[str]:
    """Launch what is refused; return what was said, line by line."""
    result = run_command([program("aasm-run"), *words], home, environ=environ, timeout=30)
    assert (result.returncode, result.stdout) == (78, "")
    lines = result.stderr.splitlines()
    assert lines[0].startswith("aasm-run: ")
    return lines


@pytest.mark.parametrize(
    ("words", "environ", "configuration"),
    [
        (["ls", "--api-key", SECRET], {}, ""),
        (["ls", *["word"] * 12, f"--api-key={SECRET}"], {}, ""),
        (["python", "-I", "agent.py", "--token", SECRET], {}, ""),
        (["python"], {"AASM_GATEWAY_URL": f"http://127.0.0.1:1/?key={SECRET}"}, ""),
        (["python"], {"AASM_GATEWAY_URL": f"http://127.0.0.1:1/#{SECRET}"}, ""),
        (["python"], {"AASM_AGENT_ID": f"my {SECRET}"}, ""),
        (["python"], {}, f"gateway_url: http://127.0.0.1:1/?key={SECRET}\n"),
        (["--policy", f"/nowhere/{SECRET}", "python"], {}, ""),
    ],
)
def test_no_secret_is_said(words: list[str], environ: dict[str, str], configuration: str, home: Path) -> None:
    """Neither in the reason nor in the table, and neither whole nor cut off."""
    if configuration:
        (home / "config.yaml").write_text(configuration)
        (home / "config.yaml").chmod(0o600)
    text = "\n".join(refused(home, *words, **environ))
    assert SECRET[:12] not in text
    assert SECRET[-8:] not in text


def test_a_reason_is_told_once(home: Path) -> None:
    """The row of the refusal is left out where a check says the same."""
    lines = refused(home, "python", AASM_AGENT_ID=f"my {SECRET}")
    assert len([line for line in lines[1:] if "agent_id" in line]) == 1


def test_what_is_said_cannot_steer_the_terminal(home: Path) -> None:
    """Controls and broken text are shown as escapes."""
    for word in ("a\x1b[31m", "a\rb", "a\udcff"):
        assert all(line.isprintable() for line in refused(home, "ls", word))


@pytest.mark.parametrize("broken", [(refusal, "show_failing"), (redaction, "Redactor")], ids=lambda each: each[1])
def test_the_reason_does_not_need_the_doctor(
    broken: tuple[object, str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Where the doctor itself breaks, the reason is said all the same, with what to type."""

    def fail(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(*broken, fail)
    run._refuse(Refusal("it is so", check="target", remedy="type that"), parse_options(["python"]))
    shown = capfd.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("aasm-run: it is so\n")
    assert "type that" in shown.err


def test_a_gateway_that_never_answers_does_not_keep_anyone(home: Path) -> None:
    """Launcher and doctor each have their bound."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        lines = refused(home, "--gateway-url", f"http://127.0.0.1:{silent.getsockname()[1]}", "python")
    assert "did not answer" in lines[0]
