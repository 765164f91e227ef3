# Completes aasm-run in fish. Written by `make completions`; changes here are lost.

# Prints the commands named so far, as one path; then the words of the wrapped command, if it began.
function __aasm_run_look
    set -l words (commandline -opc) (commandline -ct)
    set -e words[1]
    set -l path ''
    set -l ended no
    while set -q words[2]
        set -l word $words[1]
        if test $ended = no; and string match -qr -- '^-.' $word
            if test "x$word" = x--
                set ended yes
            else if contains -- "$path $word" ' --policy' ' --gateway-url' ' --api-key' ' --agent-id' ' --mode' ' --enforcement-mode' ' --on-deny' ' --team-id' ' --parent-agent-id' ' --delegation-reason' ' --spawned-by-tool' ' --depth' ' --home' ' --gateway-port' ' --children' ' --check-timeout' ' --bundle-max-age' ' --max-arguments-bytes' ' --spool-max-bytes'
                set -e words[1]
            end
        else if contains -- "$path/$word" 
            set path $path/$word
        else if contains -- "$path" ''
            break
        end
        set -e words[1]
    end
    echo $path/
    contains -- "$path" ''; and set -q words[1]; or return 0
    set -q words[2]; or test $ended = yes; or not string match -q -- '-*' $words[1]; or return 0
    string join \n -- $words
end

# Whether the commands named so far are $argv, and no wrapped command began.
function __aasm_run_at
    set -l look (__aasm_run_look)
    test "$look[1]" = "$argv[1]"; and not set -q look[2]
end

function __aasm_run_in_command
    set -l look (__aasm_run_look)
    set -q look[2]
end

# Completes the wrapped command as if it stood alone.
function __aasm_run_command
    set -l look (__aasm_run_look)
    set -e look[1]
    set -l last $look[-1]
    set -e look[-1]
    set -l line (string join ' ' -- (string escape -- $look) $last)
    # A word of its own would be taken for an option where it looks like one.
    complete "--do-complete=$line"
end

# Files that end in one of $argv, and directories; all files where there are neither.
function __aasm_run_files
    set -l typed (string replace -r -- '^--[a-z-]+=' '' (commandline -ct))
    set -l files (complete "--do-complete='' $typed")
    set -l endings (string escape --style=regex -- $argv | string join '|')
    set -l fitting (string match -r -- "^[^\\t]*(?:/|$endings)(?:\\t.*)?\$" $files)
    set -q fitting[1]; or set fitting $files
    printf '%s\n' $fitting
end

complete -c aasm-run -f
complete -c aasm-run -n '__aasm_run_at /' -l policy -r -f -a '(__aasm_run_files .yaml .yml)' -d 'A policy for this run, in addition to the gateway\'s'
complete -c aasm-run -n '__aasm_run_at /' -l no-start -d 'Do not start a gateway when none is found'
complete -c aasm-run -n '__aasm_run_at /' -l allow-ungoverned -d 'Run also a program that cannot be governed'
complete -c aasm-run -n '__aasm_run_at /' -l quiet -s q -d 'Say nothing but why something is refused'
complete -c aasm-run -n '__aasm_run_at /' -l explain -d 'Show what would be done, and do nothing'
complete -c aasm-run -n '__aasm_run_at /' -l json -d 'With --explain: print JSON, for programs'
complete -c aasm-run -n '__aasm_run_at /' -l help -s h -d 'Show this text'
complete -c aasm-run -n '__aasm_run_at /' -l version -s V -d 'Show the version'
complete -c aasm-run -n '__aasm_run_at /' -l gateway-url -r -f -d 'Base URL of the gateway; without it the local one is found or started'
complete -c aasm-run -n '__aasm_run_at /' -l api-key -r -f -d 'Key that a remote gateway asks for'
complete -c aasm-run -n '__aasm_run_at /' -l agent-id -r -f -d 'Identity of this agent in registry and audit log'
complete -c aasm-run -n '__aasm_run_at /' -l mode -r -f -a 'auto ebpf proxy sdk-only' -d 'Where policy is enforced'
complete -c aasm-run -n '__aasm_run_at /' -l enforcement-mode -r -f -a 'enforce observe disabled' -d 'How hard a denial bites; unset leaves it to the gateway, which enforces'
complete -c aasm-run -n '__aasm_run_at /' -l on-deny -r -f -a 'raise refuse' -d 'What a denied call does: raise an exception, or give the model a refusal to work with'
complete -c aasm-run -n '__aasm_run_at /' -l team-id -r -f -d 'Team of the agent, for the scope of policies'
complete -c aasm-run -n '__aasm_run_at /' -l parent-agent-id -r -f -d 'Agent that spawned this one'
complete -c aasm-run -n '__aasm_run_at /' -l delegation-reason -r -f -d 'Why this agent was spawned (256 characters)'
complete -c aasm-run -n '__aasm_run_at /' -l spawned-by-tool -r -f -d 'Tool that spawned this agent'
complete -c aasm-run -n '__aasm_run_at /' -l depth -r -f -d 'How many agents stand above this one'
complete -c aasm-run -n '__aasm_run_at /' -l home -r -f -a '(__fish_complete_directories)' -d 'Directory of configuration, secret, spool and audit log (default ~/.aasm)'
complete -c aasm-run -n '__aasm_run_at /' -l gateway-port -r -f -d 'Port of the local gateway'
complete -c aasm-run -n '__aasm_run_at /' -l children -r -f -a 'inherit strict off' -d 'What becomes of child processes: governed where they can be, refused where not, or left alone'
complete -c aasm-run -n '__aasm_run_at /' -l check-timeout -r -f -d 'Seconds to wait for a verdict'
complete -c aasm-run -n '__aasm_run_at /' -l bundle-max-age -r -f -d 'Seconds for which a policy fetched earlier may still decide when the gateway is gone'
complete -c aasm-run -n '__aasm_run_at /' -l max-arguments-bytes -r -f -d 'Size of a call\'s arguments in canonical form beyond which it is denied'
complete -c aasm-run -n '__aasm_run_at /' -l spool-max-bytes -r -f -d 'Disk space for records that the gateway has not taken yet'
complete -c aasm-run -n __aasm_run_in_command -a '(__aasm_run_command)'
