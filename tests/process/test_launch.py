"""`aasm-run` as a person types it: the program is itself, only governed. Nothing here replaces exec or the look-up."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest
from support.gateway import Gateway, clean_environment
from support.interpreters import cache_directory, environment, other_supported
from support.programs import program

from .conftest import WHETHER_GOVERNED, Launch

FORMS = ("script", "-m", "-c", "stdin", "zipapp", "console script")


def form(kind: str, code: str, work: Path, python: str) -> tuple[list[str], str | None]:
    """Return the command that runs `code` in that form, and its standard input."""
    if kind == "-c":
        return [python, "-c", code], None
    if kind == "stdin":
        return [python, "-"], code
    if kind == "zipapp":
        with zipfile.ZipFile(work / "app.pyz", "w") as archive:
            archive.writestr("__main__.py", code)
        return [python, "app.pyz"], None
    (work / "agent.py").write_text(code)
    if kind == "-m":
        return [python, "-m", "agent"], None
    if kind == "script":
        return [python, "agent.py"], None
    script = work / "tool"
    script.write_text(f"#!{python}\n{code}\n")
    script.chmod(0o755)
    return [str(script)], None


@pytest.mark.parametrize("kind", FORMS)
def test_every_form_of_program_is_governed(launch: Launch, work: Path, python: str, kind: str) -> None:
    """However Python is told what to run, the bootstrap is armed, and nothing is said."""
    command, stdin = form(kind, WHETHER_GOVERNED, work, python)
    result = launch(*command, stdin=stdin)
    assert (result.stdout, result.stderr, result.returncode) == ("governed\n", "", 0)


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("flag", ["-I", "-E", "-S"])
def test_flags_that_keep_the_bootstrap_out_are_refused(
    launch: Launch, work: Path, python: str, kind: str, flag: str
) -> None:
    """The program's first line does not run; the reason and what to do are said."""
    command, stdin = form(kind, "open('ran', 'w')", work, python)
    if kind == "console script":
        Path(command[0]).write_text(f"#!{python} {flag}\nopen('ran', 'w')\n")
    else:
        command.insert(1, flag)
    result = launch(*command, stdin=stdin)
    assert not (work / "ran").exists()
    assert result.returncode == 78
    assert result.stderr.startswith("aasm-run: ")
    assert flag in result.stderr
    assert "--allow-ungoverned" in result.stderr
    allowed = launch(*command, options=["--allow-ungoverned"], stdin=stdin)
    assert "runs ungoverned" in allowed.stderr.splitlines()[0]
    if (kind, flag) != ("-m", "-I"):  # an isolated Python does not find modules of the current directory
        assert (work / "ran").exists()
        assert (allowed.returncode, allowed.stdout, allowed.stderr.count("\n")) == (0, "", 1)


def test_safe_path_is_governed(launch: Launch, python: str) -> None:
    """-P takes nothing from the bootstrap."""
    if sys.version_info < (3, 11):
        pytest.skip("Python 3.11 introduced -P")
    assert launch(python, "-P", "-c", WHETHER_GOVERNED).stdout == "governed\n"


@pytest.mark.parametrize("code", [0, 1, 7, 78, 130, 143, 255])
def test_exit_codes_are_the_programs(launch: Launch, python: str, code: int) -> None:
    """What the program returns is what the caller sees."""
    assert launch(python, "-c", f"raise SystemExit({code})").returncode == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_signals_reach_the_program_itself(gateway: Gateway, python: str, number: signal.Signals) -> None:
    """It has the process id of the launcher, and dies of what it is sent as it would without us."""
    code = "import os, signal, time; signal.signal(2, signal.SIG_DFL); print(os.getpid(), flush=True); time.sleep(60)"
    with subprocess.Popen(
        [program("aasm-run"), python, "-c", code],
        env=clean_environment(AASM_HOME=str(gateway.home)),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) == process.pid
        process.send_signal(number)
        assert process.wait(20) == -number


def test_a_broken_pipe_ends_a_shell_pipeline_quietly(launch: Launch) -> None:
    """Python ignores SIGPIPE for itself; the program does not inherit that."""
    result = launch("sh", "-c", "yes | head -n 1; kill -PIPE $$; echo survived")
    assert (result.stdout, result.stderr) == ("y\n", "")
    assert result.returncode == -signal.SIGPIPE


def test_streams_and_arguments_are_untouched(launch: Launch, work: Path, python: str) -> None:
    """Standard input, output and odd arguments pass byte for byte."""
    (work / "echo.py").write_text(
        "import os, sys; os.write(1, os.fsencode('|'.join(sys.argv[1:])) + b'\\0' + sys.stdin.buffer.read())"
    )
    arguments = ["", " a  b ", "--explain", "-h", "é\U0001f600", "*", "\n"]
    expected = subprocess.run([python, "echo.py", *arguments], cwd=work, input="in\n", capture_output=True, text=True)
    result = launch(python, "echo.py", *arguments, stdin="in\n")
    assert (result.stdout, result.stderr) == (expected.stdout, "")


def test_closed_streams_stay_closed(gateway: Gateway, python: str, work: Path) -> None:
    """A program started without standard streams gets none, and the launcher's sockets do not take their numbers."""
    code = """
        import os
        for number in (0, 1, 2):
            try:
                os.fstat(number)
                open(f"open-{number}", "w")
            except OSError:
                pass
        open("ran", "w")
    """
    code = textwrap.dedent(code)
    shell = 'exec "$@" 0<&- 1>&- 2>&-'
    result = subprocess.run(
        ["sh", "-c", shell, "sh", program("aasm-run"), python, "-c", code],
        env=clean_environment(AASM_HOME=str(gateway.home)),
        cwd=work,
        check=False,
    )
    assert result.returncode == 0
    assert [path.name for path in work.iterdir()] == ["ran"]
    refused = subprocess.run(
        ["sh", "-c", shell, "sh", program("aasm-run"), "no-such-command"],
        env=clean_environment(AASM_HOME=str(gateway.home)),
        check=False,
    )
    assert refused.returncode == 127


@pytest.mark.parametrize(
    ("name", "content", "mode", "code"),
    [
        ("no-such-command", None, 0, 127),
        ("./plain", "x", 0o644, 126),
        ("./directory", "", 0o755, 126),
        ("./bad-interpreter", "#!/no/such/python\n", 0o755, 126),
        ("./not-a-program", "hello\n", 0o755, 78),
    ],
)
def test_what_cannot_be_started_is_said_in_one_line(
    launch: Launch, work: Path, name: str, content: str | None, mode: int, code: int
) -> None:
    """The shell's exit codes, the command's name, and never a traceback."""
    if name == "./directory":
        (work / name).mkdir()
    elif content is not None:
        (work / name).write_text(content)
        (work / name).chmod(mode)
    result = launch(name)
    assert result.returncode == code
    assert result.stdout == ""
    assert result.stderr.startswith("aasm-run: ")
    assert name in result.stderr
    assert "Traceback" not in result.stderr
    assert code == 78 or result.stderr.count("\n") == 1


@pytest.mark.parametrize("present", [None, "", "/nowhere", "/nowhere:", ":/nowhere"])
def test_the_module_path_is_the_programs_own(launch: Launch, work: Path, python: str, present: str | None) -> None:
    """Only the bootstrap's directory is added, in front of what PYTHONPATH had; no current directory comes in."""
    code = "import sys; print([entry for entry in sys.path if not entry.endswith('_bootstrap')])"
    variables = {} if present is None else {"PYTHONPATH": present}
    bare = subprocess.run(
        [python, "-c", code], cwd=work, env=clean_environment(**variables), capture_output=True, text=True, check=True
    )
    assert launch(python, "-c", code, environ=variables).stdout == bare.stdout


def test_a_json_py_beside_the_program_is_the_programs_alone(launch: Launch, work: Path, python: str) -> None:
    """It neither breaks the start nor is it replaced."""
    for name in ("json", "yaml", "socket", "typing", "logging"):
        (work / f"{name}.py").write_text("WHOSE = 'mine'\n")
    (work / "agent.py").write_text("import json, yaml\nprint(json.WHOSE, yaml.WHOSE)\n")
    for environ in ({}, {"PYTHONPATH": str(work)}, {"PYTHONPATH": "."}):
        result = launch(python, "agent.py", environ=environ)
        assert (result.stdout, result.stderr) == ("mine mine\n", ""), environ


def test_a_configuration_file_is_read_with_the_launchers_own_yaml(
    launch: Launch, gateway: Gateway, work: Path, python: str
) -> None:
    """A `yaml.py` on PYTHONPATH is the program's; what the file says reaches the program as variables."""
    (work / "yaml.py").write_text("raise SystemExit('not for the launcher')\n")
    config = gateway.home / "config.yaml"
    config.write_text("team_id: blue\n")
    config.chmod(0o600)
    code = "import os; print(os.environ['AASM_TEAM_ID'])"
    result = launch(python, "-c", code, environ={"PYTHONPATH": str(work)})
    assert (result.stdout, result.stderr) == ("blue\n", "")


def test_a_configuration_that_cannot_be_used_is_refused_with_its_place(
    launch: Launch, gateway: Gateway, python: str
) -> None:
    """File, line and column; 78."""
    config = gateway.home / "config.yaml"
    config.write_text("agent_id: ok\nmode: fast\n")
    config.chmod(0o600)
    result = launch(python, "-c", "print('ran')")
    assert (result.returncode, result.stdout) == (78, "")
    assert f"{config}:2:7" in result.stderr


def test_a_virtual_environment_behind_a_link_stays_one(launch: Launch, work: Path) -> None:
    """The path keeps its symbolic links: a resolved one would lose the environment."""
    real = environment(sys.version_info[:2], with_sdk=True)
    link = work / "env"
    link.symlink_to(real.parent.parent)
    code = WHETHER_GOVERNED + "; print(sys.prefix)"
    result = launch(link / "bin" / "python", "-c", code)
    assert result.stdout == f"governed\n{link}\n"


def test_a_python_that_lacks_the_sdk_is_refused(launch: Launch, work: Path) -> None:
    """With the command to type; under observe it runs, and that is said."""
    python = environment(sys.version_info[:2], with_sdk=False)
    result = launch(python, "-c", "open('ran', 'w')")
    assert (result.returncode, (work / "ran").exists()) == (78, False)
    # By pip, or by uv where the environment has no pip and uv is there.
    assert any(f"{line} " in result.stderr for line in (f"pip install --python {python}", f"{python} -m pip install"))
    observed = launch(python, "-c", "open('ran', 'w')", options=["--enforcement-mode", "observe"])
    assert (observed.returncode, (work / "ran").exists()) == (0, True)
    assert "ungoverned" in observed.stderr


@pytest.mark.parametrize("version", sorted(other_supported()), ids=lambda version: f"{version[0]}.{version[1]}")
def test_a_launcher_serves_pythons_of_other_versions(launch: Launch, version: tuple[int, int]) -> None:
    """The program's Python need not be the launcher's."""
    result = launch(environment(version, with_sdk=True), "-c", WHETHER_GOVERNED)
    assert (result.stdout, result.stderr) == ("governed\n", "")


def test_wrappers_lead_to_a_governed_program(launch: Launch, work: Path, python: str) -> None:
    """env, nice, timeout, a shell and xargs hand the bootstrap on."""
    quoted = f"{python} agent.py"
    (work / "agent.py").write_text(WHETHER_GOVERNED)
    (work / "run.sh").write_text(f"#!/bin/sh\n{quoted}\ntrue\n")
    (work / "run.sh").chmod(0o755)
    for command in (
        ["env", "A=1", python, "agent.py"],
        ["nice", "-n", "1", python, "agent.py"],
        ["timeout", "30", python, "agent.py"],
        ["sh", "-c", f"{quoted}; true"],
        ["./run.sh"],
        ["xargs", python, "agent.py"],
    ):
        result = launch(*command, stdin="")
        assert (result.stdout, result.stderr) == ("governed\n", ""), command


def test_a_shim_leads_to_a_governed_program(launch: Launch, work: Path, python: str) -> None:
    """A shell script in front, as pyenv has it, is no obstacle."""
    shims = work / "shims"
    shims.mkdir()
    (shims / "python").write_text(f'#!/usr/bin/env bash\nexec "{python}" "$@"\n')
    (shims / "python").chmod(0o755)
    environ = {"PATH": f"{shims}{os.pathsep}{os.environ['PATH']}"}
    assert launch("python", "-c", WHETHER_GOVERNED, environ=environ).stdout == "governed\n"


def test_uv_run_leads_to_a_governed_program(launch: Launch, python: str) -> None:
    """`aasm-run uv run python …` is governed when the project's environment holds the SDK."""
    built_with = sorted(cache_directory().glob("tools-*/bin/uv"))
    uv = shutil.which("uv") or (str(built_with[-1]) if built_with else None)
    if uv is None:
        pytest.skip("uv is neither on PATH nor among the build's tools")
    result = launch(
        uv, "run", "--no-project", "--offline", "--python", python, python, "-c", WHETHER_GOVERNED, timeout=120
    )
    assert result.stdout == "governed\n", result.stderr


def test_other_programs_are_refused(launch: Launch) -> None:
    """What is no Python, and not known to start one, cannot be governed."""
    result = launch(shutil.which("ls") or "ls")
    assert (result.returncode, result.stdout) == (78, "")
    assert "is not a Python program" in result.stderr


def test_explain_runs_nothing_and_starts_nothing(home: Path, work: Path, python: str) -> None:
    """The plan is shown, as a table or as JSON; neither program nor gateway comes to life."""
    import json

    for options in (["--explain"], ["--explain", "--json"]):
        result = subprocess.run(
            [program("aasm-run"), *options, python, "-c", "open('ran', 'w')"],
            env=clean_environment(AASM_HOME=str(home), AASM_GATEWAY_PORT="1"),
            cwd=work,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (result.returncode, result.stderr) == (0, "")
        assert python in result.stdout
        assert list(work.iterdir()) == []
        assert list(home.iterdir()) == []
    assert json.loads(result.stdout)["program"] == python


def test_help_and_version(launch: Launch) -> None:
    """Both on standard output, exit code 0; no command is a usage error."""
    assert launch(options=["--help"]).stdout.startswith("Usage: aasm-run")
    assert launch(options=["--version"]).stdout.startswith("aasm-run ")
    for options in ([], ["--quiet"], ["--"]):
        assert launch(options=options).returncode == 2


def test_a_program_may_start_itself_anew(launch: Launch, work: Path, python: str) -> None:
    """An exec keeps the process id; the new program is governed all the same."""
    code = f"""
        import os, sys
        {WHETHER_GOVERNED}
        if len(sys.argv) < 2:
            os.execv(sys.executable, [sys.executable, __file__, "again"])
    """
    (work / "agent.py").write_text(textwrap.dedent(code))
    assert launch(python, "agent.py").stdout == "governed\ngoverned\n"


def test_a_virtual_environment_made_in_a_run(launch: Launch, work: Path, python: str) -> None:
    """Python's own tools work in a run as they do outside; ours does not leak into them."""
    result = launch(python, "-m", "venv", "--without-pip", "made")
    assert (result.returncode, result.stderr) == (0, "")
    assert (work / "made" / "bin" / "python").exists()


def test_as_the_first_process_of_a_container(gateway: Gateway, work: Path, python: str) -> None:
    """It is process 1 of its namespace, and so becomes the program: signals and exit code are as without us."""
    unshare = shutil.which("unshare")
    inside = [str(unshare), "--pid", "--fork", "--kill-child"]
    if unshare is None or subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no process namespaces here")
    code = f"import os; {WHETHER_GOVERNED}; print(os.getpid()); raise SystemExit(7)"
    result = subprocess.run(
        [*inside, program("aasm-run"), python, "-c", code],
        env=clean_environment(AASM_HOME=str(gateway.home)),
        cwd=work,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.stdout, result.stderr, result.returncode) == ("governed\n1\n", "", 7)
