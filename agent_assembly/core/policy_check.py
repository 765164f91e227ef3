"""Checking policy documents without a gateway, by the engine that the gateway has too."""

from __future__ import annotations

from collections.abc import Sequence

_ANY_CALL = '{"kind": "tool", "tool": "any", "args": {}}'


def check_policies(documents: Sequence[tuple[str, str]]) -> bool:
    """Check `documents`, pairs of name and text, as a gateway does that is started with them.

    False when there is no native core to do it. Raises PolicyError with `diagnostics` when they do not check.
    """
    try:
        from agent_assembly._core import evaluate
    except ImportError:
        return False
    # A verdict is given only after everything was checked; on which call does not matter.
    evaluate(list(documents), _ANY_CALL)
    return True
