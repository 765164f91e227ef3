"""The support bundle: what is in it, what never is, and what happens when it cannot be written."""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support.bundles import log_of, members_of
from support.gateway import Gateway, clean_environment
from support.odd_gateways import free_port
from support.programs import aasm_py

from aasm_py.doctor.bundle import DIRECTORY, write_bundle
from aasm_py.doctor.evidence import LOG_BYTES
from aasm_py.doctor.examination import examine
from aasm_py.doctor.look import Look
from aasm_py.doctor.modes import CHECKS
from aasm_py.doctor.redaction import Redactor
from agent_assembly.diagnosis import Finding
from agent_assembly.exceptions import ConfigurationError

FINDINGS = [Finding("home", "ok", "looked at"), Finding("port", "fail", "taken", "export AASM_GATEWAY_PORT=7399")]
MEMBERS = {
    *("README.txt", "doctor.txt", "doctor.json", "versions.json", "settings.json", "environment.txt", "config.yaml"),
    *("gateway.log", "home.txt", "kernel.json"),
}


def bundle(home: Path, path: Path, command: tuple[str, ...] = (), **environ: str) -> dict[str, str]:
    """Write a bundle about `home` and return what is in it."""
    look = Look({"AASM_HOME": str(home), "AASM_GATEWAY_PORT": str(free_port()), "PATH": os.defpath, **environ}, command)
    write_bundle(str(path), look, FINDINGS, Redactor(look))
    return members_of(path)


@pytest.mark.parametrize("name", ["b.zip", "b.tar.gz", "b.tgz", "B.ZIP"])
def test_the_ending_says_what_it_is(home: Path, tmp_path: Path, name: str) -> None:
    """A zip or a compressed tar, for its owner alone whatever the umask says, with the same files."""
    path = tmp_path / name
    before = os.umask(0)
    try:
        members = bundle(home, path) if name[0] == "b" else None
        if members is None:
            look = Look({"AASM_HOME": str(home)})
            write_bundle(str(path), look, FINDINGS, Redactor(look))
            assert zipfile.is_zipfile(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert members is None or members.keys() == MEMBERS


def test_the_table_is_in_it_for_people_and_for_programs(home: Path, tmp_path: Path) -> None:
    """The rows that the doctor showed, with what to type."""
    members = bundle(home, tmp_path / "b.zip")
    assert "export AASM_GATEWAY_PORT=7399" in members["doctor.txt"]
    rows = json.loads(members["doctor.json"])["checks"]
    assert rows[1] == {
        "check": "port",
        "status": "fail",
        "found": "taken",
        "remedy": "export AASM_GATEWAY_PORT=7399",
    }
    assert "read the files before you send them" in members["README.txt"]
    assert all(name in members["README.txt"] for name in MEMBERS - {"README.txt"})


def test_it_says_what_is_installed_and_who_answers(gateway: Gateway, tmp_path: Path) -> None:
    """Versions of SDK, Python, frameworks and the gateway that answers."""
    found = json.loads(bundle(gateway.home, tmp_path / "b.zip")["versions.json"])
    assert found["python"]["executable"] == sys.executable
    assert found["gateway"]["state"] == "own"
    assert found["gateway"]["version"] == found["agent_assembly"]
    assert {"httpx", "typer", "rich", "psutil", "PyYAML", "langchain-core"} <= found["distributions"].keys()


def test_settings_come_with_their_sources(home: Path, tmp_path: Path) -> None:
    """Each with its value, where it came from and what it wins over; what cannot be used, with the reason."""
    config = home / "config.yaml"
    config.write_text("agent_id: from-file\napi_key: swordfish-in-file\n")
    config.chmod(0o600)
    members = bundle(home, tmp_path / "b.zip", AASM_AGENT_ID="from-variable", AASM_CHECK_TIMEOUT="never")
    found = json.loads(members["settings.json"])
    assert found["settings"]["agent_id"] == {
        "value": "from-variable",
        "from": "variable AASM_AGENT_ID",
        "passed_over": [f"{config}:1"],
    }
    assert found["settings"]["api_key"] == {"value": "[redacted]", "from": f"{config}:2", "passed_over": []}
    assert [row["where"] for row in found["problems"]] == ["check_timeout"]
    assert "must be a number" in found["problems"][0]["problem"]
    assert members["config.yaml"] == "agent_id: from-file\napi_key: [redacted]\n"


def test_of_variables_the_names_are_in_it_and_few_values(home: Path, tmp_path: Path) -> None:
    """Values only of those that matter to us; proxies without user and password, keys without value."""
    members = bundle(
        home,
        tmp_path / "b.zip",
        MY_DIARY="dear diary",
        PYTHONPATH="/a:/b",
        LC_ALL="C",
        AASM_API_KEY="swordfish-1",
        HTTPS_PROXY="http://me:p@ss/w@proxy.example:3128",
        http_proxy="me:pa55@proxy.example:3128",
        ALL_PROXY="socks5://localhost:1080",
        NO_PROXY="localhost,example.org",
        AASM_TEAM_ID="two\nlines",
    )
    lines = members["environment.txt"].splitlines()
    assert "MY_DIARY" in lines
    assert "dear diary" not in members["environment.txt"]
    assert {"PYTHONPATH=/a:/b", "LC_ALL=C", "AASM_API_KEY=[redacted]", "NO_PROXY=localhost,example.org"} <= {*lines}
    assert "HTTPS_PROXY=http://[redacted]@proxy.example:3128" in lines
    assert "http_proxy=[redacted]@proxy.example:3128" in lines
    assert "ALL_PROXY=socks5://localhost:1080" in lines
    assert "AASM_TEAM_ID=two\\nlines" in lines


def test_of_the_home_there_are_names_and_no_contents(home: Path, tmp_path: Path) -> None:
    """Records, spool, policies and secrets are listed with mode, owner and size; what they hold is left out."""
    for name in ("audit/00000000000000000001.log", "spool/aa-000000.seg", "policies/mine.yaml", "gateway.secret"):
        path = home / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"contents-of {name}")
        path.chmod(0o600)
    (home / "link").symlink_to("/etc/passwd")
    members = bundle(home, tmp_path / "b.zip")
    listing = members["home.txt"]
    for name in ("audit/00000000000000000001.log", "spool/aa-000000.seg", "policies/mine.yaml", "gateway.secret"):
        line = next(line for line in listing.splitlines() if line.endswith(f"  {name}"))
        assert line.startswith("-rw-------")
        assert str(len(f"contents-of {name}")) in line.split()
    assert "link -> /etc/passwd" in listing
    assert not [name for name, text in members.items() if "contents-of" in text]


def test_a_crowded_home_is_listed_in_part(home: Path, tmp_path: Path) -> None:
    """Thousands of segments do not make the list endless."""
    (home / "spool").mkdir()
    for number in range(2500):
        (home / "spool" / f"{number:032x}-000000.seg").touch()
    lines = bundle(home, tmp_path / "b.zip")["home.txt"].splitlines()
    assert len(lines) < 2100
    assert "left out" in lines[-1]


def test_of_a_huge_log_the_end_is_read(home: Path, tmp_path: Path) -> None:
    """A log of two gigabytes costs as much as a small one, and what is shown begins with a line."""
    path = log_of(home)
    with path.open("wb") as file:
        file.truncate(2 << 30)
        file.seek(0, os.SEEK_END)
        for number in range(20_000):
            file.write(f"line {number} of the log\n".encode())
    text = bundle(home, tmp_path / "b.zip")["gateway.log"]
    assert LOG_BYTES - 100 < len(text) < LOG_BYTES + (32 << 10)
    first, *lines = text.splitlines()
    assert first == "(what was before is left out)"
    assert lines[0].startswith("line ")
    assert lines[-1] == "line 19999 of the log"


def test_a_secret_at_the_edge_of_the_log_is_taken_out(home: Path, tmp_path: Path) -> None:
    """Also where reading begins in its middle, and where there are no lines at all."""
    secret = "swordfish-" + "0123456789abcdef" * 8
    filler = b"x" * 999
    for cut in (1, 40, 137):
        tail = filler * ((LOG_BYTES + (16 << 10)) // 999 + 1)
        data = b"x" * 5000 + secret.encode() + tail[: LOG_BYTES + (16 << 10) - cut]
        log_of(home).write_bytes(data)
        text = bundle(home, tmp_path / f"{cut}.zip", AASM_API_KEY=secret)["gateway.log"]
        assert "abcdef0123" not in text
        assert len(text) > LOG_BYTES - 1000


@pytest.mark.parametrize(
    "data", [os.urandom(300_000), b"\0" * 300_000, b"\xff\xfe" + "swordfish-42\n".encode("utf-16-le")]
)
def test_garbage_in_the_log_survives(home: Path, tmp_path: Path, data: bytes) -> None:
    """Bytes that are no text are shown as far as they can be, and hide no secret."""
    log_of(home).write_bytes(data)
    text = bundle(home, tmp_path / "b.tar.gz", AASM_API_KEY="swordfish-42")["gateway.log"]
    assert "swordfish" not in text


def fifo(path: Path) -> None:
    os.mkfifo(path)


def directory(path: Path) -> None:
    path.mkdir()


def link_away(path: Path) -> None:
    target = path.parent.parent.parent / "elsewhere"
    target.write_text("contents of elsewhere")
    path.symlink_to(target)


@pytest.mark.parametrize("make", [fifo, directory, link_away])
@pytest.mark.parametrize("name", ["config.yaml", "log/gateway.log"])
def test_what_is_no_file_is_not_read(home: Path, tmp_path: Path, name: str, make: Callable[[Path], None]) -> None:
    """Pipes are not waited for, directories said to be ones, and links not followed."""
    path = home / name
    path.parent.mkdir(exist_ok=True)
    make(path)
    members = bundle(home, tmp_path / "b.zip")
    text = members[path.name]
    assert text.startswith(f"({path} ")
    assert not [name for name, text in members.items() if "contents of elsewhere" in text]


def test_without_a_home_there_is_a_bundle(tmp_path: Path) -> None:
    """Who has no usable HOME gets the rest, and is told what is missing."""
    path = tmp_path / "b.zip"
    look = Look({"HOME": "not-absolute", "PATH": os.defpath})
    assert look.home is None
    write_bundle(str(path), look, FINDINGS, Redactor(look))
    members = members_of(path)
    assert members.keys() == MEMBERS
    assert members["home.txt"] == members["config.yaml"] == members["gateway.log"] == "(no home directory is known)\n"
    assert "home" in members["settings.json"]


def test_a_home_that_is_not_there_says_so(tmp_path: Path) -> None:
    """A first-time user has no home yet."""
    members = bundle(tmp_path / "nowhere", tmp_path / "b.zip")
    assert members["home.txt"] == f"(there is no {tmp_path / 'nowhere'})\n"


def test_a_command_comes_with_what_is_known_of_it(home: Path, tmp_path: Path) -> None:
    """What it comes down to and which Python it starts, its secrets masked; the program is not run."""
    marker = tmp_path / "ran"
    script = tmp_path / "agent.py"
    script.write_text(f"open({str(marker)!r}, 'w')")
    command = (sys.executable, str(script), "--token", "swordfish", "--api-key=swordfish-2")
    members = bundle(home, tmp_path / "b.zip", command)
    found = json.loads(members["target.json"])
    assert found["interpreter"] == sys.executable
    assert found["python"]["version"].startswith("3.")
    assert found["command"].endswith("agent.py --token [redacted] --api-key=[redacted]")
    assert not marker.exists()


@pytest.mark.parametrize("name", ["b", "b.tar", "b.txt", "zip", "b.zip.gpg", ""])
def test_other_endings_are_refused(home: Path, tmp_path: Path, name: str) -> None:
    """One line that says which there are; nothing is written."""
    look = Look({"AASM_HOME": str(home)})
    with pytest.raises(ConfigurationError, match=r"must end in \.zip or \.tar\.gz"):
        write_bundle(str(tmp_path / "in" / name) if name else "", look, FINDINGS, Redactor(look))
    assert not (tmp_path / "in").exists()


def test_what_is_there_is_never_replaced(home: Path, tmp_path: Path) -> None:
    """Files, directories and dangling links stay as they are; the message says how to go on."""
    look = Look({"AASM_HOME": str(home)})
    (tmp_path / "file.zip").write_text("mine")
    (tmp_path / "directory.zip").mkdir()
    (tmp_path / "link.zip").symlink_to(tmp_path / "nothing")
    for name in ("file.zip", "directory.zip", "link.zip"):
        with pytest.raises(ConfigurationError, match=f"{name} exists; give another name, or type: rm "):
            write_bundle(str(tmp_path / name), look, FINDINGS, Redactor(look))
    assert (tmp_path / "file.zip").read_text() == "mine"
    assert not (tmp_path / "nothing").exists()


def test_a_directory_that_is_not_there_is_named(home: Path, tmp_path: Path) -> None:
    """It is not made: a typing error would make directories."""
    look = Look({"AASM_HOME": str(home)})
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="gone does not exist; name a directory that is there"):
        write_bundle(str(tmp_path / "gone" / "b.zip"), look, FINDINGS, Redactor(look))
    with pytest.raises(ConfigurationError, match="file is not a directory"):
        write_bundle(str(tmp_path / "file" / "b.zip"), look, FINDINGS, Redactor(look))
    with pytest.raises(ConfigurationError, match="cannot be written"):
        write_bundle(str(tmp_path / ("n" * 300 + ".zip")), look, FINDINGS, Redactor(look))


WRITING = """
import os, sys
from aasm_py.doctor.bundle import write_bundle
from aasm_py.doctor.look import Look
from aasm_py.doctor.redaction import Redactor
from agent_assembly.exceptions import ConfigurationError
look = Look(os.environ)
try:
    write_bundle(sys.argv[1], look, [], Redactor(look))
except ConfigurationError as error:
    print(error)
print(sorted(os.listdir(os.path.dirname(sys.argv[1]))))
"""


def writing(tmp_path: Path, before: str, path: Path) -> list[str]:
    """Write a bundle in a process that `before` (shell) has prepared; return the error and the directory's files."""
    code = f"{before}\nexec {sys.executable} -c '{WRITING}' {path}"
    result = subprocess.run(
        ["bash", "-c", code],
        env=clean_environment(AASM_HOME=str(tmp_path / "home")),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_a_disk_that_is_full_leaves_no_half_file(tmp_path: Path) -> None:
    """A real full file system: one line says so, and the name is free again."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("no mount namespace can be had here")
    mount = f"mount -t tmpfs -o size=8k tmpfs {disk}\nhead -c 8192 /dev/zero > {disk / 'full'}"
    script = tmp_path / "write.sh"
    script.write_text(f"set -e\n{mount}\nexec {sys.executable} -c '{WRITING}' {disk / 'b.zip'}\n")
    said, files = writing(tmp_path, f"exec unshare -rm bash {script}", disk / "b.zip")
    assert (
        said == f"report {disk / 'b.zip'} cannot be written: No space left on device; name a file in another directory"
    )
    assert files == "['full']"


def test_a_bound_on_files_leaves_no_half_file(tmp_path: Path) -> None:
    """As under `ulimit -f`."""
    out = tmp_path / "out"
    out.mkdir()
    said, files = writing(tmp_path, "ulimit -f 1", out / "b.tar.gz")
    assert said.startswith(f"report {out / 'b.tar.gz'} cannot be written: File too large")
    assert files == "[]"


def test_a_directory_without_the_right_to_write_is_named(tmp_path: Path) -> None:
    """One line, with the system's reason. Root loses its right to pass over modes first."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    before = ""
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root writes everywhere, and there is no setpriv to hinder it")
        before = "exec setpriv --bounding-set=-dac_override,-dac_read_search bash write.sh"
    (tmp_path / "write.sh").write_text(f"exec {sys.executable} -c '{WRITING}' {closed / 'b.zip'}\n")
    said, files = writing(tmp_path, before, closed / "b.zip")
    assert said.startswith(f"report {closed / 'b.zip'} cannot be written: Permission denied")
    assert files == "[]"


def test_a_file_system_that_is_read_only_is_named(tmp_path: Path) -> None:
    """Root cannot write there either."""
    out = tmp_path / "out"
    out.mkdir()
    script = tmp_path / "write.sh"
    script.write_text(
        f"set -e\nmount -t tmpfs -o ro tmpfs {out}\nexec {sys.executable} -c '{WRITING}' {out / 'b.zip'}\n"
    )
    if subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("no mount namespace can be had here")
    said, files = writing(tmp_path, f"exec unshare -rm bash {script}", out / "b.zip")
    assert said.startswith(f"report {out / 'b.zip'} cannot be written: Read-only file system")
    assert files == "[]"


def test_a_report_that_cannot_be_written_is_one_line(home: Path, tmp_path: Path) -> None:
    """The command ends with 1 and names the file and what to do."""
    path = tmp_path / "report.txt"
    result = aasm_py(["doctor", "--report", str(path)], home)
    assert result.returncode == 1
    assert f"aasm-py: report {path} must end in .zip or .tar.gz, which says what it is to be\n" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_findings_pass_the_redactor_again(home: Path, tmp_path: Path) -> None:
    """Whoever hands findings in need not have redacted them."""
    look = Look({"AASM_HOME": str(home), "AASM_API_KEY": "swordfish-1"})
    path = tmp_path / "b.zip"
    write_bundle(str(path), look, [Finding("x", "fail", "said swordfish-1", "swordfish-1")], Redactor(look))
    assert not [name for name, text in members_of(path).items() if "swordfish" in text]


def test_the_bundle_is_an_archive_that_others_can_read(home: Path, tmp_path: Path) -> None:
    """`tar` and Python's own tools accept it; no member leads out of its directory."""
    look = Look({"AASM_HOME": str(home)})
    findings = examine(look, CHECKS)
    write_bundle(str(tmp_path / "b.zip"), look, findings, Redactor(look))
    write_bundle(str(tmp_path / "b.tar.gz"), look, findings, Redactor(look))
    assert zipfile.ZipFile(io.BytesIO((tmp_path / "b.zip").read_bytes())).testzip() is None
    tar = shutil.which("tar")
    if tar is not None:
        subprocess.run([tar, "-xzf", "b.tar.gz"], cwd=tmp_path, check=True)
        assert {path.name for path in (tmp_path / DIRECTORY).iterdir()} == MEMBERS
