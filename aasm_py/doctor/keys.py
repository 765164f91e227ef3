"""The row about the API key: whether the gateway that would be sent it takes it."""

from __future__ import annotations

import json
import shlex

from aasm_py.doctor import ports
from aasm_py.doctor.commands import forget_line, set_line
from aasm_py.doctor.look import Look
from aasm_py.doctor.sighting import Sighting, is_loopback, sight, within
from aasm_py.doctor.words import one_line
from agent_assembly.diagnosis import Finding, gateway_exchange, split_url
from agent_assembly.exceptions import ConfigurationError, GatewayError

_SECONDS = 1.5
# Of no run, so that nothing is announced: a gateway asks for the key before it looks at what was sent.
_EMPTY = b"{}"


def check_key(look: Look) -> Finding:
    """Sends the key only where a program would send it too, and never in the clear over a network."""
    seen = sight(look)
    key, source = look.settings.api_key, look.settings.source("api_key")
    if "api_key" in look.problems:
        return Finding("gateway key", "skip", str(look.problems["api_key"]))
    if seen.state == "own":
        kept = f"; the one of {source} is not sent" if key else ""
        return Finding("gateway key", "ok", f"none is needed: the gateway is your own{kept}")
    if seen.state != "keyed":
        if seen.state == "unproven":
            return Finding("gateway key", "skip", "no api_key is set; see the row gateway")
        kept = f"the one of {source} was not sent" if key else "no api_key is set"
        return Finding("gateway key", "skip", f"{kept}; no gateway answers that would get it")
    if not is_loopback(seen.url) and not seen.url.startswith("https:"):
        found = f"programs send it in the clear over the network to {seen.url}; it was not tried now"
        secure = set_line(look, "gateway_url", f"https:{seen.url.partition(':')[2]}")
        return Finding("gateway key", "warn", found, secure)
    return _tried(look, seen, str(key), source)


def _tried(look: Look, seen: Sighting, key: str, source: str) -> Finding:
    seconds = look.left(_SECONDS)
    headers = {"Authorization": f"Bearer {key}"}
    try:
        status, _, body = within(
            seconds + 0.25,
            lambda: gateway_exchange(seen.url, "POST", "/v1/runs", headers, _EMPTY, seconds),
        )
    except (GatewayError, ConfigurationError, TimeoutError) as error:
        return Finding("gateway key", "skip", f"{seen.url} could not be asked: {error}")
    if status in (400, 422):
        return Finding("gateway key", "ok", f"{seen.url} takes the one of {source}")
    code, detail = _said(body, key)
    said = f"{status} {code}: {detail}" if detail else f"{status} {code}".rstrip()
    if status not in (401, 403):
        return Finding("gateway key", "skip", f"{seen.url} does not say whether it takes the key: {said}")
    return Finding("gateway key", "fail", f"{seen.url} refuses the one of {source}: {said}", _remedy(look, seen, code))


def _said(body: bytes, key: str) -> tuple[str, str]:
    try:
        problem = json.loads(body)
        code, detail = str(problem["code"]), str(problem.get("detail") or "")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "", ""
    # A gateway may repeat what it was sent.
    return one_line(code.replace(key, "***"), 60), one_line(detail.replace(key, "***"))


def _remedy(look: Look, seen: Sighting, code: str) -> str:
    if code == "api_keys_unavailable":
        holder = ports.holder(look, split_url(seen.url)[2]) if is_loopback(seen.url) else ports.Holder()
        home = [f"export AASM_HOME={shlex.quote(holder.home)}"] if holder.home else []
        return "; or: ".join([*home, forget_line(look, "gateway_url")])
    if look.settings.shadowed("api_key"):
        return f"{forget_line(look, 'api_key')}; or: {set_line(look, 'api_key', 'the key that its operator gave you')}"
    return set_line(look, "api_key", "the key that its operator gave you")
