"""The bash writer of completion scripts. Works with bash-completion and without it."""

from __future__ import annotations

from collections.abc import Iterable

from command_model import Command, Value, walk

# `FN` stands for the program's name as part of a function's. The words of the line are put together first: bash cuts
# them at `=` and `:`. Candidates are compared here: `compgen -W` would expand them.
_TEMPLATE = r"""# Completes PROGRAM in bash. Written by `make completions`; changes here are lost.

# Sets what can follow after the commands in $1.
__FN_at()
{
    commands=() options=() argument=() wraps=
    case $1 in
AT
    esac
}

# Whether the option $2 of the commands in $1 takes a value; sets its kind, and the choices or the endings of files.
__FN_value()
{
    kind= choices=()
    case "$1 $2" in
VALUES
        *) return 1 ;;
    esac
}

# Sets parts, the words up to the cursor, and starts, the index in COMP_WORDS at which each begins.
__FN_words()
{
    local line=${COMP_LINE:0:COMP_POINT} piece gap index
    parts=() starts=() piece=
    for ((index = 0; index <= COMP_CWORD; index++)); do
        gap=${line%%[![:space:]]*}
        line=${line#"$gap"}
        piece=${COMP_WORDS[index]-}
        ((index == COMP_CWORD)) && piece=$line
        line=${line#"$piece"}
        if [[ -z $gap && $index -gt 0 ]]; then
            parts[${#parts[@]} - 1]+=$piece
        else
            parts+=("$piece")
            starts+=("$index")
        fi
    done
    # What readline replaces: nothing of what stands before the last break.
    [[ $piece == [=:] ]] && piece=
    before=${parts[${#parts[@]} - 1]%"$piece"}
}

# Offers those of the words after $2 that begin with $1, each behind the text $2.
__FN_offer()
{
    local begun=$1 lead=$2 word
    shift 2
    for word in "$@"; do
        [[ $word == "$begun"* ]] || continue
        word=$lead$word
        COMPREPLY+=("${word#"$before"}")
    done
}

# Offers values of the kind that was found; $1 is what is typed of it, $2 what stands before it in the word.
__FN_offer_values()
{
    local typed=$1 lead=$2 entry ending
    local -a entries=() fitting=()
    case $kind in
        choice) __FN_offer "$typed" "$lead" ${choices[@]+"${choices[@]}"} ;;
        file | directory)
            compopt -o filenames 2>/dev/null
            typed=${typed#[\"\']}
            typed=${typed//\\/}
            while IFS= read -r entry; do
                if [[ -d $entry || -d ${entry/#\~/$HOME} ]]; then
                    entries+=("$entry") fitting+=("$entry")
                    continue
                fi
                entries+=("$entry")
                for ending in ${choices[@]+"${choices[@]}"}; do
                    [[ $entry == *"$ending" ]] && fitting+=("$entry")
                done
            done < <(if [[ $kind == directory ]]; then compgen -d -- "$typed"; else compgen -f -- "$typed"; fi)
            ((${#fitting[@]} && ${#choices[@]})) && entries=("${fitting[@]}")
            __FN_offer "$typed" "$lead" ${entries[@]+"${entries[@]}"}
            ;;
    esac
}

# Completes the command line that begins at $1 in COMP_WORDS, as if it stood alone.
__FN_command()
{
    local words
    unset -v words
    if declare -F _comp_command_offset >/dev/null; then
        _comp_command_offset "$1"
        return
    elif declare -F _command_offset >/dev/null; then
        _command_offset "$1"
        return
    fi
    local entry completion index before=
    if ((COMP_CWORD == $1)); then
        compopt -o filenames 2>/dev/null
        while IFS= read -r entry; do
            COMPREPLY+=("$entry")
        done < <(compgen -d -c -- "${parts[${#parts[@]} - 1]}")
        return
    fi
    completion=$(complete -p -- "${COMP_WORDS[$1]##*/}" 2>/dev/null)
    if [[ $completion != *' -F '* ]]; then
        compopt -o bashdefault -o default 2>/dev/null
        return
    fi
    completion=${completion#* -F }
    local line=$COMP_LINE
    for ((index = 0; index < $1; index++)); do
        line=${line#*"${COMP_WORDS[index]}"}
    done
    line=${line#"${line%%[![:space:]]*}"}
    local COMP_POINT=$((COMP_POINT - ${#COMP_LINE} + ${#line})) COMP_LINE=$line COMP_CWORD=$((COMP_CWORD - $1))
    local -a shifted=("${COMP_WORDS[@]:$1}")
    local -a COMP_WORDS=("${shifted[@]}")
    "${completion%% *}" "${COMP_WORDS[0]}" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
}

_FN()
{
    local path= word= kind= wraps= ended= before= next=1 last
    local -a parts=() starts=() commands=() options=() argument=() choices=()
    COMPREPLY=()
    __FN_words
    last=$((${#parts[@]} - 1))
    __FN_at "$path"
    while ((next < last)); do
        word=${parts[next]}
        ((next++))
        if [[ -z $ended && $word == -?* ]]; then
            if [[ $word == -- ]]; then
                ended=yes
            elif __FN_value "$path" "$word"; then
                if ((next == last)); then
                    __FN_offer_values "${parts[last]}" ''
                    return
                fi
                ((next++))
            fi
        elif [[ " ${commands[*]-} " == *" $word "* ]]; then
            path+=/$word
            __FN_at "$path"
        elif [[ -n $wraps ]]; then
            __FN_command "${starts[next - 1]}"
            return
        fi
    done
    word=${parts[last]}
    if [[ -z $ended && $word == --*=* ]]; then
        __FN_value "$path" "${word%%=*}" && __FN_offer_values "${word#*=}" "${word%%=*}="
    elif [[ -z $ended && $word == -* ]]; then
        __FN_offer "$word" '' ${options[@]+"${options[@]}"}
    elif [[ -n $wraps ]]; then
        __FN_command "${starts[last]}"
    elif ((${#commands[@]})); then
        __FN_offer "$word" '' "${commands[@]}"
    elif ((${#argument[@]})); then
        kind=${argument[0]} choices=("${argument[@]:1}")
        __FN_offer_values "$word" ''
    elif [[ -z $ended ]]; then
        __FN_offer "$word" '' ${options[@]+"${options[@]}"}
    fi
}

complete -F _FN PROGRAM
"""


def bash_script(program: Command) -> str:
    """Return the completion script of `program`."""
    rows = [("".join(f"/{name}" for name in path), command) for path, command in walk(program)]
    at = "\n".join(line for path, command in rows for line in _at(path, command))
    values = "\n".join(
        f"        {' | '.join(_quoted(f'{path} {name}') for name in option.names)}) {_assigned(option.value)} ;;"
        for path, command in rows
        for option in command.options
        if option.value is not None
    )
    function = program.name.replace("-", "_")
    text = _TEMPLATE.replace("FN", function).replace("PROGRAM", program.name)
    return text.replace("\nAT\n", f"\n{at}\n").replace("\nVALUES\n", f"\n{values}\n" if values else "\n")


def _at(path: str, command: Command) -> list[str]:
    lines = [f"        {_quoted(path)})"]
    if command.commands:
        lines.append(f"            commands=({_words(inner.name for inner in command.commands)})")
    lines.append(f"            options=({_words(name for option in command.options for name in option.names)})")
    if command.argument is not None:
        lines.append(f"            argument=({_words((command.argument.kind, *_candidates(command.argument)))})")
    if command.wraps:
        lines.append("            wraps=yes")
    return [*lines, "            ;;"]


def _assigned(value: Value) -> str:
    choices = _words(_candidates(value))
    return f"kind={value.kind}" + (f" choices=({choices})" if choices else "")


def _candidates(value: Value) -> tuple[str, ...]:
    return value.choices or value.endings


def _words(words: Iterable[str]) -> str:
    return " ".join(words)


def _quoted(text: str) -> str:
    return f"'{text}'"
