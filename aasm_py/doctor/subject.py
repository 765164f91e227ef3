"""The Python that the doctor looks at: that of the command that is asked about, else the one that runs the doctor."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

from aasm_py.doctor.child import Answer, ask_python
from aasm_py.doctor.installing import Installer
from aasm_py.doctor.look import Look
from aasm_py.doctor.search_path import outside_a_run
from aasm_py.host import Host
from aasm_py.plan import OLDEST
from agent_assembly.diagnosis import is_python_name
from agent_assembly.launching import Target, examine

_SECONDS = 2.0
# Of Python's own options those with which it says something about itself, or waits for someone to type, and those
# with which it would not load the bootstrap.
_ASIDE = "Vhi?"
IGNORING = "IES"
_WITH_VALUE = "WX"

_CODE = """
facts.update(
    version="%d.%d.%d" % sys.version_info[:3],
    number=list(sys.version_info[:2]),
    prefix=sys.prefix,
    executable=sys.executable,
    pip=any(os.path.isdir(os.path.join(entry, "pip")) for entry in sys.path),
    managed=sys.prefix == getattr(sys, "base_prefix", sys.prefix)
    and os.path.exists(os.path.join(os.path.dirname(os.__file__), "EXTERNALLY-MANAGED")),
    sdk=None,
    missing=False,
    error="",
)
if sys.version_info >= (3, 10):
    try:
        import agent_assembly

        facts.update(sdk=agent_assembly.__version__, place=os.path.dirname(agent_assembly.__file__))
    except Exception as error:
        facts["missing"] = getattr(error, "name", None) == "agent_assembly"
        facts["error"] = "%s: %s" % (type(error).__name__, error)
"""


class Subject(NamedTuple):
    """The words that start the Python as the command does, and `plain` those that let it see all of its environment.

    Empty where it is not known, with the reason.
    """

    words: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()
    unknown: str = ""


def target(look: Look) -> Target:
    """What the command comes down to, as the launcher sees it."""
    return look.once("target", lambda: examine(look.command, look.environ, Host()))


def subject(look: Look) -> Subject:
    """The Python that is looked at."""
    return look.once("subject", lambda: _subject(look))


def facts(look: Look) -> Answer:
    """What that Python says about itself, outside a run; `facts` of the answer is None when it says nothing."""
    words = subject(look).plain

    def ask() -> Answer:
        return ask_python(words, _CODE, outside_a_run(look.environ), look.left(_SECONDS))

    return look.once("subject's facts", ask)


def installer(look: Look) -> Installer:
    """What installs something into that Python's environment."""
    known = facts(look).facts
    words = subject(look).words
    if known is None:
        return Installer(words[0], pip=True)
    return Installer(known["executable"] or words[0], known["pip"], known["managed"])


def _subject(look: Look) -> Subject:
    if not look.command:
        return Subject((sys.executable,), (sys.executable,))
    found = target(look)
    if found.kind == "missing":
        return Subject(unknown="there is nothing to start")
    before = _before_flags(look.command, found)
    if not before:
        return Subject(unknown=found.reason or "which Python runs it cannot be told in advance")
    return Subject((*before, *without_flags(found.flags)), (*before, *without_flags(found.flags, _ASIDE + IGNORING)))


def _before_flags(command: Sequence[str], found: Target) -> tuple[str, ...]:
    """The words up to the Python itself; empty when it is not known."""
    # What `env` sets is part of how the program is started.
    if found.interpreter is not None and os.path.basename(command[0]) == "env" and found.script:
        before = command[: len(command) - len(found.script) - len(found.flags)]
        if is_python_name(os.path.basename(before[-1])):
            return tuple(before)
    if found.interpreter is not None:
        return (found.interpreter,)
    shim = found.kind == "python" and is_python_name(os.path.basename(found.path))
    return (found.path,) if shim else ()


def without_flags(flags: Sequence[str], dropped: str = _ASIDE) -> list[str]:
    """Python's own options without the letters `dropped`, and without the long ones that say something about it."""
    kept: list[str] = []
    rest = list(flags)
    while rest:
        word = rest.pop(0)
        if word.startswith("--"):
            if word.startswith("--check-hash-based-pycs"):
                kept += [word, *rest[:1]]
                del rest[:1]
            continue
        value = next((index for index, letter in enumerate(word) if letter in _WITH_VALUE), len(word))
        letters = "".join(letter for letter in word[1:value] if letter not in dropped) + word[value:]
        if letters:
            kept.append(f"-{letters}")
        if value == len(word) - 1:
            kept += rest[:1]
            del rest[:1]
    return kept


def is_supported(number: Sequence[int]) -> bool:
    """Whether the SDK runs on a Python of that version."""
    return tuple(number) >= OLDEST
