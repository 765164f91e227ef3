"""The row about the environment's proxies, which none of our traffic uses."""

from __future__ import annotations

from aasm_py.doctor.commands import forget_line
from aasm_py.doctor.look import Look
from aasm_py.doctor.sighting import is_loopback, sight
from aasm_py.doctor.words import listed, one_line
from agent_assembly.diagnosis import Finding, split_url

_NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_UNREACHABLE = ("name", "name hangs", "refused", "closed to us", "hangs")


def check_proxies(look: Look) -> Finding:
    """Whether somebody waits for a proxy that we would not take."""
    proxies = [f"{name}={masked(value)}" for name, value in look.environ.items() if name.upper() in _NAMES and value]
    exceptions = [
        f"{name}={one_line(value, 60)}" for name, value in look.environ.items() if name.upper() == "NO_PROXY" and value
    ]
    if not proxies:
        return Finding("proxies", "ok", "no proxy variable is set")
    found = listed(sorted(proxies) + sorted(exceptions), 5)
    seen = sight(look)
    if not seen.url or is_loopback(seen.url):
        return Finding("proxies", "ok", f"{found}; not used: the gateway is on this machine")
    if seen.state == "silent" and seen.cause in _UNREACHABLE:
        host, port = split_url(seen.url)[1:3]
        remedy = f"{forget_line(look, 'gateway_url')}; or: ask for a direct way from here to {host}:{port}"
        text = f"{found}; not used: {seen.url} is asked directly, and cannot be reached so"
        return Finding("proxies", "warn", text, remedy)
    return Finding("proxies", "ok", f"{found}; not used: {seen.url} is asked directly")


def masked(proxy: str) -> str:
    """The proxy without user and password."""
    scheme, separator, rest = proxy.partition("://") if "://" in proxy else ("", "", proxy)
    _, at, host = rest.rpartition("@")
    return one_line(f"{scheme}{separator}{'***@' if at else ''}{host.partition('/')[0]}", 80)
