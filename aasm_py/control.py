"""The control plane of the local gateway, as the command line uses it.

The operator token is sent only to a gateway that has proved that it belongs to the same home directory: whoever squats
on the port gets nothing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from agent_assembly import ConfigurationError, GatewayError, resolve_settings
from agent_assembly.launching import probe, read_pid_file

TIMEOUT_SECONDS = 10.0
# A page of a thousand records of the largest size is far below it.
ANSWER_LIMIT = 64 << 20
_TOKEN_PREFIX = "aasm_op_"  # noqa: S105 - the public prefix of every token, no secret
_START = "start it with: aasm-py gateway start"


class Control:
    """A connection to the control plane; a context manager.

    It goes straight to the gateway: a proxy from the environment would see the token.
    """

    def __init__(self, url: str, token: str, timeout: float = TIMEOUT_SECONDS) -> None:
        # Not httpx, which takes three times as long to import as this whole command to answer.
        from http.client import HTTPConnection, HTTPSConnection
        from urllib.parse import urlsplit

        self.url = url
        self._timeout = timeout
        parts = urlsplit(url)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._connection = kind(parts.hostname or "", parts.port, timeout=timeout)
        self._prefix = parts.path.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}

    def get(self, path: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the answer's object; raise GatewayError for everything else. Parameters of None are left out."""
        import json
        from urllib.parse import urlencode

        given = {name: value for name, value in (parameters or {}).items() if value is not None}
        wanted = urlencode(given, errors="replace")
        status, content = self._exchange(f"{self._prefix}{path}{'?' if wanted else ''}{wanted}")
        try:
            body = json.loads(content)
        except ValueError:
            body = None
        if status != 200 or not isinstance(body, dict):
            raise self._refused(status, body)
        return body

    def _exchange(self, target: str) -> tuple[int, bytes]:
        from http.client import HTTPException

        try:
            self._connection.request("GET", target, headers=self._headers)
            answer = self._connection.getresponse()
            content = answer.read(ANSWER_LIMIT + 1)
        except TimeoutError:
            raise GatewayError(
                f"the gateway at {self.url} did not answer within {self._timeout:.0f} s", code="gateway_timeout"
            ) from None
        except OSError as error:
            raise GatewayError(
                f"the gateway at {self.url} cannot be reached ({error.strerror or error}); {_START}",
                code="gateway_unreachable",
            ) from None
        except HTTPException as error:
            raise GatewayError(
                f"what answers at {self.url} does not speak HTTP ({type(error).__name__}); {_START}",
                code="gateway_error",
            ) from None
        if len(content) > ANSWER_LIMIT:
            raise GatewayError(f"the gateway at {self.url} sends more than {ANSWER_LIMIT} bytes", code="gateway_error")
        return answer.status, content

    def _refused(self, status: int, body: Any) -> GatewayError:
        problem = body if isinstance(body, dict) else {}
        detail = problem.get("detail") or problem.get("title") or "an answer that is not of this interface"
        remedy = "; is operator.token of another gateway? restart this one" if status in (401, 403) else ""
        return GatewayError(
            f"the gateway at {self.url} answered {status}: {detail}{remedy}",
            code=str(problem.get("code") or "gateway_error"),
            status=status,
        )

    def __enter__(self) -> Control:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()


def connect() -> Control:
    """Return a connection to the gateway of this user's home; raise GatewayError with the remedy when there is none.

    The gateway is the one that the settings name, else the one of the home's pid file.
    """
    settings = resolve_settings()
    home: str = settings.home
    url: str | None = settings.gateway_url
    if url is None:
        running = read_pid_file(home)
        if running is None:
            raise GatewayError(f"no gateway is running for {home}; {_START}", code="gateway_unreachable")
        url = f"http://127.0.0.1:{running.port}"
    found = probe(url, home)
    if not found.found:
        raise GatewayError(f"no gateway answers at {url} ({found.problem}); {_START}", code="gateway_unreachable")
    if not found.ours:
        raise GatewayError(
            f"what answers at {url} is not the gateway of {home} ({found.problem}); the operator token stays here",
            code="gateway_error",
        )
    return Control(url, read_operator_token(home))


def read_operator_token(home: str) -> str:
    """Return the token of `$AASM_HOME/operator.token`; raise ConfigurationError when the file cannot be trusted."""
    path = os.path.join(home, "operator.token")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise ConfigurationError(f"{path} is missing; the gateway writes it when it starts") from None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    with open(descriptor, encoding="ascii", errors="replace") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise ConfigurationError(f"{path} is not a file of yours; set AASM_HOME to your own directory")
        if status.st_mode & 0o077:
            raise ConfigurationError(f"{path} is open to others; type: chmod 0600 {path}")
        token = file.read(256).strip()
    digits = token.removeprefix(_TOKEN_PREFIX)
    if not token.startswith(_TOKEN_PREFIX) or len(digits) != 64 or set(digits) - set("0123456789abcdef"):
        raise ConfigurationError(f"{path} does not hold an operator token; remove it and restart the gateway")
    return token
