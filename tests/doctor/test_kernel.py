"""What is tried of the kernel: for real, with all rights, some, and none."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from aasm_py.doctor import kernel, modes
from aasm_py.doctor.modes import ebpf_offer, look_at_kernel, proxy_offer

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="tries a Linux kernel")

CGROUP2_HOST = """\
24 30 0:22 / /sys rw,nosuid,nodev,noexec,relatime shared:6 - sysfs sysfs rw
34 24 0:29 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate
"""
CONTAINER = """\
682 590 0:52 / / rw,relatime master:262 - overlay overlay rw,lowerdir=/var/lib/docker/overlay2/l/A:/var/lib/docker/l/B
690 689 0:28 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate
"""
CONTAINER_OF_THE_HOST = """\
690 689 0:28 /docker/0123abc /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw
"""
ONLY_V1 = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
"""
HYBRID = ONLY_V1 + "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
ODD_NAME = "41 31 0:38 / /mnt/my\\040cgroups\\134x rw - cgroup2 none rw\n"
LYING = "41 31 0:38 /cgroup2 /data rw,relatime - ext4 /dev/cgroup2 rw,cgroup2\n"


@pytest.mark.parametrize(
    ("mountinfo", "membership", "directory"),
    [
        (
            CGROUP2_HOST,
            "0::/user.slice/user-1000.slice/session-3.scope\n",
            "user.slice/user-1000.slice/session-3.scope",
        ),
        (CGROUP2_HOST, "0::/\n", ""),
        (CGROUP2_HOST, "", ""),
        (CONTAINER, "0::/\n", ""),
        (CONTAINER, "0::/../../elsewhere\n", ""),
        (CONTAINER_OF_THE_HOST, "0::/docker/0123abc/inner\n", "inner"),
        (CONTAINER_OF_THE_HOST, "0::/docker/0123abcd\n", ""),
    ],
)
def test_the_cgroup_is_found_where_it_is_mounted(mountinfo: str, membership: str, directory: str) -> None:
    """The process's own cgroup below the mount, the mount itself where that lies outside of what is mounted."""
    found = kernel.cgroup2_directory(mountinfo, membership)
    assert found == "/sys/fs/cgroup" + (f"/{directory}" if directory else "")


@pytest.mark.parametrize(
    ("mountinfo", "directory"),
    [
        (ONLY_V1, None),
        (HYBRID, "/sys/fs/cgroup/unified"),
        (ODD_NAME, "/mnt/my cgroups\\x"),
        (LYING, None),
        ("", None),
        ("nonsense - cgroup2\n - cgroup2 x\n\x00", None),
    ],
)
def test_only_a_mount_of_cgroup2_counts(mountinfo: str, directory: str | None) -> None:
    """Version 1 is none, a hybrid's v2 part is one wherever it is, and names that only sound so are not taken."""
    assert kernel.cgroup2_directory(mountinfo, "1:cpu:/x\n0::/\n") == directory


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("CapEff:\t000001fffeffffff", {"BPF", "PERFMON", "NET_ADMIN", "SYS_ADMIN"}),
        ("CapEff:\t0000000000000000", set()),
        ("CapEff:\t00000000a80425fb", set()),
        ("CapEff:\t0000008000001000", {"BPF", "NET_ADMIN"}),
        ("CapEff:\t0000004000000000", {"PERFMON"}),
    ],
    ids=["root", "user", "container", "given two", "given one"],
)
def test_effective_capabilities_are_read_bit_by_bit(line: str, names: set[str]) -> None:
    """Those of the process, not those that it could get."""
    found = kernel.capabilities_of(f"Name:\tpython\nCapPrm:\t000001ffffffffff\n{line}\nCapBnd:\t000001ffffffffff\n")
    assert found is not None
    assert {name for name, has in found.items() if has} == names


@pytest.mark.parametrize("text", ["", "CapEff:\n", "CapEff:\tzz\n", "XCapEff:\t1\n"])
def test_without_a_line_capabilities_are_not_known(text: str) -> None:
    """Not known is neither yes nor no."""
    assert kernel.capabilities_of(text) is None


def btf(types: Sequence[tuple[int, str, int]]) -> bytes:
    """BTF with types of `(kind, name, members)`, as the kernel's header says."""
    extra = {1: 4, 3: 12, 14: 4, 17: 4}
    each = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}
    texts, body = b"\0", b""
    for kind, name, members in types:
        # As the kernel's own: each text once.
        if name and f"\0{name}\0".encode() not in texts:
            texts += f"{name}\0".encode()
        offset = texts.index(f"\0{name}\0".encode()) + 1 if name else 0
        body += struct.pack("=III", offset, kind << 24 | members, 0)
        body += b"\xaa" * (extra.get(kind, 0) + each.get(kind, 0) * members)
    return struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(body), len(body), len(texts)) + body + texts


def test_types_are_counted_over_all_kinds() -> None:
    """The id of a type is its place in the list, whatever stands before it; a name counts with its kind only."""
    rows = [(kind, f"name{kind}", kind % 4) for kind in range(1, 20)]
    data = btf([*rows, (12, "wanted", 0), (8, "wanted", 0), (12, "wanted_not", 0)])
    assert kernel.btf_ids(data, {(12, "wanted")}) == {(12, "wanted"): 20}
    assert kernel.btf_ids(data, {(8, "wanted"), (12, "absent")}) == {(8, "wanted"): 21}
    assert kernel.btf_ids(data[:60], {(12, "wanted")}) == {}
    assert kernel.btf_ids(b"\0" * 64, {(12, "wanted")}) == {}


# An attempt that shares no code with ours: the structure of the kernel's header, and the program to deny nothing.
LOADING = """
import ctypes, platform
class Attributes(ctypes.Structure):
    _fields_ = [("prog_type", ctypes.c_uint32), ("insn_cnt", ctypes.c_uint32), ("insns", ctypes.c_uint64),
        ("license", ctypes.c_uint64), ("log_level", ctypes.c_uint32), ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_uint64), ("kern_version", ctypes.c_uint32), ("prog_flags", ctypes.c_uint32),
        ("prog_name", ctypes.c_char * 16), ("prog_ifindex", ctypes.c_uint32),
        ("expected_attach_type", ctypes.c_uint32), ("rest", ctypes.c_uint8 * 72)]
code = (ctypes.c_uint64 * 2)(0x00000001000000b7, 0x0000000000000095)
licence = ctypes.c_char_p(b"GPL")
attributes = Attributes(prog_type=18, insn_cnt=2, insns=ctypes.addressof(code),
    license=ctypes.cast(licence, ctypes.c_void_p).value, expected_attach_type=10)
libc = ctypes.CDLL(None, use_errno=True)
number = {"x86_64": 321, "aarch64": 280}[platform.machine()]
result = libc.syscall(number, 5, ctypes.byref(attributes), ctypes.sizeof(attributes))
print("loads" if result >= 0 else ctypes.get_errno())
print(libc.syscall(444, None, 0, 1))
print(libc.unshare(0x10000000 | 0x40000000))
"""
EPERM = "1"


@pytest.fixture
def readable() -> Iterator[Path]:
    """A directory that other users can read, with the file that makes the attempts."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    shutil.copy(kernel.__file__, directory / "kernel.py")
    (directory / "loading.py").write_text(LOADING)
    for name in ("kernel.py", "loading.py"):
        (directory / name).chmod(0o644)
    yield directory
    shutil.rmtree(directory)


def tried(prefix: Sequence[str], readable: Path, python: str = sys.executable) -> tuple[dict[str, Any], list[str]]:
    """The facts, and what the other attempt says, both started by `prefix`; skips where that cannot be had."""
    outputs = []
    for name in ("kernel.py", "loading.py"):
        result = subprocess.run(
            [*prefix, python, "-I", "-S", str(readable / name)],
            capture_output=True,
            text=True,
            cwd="/",
            timeout=60,
            check=False,
        )
        if result.returncode != 0:
            pytest.skip(f"{' '.join(prefix)}: {result.stderr.strip()[-200:]}")
        outputs.append(result.stdout)
    return json.loads(outputs[0]), outputs[1].split()


def agree(facts: dict[str, Any], other: list[str]) -> None:
    """Both attempts found the same."""
    loads, abi, unshared = other
    assert (facts["programs"]["cgroup/connect4"] is True) == (loads == "loads")
    assert facts["programs"]["cgroup/connect4"] != "EPERM" or loads == EPERM
    assert facts["landlock_abi"] == int(abi) if int(abi) > 0 else not isinstance(facts["landlock_abi"], int)
    assert (facts["namespaces"] is True) == (unshared == "0")


def other_users_python() -> str:
    """A Python that users without rights can start."""
    for path in ("/usr/bin/python3", "/usr/local/bin/python3"):
        if os.access(path, os.X_OK):
            said = subprocess.run([path, "-c", "import sys; print(sys.version_info >= (3, 10))"], capture_output=True)
            if said.stdout.strip() == b"True":
                return path
    pytest.skip("no Python 3.10 that other users may start")


@linux
@pytest.mark.parametrize(
    "prefix",
    [
        [],
        ["unshare", "-rn"],
        ["setpriv", "--bounding-set=-sys_admin,-bpf"],
        ["setpriv", "--bounding-set=-sys_admin,-perfmon"],
        ["setpriv", "--bounding-set=-all"],
        ["setpriv", "--no-new-privs"],
    ],
    ids=["as it is", "own namespaces", "without BPF", "without PERFMON", "without any", "no new rights"],
)
def test_the_attempts_find_what_another_attempt_finds(readable: Path, prefix: list[str]) -> None:
    """With all rights, with some, with none, and with those of a namespace, which look like all."""
    facts, other = tried(prefix, readable)
    agree(facts, other)
    if prefix[:1] == ["unshare"] and facts["capabilities"]["BPF"]:
        # The list says yes, the attempt says no, and the attempt counts.
        assert other[0] == EPERM
        assert ebpf_offer(facts)[1] != []


@linux
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_the_attempts_of_a_user_without_rights(readable: Path) -> None:
    """Nothing of BPF, and whatever needs no rights."""
    python = other_users_python()
    facts, other = tried(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"], readable, python)
    agree(facts, other)
    assert facts["uid"] == 65534
    assert not any(facts["capabilities"].values())
    assert facts["programs"]["tp_btf"] == "EPERM"
    assert facts["cgroup2"] is None or facts["cgroup2"]["writable"] is False
    can, cannot = ebpf_offer(facts)
    assert not any("programs" in what for what in can)
    assert {"BPF programs (EPERM)", "CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"} <= {*cannot}


@linux
def test_landlock_and_seccomp_are_believed_when_they_deny(readable: Path) -> None:
    """Where Landlock answers at all, its attempts say that it denies, or by which error it failed."""
    facts, _ = tried([], readable)
    names = ("landlock_files", "landlock_connect", "seccomp", "namespaces")
    assert all(facts[name] is True or isinstance(facts[name], str) for name in names)
    if isinstance(facts["landlock_abi"], int):
        assert facts["landlock_files"] is True
        assert (facts["landlock_connect"] is True) == (facts["landlock_abi"] >= 4)
    if "Seccomp_filters" in Path("/proc/self/status").read_text():
        assert facts["seccomp"] is True


def state() -> dict[str, str]:
    """What the attempts could have changed in this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kept = {line for line in lines if line.startswith(("Cap", "NoNewPrivs", "Seccomp", "Uid", "Gid"))}
    spaces = {name: os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")}
    return {**spaces, "status": "\n".join(sorted(kept)), "open": " ".join(sorted(os.listdir("/proc/self/fd")))}


@linux
def test_the_process_itself_stays_as_it_was() -> None:
    """Neither namespaces, rights, filters nor open files of the doctor's process change, and no child is left."""
    before = state()
    facts = look_at_kernel(os.environ, 30)
    assert "skipped" not in facts
    assert state() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@linux
def test_attempts_that_take_too_long_are_ended() -> None:
    """The row says so; nothing of them goes on."""
    facts = look_at_kernel({**os.environ, "LANG": "C"}, 0.001)
    assert "did not answer within" in facts["skipped"]
    found = modes._summary(facts, ebpf_offer)
    assert found.startswith("what this machine could offer is not known: ")
    own = [path for path in Path("/proc").glob("[0-9]*/stat") if f") S {os.getpid()} " in _read(path)]
    assert not [path for path in own if "kernel.py" in _read(path.parent / "cmdline")]


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


@linux
def test_an_attempt_that_dies_or_hangs_costs_itself_alone() -> None:
    """A fork that is killed, hangs, fails or ends says so, and the next one is made."""
    code = f"""
import sys, os, signal, time
sys.path.insert(0, {os.path.dirname(kernel.__file__)!r})
import kernel
print(kernel.in_fork(lambda: os.kill(os.getpid(), signal.SIGSYS)))
print(kernel.in_fork(lambda: time.sleep(60), 1))
print(kernel.in_fork(lambda: open("/nonexistent")))
print(kernel.in_fork(lambda: os._exit(3)))
print(kernel.in_fork(lambda: {{"x": [1, None]}}))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.splitlines() == ["is killed by SIGSYS", "hangs", "ENOENT", "ended with 3", "{'x': [1, None]}"]


@linux
def test_without_proc_and_sys_the_rest_is_tried(readable: Path) -> None:
    """What is read there is not known, and what is not known is not claimed."""
    script = readable / "bare.sh"
    script.write_text('mount -t tmpfs none /proc && mount -t tmpfs none /sys && exec "$@"\n')
    script.chmod(0o644)
    facts, other = tried(["unshare", "-rm", "sh", str(script)], readable)
    agree(facts, other)
    assert (facts["capabilities"], facts["cgroup2"], facts["proc"], facts["btf"]) == (None, None, False, False)
    can, cannot = ebpf_offer(facts)
    assert not any("cgroup" in what for what in can)
    assert "/proc, so cgroup2 cannot be found" in cannot


@linux
@pytest.mark.parametrize(
    ("start", "why"),
    [
        (["setarch", "linux32"], "its syscalls are not known for i"),
        ([sys.executable, "-c", "{hidden}"], "this Python has no ctypes"),
    ],
    ids=["another processor", "no ctypes"],
)
def test_where_nothing_can_be_tried_it_says_why(readable: Path, start: list[str], why: str) -> None:
    """The rest is read; nothing is claimed of what was not tried."""
    if os.uname().machine != "x86_64" and start[0] == "setarch":
        pytest.skip("this processor has no smaller name")
    hidden = "import sys, runpy; sys.modules['ctypes'] = None; runpy.run_path(sys.argv[-1], run_name='__main__')"
    facts_of = [word.format(hidden=hidden) for word in start]
    python = [] if start[0] == sys.executable else [sys.executable, "-I", "-S"]
    result = subprocess.run(
        [*facts_of, *python, str(readable / "kernel.py")], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    facts = json.loads(result.stdout)
    assert facts["untried"].startswith(why)
    assert proxy_offer(facts) == ([], [])
    assert f"nothing was tried: {why}" in modes._summary(facts, proxy_offer)
    assert not any("programs" in what for what in ebpf_offer(facts)[0])
