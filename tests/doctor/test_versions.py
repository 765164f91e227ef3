"""The rows `versions`, `clock` and `proxies`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.bad_servers import Server, ok, start_servers, started
from support.doctor import type_remedy
from support.gateway import Gateway
from support.look import row, shell
from support.odd_gateways import free_port, program_of_version, skewed, start_detached

from aasm_py.doctor.commands import install_line
from aasm_py.doctor.look import Look
from aasm_py.doctor.proxies import masked

serve = pytest.fixture(start_servers)
Serve = Callable[..., Server]
HEALTH = b'{"status": "ok", "version": "0.2.0", "policy_source": "files"}'


def test_of_one_version(gateway: Gateway, home: Path) -> None:
    found = row(shell(home), "versions")
    assert (found.status, found.found) == ("ok", "gateway and SDK are 0.1.0")


def test_a_gateway_that_an_upgrade_left_running(home: Path, tmp_path: Path) -> None:
    """It is of the version before; a restart takes the program that is installed, and what it was told stays."""
    policy = tmp_path / "strict.yaml"
    policy.write_text("apiVersion: agent-assembly/v1\nkind: Policy\nmetadata: {name: strict}\ndefault: deny\n")
    policy.chmod(0o600)
    program, version = program_of_version(0, tmp_path / "old")
    told = ["--policy", str(policy), "--min-enforcement", "enforce"]
    old = start_detached(home, program=program, options=told)
    environ = shell(home)
    found = row(environ, "versions")
    assert found.status == "warn"
    assert found.found.startswith(f"the gateway is {version}, the SDK is 0.1.0")
    assert found.remedy == (f"aasm stop && aasm start --port {old.port} --policy {policy} --min-enforcement enforce")
    type_remedy(found.remedy, environ, home)
    assert row(environ, "versions").status == "ok"
    assert f"{policy} (--policy of the last start)" in row(environ, "policy").found


def test_a_program_that_is_older_than_the_sdk(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A restart alone would change nothing: it is installed first."""
    program, version = program_of_version(0, tmp_path / "bin")
    python = tmp_path / "bin" / "python"
    python.symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(python))
    start_detached(home, program=program)
    found = row(shell(home), "versions")
    assert found.status == "warn"
    assert found.found == f"the gateway is {version}, the SDK is 0.1.0, the program aasm is {version}"
    install, _, restart = found.remedy.partition(f" && {program} stop && ")
    assert install == install_line(Look(shell(home)), "agent-assembly[runtime]==0.1.0")
    assert restart.startswith(f"{program} start --port ")


def test_somebody_elses_gateway_is_not_for_us_to_restart(serve: Serve, home: Path) -> None:
    environ = shell(home, AASM_GATEWAY_URL=started(serve, lambda request: ok(HEALTH)).url, AASM_API_KEY="k")
    found = row(environ, "versions")
    assert found.status == "warn"
    assert found.remedy == install_line(Look(environ), "agent-assembly==0.2.0")


def test_clocks_that_agree(gateway: Gateway, home: Path) -> None:
    found = row(shell(home), "clock")
    assert (found.status, found.found) == ("ok", "agrees with the gateway's to the second")


@pytest.mark.parametrize(
    ("seconds", "status", "said"),
    [
        (-30, "ok", "within 30 s"),
        (100, "warn", "s ahead"),
        (-100, "warn", "s behind"),
        (400, "fail", "min ahead"),
        (-86400, "fail", "24.0 h behind"),
    ],
)
def test_clocks_that_differ(home: Path, tmp_path: Path, seconds: int, status: str, said: str) -> None:
    """Noticed from a minute on; beyond five the gateway refuses every proof. A restart takes the machine's clock."""
    start_detached(home, environ=skewed(seconds, tmp_path))
    environ = shell(home)
    found = row(environ, "clock")
    assert (found.status, said in found.found) == (status, True), found
    if status != "ok":
        type_remedy(found.remedy, environ, home)
        assert row(environ, "clock").status == "ok"


def test_a_gateway_that_tells_no_time(serve: Serve, home: Path) -> None:
    environ = shell(home, AASM_GATEWAY_URL=started(serve, lambda request: ok(HEALTH)).url, AASM_API_KEY="k")
    assert row(environ, "clock").status == "skip"


@pytest.mark.parametrize("date", [b"yesterday", b"", b"Thu, 01 Jan 99999 00:00:00 GMT"])
def test_a_gateway_that_tells_nonsense(serve: Serve, home: Path, date: bytes) -> None:
    server = started(serve, lambda request: ok(HEALTH, b"Date: %s\r\n" % date))
    assert row(shell(home, AASM_GATEWAY_URL=server.url, AASM_API_KEY="k"), "clock").status == "skip"


def test_no_proxies(home: Path) -> None:
    assert row(shell(home), "proxies").found == "no proxy variable is set"


def test_a_proxy_is_shown_without_its_password(gateway: Gateway, home: Path) -> None:
    """In either case of the names; loopback never goes through it, and the gateway answers all the same."""
    environ = shell(home, HTTPS_PROXY="http://joe:pa@ss@proxy:3128", http_proxy="socks5://127.0.0.1:9", NO_PROXY="a,b")
    found = row(environ, "proxies")
    assert found.status == "ok"
    assert found.found == (
        "HTTPS_PROXY=http://***@proxy:3128, http_proxy=socks5://127.0.0.1:9, NO_PROXY=a,b; "
        "not used: the gateway is on this machine"
    )
    assert row(environ, "gateway").status == "ok"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("http://proxy:3128", "http://proxy:3128"),
        ("joe:secret@proxy:3128", "***@proxy:3128"),
        ("http://joe:secret@proxy:3128/x?token=secret", "http://***@proxy:3128"),
        ("http://joe:sec://ret@proxy:3128", "http://***@proxy:3128"),
    ],
)
def test_what_is_masked(value: str, shown: str) -> None:
    assert masked(value) == shown


def test_a_remote_gateway_behind_a_proxy_that_we_do_not_use(home: Path) -> None:
    """It cannot be reached, and the proxy that would reach it is not taken: that is worth a row."""
    environ = shell(home, AASM_GATEWAY_URL=f"https://127.1:{free_port()}", ALL_PROXY="http://proxy:3128")
    found = row(environ, "proxies")
    assert found.status == "warn"
    assert "is asked directly, and cannot be reached so" in found.found
    environ = type_remedy(found.remedy, environ, home)
    assert row(environ, "proxies").status == "ok"
