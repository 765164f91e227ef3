"""The row `port`: who holds the port of the local gateway."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.doctor import type_remedy
from support.gateway import Gateway
from support.look import row, shell
from support.odd_gateways import free_port
from support.programs import run_command

from aasm_py.doctor.look import Look
from aasm_py.doctor.ports import Holder, holder
from aasm_py.doctor.ports import free_port as free_port_above

SERVER = """
import http.server, sys
server = http.server.HTTPServer((sys.argv[1], 0), http.server.SimpleHTTPRequestHandler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


@pytest.fixture
def squatter(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """Pid and port of a program of this user that listens; its arguments hold a secret."""
    script = tmp_path / "web_shop.py"
    script.write_text(SERVER)
    command = [sys.executable, str(script), "127.0.0.1", "--token", "sk-planted-secret"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    yield process.pid, int(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()


def test_ones_own(gateway: Gateway, home: Path) -> None:
    found = row(shell(home, AASM_GATEWAY_PORT=gateway.port), "port")
    assert (found.status, found.found) == ("ok", f"{gateway.port} is your gateway's (pid {gateway.pid})")


def test_a_free_one(home: Path) -> None:
    port = free_port()
    found = row(shell(home, AASM_GATEWAY_PORT=port), "port")
    assert (found.status, found.found) == ("ok", f"{port} is free")


@pytest.mark.parametrize("alternative", [0, 1])
def test_one_that_a_program_holds(squatter: tuple[int, int], home: Path, alternative: int) -> None:
    """Its name and pid without its arguments; another port first, and only then its end."""
    pid, port = squatter
    environ = shell(home, AASM_GATEWAY_PORT=port)
    found = row(environ, "port")
    assert found.status == "fail"
    assert f"(pid {pid})" in found.found
    assert "web_shop.py" in found.found
    assert "sk-planted" not in found.found
    first, second = found.remedy.split("; or: ")
    assert first.startswith("export AASM_GATEWAY_PORT=")
    assert second == f"kill {pid}"
    environ = type_remedy(found.remedy, environ, home, alternative=alternative)
    if alternative:
        while f"{port} is free" not in row(environ, "port").found:
            pass
    assert row(environ, "port").status == "ok"
    type_remedy(row(environ, "gateway").remedy, environ, home)
    assert row(environ, "gateway").status == "ok"


def test_one_that_is_held_while_the_gateway_runs_elsewhere(gateway: Gateway, squatter: tuple[int, int]) -> None:
    """Nothing fails yet; the next start would."""
    environ = shell(gateway.home, AASM_GATEWAY_PORT=squatter[1])
    found = row(environ, "port")
    assert (found.status, found.remedy) == ("warn", f"export AASM_GATEWAY_PORT={gateway.port}")
    environ = type_remedy(found.remedy, environ, gateway.home)
    assert row(environ, "port").status == "ok"


def test_one_of_a_gateway_that_does_not_answer(gateway: Gateway, home: Path) -> None:
    gateway.pause()
    found = row(shell(home, AASM_GATEWAY_PORT=gateway.port), "port")
    assert (found.status, "which does not answer" in found.found) == ("skip", True)


def test_none_is_needed_where_another_gateway_is_named(home: Path) -> None:
    found = row(shell(home, AASM_GATEWAY_URL="http://127.0.0.1:9"), "port")
    assert (found.status, "is not used: gateway_url" in found.found) == ("skip", True)


def test_one_that_is_no_port_is_left_to_its_own_row(home: Path) -> None:
    found = row(shell(home, AASM_GATEWAY_PORT="many"), "port")
    assert (found.status, "gateway_port (from variable AASM_GATEWAY_PORT)" in found.found) == ("skip", True)


def test_holders_that_cannot_be_seen_are_said_so() -> None:
    """Another user's process shows its user at most."""
    assert str(Holder(user="postgres")) == "a process of user postgres that is not visible from here"
    assert str(Holder()) == "a process that is not visible from here"
    assert str(Holder(12, "nginx", "www")) == "nginx (pid 12) of user www"


# Everything is imported before the user changes: this environment may be closed to others.
AS_NOBODY = """
import os, sys
from aasm_py.doctor.look import Look
from aasm_py.doctor.ports import holder, other_port_line
os.setuid(65534)
look, port = Look({"AASM_HOME": "/nonexistent"}), int(sys.argv[1])
print(holder(look, port))
print(other_port_line(look, port))
"""
OF_NOBODY = """
import os, socket
listener = socket.create_server(("127.0.0.1", 0))
os.setuid(65534)
print(listener.getsockname()[1], flush=True)
input()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_process_that_may_not_be_looked_into(tmp_path: Path) -> None:
    """The owner is all that is known of it, and another port all that is offered."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        words = [sys.executable, "-c", AS_NOBODY, str(listener.getsockname()[1])]
        result = run_command(words, tmp_path / "home")
    assert result.returncode == 0, result.stderr
    held, remedy = result.stdout.splitlines()
    assert held == "a process of user root that is not visible from here"
    assert remedy.startswith("export AASM_GATEWAY_PORT=")
    assert "; or: " not in remedy


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_process_of_another_user_is_not_to_be_killed(home: Path) -> None:
    command = [sys.executable, "-c", OF_NOBODY]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        found = row(shell(home, AASM_GATEWAY_PORT=process.stdout.readline().strip()), "port")
    finally:
        process.communicate("\n")
    assert found.status == "fail"
    assert f"(pid {process.pid}) of user nobody" in found.found
    assert "kill" not in found.remedy


def test_the_port_that_is_offered_is_free() -> None:
    """Ports that somebody holds are passed over."""
    first = free_port()
    offered = free_port_above(first)
    assert offered is not None
    with socket.create_server(("127.0.0.1", offered)):
        other = free_port_above(first)
    assert other is not None
    assert other > offered > first
    assert free_port_above(65535) is None


def test_a_listener_on_every_address_holds_the_port_too() -> None:
    with socket.create_server(("0.0.0.0", 0)) as listener:
        port = listener.getsockname()[1]
        assert holder(Look({}), port).pid == os.getpid()
