"""The rows about the interception modes: which one runs, what it does not cover, and why not a stronger one."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from typing import Any

from aasm_py.doctor import kernel
from aasm_py.doctor.child import run
from aasm_py.doctor.kernel import Facts
from aasm_py.doctor.look import Check, Look
from agent_assembly.diagnosis import Finding
from agent_assembly.exceptions import ConfigurationError
from agent_assembly.launching import resolve_mode

KERNEL_SECONDS = 2.5
NOT_BUILT = "not available in this build"
COVERS = "checks each tool call of the governed frameworks, inside the agent's own process"
COVERS_NOT = (
    "does not cover direct calls of a tool's function, network access and programs of the agent's own, tools that a "
    "model's provider runs, or an agent that attacks its governor with your rights"
)
_PROGRAMS = {
    "cgroup egress programs": ("cgroup/connect4", "cgroup/connect6", "cgroup/sendmsg4", "cgroup/sendmsg6"),
    "cgroup packet filters": ("cgroup_skb/egress",),
    "exec tracing": ("tp_btf",),
    "lsm programs": ("lsm",),
}
Offer = tuple[list[str], list[str]]


def kernel_facts(look: Look) -> Facts:
    """What the kernel would let a stronger mode do, in the words of `kernel.main`; `skipped` says why not."""
    return look.once("kernel", lambda: look_at_kernel(look.environ, look.left(KERNEL_SECONDS)))


def look_at_kernel(environ: Mapping[str, str], seconds: float) -> Facts:
    """Make the attempts in a process of their own, within `seconds`; nothing is changed and nothing left behind."""
    if not sys.platform.startswith("linux"):
        return {"skipped": f"this is {platform.system() or sys.platform}, not Linux"}
    if not sys.executable:
        return {"skipped": "this Python does not know its own program"}
    command = [sys.executable, "-I", "-S", os.path.abspath(kernel.__file__)]
    try:
        ended = run(command, environ, seconds)
    except (OSError, ValueError) as error:
        return {"skipped": f"the attempts could not be started: {getattr(error, 'strerror', None) or error}"}
    try:
        facts = json.loads(ended.output)
    except ValueError:
        facts = None
    if ended.code != 0 or not isinstance(facts, dict):
        return {"skipped": f"the process that tries it {ended.why(seconds)}"}
    return facts


def sdk_only(look: Look) -> Finding:
    """The one mode that is built."""
    broken = next((name for name in ("mode", "config.yaml") if name in look.problems), None)
    if broken is not None:
        return Finding("mode sdk-only", "skip", f"no mode runs as long as {broken} cannot be used; see above")
    mode, source = look.settings.mode, look.settings.source("mode")
    try:
        running, why = resolve_mode(mode)
    except ConfigurationError:
        return Finding("mode sdk-only", "skip", f"not asked for: mode is {mode} (from {source})")
    reason = "runs, by mode auto" if why else f"runs (from {source})"
    return Finding(f"mode {running}", "ok", f"{reason}; {COVERS}; {COVERS_NOT}")


def proxy(look: Look) -> Finding:
    """The mode that would lead traffic through a sidecar."""
    return _stronger(look, "proxy", proxy_offer)


def ebpf(look: Look) -> Finding:
    """The mode that would enforce in the kernel."""
    return _stronger(look, "ebpf", ebpf_offer)


def _stronger(look: Look, mode: str, offer: Callable[[Facts], Offer]) -> Finding:
    check = f"mode {mode}"
    why = NOT_BUILT if mode != "ebpf" or sys.platform.startswith("linux") else "not supported on this platform"
    found = f"{why}; {_summary(kernel_facts(look), offer)}"
    if "mode" in look.problems or look.settings.mode != mode:
        return Finding(check, "skip", found)
    source = look.settings.source("mode")
    return Finding(check, "fail", f"asked for (from {source}), but {found}", _remedy(look, mode, source))


def _summary(facts: Facts, offer: Callable[[Facts], Offer]) -> str:
    if "skipped" in facts:
        return f"what this machine could offer is not known: {facts['skipped']}"
    number = re.match(r"\d+\.\d+", str(facts["release"]))
    kernel = f"kernel {number[0] if number else facts['release']}"
    can, cannot = offer(facts)
    parts = [f"{kernel} would allow: {', '.join(can) or 'nothing that it needs'}"] if can or cannot else [kernel]
    if cannot:
        parts.append(f"missing: {', '.join(cannot)}")
    if facts.get("untried"):
        parts.append(f"nothing was tried: {facts['untried']}")
    return "; ".join(parts)


def ebpf_offer(facts: Facts) -> Offer:
    """What of mode ebpf would work here, and what would not."""
    can: list[str] = []
    cannot: list[str] = []
    programs: dict[str, Any] = facts.get("programs") or {}
    if facts.get("programs_problem"):
        cannot.append(f"BPF programs (the attempt {facts['programs_problem']})")
    failures = {str(result) for result in programs.values()}
    if len(failures) == 1 and True not in programs.values():
        cannot.append(f"BPF programs ({failures.pop()})")
        programs = {}
    for what, names in _PROGRAMS.items() if programs else ():
        failed = [programs[name] for name in names if programs[name] is not True]
        _sort_in(failed[0] if failed else True, what, can, cannot)
    cgroup = facts.get("cgroup2")
    if cgroup is not None:
        (can if cgroup["writable"] else cannot).append(f"writing to the cgroup {cgroup['path']}")
    else:
        cannot.append("cgroup2" if facts.get("proc") else "/proc, so cgroup2 cannot be found")
    if not facts.get("btf"):
        cannot.append("BTF")
    capabilities = facts.get("capabilities") or {}
    if not capabilities.get("SYS_ADMIN"):
        cannot += [f"CAP_{name}" for name in ("BPF", "NET_ADMIN", "PERFMON") if capabilities.get(name) is False]
    return can, cannot


def proxy_offer(facts: Facts) -> Offer:
    """What would keep a program from going round the sidecar here, and what would not."""
    can: list[str] = []
    cannot: list[str] = []
    if facts.get("untried"):
        return can, cannot
    _sort_in(facts["namespaces"], "user and network namespaces", can, cannot)
    abi = facts["landlock_abi"]
    if isinstance(abi, int):
        _sort_in(facts["landlock_files"], f"Landlock {abi} for files", can, cannot)
        _sort_in(facts["landlock_connect"], f"Landlock {abi} for TCP connections", can, cannot)
    else:
        cannot.append(f"Landlock ({abi})")
    _sort_in(facts["seccomp"], "seccomp filters", can, cannot)
    return can, cannot


def _sort_in(result: Any, what: str, can: list[str], cannot: list[str]) -> None:
    if result is True:
        can.append(what)
    else:
        cannot.append(f"{what} ({result})")


def _remedy(look: Look, mode: str, source: str) -> str:
    if source == "argument":
        return f"leave out --mode {mode}, or give --mode sdk-only"
    # Whatever else is set: the variable stands above the file.
    sure = "export AASM_MODE=sdk-only"
    if source.startswith("variable "):
        return sure if look.settings.shadowed("mode") else f"unset AASM_MODE; or: {sure}"
    path, _, line = source.rpartition(":")
    if line.isdigit() and _line_of(path, int(line)).count(mode) == 1 and sys.platform.startswith("linux"):
        return f"sed -i {shlex.quote(f'{line}s/{mode}/sdk-only/')} {shlex.quote(path)}; or: {sure}"
    return sure


def _line_of(path: str, number: int) -> str:
    """One line of the configuration, which was read as a bounded regular file a moment ago."""
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            lines = file.read(64 << 10).split("\n")
    except OSError:
        return ""
    return lines[number - 1] if 0 < number <= len(lines) else ""


CHECKS: tuple[Check, ...] = (
    Check("mode sdk-only", "modes", sdk_only),
    Check("mode proxy", "modes", proxy),
    Check("mode ebpf", "modes", ebpf),
)
