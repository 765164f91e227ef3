"""Which gateway a process talks to: the one that was named, else the local one, found or started.

Used by launcher, SDK and doctor alike. Imported before the user's program: see the import rules.
"""

from __future__ import annotations

import os
import sys
import time

from agent_assembly._version import __version__
from agent_assembly.core.exchange import decode_json, encode_json, http_exchange
from agent_assembly.core.proof import (
    PidFile,
    client_proof,
    health_proof,
    holds_lock,
    read_pid_file,
    read_secret,
    same_text,
)
from agent_assembly.exceptions import ConfigurationError, GatewayError, PolicyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from agent_assembly.core.settings import Settings

    Tried = tuple[str, str, str]

__all__ = [
    "Gateway",
    "NotStarted",
    "PidFile",
    "Probe",
    "announce_run",
    "authorization",
    "client_proof",
    "find_aasm_program",
    "gateway_exchange",
    "health_proof",
    "http_exchange",
    "locate",
    "probe",
    "read_pid_file",
    "read_secret",
    "split_url",
    "start",
]

LOCAL_SECONDS = 2.0
REMOTE_SECONDS = 5.0
START_SECONDS = 10.0
# A gateway of the local kind is said to come from here, also to the programs that the launcher starts.
LOCAL_SOURCE = "local gateway"


class NotStarted(GatewayError):
    """No gateway runs, and one may be started; raised only where that was not asked for."""


class Probe:
    """What was learnt about an address: whether a gateway answers, whether it is this home's own, and what it says.

    `problem` is empty when a gateway answers, else the reason why not, with `code` as its stable word; of a gateway
    that is not `ours` it says why. `latency` is in seconds. `started` tells that `start` had to start it.
    """

    __slots__ = (
        "code",
        "found",
        "latency",
        "ours",
        "policy_revision",
        "policy_source",
        "problem",
        "started",
        "status",
        "storage",
        "url",
        "version",
    )

    def __init__(self, url: str, *, problem: str = "", code: str = "", latency: float = 0.0) -> None:
        self.url = url
        self.found = False
        self.ours = False
        self.started = False
        self.problem = problem
        self.code = code
        self.latency = latency
        self.status = ""
        self.version = ""
        self.storage = ""
        self.policy_revision = ""
        self.policy_source = ""

    def __repr__(self) -> str:
        return f"Probe({self.url!r}, found={self.found}, ours={self.ours}, problem={self.problem!r})"


class Gateway:
    """A gateway to talk to: its URL, where that came from, what its probe said, and whether it was started just now.

    `explicit` means that a person named it; only such a one may ever be sent an API key.
    """

    __slots__ = ("explicit", "probe", "source", "started", "url")

    def __init__(self, url: str, source: str, probe: Probe, *, explicit: bool, started: bool = False) -> None:
        self.url = url
        self.source = source
        self.probe = probe
        self.explicit = explicit
        self.started = started


def split_url(url: str) -> tuple[bool, str, int, str]:
    """Return whether `url` wants TLS, its host, its port, and the path that it puts before ours."""
    scheme, _, rest = url.partition("://")
    secure = scheme == "https"
    authority, slash, prefix = rest.partition("/")
    host, separator, port = authority.rpartition(":")
    if not separator or port.endswith("]"):
        host, port = authority, ""
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ConfigurationError(f"gateway_url has no usable port: {url}")
    return secure, host, int(port) if port else 443 if secure else 80, (slash + prefix).rstrip("/")


def gateway_exchange(
    url: str, method: str, path: str, headers: Mapping[str, str], body: bytes, timeout: float
) -> tuple[int, dict[str, str], bytes]:
    """`http_exchange` with the gateway at `url`, with TLS where it wants that."""
    secure, host, port, prefix = split_url(url)
    if secure:
        from agent_assembly.core.https_exchange import https_exchange

        return https_exchange(host, port, method, prefix + path, headers, body, timeout)
    return http_exchange(host, port, method, prefix + path, headers, body, timeout)


def probe(url_or_port: str | int, home: str, timeout: float = LOCAL_SECONDS) -> Probe:
    """Ask what listens there for its health and for the proof that it is the gateway of `home`.

    Never raises for what the other side does; ConfigurationError when the home's own files cannot be trusted.
    """
    url = f"http://127.0.0.1:{url_or_port}" if isinstance(url_or_port, int) else url_or_port
    challenge = os.urandom(16).hex()
    began = time.monotonic()
    try:
        status, _, body = gateway_exchange(url, "GET", f"/healthz?challenge={challenge}", {}, b"", timeout)
    except GatewayError as error:
        return Probe(url, problem=str(error), code=error.code, latency=time.monotonic() - began)
    result = Probe(url, latency=time.monotonic() - began)
    try:
        answer = decode_json(body)
    except ValueError:
        answer = None
    if status != 200 or not isinstance(answer, dict) or not isinstance(answer.get("version"), str):
        result.code = "gateway_error"
        result.problem = f"what answers at {url} is no gateway (status {status})"
        return result
    result.found = True
    for name in ("status", "version", "storage", "policy_revision", "policy_source"):
        setattr(result, name, str(answer.get(name) or ""))
    _verify(result, home, challenge, answer.get("proof"))
    return result


def _verify(result: Probe, home: str, challenge: str, proof: Any) -> None:
    try:
        secret = read_secret(home)
    except ConfigurationError as error:
        if " is missing;" not in str(error):
            raise
        result.problem = f"{home} holds no gateway.secret to recognise it by"
        return
    expected = health_proof(secret, challenge, split_url(result.url)[2])
    result.ours = isinstance(proof, str) and same_text(proof, expected)
    if not result.ours:
        result.problem = f"it cannot prove that it is the gateway of {home}"


def locate(
    settings: Settings, tried: list[Tried], *, may_start: bool = True, environ: Mapping[str, str] | None = None
) -> Gateway:
    """Return the gateway that `settings` stand for, starting the local one when none runs and that is allowed.

    Appends to `tried` one row `(what, where from, result)` for each attempt, also when it raises: GatewayError when the
    gateway does not answer or is not to be trusted, NotStarted without `may_start`, ConfigurationError
    `gateway_url is required` when there is none and none can be started.
    """
    if settings.gateway_url is not None:
        return _named(settings, tried)
    found = _running(settings, tried)
    if found is not None:
        return found
    if not settings.auto_start:
        tried.append(("aasm start", f"auto_start ({settings.source('auto_start')})", "not allowed"))
        raise ConfigurationError("gateway_url is required")
    program = find_aasm_program(os.environ if environ is None else environ)
    if program is None:
        tried.append(("aasm start", "PATH", "no program aasm; type: pip install 'agent-assembly[runtime]'"))
        raise ConfigurationError("gateway_url is required")
    if not may_start:
        raise NotStarted(f"no gateway runs; it is started with: {program} start", code="gateway_unreachable")
    try:
        result = start(settings.home, settings.gateway_port, program)
    except GatewayError as error:
        tried.append((f"{program} start", "local default", str(error)))
        raise
    tried.append((f"{program} start", "local default", f"listens at {result.url}"))
    return Gateway(result.url, f"{LOCAL_SOURCE} (started)", result, explicit=False, started=result.started)


def _named(settings: Settings, tried: list[Tried]) -> Gateway:
    url, source = settings.gateway_url, settings.source("gateway_url")
    if settings.gateway_source and source.startswith("variable "):
        source = settings.gateway_source  # inside a run: the launcher knows where it had it from
    explicit = not source.startswith(LOCAL_SOURCE)
    result = probe(url, settings.home, REMOTE_SECONDS)
    if not result.found:
        tried.append((url, source, result.problem))
        raise GatewayError(f"the gateway {url} (from {source}) cannot be used: {result.problem}", code=result.code)
    if not result.ours and not (explicit and settings.api_key):
        remedy = "set AASM_HOME to its home, or api_key" if explicit else "see who listens there"
        tried.append((url, source, f"{result.problem}; {remedy}"))
        raise GatewayError(
            f"the gateway {url} (from {source}) cannot be used: {result.problem}; {remedy}", code="gateway_error"
        )
    tried.append((url, source, f"gateway {result.version}"))
    return Gateway(url, source, result, explicit=explicit)


def _running(settings: Settings, tried: list[Tried]) -> Gateway | None:
    """Return the home's running gateway, or None when there is none and its port is free."""
    home, port = settings.home, settings.gateway_port
    known = read_pid_file(home)
    if known is not None:
        result = probe(known.port, home)
        if result.ours:
            tried.append((result.url, "gateway.pid", f"gateway {result.version}"))
            return Gateway(result.url, f"{LOCAL_SOURCE} (gateway.pid)", result, explicit=False)
        # Refused means dead, and needs no look at the lock; see `holds_lock` for why that look is not for free.
        if result.code != "gateway_unreachable" and holds_lock(home):
            tried.append((result.url, "gateway.pid", result.problem))
            raise GatewayError(
                f"the gateway of {home} (pid {known.pid}) runs but cannot be used: {result.problem}; "
                f"end it with: aasm stop --home {home}",
                code=result.code or "gateway_error",
            )
        tried.append((result.url, "gateway.pid", result.problem or "not ours"))
        if known.port == port and result.code == "gateway_unreachable":
            return None
    source = f"gateway_port ({settings.source('gateway_port')})"
    result = probe(port, home)
    if result.ours:
        tried.append((result.url, source, f"gateway {result.version}"))
        return Gateway(result.url, f"{LOCAL_SOURCE} (port {port})", result, explicit=False)
    tried.append((result.url, source, result.problem))
    if result.code == "gateway_unreachable":
        return None
    raise GatewayError(
        f"port {port} is taken by something that is not the gateway of {home}: {result.problem}; stop it, or set "
        "AASM_GATEWAY_PORT to another port",
        code=result.code or "gateway_error",
    )


def find_aasm_program(environ: Mapping[str, str]) -> str | None:
    """Return the path of `aasm`: beside this Python's program, else on the PATH of `environ`, else None."""
    directories = [os.path.dirname(sys.executable or ""), *environ.get("PATH", "").split(os.pathsep)]
    for directory in directories:
        # What lies in the current directory must not become the governor.
        if os.path.isabs(directory):
            path = os.path.join(directory, "aasm")
            if os.access(path, os.X_OK) and os.path.isfile(path):
                return path
    return None


def start(home: str, port: int, program: str, timeout: float = START_SECONDS) -> Probe:
    """Start the local gateway unless one runs, and return its probe once it is healthy; see `gateway_start`."""
    from agent_assembly.core.gateway_start import start_gateway

    return start_gateway(home, port, program, timeout)


def authorization(
    gateway: Gateway, home: str, api_key: str | None, method: str, path: str, body: bytes
) -> dict[str, str]:
    """The header that opens registering and announcing: the home's proof, else the API key of a named gateway."""
    if gateway.probe.ours:
        return {"Authorization": client_proof(read_secret(home), method, path, body)}
    return {"Authorization": f"Bearer {api_key}"} if api_key and gateway.explicit else {}


def announce_run(gateway: Gateway, home: str, run: Mapping[str, Any], api_key: str | None = None) -> dict[str, Any]:
    """Tell the gateway about a run; return its answer.

    Raises PolicyError with `diagnostics` when the run's policy does not check, GatewayError for everything else.
    """
    body = encode_json(dict(run)).encode()
    headers = authorization(gateway, home, api_key, "POST", "/v1/runs", body)
    headers["User-Agent"] = f"agent-assembly/{__version__}"
    seconds = REMOTE_SECONDS
    status, _, content = gateway_exchange(gateway.url, "POST", "/v1/runs", headers, body, seconds)
    try:
        answer = decode_json(content)
    except ValueError:
        answer = None
    if status in (200, 201) and isinstance(answer, dict):
        return answer
    problem = answer if isinstance(answer, dict) else {}
    code = str(problem.get("code") or "gateway_error")
    detail = str(problem.get("detail") or problem.get("title") or code)
    if code == "invalid_policy":
        errors = problem.get("errors")
        raise PolicyError(detail, diagnostics=[row for row in errors if isinstance(row, dict)] if errors else [])
    raise GatewayError(f"the gateway {gateway.url} answered {status}: {detail}", code=code, status=status)
