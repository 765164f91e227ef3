"""The fish writer of completion scripts."""

from __future__ import annotations

from command_model import Command, Option, Value, walk

_HEAD = r"""# Completes PROGRAM in fish. Written by `make completions`; changes here are lost.

# Prints the commands named so far, as one path; then the words of the wrapped command, if it began.
function __FN_look
    set -l words (commandline -opc) (commandline -ct)
    set -e words[1]
    set -l path ''
    set -l ended no
    while set -q words[2]
        set -l word $words[1]
        if test $ended = no; and string match -qr -- '^-.' $word
            if test "x$word" = x--
                set ended yes
            else if contains -- "$path $word" VALUED
                set -e words[1]
            end
        else if contains -- "$path/$word" COMMANDS
            set path $path/$word
        else if contains -- "$path" WRAPPING
            break
        end
        set -e words[1]
    end
    echo $path/
    contains -- "$path" WRAPPING; and set -q words[1]; or return 0
    set -q words[2]; or test $ended = yes; or not string match -q -- '-*' $words[1]; or return 0
    string join \n -- $words
end

# Whether the commands named so far are $argv, and no wrapped command began.
function __FN_at
    set -l look (__FN_look)
    test "$look[1]" = "$argv[1]"; and not set -q look[2]
end
"""

_WRAPPED = r"""
function __FN_in_command
    set -l look (__FN_look)
    set -q look[2]
end

# Completes the wrapped command as if it stood alone.
function __FN_command
    set -l look (__FN_look)
    set -e look[1]
    set -l last $look[-1]
    set -e look[-1]
    set -l line (string join ' ' -- (string escape -- $look) $last)
    # A word of its own would be taken for an option where it looks like one.
    complete "--do-complete=$line"
end
"""

_FILES = r"""
# Files that end in one of $argv, and directories; all files where there are neither.
function __FN_files
    set -l typed (string replace -r -- '^--[a-z-]+=' '' (commandline -ct))
    set -l files (complete "--do-complete='' $typed")
    set -l endings (string escape --style=regex -- $argv | string join '|')
    set -l fitting (string match -r -- "^[^\\t]*(?:/|$endings)(?:\\t.*)?\$" $files)
    set -q fitting[1]; or set fitting $files
    printf '%s\n' $fitting
end
"""


def fish_script(program: Command) -> str:
    """Return the completion script of `program`."""
    rows = [("".join(f"/{name}" for name in path), command) for path, command in walk(program)]
    wrapping = [path for path, command in rows if command.wraps]
    valued = [
        f"{path} {name}"
        for path, command in rows
        for option in command.options
        if option.value is not None
        for name in option.names
    ]
    function = program.name.replace("-", "_")
    complete = f"complete -c {program.name}"
    lines = [f"{complete} -f"]
    for path, command in rows:
        at = f"{complete} -n '__{function}_at {path}/'"
        lines += [f"{at} -a {_quoted(inner.name)}{_described(inner.help)}" for inner in command.commands]
        if command.argument is not None:
            lines.append(at + _completed(command.argument, function))
        lines += [at + _option(option, function) for option in command.options]
    fitting = any(option.value and option.value.endings for _, command in rows for option in command.options)
    head = _HEAD + (_WRAPPED if wrapping else "") + (_FILES if fitting else "")
    if wrapping:
        lines.append(f"{complete} -n __{function}_in_command -a '(__{function}_command)'")
    words = {
        "FN": function,
        "PROGRAM": program.name,
        "VALUED": _list(valued),
        "WRAPPING": _list(wrapping),
        "COMMANDS": _list([path for path, _ in rows if path]),
    }
    for name, text in words.items():
        head = head.replace(name, text)
    return head + "\n" + "\n".join(lines) + "\n"


def _option(option: Option, function: str) -> str:
    names = "".join(f" -l {name[2:]}" if name.startswith("--") else f" -s {name[1:]}" for name in option.names)
    value = "" if option.value is None else " -r" + _completed(option.value, function)
    return names + value + _described(option.help)


def _completed(value: Value, function: str) -> str:
    if value.kind == "choice":
        return f" -f -a {_quoted(' '.join(value.choices))}"
    if value.kind == "directory":
        return " -f -a '(__fish_complete_directories)'"
    if value.endings:
        return f" -f -a '(__{function}_files {' '.join(value.endings)})'"
    if value.kind == "file":
        return " -F"
    return " -f"


def _described(text: str) -> str:
    return f" -d {_quoted(text)}" if text else ""


def _list(words: list[str]) -> str:
    return " ".join(map(_quoted, words))


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
