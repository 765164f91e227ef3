"""Finding, proving and starting the gateway: real `aasm` programs, real homes, real strangers on the port."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.gateway import Gateway, clean_environment, find_aasm, is_gateway
from support.programs import program, run_command

from agent_assembly.core.gateway_start import start_gateway
from agent_assembly.core.local_gateway import (
    announce_run,
    find_aasm_program,
    locate,
    probe,
    read_pid_file,
    read_secret,
    split_url,
)
from agent_assembly.core.proof import holds_lock
from agent_assembly.core.settings import resolve_settings
from agent_assembly.exceptions import ConfigurationError, GatewayError, PolicyError

from .conftest import WHETHER_GOVERNED, Launch


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class _Stranger(BaseHTTPRequestHandler):
    """A health answer as anyone can give it, with a proof that is none."""

    def do_GET(self) -> None:
        body = json.dumps({"status": "ok", "mode": "local", "version": "9.9.9", "proof": "0" * 64}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def stranger() -> Iterator[int]:
    """Somebody else's server that answers like a gateway; its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Stranger)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def start_words(home: Path, port: int) -> dict[str, str]:
    """Variables with which a launcher may start the gateway of `home`."""
    return {"AASM_GATEWAY_PORT": str(port), "PATH": f"{find_aasm().parent}{os.pathsep}{os.environ['PATH']}"}


def test_a_gateway_proves_that_it_is_the_homes(gateway: Gateway, tmp_path: Path) -> None:
    """Its answer to a challenge verifies with the home's secret, and with no other."""
    found = probe(gateway.url, str(gateway.home))
    assert (found.found, found.ours, found.problem) == (True, True, "")
    assert found.policy_source == "starter"
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    (other / "gateway.secret").write_text("0" * 64 + "\n")
    (other / "gateway.secret").chmod(0o600)
    assert not probe(gateway.url, str(other)).ours


def test_an_answer_relayed_from_another_port_does_not_verify(gateway: Gateway) -> None:
    """The proof names the port: a stranger cannot pass the question on to the real gateway."""

    def relay(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, socket.create_connection(("127.0.0.1", gateway.port)) as behind:
            text = connection.recv(65536).replace(f":{listener.getsockname()[1]}".encode(), f":{gateway.port}".encode())
            behind.sendall(text)
            while data := behind.recv(65536):
                connection.sendall(data)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=relay, args=(listener,), daemon=True).start()
        found = probe(int(listener.getsockname()[1]), str(gateway.home))
    assert (found.found, found.ours) == (True, False)


def test_the_pid_file_is_found_and_locked(gateway: Gateway) -> None:
    """It names the live gateway, which holds its lock until it ends."""
    known = read_pid_file(str(gateway.home))
    assert known is not None
    assert (known.pid, known.port) == (gateway.pid, gateway.port)
    assert holds_lock(str(gateway.home))
    gateway.stop()
    assert not holds_lock(str(gateway.home))


@pytest.mark.parametrize("name", ["gateway.secret", "gateway.pid", "."])
@pytest.mark.parametrize("harm", ["others can write", "is a link"])
def test_files_that_cannot_be_trusted_are_refused(home: Path, name: str, harm: str) -> None:
    """Whoever can write them would decide who governs; the message has the command to type."""
    (home / "gateway.secret").write_text("a" * 64 + "\n")
    (home / "gateway.pid").write_text("pid=1\nport=2\n")
    for path in home.iterdir():
        path.chmod(0o600)
    looked_at = str(home)
    if harm == "others can write":
        (home / name).chmod(0o722 if name == "." else 0o622)
        expected = "type: chmod 0[67]00 "
    elif name == ".":
        looked_at = str(home.with_name("link"))
        os.symlink(home, looked_at)
        expected = "is a symbolic link"
    else:
        (home / name).rename(home / "real")
        (home / name).symlink_to(home / "real")
        expected = "is a symbolic link"
    read = read_pid_file if name == "gateway.pid" else read_secret
    with pytest.raises(ConfigurationError, match=expected):
        read(looked_at)
    (home / ".").chmod(0o700)


@pytest.mark.parametrize(
    "text", ["", "garbage", "pid=x\nport=1\n", "pid=1\n", "pid=1\nport=99999\n", "pid=0\nport=1\n"]
)
def test_a_half_written_pid_file_is_none(tmp_path: Path, text: str) -> None:
    """The gateway may be writing it just now, or have died while it did."""
    home = tmp_path / "other"
    home.mkdir(mode=0o700)
    (home / "gateway.pid").write_text(text)
    (home / "gateway.pid").chmod(0o600)
    assert read_pid_file(str(home)) is None


@pytest.mark.parametrize("text", ["", "short\n", "Z" * 64 + "\n"])
def test_a_damaged_secret_is_named(home: Path, text: str) -> None:
    """It is never used as a key."""
    (home / "gateway.secret").write_text(text)
    (home / "gateway.secret").chmod(0o600)
    with pytest.raises(ConfigurationError, match="damaged"):
        read_secret(str(home))


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("http://127.0.0.1:7391", (False, "127.0.0.1", 7391, "")),
        ("https://gateway.example.com", (True, "gateway.example.com", 443, "")),
        ("http://[::1]:8", (False, "[::1]", 8, "")),
        ("http://[::1]", (False, "[::1]", 80, "")),
        ("https://a/b/c", (True, "a", 443, "/b/c")),
    ],
)
def test_urls(url: str, parts: tuple[bool, str, int, str]) -> None:
    """Scheme, host, port and the path before ours."""
    assert split_url(url) == parts


@pytest.mark.parametrize("url", ["http://a:0", "http://a:x", "http://a:99999"])
def test_a_url_without_a_usable_port_is_refused(url: str) -> None:
    """As configuration, not as a connection that fails."""
    with pytest.raises(ConfigurationError, match="no usable port"):
        split_url(url)


def test_announcing_the_same_run_again_is_fine(gateway: Gateway) -> None:
    """A launcher that did not see the answer may ask again; other content under the same id is refused."""
    found = locate(resolve_settings({"gateway_url": gateway.url, "home": gateway.home}, {}), [])
    run = {
        "run_id": "run-0123456789abcdef",
        "command": ["python", "agent.py"],
        "host": "here",
        "pid": 1,
        "cwd": "/",
        "sdk_version": "0.1.0",
    }
    first = announce_run(found, str(gateway.home), run)
    assert announce_run(found, str(gateway.home), run)["run_id"] == first["run_id"] == run["run_id"]
    with pytest.raises(GatewayError) as caught:
        announce_run(found, str(gateway.home), {**run, "command": ["other"]})
    assert (caught.value.code, caught.value.status) == ("run_exists", 409)
    policy = {"name": "p.yaml", "text": "rules: [}"}
    with pytest.raises(PolicyError) as refused:
        announce_run(found, str(gateway.home), {**run, "run_id": "run-00000000000000ff", "policy": policy})
    assert refused.value.diagnostics[0]["file"] == "p.yaml"


def test_a_run_is_announced(launch: Launch, gateway: Gateway, python: str) -> None:
    """With its command and process; a run inside it is not another one."""
    inner = [str(program("aasm-run")), python, "-c", "pass"]
    code = f"import subprocess; subprocess.run({inner!r}, check=True)"
    assert launch(python, "-c", code).returncode == 0
    (run,) = gateway.control("/v1/runs")["runs"]
    assert run["command"] == [python, "-c", code]


def test_a_policy_of_the_run_that_does_not_check_is_refused(launch: Launch, work: Path, python: str) -> None:
    """Before anything starts, with file, line and column."""
    (work / "policy.yaml").write_text("apiVersion: agent-assembly/v1\nnonsense: [}\n")
    result = launch(python, "-c", "print('ran')", options=["--policy", "policy.yaml"])
    assert (result.returncode, result.stdout) == (78, "")
    assert "policy.yaml:2:" in result.stderr
    missing = launch(python, "-c", "print('ran')", options=["--policy", "no-such.yaml"])
    assert (missing.returncode, missing.stdout) == (78, "")
    assert "no-such.yaml" in missing.stderr


def test_without_any_gateway(home: Path, python: str, free_port: int) -> None:
    """Enforce refuses with a table of what was tried; observe says one line and goes on."""
    command = [program("aasm-run"), "--no-start", python, "-c", "print('ran')"]
    environ = {"AASM_GATEWAY_PORT": str(free_port)}
    result = run_command(command, home, environ=environ)
    assert (result.returncode, result.stdout) == (78, "")
    assert result.stderr.startswith("aasm-run: gateway_url is required\n")
    assert f"http://127.0.0.1:{free_port}" in result.stderr
    for mode in ("observe", "disabled"):
        observed = run_command(command, home, environ={**environ, "AASM_ENFORCEMENT_MODE": mode})
        assert (observed.returncode, observed.stdout) == (0, "ran\n")
        assert observed.stderr.count("\n") == 1
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("place", ["option", "variable", "file"])
def test_a_gateway_that_was_named_is_never_started(home: Path, python: str, free_port: int, place: str) -> None:
    """If it does not answer, that is the answer; where its name came from is in the table."""
    url = f"http://127.0.0.1:{free_port}"
    environ = start_words(home, free_port)
    options: list[str] = []
    if place == "option":
        options = ["--gateway-url", url]
    elif place == "variable":
        environ["AASM_GATEWAY_URL"] = url
    else:
        (home / "config.yaml").write_text(f"gateway_url: {url}\n")
        (home / "config.yaml").chmod(0o600)
    result = run_command([program("aasm-run"), *options, python, "-c", "print('ran')"], home, environ=environ)
    assert (result.returncode, result.stdout) == (78, "")
    assert url in result.stderr
    assert {"option": "argument", "variable": "AASM_GATEWAY_URL", "file": "config.yaml:1"}[place] in result.stderr
    assert not (home / "gateway.pid").exists()


def test_a_stranger_on_the_port_is_not_believed(home: Path, python: str, stranger: int) -> None:
    """Neither where it was named nor where the local gateway would be; nobody is told about the run."""
    (home / "gateway.secret").write_text("a" * 64 + "\n")
    (home / "gateway.secret").chmod(0o600)
    for environ in ({"AASM_GATEWAY_PORT": str(stranger)}, {"AASM_GATEWAY_URL": f"http://127.0.0.1:{stranger}"}):
        result = run_command([program("aasm-run"), python, "-c", "print('ran')"], home, environ=environ)
        assert (result.returncode, result.stdout) == (78, "")
        assert "cannot prove" in result.stderr


def test_a_gateway_that_hangs_is_not_waited_for_long(gateway: Gateway, python: str) -> None:
    """A stopped process accepts connections for ever: the launcher gives up, and says which process it is."""
    gateway.pause()
    try:
        began = time.monotonic()
        result = run_command([program("aasm-run"), python, "-c", "print('ran')"], gateway.home)
        assert time.monotonic() - began < 8
    finally:
        gateway.resume()
    assert (result.returncode, result.stdout) == (78, "")
    assert f"pid {gateway.pid}" in result.stderr


def test_a_gateway_that_was_killed_is_replaced(gateway: Gateway, python: str) -> None:
    """Its pid file is stale: the next launcher starts a new one on the port of the settings."""
    gateway.kill()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    result = run_command(
        [program("aasm-run"), python, "-c", WHETHER_GOVERNED], gateway.home, environ=start_words(gateway.home, port)
    )
    assert (result.returncode, result.stdout) == (0, "governed\n"), result.stderr
    known = read_pid_file(str(gateway.home))
    assert known is not None
    assert known.port == port


def test_ten_launchers_start_one_gateway(home: Path, python: str, free_port: int) -> None:
    """At the same moment, on an empty home: nine find what the tenth started."""
    environ = clean_environment(AASM_HOME=str(home), **start_words(home, free_port))
    launchers = [
        subprocess.Popen(
            [program("aasm-run"), python, "-c", WHETHER_GOVERNED],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(10)
    ]
    results = [launcher.communicate(timeout=60) for launcher in launchers]
    assert [output for output, _ in results] == ["governed\n"] * 10, results
    assert sum("started the gateway" in errors for _, errors in results) == 1
    known = read_pid_file(str(home))
    assert known is not None
    assert known.port == free_port


def test_a_started_gateway_is_nobodys_child(home: Path, python: str, free_port: int) -> None:
    """It has a session of its own, none of the caller's files, variables or directory, and outlives the program."""
    read_end, write_end = os.pipe()
    os.set_inheritable(write_end, True)
    try:
        result = subprocess.run(
            [program("aasm-run"), "--quiet", "--api-key", "secret-key", python, "-c", "pass"],
            env=clean_environment(AASM_HOME=str(home), OPENAI_API_KEY="secret-too", **start_words(home, free_port)),
            pass_fds=[write_end],
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        os.close(write_end)
    assert (result.returncode, result.stderr) == (0, "")
    # The end of the pipe is reached: the gateway does not hold it open.
    assert os.read(read_end, 1) == b""
    os.close(read_end)
    known = read_pid_file(str(home))
    assert known is not None
    assert is_gateway(known.pid)
    assert os.getsid(known.pid) != os.getsid(0)
    variables = Path(f"/proc/{known.pid}/environ").read_bytes()
    for secret in (b"secret-key", b"secret-too", b"AASM_"):
        assert secret not in variables
    assert os.readlink(f"/proc/{known.pid}/cwd") == str(home)


def test_a_gateway_that_does_not_start_says_why(home: Path, python: str, free_port: int) -> None:
    """What it complained about is in the message, and it is not waited for in vain."""
    policies = home / "policies"
    policies.mkdir(mode=0o700)
    (policies / "bad.yaml").write_text("nonsense: [}\n")
    (policies / "bad.yaml").chmod(0o600)
    began = time.monotonic()
    result = run_command(
        [program("aasm-run"), python, "-c", "print('ran')"], home, environ=start_words(home, free_port)
    )
    assert (result.returncode, result.stdout) == (78, "")
    assert "bad.yaml:1:" in result.stderr
    assert time.monotonic() - began < 8


def test_what_an_earlier_gateway_said_is_not_taken_for_the_reason(home: Path, tmp_path: Path, free_port: int) -> None:
    """Its log goes on where the one before it ended."""
    (home / "log").mkdir(mode=0o700)
    (home / "log" / "gateway.log").write_text("stopped\n")
    silent = tmp_path / "aasm"
    silent.write_text('#!/bin/sh\necho it is so >> "$8/log/gateway.log"\nexit 1\n')
    silent.chmod(0o700)
    with pytest.raises(GatewayError) as caught:
        start_gateway(str(home), free_port, str(silent), 30.0)
    assert str(caught.value) == "the gateway was started and ended at once: it is so"
    silent.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(GatewayError) as caught:
        start_gateway(str(home), free_port, str(silent), 30.0)
    assert str(caught.value) == "the gateway was started and ended at once"


def test_the_program_aasm_is_never_taken_from_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative entries of PATH do not name the governor."""
    (tmp_path / "aasm").write_text("#!/bin/sh\n")
    (tmp_path / "aasm").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    beside = find_aasm_program({"PATH": ""})
    assert find_aasm_program({"PATH": f".{os.pathsep}"}) == beside
    if beside is None:
        assert find_aasm_program({"PATH": str(tmp_path)}) == str(tmp_path / "aasm")


def test_what_the_gateway_demands_at_least_holds(start_gateway: Callable[..., Gateway], python: str) -> None:
    """A run that asks for less than the operator's minimum gets the minimum, and is told."""
    gateway = start_gateway(options=("--min-enforcement", "enforce"))
    code = "import os; print(os.environ['AASM_ENFORCEMENT_MODE'])"
    result = run_command([program("aasm-run"), "--enforcement-mode", "observe", python, "-c", code], gateway.home)
    assert result.stdout == "enforce\n"
    assert "which the gateway demands" in result.stderr


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for localhost, with its key, that only those trust who are told to."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not on PATH")
    path = tmp_path / "certificate.pem"
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(path), "-out", str(tmp_path / "only.pem")]
    subprocess.run(command, capture_output=True, check=True)
    path.write_text(path.read_text() + (tmp_path / "only.pem").read_text())
    return path


def test_a_gateway_behind_tls_is_verified(home: Path, python: str, certificate: Path) -> None:
    """By the system's authorities and SSL_CERT_FILE; without trust nothing is sent, also no API key."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Stranger)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"https://localhost:{server.server_address[1]}"
        command = [program("aasm-run"), "--gateway-url", url, "--api-key", "key", python, "-c", "print('ran')"]
        refused = run_command(command, home)
        assert (refused.returncode, refused.stdout) == (78, "")
        assert "is not to be trusted" in refused.stderr
        trusted = run_command(command, home, environ={"SSL_CERT_FILE": str(certificate)})
        assert (trusted.returncode, trusted.stdout, trusted.stderr) == (0, "ran\n", "")
    finally:
        server.shutdown()
        server.server_close()
