"""Runs the checks, all at once and within one deadline: a check that hangs costs its own row and nothing else."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence

from aasm_py.doctor.look import Check, Look
from agent_assembly.diagnosis import Finding

HUNG = "did not end in time; what it looks at hangs"


def run_checks(look: Look, checks: Sequence[Check], done: Callable[[Check], None] | None = None) -> list[Finding]:
    """Return the findings of `checks` in their order, when all have ended or the look's time is over.

    `done` is called as each of them ends. Threads of checks that hang are left behind; they do not keep the process.
    """
    ended: queue.SimpleQueue[int] = queue.SimpleQueue()
    results: dict[int, list[Finding]] = {}

    def run(number: int, check: Check) -> None:
        results[number] = _run(check, look)
        ended.put(number)

    for number, check in enumerate(checks):
        threading.Thread(target=run, args=(number, check), daemon=True, name=check.name).start()
    waiting = set(range(len(checks)))
    while waiting:
        try:
            number = ended.get(timeout=look.left())
        except queue.Empty:
            break
        waiting.discard(number)
        if done is not None:
            done(checks[number])
    findings: list[Finding] = []
    for number, check in enumerate(checks):
        if number in waiting:
            findings.append(Finding(check.name, "fail", HUNG, "see the rows above and below; then run it again"))
        else:
            findings += results[number]
    return findings


def _run(check: Check, look: Look) -> list[Finding]:
    try:
        found = check.function(look)
    except Exception as error:  # noqa: BLE001 - one broken check must not hide what the others found
        said = f"could not be looked at: {type(error).__name__}: {error}"
        return [Finding(check.name, "fail", said, "please report this, with: aasm-py doctor --report FILE")]
    return found if isinstance(found, list) else [found]
