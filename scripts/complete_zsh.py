"""The zsh writer of completion scripts: one function for each command, over `_arguments`."""

from __future__ import annotations

from command_model import Command, Option, Value, walk

_HEAD = """\
#compdef PROGRAM
# Completes PROGRAM in zsh. Written by `make completions`; changes here are lost.
"""

# Loaded by compinit from a directory of `fpath`, the file is the function; read by `eval`, it announces it.
_TAIL = """
if [[ $funcstack[1] == _PROGRAM ]]; then
    _PROGRAM "$@"
else
    compdef _PROGRAM PROGRAM
fi
"""


# Below a group, `_arguments` counts a `--` that comes first as a word of the command.
_WRAPPED = """
_PROGRAM-wrapped() {
    if [[ $words[1] == -- ]]; then
        shift words
        (( CURRENT-- ))
    fi
    if (( CURRENT == 1 )); then
        _command_names -e
    else
        _normal
    fi
}
"""


def zsh_script(program: Command) -> str:
    """Return the completion script of `program`."""
    functions = [_function(program.name, path, command) for path, command in walk(program)]
    wrapped = _WRAPPED if any(command.wraps for _, command in walk(program)) else ""
    head, tail = (text.replace("PROGRAM", program.name) for text in (_HEAD, wrapped + _TAIL))
    return head + "".join(functions) + tail


def _function(program: str, path: tuple[str, ...], command: Command) -> str:
    name = "_" + "-".join((program, *path))
    specs = [_spec(option) for option in command.options]
    if command.commands:
        return _group(name, " ".join((program, *path)), command, specs)
    words = "_arguments -S"
    if command.wraps:
        # The command takes over at its name, as after `sudo`; from then on no option is ours.
        words += " -A '-*'"
        specs += ["'(-)1:command: _command_names -e'", f"'*::arguments: _{program}-wrapped'"]
    elif command.argument is not None:
        specs.append(_quoted(f"1:{_action(command.argument)}"))
    return f"\n{name}() {{\n    {words} : \\\n" + " \\\n".join(f"        {spec}" for spec in specs) + "\n}\n"


def _group(name: str, said: str, command: Command, specs: list[str]) -> str:
    described = "\n".join(f"        {_quoted(_described(inner))}" for inner in command.commands)
    cases = "\n".join(
        f"                ({inner.name}) {name}-{inner.name} && result=0 ;;" for inner in command.commands
    )
    arguments = " \\\n".join(f"        {spec}" for spec in [*specs, "'1: :->command'", "'*:: :->arguments'"])
    return f"""
{name}() {{
    local curcontext="$curcontext" context state state_descr line result=1
    local -A opt_args
    local -a offered
    offered=(
{described}
    )
    _arguments -C -S -A '-*' : \\
{arguments} && result=0
    case $state in
        (command) _describe -t commands {_quoted(said + " command")} offered && result=0 ;;
        (arguments)
            curcontext="${{curcontext%:*:*}}:{said.replace(" ", "-")}-$words[1]:"
            case $words[1] in
{cases}
            esac
            ;;
    esac
    return result
}}
"""


def _described(command: Command) -> str:
    text = command.help.replace("\\", "\\\\").replace(":", "\\:")
    return f"{command.name}:{text}" if text else command.name


def _spec(option: Option) -> str:
    """One option as `_arguments` takes it: `--name=[help]:value:action`, its names excluding each other."""
    text = option.help
    for letter in "\\[]:":
        text = text.replace(letter, "\\" + letter)
    rest = (f"[{text}]" if text else "") + (f":{_action(option.value)}" if option.value is not None else "")
    if len(option.names) == 1:
        return _quoted(_name(option, option.names[0]) + rest)
    names = ",".join(_name(option, name) for name in option.names)
    return f"{_quoted('(' + ' '.join(option.names) + ')')}{{{names}}}{_quoted(rest)}"


def _name(option: Option, name: str) -> str:
    if option.value is None:
        return name
    return f"{name}=" if name.startswith("--") else f"{name}+"


def _action(value: Value) -> str:
    """What is typed and how it is completed: `NAME:action`."""
    if value.kind == "choice":
        return f"{value.name}:({' '.join(value.choices)})"
    if value.kind == "directory":
        return f"{value.name}:_files -/"
    if value.kind == "file":
        pattern = "|".join(ending.lstrip(".") for ending in value.endings)
        return f'{value.name}:_files -g "*.({pattern})(-.)"' if pattern else f"{value.name}:_files"
    return f"{value.name}: "


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
