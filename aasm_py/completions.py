"""The completion scripts of the three programs, as `aasm-py completions` prints them."""

from __future__ import annotations

import os
from pathlib import Path

SHELLS = ("bash", "zsh", "fish")

_PLACES = {
    "bash": ("~/.bashrc", 'eval "$(aasm-py completions bash)"'),
    "zsh": ("~/.zshrc, below the line with compinit", 'eval "$(aasm-py completions zsh)"'),
    "fish": ("~/.config/fish/config.fish", "aasm-py completions fish | source"),
}
# Without compinit there is nothing to announce them to, and zsh would say so once for each program.
_ZSH = """\
if (( $+functions[compdef] )); then
{scripts}
else
    print -u2 'aasm-py completions: put this above the line in ~/.zshrc: autoload -Uz compinit && compinit'
fi
"""


def script(shell: str) -> str:
    """Return what `shell`, one of SHELLS, has to read in order to complete all three programs."""
    texts = [path.read_text(encoding="utf-8") for path in sorted((_directory() / shell).iterdir())]
    scripts = "\n".join(texts)
    return _ZSH.format(scripts=scripts) if shell == "zsh" else scripts


def instructions(login_shell: str) -> str:
    """Return which line to put where, for the shell that `login_shell` ($SHELL) names, else for each."""
    name = os.path.basename(login_shell)
    rows = [_PLACES[name]] if name in _PLACES else list(_PLACES.values())
    lines = [f"To complete aasm, aasm-py and aasm-run with TAB, add to {place}:\n\n  {line}\n" for place, line in rows]
    return "\n".join(lines) + "\nThen open a new shell.\n"


def _directory() -> Path:
    """Where the scripts are: beside this file as installed, else in the checkout."""
    here = Path(__file__).resolve().parent
    installed = here / "_completions"
    return installed if installed.is_dir() else here.parent / "completions"
