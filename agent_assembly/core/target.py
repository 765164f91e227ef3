"""What can be known of a command without running it: whether Python runs it, which one, and whether that loads us.

Used by the launcher on what it is to start and by the strict treatment of children. Imported before the user's program:
see the import rules.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Whether the bootstrap will be loaded: surely, if a Python program starts in the end, or surely not.
YES, MAYBE, NO = "yes", "maybe", "no"

_DEPTH = 8

# Programs that run the rest of their command line: options that take a value, options that stand alone, and how many
# words of their own come before the command. An option that is not listed makes the answer MAYBE.
_WRAPPERS: dict[str, tuple[str, tuple[str, ...], int]] = {
    "nice": ("n", (), 0),
    "nohup": ("", (), 0),
    "timeout": ("ks", ("--foreground", "--preserve-status", "--verbose"), 1),
    "gtimeout": ("ks", ("--foreground", "--preserve-status", "--verbose"), 1),
    "setsid": ("", ("--ctty", "--fork", "--wait"), 0),
    "stdbuf": ("ioe", (), 0),
    "ionice": ("cn", ("--ignore",), 0),
    "chrt": ("TPD", ("--batch", "--fifo", "--idle", "--other", "--rr"), 1),
    "taskset": ("", ("--all-tasks",), 1),
    "time": ("fo", ("--append", "--portability", "--verbose"), 0),
    "tini": ("pe", (), 0),
    "dumb-init": ("r", ("--single-child", "--verbose"), 0),
    "catchsegv": ("", (), 0),
    "gosu": ("", (), 1),
    "su-exec": ("", (), 1),
}

# Programs that may start a Python in the end and hand their environment on.
_INDIRECT = frozenset(
    """
    sh bash dash zsh ksh mksh ash fish busybox xargs parallel make gmake just task watch flock script expect unbuffer
    uv poetry pdm hatch pipenv rye pixi conda mamba micromamba pyenv asdf mise direnv honcho foreman overmind tox nox
    strace ltrace perf gdb valgrind rr setpriv unshare chroot numactl faketime xvfb-run supervisord s6-setuidgid
    op doppler infisical aws-vault chamber teller sops vault dotenv envdir
    """.split()  # noqa: SIM905 - sixty quoted names would fill a page
)

# Programs that start the command elsewhere or with an environment of its own.
_DROPS_ENVIRONMENT = {
    "sudo": "put aasm-run behind it: sudo aasm-run …",
    "doas": "put aasm-run behind it: doas aasm-run …",
    "su": "put aasm-run inside: su USER -c 'aasm-run …'",
    "runuser": "put aasm-run behind it: runuser -u USER -- aasm-run …",
    "docker": "run aasm-run inside the container",
    "podman": "run aasm-run inside the container",
    "kubectl": "run aasm-run inside the container",
    "ssh": "run aasm-run on the other machine: ssh HOST aasm-run …",
    "tmux": "run aasm-run inside the terminal",
    "screen": "run aasm-run inside the terminal",
    "systemd-run": "put aasm-run behind it: systemd-run … aasm-run …",
    "uvx": "give the tool the SDK: uvx --with agent-assembly …, with aasm-run inside",
}

# Python's own launchers whose sitecustomize stands before ours and does not run it.
_NOT_CHAINING = {
    "opentelemetry-instrument": "put aasm-run behind it: opentelemetry-instrument aasm-run python …",
}

_IGNORES_BOOTSTRAP = {
    "I": "-I makes Python ignore PYTHONPATH, through which the bootstrap comes",
    "E": "-E makes Python ignore PYTHONPATH, through which the bootstrap comes",
    "S": "-S keeps Python from loading sitecustomize, which is the bootstrap",
}
_FLAGS_WITH_VALUE = "WXcm"
# Without them the bootstrap is not found, or believes that it was not asked.
_NEEDED_VARIABLES = ("PYTHONPATH", "AASM_RUN_ID")


class Target:
    """What a command comes down to.

    `kind` is one of python, python script, script, wrapper, program, missing. `governed` is `YES`, `MAYBE` or `NO`,
    with `reason` and `remedy` for the latter two. `interpreter` is the Python, with its symbolic links, where it is
    known; `flags` are the interpreter's own options; `script` is what follows them. `code` is the exit code of a
    missing one, as a shell would give it.
    """

    __slots__ = ("code", "flags", "governed", "interpreter", "kind", "path", "reason", "remedy", "script")

    def __init__(
        self, path: str, kind: str, governed: str, reason: str = "", remedy: str = "", *, interpreter: str | None = None
    ) -> None:
        self.path = path
        self.kind = kind
        self.governed = governed
        self.reason = reason
        self.remedy = remedy
        self.interpreter = interpreter
        self.code = 126
        self.flags: tuple[str, ...] = ()
        self.script: tuple[str, ...] = ()


class Files:
    """The look-ups that `examine` needs; tests give their own."""

    def find(self, name: str, path: str) -> tuple[str | None, int]:
        """Look `name` up as execvp does; return its path and 0, else what was found and 127 or 126."""
        if "/" in name:
            candidates = [name]
        else:
            candidates = [os.path.join(directory, name) for directory in path.split(os.pathsep)] if name else []
        refused: str | None = None
        for candidate in candidates:
            if os.path.isfile(candidate):
                if os.access(candidate, os.X_OK):
                    return candidate, 0
                refused = refused or candidate
            elif os.path.isdir(candidate) and "/" in name:
                refused = candidate
        return refused, 126 if refused is not None else 127

    def head(self, path: str) -> bytes:
        """Return the file's first bytes, or none when it cannot be read."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return b""
        try:
            return os.read(descriptor, 1024)
        except OSError:
            return b""
        finally:
            os.close(descriptor)

    def real(self, path: str) -> str:
        return os.path.realpath(path)


def examine(command: Sequence[str], environ: Mapping[str, str], files: Files, depth: int = _DEPTH) -> Target:
    """Say what `command` comes down to when it is started with `environ`."""
    if not command or depth == 0:
        return Target("", "missing", NO, "there is no command", "name a program")
    found, problem = files.find(command[0], environ.get("PATH", os.defpath))
    if found is None or problem:
        if found is None:
            missing = Target("", "missing", NO, f"{command[0]}: not found", "see whether it is installed and on PATH")
        else:
            from shlex import quote

            remedy = f"type: chmod +x {quote(found)}, or start it with its interpreter"
            missing = Target(found, "missing", NO, f"{command[0]}: not executable", remedy)
        missing.code = problem
        return missing
    name, words = os.path.basename(found), list(command[1:])
    if name in _NOT_CHAINING:
        return Target(found, "wrapper", NO, f"{name} puts a sitecustomize of its own before ours", _NOT_CHAINING[name])
    if name in _DROPS_ENVIRONMENT:
        reason = f"{name} does not hand the environment on, through which the bootstrap comes"
        return Target(found, "wrapper", NO, reason, _DROPS_ENVIRONMENT[name])
    if name == "env":
        return _env(found, words, environ, files, depth)
    if is_python_name(name):
        return _python(found, words, files)
    if name in _WRAPPERS:
        return _wrapper(found, words, environ, files, depth)
    if name in _INDIRECT:
        return _indirect(found, name)
    head = files.head(found)
    if head.startswith(b"#!"):
        return _shebang(found, head, words, environ, files, depth)
    real = files.real(found)
    if is_python_name(os.path.basename(real)):
        return _python(found, words, files)
    return Target(
        found,
        "program",
        NO,
        f"{name} is not a Python program, and not known to start one",
        f"put aasm-run behind it: {name} … aasm-run python …",
    )


def is_python_name(name: str) -> bool:
    """Whether `name` is that of a Python: python, python3, python3.12, python3.13t, pypy3."""
    for stem in ("python", "pypy"):
        if name.startswith(stem):
            rest = name[len(stem) :].removesuffix("t").removesuffix("d")
            return not rest or (rest[0].isdigit() and rest.replace(".", "").isdigit())
    return False


def _indirect(path: str, name: str) -> Target:
    reason = f"{name} decides what runs; it is governed if a Python program starts"
    return Target(path, "wrapper", MAYBE, reason)


def _python(path: str, words: list[str], files: Files) -> Target:
    # A pyenv or asdf shim is a shell script that picks the real one from the directory and the environment.
    shim = files.head(path).startswith(b"#!")
    target = Target(path, "python", YES, interpreter=None if shim else path)
    if shim:
        target.reason = "a shim decides which Python runs"
    index = 0
    while index < len(words):
        word = words[index]
        if len(word) < 2 or not word.startswith("-"):
            break
        index += 1
        if word.startswith("--"):
            if word == "--check-hash-based-pycs":
                index += 1
            continue
        for position, letter in enumerate(word[1:], 2):
            if letter in _IGNORES_BOOTSTRAP:
                target.governed = NO
                target.reason = _IGNORES_BOOTSTRAP[letter]
                target.remedy = f"start it without -{letter}"
            if letter in _FLAGS_WITH_VALUE:
                if letter in "cm":
                    target.flags, target.script = tuple(words[: index - 1]), tuple(words[index - 1 :])
                    return target
                if position == len(word):
                    index += 1
                break
    target.flags, target.script = tuple(words[:index]), tuple(words[index:])
    return target


def _shebang(path: str, head: bytes, words: list[str], environ: Mapping[str, str], files: Files, depth: int) -> Target:
    lines = head.split(b"\n")
    line = lines[0][2:].decode("utf-8", "replace").strip()
    interpreter, _, argument = line.partition(" ")
    argument = argument.strip()
    # Installers write this where the real line would be too long for the kernel: the shell hands over to Python.
    if os.path.basename(interpreter) == "sh" and len(lines) > 1 and lines[1].startswith(b"'''exec' "):
        text = lines[1][len(b"'''exec' ") :].decode("utf-8", "replace")
        interpreter = text.split('"')[1] if text.startswith('"') else text.split(" ")[0]
        argument = ""
    # Split although the kernel would not: what does not split rightly will not run either.
    command = [interpreter, *argument.split(), path, *words]
    if not interpreter:
        return Target(path, "missing", NO, f"{path}: its first line names no interpreter", "correct its first line")
    inner = examine(command, environ, files, depth - 1)
    if inner.kind == "missing":
        reason = f"{path}: its first line names an interpreter that is not there: {interpreter}"
        from shlex import quote

        return Target(path, "missing", NO, reason, f"correct it, or start it with python: python {quote(path)}")
    kind = {"python": "python script", "wrapper": "script"}.get(inner.kind, inner.kind)
    inner.path, inner.kind = path, kind
    if inner.governed == NO:
        inner.reason += f" (first line of {path})"
        inner.remedy = f"change its first line, or start it with python: python {path}"
    return inner


def _env(path: str, words: list[str], environ: Mapping[str, str], files: Files, depth: int) -> Target:
    environment, lost, rest = dict(environ), "", list(words)
    while rest:
        word = rest.pop(0)
        name, separator, value = word.partition("=")
        if word in ("-", "-i", "--ignore-environment"):
            lost = "env starts it with an emptied environment, through which the bootstrap would come"
        elif word in ("-u", "--unset") or name == "--unset" or word.startswith("-u"):
            apart = word in ("-u", "--unset")
            gone = value if separator else "".join(rest[:1]) if apart else word[2:]
            del rest[: int(apart)]
            environment.pop(gone, None)
            if gone in _NEEDED_VARIABLES:
                lost = f"env takes {gone} away, which the bootstrap needs"
        elif word in ("-S", "--split-string"):
            rest[:1] = rest[0].split() if rest else []
        elif name == "--split-string" or word.startswith("-S"):
            rest[:0] = (value if separator and name == "--split-string" else word[2:]).split()
        elif word in ("-C", "--chdir"):
            del rest[:1]
        elif word in ("--", "-v", "--debug") or name == "--chdir":
            continue
        elif word.startswith("-"):
            return _indirect(path, "env")
        elif separator:
            environment[name] = value
            if name in _NEEDED_VARIABLES:
                lost = f"env replaces {name}, which the bootstrap needs"
        else:
            rest.insert(0, word)
            break
    if not rest:
        return Target(path, "program", NO, "env without a command starts nothing")
    inner = _behind(path, examine(rest, environment, files, depth - 1))
    if lost and inner.kind != "missing":
        return Target(path, "wrapper", NO, lost, "set the variables before aasm-run: VAR=value aasm-run python …")
    return inner


def _behind(path: str, inner: Target) -> Target:
    """What is known of `inner`, when it is started by the program at `path`."""
    if inner.kind != "missing":
        inner.path = path
    return inner


def _wrapper(path: str, words: list[str], environ: Mapping[str, str], files: Files, depth: int) -> Target:
    name = os.path.basename(path)
    with_value, alone, own = _WRAPPERS[name]
    index = 0
    while index < len(words) and words[index].startswith("-") and len(words[index]) > 1:
        word = words[index]
        index += 1
        if word == "--":
            break
        if word.startswith("--"):
            if "=" not in word and word not in alone:
                return _indirect(path, name)
        elif word[1] in with_value and len(word) == 2:
            index += 1
    rest = words[index + own :]
    return _behind(path, examine(rest, environ, files, depth - 1)) if rest else _indirect(path, name)
