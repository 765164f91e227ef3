"""What the documentation shows of a terminal is what a terminal shows."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from support.gateway import stop_gateway_of
from support.home_shell import COLUMNS, LINES, HomeShell
from support.pages import PAGES, ROOT, blocks, difference, typed

TRIED = [page for page in PAGES if any(block.mark == "run" for block in blocks(page))]


@pytest.mark.slow
@pytest.mark.parametrize("page", TRIED, ids=lambda page: page.name)
def test_transcripts_are_true(page: Path, tmp_path: Path) -> None:
    """The commands of a page, typed in order beside the example's files, show what the page says."""
    user, project = tmp_path / "ada", tmp_path / "ada" / "langchain_support_bot"
    shutil.copytree(ROOT / "examples" / "langchain_support_bot", project)
    shell = HomeShell(user, project)
    wrong = []
    try:
        for block in blocks(page):
            if block.title:
                (project / block.title).write_text(block.text)
                os.chmod(project / block.title, 0o600)
            if block.mark == "run":
                for line in typed(block):
                    problem = difference(line.output, shell.type(line.command))
                    if problem:
                        wrong.append(f"{block}: $ {line.command}\n{problem}")
    finally:
        stop_gateway_of(user / ".aasm")
    assert not wrong, "\n\n".join(wrong)


def test_the_quick_start_is_tried() -> None:
    """The pages that a newcomer types from are among those that are tried."""
    assert {"quick-start.md", "governed.md", "launcher.md", "policies.md", "configuration.md"} <= {
        page.name for page in TRIED
    }


def test_a_transcript_that_differs_is_found() -> None:
    """Numbers and ids may differ, `…` stands for text, alone for lines; words must be the same."""
    shown = "run-0123456789abcdef  12:00:01  denied\nmore\nand more\nend\n"
    assert difference(["run-fedcba9876543210 1:2:3   denied", "…", "end"], shown) == ""
    assert difference(["run-… denied", "…"], shown) == ""
    assert difference(["run-… allowed", "…"], shown)
    assert difference(["run-… denied", "end"], shown)
    assert difference([], "") == ""
    assert difference([], "something\n")


def test_the_shell_is_at_a_terminal(tmp_path: Path) -> None:
    """Programs see a terminal of a known size, and the home of the person who types."""
    shell = HomeShell(tmp_path, tmp_path)
    assert shell.type("test -t 1 && test -t 2 && stty size <&1 && echo $HOME").split() == [
        str(LINES),
        str(COLUMNS),
        str(tmp_path),
    ]


def test_a_command_that_does_not_end_is_given_up(tmp_path: Path) -> None:
    """The test says so, with what the terminal showed until then."""
    with pytest.raises(AssertionError, match=r"no end after .*begun"):
        HomeShell(tmp_path, tmp_path).type("echo begun; exec sleep 60", seconds=1.0)
