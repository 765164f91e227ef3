"""The rows about what the gateway knows: who runs, and what was denied."""

from __future__ import annotations

import os
import shlex
import time
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

import psutil

from aasm_py.audit import Filters, Row, decided
from aasm_py.control import Control, read_operator_token
from aasm_py.doctor.commands import restart_line, set_line
from aasm_py.doctor.look import Check, Look
from aasm_py.doctor.sighting import sight
from aasm_py.doctor.words import listed, one_line, shown_command
from aasm_py.moments import parse_moment
from agent_assembly.diagnosis import Finding, split_url
from agent_assembly.exceptions import ConfigurationError, GatewayError

_SECONDS = 1.5
# An aasm-run that was announced so long ago has had time to import its framework.
PATIENCE_SECONDS = 30
HOUR = timedelta(hours=1)
_DENIALS = 500
_SHOWN_AGENTS = 4
_LIST_DENIALS = "aasm-py audit list --decision deny --since 1h"

# Denials that no policy decided: there was no verdict, or no room to record the call.
_WITHOUT_VERDICT = (
    "gateway_unreachable",
    "gateway_timeout",
    "gateway_error",
    "not_registered",
    "unknown_run",
    "policy_error",
    "spool_full",
    "not_armed",
)
_WORDS = {
    "gateway_unreachable": "the gateway was not to be reached",
    "gateway_timeout": "the gateway did not answer in time",
    "gateway_error": "the gateway could not answer",
    "not_registered": "the agent could not register",
    "unknown_run": "its run was not known to the gateway",
    "policy_error": "the policy of its run could not be loaded",
    "spool_full": "there was no room for its record",
    "not_armed": "its framework was not governed",
}


class NotAsked(Exception):
    """The control plane cannot be asked; the text says why."""


def _open(look: Look) -> Control:
    """The control plane of the home's own gateway: nobody else is ever sent the operator token."""
    seen = sight(look)
    if seen.state != "own" or look.home is None:
        why = "only your own gateway is asked" if seen.state in ("keyed", "unproven") else "no gateway answers"
        raise NotAsked(f"{why}; see the row gateway")
    try:
        return Control(seen.url, read_operator_token(look.home), look.left(_SECONDS))
    except ConfigurationError as error:
        raise NotAsked(str(error)) from None


def check_agents(look: Look) -> list[Finding]:
    """Who runs under governance now, and which run should but does not."""
    try:
        with _open(look) as control:
            agents = _rows(control, "agents")
            runs = _rows(control, "runs")
    except (NotAsked, GatewayError) as error:
        return [Finding("agents", "skip", str(error))]
    found = _running(agents)
    lost = [row for row in runs if _never_checked_in(row)]
    if not lost:
        return [Finding("agents", "ok", found)]
    newest = lost[0]
    more = f"; and {len(lost) - 1} more" if len(lost) > 1 else ""
    words = shown_command(_command(newest), look.environ)
    missing = (
        f"{found}; no process of {newest['run_id']} has checked in, {_ago(_seconds_since(newest['announced_at']))} "
        f"after its start (pid {newest['pid']}: {one_line(words, 160)}){more}"
    )
    return [Finding("agents", "warn", missing, _asking_about(str(newest.get("cwd") or ""), words))]


def _rows(control: Control, name: str) -> list[dict[str, Any]]:
    rows = control.get(f"/v1/{name}").get(name)
    if not isinstance(rows, list):
        raise GatewayError(f"the gateway at {control.url} gave no {name}; it may be older than this command")
    return [row for row in rows if isinstance(row, dict)]


def _running(agents: list[dict[str, Any]]) -> str:
    if not agents:
        return "no agent has registered yet"
    active = [row for row in agents if row.get("state") == "active"]
    if not active:
        newest = agents[0]
        when = _ago(_seconds_since(newest["registered_at"]))
        return f"none runs now; the last one was {one_line(str(newest['agent_id']), 60)}, registered {when} ago"
    lenient = [row for row in active if row.get("enforcement_mode") != "enforce"]
    note = "; nothing is blocked in " + listed((_agent(row) for row in lenient), _SHOWN_AGENTS) if lenient else ""
    return f"{len(active)} running: {listed((_agent(row) for row in active), _SHOWN_AGENTS)}{note}"


def _agent(row: Mapping[str, Any]) -> str:
    place = "" if row.get("host") == os.uname().nodename else f" on {one_line(str(row.get('host')), 60)}"
    return f"{one_line(str(row['agent_id']), 60)} (pid {row['pid']}{place}, {row['enforcement_mode']})"


def _never_checked_in(run: Mapping[str, Any]) -> bool:
    if run.get("instances") or run.get("host") != os.uname().nodename:
        return False
    if _seconds_since(run["announced_at"]) < PATIENCE_SECONDS:
        return False
    try:
        process = psutil.Process(int(run["pid"]))
        # The launcher becomes the program: it is older than its announcement, and one that got its number later is not.
        older = process.create_time() <= parse_moment(run["announced_at"]).timestamp() + PATIENCE_SECONDS * 4
        return older and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ValueError):
        return False


def _command(run: Mapping[str, Any]) -> list[str]:
    return [str(word) for word in run.get("command") or []]


def _asking_about(directory: str, words: str) -> str:
    ask = f"aasm-py doctor -- {words}"
    try:
        here = os.path.samefile(directory, os.curdir)
    except OSError:
        here = True
    return ask if here else f"cd {shlex.quote(directory)} && {ask}"


def check_denials(look: Look) -> Finding:
    """What was denied in the last hour: by policy, as it should be, or because no verdict could be had."""
    filters = Filters(decision="deny", since=datetime.now(timezone.utc) - HOUR)
    try:
        with _open(look) as control:
            answer = control.get("/v1/audit", {**filters.parameters(), "count": "true", "limit": _DENIALS})
    except (NotAsked, GatewayError) as error:
        return Finding("denials", "skip", str(error))
    records = answer.get("records")
    if not isinstance(records, list):
        return Finding("denials", "skip", "the gateway gave no records; it may be older than this command")
    # Newest first. A call may have met another decision than the one that it was found by.
    rows = [row for row in map(decided, records) if row.get("decision") == "deny"]
    if not rows:
        return Finding("denials", "ok", "none in the last hour")
    total = max(int(answer.get("total") or 0), len(rows))
    without = [row for row in rows if row.get("code") in _WITHOUT_VERDICT]
    standing = [row for row in without if not _before_start(look, row)]
    if standing:
        return _without_verdict(look, total, standing)
    number = (
        f"{total} in the last hour" if total == len(records) else f"{total} in the last hour, of {len(rows)} looked at"
    )
    if without:
        since = time.strftime("%H:%M:%S", time.localtime(_started(look)))
        number += f"; {len(without)} for want of a verdict, before the gateway was started at {since}"
    by_policy = [row for row in rows if row not in without]
    if not by_policy:
        return Finding("denials", "ok", number, _LIST_DENIALS)
    return Finding("denials", "ok", f"{number}; {_by_policy(by_policy)}", _LIST_DENIALS)


def _by_policy(rows: list[Row]) -> str:
    counts = Counter(_rule(row) for row in rows)
    newest = rows[0]
    said = listed((f"{count} by {rule}" for rule, count in counts.most_common()), 3)
    return f"{said}; the newest: {one_line(str(newest.get('reason') or newest.get('code')), 200)}"


def _rule(row: Row) -> str:
    if row.get("rule"):
        return f"rule {one_line(str(row['rule']), 60)}"
    return f"{row.get('code')}".replace("default", "the policy's default")


def _without_verdict(look: Look, total: int, rows: list[Row]) -> Finding:
    counts = Counter(str(row["code"]) for row in rows)
    said = listed((f"{count} because {_WORDS[code]} ({code})" for code, count in counts.most_common()), 3)
    newest = one_line(str(rows[0].get("reason") or ""), 200)
    remedy = _remedy(look, str(rows[0]["code"]))
    return Finding("denials", "warn", f"{total} in the last hour, {said}; the newest: {newest}", remedy)


def _remedy(look: Look, code: str) -> str:
    settings, seen = look.settings, sight(look)
    restart = restart_line(look, split_url(seen.url)[2])
    if code == "gateway_timeout":
        longer = min(max(15.0, settings.check_timeout * 3), 600.0)
        return f"{set_line(look, 'check_timeout', f'{longer:g}')}; or: {restart}"
    if code == "spool_full":
        larger = settings.spool_max_bytes * 2
        return f"{set_line(look, 'spool_max_bytes', str(larger))}; or: df -h {shlex.quote(look.path('spool'))}"
    if code == "gateway_error":
        return f"tail -n 20 {shlex.quote(look.path('log', 'gateway.log'))}; or: {restart}"
    # What the program holds on to is of a gateway that is gone, or of another one.
    return f"{_LIST_DENIALS}; or: start these programs again, with aasm-run"


def _before_start(look: Look, row: Row) -> bool:
    """Whether the call was made before the gateway that runs now, which has heard of it since, had started."""
    started = _started(look)
    try:
        # An event's name begins with the agent's time of it; the record's own time is when the gateway got it.
        made = int(str(row["event_id"])[:12], 16) / 1000
    except (KeyError, ValueError):
        return False
    return started is not None and made < started


def _started(look: Look) -> float | None:
    """When the gateway was ready, as unix seconds: it then wrote its port down."""
    try:
        return os.stat(look.path("gateway.pid")).st_mtime
    except OSError:
        return None


def _seconds_since(text: str) -> float:
    return time.time() - parse_moment(text).timestamp()


def _ago(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


CHECKS: tuple[Check, ...] = (
    Check("agents", "gateway", check_agents),
    Check("denials", "gateway", check_denials),
)
