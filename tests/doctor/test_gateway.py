"""The row `gateway`: which gateway a program would get, whether it answers, and whose it is."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.bad_servers import Server, hang, ok, start_servers, started
from support.calls import make_calls
from support.doctor import type_remedy
from support.gateway import Gateway, stop_gateway_of
from support.look import row, rows, shell, told
from support.odd_gateways import certificate, free_port, preloaded
from support.programs import BIN

from aasm_py.doctor.commands import install_line
from aasm_py.doctor.look import Look

serve = pytest.fixture(start_servers)
Serve = Callable[..., Server]


@pytest.fixture
def environ(home: Path) -> dict[str, str]:
    """A shell whose local gateway would listen on a free port."""
    return shell(home, AASM_GATEWAY_PORT=free_port())


@pytest.fixture
def other_home(tmp_path: Path) -> Iterator[Path]:
    """A home of the same person that has nothing to do with the first one."""
    directory = tmp_path / "other"
    directory.mkdir(mode=0o700)
    yield directory
    stop_gateway_of(directory)


def test_one_of_the_home_proves_itself(gateway: Gateway, environ: dict[str, str]) -> None:
    """Where it was found, how long it took, its version, and that it is one's own."""
    found = row(environ, "gateway")
    assert found.status == "ok"
    assert found.found.startswith(f"{gateway.url} answers in ")
    assert found.found.endswith(" ms, version 0.1.0, your own (proof); from gateway.pid")
    assert found.remedy == ""


def test_one_on_the_port_is_found_without_its_pid_file(gateway: Gateway, home: Path) -> None:
    (home / "gateway.pid").unlink()
    found = row(shell(home, AASM_GATEWAY_PORT=gateway.port), "gateway")
    assert found.status == "ok"
    assert found.found.endswith("from gateway_port, variable AASM_GATEWAY_PORT")


def test_none_is_started_as_the_remedy_says(environ: dict[str, str], home: Path) -> None:
    """Looking starts none; typing `aasm start` does, on the port of the settings."""
    found = row(environ, "gateway")
    assert (found.status, found.remedy) == ("warn", "aasm start")
    assert not (home / "gateway.pid").exists()
    environ = type_remedy(found.remedy, environ, home)
    assert f"http://127.0.0.1:{environ['AASM_GATEWAY_PORT']} answers" in row(environ, "gateway").found


def test_the_remedy_carries_what_the_program_cannot_know_itself(home: Path) -> None:
    """A port from the configuration file and a home from the default are said where `aasm` would not see them."""
    port = free_port()
    (home / "config.yaml").write_text(f"gateway_port: {port}\n")
    (home / "config.yaml").chmod(0o600)
    environ = shell(home)
    found = row(environ, "gateway")
    assert found.remedy == f"aasm start --port {port}"
    type_remedy(found.remedy, environ, home)
    assert row(environ, "gateway").status == "ok"


def test_a_program_that_is_not_on_the_path_is_named_by_it(home: Path) -> None:
    environ = shell(home, AASM_GATEWAY_PORT=free_port(), PATH="/usr/bin:/bin")
    found = row(environ, "gateway")
    assert found.remedy == f"{BIN}/aasm start"
    type_remedy(found.remedy, environ, home)
    assert row(environ, "gateway").status == "ok"


def test_one_that_crashed_is_said_to_be_gone(gateway: Gateway, environ: dict[str, str], home: Path) -> None:
    gateway.kill()
    found = row(environ, "gateway")
    assert found.status == "warn"
    assert f"the last one (pid {gateway.pid}) is gone" in found.found
    type_remedy(found.remedy, environ, home)
    assert row(environ, "gateway").status == "ok"


@pytest.mark.parametrize("alternative", [0, 1])
def test_none_that_may_be_started(environ: dict[str, str], home: Path, alternative: int) -> None:
    """The documented message, what was tried, and two ways out."""
    environ["AASM_AUTO_START"] = "no"
    found = row(environ, "gateway")
    assert found.status == "fail"
    assert found.found.startswith("gateway_url is required: ")
    assert f"http://127.0.0.1:{environ['AASM_GATEWAY_PORT']}" in found.found
    assert "auto_start is off (variable AASM_AUTO_START)" in found.found
    environ = type_remedy(found.remedy, environ, home, alternative=alternative)
    assert row(environ, "gateway").status in ("ok", "warn")


def test_none_and_no_program_to_start_one(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is missing is installed into the environment of this Python."""
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(python))
    environ = {**environ, "PATH": "/usr/bin:/bin"}
    found = row(environ, "gateway")
    assert found.status == "fail"
    assert found.found.startswith("gateway_url is required: ")
    assert found.remedy == install_line(Look(environ))


def test_a_stale_url_is_taken_back(gateway: Gateway, environ: dict[str, str], home: Path) -> None:
    """The most common breakage: a variable of yesterday hides the gateway that runs."""
    dead = f"http://127.0.0.1:{free_port()}"
    environ["AASM_GATEWAY_URL"] = dead
    found = row(environ, "gateway")
    assert found.status == "fail"
    assert found.found == (
        f"{dead} (from variable AASM_GATEWAY_URL) cannot be reached: connection refused; "
        f"your own gateway answers at {gateway.url}"
    )
    assert found.remedy == "unset AASM_GATEWAY_URL"
    environ = type_remedy(found.remedy, environ, home)
    assert row(environ, "gateway").status == "ok"


def test_a_stale_line_of_the_file_is_taken_out(gateway: Gateway, environ: dict[str, str], home: Path) -> None:
    config = home / "config.yaml"
    config.write_text(f"mode: auto\ngateway_url: http://127.0.0.1:{free_port()}\n")
    config.chmod(0o600)
    found = row(environ, "gateway")
    assert f"(from {config}:2)" in found.found
    environ = type_remedy(found.remedy, environ, home)
    assert row(environ, "gateway").status == "ok"
    assert config.read_text() == "mode: auto\n"


def test_a_url_given_on_the_command_line_is_left_out_in_words(gateway: Gateway, environ: dict[str, str]) -> None:
    found = row(environ, "gateway", gateway_url=f"http://127.0.0.1:{free_port()}")
    assert "(from argument)" in found.found
    assert found.remedy == "leave --gateway-url out"


def test_one_that_was_named_here_is_started_there(environ: dict[str, str], home: Path) -> None:
    """Where nothing runs at all, the gateway that was named can be started when it is of this machine."""
    port = free_port()
    environ["AASM_GATEWAY_URL"] = f"http://127.0.0.1:{port}"
    found = row(environ, "gateway")
    assert found.remedy == f"aasm start --port {port}; or: unset AASM_GATEWAY_URL"
    type_remedy(found.remedy, environ, home)
    assert row(environ, "gateway").status == "ok"


def test_one_that_was_stopped_goes_on(gateway: Gateway, environ: dict[str, str], home: Path) -> None:
    """It is told from one that hangs by itself; the same when it was named."""
    gateway.pause()
    for more in ({}, {"AASM_GATEWAY_URL": gateway.url}):
        found = row({**environ, **more}, "gateway")
        assert (found.status, found.remedy) == ("fail", f"kill -CONT {gateway.pid}")
    assert f"(pid {gateway.pid}) is stopped" in row(environ, "gateway").found
    type_remedy(found.remedy, environ, home)
    assert row(environ, "gateway").status == "ok"


def test_one_whose_secret_was_replaced_is_started_again(gateway: Gateway, environ: dict[str, str], home: Path) -> None:
    """It runs, and cannot prove any more that it is the home's."""
    (home / "gateway.secret").write_text("0" * 64 + "\n")
    found = row(environ, "gateway")
    assert found.status == "fail"
    assert "gateway.secret was replaced" in found.found
    type_remedy(found.remedy, environ, home)
    assert row(environ, "gateway").status == "ok"


def test_one_whose_secret_is_gone_is_left_to_the_row_of_the_secrets(gateway: Gateway, home: Path) -> None:
    """Which says what to type; two rows would seem two faults."""
    (home / "gateway.secret").unlink()
    environ = shell(home, AASM_GATEWAY_PORT=gateway.port)
    found = row(environ, "gateway")
    assert (found.status, found.found.endswith("see the row secrets")) == ("skip", True)
    assert told(environ, "secrets")["status"] == "fail"


def test_one_that_says_nothing_and_has_no_pid_file_is_ones_own(gateway: Gateway, home: Path) -> None:
    """As while it reads a long audit log: nobody is told to end it first, or to take another port."""
    (home / "gateway.pid").unlink()
    os.kill(gateway.pid, signal.SIGSTOP)
    environ = shell(home, AASM_GATEWAY_PORT=gateway.port)
    try:
        port, found = row(environ, "port"), row(environ, "gateway")
        assert (port.status, f"your gateway (pid {gateway.pid})" in port.found) == ("skip", True)
        assert (found.status, found.remedy) == ("fail", f"kill -CONT {gateway.pid}")
        type_remedy(found.remedy, environ, home)
    finally:
        os.kill(gateway.pid, signal.SIGCONT)
    assert row(environ, "gateway").status == "ok"


@pytest.mark.parametrize(
    ("text", "first"), [("mode: [auto\n", "configuration file"), ("mode: strict\n", "mode")], ids=["file", "mode"]
)
def test_nothing_is_promised_that_the_configuration_prevents(
    environ: dict[str, str], home: Path, text: str, first: str
) -> None:
    """No program could start one: what is to be mended first is the only row that fails."""
    (home / "config.yaml").write_text(text)
    (home / "config.yaml").chmod(0o600)
    for name in ("gateway", "policy"):
        found = row(environ, name)
        assert (found.status, found.found.endswith(f"see the row {first}")) == ("skip", True)
    type_remedy(told(environ, first)["remedy"], {**environ, "EDITOR": "truncate -s 0"}, home)
    assert row(environ, "gateway").status == row(environ, "policy").status == "warn"


def test_one_of_another_home_is_told_from_ones_own(gateway: Gateway, other_home: Path) -> None:
    """Whose it is can be seen on this machine, and the remedy says so."""
    environ = shell(other_home, AASM_GATEWAY_URL=gateway.url)
    found = row(environ, "gateway")
    assert found.status == "fail"
    assert f"it is that of {gateway.home}" in found.found
    assert "there is no api_key" in found.found
    assert found.remedy == f"export AASM_HOME={gateway.home}; or: unset AASM_GATEWAY_URL"
    environ = type_remedy(found.remedy, environ, other_home)
    assert row(environ, "gateway").status == "ok"


def test_a_port_that_another_gateway_holds_is_left_to_it(gateway: Gateway, other_home: Path) -> None:
    environ = shell(other_home, AASM_GATEWAY_PORT=gateway.port)
    found = row(environ, "gateway")
    assert (found.status, found.found.endswith("see the row port")) == ("skip", True)
    found = row(environ, "port")
    assert found.status == "fail"
    assert f"is held by aasm (pid {gateway.pid}, the gateway of {gateway.home})" in found.found
    environ = type_remedy(found.remedy, environ, other_home)
    assert row(environ, "gateway").status == "warn"
    assert row(shell(gateway.home), "gateway").status == "ok"


def test_a_server_that_accepts_and_never_answers(serve: Serve, environ: dict[str, str], home: Path) -> None:
    environ["AASM_GATEWAY_URL"] = serve(lambda connection, _: hang(connection)).url
    began = time.monotonic()
    found = row(environ, "gateway")
    assert time.monotonic() - began < 4
    assert found.status == "fail"
    assert "accepts the connection and does not answer within 2 s; it is " in found.found
    assert f"(pid {os.getpid()})" in found.found
    assert row(type_remedy(found.remedy, environ, home), "gateway").status == "warn"


def test_a_host_that_drops_what_it_is_sent(environ: dict[str, str]) -> None:
    """Told from a server that hangs: nobody even accepts the connection."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        # The queue of one that never accepts is full after a few.
        waiting = [socket.socket() for _ in range(4)]
        try:
            for each in waiting:
                each.setblocking(False)
                each.connect_ex(("127.0.0.1", port))
            environ["AASM_GATEWAY_URL"] = f"http://127.0.0.1:{port}"
            found = row(environ, "gateway")
        finally:
            for each in waiting:
                each.close()
    assert found.status == "fail"
    assert "no connection within 2 s" in found.found


def test_a_name_that_nobody_knows(gateway: Gateway, environ: dict[str, str], home: Path) -> None:
    environ["AASM_GATEWAY_URL"] = "http://no-such-host.invalid:7391"
    found = row(environ, "gateway")
    assert found.status == "fail"
    assert "the name no-such-host.invalid has no address" in found.found
    assert row(type_remedy(found.remedy, environ, home), "gateway").status == "ok"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_name_server_that_does_not_answer(environ: dict[str, str], home: Path, tmp_path: Path, scheme: str) -> None:
    """The doctor does not wait for it, and says that it is the name that hangs."""
    environ |= {"AASM_GATEWAY_URL": f"{scheme}://hanging.example", "AASM_AUTO_START": "no"}
    environ["LD_PRELOAD"] = preloaded("hanging_names", tmp_path)
    began = time.monotonic()
    found = told(environ, "gateway")
    assert time.monotonic() - began < 10
    assert found["status"] == "fail"
    assert "the name hanging.example was not resolved within 1.5 s" in found["found"]
    environ = type_remedy(found["remedy"], environ, home)
    assert told(environ, "gateway")["found"].startswith("gateway_url is required: ")


@pytest.mark.parametrize(
    "answer", [ok(b"hello"), b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", b"SSH-2.0-x\r\n\r\n"]
)
def test_a_server_that_is_no_gateway(serve: Serve, environ: dict[str, str], home: Path, answer: bytes) -> None:
    """It is named with its process."""
    server = started(serve, lambda request: answer, keep=False)
    environ["AASM_GATEWAY_URL"] = server.url
    found = row(environ, "gateway")
    assert found.status == "fail"
    assert "is no gateway" in found.found
    assert f"(pid {os.getpid()})" in found.found
    assert row(type_remedy(found.remedy, environ, home), "gateway").status == "warn"


def test_a_name_for_this_machine_that_the_gateway_does_not_answer_to(
    gateway: Gateway, environ: dict[str, str], home: Path
) -> None:
    """A gateway of this machine refuses foreign names; the remedy gives the address that it has."""
    environ["AASM_GATEWAY_URL"] = f"http://127.1:{gateway.port}"
    found = row(environ, "gateway")
    assert found.status == "fail"
    assert "does not answer to the name 127.1" in found.found
    assert row(type_remedy(found.remedy, environ, home), "gateway").status == "ok"


def test_tls_asked_of_a_gateway_that_has_none(gateway: Gateway, environ: dict[str, str], home: Path) -> None:
    environ["AASM_GATEWAY_URL"] = f"https://localhost:{gateway.port}"
    found = row(environ, "gateway")
    assert (found.status, "does not speak TLS" in found.found) == ("fail", True)
    assert row(type_remedy(found.remedy, environ, home), "gateway").status == "ok"


class _Health(BaseHTTPRequestHandler):
    """A remote gateway's health."""

    def do_GET(self) -> None:
        body = json.dumps({"status": "ok", "version": "0.1.0", "policy_source": "files"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def behind_tls(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """The port of a server behind TLS, and its certificate."""
    path = certificate(tmp_path)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Health)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1], path
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_certificate_that_is_not_trusted(behind_tls: tuple[int, Path], environ: dict[str, str], home: Path) -> None:
    """With the authority's certificate in place of the path in the remedy, the gateway is reached."""
    port, path = behind_tls
    environ |= {"AASM_GATEWAY_URL": f"https://localhost:{port}", "AASM_API_KEY": "sk-not-sent"}
    found = told(environ, "gateway")
    assert found["status"] == "fail"
    assert f"the certificate of localhost:{port} is not to be trusted" in found["found"]
    typed = found["remedy"].replace("/path/to/its-authority.pem", str(path))
    environ = type_remedy(typed, environ, home)
    assert told(environ, "gateway")["status"] == "ok"


def test_a_gateway_behind_tls_that_is_asked_without(behind_tls: tuple[int, Path], environ: dict[str, str]) -> None:
    environ["AASM_GATEWAY_URL"] = f"http://localhost:{behind_tls[0]}"
    found = row(environ, "gateway")
    assert (found.status, "wants TLS" in found.found) == ("fail", True)
    assert found.remedy.startswith(f"export AASM_GATEWAY_URL=https://localhost:{behind_tls[0]}; or: ")


def test_one_that_cannot_keep_records(home: Path) -> None:
    """It answers, and every call would be denied; restarted where it can write, it is well."""
    port = free_port()
    environ = shell(home, AASM_GATEWAY_PORT=port)
    limited = f"ulimit -f 256; trap '' XFSZ; exec {BIN}/aasm start --foreground --port {port}"
    process = subprocess.Popen(
        ["bash", "-c", limited], env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 20
        while (found := row(environ, "gateway")).status == "warn" and time.monotonic() < deadline:
            time.sleep(0.05)
        named = Gateway(home)
        named.port = port
        # Calls with long names fill what is left of the disk.
        make_calls(named, ["x" * 900 + str(number) for number in range(100)], enforcement_mode="observe")
        found = row(environ, "gateway")
        assert (found.status, "it cannot keep records" in found.found) == ("fail", True), found
        type_remedy(found.remedy, environ, home, alternative=1)
        assert row(environ, "gateway").status == "ok"
    finally:
        process.kill()
        process.wait()


def test_without_a_home_nothing_is_looked_for() -> None:
    """The row of the home says what to do."""
    found = row({**shell(Path("x")), "AASM_HOME": "~no-such-user/\n"}, "gateway")
    assert found.status == "skip"


def test_a_url_that_cannot_be_used_is_left_to_its_own_row(environ: dict[str, str]) -> None:
    environ["AASM_GATEWAY_URL"] = "gopher://x"
    found = row(environ, "gateway")
    assert (found.status, found.found.startswith("gateway_url (from variable AASM_GATEWAY_URL)")) == ("skip", True)


def test_nothing_answers_and_everything_ends_in_time(gateway: Gateway, serve: Serve, environ: dict[str, str]) -> None:
    """The named one hangs, the home's own is stopped, a stranger holds the port: all rows come within 5 s."""
    gateway.pause()
    server = serve(lambda connection, _: hang(connection))
    environ |= {"AASM_GATEWAY_URL": server.url, "AASM_GATEWAY_PORT": str(server.port)}
    began = time.monotonic()
    found = rows(environ)
    assert time.monotonic() - began < 5
    assert list(found) == [
        "gateway", "gateway key", "port", "versions", "policy", "clock", "proxies", "agents", "denials",
    ]  # fmt: skip
    assert not any("did not end" in each.found for each in found.values())
    assert [name for name, each in found.items() if each.status == "fail"] == ["gateway"]
