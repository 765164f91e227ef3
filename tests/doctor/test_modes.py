"""The rows about the modes: which one runs, what it does not cover, and what a stronger one would need."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from support.doctor import diagnose, type_remedy
from support.gateway import clean_environment

from aasm_py.doctor import kernel, modes
from aasm_py.doctor.look import Look
from aasm_py.doctor.modes import ebpf_offer, kernel_facts, proxy_offer
from agent_assembly.diagnosis import Finding

ALL = {
    "release": "6.18.44-x",
    "proc": True,
    "btf": True,
    "capabilities": dict.fromkeys(kernel.CAPABILITIES, True),
    "cgroup2": {"path": "/sys/fs/cgroup", "writable": True},
    "programs": dict.fromkeys(kernel.PROGRAM_TYPES, True),
    "landlock_abi": 7,
    "landlock_files": True,
    "landlock_connect": True,
    "seccomp": True,
    "namespaces": True,
}


def test_what_works_and_what_is_missing_is_told_in_one_line() -> None:
    """Each thing once, with the kernel's error where it failed."""
    assert modes._summary(ALL, ebpf_offer) == (
        "kernel 6.18 would allow: cgroup egress programs, cgroup packet filters, exec tracing, lsm programs, "
        "writing to the cgroup /sys/fs/cgroup"
    )
    some = {**ALL, "programs": {**ALL["programs"], "lsm": "EPERM", "cgroup/sendmsg6": "EINVAL"}, "btf": False}
    some["cgroup2"] = {"path": "/sys/fs/cgroup", "writable": False}
    assert modes._summary(some, ebpf_offer) == (
        "kernel 6.18 would allow: cgroup packet filters, exec tracing; missing: cgroup egress programs (EINVAL), "
        "lsm programs (EPERM), writing to the cgroup /sys/fs/cgroup, BTF"
    )
    crashed = {**ALL, "programs": None, "programs_problem": "is killed by SIGSYS", "cgroup2": None}
    assert "BPF programs (the attempt is killed by SIGSYS), cgroup2" in modes._summary(crashed, ebpf_offer)
    old = {**ALL, "landlock_abi": "ENOSYS", "namespaces": "EPERM", "seccomp": "hangs"}
    assert modes._summary(old, proxy_offer) == (
        "kernel 6.18 would allow: nothing that it needs; missing: user and network namespaces (EPERM), "
        "Landlock (ENOSYS), seccomp filters (hangs)"
    )


def rows(home: Path, arguments: dict[str, Any] | None = None, **environ: str) -> dict[str, Finding]:
    look = Look({**clean_environment(AASM_HOME=str(home)), **environ}, arguments=arguments)
    return {row.check: row for row in (check.function(look) for check in modes.CHECKS)}  # type: ignore[union-attr]


def test_the_mode_that_runs_says_what_it_does_not_cover(home: Path) -> None:
    """Also where it was chosen by auto; the others are said not to be built, and are no failure."""
    found = rows(home)
    assert found["mode sdk-only"].status == "ok"
    assert "runs, by mode auto" in found["mode sdk-only"].found
    assert "does not cover direct calls" in found["mode sdk-only"].found
    assert "runs (from variable AASM_MODE)" in rows(home, AASM_MODE="sdk-only")["mode sdk-only"].found
    for mode in ("proxy", "ebpf"):
        row = found[f"mode {mode}"]
        assert (row.status, row.remedy) == ("skip", "")
        assert row.found.startswith("not available in this build; ")
        assert "\n" not in row.found
        assert len(row.found) < 300


@pytest.mark.parametrize("mode", ["proxy", "ebpf"])
def test_a_mode_asked_for_by_name_fails(home: Path, mode: str) -> None:
    """By variable, by argument and by file; none of them is silently replaced by the weaker one."""
    config = home / "config.yaml"
    for arguments, environ, source in (
        ({}, {"AASM_MODE": mode}, "variable AASM_MODE"),
        ({"mode": mode}, {}, "argument"),
        ({}, {}, f"{config}:1"),
    ):
        if source.startswith("/"):
            config.write_text(f"mode: {mode}\n")
            config.chmod(0o600)
        found = rows(home, arguments, **environ)
        row = found[f"mode {mode}"]
        assert row.status == "fail"
        assert row.found.startswith(f"asked for (from {source}), but not available in this build; ")
        assert row.remedy
        assert found["mode sdk-only"].status == "skip"
        assert found[f"mode {'ebpf' if mode == 'proxy' else 'proxy'}"].status == "skip"


@pytest.mark.parametrize("environ", [{"AASM_MODE": "kernel"}, {}])
def test_without_a_usable_configuration_no_mode_is_said_to_run(home: Path, environ: dict[str, str]) -> None:
    """A program would refuse to start."""
    if not environ:
        (home / "config.yaml").write_text("mode: [\n")
        (home / "config.yaml").chmod(0o600)
    found = rows(home, **environ)
    assert found["mode sdk-only"].status == "skip"
    assert "cannot be used" in found["mode sdk-only"].found
    assert {row.status for row in found.values()} == {"skip"}


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_other_systems_have_no_kernel_to_try(home: Path, monkeypatch: pytest.MonkeyPatch, system: str) -> None:
    """They are told in the documented words."""
    monkeypatch.setattr(sys, "platform", system)
    found = rows(home, AASM_MODE="ebpf")
    assert found["mode ebpf"].status == "fail"
    assert "not supported on this platform; what this machine could offer is not known" in found["mode ebpf"].found
    assert "not Linux" in found["mode proxy"].found


def test_a_python_without_a_program_of_its_own(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where Python is part of another program; or where the program has gone since."""
    monkeypatch.setattr(sys, "executable", "")
    assert "does not know its own program" in rows(home)["mode ebpf"].found
    monkeypatch.setattr(sys, "executable", str(home / "gone"))
    assert "could not be started: No such file or directory" in rows(home)["mode ebpf"].found


def test_the_attempts_are_made_once(home: Path) -> None:
    """Both rows and the bundle take the same."""
    look = Look(clean_environment(AASM_HOME=str(home)))
    assert kernel_facts(look) is kernel_facts(look)


@pytest.mark.parametrize("mode", ["proxy", "ebpf"])
def test_the_variable_is_taken_back_as_the_remedy_says(home: Path, mode: str) -> None:
    """Break it, see the row, type either remedy, see it gone."""
    environ = {"AASM_MODE": mode}
    code, found = diagnose(home, environ=environ)
    row = found[f"mode {mode}"]
    assert (code, row["status"]) == (1, "fail")
    assert row["remedy"] == "unset AASM_MODE; or: export AASM_MODE=sdk-only"
    for alternative in (0, 1):
        after = type_remedy(row["remedy"], clean_environment(**environ), home.parent, alternative=alternative)
        mended = {name: value for name, value in after.items() if name.startswith("AASM_MODE")}
        _, found_again = diagnose(home, environ=mended)
        assert found_again[f"mode {mode}"]["status"] == "skip"
        assert found_again["mode sdk-only"]["status"] == "ok"


def test_a_variable_that_hides_the_file_is_set_and_not_unset(home: Path) -> None:
    """Unset, it would let through what the file says, which may be no better."""
    (home / "config.yaml").write_text("mode: proxy\n")
    (home / "config.yaml").chmod(0o600)
    _, found = diagnose(home, environ={"AASM_MODE": "ebpf"})
    assert found["mode ebpf"]["remedy"] == "export AASM_MODE=sdk-only"
    after = type_remedy(found["mode ebpf"]["remedy"], clean_environment(), home.parent)
    assert diagnose(home, environ={"AASM_MODE": after["AASM_MODE"]})[1]["mode sdk-only"]["status"] == "ok"


@pytest.mark.parametrize(
    "text",
    [
        "api_key: x-1\nmode: proxy  # as on the server\nteam_id: a\n",
        "{api_key: x-1, mode: proxy, team_id: a}\n",
        "api_key: x-1\nmode:\n  'proxy'\nteam_id: a\n",
    ],
)
def test_the_line_of_the_file_is_changed_as_the_remedy_says(home: Path, text: str) -> None:
    """However the file is written, nothing else in it changes."""
    config = home / "config.yaml"
    config.write_text(text)
    config.chmod(0o600)
    _, found = diagnose(home)
    assert found["mode proxy"]["status"] == "fail"
    type_remedy(found["mode proxy"]["remedy"], clean_environment(), home.parent)
    assert config.read_text() == text.replace("proxy", "sdk-only")
    _, found = diagnose(home)
    assert (found["mode proxy"]["status"], found["mode sdk-only"]["status"]) == ("skip", "ok")


def test_a_line_that_says_more_is_left_alone(home: Path) -> None:
    """Where the word stands twice, the remedy is the variable, which wins over the file."""
    config = home / "config.yaml"
    config.write_text("{gateway_url: 'http://proxy:1', mode: proxy}\n")
    config.chmod(0o600)
    row = rows(home)["mode proxy"]
    assert row.remedy == "export AASM_MODE=sdk-only"
    assert rows(home, AASM_MODE="sdk-only")["mode proxy"].status == "skip"
