"""Every setting, as one table, and where each of its values came from.

Resolution: argument, then `AASM_*` variable, then `config.yaml`, then default. The launcher's options, the help texts,
the documentation and the doctor derive from `SETTINGS`. Imported before the user's program: see the import rules.
"""

from __future__ import annotations

import os

from agent_assembly.core.home import check_owned
from agent_assembly.exceptions import ConfigurationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

IDENTIFIER_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")
IDENTIFIER_LIMIT = 128
_HOST_CHARACTERS = IDENTIFIER_CHARACTERS
_ADDRESS_CHARACTERS = frozenset("0123456789abcdefABCDEF:.")
_URL_CHARACTERS = IDENTIFIER_CHARACTERS | frozenset("~:/[]%!$&'()*+,;=")
DELEGATION_REASON_LIMIT = 256

MODES = ("auto", "ebpf", "proxy", "sdk-only")
ENFORCEMENT_MODES = ("enforce", "observe", "disabled")

_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off")


class Setting:
    """One row: a name, how it is written in each place, and what values it takes.

    `kind` is one of text, identifier, url, choice, integer, number, boolean, path. `option` is the launcher's:
    `--gateway-url` for `gateway_url`, unless it is given. `secret` values are never shown. `internal` ones are set by
    the launcher for the program and have no option and no place in the file.
    """

    __slots__ = (
        *("choices", "default", "help", "internal", "kind", "maximum", "minimum"),
        *("name", "option", "secret", "variable"),
    )

    def __init__(
        self,
        name: str,
        kind: str,
        default: Any,
        help: str,
        *,
        choices: tuple[str, ...] = (),
        minimum: float | None = None,
        maximum: float | None = None,
        secret: bool = False,
        internal: bool = False,
        option: str = "",
    ) -> None:
        self.name = name
        self.option = option or "--" + name.replace("_", "-")
        self.variable = "AASM_" + name.upper()
        self.kind = kind
        self.default = default
        self.help = help
        self.choices = choices
        self.minimum = minimum
        self.maximum = maximum
        self.secret = secret
        self.internal = internal

    def parse(self, value: Any, source: str) -> Any:
        """Return `value` in the row's type; raise ConfigurationError naming `source` when it does not fit."""
        if self.choices:
            if value not in self.choices:
                # The two documented messages stand alone; `from` would make them harder to search for.
                raise ConfigurationError(f"{self.name} must be one of: {', '.join(self.choices)}")
            return value
        if self.kind == "boolean":
            return self._boolean(value, source)
        if self.kind in ("integer", "number"):
            return self._number(value, source)
        if not isinstance(value, str):
            raise self._unfit(value, source, "must be text")
        if self.kind == "identifier" and not is_identifier(value):
            raise self._unfit(value, source, "must match ^[A-Za-z0-9_.-]{1,128}$")
        if self.kind == "url":
            return self._url(value, source)
        # A directory may have whatever name the system gave it; everything else ends in headers, JSON and terminals.
        if any(_is_control(letter) or (_is_surrogate(letter) and self.kind != "path") for letter in value):
            raise self._unfit(value, source, "must not contain control characters or broken Unicode")
        if self.secret and not value.isascii():
            raise self._unfit(value, source, "must be ASCII")
        if self.maximum is not None and len(value) > self.maximum:
            raise self._unfit(value, source, f"must be at most {int(self.maximum)} characters, not {len(value)}")
        return value

    def _url(self, value: str, source: str) -> str:
        if "@" in value:
            # Never shown: what stands before the sign is a secret.
            raise ConfigurationError(f"{self.name} (from {source}) must not carry a password; use api_key")
        # Neither what stands in a query or fragment.
        plain = value.partition("?")[0].partition("#")[0]
        shown = value if plain == value else f"{plain}{value[len(plain)]}..."
        scheme, separator, rest = value.partition("://")
        authority = rest.split("/")[0]
        host, colon, port = authority.rpartition(":")
        if not colon or port.endswith("]"):
            host, port = authority, ""
        if not separator or scheme not in ("http", "https") or not host:
            raise self._unfit(shown, source, "must begin with http:// or https:// and name a host")
        if not value.isascii() or not _URL_CHARACTERS.issuperset(value) or not _is_host(host):
            raise self._unfit(shown, source, "must be a plain URL, without spaces, query or fragment")
        if (colon and port == "" and authority.endswith(":")) or (port and not _is_port(port)):
            raise self._unfit(shown, source, "must have a port from 1 to 65535, or none")
        return value.rstrip("/")

    def _boolean(self, value: Any, source: str) -> bool:
        if isinstance(value, bool):
            return value
        word = str(value).strip().lower()
        if word in _TRUE:
            return True
        if word in _FALSE:
            return False
        raise self._unfit(value, source, "must be true or false")

    def _number(self, value: Any, source: str) -> int | float:
        whole = self.kind == "integer"
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise self._unfit(value, source, "must be a number")
        try:
            number = int(value) if whole else float(value)
        except (ValueError, OverflowError):
            number = None
        if number is None or number != number or (whole and isinstance(value, float) and value != number):
            raise self._unfit(value, source, "must be a whole number" if whole else "must be a number")
        if self.minimum is not None and number < self.minimum:
            raise self._unfit(value, source, f"must be at least {self.minimum}")
        if self.maximum is not None and number > self.maximum:
            raise self._unfit(value, source, f"must be at most {self.maximum}")
        return number

    def _unfit(self, value: Any, source: str, rule: str) -> ConfigurationError:
        shown = "" if self.secret else f", not {value!r}" if len(repr(value)) <= 80 else ""
        return ConfigurationError(f"{self.name} (from {source}) {rule}{shown}")


def _is_control(letter: str) -> bool:
    return letter < " " or "\x7f" <= letter <= "\x9f"


def _is_surrogate(letter: str) -> bool:
    return "\ud800" <= letter <= "\udfff"


def _is_host(host: str) -> bool:
    if host.startswith("["):
        return host.endswith("]") and ":" in host and _ADDRESS_CHARACTERS.issuperset(host[1:-1])
    return _HOST_CHARACTERS.issuperset(host)


def _is_port(port: str) -> bool:
    return port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536


def is_identifier(text: str) -> bool:
    """Whether `text` matches `^[A-Za-z0-9_.-]{1,128}$`."""
    return 0 < len(text) <= IDENTIFIER_LIMIT and IDENTIFIER_CHARACTERS.issuperset(text)


SETTINGS: tuple[Setting, ...] = (
    Setting("gateway_url", "url", None, "Base URL of the gateway; without it the local one is found or started."),
    Setting("api_key", "text", None, "Key that a remote gateway asks for.", secret=True),
    Setting("agent_id", "identifier", "agent-assembly-default", "Identity of this agent in registry and audit log."),
    Setting("mode", "choice", "auto", "Where policy is enforced.", choices=MODES),
    Setting(
        "enforcement_mode",
        "choice",
        None,
        "How hard a denial bites; unset leaves it to the gateway, which enforces.",
        choices=ENFORCEMENT_MODES,
    ),
    Setting(
        "on_deny",
        "choice",
        "raise",
        "What a denied call does: raise an exception, or give the model a refusal to work with.",
        choices=("raise", "refuse"),
    ),
    Setting("team_id", "identifier", None, "Team of the agent, for the scope of policies."),
    Setting("parent_agent_id", "identifier", None, "Agent that spawned this one."),
    Setting(
        "delegation_reason",
        "text",
        None,
        "Why this agent was spawned (256 characters).",
        maximum=DELEGATION_REASON_LIMIT,
    ),
    Setting("spawned_by_tool", "text", None, "Tool that spawned this agent.", maximum=256),
    Setting("depth", "integer", None, "How many agents stand above this one.", minimum=0, maximum=1000),
    Setting("home", "path", None, "Directory of configuration, secret, spool and audit log (default ~/.aasm)."),
    Setting("gateway_port", "integer", 7391, "Port of the local gateway.", minimum=1, maximum=65535),
    Setting("auto_start", "boolean", True, "Start a local gateway when none is found.", option="--no-start"),
    Setting(
        "children",
        "choice",
        "inherit",
        "What becomes of child processes: governed where they can be, refused where not, or left alone.",
        choices=("inherit", "strict", "off"),
    ),
    Setting("check_timeout", "number", 5.0, "Seconds to wait for a verdict.", minimum=0.01, maximum=600),
    Setting(
        "bundle_max_age",
        "number",
        0.0,
        "Seconds for which a policy fetched earlier may still decide when the gateway is gone.",
        minimum=0,
        maximum=0,
    ),
    Setting(
        "max_arguments_bytes",
        "integer",
        1 << 20,
        "Size of a call's arguments in canonical form beyond which it is denied.",
        minimum=1024,
        maximum=1 << 20,
    ),
    Setting(
        "spool_max_bytes",
        "integer",
        256 << 20,
        "Disk space for records that the gateway has not taken yet.",
        minimum=1 << 20,
    ),
    Setting("run_id", "text", None, "The run that this process belongs to.", internal=True, maximum=64),
    Setting("gateway_source", "text", None, "Where the launcher had the gateway's URL from.", internal=True),
)

BY_NAME: dict[str, Setting] = {setting.name: setting for setting in SETTINGS}


class Settings:
    """The resolved values, read as attributes, with the source of each.

    `source(name)` is "argument", "variable AASM_…", "<file>:<line>" or "default"; `shadowed(name)` lists the sources
    that also had a value and lost.
    """

    __slots__ = ("_shadowed", "_sources", "_values")

    def __init__(self, values: dict[str, Any], sources: dict[str, str], shadowed: dict[str, tuple[str, ...]]) -> None:
        self._values = values
        self._sources = sources
        self._shadowed = shadowed

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            # Asked for by copy and pickle before the slots are filled.
            raise AttributeError(name)
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(name) from None

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def source(self, name: str) -> str:
        return self._sources[name]

    def shadowed(self, name: str) -> tuple[str, ...]:
        return self._shadowed.get(name, ())

    def is_set(self, name: str) -> bool:
        """Whether a person set it, in whatever place."""
        return self._sources[name] != "default"

    def replaced(self, source: str, **values: Any) -> Settings:
        """Return a copy with `values`, each said to come from `source`."""
        return Settings(
            {**self._values, **values}, {**self._sources, **dict.fromkeys(values, source)}, dict(self._shadowed)
        )

    def __repr__(self) -> str:
        shown = (
            f"{name}={'***' if BY_NAME[name].secret and value else repr(value)}" for name, value in self._values.items()
        )
        return f"Settings({', '.join(shown)})"


def home_directory(arguments: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[str, str]:
    """Return the home directory and where it was named; it alone is never in the file that it holds."""
    row = BY_NAME["home"]
    given = arguments.get("home")
    if given is not None:
        try:
            given = os.fspath(given)
        except TypeError:
            # The row says what it wants instead.
            pass
        return _absolute(row.parse(given, "argument"), "argument"), "argument"
    variable = environ.get(row.variable)
    if variable:
        source = f"variable {row.variable}"
        return _absolute(row.parse(variable, source), source), source
    home = _user_directory(environ)
    if not os.path.isabs(home):
        raise ConfigurationError("no home directory is known; set HOME or AASM_HOME to a directory of yours")
    return os.path.join(home, ".aasm"), "default"


def _absolute(path: str, source: str) -> str:
    try:
        return os.path.abspath(os.path.expanduser(path))
    except OSError:
        raise ConfigurationError(
            f"home (from {source}) is relative to a current directory that is gone; give an absolute path"
        ) from None


def _user_directory(environ: Mapping[str, str]) -> str:
    if environ.get("HOME"):
        return environ["HOME"]
    try:
        import pwd

        return pwd.getpwuid(os.getuid()).pw_dir
    except (ImportError, KeyError):
        return os.path.expanduser("~") if os.name == "nt" else ""


def resolve_settings(
    arguments: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    problems: dict[str, ConfigurationError] | None = None,
) -> Settings:
    """Resolve every setting; raise ConfigurationError naming the first place that cannot be used.

    An argument of None and an empty variable count as not given. The file is read only if it exists, and not inside a
    run, whose launcher has read it already. With `problems` nothing is raised: what cannot be used is passed over, and
    the error stands there under the name of its setting, or under "config.yaml"; `home` is then None where none is
    known.
    """
    given = {name: value for name, value in (arguments or {}).items() if value is not None}
    variables = os.environ if environ is None else environ
    for name in given:
        if name not in BY_NAME:
            raise ConfigurationError(f"unknown setting: {name}")
    home, home_source, file_values = _home_and_file(given, variables, problems)
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    shadowed: dict[str, tuple[str, ...]] = {}
    for setting in SETTINGS:
        name = setting.name
        if name == "home":
            values[name], sources[name] = home, home_source
            if home_source == "argument" and variables.get(setting.variable):
                shadowed[name] = (f"variable {setting.variable}",)
            continue
        found: list[tuple[str, Any]] = []
        if name in given:
            found.append(("argument", given[name]))
        if variables.get(setting.variable):
            found.append((f"variable {setting.variable}", variables[setting.variable]))
        if name in file_values:
            value, place = file_values[name]
            found.append((place, value))
        sources[name], values[name] = "default", setting.default
        if found:
            try:
                values[name] = setting.parse(found[0][1], found[0][0])
            except ConfigurationError as error:
                if problems is None:
                    raise
                problems[name] = error
            sources[name] = found[0][0]
            if len(found) > 1:
                shadowed[name] = tuple(source for source, _ in found[1:])
    return Settings(values, sources, shadowed)


def _home_and_file(
    given: Mapping[str, Any], variables: Mapping[str, str], problems: dict[str, ConfigurationError] | None
) -> tuple[str | None, str, dict[str, tuple[Any, str]]]:
    try:
        home, source = home_directory(given, variables)
    except ConfigurationError as error:
        if problems is None:
            raise
        problems["home"] = error
        return None, "default", {}
    if variables.get("AASM_RUN_ID"):
        return home, source, {}
    try:
        return home, source, _read_file(home, warn=problems is None)
    except ConfigurationError as error:
        if problems is None:
            raise
        problems["config.yaml"] = error
        return home, source, {}


def _read_file(home: str, warn: bool) -> dict[str, tuple[Any, str]]:
    path = os.path.join(home, "config.yaml")
    check_owned(home, "home directory")
    try:
        os.lstat(path)
    except FileNotFoundError:
        return {}
    except NotADirectoryError:
        raise ConfigurationError(f"{home} is not a directory; set AASM_HOME to one") from None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    # YAML costs twenty milliseconds: only who has a file pays for it.
    from agent_assembly.core.config_file import read_config_file

    return read_config_file(path, warn=warn)
