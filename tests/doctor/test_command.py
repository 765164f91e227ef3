"""`aasm-py doctor` as it is typed."""

from __future__ import annotations

import fcntl
import json
import os
import sys
from pathlib import Path

import jsonschema
from support.doctor import diagnose
from support.gateway import Gateway
from support.odd_gateways import free_port
from support.programs import aasm_py, program, run_command

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "docs" / "doctor.schema.json").read_text())


def test_a_healthy_set_up_fails_nothing(gateway: Gateway) -> None:
    """Exit code 0, no row fails, and standard error is empty."""
    result = aasm_py(["doctor"], gateway.home)
    assert (result.returncode, result.stderr) == (0, ""), result.stdout
    assert " fail" not in result.stdout.rpartition("\n")[0]


def test_the_json_is_what_the_schema_says(gateway: Gateway, home: Path) -> None:
    """With a gateway and without, and for a command."""
    for words in ([], ["--", sys.executable, "-c", "pass"], ["--", "no-such-program"]):
        result = aasm_py(["doctor", "--json", *words], home)
        jsonschema.validate(json.loads(result.stdout), SCHEMA)
    gateway.stop()
    jsonschema.validate(json.loads(aasm_py(["doctor", "--json"], home).stdout), SCHEMA)


def test_what_is_wrong_stands_last(home: Path) -> None:
    """Next to the prompt, with the number of rows below it; the exit code is 1."""
    result = aasm_py(["doctor"], home, environ={"AASM_MODE": "kernel"})
    assert result.returncode == 1
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["check", "status", "what", "was", "found", "what", "to", "do"]
    assert lines[-2].startswith("mode ")
    assert "mode must be one of: auto, ebpf, proxy, sdk-only" in lines[-2]
    assert lines[-1].startswith("1 fail, ")


def test_repairs_are_told_and_made_once(gateway: Gateway) -> None:
    """`--fix` mends what it can, says what it did, and finds nothing to do the second time."""
    secret = gateway.home / "gateway.secret"
    secret.chmod(0o644)
    first = aasm_py(["doctor", "--fix"], gateway.home)
    assert "repaired  secrets: " in first.stdout
    assert secret.stat().st_mode & 0o777 == 0o600
    second = aasm_py(["doctor", "--fix"], gateway.home)
    assert "nothing that could safely be repaired was found" in second.stdout
    assert second.returncode == 0, second.stdout


def test_with_json_nothing_else_is_on_standard_output(gateway: Gateway, tmp_path: Path) -> None:
    """What else there is to say goes to standard error."""
    bundle = tmp_path / "bundle.zip"
    result = aasm_py(["doctor", "--json", "--fix", "--report", str(bundle)], gateway.home)
    assert json.loads(result.stdout).keys() == {"checks"}
    assert str(bundle) in result.stderr
    assert bundle.stat().st_mode & 0o777 == 0o600


def test_a_command_is_looked_at_and_not_run(gateway: Gateway, tmp_path: Path) -> None:
    """With and without `--` before it."""
    marker = tmp_path / "ran"
    script = tmp_path / "agent.py"
    script.write_text(f"open({str(marker)!r}, 'w')")
    for words in (["--"], []):
        code, rows = diagnose(gateway.home, *words, sys.executable, str(script))
        assert code == 0, rows
        assert rows["target bootstrap"]["status"] == "ok"
    assert not marker.exists()


def test_a_refusal_shows_the_rows_that_fail(home: Path) -> None:
    """`aasm-run` prints the doctor's table with what fails alone, to standard error, and the doctor says the same."""
    environ = {"AASM_ENFORCEMENT_MODE": "harsh", "AASM_AUTO_START": "no"}
    refused = run_command([program("aasm-run"), sys.executable, "-c", "pass"], home, environ=environ)
    assert refused.returncode == 78
    assert refused.stdout == ""
    first, heading, *rows = refused.stderr.splitlines()
    assert first == "aasm-run: enforcement_mode must be one of: enforce, observe, disabled"
    assert heading.split()[:2] == ["check", "status"]
    _, told = diagnose(home, "--", sys.executable, "-c", "pass", environ=environ)
    failing = {name for name, row in told.items() if row["status"] == "fail"}
    assert {"enforcement_mode", "gateway"} <= failing
    for row in rows:
        name = next(name for name in failing if row.startswith(f"{name}  "))
        assert told[name]["remedy"] in row
    assert len(rows) == len(failing)


def refused_rows(home: Path, **environ: str) -> list[str]:
    """The lines below the reason, without the heading, that `aasm-run` says when it refuses."""
    refused = run_command([program("aasm-run"), sys.executable, "-c", "pass"], home, environ=environ, timeout=60)
    assert refused.returncode == 78, refused.stderr
    return refused.stderr.splitlines()[2:]


def test_what_a_row_says_the_refusal_does_not_say_again(home: Path) -> None:
    """One cause, one row: for a file that is not trusted, a policy that no gateway starts with, a home that is none."""
    (home / "config.yaml").write_text("depth: 1\n")
    (home / "config.yaml").chmod(0o666)
    (row,) = refused_rows(home)
    assert row.startswith("configuration file  fail")
    (home / "config.yaml").unlink()
    (home / "policies").mkdir(mode=0o700)
    (home / "policies" / "policy.yaml").write_text("rules: []\n")
    (home / "policies" / "policy.yaml").chmod(0o600)
    (row,) = [line for line in refused_rows(home, AASM_GATEWAY_PORT=str(free_port())) if "fail" in line]
    assert row.startswith("policy  fail")
    (home / "file").write_text("mine")
    (row,) = refused_rows(home / "file")
    assert row.startswith("home")


def test_the_first_of_several_reasons_is_in_the_row(gateway: Gateway, tmp_path: Path) -> None:
    """A row says something by itself."""
    (tmp_path / "policy.yaml").write_text("apiVersion: agent-assembly/v1\n")
    words = [program("aasm-run"), "--policy", tmp_path / "policy.yaml", sys.executable, "-c", "pass"]
    refused = run_command(words, gateway.home)
    assert "the policy of the run is refused: " in refused.stderr.splitlines()[-1]


def test_a_held_start_lock_is_what_a_refusal_names(home: Path) -> None:
    """The launcher has waited for it: to start a gateway by hand would wait as well."""
    with open(home / "gateway.start.lock", "w") as lock:
        os.fchmod(lock.fileno(), 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        (row,) = refused_rows(home, AASM_GATEWAY_PORT=str(free_port()))
    assert row.startswith("start lock")
    assert f"kill {os.getpid()}" in row


def test_a_command_that_is_not_there_costs_one_line(home: Path, tmp_path: Path) -> None:
    """As in a shell; no table is needed to see a typing error."""
    script = tmp_path / "agent.py"
    script.write_text("print('ran')")
    for command, code, remedy in (("no-such-program", 127, "PATH"), (str(script), 126, f"chmod +x {script}")):
        result = run_command([program("aasm-run"), command], home)
        assert (result.returncode, result.stdout) == (code, "")
        (line,) = result.stderr.splitlines()
        assert remedy in line
