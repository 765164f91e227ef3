"""What this kernel would let a stronger mode do: tried, in a process of its own, and said as JSON.

The process runs this file by its path, without site-packages, so it imports the standard library alone; `modes.py`
starts it. Each attempt is made in a fork: what it changes, and what kills it, ends with it. Nothing is attached,
pinned, written or left behind.
A list of features says what a kernel was built with; whether it works here is what the attempt says.
"""

from __future__ import annotations

import array
import errno
import json
import os
import re
import signal
import socket
import struct
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

Facts = dict[str, Any]

CAPABILITIES = {"BPF": 39, "PERFMON": 38, "NET_ADMIN": 12, "SYS_ADMIN": 21}
KNOBS = ("io_uring_disabled", "unprivileged_bpf_disabled", "apparmor_restrict_unprivileged_userns")
BTF = "/sys/kernel/btf/vmlinux"
ATTEMPT_SECONDS = 2
READ_LIMIT = 1 << 20
BTF_LIMIT = 64 << 20

# Numbers of syscalls: bpf and seccomp differ, the newer ones do not.
SYSCALLS = {"x86_64": {"bpf": 321, "getppid": 110}, "aarch64": {"bpf": 280, "getppid": 173}}
LANDLOCK_CREATE_RULESET, LANDLOCK_RESTRICT_SELF, LSM_LIST_MODULES = 444, 446, 461
LSM_NAMES = (
    *("capability", "selinux", "smack", "tomoyo", "apparmor", "yama", "loadpin"),
    *("safesetid", "lockdown", "bpf", "landlock", "ima", "evm", "ipe"),
)
LSM_FIRST = 100
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000


class ProgramType(NamedTuple):
    """One kind of BPF program: enum bpf_prog_type, enum bpf_attach_type, and the type of the kernel it attaches to."""

    number: int
    attach: int = 0
    target: tuple[int, str] | None = None


_FUNC, _TYPEDEF = 12, 8
PROGRAM_TYPES = {
    "cgroup/connect4": ProgramType(18, 10),
    "cgroup/connect6": ProgramType(18, 11),
    "cgroup/sendmsg4": ProgramType(18, 14),
    "cgroup/sendmsg6": ProgramType(18, 15),
    "cgroup/sock_create": ProgramType(9, 2),
    "cgroup_skb/egress": ProgramType(8, 1),
    "raw_tp": ProgramType(17),
    "tp_btf": ProgramType(26, 23, (_TYPEDEF, "btf_trace_sched_process_exec")),
    "fentry": ProgramType(26, 24, (_FUNC, "security_file_open")),
    "fmod_ret": ProgramType(26, 26, (_FUNC, "security_file_open")),
    "lsm": ProgramType(29, 27, (_FUNC, "bpf_lsm_file_open")),
    "lsm_cgroup": ProgramType(29, 43, (_FUNC, "bpf_lsm_socket_connect")),
}


def capabilities_of(status: str) -> dict[str, bool] | None:
    """Which of `CAPABILITIES` are effective, by the text of /proc/self/status; None where it does not say."""
    found = re.search(r"^CapEff:\s*([0-9a-fA-F]{1,16})$", status, re.MULTILINE)
    if found is None:
        return None
    bits = int(found[1], 16)
    return {name: bool(bits >> bit & 1) for name, bit in CAPABILITIES.items()}


def cgroup2_mount(mountinfo: str) -> tuple[str, str] | None:
    """The directory where cgroup v2 is mounted and the cgroup that is its root, by the text of mountinfo."""
    for line in mountinfo.splitlines():
        before, separator, after = line.partition(" - ")
        fields = before.split(" ")
        if separator and len(fields) > 5 and after.split(" ")[0] == "cgroup2":
            return _unescaped(fields[4]), _unescaped(fields[3])
    return None


def cgroup2_directory(mountinfo: str, membership: str) -> str | None:
    """The directory of this process's own cgroup; the mount's where that lies outside; None without cgroup v2."""
    mount = cgroup2_mount(mountinfo)
    if mount is None:
        return None
    directory, root = mount
    own = next((line[3:] for line in membership.splitlines() if line.startswith("0::")), "/")
    within = own if root == "/" else own[len(root) :] if own == root or own.startswith(root + "/") else ""
    parts = [part for part in within.split("/") if part]
    return directory if ".." in parts else os.path.join(directory, *parts)


def _unescaped(field: str) -> str:
    """The kernel writes blanks, line ends and backslashes of paths as three octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)


def btf_ids(data: bytes, wanted: set[tuple[int, str]]) -> dict[tuple[int, str], int]:
    """The ids of types by `(kind, name)` in BTF of this machine's byte order; those that are not there are left out."""
    magic, _, _, header, type_offset, type_length, text_offset, text_length = struct.unpack_from("=HBBIIIII", data)
    if magic != 0xEB9F:
        return {}
    texts = data[header + text_offset : header + text_offset + text_length]
    names = {(kind, texts.find(b"\0" + name.encode() + b"\0") + 1): (kind, name) for kind, name in wanted}
    words = array.array("I", data[header + type_offset : header + type_offset + type_length])
    # Words that follow a type, by kind: a fixed number, or a number for each member.
    fixed = {1: 1, 3: 3, 14: 1, 17: 1}
    each = {4: 3, 5: 3, 6: 2, 13: 2, 15: 3, 19: 3}
    found: dict[tuple[int, str], int] = {}
    at, number, end = 0, 1, len(words)
    while at + 2 < end:
        info = words[at + 1]
        kind = info >> 24 & 0x1F
        key = (kind, words[at])
        if key in names and words[at]:
            found.setdefault(names[key], number)
            if len(found) == len(names):
                break
        at += 3 + fixed.get(kind, 0) + each.get(kind, 0) * (info & 0xFFFF)
        number += 1
    return found


def main() -> int:
    """Print the facts as one line of JSON."""
    signal.alarm(10)
    release = os.uname().release
    facts: Facts = {"release": release, "machine": os.uname().machine, "uid": os.geteuid()}
    facts["capabilities"] = capabilities_of(_read("/proc/self/status"))
    mountinfo = _read("/proc/self/mountinfo")
    directory = cgroup2_directory(mountinfo, _read("/proc/self/cgroup"))
    facts["cgroup2"] = None if directory is None else {"path": directory, "writable": _writable(directory)}
    facts["proc"] = bool(mountinfo)
    facts["btf"] = os.path.exists(BTF)
    facts["knobs"] = {name: _read(f"/proc/sys/kernel/{name}").strip() or None for name in KNOBS}
    facts["lsm"] = [name for name in _read("/sys/kernel/security/lsm").strip().split(",") if name] or None
    numbers = SYSCALLS.get(facts["machine"])
    try:
        import ctypes
    except ImportError:
        facts["untried"] = "this Python has no ctypes"
    else:
        if numbers is None or ctypes.sizeof(ctypes.c_void_p) != 8:
            facts["untried"] = f"its syscalls are not known for {facts['machine']}"
        else:
            facts.update(_attempts(_Calls(ctypes, numbers), facts["lsm"]))
    sys.stdout.write(json.dumps(facts) + "\n")
    return 0


def _writable(directory: str) -> bool:
    return os.access(directory, os.W_OK | os.X_OK)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read(READ_LIMIT)
    except OSError:
        return ""


def _attempts(calls: _Calls, lsm: list[str] | None) -> Facts:
    programs = in_fork(calls.load_programs)
    return {
        "lsm": lsm or in_fork(calls.lsm_names),
        "programs": programs if isinstance(programs, dict) else None,
        "programs_problem": programs if isinstance(programs, str) else None,
        "landlock_abi": in_fork(calls.landlock_abi),
        "landlock_files": in_fork(calls.landlock_files),
        "landlock_connect": in_fork(calls.landlock_connect),
        "seccomp": in_fork(calls.seccomp),
        "namespaces": in_fork(calls.namespaces),
    }


def in_fork(attempt: Callable[[], Any], seconds: int = ATTEMPT_SECONDS) -> Any:
    """What `attempt` returns (made of JSON) when it runs in a fork; text that says why where it did not come back."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reading)
            signal.alarm(seconds)
            os.write(writing, json.dumps({"found": _found(attempt)}).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        answer = file.read(READ_LIMIT)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return "hangs" if number == signal.SIGALRM else f"is killed by {signal.Signals(number).name}"
    try:
        return json.loads(answer)["found"]
    except (ValueError, KeyError):
        return f"ended with {os.waitstatus_to_exitcode(status)}"


def _found(attempt: Callable[[], Any]) -> Any:
    try:
        return attempt()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))


class _Calls:
    """The attempts. Each returns True where it worked, the name of the error where it did not, or what it found."""

    def __init__(self, ctypes: Any, numbers: Mapping[str, int]) -> None:
        self._ctypes = ctypes
        self._numbers = numbers
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.syscall.restype = ctypes.c_long

    def _call(self, function: Any, *arguments: Any) -> int:
        wide = [self._ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
        result = int(function(*wide))
        if result < 0:
            number = self._ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result

    def _syscall(self, number: int, *arguments: Any) -> int:
        return self._call(self._libc.syscall, number, *arguments)

    def load_programs(self) -> dict[str, Any]:
        # Kernels before 5.11 count what a program takes as locked memory.
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        if soft != hard:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
        results = {name: _found(partial(self._load, row, 0)) for name, row in PROGRAM_TYPES.items()}
        # Without a target, EPERM from all of them means that rights are missing: the types need no search then.
        targets = {name: row.target for name, row in PROGRAM_TYPES.items() if row.target is not None}
        if all(results[name] == "EPERM" for name in targets):
            return results
        ids = self._btf(set(targets.values()))
        for name, target in targets.items():
            attempt = partial(self._load, PROGRAM_TYPES[name], ids.get(target, 0))
            results[name] = _found(attempt) if target in ids else f"no {target[1]} in BTF"
        return results

    def _btf(self, wanted: set[tuple[int, str]]) -> dict[tuple[int, str], int]:
        try:
            with open(BTF, "rb") as file:
                return btf_ids(file.read(BTF_LIMIT), wanted)
        except (OSError, struct.error, ValueError):
            return {}

    def _load(self, row: ProgramType, target: int) -> bool:
        # The program that returns 1, which lets pass in a cgroup; elsewhere the program that returns 0.
        value = 1 if row.number in (8, 9, 18) or row.attach == 43 else 0
        program = self._ctypes.create_string_buffer(struct.pack("=BBhiBBhi", 0xB7, 0, 0, value, 0x95, 0, 0, 0), 16)
        licence = self._ctypes.create_string_buffer(b"GPL")
        addresses = [self._ctypes.addressof(program), self._ctypes.addressof(licence)]
        attributes = struct.pack("=IIQQIIQII", row.number, 2, *addresses, 0, 0, 0, 0, 0)
        # Behind the name and the interface: the attach type, and 36 bytes on the id of the type to attach to.
        attributes += struct.pack("=16sII36xI", b"", 0, row.attach, target)
        buffer = self._ctypes.create_string_buffer(attributes.ljust(128, b"\0"), 128)
        os.close(self._syscall(self._numbers["bpf"], 5, buffer, 128))
        return True

    def lsm_names(self) -> list[str] | None:
        ids = (self._ctypes.c_uint64 * 64)()
        size = self._ctypes.c_uint32(512)
        count = self._syscall(LSM_LIST_MODULES, ids, self._ctypes.byref(size), 0)
        known = dict(enumerate(LSM_NAMES, LSM_FIRST))
        return [known.get(ids[index], str(ids[index])) for index in range(count)]

    def landlock_abi(self) -> int:
        return self._syscall(LANDLOCK_CREATE_RULESET, 0, 0, 1)

    def landlock_files(self) -> bool | str:
        """Forbid reading directories, and read one."""
        self._restrict(struct.pack("=Q", 1 << 3))
        try:
            os.close(os.open("/", os.O_RDONLY | os.O_DIRECTORY))
        except PermissionError:
            return True
        return "does not deny"

    def landlock_connect(self) -> bool | str:
        """Forbid TCP connections, and try one to a port of our own where nobody listens."""
        with socket.socket() as taken, socket.socket() as outgoing:
            try:
                taken.bind(("127.0.0.1", 0))
                port = taken.getsockname()[1]
            except OSError:
                # The loopback interface of a fresh network namespace is down; denied is denied there too.
                port = 9
            self._restrict(struct.pack("=QQ", 0, 1 << 1))
            outgoing.settimeout(1)
            return True if outgoing.connect_ex(("127.0.0.1", port)) == errno.EACCES else "does not deny"

    def _restrict(self, attributes: bytes) -> None:
        buffer = self._ctypes.create_string_buffer(attributes, len(attributes))
        ruleset = self._syscall(LANDLOCK_CREATE_RULESET, buffer, len(attributes), 0)
        self._no_new_privileges()
        self._syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0)

    def _no_new_privileges(self) -> None:
        self._call(self._libc.prctl, 38, 1, 0, 0, 0)

    def seccomp(self) -> bool | str:
        """Forbid one harmless syscall, and make it."""
        number = self._numbers["getppid"]
        filter_ = [
            (0x20, 0, 0, 0),
            (0x15, 0, 1, number),
            (0x06, 0, 0, 0x00050000 | errno.EXDEV),
            (0x06, 0, 0, 0x7FFF0000),
        ]
        code = self._ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *row) for row in filter_))
        program = self._ctypes.create_string_buffer(struct.pack("=H6xQ", len(filter_), self._ctypes.addressof(code)))
        self._no_new_privileges()
        self._call(self._libc.prctl, 22, 2, program, 0, 0)
        try:
            self._syscall(number)
        except OSError as error:
            return True if error.errno == errno.EXDEV else errno.errorcode.get(error.errno or 0, "fails")
        return "does not deny"

    def namespaces(self) -> bool:
        """Leave for a user and a network namespace of one's own."""
        self._call(self._libc.unshare, CLONE_NEWUSER | CLONE_NEWNET)
        return True


if __name__ == "__main__":
    sys.exit(main())
