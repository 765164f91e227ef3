"""The proofs that a gateway and its callers give each other, and the files of the home that they rest on.

HMAC-SHA256 with the text of `gateway.secret` as key; see the section "Proof" of the contracts. Imported before the
user's program: see the import rules.
"""

from __future__ import annotations

import os
import stat
import time

from agent_assembly.core.home import check_owned
from agent_assembly.exceptions import ConfigurationError

try:
    # CPython 3.12 and later; `hashlib` would load OpenSSL.
    from _sha2 import sha256  # type: ignore[import-not-found]
except ImportError:
    try:
        from _sha256 import sha256  # type: ignore[import-not-found]
    except ImportError:
        from hashlib import sha256

_HEXADECIMAL = frozenset(b"0123456789abcdef")
_INNER = bytes(byte ^ 0x36 for byte in range(256))
_OUTER = bytes(byte ^ 0x5C for byte in range(256))


class PidFile:
    """What `gateway.pid` says: the process, its port, its version, and when it started (unix seconds)."""

    __slots__ = ("pid", "port", "started", "version")

    def __init__(self, pid: int, port: int, version: str, started: int) -> None:
        self.pid = pid
        self.port = port
        self.version = version
        self.started = started


def hmac_sha256(key: bytes, message: bytes) -> str:
    """HMAC-SHA256 (RFC 2104), hexadecimal."""
    if len(key) > 64:
        key = sha256(key).digest()
    key = key.ljust(64, b"\0")
    inner = sha256(key.translate(_INNER) + message).digest()
    proof: str = sha256(key.translate(_OUTER) + inner).hexdigest()
    return proof


def health_proof(secret: bytes, challenge: str, port: int) -> str:
    """What a gateway of ours answers to `challenge` on `port`."""
    return hmac_sha256(secret, f"aasm-health-v1\n{challenge}\n{port}".encode())


def client_proof(secret: bytes, method: str, path: str, body: bytes) -> str:
    """The `Authorization` header that proves, once, that the caller can read the home."""
    moment = int(time.time())
    nonce = os.urandom(16).hex()
    name = path.partition("?")[0]
    message = f"aasm-client-v1\n{method}\n{name}\n{moment}\n{nonce}\n{sha256(body).hexdigest()}"
    return f"AASM-Proof {moment}.{nonce}.{hmac_sha256(secret, message.encode())}"


def same_text(one: str, other: str) -> bool:
    """Compare without telling by the time taken where the two differ."""
    if len(one) != len(other):
        return False
    difference = 0
    for first, second in zip(one.encode(), other.encode()):  # noqa: B905 - equal lengths, just checked
        difference |= first ^ second
    return difference == 0


def read_secret(home: str) -> bytes:
    """Return the text of `gateway.secret`; raise ConfigurationError when it is missing or cannot be trusted."""
    path = os.path.join(home, "gateway.secret")
    text = _read_private(home, path, "secret")
    if text is None:
        raise ConfigurationError(f"secret {path} is missing; the gateway writes it when it starts: type: aasm start")
    secret = text[:-1] if text.endswith(b"\n") else text
    if len(secret) != 64 or not _HEXADECIMAL.issuperset(secret):
        raise ConfigurationError(f"secret {path} is damaged; remove it and start the gateway anew")
    return secret


def read_pid_file(home: str) -> PidFile | None:
    """Return what `gateway.pid` says, or None when it says nothing; `holds_lock` tells whether the gateway lives."""
    text = _read_private(home, os.path.join(home, "gateway.pid"), "pid file")
    if text is None:
        return None
    fields: dict[str, str] = {}
    for line in text.decode("ascii", "replace").splitlines():
        name, _, value = line.partition("=")
        fields[name] = value
    try:
        found = PidFile(
            int(fields["pid"]), int(fields["port"]), fields.get("version", ""), int(fields.get("started") or 0)
        )
    except (KeyError, ValueError):
        # The gateway is about to write it, or died while it did.
        return None
    return found if found.pid > 0 and 0 < found.port < 65536 else None


def holds_lock(home: str) -> bool:
    """Whether a live gateway holds `gateway.pid`.

    Taking the lock for a moment, as this does, could make a gateway that starts just now believe that another one runs:
    ask only under `gateway.start.lock`, or when somebody listens on its port already.
    """
    import fcntl

    try:
        descriptor = os.open(os.path.join(home, "gateway.pid"), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _read_private(home: str, path: str, what: str) -> bytes | None:
    if check_owned(home, "home directory") is None or check_owned(path, what) is None:
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(f"{what} {path} cannot be read: {error.strerror}") from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ConfigurationError(f"{what} {path} is not a file; remove it")
        return os.read(descriptor, 4096)
    finally:
        os.close(descriptor)
