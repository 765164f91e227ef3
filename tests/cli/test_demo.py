"""`make demo` shows what it promises, and leaves nothing behind however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.gateway import clean_environment, gateways_under

DEMO = Path(__file__).resolve().parents[2] / "scripts" / "demo.py"

pytestmark = pytest.mark.slow


def start_demo(directory: Path) -> subprocess.Popen[str]:
    directory.mkdir()
    return subprocess.Popen(
        [sys.executable, DEMO],
        env=clean_environment(TMPDIR=str(directory)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def test_the_demo_shows_allowed_denied_and_refused_calls(tmp_path: Path) -> None:
    """It ends well within its time, having checked what it showed."""
    began = time.monotonic()
    demo = start_demo(tmp_path / "tmp")
    shown, error = demo.communicate(timeout=60)
    assert (demo.returncode, error) == (0, ""), shown
    assert "blocked  delete_customer" in shown
    assert "Ticket T-7 is open" in shown
    assert "audit log intact" in shown
    assert "\x1b" not in shown
    assert list((tmp_path / "tmp").iterdir()) == []
    assert gateways_under(tmp_path) == []
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
@pytest.mark.parametrize(
    ("seen", "seconds"),
    [
        ("An agent", 0.0),
        ("$ aasm-run", 0.0),
        ("$ aasm-run", 0.05),
        ("model  →", 0.0),
        ("blocked", 0.2),
        ("audit list", 0.0),
    ],
)
def test_the_demo_interrupted_leaves_nothing_running(
    tmp_path: Path, number: signal.Signals, seen: str, seconds: float
) -> None:
    """Whenever it is interrupted, also while the gateway comes up: no gateway, no home, exit code 130."""
    demo = start_demo(tmp_path / "tmp")
    assert demo.stdout is not None
    for line in demo.stdout:
        if seen in line:
            break
    time.sleep(seconds)
    if number == signal.SIGINT:
        os.killpg(demo.pid, number)
    else:
        demo.send_signal(number)
    _, error = demo.communicate(timeout=60)
    assert (demo.returncode, error) == (130, "\ninterrupted; the demo's gateway is stopped\n")
    time.sleep(0.5)
    assert gateways_under(tmp_path) == []
    assert list((tmp_path / "tmp").iterdir()) == []
