"""The rows about the home: who may enter it, and the secrets in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.gateway import Gateway, find_aasm
from support.setups import Setup, free_port

from aasm_py.doctor import home as home_rows
from aasm_py.doctor.look import Look
from aasm_py.doctor.table import CHECKS
from agent_assembly.diagnosis import Finding

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become, or give files to, somebody else")
NOBODY = 65534


@pytest.fixture
def setup(home: Path) -> Setup:
    return Setup(home)


def test_a_new_home_is_well(setup: Setup) -> None:
    """Nothing is missing before the first start."""
    rows = setup.rows("home", "secrets", "pid file", "start lock")
    assert {row.status for row in rows.values()} == {"ok"}
    assert rows["home"].found == f"{setup.home}, from variable AASM_HOME"


def test_a_home_that_is_not_there_yet_is_well(setup: Setup) -> None:
    """It is made, and looking does not make it."""
    setup.home.rmdir()
    rows = setup.rows("home", "secrets", "pid file", "start lock")
    assert {row.status for row in rows.values()} == {"ok"}
    assert "does not exist yet" in rows["home"].found
    assert not setup.home.exists()


def test_a_home_in_use_is_well(setup: Setup, gateway: Gateway) -> None:
    """And the gateway is named."""
    rows = setup.rows("home", "secrets", "pid file", "start lock")
    assert {row.status for row in rows.values()} == {"ok"}
    assert rows["pid file"].found == f"pid {gateway.pid} (aasm), port {gateway.port}"


@pytest.mark.parametrize(("mode", "status"), [(0o777, "fail"), (0o720, "fail"), (0o755, "warn"), (0o711, "warn")])
def test_a_home_that_is_open_to_others_is_closed(setup: Setup, mode: int, status: str) -> None:
    """By typing, and by the repair, twice."""
    setup.home.chmod(mode)
    row = setup.row("home")
    assert row.status == status
    assert f"(mode 0{mode:o})" in row.found
    assert row.repair is not None
    for _ in range(2):
        row.repair.act()
    assert setup.row("home").status == "ok"
    setup.home.chmod(mode)
    setup.type(row.remedy)
    assert setup.row("home").status == "ok"


def test_the_command_names_the_way_out_of_an_open_home(setup: Setup) -> None:
    setup.home.chmod(0o777)
    setup.mended("home", "fail", "can be written by others")


def test_what_the_gateway_would_refuse_in_the_home_is_told(setup: Setup, gateway: Gateway) -> None:
    """All of it is mended by one line, and the gateway starts again."""
    gateway.stop()
    (setup.home / "audit").chmod(0o777)
    (setup.home / "state.db").chmod(0o666)
    (setup.home / "log" / "gateway.log").chmod(0o644)
    row = setup.row("home")
    assert row.status == "fail"
    assert row.found.index("audit") < row.found.index("gateway.log")
    setup.type(row.remedy)
    assert setup.row("home").status == "ok"
    gateway.start()


def test_a_home_that_is_a_file_makes_room(setup: Setup) -> None:
    """Its content is kept."""
    setup.home.rmdir()
    setup.home.write_text("mine")
    setup.mended("home", "fail", "is not a directory")
    assert (setup.home.parent / "home.old1").read_text() == "mine"


def test_a_home_under_a_file_is_told(setup: Setup) -> None:
    setup.home.rmdir()
    setup.home.write_text("mine")
    setup.variables |= {"AASM_HOME": str(setup.home / "deeper"), "HOME": str(setup.home.parent)}
    assert {row.status for row in setup.rows("secrets", "pid file", "start lock", "spool").values()} == {"skip"}
    row = setup.row("home")
    assert row.status == "fail"
    setup.type(row.remedy)
    assert setup.variables["AASM_HOME"] == str(setup.home.parent / ".aasm")
    assert setup.row("home").status == "ok"
    setup.home.unlink()


def test_a_link_is_followed_by_hand(setup: Setup) -> None:
    """To the directory that it stands for."""
    real = setup.home.parent / "real home"
    real.mkdir(mode=0o700)
    setup.home.rmdir()
    setup.home.symlink_to(real)
    setup.mended("home", "fail", "is a symbolic link")
    assert setup.variables["AASM_HOME"] == str(real)
    setup.home.unlink()


def test_a_link_to_nothing_is_removed(setup: Setup) -> None:
    setup.home.rmdir()
    setup.home.symlink_to("nowhere")
    setup.mended("home", "fail", "which is not there")


def test_a_relative_home_is_told(setup: Setup) -> None:
    """It would be another one in each directory."""
    setup.variables["AASM_HOME"] = "state/aasm"
    row = setup.row("home")
    assert row.status == "warn"
    assert "another directory wherever a program is started" in row.found
    setup.type(row.remedy)
    assert os.path.isabs(setup.variables["AASM_HOME"])
    assert setup.row("home").status == "ok"


def test_a_home_that_the_shell_did_not_expand_is_told(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK expands the tilde, the program `aasm` does not."""
    monkeypatch.setenv("HOME", str(setup.home.parent))
    setup.variables |= {"AASM_HOME": "~/home", "HOME": str(setup.home.parent)}
    row = setup.row("home")
    assert row.status == "warn"
    setup.type(row.remedy)
    assert setup.variables["AASM_HOME"] == str(setup.home)
    assert setup.row("home").status == "ok"


def test_without_home_variables_the_user_database_is_asked(setup: Setup) -> None:
    """Which the program `aasm` does not do by itself."""
    del setup.variables["AASM_HOME"]
    setup.without.add("HOME")
    row = home_rows.home(Look(setup.environ))
    assert row.status in ("warn", "fail")
    if row.status == "warn":
        assert row.found.startswith("HOME is not set")
        assert row.remedy.startswith("export HOME=/")


def test_a_home_that_nobody_knows_is_told(setup: Setup) -> None:
    """Every row that needs one is skipped, and the remedy names one."""
    del setup.variables["AASM_HOME"]
    setup.variables["HOME"] = "not/absolute"
    rows = setup.rows("home", "secrets", "pid file", "start lock", "spool", "audit log", "disk space")
    assert rows["home"].status == "fail"
    assert "no home directory is known" in rows["home"].found
    assert {row.status for name, row in rows.items() if name != "home"} == {"skip"}
    assert rows["home"].remedy.startswith("export AASM_HOME=/")
    setup.type(rows["home"].remedy)
    assert setup.row("home").status == "ok"


@ROOT_ONLY
def test_a_home_of_another_user_is_left_to_them(setup: Setup) -> None:
    setup.variables["HOME"] = str(setup.home.parent)
    os.chown(setup.home, 12345, -1)
    setup.mended("home", "fail", "uid 12345")
    assert setup.variables["AASM_HOME"] == str(setup.home.parent / ".aasm")


@ROOT_ONLY
def test_a_file_that_was_made_as_somebody_else_is_taken_back(setup: Setup, gateway: Gateway) -> None:
    gateway.stop()
    os.chown(setup.home / "state.db", 12345, -1)
    row = setup.row("home")
    assert row.status == "fail"
    setup.type(row.remedy)
    assert setup.row("home").status == "ok"


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that every user can enter and nobody but us can write."""
    place = Path(tempfile.mkdtemp(prefix="aasm-test-"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


def as_nobody(function: Callable[[Look], Finding | list[Finding]], look: Look) -> tuple[str, ...]:
    """The row as a user without any rights sees it."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # The child calls one function and ends.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            row = function(look)
            assert isinstance(row, Finding)
            os.write(writing, json.dumps(row.row()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading) as stream:
        text = stream.read()
    os.waitpid(child, 0)
    found: list[str] = json.loads(text)
    return tuple(found)


@ROOT_ONLY
def test_a_home_that_cannot_be_made_is_told(open_place: Path) -> None:
    """With another place that can be used."""
    _, status, found, remedy = as_nobody(home_rows.home, Look({"AASM_HOME": str(open_place / "home")}))
    assert status == "fail"
    assert f"{open_place} cannot be written" in found
    place = remedy.removeprefix("export AASM_HOME=")
    assert as_nobody(home_rows.home, Look({"AASM_HOME": place}))[1] == "ok"


@ROOT_ONLY
@pytest.mark.parametrize("mode", [0o500, 0o000])
def test_a_home_that_is_closed_to_its_owner_is_opened(open_place: Path, mode: int) -> None:
    (open_place / "home").mkdir()
    os.chown(open_place / "home", NOBODY, -1)
    (open_place / "home").chmod(mode)
    look = Look({"AASM_HOME": str(open_place / "home")})
    _, status, _, remedy = as_nobody(home_rows.home, look)
    assert (status, remedy) == ("fail", f"chmod 0700 {open_place}/home")


@ROOT_ONLY
def test_a_home_that_root_has_made_is_taken_back(open_place: Path) -> None:
    """As after one `sudo`."""
    (open_place / "home").mkdir(mode=0o700)
    look = Look({"AASM_HOME": str(open_place / "home")})
    _, status, found, remedy = as_nobody(home_rows.home, look)
    assert (status, remedy) == ("fail", f"sudo chown -R {NOBODY} {open_place}/home")
    assert "belongs to another user (root)" in found


@ROOT_ONLY
@pytest.mark.parametrize("name", ["secrets", "pid file", "start lock", "spool"])
def test_a_home_that_cannot_be_entered_is_one_fault(open_place: Path, name: str) -> None:
    """What lies in it is not known then; its own row says what to type."""
    (open_place / "home").mkdir(mode=0o700)
    (check,) = (each for each in CHECKS if each.name == name)
    _, status, found, _ = as_nobody(check.function, Look({"AASM_HOME": str(open_place / "home")}))
    assert (status, found.endswith("see the row home")) == ("skip", True)


@ROOT_ONLY
@pytest.mark.parametrize("name", ["gateway", "policy"])
def test_in_a_home_that_cannot_be_made_nothing_is_promised(open_place: Path, name: str) -> None:
    """No gateway could be started there."""
    (check,) = (each for each in CHECKS if each.name == name)
    look = Look({"AASM_HOME": str(open_place / "home"), "AASM_GATEWAY_PORT": str(free_port())})
    _, status, found, _ = as_nobody(check.function, look)
    assert (status, found.endswith("see the row home")) == ("skip", True)


@pytest.mark.parametrize("name", ["pid file", "port"])
def test_a_gateway_in_a_home_that_is_refused_is_not_to_be_ended(setup: Setup, gateway: Gateway, name: str) -> None:
    """It is well; what is to be typed is said by the row of the home."""
    setup.variables["AASM_GATEWAY_PORT"] = str(gateway.port)
    setup.home.chmod(0o777)
    row = setup.row(name)
    assert (row.status, f"pid {gateway.pid}" in row.found) == ("skip", True)
    setup.type(setup.row("home").remedy)
    assert setup.row(name).status == "ok"


@ROOT_ONLY
def test_a_home_on_a_read_only_file_system_is_told(setup: Setup) -> None:
    """Mounted so in a namespace of the test's own."""
    program = (
        f"mount -t tmpfs -o ro,mode=700 tmpfs {setup.home} && "
        f"{sys.executable} -c 'import sys; sys.path[:] = {json.dumps(sys.path)}\n"
        "from aasm_py.doctor.home import home; from aasm_py.doctor.look import Look; import os\n"
        "print(*home(Look(os.environ)).row(), sep=chr(10))'"
    )
    environ = {**setup.environ, "HOME": str(setup.home.parent)}
    result = subprocess.run(["unshare", "-m", "sh", "-c", program], env=environ, capture_output=True, text=True)
    if "mount" in result.stderr or "unshare" in result.stderr:
        pytest.skip(f"nothing can be mounted here: {result.stderr.strip()}")
    _, status, found, remedy = result.stdout.splitlines()
    assert status == "fail", result
    assert "read-only" in found
    assert remedy == f"export AASM_HOME={setup.home.parent}/.aasm"


# Secrets.


@pytest.mark.parametrize(
    ("name", "mode", "status"),
    [
        ("gateway.secret", 0o644, "warn"),
        ("gateway.secret", 0o660, "fail"),
        ("operator.token", 0o644, "fail"),
        ("operator.token", 0o660, "fail"),
    ],
)
def test_a_secret_that_is_open_to_others_is_closed(
    setup: Setup, gateway: Gateway, name: str, mode: int, status: str
) -> None:
    """As strictly as whoever reads it: the token opens everything."""
    path = setup.home / name
    path.chmod(mode)
    row = setup.row("secrets")
    assert row.status == status
    assert str(path) in row.found
    assert row.repair is not None
    for _ in range(2):
        row.repair.act()
    assert setup.row("secrets").status == "ok"
    path.chmod(mode)
    setup.type(row.remedy)
    assert setup.row("secrets").status == "ok"


def test_the_command_names_the_way_out_of_an_open_secret(setup: Setup, gateway: Gateway) -> None:
    (setup.home / "operator.token").chmod(0o644)
    setup.mended("secrets", "fail", "can be read by others")


@pytest.mark.parametrize("name", ["gateway.secret", "operator.token"])
@pytest.mark.parametrize("content", ["", "planted\n", "AB" * 32])
def test_a_damaged_secret_is_removed_before_a_start(setup: Setup, gateway: Gateway, name: str, content: str) -> None:
    """The gateway refuses it, and makes another one when it is gone. Nothing of it is shown."""
    gateway.stop()
    (setup.home / name).write_text(content)
    with pytest.raises(AssertionError, match="does not hold what it should"):
        gateway.start()
    row = setup.row("secrets")
    assert row.status == "fail"
    assert "planted" not in repr(row)
    setup.type(row.remedy)
    assert setup.row("secrets").status == "ok"
    gateway.start()
    assert setup.row("secrets").found == "gateway.secret and operator.token are in order"


@pytest.mark.parametrize("content", [None, "planted\n"])
def test_a_secret_that_a_running_gateway_lost_costs_a_restart(setup: Setup, content: str | None) -> None:
    """On the port and with the policy that it had."""
    policy = setup.home.parent / "strict.yaml"
    policy.write_text("apiVersion: agent-assembly/v1\nkind: Policy\nmetadata:\n  name: strict\ndefault: deny\n")
    policy.chmod(0o600)
    setup.type(f"{find_aasm()} start --policy {policy} --min-enforcement enforce")
    before = (setup.home / "gateway.pid").read_text()
    path = setup.home / "gateway.secret"
    path.unlink()
    if content is not None:
        path.write_text(content)
        path.chmod(0o600)
    setup.mended("secrets", "fail", str(path))
    after = (setup.home / "gateway.pid").read_text()
    assert before.splitlines()[0] != after.splitlines()[0]
    assert before.splitlines()[1] == after.splitlines()[1]
    posture = json.loads((setup.home / "gateway.posture").read_text())
    assert posture == {"policy": str(policy), "min_enforcement": "enforce"}


def test_a_damaged_secret_that_is_open_to_others_needs_one_line(setup: Setup, gateway: Gateway) -> None:
    gateway.stop()
    for name in ("gateway.secret", "operator.token"):
        (setup.home / name).write_text("planted")
    (setup.home / "gateway.secret").chmod(0o644)
    setup.mended("secrets", "fail", "is damaged")


def test_a_secret_that_is_a_pipe_keeps_nobody_waiting(setup: Setup) -> None:
    os.mkfifo(setup.home / "gateway.secret")
    row = setup.row("secrets")
    assert row.status == "fail"
    setup.type(row.remedy)
    assert setup.row("secrets").status == "ok"
