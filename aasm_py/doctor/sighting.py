"""The gateway that a program would use now, looked for as the SDK does, but quickly and without starting one."""

from __future__ import annotations

import ipaddress
import queue
import socket
import threading
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeVar

from aasm_py.doctor.look import Look
from agent_assembly.diagnosis import LOCAL_SOURCE, Probe, holds_lock, probe, split_url
from agent_assembly.exceptions import ConfigurationError

T = TypeVar("T")

NAMED_SECONDS = 2.0
NAME_SECONDS = 1.5
LOCAL_SECONDS = 1.2

# own: proved to be the home's. keyed: another's, which is sent the API key. unproven: another's, and no key for it.
# silent: named, and cannot be used. stuck: the home's runs and does not answer. taken: another program on the port.
# none: nothing runs. unknown: the settings or the home do not allow looking.
State = Literal["own", "keyed", "unproven", "silent", "stuck", "taken", "none", "unknown"]
# What hinders, where more can be said than "it does not answer".
Cause = Literal["", "name", "name hangs", "refused", "closed to us", "hangs", "certificate", "plain", "stranger"]


class Sighting(NamedTuple):
    """What was found: `url` and where it came from, the probe's result, and why it cannot be used if so."""

    state: State
    url: str = ""
    source: str = ""
    probe: Probe | None = None
    problem: str = ""
    cause: Cause = ""
    named: bool = False

    @property
    def answer(self) -> Probe | None:
        """What the gateway said of itself; None where none answers that a program would talk to."""
        return self.probe if self.state in ("own", "keyed", "unproven") else None


def sight(look: Look) -> Sighting:
    """The gateway that the settings stand for; never raises."""
    return look.once("gateway", lambda: _sight(look))


def local_gateway(look: Look) -> Sighting:
    """The gateway of this home, also where the settings name another one; never raises."""
    return look.once("local gateway", lambda: _local(look))


def is_loopback(url: str) -> bool:
    """Whether what is sent to `url` stays on this machine, by what its host is called."""
    host = split_url(url)[1].strip("[]").lower()
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def within(seconds: float, act: Callable[[], T]) -> T:
    """Return what `act` returns; raise TimeoutError when it takes longer. Its thread is left behind then."""
    ended: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            ended.put((act(), None))
        except BaseException as error:  # noqa: BLE001 - raised where it was asked for
            ended.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        value, error = ended.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"not within {seconds:g} s") from None
    if error is not None:
        raise error
    found: T = value  # type: ignore[assignment]
    return found


def _sight(look: Look) -> Sighting:
    if "gateway_url" in look.problems:
        return Sighting("unknown", problem=str(look.problems["gateway_url"]))
    if look.settings.gateway_url is None:
        return local_gateway(look)
    # Looked for meanwhile: the row says where the home's own gateway is when the named one cannot be used.
    threading.Thread(target=local_gateway, args=(look,), daemon=True).start()
    settings = look.settings
    url, source = settings.gateway_url, settings.source("gateway_url")
    if settings.gateway_source and source.startswith("variable "):
        source = settings.gateway_source  # inside a run: the launcher knows where it had it from
    named = not source.startswith(LOCAL_SOURCE)
    if look.home is None:
        return Sighting("unknown", url, source, problem=_no_home(look), named=named)
    try:
        found, cause = _ask(look, url)
    except ConfigurationError as error:
        return Sighting("unknown", url, source, problem=str(error), named=named)
    if not found.found:
        return Sighting("silent", url, source, found, found.problem, cause, named)
    if found.ours:
        return Sighting("own", url, source, found, named=named)
    return Sighting("keyed" if named and settings.api_key else "unproven", url, source, found, found.problem, "", named)


def _no_home(look: Look) -> str:
    return str(look.problems.get("home", "no home directory is known"))


def _ask(look: Look, url: str) -> tuple[Probe, Cause]:
    assert look.home is not None
    home = look.home
    secure, host, port, _ = split_url(url)
    hindrance = _resolve(look, url, host.strip("[]"), port)
    if hindrance is not None:
        return hindrance
    seconds = look.left(NAMED_SECONDS)
    try:
        # The inner one should say it first; TLS has phases that know no deadline.
        found = within(seconds + 0.25, lambda: probe(url, home, seconds))
    except TimeoutError:
        found = Probe(url, problem=f"{host}:{port} did not answer within {seconds:.1f} s", code="gateway_timeout")
    return found, "" if found.found else _cause(found, secure, host.strip("[]"), port)


def _resolve(look: Look, url: str, host: str, port: int) -> tuple[Probe, Cause] | None:
    """None when the host's name has an address, else why it has none."""
    seconds = look.left(NAME_SECONDS)
    try:
        within(seconds, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except TimeoutError:
        problem = f"the name {host} was not resolved within {seconds:.1f} s: the name server does not answer"
        return Probe(url, problem=problem, code="gateway_timeout"), "name hangs"
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        return Probe(url, problem=f"the name {host} has no address: {why}", code="gateway_unreachable"), "name"
    return None


def _cause(found: Probe, secure: bool, host: str, port: int) -> Cause:
    if found.code == "gateway_timeout":
        try:
            socket.create_connection((host, port), 0.3).close()
        except OSError:
            return "closed to us"
        return "hangs"
    if found.code == "gateway_error" or "reset" in found.problem:
        return "stranger"
    if "certificate" in found.problem:
        return "certificate"
    if secure and "ssl" in found.problem.lower():
        return "plain"
    return "refused"


def _local(look: Look) -> Sighting:
    home = look.home
    if home is None:
        return Sighting("unknown", problem=_no_home(look))
    try:
        known, port = look.pid_file, look.settings.gateway_port
        if known is not None:
            found = probe(known.port, home, look.left(LOCAL_SECONDS))
            if found.ours:
                return Sighting("own", found.url, "gateway.pid", found)
            # Refused means dead, and needs no look at the lock, which could disturb a gateway that starts.
            if found.code != "gateway_unreachable" and holds_lock(home):
                return Sighting("stuck", found.url, "gateway.pid", found, found.problem)
        if "gateway_port" in look.problems:
            return Sighting("unknown", problem=str(look.problems["gateway_port"]))
        source = f"gateway_port, {look.settings.source('gateway_port')}"
        if known is None or known.port != port:
            found = probe(port, home, look.left(LOCAL_SECONDS))
            if found.ours:
                return Sighting("own", found.url, source, found)
        if found.code == "gateway_unreachable":
            return Sighting("none", found.url, source, found, found.problem)
        return Sighting("taken", found.url, source, found, found.problem)
    except ConfigurationError as error:
        return Sighting("unknown", problem=str(error))
