"""Shells that tests type into: bash and zsh at a terminal of their own, with TAB pressed, and fish asked directly."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import shutil
import signal
import subprocess
import termios
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from support.gateway import clean_environment
from support.pseudo_terminal import open_terminal, read_some

PATIENCE = 60.0
TAB, SHOW = b"\t", b"\x14"
# Before it the terminal still belongs to the last command, and echoes what is typed by itself.
PROMPT = rb"\$ "

# One candidate a line, without questions and bells.
_INPUTRC = """
set bell-style none
set completion-display-width 0
set completion-query-items 0
set enable-bracketed-paste off
set page-completions off
set show-all-if-ambiguous on
"""
_BASH = r"""
PS1='$ ' HISTFILE=
bind -x '"\C-t": printf "\n<<%s>>\n" "$READLINE_LINE"; READLINE_LINE= READLINE_POINT=0'
"""
_ZSH = r"""
PS1='$ ' LISTMAX=10000
unsetopt auto_menu list_ambiguous list_beep beep prompt_sp
show-line() { zle -I; print -r -- "<<$BUFFER>>"; BUFFER= }
zle -N show-line
bindkey -e
bindkey '^T' show-line
autoload -Uz compinit && compinit -u -D
"""


class Completed(NamedTuple):
    """What TAB did: the line as it is then, and the candidates, or the one that was put into the line."""

    line: str
    candidates: frozenset[str]


class CompletingShell:
    """An interactive bash or zsh in `directory`, which has read `setup`. A context manager."""

    def __init__(self, shell: str, setup: str, directory: Path, environ: Mapping[str, str] | None = None) -> None:
        home = _home(shell, directory)
        (home / "inputrc").write_text(_INPUTRC)
        (home / "setup").write_text({"bash": _BASH, "zsh": _ZSH}[shell] + setup)
        command = {"bash": ["bash", "--noprofile", "--norc", "-i"], "zsh": ["zsh", "-f", "-i"]}[shell]
        variables = {
            "TERM": "dumb",
            "HOME": str(home),
            "INPUTRC": str(home / "inputrc"),
            "COLUMNS": "300",
            "LINES": "500",
            "LC_ALL": "C.UTF-8",
        }
        self._ours, theirs = open_terminal(300, 500)
        self._process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=directory,
            env=clean_environment(**variables, **(environ or {})),
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(theirs)
        self._seen = b""
        self._send(f". '{home / 'setup'}'; printf '<<%s>>\\n' ready\n".encode())
        self._until(rb"<<ready>>\r?\n")
        self._until(PROMPT)

    def __enter__(self) -> CompletingShell:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(PATIENCE)
        os.close(self._ours)

    def complete(self, line: str) -> Completed:
        """Type `line` and TAB into an empty line, and return what came of it."""
        self._send(line.encode() + TAB + SHOW)
        before, text = self._until(rb"<<([^\n]*)>>\r?\n")
        self._until(PROMPT)
        now = text.decode(errors="replace")
        shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", before.decode(errors="replace"))
        # What was typed is echoed, and shown again behind the prompt: it is no candidate. zsh adds descriptions.
        rows = [row.split(" -- ")[0] for row in shown.split("\n")[1:] if not row.startswith("$ ")]
        found = {word.replace("\\", "") for row in rows for word in re.split(r"\s{2,}", row.strip()) if word}
        if not found and now != line:
            found.add(_last_word(now))
        return Completed(now, frozenset(found))

    def run(self, line: str) -> None:
        """Run a command."""
        self._send(f"{line}; printf '<<%s>>\\n' done\n".encode())
        self._until(rb"<<done>>\r?\n")
        self._until(PROMPT)

    def _send(self, data: bytes) -> None:
        os.write(self._ours, data)

    def _until(self, pattern: bytes) -> tuple[bytes, bytes]:
        deadline = time.monotonic() + PATIENCE
        while (found := re.search(pattern, self._seen)) is None:
            left = deadline - time.monotonic()
            assert left > 0, f"{pattern!r} did not come: {self._seen!r}"
            if select.select([self._ours], [], [], left)[0]:
                chunk = read_some(self._ours)
                assert chunk, f"the shell ended before {pattern!r} came: {self._seen!r}"
                self._seen += chunk
        before, self._seen = self._seen[: found.start()], self._seen[found.end() :]
        return before, found[1] if found.re.groups else b""


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _last_word(line: str) -> str:
    word = re.split(r"(?<!\\) ", line.rstrip(" "))[-1].removesuffix("=").replace("\\", "")
    return word.rpartition("=")[2]


def ask_fish(setup: str, line: str, directory: Path, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return what fish offers for `line` after it has read `setup`: candidates and their descriptions."""
    home = _home("fish", directory)
    script = home / "setup"
    script.write_text(setup + "\ncomplete --do-complete=$LINE\n")
    result = subprocess.run(
        ["fish", "--no-config", script],
        cwd=directory,
        env=clean_environment(
            HOME=str(home), XDG_CONFIG_HOME=str(home), LC_ALL="C.UTF-8", LINE=line, **(environ or {})
        ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert result.stderr == "", result.stderr
    rows = (row.partition("\t") for row in result.stdout.splitlines())
    return {word.rpartition("=")[2]: description for word, _, description in rows}


def _home(shell: str, directory: Path) -> Path:
    """A home beside `directory`, lest it be completed as one of its files."""
    home = directory.with_name(f"{directory.name}-{shell}")
    home.mkdir(exist_ok=True)
    return home


def missing(shell: str) -> str | None:
    """Say why a test with `shell` cannot run here, if it cannot."""
    return None if shutil.which(shell) else f"{shell} is not installed"
