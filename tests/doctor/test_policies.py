"""The row `policy`: what is in force, and whether what lies on the disk would be."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.bad_servers import Server, ok, start_servers, started
from support.doctor import type_remedy
from support.gateway import Gateway
from support.look import row, shell
from support.odd_gateways import free_port, start_detached, write_editor

serve = pytest.fixture(start_servers)
POLICY = """apiVersion: agent-assembly/v1
kind: Policy
metadata: {name: house}
default: deny
rules:
  - id: reading
    on: tool
    match: {tool: "read_*"}
    effect: allow
"""
MISSPELT = POLICY.replace("default: deny", "defualt: deny")


@pytest.fixture
def environ(home: Path, tmp_path: Path) -> dict[str, str]:
    """A shell whose editor writes a policy that is right."""
    return shell(home, AASM_GATEWAY_PORT=free_port(), EDITOR=write_editor(tmp_path, POLICY))


def write(home: Path, text: str, name: str = "house.yaml") -> Path:
    return Gateway(home).write_policy(text, name)


def test_the_starter_is_only_a_starter(gateway: Gateway, environ: dict[str, str], home: Path) -> None:
    """It allows everything; a policy is written, and the gateway started with it, as the remedy says."""
    found = row(environ, "policy")
    assert found.status == "warn"
    assert found.found.startswith("in force: the starter, which allows every tool and records it; revision ")
    type_remedy(found.remedy, environ, home)
    found = row(environ, "policy")
    assert (found.status, found.remedy) == ("ok", "")
    assert found.found.startswith(f"in force: policy.yaml in {home}/policies, revision ")
    assert found.found.endswith("/0/2")


def test_the_starter_before_any_start(environ: dict[str, str], home: Path) -> None:
    """Also where the editor leaves its file open to the group, which a gateway refuses."""
    found = row(environ, "policy")
    assert (found.status, "the next start takes the starter" in found.found) == ("warn", True)
    mask = os.umask(0o002)
    try:
        type_remedy(found.remedy, environ, home)
    finally:
        os.umask(mask)
    found = row(environ, "policy")
    assert found.status == "ok"
    assert found.found == f"no gateway answers; the next start takes policy.yaml in {home}/policies"
    type_remedy(row(environ, "gateway").remedy, environ, home)
    assert row(environ, "policy").found.startswith(f"in force: policy.yaml in {home}/policies")


def change(home: Path) -> None:
    write(home, POLICY.replace("reading", "reading-only"), "policy.yaml")


def add(home: Path) -> None:
    write(home, POLICY.replace("house", "garden"), "garden.yml")


def remove(home: Path) -> None:
    (home / "policies" / "other.yaml").unlink()


def move_in(home: Path) -> None:
    """With the time of its content."""
    (home / "prepared.yaml").rename(home / "policies" / "prepared.yaml")


@pytest.mark.parametrize("act", [change, add, remove, move_in])
def test_what_was_changed_is_not_in_force(
    start_gateway: Callable[..., Gateway], environ: dict[str, str], home: Path, act: Callable[[Path], None]
) -> None:
    """The gateway reads policies when it starts, and then no more."""
    write(home, POLICY.replace("house", "other"), "other.yaml")
    (home / "prepared.yaml").write_text(POLICY.replace("house", "prepared"))
    (home / "prepared.yaml").chmod(0o600)
    start_gateway(policy=POLICY)
    assert row(environ, "policy").status == "ok"
    act(home)
    found = row(environ, "policy")
    assert (found.status, found.found.startswith("not in force yet: ")) == ("warn", True)
    type_remedy(found.remedy, environ, home)
    assert row(environ, "policy").status == "ok"


def test_policies_that_were_all_removed(
    start_gateway: Callable[..., Gateway], environ: dict[str, str], home: Path
) -> None:
    start_gateway(policy=POLICY)
    (home / "policies" / "policy.yaml").unlink()
    found = row(environ, "policy")
    assert (found.status, f"no policies in {home}/policies" in found.found) == ("warn", True)


def test_a_policy_that_does_not_check(environ: dict[str, str], home: Path) -> None:
    """The row names file, line and column, and what was meant; a gateway indeed does not start with it."""
    path = write(home, MISSPELT)
    found = row(environ, "policy")
    assert found.status == "fail"
    assert found.found.startswith(f"no gateway starts with {path}:4:1: ")
    assert "did you mean `default`?" in found.found
    with pytest.raises(AssertionError, match="4:1"):
        start_detached(home)
    type_remedy(found.remedy, environ, home)
    assert row(environ, "policy").status == "ok"
    start_detached(home)


def test_without_the_native_core_nothing_is_claimed(
    environ: dict[str, str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row says that the content was not checked."""
    write(home, MISSPELT)
    monkeypatch.delitem(sys.modules, "agent_assembly._core", raising=False)
    monkeypatch.setitem(sys.modules, "agent_assembly_core._core", None)
    found = row(environ, "policy")
    assert found.status == "ok"
    assert found.found.endswith("their content was not checked: the native module is missing")


def test_a_policy_that_was_spoilt_under_a_running_gateway(
    start_gateway: Callable[..., Gateway], environ: dict[str, str], home: Path
) -> None:
    """It runs on with the old one and would not come back; mended, it is started again."""
    start_gateway(policy=POLICY)
    write(home, MISSPELT, "policy.yaml")
    found = row(environ, "policy")
    assert (found.status, "policy.yaml:4:1: " in found.found) == ("fail", True)
    type_remedy(found.remedy, environ, home)
    assert row(environ, "policy").status == "ok"


def open_to_others(path: Path) -> None:
    path.chmod(0o664)


def open_directory(path: Path) -> None:
    path.parent.chmod(0o770)


def foreign(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(path, 65534, -1)


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def no_text(path: Path) -> None:
    path.write_bytes(POLICY.encode() + b"# caf\xe9\n")


def loose_end(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def link_for_all(path: Path) -> None:
    real = path.parent.with_name("elsewhere")
    path.parent.rename(real)
    path.parent.symlink_to(real)


SPOILT = [open_to_others, open_directory, foreign, directory, pipe, no_text, loose_end, link_for_all]


@pytest.mark.parametrize("spoil", SPOILT)
def test_what_no_gateway_starts_with(environ: dict[str, str], home: Path, spoil: Callable[[Path], None]) -> None:
    """The row fails exactly where the real program refuses, and both are well after the remedy."""
    spoil(write(home, POLICY))
    found = row(environ, "policy")
    assert (found.status, found.found.startswith("no gateway starts with ")) == ("fail", True)
    with pytest.raises(AssertionError):
        start_detached(home)
    # As the person whose policy it is; sudo is not everywhere.
    type_remedy(found.remedy.removeprefix("sudo "), environ, home)
    assert row(environ, "policy").status in ("ok", "warn")
    start_detached(home)
    assert row(environ, "policy").status in ("ok", "warn")


@pytest.mark.parametrize("name", ["house.YML", "house.yaml.off", ".hidden.yaml", "house"])
def test_the_files_that_count_are_those_that_the_gateway_reads(environ: dict[str, str], home: Path, name: str) -> None:
    write(home, MISSPELT, name)
    fails = row(environ, "policy").status == "fail"
    try:
        start_detached(home)
        refused = False
    except AssertionError:
        refused = True
    assert fails == refused


def test_a_policy_that_the_start_was_told(environ: dict[str, str], home: Path, tmp_path: Path) -> None:
    """It takes the place of those in the home, and is kept by the remedy."""
    policy = tmp_path / "strict.yaml"
    policy.write_text(POLICY)
    policy.chmod(0o600)
    start_detached(home, options=["--policy", str(policy)])
    found = row(environ, "policy")
    assert found.status == "ok"
    assert found.found.startswith(f"in force: {policy} (--policy of the last start), revision ")
    policy.write_text(POLICY.replace("house", "castle"))
    found = row(environ, "policy")
    assert (found.status, f"--policy {policy}" in found.remedy) == ("warn", True)
    type_remedy(found.remedy, environ, home)
    assert row(environ, "policy").status == "ok"


def test_a_policy_that_the_start_was_told_and_that_is_gone(environ: dict[str, str], home: Path, tmp_path: Path) -> None:
    """The gateway could not come back: it looks for it."""
    policy = tmp_path / "strict.yaml"
    policy.write_text(POLICY)
    policy.chmod(0o600)
    start_detached(home, options=["--policy", str(policy)])
    policy.unlink()
    found = row(environ, "policy")
    assert (found.status, "with --policy and which is gone" in found.found) == ("fail", True)
    type_remedy(found.remedy, environ, home)
    assert row(environ, "policy").status == "warn"


@pytest.mark.parametrize(("source", "status"), [("files", "ok"), ("starter", "warn")])
def test_the_policy_of_somebody_elses_gateway(
    serve: Callable[..., Server], environ: dict[str, str], home: Path, source: str, status: str
) -> None:
    """What lies in this home does not matter to it."""
    write(home, MISSPELT)
    health = (
        b'{"status": "ok", "version": "0.1.0", "policy_source": "%s", "policy_revision": "ab/0/7"}' % source.encode()
    )
    environ |= {"AASM_GATEWAY_URL": started(serve, lambda request: ok(health)).url, "AASM_API_KEY": "k"}
    found = row(environ, "policy")
    assert found.status == status
    assert environ["AASM_GATEWAY_URL"] in found.found


def test_a_gateway_that_does_not_answer_does_not_say(gateway: Gateway, environ: dict[str, str]) -> None:
    gateway.pause()
    found = row(environ, "policy")
    assert found.status == "skip"
