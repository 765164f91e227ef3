# Runs in every Python program of a run, before the program's own first line: `aasm-run` puts this directory on PYTHONPATH.
#
# Order: look whether we are asked at all, arm the SDK's import watch, then run the sitecustomize that this file stands
# before. Readable by every Python since 2.7; the standard library only, so that it also runs where the SDK is missing.

import os
import sys

EXIT_REFUSED = 78
OLDEST = (3, 10)
DIRECTORY = os.path.dirname(os.path.abspath(__file__))

# Programs of Python's own household, which are no agents and run in environments without the SDK.
TOOLS = (
    "aasm-py", "aasm-run", "conda", "ensurepip", "hatch", "pdm", "pip", "pip3", "pipenv", "pipx", "poetry", "uv",
    "venv", "virtualenv",
)  # fmt: skip
NOT_CHAINING = ("opentelemetry-instrument",)
RESOURCE_TRACKER = "from multiprocessing.resource_tracker import main"


class Refused(Exception):
    """Raised where it is known what is wrong: the row of the doctor's that says the same, and what to do."""

    def __init__(self, check, found, remedy):
        Exception.__init__(self, found)
        self.check = check
        self.remedy = remedy


def start():
    environ = os.environ
    if not environ.get("AASM_RUN_ID"):
        return
    found_sdk = False
    try:
        if sys.version_info[:2] < OLDEST:
            found = "Python %d.%d is older than %d.%d" % (sys.version_info[:2] + OLDEST)
            raise Refused("target python", found, "use Python %d.%d or later" % OLDEST)
        if in_subinterpreter():
            return
        name = program_name(sys.orig_argv)
        if name in TOOLS or name == RESOURCE_TRACKER:
            return
        if name in NOT_CHAINING:
            found = "%s puts a sitecustomize of its own before ours" % name
            raise Refused("other launchers", found, "%s aasm-run python ..." % name)
        from agent_assembly.core.bootstrap import arm

        found_sdk = True
        arm(environ, DIRECTORY)
    except Exception:
        fail(sys.exc_info()[1], environ, found_sdk)


def program_name(words):
    """The tool that this interpreter runs, by the name of its module or script; empty for everything else."""
    index = 1
    while index < len(words):
        word = words[index]
        index += 1
        if word[:2] == "-m":
            return (word[2:] or "".join(words[index : index + 1])).split(".")[0]
        if word == "-c":
            code = "".join(words[index : index + 1])
            return RESOURCE_TRACKER if code.startswith(RESOURCE_TRACKER) else ""
        if word in ("-W", "-X", "--check-hash-based-pycs"):
            index += 1
        elif word[:1] != "-" or word == "-":
            directory, name = os.path.split(word)
            # Installed programs only: an agent may be called anything.
            return name if os.path.basename(directory) in ("bin", "Scripts") else ""
        elif word[:2] != "--" and word[-1:] == "m":
            return "".join(words[index : index + 1]).split(".")[0]
        elif word[:2] != "--" and word[-1:] == "c":
            return ""
    return ""


def in_subinterpreter():
    """Whether this is not the process's first interpreter, where alone signals can be waited for."""
    import _signal

    try:
        previous = _signal.set_wakeup_fd(-1)
    except ValueError:
        return True
    if previous != -1:
        _signal.set_wakeup_fd(previous)
    return False


def fail(error, environ, found_sdk):
    """End the process with 78 when the run enforces; say one line when it merely observes."""
    observes = environ.get("AASM_ENFORCEMENT_MODE") in ("observe", "disabled")
    watched = environ.get("AASM_WATCHED")
    alone = watched and not found_sdk and environ.get("AASM_CHILDREN") != "strict"
    if alone and not holds_any(watched.split(os.pathsep)):
        # A child of a governed program, with a Python of its own that cannot be governed and has nothing to govern.
        return
    problem = str(error) if isinstance(error, Refused) else "%s: %s" % (type(error).__name__, error)
    if observes:
        say("aasm-run: this Python is not governed: %s (%s)\n" % (problem, sys.executable))
        return
    lines = ["aasm-run: this Python cannot be governed, so the program is not run (exit code %d)" % EXIT_REFUSED]
    where = "%s, Python %s, %s" % (sys.executable, sys.version.split()[0], environ.get("AASM_RUN_ID"))
    check, remedy = advice(error)
    remedy += "; or: let it run ungoverned: aasm-run --enforcement-mode observe ..."
    lines += table(((check, "fail", "%s (%s)" % (problem, where), remedy),))
    say("\n".join(lines) + "\n")
    os._exit(EXIT_REFUSED)


def table(rows):
    """The lines of the doctor's table, as agent_assembly.core.findings makes it: that may be what is missing."""
    rows = [("check", "status", "what was found", "")] + [
        tuple(" ".join(str(cell).split()) for cell in row) for row in rows
    ]
    name, status = [max(len(row[column]) for row in rows) for column in (0, 1)]
    lines = []
    for row in rows:
        lines.append("  %s  %s  %s" % (row[0].ljust(name), row[1].ljust(status), row[2]))
        if row[3]:
            lines.append("%s-> %s" % (" " * (name + status + 6), row[3]))
    return lines


def advice(error):
    """The row of the doctor's under which this is found, and what to do."""
    if isinstance(error, Refused):
        return error.check, error.remedy
    python = quoted(sys.executable or "python")
    name = getattr(error, "name", None) or ""
    if isinstance(error, ImportError) and name.split(".")[0] == "agent_assembly":
        options = "" if name == "agent_assembly" else "--force-reinstall --no-deps "
        return "target sdk", "%s -m pip install %sagent-assembly" % (python, options)
    return "target bootstrap", "aasm-py doctor -- %s" % python


def quoted(path):
    plain = all(letter.isalnum() or letter in "/._-+" for letter in path)
    return path if plain else "'%s'" % path.replace("'", "'\\''")


def holds_any(packages):
    return any(os.path.isdir(os.path.join(entry, name)) for entry in sys.path for name in packages if name)


def say(text):
    # A program without standard error gets nothing: the number 2 may be a file of its own.
    if sys.__stderr__ is not None:
        try:
            os.write(2, text.encode("utf-8", "replace"))
        except (OSError, ValueError):
            pass


def run_shadowed():
    """Run the sitecustomize that would have been run without us; what it raises is reported by Python as always."""
    # Other launchers chain too, and may lead back here: each directory gets its turn once.
    visited = getattr(sys, "_aasm_sitecustomize", None)
    if visited is None:
        visited = sys._aasm_sitecustomize = []
    if DIRECTORY not in visited:
        visited.append(DIRECTORY)
    rest = [entry for entry in sys.path if os.path.abspath(entry) not in visited]
    if sys.version_info < (3, 5):
        return run_shadowed_by_imp(rest)
    from _frozen_importlib_external import PathFinder

    spec = PathFinder.find_spec("sitecustomize", rest)
    if spec is None or spec.loader is None or not spec.origin:
        return None
    visited.append(os.path.dirname(os.path.abspath(spec.origin)))
    module = type(sys)("sitecustomize")
    module.__spec__ = spec
    module.__loader__ = spec.loader
    module.__file__ = spec.origin
    module.__cached__ = spec.cached
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)
    return None


def run_shadowed_by_imp(rest):
    import imp

    try:
        found = imp.find_module("sitecustomize", rest)
    except ImportError:
        return
    visited = sys._aasm_sitecustomize
    visited.append(os.path.dirname(os.path.abspath(found[1])))
    # Python 2 empties a module that nobody holds any more, and this one has not ended yet.
    sys._aasm_bootstrap = sys.modules.pop("sitecustomize")
    imp.load_module("sitecustomize", *found)


def stay_first():
    """Stand first for the children too: a launcher that we chained may have put itself in front, and may not chain us."""
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if DIRECTORY in entries[1:]:
        rest = [entry for entry in entries if entry != DIRECTORY]
        os.environ["PYTHONPATH"] = os.pathsep.join([DIRECTORY] + rest)


start()
try:
    run_shadowed()
finally:
    stay_first()
