"""What every test gets: a home of its own, a real gateway in it, and the check that nothing is left running."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.gateway import Gateway, gateways_under, stop_gateway_of

# A shell that starts the tests in the background makes them, and every program under test, deaf to Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_settings_of_this_shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees the AASM_* variables, or the home directory, of the person who runs it."""
    for name in [name for name in os.environ if name.startswith("AASM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AASM_HOME", str(tmp_path / "home"))


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """An empty home directory; a gateway that something started in it is ended afterwards."""
    directory = tmp_path / "home"
    directory.mkdir(mode=0o700)
    yield directory
    stop_gateway_of(directory)


@pytest.fixture
def start_gateway(home: Path) -> Iterator[Callable[..., Gateway]]:
    """Start the gateway of `home`: `start_gateway(policy=TEXT, options=[…])`."""
    started: list[Gateway] = []

    def start(*, policy: str | None = None, options: tuple[str, ...] = ()) -> Gateway:
        gateway = Gateway(home, policy=policy, options=options).start()
        started.append(gateway)
        return gateway

    yield start
    for gateway in started:
        gateway.stop()


@pytest.fixture
def gateway(start_gateway: Callable[..., Gateway]) -> Gateway:
    """A gateway without policies of an operator: its starter allows and records everything."""
    return start_gateway()


@pytest.fixture(scope="session", autouse=True)
def _nothing_left_running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No gateway of a test survives the session."""
    yield
    left = gateways_under(tmp_path_factory.getbasetemp())
    assert not left, f"gateways were left running: {left}"
