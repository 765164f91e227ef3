"""The bootstrap in the program's own process: when it arms, what it leaves alone, and how it fails."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from support.gateway import clean_environment
from support.interpreters import environment, installed, too_old

import aasm_py
from agent_assembly.diagnosis import Finding, plain_table

from .conftest import WHETHER_GOVERNED, Launch

BOOTSTRAP = Path(aasm_py.__file__).parent / "_bootstrap"
RUN = {"AASM_RUN_ID": "run-0123456789abcdef", "AASM_GATEWAY_URL": "http://127.0.0.1:9"}


def run(
    python: str | Path, *words: str, path: tuple[Path | str, ...] = (), cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a Python with the bootstrap first on PYTHONPATH, as the launcher would have left it."""
    search = os.pathsep.join(str(entry) for entry in (BOOTSTRAP, *path))
    return subprocess.run(
        [str(python), *words],
        env=clean_environment(PYTHONPATH=search, **variables),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def package(directory: Path, name: str, body: str) -> Path:
    """Write a module `name` (dots make packages) under `directory`; return `directory`."""
    *parents, last = name.split(".")
    where = directory
    for parent in parents:
        where = where / parent
        where.mkdir(parents=True, exist_ok=True)
        (where / "__init__.py").touch()
    where.mkdir(parents=True, exist_ok=True)
    (where / f"{last}.py").write_text(textwrap.dedent(body))
    return directory


def test_outside_a_run_it_does_nothing(python: str) -> None:
    """Without AASM_RUN_ID nothing of ours is loaded."""
    code = "import sys; print([name for name in sys.modules if 'agent_assembly' in name])"
    assert run(python, "-c", code).stdout == "[]\n"


def test_in_a_run_it_arms_and_loads_no_more(python: str) -> None:
    """The import watch is armed; nothing of the client, no adapter and no framework is loaded."""
    code = WHETHER_GOVERNED + "; print('agent_assembly.core.assembly' in sys.modules)"
    assert run(python, "-c", code, **RUN).stdout == "governed\nFalse\n"


@pytest.mark.parametrize("asked", [{}, RUN], ids=["outside a run", "in a run"])
@pytest.mark.parametrize(
    "body",
    [
        "import os; os.write(1, b'mine\\n')",
        "raise ValueError('mine')",
        "raise ImportError('mine')",
        "import no_such_module_at_all",
        "this is no Python",
    ],
)
def test_the_shadowed_sitecustomize_is_run_as_python_would(
    python: str, tmp_path: Path, body: str, asked: dict[str, str]
) -> None:
    """Once, with the same output and the same report of its errors as without us; it never disables us."""
    user = package(tmp_path, "sitecustomize", body)
    code = "import sys; m = sys.modules.get('sitecustomize'); print(m and m.__file__)"
    bare = subprocess.run(
        [python, "-c", code],
        env=clean_environment(PYTHONPATH=str(user)),
        capture_output=True,
        text=True,
        check=False,
    )
    ours = run(python, "-c", code, path=(user,), **asked)
    assert (ours.stdout, ours.stderr, ours.returncode) == (bare.stdout, bare.stderr, bare.returncode)
    if asked:
        assert "ungoverned" not in run(python, "-c", WHETHER_GOVERNED, path=(user,), **asked).stdout


def test_launchers_that_chain_in_turn_end(python: str, tmp_path: Path) -> None:
    """Another launcher's sitecustomize that runs the next one on the path leads back to ours: each runs once."""
    other = package(
        tmp_path / "other",
        "sitecustomize",
        """
        import importlib.machinery, importlib.util, os, sys
        os.write(1, b"other\\n")
        here = os.path.dirname(os.path.abspath(__file__))
        spec = importlib.machinery.PathFinder.find_spec("sitecustomize", [e for e in sys.path if e != here])
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        """,
    )
    last = package(tmp_path / "last", "sitecustomize", "import os; os.write(1, b'last\\n')")
    result = run(python, "-c", WHETHER_GOVERNED, path=(other, last), **RUN)
    assert (result.stdout, result.stderr) == ("other\nlast\ngoverned\n", "")


def test_a_launcher_that_puts_itself_in_front_does_not_cost_the_children(python: str, tmp_path: Path) -> None:
    """As opentelemetry's sitecustomize does, which then would be the only one that a child runs: ours stays first."""
    other = package(
        tmp_path / "other",
        "sitecustomize",
        """
        import os
        here = os.path.dirname(os.path.abspath(__file__))
        rest = [entry for entry in os.environ["PYTHONPATH"].split(os.pathsep) if entry != here]
        os.environ["PYTHONPATH"] = os.pathsep.join([here, *rest])
        """,
    )
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {WHETHER_GOVERNED!r}], check=True)"
    result = run(python, "-c", code, path=(other,), **RUN)
    assert (result.stdout, result.stderr) == ("governed\n", "")
    alone = run(python, "-c", code, path=(other,), AASM_CHILDREN="off", **RUN)
    assert (alone.stdout, alone.stderr) == ("ungoverned\n", "")


def test_a_broken_sdk_fails_closed(python: str, tmp_path: Path) -> None:
    """Under enforce, and where nobody said, the program does not run; a table says why, and the exit code is 78."""
    broken = package(tmp_path, "agent_assembly.core.bootstrap", "raise RuntimeError('broken')")
    result = run(python, "-c", "print('ran')", path=(broken,), **RUN)
    assert (result.returncode, result.stdout) == (78, "")
    assert "RuntimeError: broken" in result.stderr
    assert sys.executable in result.stderr
    assert "Traceback" not in result.stderr
    for mode in ("observe", "disabled"):
        observed = run(python, "-c", "print('ran')", path=(broken,), AASM_ENFORCEMENT_MODE=mode, **RUN)
        assert (observed.returncode, observed.stdout) == (0, "ran\n")
        assert observed.stderr.count("\n") == 1


def test_a_missing_sdk_fails_closed_with_the_command_to_type() -> None:
    """The interpreter that has to get the SDK is named."""
    python = environment(sys.version_info[:2], with_sdk=False)
    result = run(python, "-c", "print('ran')", **RUN)
    assert (result.returncode, result.stdout) == (78, "")
    assert f"{python} -m pip install agent-assembly" in result.stderr


def test_a_governed_programs_children_without_anything_to_govern_are_left_alone(tmp_path: Path) -> None:
    """A child of a Python without the SDK runs, unless a governed framework is there, which nobody would watch."""
    python = environment(sys.version_info[:2], with_sdk=False)
    child = {**RUN, "AASM_WATCHED": "langchain_core"}
    result = run(python, "-c", "print('ran')", **child)
    assert (result.returncode, result.stdout, result.stderr) == (0, "ran\n", "")
    agent = package(tmp_path, "langchain_core.tools.base", "")
    refused = run(python, "-c", "print('ran')", path=(agent,), **child)
    assert (refused.returncode, refused.stdout) == (78, "")
    strict = run(python, "-c", "print('ran')", AASM_CHILDREN="strict", **child)
    assert (strict.returncode, strict.stdout) == (78, "")


@pytest.mark.parametrize("version", sorted(too_old()), ids=lambda version: f"{version[0]}.{version[1]}")
def test_old_pythons(version: tuple[int, int], tmp_path: Path) -> None:
    """They read the bootstrap, run the shadowed sitecustomize, are refused as programs and left alone as children."""
    python = installed()[version]
    user = package(tmp_path, "sitecustomize", "import os; os.write(1, b'mine\\n')")
    assert run(python, "-c", "print('ran')", path=(user,)).stdout == "mine\nran\n"
    child = run(python, "-c", "print('ran')", path=(user,), AASM_WATCHED="langchain_core", **RUN)
    assert (child.stdout, child.stderr) == ("mine\nran\n", "")
    program = run(python, "-c", "print('ran')", path=(user,), **RUN)
    assert (program.returncode, program.stdout) == (78, "")
    assert "older than 3.10" in program.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "pip", "--version"],
        ["-m", "venv", "-h"],
        ["-c", "from multiprocessing.resource_tracker import main; print(1)"],
    ],
)
def test_pythons_own_tools_are_left_alone(python: str, tmp_path: Path, words: list[str]) -> None:
    """Nothing is loaded into them, so nothing can fail there."""
    broken = package(tmp_path, "agent_assembly", "raise RuntimeError('loaded')")
    assert "loaded" not in run(python, *words, path=(broken,), **RUN).stderr


def test_a_second_interpreter_in_the_process_is_left_alone(python: str) -> None:
    """Only the first one arms; the others start undisturbed."""
    code = """
        import sys
        try:
            import _interpreters as interpreters
        except ImportError:
            import _xxsubinterpreters as interpreters
        one = interpreters.create()
        code = "import sys; print('armed' if 'agent_assembly' in sys.modules else 'alone', flush=True)"
        (interpreters.exec if hasattr(interpreters, "exec") else interpreters.run_string)(one, code)
        interpreters.destroy(one)
    """
    result = run(python, "-c", textwrap.dedent(code), **RUN)
    assert (result.stdout, result.stderr) == ("alone\n", "")


def test_a_hook_that_fails_ends_the_program_without_losing_its_output(python: str, tmp_path: Path) -> None:
    """A framework whose calls cannot be governed: 78, what was printed before is out, and the reason is said."""
    agent = package(tmp_path, "langchain_core.tools.base", "")
    code = "import sys; sys.stdout.write('before '); import langchain_core.tools.base; print('after')"
    result = run(python, "-c", code, path=(agent,), **RUN)
    assert (result.returncode, result.stdout) == (78, "before ")
    assert "langchain_core cannot be governed" in result.stderr
    assert "Traceback" not in result.stderr
    observed = run(python, "-c", code, path=(agent,), AASM_ENFORCEMENT_MODE="observe", **RUN)
    assert (observed.returncode, observed.stdout) == (0, "before after\n")
    assert "not governed" in observed.stderr


CHILDREN = """
    import concurrent.futures, multiprocessing, os, subprocess, sys

    CODE = {code!r}

    def child():
        exec(CODE)

    def answer():
        return sys.modules["agent_assembly.core.bootstrap"].is_armed() if "agent_assembly" in sys.modules else False

    if __name__ == "__main__":
        subprocess.run([sys.executable, "-c", CODE], check=True)
        os.system(f'"{{sys.executable}}" -c "{{CODE}}"')
        for method in ("spawn", "forkserver", "fork"):
            process = multiprocessing.get_context(method).Process(target=child)
            process.start()
            process.join()
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
            print("governed" if pool.submit(answer).result() else "ungoverned", flush=True)
"""


@pytest.mark.parametrize(("children", "expected"), [("inherit", "governed"), ("off", "ungoverned")])
def test_children_are_governed_or_left_alone(
    launch: Launch, work: Path, python: str, children: str, expected: str
) -> None:
    """subprocess, a shell, spawn, forkserver and process pools alike; a fork is the governed program itself."""
    (work / "agent.py").write_text(textwrap.dedent(CHILDREN).format(code=WHETHER_GOVERNED))
    result = launch(python, "agent.py", options=["--children", children])
    lines = result.stdout.split()
    assert lines.pop(4) == "governed"
    assert lines == [expected] * 5, result.stderr
    assert result.stderr == ""


def test_children_that_are_left_alone_see_no_trace_of_the_run(launch: Launch, python: str) -> None:
    """With --children off neither the bootstrap's directory nor the run's variables are passed on."""
    code = "import os; print(sorted(n for n in os.environ if n in ('AASM_RUN_ID', 'AASM_WATCHED', 'PYTHONPATH')))"
    assert launch(python, "-c", code, options=["--children", "off"]).stdout == "[]\n"


STRICT = """
    import multiprocessing, os, subprocess, sys

    def child():
        exec({code!r})

    def spawned():
        process = multiprocessing.get_context("spawn").Process(target=child)
        process.start()
        process.join()

    if __name__ == "__main__":
        for what, start in {{
            "isolated": lambda: subprocess.run([sys.executable, "-I", "-c", "print('ran')"]),
            "emptied": lambda: subprocess.run([sys.executable, "-c", "print('ran')"], env={{}}),
            "no python": lambda: subprocess.run(["ls"]),
            "shell": lambda: subprocess.run("echo ran", shell=True),
            "system": lambda: os.system("echo ran"),
            "spawn": lambda: os.posix_spawn("/bin/echo", ["echo", "ran"], os.environ),
            "exec": lambda: os.execv("/bin/echo", ["echo", "ran"]),
            "elsewhere": lambda: subprocess.run([sys.executable, "-c", "1"], env={{**os.environ, "AASM_RUN_ID": "x"}}),
            "weaker": lambda: subprocess.run(
                [sys.executable, "-c", "1"], env={{**os.environ, "AASM_ENFORCEMENT_MODE": "observe"}}
            ),
            "governed": lambda: subprocess.run([sys.executable, "-c", {code!r}]),
            "env": lambda: subprocess.run(["env", "A=1", sys.executable, "-c", {code!r}]),
            "missing": lambda: subprocess.run(["no-such-command"]),
            "spawned": lambda: spawned(),
            "own environment": lambda: (os.environ.pop("AASM_RUN_ID"), subprocess.run([sys.executable, "-c", "1"])),
        }}.items():
            try:
                start()
            except OSError as error:
                print(what, type(error).__name__, flush=True)
"""


def test_strict_refuses_the_children_that_cannot_be_governed(launch: Launch, work: Path, python: str) -> None:
    """Where they would be started, with an exception that says why; those that can be governed start."""
    (work / "agent.py").write_text(textwrap.dedent(STRICT).format(code=WHETHER_GOVERNED))
    result = launch(python, "agent.py", options=["--children", "strict"])
    refused = ["isolated", "emptied", "no python", "shell", "system", "spawn", "exec", "elsewhere", "weaker"]
    expected = [f"{what} UngovernedChildError" for what in refused]
    assert result.stdout.splitlines() == [
        *expected,
        "governed",
        "governed",
        "missing FileNotFoundError",
        "governed",
        "own environment UngovernedChildError",
    ], result.stderr


def test_a_program_that_drops_the_bootstrap_for_its_child_is_not_hindered(launch: Launch, python: str) -> None:
    """By default a child that cannot be governed runs: what must hold for it does not depend on its environment."""
    code = "import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-I', '-c', 'print(1)']).returncode)"
    assert launch(python, "-c", code).stdout == "1\n"


THIRD_PARTY = """
    from agent_assembly.adapters.base import FrameworkAdapter

    class Adapter(FrameworkAdapter):
        def get_framework_name(self):
            return "own_framework"

        def get_supported_versions(self):
            return [">=0"]

        def is_available(self):
            return True

        def register_hooks(self, interceptor):
            print("registered", flush=True)

        def unregister_hooks(self):
            pass
"""


@pytest.mark.parametrize("works", [True, False])
def test_third_party_adapters_are_armed_at_the_start(launch: Launch, work: Path, python: str, works: bool) -> None:
    """An installed adapter is found by its entry point and armed before the program; a broken one ends it with 78."""
    site = work / "site-packages"
    package(site, "own_adapter", THIRD_PARTY if works else "raise RuntimeError('broken')")
    facts = site / "own_adapter-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: own-adapter\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[agent_assembly.adapters]\nown_framework = own_adapter:Adapter\n")
    result = launch(python, "-c", "print('ran')", environ={"PYTHONPATH": str(site)})
    if works:
        assert (result.stdout, result.stderr) == ("registered\nran\n", "")
    else:
        assert (result.returncode, result.stdout) == (78, "")
        assert "RuntimeError: broken" in result.stderr


def test_a_launcher_that_does_not_chain_is_stopped_wherever_it_is_started(
    launch: Launch, work: Path, python: str
) -> None:
    """Behind a shell too: its own sitecustomize would run instead of ours, and nobody would notice."""
    script = work / "bin" / "opentelemetry-instrument"
    script.parent.mkdir()
    script.write_text(f"#!{python}\nprint('ran')\n")
    script.chmod(0o755)
    result = launch("sh", "-c", f"{script} python agent.py; exit $?")
    assert (result.returncode, result.stdout) == (78, "")
    assert "opentelemetry-instrument aasm-run python" in result.stderr


def test_a_fork_while_a_lock_is_held(launch: Launch, work: Path, python: str) -> None:
    """Nothing of ours logs, joins or waits in a forked child."""
    code = """
        import logging, os, threading
        import langchain_core.tools.base

        held = threading.Event()
        done = threading.Event()

        handler = logging.StreamHandler()
        logging.getLogger().addHandler(handler)

        def hold():
            with handler.lock:
                held.set()
                done.wait()

        threading.Thread(target=hold).start()
        held.wait()
        child = os.fork()
        if child == 0:
            os._exit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        done.set()
    """
    pytest.importorskip("langchain_core")
    (work / "agent.py").write_text(textwrap.dedent(code))
    result = launch(python, "-W", "ignore", "agent.py", timeout=30)
    assert (result.stdout, result.returncode) == ("7\n", 0), result.stderr


def test_an_adapter_that_fails_is_no_reason_to_run_ungoverned(tmp_path: Path) -> None:
    """Also where no framework of the built-in adapters is there, in the program and in its children."""
    python = environment(sys.version_info[:2], with_sdk=True)
    site = tmp_path / "site-packages"
    package(site, "own_adapter", "raise RuntimeError('broken')")
    facts = site / "own_adapter-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: own-adapter\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[agent_assembly.adapters]\nown = own_adapter:Adapter\n")
    for more in ({}, {"AASM_WATCHED": "langchain_core"}):
        result = run(python, "-c", "print('ran')", path=(site,), AASM_HOME=str(tmp_path), **RUN, **more)
        assert (result.returncode, result.stdout) == (78, ""), more


HEADING = ["check", "status", "what was found"]


def refused_row(text: str) -> list[str]:
    """The one row of a refusal's table, by the columns of its heading, and what to do, which stands below it."""
    why, heading, row, below = text.splitlines()
    assert why.startswith("aasm-run: ")
    assert "(exit code 78)" in why
    places = [heading.index(name) for name in HEADING]
    ends = [*places[1:], len(row)]
    arrow, _, remedy = below.strip().partition(" ")
    assert (below.index("->"), arrow) == (places[-1], "->")
    return [*(row[start:end].strip() for start, end in zip(places, ends, strict=True)), remedy]


def test_a_refusal_is_a_row_of_the_doctors(python: str, tmp_path: Path) -> None:
    """The columns, the names of the rows and their form are the doctor's, whoever refuses and for whatever reason."""
    broken = package(tmp_path / "broken", "agent_assembly.core.bootstrap", "raise RuntimeError('no good')")
    bare = environment(sys.version_info[:2], with_sdk=False)
    framework = package(tmp_path / "framework", "langchain_core.tools.base", "class BaseTool: ...")
    cases = [
        ("target bootstrap", python, "pass", (broken,), "RuntimeError: no good", f"aasm-py doctor -- {python}"),
        (
            "target sdk",
            str(bare),
            "pass",
            (),
            "No module named 'agent_assembly'",
            f"{bare} -m pip install agent-assembly",
        ),
        (
            "adapter langchain",
            python,
            "import langchain_core.tools.base",
            (framework,),
            "has no run and no arun",
            f"{python} -m pip install 'langchain-core>=0.3,<2'",
        ),
    ]
    for check, interpreter, code, path, found, remedy in cases:
        result = run(interpreter, "-c", code, path=path, **RUN)
        assert result.returncode == 78
        row = refused_row(result.stderr)
        assert row[:2] == [check, "fail"]
        assert found in row[2]
        assert interpreter in row[2]
        assert RUN["AASM_RUN_ID"] in row[2]
        assert row[3].startswith(remedy)
        finding = Finding(check, "fail", row[2], row[3])
        assert plain_table([finding]) == "".join(f"{line}\n" for line in result.stderr.splitlines()[1:])


@pytest.mark.parametrize("version", sorted(too_old()), ids=lambda version: f"{version[0]}.{version[1]}")
def test_old_pythons_refuse_in_the_same_form(version: tuple[int, int]) -> None:
    """Also without the SDK, and in the Python of twenty years ago."""
    result = run(installed()[version], "-c", "print('ran')", **RUN)
    check, status, found, remedy = refused_row(result.stderr)
    assert (check, status) == ("target python", "fail")
    assert f"Python {version[0]}.{version[1]} is older than 3.10" in found
    assert remedy.startswith("use Python 3.10 or later")
    assert plain_table([Finding(check, "fail", found, remedy)]).splitlines() == result.stderr.splitlines()[1:]
