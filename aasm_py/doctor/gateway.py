"""The rows about the gateway as it is seen from outside."""

from __future__ import annotations

import os
import shlex

from aasm_py.doctor import ports
from aasm_py.doctor.commands import (
    aasm,
    aasm_program,
    forget_line,
    install_line,
    restart_line,
    set_line,
    start_line,
)
from aasm_py.doctor.home import mended_first
from aasm_py.doctor.keys import check_key
from aasm_py.doctor.locks import process_is_stopped
from aasm_py.doctor.look import Check, Look
from aasm_py.doctor.policies import check_policy
from aasm_py.doctor.ports import check_port
from aasm_py.doctor.proxies import check_proxies
from aasm_py.doctor.sighting import NAMED_SECONDS, Sighting, is_loopback, local_gateway, sight
from aasm_py.doctor.versions import check_clock, check_versions
from agent_assembly.diagnosis import Finding, Probe, probe, split_url

_TLS_SECONDS = 0.5
_TRUST = "export SSL_CERT_FILE=/path/to/its-authority.pem"


def check_gateway(look: Look) -> Finding:
    """Which gateway a program would get, whether it answers, and whose it is."""
    seen = sight(look)
    if seen.state in ("own", "keyed", "unproven"):
        return _answers(look, seen)
    if seen.state == "silent":
        found, remedy = _silent(look, seen)
        return Finding("gateway", "fail", found, remedy)
    if seen.state == "stuck":
        return _stuck(look, seen)
    if seen.state == "taken":
        return _taken(look, seen)
    if seen.state == "none":
        return _none(look, seen)
    return Finding("gateway", "skip", seen.problem)


def _taken(look: Look, seen: Sighting) -> Finding:
    port = split_url(seen.url)[2]
    if not ports.is_own(look, port):
        found = f"none runs for {look.home}, and none can start while port {port} is held; see the row port"
        return Finding("gateway", "skip", found)
    holder = ports.holder(look, port)
    pid = f" (pid {holder.pid})"
    if holder.pid is not None and process_is_stopped(holder.pid):
        found = f"the gateway of {look.home}{pid} is stopped: {seen.problem}"
        return Finding("gateway", "fail", found, f"kill -CONT {holder.pid}")
    found = f"the gateway of {look.home}{pid} does not answer yet: it still reads a long audit log, or hangs"
    return Finding("gateway", "fail", f"{found}; {seen.problem}", f"sleep 10 && aasm-py doctor; or: kill {holder.pid}")


def _answers(look: Look, seen: Sighting) -> Finding:
    answer = _probe(seen)
    found = f"{seen.url} answers in {answer.latency * 1000:.1f} ms, version {answer.version}"
    if seen.state == "unproven":
        return _unproven(look, seen, found)
    whose = "your own (proof)" if seen.state == "own" else "not your own: your api_key opens it"
    found = f"{found}, {whose}; from {seen.source}"
    if answer.status in ("", "ok"):
        return Finding("gateway", "ok", found)
    if seen.state == "keyed" or look.home is None:
        return Finding("gateway", "fail", f"{found}; it cannot keep records: {answer.storage}", "tell its operator")
    room = f"df -h {shlex.quote(look.path('audit'))}; or: {restart_line(look, split_url(seen.url)[2])}"
    return Finding("gateway", "fail", f"{found}; it cannot keep records: {answer.storage}", room)


def _unproven(look: Look, seen: Sighting, found: str) -> Finding:
    """Somebody's gateway: of another home, or a program that only speaks like one."""
    holder = ports.holder(look, split_url(seen.url)[2]) if is_loopback(seen.url) else ports.Holder()
    whose = f" (it is that of {holder.home})" if holder.home and holder.home != look.home else ""
    found = f"{found}, but {seen.problem}{whose}, and there is no api_key; from {seen.source}"
    remedies = [f"export AASM_HOME={shlex.quote(holder.home)}"] if holder.home and holder.home != look.home else []
    if holder.home == look.home:
        remedies = [restart_line(look, split_url(seen.url)[2])]
    if seen.named:
        remedies.append(forget_line(look, "gateway_url"))
    return Finding("gateway", "fail", found, "; or: ".join(remedies) or "start the program anew, with aasm-run")


def _silent(look: Look, seen: Sighting) -> tuple[str, str]:
    """A gateway that was named and cannot be used: what hinders, and what to type."""
    place = f"{seen.url} (from {seen.source})"
    secure, host, port, prefix = split_url(seen.url)
    if seen.cause == "certificate":
        return f"{place}: {seen.problem}", f"{_TRUST}; or: {_another(look, seen)}"
    if seen.cause == "plain":
        plain = set_line(look, "gateway_url", f"http://{host}:{port}{prefix}")
        return f"{place} does not speak TLS", f"{plain}; or: {_another(look, seen)}"
    if seen.cause == "stranger":
        return _stranger(look, seen, place)
    if seen.cause == "hangs":
        holder = f"; it is {ports.holder(look, port)}" if is_loopback(seen.url) and not _is_local(look, seen) else ""
        found = f"{place} accepts the connection and does not answer within {NAMED_SECONDS:g} s{holder}"
    elif seen.cause == "closed to us":
        found = f"{place}: no connection within {NAMED_SECONDS:g} s; another network, or a firewall between"
    elif seen.cause == "refused":
        found = f"{place} {seen.problem.removeprefix(f'{host}:{port} ')}"
    else:
        found = f"{place}: {seen.problem}"
    if seen.cause == "hangs" and _is_local(look, seen):
        return found, _revival(look, seen)
    startable = seen.cause == "refused" and is_loopback(seen.url) and not secure and aasm_program(look) is not None
    if startable and local_gateway(look).state == "none":
        return f"{found}; no gateway runs", f"{start_line(look, port)}; or: {_another(look, seen)}"
    return f"{found}{_meanwhile(look)}", _another(look, seen)


def _is_local(look: Look, seen: Sighting) -> bool:
    local = local_gateway(look)
    return local.state == "stuck" and is_loopback(seen.url) and split_url(local.url)[2] == split_url(seen.url)[2]


def _stranger(look: Look, seen: Sighting, place: str) -> tuple[str, str]:
    secure, host, port, prefix = split_url(seen.url)
    if "(status 421)" in seen.problem:
        by_number = set_line(look, "gateway_url", f"http://127.0.0.1:{port}{prefix}")
        return f"{place} is a gateway that does not answer to the name {host}: it is for this machine only", by_number
    if not secure and _speaks_tls(seen):
        safe = set_line(look, "gateway_url", f"https://{host}:{port}{prefix}")
        return f"{place} wants TLS: {seen.problem}", f"{safe}; or: {_another(look, seen)}"
    holder = f"; it is {ports.holder(look, port)}" if is_loopback(seen.url) else ""
    return f"{place}: {seen.problem}{holder}{_meanwhile(look)}", _another(look, seen)


def _speaks_tls(seen: Sighting) -> bool:
    answer = probe(f"https://{seen.url.partition('://')[2]}", "/nonexistent", _TLS_SECONDS)
    return answer.found or "certificate" in answer.problem or "(status" in answer.problem


def _meanwhile(look: Look) -> str:
    local = local_gateway(look)
    return f"; your own gateway answers at {local.url}" if local.state == "own" else ""


def _another(look: Look, seen: Sighting) -> str:
    if seen.named:
        return forget_line(look, "gateway_url")
    return "start the program anew, with aasm-run"


def _stuck(look: Look, seen: Sighting) -> Finding:
    known = look.pid_file
    pid = f" (pid {known.pid})" if known is not None else ""
    if seen.probe is not None and seen.probe.found:
        found = f"the gateway of {look.home}{pid} answers at {seen.url}, but {seen.problem}"
        if not os.path.lexists(look.path("gateway.secret")):
            return Finding("gateway", "skip", f"{found}; see the row secrets")
        return Finding(
            "gateway", "fail", f"{found}: gateway.secret was replaced", restart_line(look, split_url(seen.url)[2])
        )
    stopped = "is stopped" if _is_stopped(look) else "hangs"
    found = f"the gateway of {look.home}{pid} {stopped}: {seen.problem}"
    return Finding("gateway", "fail", found, _revival(look, seen))


def _revival(look: Look, seen: Sighting) -> str:
    known = look.pid_file
    if known is None:
        return aasm(look, "stop")
    if _is_stopped(look):
        return f"kill -CONT {known.pid}"
    return f"kill -KILL {known.pid} && {start_line(look, split_url(seen.url)[2])}"


def _is_stopped(look: Look) -> bool:
    known = look.pid_file
    return known is not None and process_is_stopped(known.pid)


def _none(look: Look, seen: Sighting) -> Finding:
    known = look.pid_file
    before = f"; the last one (pid {known.pid}) is gone" if known is not None else ""
    tried = f"nothing listens at {seen.url} ({seen.source}){before}"
    first = mended_first(look)
    if first:
        return Finding("gateway", "skip", f"none runs{before}, and none can be started yet: see the row {first}")
    if aasm_program(look) is None:
        found = f"gateway_url is required: none is named, {tried}, and there is no program aasm to start one"
        return Finding("gateway", "fail", found, install_line(look))
    start = start_line(look)
    if not look.settings.auto_start:
        why = f"auto_start is off ({look.settings.source('auto_start')})"
        remedy = f"{start}; or: {forget_line(look, 'auto_start')}"
        return Finding("gateway", "fail", f"gateway_url is required: none is named, {tried}, and {why}", remedy)
    found = f"none runs; {tried}; the next program that needs it starts it"
    return Finding("gateway", "warn", found, start)


def _probe(seen: Sighting) -> Probe:
    assert seen.probe is not None
    return seen.probe


CHECKS: tuple[Check, ...] = (
    Check("gateway", "gateway", check_gateway),
    Check("gateway key", "gateway", check_key),
    Check("port", "gateway", check_port),
    Check("versions", "gateway", check_versions),
    Check("policy", "gateway", check_policy),
    Check("clock", "gateway", check_clock),
    Check("proxies", "gateway", check_proxies),
)
