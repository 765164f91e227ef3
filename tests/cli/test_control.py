"""The command line and the gateway that it talks to: whom it believes, and what it says when there is none."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.gateway import Gateway
from support.programs import aasm_py

COMMANDS = [["audit", "list"], ["audit", "count"], ["audit", "tail"], ["agents"], ["runs"]]


class Squatter(http.server.ThreadingHTTPServer):
    """A program that answers on a port as a gateway would, and remembers what it was told."""

    daemon_threads = True

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.credentials: list[str] = []
        super().__init__(("127.0.0.1", 0), _Answer)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answer(http.server.BaseHTTPRequestHandler):
    server: Squatter

    def do_GET(self) -> None:
        if "Authorization" in self.headers:
            self.server.credentials.append(self.headers["Authorization"])
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(params=["a gateway without proof", "a wrong proof", "garbage"])
def squatter(request: pytest.FixtureRequest) -> Iterator[Squatter]:
    health = {"status": "ok", "mode": "local", "version": "0.1.0", "storage": "ok", "uptime_secs": 1}
    body = {
        "a gateway without proof": json.dumps(health).encode(),
        "a wrong proof": json.dumps({**health, "proof": "0" * 64}).encode(),
        "garbage": b"\x00\xff{]",
    }[request.param]
    server = Squatter(body)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def one_line(text: str) -> str:
    (line,) = text.splitlines()
    return line


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_without_a_gateway_each_command_says_what_to_type(home: Path, command: list[str]) -> None:
    """No gateway is one line with the remedy and exit code 1; nothing is started, nothing written."""
    result = aasm_py(command, home)
    assert (result.returncode, result.stdout) == (1, "")
    assert one_line(result.stderr).endswith("start it with: aasm-py gateway start")
    assert list(home.iterdir()) == []


def test_the_operator_token_is_shown_only_to_the_gateway_that_wrote_it(gateway: Gateway, squatter: Squatter) -> None:
    """Who answers at the configured address without the home's proof gets no credential."""
    result = aasm_py(["audit", "list"], gateway.home, environ={"AASM_GATEWAY_URL": squatter.url})
    assert (result.returncode, result.stdout) == (1, "")
    assert squatter.url in one_line(result.stderr)
    assert squatter.credentials == []


def test_a_token_that_others_can_read_is_not_used(gateway: Gateway) -> None:
    """A token open to others is refused with the command that closes it."""
    token = gateway.home / "operator.token"
    token.chmod(0o644)
    result = aasm_py(["runs"], gateway.home)
    assert result.returncode == 1
    assert f"chmod 0600 {token}" in one_line(result.stderr)


@pytest.mark.parametrize("content", ["", "aasm_op_xyz", "aasm_op_" + "g" * 64, "\xff" * 80])
def test_a_token_file_that_holds_no_token_is_named(gateway: Gateway, content: str) -> None:
    """A damaged token file is one line with the remedy, and nothing of it is sent or shown."""
    token = gateway.home / "operator.token"
    token.write_text(content)
    result = aasm_py(["runs"], gateway.home)
    assert result.returncode == 1
    assert f"{token} does not hold an operator token" in one_line(result.stderr)


def test_a_token_of_another_gateway_is_refused_by_this_one(gateway: Gateway) -> None:
    """The gateway's refusal is passed on in one line."""
    (gateway.home / "operator.token").write_text("aasm_op_" + "0" * 64)
    result = aasm_py(["runs"], gateway.home)
    assert result.returncode == 1
    assert " answered 401: " in one_line(result.stderr)


def test_a_gateway_that_hangs_is_given_up(gateway: Gateway) -> None:
    """A stopped gateway ends the command within seconds, with one line."""
    gateway.pause()
    try:
        result = aasm_py(["audit", "count"], gateway.home, timeout=30)
    finally:
        gateway.resume()
    assert result.returncode == 1
    assert gateway.url in one_line(result.stderr)


def test_proxies_of_the_environment_are_not_asked(gateway: Gateway) -> None:
    """The way to a gateway on this machine passes no proxy, whatever the variables say."""
    proxies = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"), "http://127.0.0.1:9")
    result = aasm_py(["audit", "count"], gateway.home, environ=proxies)
    assert (result.returncode, result.stdout) == (0, "0\n"), result.stderr


def test_a_bad_configuration_is_one_line_with_its_place(home: Path) -> None:
    """A misspelt setting is named with file, line and column."""
    config = home / "config.yaml"
    config.write_text("agent_id: ada\ngatway_url: http://127.0.0.1:1\n")
    config.chmod(0o600)
    result = aasm_py(["runs"], home)
    assert result.returncode == 1
    assert f"{config}:2:1: unknown setting 'gatway_url', did you mean 'gateway_url'?" in one_line(result.stderr)
