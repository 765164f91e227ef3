"""One exchange with a gateway behind TLS, over the standard library; loaded only where such a gateway was named."""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Mapping

from agent_assembly.core.exchange import BODY_LIMIT, reason
from agent_assembly.exceptions import GatewayError


def https_exchange(
    host: str, port: int, method: str, path: str, headers: Mapping[str, str], body: bytes, timeout: float
) -> tuple[int, dict[str, str], bytes]:
    """Like `http_exchange`, verified against the system's authorities and `SSL_CERT_FILE`."""
    deadline = time.monotonic() + timeout
    place = f"{host}:{port}"
    context = ssl.create_default_context()
    connection = http.client.HTTPSConnection(host.strip("[]"), port, timeout=timeout, context=context)
    sent = {"Accept": "application/json", "Connection": "close", **headers}
    if body or method == "POST":
        sent["Content-Type"] = "application/json"
    try:
        connection.request(method, path, body=body or None, headers=sent)
        _shorten(connection, deadline)
        response = connection.getresponse()
        content = b""
        while chunk := response.read1(65536):
            content += chunk
            if len(content) > BODY_LIMIT:
                raise GatewayError(f"{place} sends more than {BODY_LIMIT} bytes", code="gateway_error")
            _shorten(connection, deadline)
        return response.status, {name.lower(): value for name, value in response.getheaders()}, content
    except TimeoutError:
        raise GatewayError(f"{place} did not answer within {timeout:g} s", code="gateway_timeout") from None
    except ssl.SSLCertVerificationError as error:
        raise GatewayError(
            f"the certificate of {place} is not to be trusted: {error.verify_message}", code="gateway_unreachable"
        ) from None
    except OSError as error:
        raise GatewayError(f"{place} cannot be reached: {reason(error)}", code="gateway_unreachable") from None
    except (http.client.HTTPException, ValueError) as error:
        name = type(error).__name__
        raise GatewayError(f"what answers at {place} is no gateway: {name}", code="gateway_error") from None
    finally:
        connection.close()


def _shorten(connection: http.client.HTTPSConnection, deadline: float) -> None:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    if connection.sock is not None:
        connection.sock.settimeout(left)
