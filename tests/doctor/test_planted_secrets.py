"""Secrets planted wherever the doctor looks appear in nothing that it says or writes."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.bundles import log_of, members_of
from support.odd_gateways import free_port
from support.programs import aasm_py

PLANTED = {
    "key": "planted-api-key-11",
    "operator": "aasm_op_" + "1f" * 32,
    "secret": "2e3d4c5b" * 8,
    "url": "planted-url-pw-22",
    "proxy": "planted-proxy-pw-33",
    "provider": "planted-provider-44",
    "log": "plantedlogpw55",
    "body": "sk-planted-body-66aaaaaaaaaa",
    "config": "planted-config-pw-77",
    "command": "planted-command-88",
}


class _Echo(BaseHTTPRequestHandler):
    """What is no gateway, and says in its errors what it was sent and more."""

    def do_GET(self) -> None:
        said = {
            "version": f"0.1.0 {PLANTED['body']}",
            "status": f"key {PLANTED['key']} and token={PLANTED['log']} refused",
            "storage": self.headers.get("Authorization", ""),
            "detail": f"http://u:{PLANTED['url']}@h is unknown; api_key={PLANTED['config']}",
            "title": PLANTED["body"],
            "code": PLANTED["body"],
        }
        data = json.dumps(said).encode()
        self.send_response(200 if "healthz" in self.path else 401)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Type", "application/problem+json")
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_DELETE = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def echo() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Echo)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def plant(home: Path, *, broken: bool) -> dict[str, str]:
    """Put secrets into files of `home`; return the variables that hold more of them."""
    files = {
        "gateway.secret": PLANTED["secret"] + "\n",
        "operator.token": PLANTED["operator"] + "\n",
        "config.yaml": f"api_key: {PLANTED['config']}\n" + (f"password: {PLANTED['config']}\n  x\n" if broken else ""),
    }
    for name, text in files.items():
        (home / name).write_text(text)
        (home / name).chmod(0o600)
    log_of(home).write_text(
        "".join(
            f"INFO refused {text}\n"
            for text in (
                f"Authorization: Bearer {PLANTED['key']}",
                f"password={PLANTED['log']}",
                f'{{"operator": "{PLANTED["operator"]}", "x": "{PLANTED["body"]}"}}',
                f"key={PLANTED['secret']} of {PLANTED['provider']} and {PLANTED['config']}",
            )
        )
    )
    return {
        "AASM_API_KEY": PLANTED["key"],
        "HTTPS_PROXY": f"http://me:{PLANTED['proxy']}@127.0.0.1:9",
        "OPENAI_API_KEY": PLANTED["provider"],
        "DATABASE_URL": f"postgres://me:{PLANTED['url']}@127.0.0.1/x",
    }


def leaks(texts: dict[str, str]) -> list[tuple[str, str]]:
    return [(where, name) for where, text in texts.items() for name, secret in PLANTED.items() if secret in text]


@pytest.mark.parametrize("broken", [False, True], ids=["usable", "broken"])
@pytest.mark.parametrize("where", ["echo", "password in the url", "nothing"])
def test_no_planted_secret_is_in_any_output(home: Path, tmp_path: Path, echo: str, where: str, broken: bool) -> None:
    """Planted in URL, variables, configuration, log, command and the gateway's answers: in no table, JSON or member."""
    environ = plant(home, broken=broken)
    environ["AASM_GATEWAY_PORT"] = str(free_port())
    if where == "echo":
        environ["AASM_GATEWAY_URL"] = echo
    elif where != "nothing":
        environ["AASM_GATEWAY_URL"] = f"http://me:{PLANTED['url']}@127.0.0.1:9"
    words = [sys.executable, "agent.py", "--token", PLANTED["command"], f"--password={PLANTED['log']}"]
    texts = {}
    for options in ([], ["--json"]):
        path = tmp_path / f"b{len(options)}.zip"
        result = aasm_py(["doctor", *options, "--report", str(path), "--", *words], home, environ=environ)
        assert result.returncode == 1, result.stderr
        texts |= {f"stdout {options}": result.stdout, f"stderr {options}": result.stderr}
        texts |= {f"{path.name} {name}": text for name, text in members_of(path).items()}
    assert leaks(texts) == []
    assert any("[redacted]" in text for text in texts.values())


def test_the_planted_secrets_would_be_seen(home: Path) -> None:
    """The check of the test above finds what it looks for."""
    plant(home, broken=False)
    assert leaks({"log": log_of(home).read_text()}) == [
        ("log", name) for name in ("key", "operator", "secret", "provider", "log", "body", "config")
    ]
