"""Installed versions against version specifiers: release numbers only, which is all that adapters say."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from functools import cache

_RELEASE = re.compile(r"v?(?:\d+!)?(\d+(?:\.\d+)*)")
_CLAUSE = re.compile(r"\s*(>=|<=|==|!=|<|>)\s*(\d+(?:\.\d+)*)\s*")
_COMPARISONS: dict[str, Callable[[tuple[int, ...], tuple[int, ...]], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}


@cache
def installed_version(distribution: str | None) -> str | None:
    """Return the version of an installed distribution, None when it is not installed or not known."""
    if distribution is None:
        return None
    from importlib import metadata

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def admitted(version: str, specifiers: Sequence[str]) -> bool:
    """Whether one of `specifiers` admits `version`. A pre-release counts as its release: 2.0rc1 is not below 2."""
    release = _RELEASE.match(version)
    if release is None:
        return False
    return any(all(holds(_numbers(release[1])) for holds in _clauses(specifier)) for specifier in specifiers)


def check_specifier(specifier: str) -> None:
    """Raise ValueError when `specifier` is not a list of comparisons such as `>=0.3,<2`."""
    _clauses(specifier)


def _clauses(specifier: str) -> list[Callable[[tuple[int, ...]], bool]]:
    clauses: list[Callable[[tuple[int, ...]], bool]] = []
    for text in specifier.split(","):
        clause = _CLAUSE.fullmatch(text)
        if clause is None:
            raise ValueError(f"{specifier!r} is not a version specifier such as '>=0.3,<2'")
        compare, bound = _COMPARISONS[clause[1]], _numbers(clause[2])
        clauses.append(lambda release, compare=compare, bound=bound: compare(release, bound))  # type: ignore[misc]
    return clauses


def _numbers(text: str) -> tuple[int, ...]:
    numbers = [int(part) for part in text.split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
