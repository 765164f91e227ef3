"""What both programs say of a command line that they do not understand: one line, with what to do."""

from __future__ import annotations

from collections.abc import Iterable

from aasm_py.streams import clean


def near(word: str, known: Iterable[str]) -> str | None:
    """Return the one of `known` that was probably meant with `word`."""
    from difflib import get_close_matches

    # The dashes of options are left out: they would make any two look alike.
    candidates = {_bare(name): name for name in known}
    wanted = _bare(word)
    begun = [name for name in candidates if len(wanted) > 1 and name.startswith(wanted)]
    found = begun if len(begun) == 1 else get_close_matches(wanted, candidates, n=1)
    return candidates[found[0]] if found else None


def _bare(word: str) -> str:
    return word.lower().replace("_", "-").strip("-")


def sentence(problem: str, suggestion: str | None, help_command: str) -> str:
    """`PROBLEM, did you mean SUGGESTION? see: HELP_COMMAND`, on one line whatever the words hold."""
    what_to_do = f", did you mean {suggestion}? see:" if suggestion else "; see:"
    return clean(" ".join(f"{problem}{what_to_do} {help_command}".split()))
