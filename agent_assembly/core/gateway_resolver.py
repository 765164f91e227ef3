"""Which gateway governs this process, and how the two prove themselves to each other."""

from __future__ import annotations

import os
from typing import NamedTuple

from agent_assembly.core.local_gateway import LOCAL_SOURCE, locate, split_url
from agent_assembly.core.settings import Settings

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]", "::1"})


class ResolvedGateway(NamedTuple):
    """A gateway to talk to. `home` is set when it is this user's own: then every connection to it is proven."""

    url: str | None
    source: str
    home: str | None
    started: bool


def resolve_gateway(settings: Settings) -> ResolvedGateway:
    """Return the gateway that was named, else the local one, found or started.

    Raises ConfigurationError `gateway_url is required` when there is none and none can be started, GatewayError when
    the one that was named cannot be used.
    """
    if settings.gateway_url is not None and _from_launcher(settings):
        # The launcher found and proved it; the first connection proves it again.
        return ResolvedGateway(settings.gateway_url, settings.gateway_source, settings.home, False)
    gateway = locate(settings, [])
    return ResolvedGateway(gateway.url, gateway.source, settings.home if gateway.probe.ours else None, gateway.started)


def presumed_gateway(settings: Settings) -> ResolvedGateway:
    """Return what `settings` name while it does not answer, so that it can be used once it does."""
    url = settings.gateway_url
    secret = os.path.join(settings.home, "gateway.secret")
    own = url is not None and (
        _from_launcher(settings) or (not settings.api_key and _is_loopback(url) and os.path.exists(secret))
    )
    return ResolvedGateway(url, settings.source("gateway_url"), settings.home if own else None, False)


def same_gateway(one: str | None, other: str | None) -> bool:
    """Whether two URLs name one gateway, however the loopback address is written."""
    if one is None or other is None:
        return one is other
    first, second = split_url(one), split_url(other)
    return (
        first[0] == second[0]
        and first[2:] == second[2:]
        and (first[1] == second[1] or (first[1] in _LOOPBACK and second[1] in _LOOPBACK))
    )


def _from_launcher(settings: Settings) -> bool:
    return bool(settings.run_id) and (settings.gateway_source or "").startswith(LOCAL_SOURCE)


def _is_loopback(url: str) -> bool:
    return split_url(url)[1] in _LOOPBACK
