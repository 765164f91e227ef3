# Completes aasm-py in fish. Written by `make completions`; changes here are lost.

# Prints the commands named so far, as one path; then the words of the wrapped command, if it began.
function __aasm_py_look
    set -l words (commandline -opc) (commandline -ct)
    set -e words[1]
    set -l path ''
    set -l ended no
    while set -q words[2]
        set -l word $words[1]
        if test $ended = no; and string match -qr -- '^-.' $word
            if test "x$word" = x--
                set ended yes
            else if contains -- "$path $word" '/explain --policy' '/explain --gateway-url' '/explain --api-key' '/explain --agent-id' '/explain --mode' '/explain --enforcement-mode' '/explain --on-deny' '/explain --team-id' '/explain --parent-agent-id' '/explain --delegation-reason' '/explain --spawned-by-tool' '/explain --depth' '/explain --home' '/explain --gateway-port' '/explain --children' '/explain --check-timeout' '/explain --bundle-max-age' '/explain --max-arguments-bytes' '/explain --spool-max-bytes' '/doctor --report' '/audit/list --agent' '/audit/list --tool' '/audit/list --decision' '/audit/list --run' '/audit/list --since' '/audit/list --limit' '/audit/count --agent' '/audit/count --tool' '/audit/count --decision' '/audit/count --run' '/audit/count --since' '/audit/tail --agent' '/audit/tail --tool' '/audit/tail --decision' '/audit/tail --run' '/audit/tail --since' '/audit/tail --limit' '/gateway/start --policy' '/gateway/start --port' '/gateway/start --min-enforcement'
                set -e words[1]
            end
        else if contains -- "$path/$word" '/agents' '/runs' '/explain' '/doctor' '/completions' '/audit' '/audit/list' '/audit/count' '/audit/tail' '/audit/verify' '/gateway' '/gateway/start' '/gateway/stop' '/gateway/status'
            set path $path/$word
        else if contains -- "$path" '/explain' '/doctor'
            break
        end
        set -e words[1]
    end
    echo $path/
    contains -- "$path" '/explain' '/doctor'; and set -q words[1]; or return 0
    set -q words[2]; or test $ended = yes; or not string match -q -- '-*' $words[1]; or return 0
    string join \n -- $words
end

# Whether the commands named so far are $argv, and no wrapped command began.
function __aasm_py_at
    set -l look (__aasm_py_look)
    test "$look[1]" = "$argv[1]"; and not set -q look[2]
end

function __aasm_py_in_command
    set -l look (__aasm_py_look)
    set -q look[2]
end

# Completes the wrapped command as if it stood alone.
function __aasm_py_command
    set -l look (__aasm_py_look)
    set -e look[1]
    set -l last $look[-1]
    set -e look[-1]
    set -l line (string join ' ' -- (string escape -- $look) $last)
    # A word of its own would be taken for an option where it looks like one.
    complete "--do-complete=$line"
end

# Files that end in one of $argv, and directories; all files where there are neither.
function __aasm_py_files
    set -l typed (string replace -r -- '^--[a-z-]+=' '' (commandline -ct))
    set -l files (complete "--do-complete='' $typed")
    set -l endings (string escape --style=regex -- $argv | string join '|')
    set -l fitting (string match -r -- "^[^\\t]*(?:/|$endings)(?:\\t.*)?\$" $files)
    set -q fitting[1]; or set fitting $files
    printf '%s\n' $fitting
end

complete -c aasm-py -f
complete -c aasm-py -n '__aasm_py_at /' -a 'agents' -d 'List the agents: each process that registered, whether it still runs, and in which run'
complete -c aasm-py -n '__aasm_py_at /' -a 'runs' -d 'List the runs: what each aasm-run started, and how many processes of it checked in'
complete -c aasm-py -n '__aasm_py_at /' -a 'explain' -d 'Show what aasm-run would do with a command, and run nothing'
complete -c aasm-py -n '__aasm_py_at /' -a 'doctor' -d 'Say in one table what works, what does not, and what to type; with -- COMMAND also for that program'
complete -c aasm-py -n '__aasm_py_at /' -a 'completions' -d 'Let TAB complete aasm, aasm-py and aasm-run in your shell'
complete -c aasm-py -n '__aasm_py_at /' -a 'audit' -d 'The audit log: every tool call, with its verdict and outcome'
complete -c aasm-py -n '__aasm_py_at /' -a 'gateway' -d 'The local gateway: it decides about calls, and keeps the audit log'
complete -c aasm-py -n '__aasm_py_at /' -l version -s V -d 'Print the version'
complete -c aasm-py -n '__aasm_py_at /' -l help -s h -d 'Show what it does and takes'
complete -c aasm-py -n '__aasm_py_at /agents/' -l json -d 'Print JSON, for programs'
complete -c aasm-py -n '__aasm_py_at /agents/' -l help -s h -d 'Show what it does and takes'
complete -c aasm-py -n '__aasm_py_at /runs/' -l json -d 'Print JSON, for programs'
complete -c aasm-py -n '__aasm_py_at /runs/' -l help -s h -d 'Show what it does and takes'
complete -c aasm-py -n '__aasm_py_at /explain/' -l json -d 'Print JSON, for programs'
complete -c aasm-py -n '__aasm_py_at /explain/' -l help -s h -d 'Show what it does and takes'
complete -c aasm-py -n '__aasm_py_at /explain/' -l policy -r -f -a '(__aasm_py_files .yaml .yml)' -d 'A policy for this run, in addition to the gateway\'s'
complete -c aasm-py -n '__aasm_py_at /explain/' -l no-start -d 'Do not start a gateway when none is found'
complete -c aasm-py -n '__aasm_py_at /explain/' -l allow-ungoverned -d 'Run also a program that cannot be governed'
complete -c aasm-py -n '__aasm_py_at /explain/' -l quiet -s q -d 'Say nothing but why something is refused'
complete -c aasm-py -n '__aasm_py_at /explain/' -l gateway-url -r -f -d 'Base URL of the gateway; without it the local one is found or started'
complete -c aasm-py -n '__aasm_py_at /explain/' -l api-key -r -f -d 'Key that a remote gateway asks for'
complete -c aasm-py -n '__aasm_py_at /explain/' -l agent-id -r -f -d 'Identity of this agent in registry and audit log'
complete -c aasm-py -n '__aasm_py_at /explain/' -l mode -r -f -a 'auto ebpf proxy sdk-only' -d 'Where policy is enforced'
complete -c aasm-py -n '__aasm_py_at /explain/' -l enforcement-mode -r -f -a 'enforce observe disabled' -d 'How hard a denial bites; unset leaves it to the gateway, which enforces'
complete -c aasm-py -n '__aasm_py_at /explain/' -l on-deny -r -f -a 'raise refuse' -d 'What a denied call does: raise an exception, or give the model a refusal to work with'
complete -c aasm-py -n '__aasm_py_at /explain/' -l team-id -r -f -d 'Team of the agent, for the scope of policies'
complete -c aasm-py -n '__aasm_py_at /explain/' -l parent-agent-id -r -f -d 'Agent that spawned this one'
complete -c aasm-py -n '__aasm_py_at /explain/' -l delegation-reason -r -f -d 'Why this agent was spawned (256 characters)'
complete -c aasm-py -n '__aasm_py_at /explain/' -l spawned-by-tool -r -f -d 'Tool that spawned this agent'
complete -c aasm-py -n '__aasm_py_at /explain/' -l depth -r -f -d 'How many agents stand above this one'
complete -c aasm-py -n '__aasm_py_at /explain/' -l home -r -f -a '(__fish_complete_directories)' -d 'Directory of configuration, secret, spool and audit log (default ~/.aasm)'
complete -c aasm-py -n '__aasm_py_at /explain/' -l gateway-port -r -f -d 'Port of the local gateway'
complete -c aasm-py -n '__aasm_py_at /explain/' -l children -r -f -a 'inherit strict off' -d 'What becomes of child processes: governed where they can be, refused where not, or left alone'
complete -c aasm-py -n '__aasm_py_at /explain/' -l check-timeout -r -f -d 'Seconds to wait for a verdict'
complete -c aasm-py -n '__aasm_py_at /explain/' -l bundle-max-age -r -f -d 'Seconds for which a policy fetched earlier may still decide when the gateway is gone'
complete -c aasm-py -n '__aasm_py_at /explain/' -l max-arguments-bytes -r -f -d 'Size of a call\'s arguments in canonical form beyond which it is denied'
complete -c aasm-py -n '__aasm_py_at /explain/' -l spool-max-bytes -r -f -d 'Disk space for records that the gateway has not taken yet'
complete -c aasm-py -n '__aasm_py_at /doctor/' -l json -d 'Print JSON, for programs'
complete -c aasm-py -n '__aasm_py_at /doctor/' -l fix -d 'Repair first what can safely be repaired'
complete -c aasm-py -n '__aasm_py_at /doctor/' -l report -r -F -d 'Write a support bundle (.zip or .tar.gz)'
complete -c aasm-py -n '__aasm_py_at /doctor/' -l help -s h -d 'Show what it does and takes'
complete -c aasm-py -n '__aasm_py_at /completions/' -f -a 'bash zsh fish'
complete -c aasm-py -n '__aasm_py_at /completions/' -l help -s h -d 'Show what it does and takes'
complete -c aasm-py -n '__aasm_py_at /audit/' -a 'list' -d 'List the latest calls, oldest first'
complete -c aasm-py -n '__aasm_py_at /audit/' -a 'count' -d 'Count calls'
complete -c aasm-py -n '__aasm_py_at /audit/' -a 'tail' -d 'Print calls as they come, until Ctrl-C'
complete -c aasm-py -n '__aasm_py_at /audit/' -a 'verify' -d 'Check the whole log, and name what was changed, is missing, reordered or cut off'
complete -c aasm-py -n '__aasm_py_at /audit/' -l help -s h -d 'Show what it does and takes'
complete -c aasm-py -n '__aasm_py_at /audit/list/' -l agent -r -f -d 'Only calls of this agent'
complete -c aasm-py -n '__aasm_py_at /audit/list/' -l tool -r -f -d 'Only calls of this tool'
complete -c aasm-py -n '__aasm_py_at /audit/list/' -l decision -r -f -a 'allow deny redact approve' -d 'Only calls with this decision'
complete -c aasm-py -n '__aasm_py_at /audit/list/' -l run -r -f -d 'Only calls of this run'
complete -c aasm-py -n '__aasm_py_at /audit/list/' -l since -r -f -d 'Only calls since then: 30s, 10m, 2h, 1d or 1w ago, or a time like 2026-01-31T08:00:00Z'
complete -c aasm-py -n '__aasm_py_at /audit/list/' -l limit -r -f -d 'At most the latest N; 0 for all'
complete -c aasm-py -n '__aasm_py_at /audit/list/' -l json -d 'Print JSON, for programs'
complete -c aasm-py -n '__aasm_py_at /audit/list/' -l help -s h -d 'Show what it does and takes'
complete -c aasm-py -n '__aasm_py_at /audit/count/' -l agent -r -f -d 'Only calls of this agent'
complete -c aasm-py -n '__aasm_py_at /audit/count/' -l tool -r -f -d 'Only calls of this tool'
complete -c aasm-py -n '__aasm_py_at /audit/count/' -l decision -r -f -a 'allow deny redact approve' -d 'Only calls with this decision'
complete -c aasm-py -n '__aasm_py_at /audit/count/' -l run -r -f -d 'Only calls of this run'
complete -c aasm-py -n '__aasm_py_at /audit/count/' -l since -r -f -d 'Only calls since then: 30s, 10m, 2h, 1d or 1w ago, or a time like 2026-01-31T08:00:00Z'
complete -c aasm-py -n '__aasm_py_at /audit/count/' -l json -d 'Print JSON, for programs'
complete -c aasm-py -n '__aasm_py_at /audit/count/' -l help -s h -d 'Show what it does and takes'
complete -c aasm-py -n '__aasm_py_at /audit/tail/' -l agent -r -f -d 'Only calls of this agent'
complete -c aasm-py -n '__aasm_py_at /audit/tail/' -l tool -r -f -d 'Only calls of this tool'
complete -c aasm-py -n '__aasm_py_at /audit/tail/' -l decision -r -f -a 'allow deny redact approve' -d 'Only calls with this decision'
complete -c aasm-py -n '__aasm_py_at /audit/tail/' -l run -r -f -d 'Only calls of this run'
complete -c aasm-py -n '__aasm_py_at /audit/tail/' -l since -r -f -d 'Only calls since then: 30s, 10m, 2h, 1d or 1w ago, or a time like 2026-01-31T08:00:00Z'
complete -c aasm-py -n '__aasm_py_at /audit/tail/' -l limit -r -f -d 'Begin with the latest N; 0 for none'
complete -c aasm-py -n '__aasm_py_at /audit/tail/' -l json -d 'Print JSON, for programs'
complete -c aasm-py -n '__aasm_py_at /audit/tail/' -l help -s h -d 'Show what it does and takes'
complete -c aasm-py -n '__aasm_py_at /audit/verify/' -l json -d 'Print JSON, for programs'
complete -c aasm-py -n '__aasm_py_at /audit/verify/' -l help -s h -d 'Show what it does and takes'
complete -c aasm-py -n '__aasm_py_at /gateway/' -a 'start' -d 'Start the local gateway, or find the one that runs'
complete -c aasm-py -n '__aasm_py_at /gateway/' -a 'stop' -d 'Stop the local gateway, once it has finished what it is doing'
complete -c aasm-py -n '__aasm_py_at /gateway/' -a 'status' -d 'Say whether the local gateway runs, where, and under which policy; exit code 3 when it does not'
complete -c aasm-py -n '__aasm_py_at /gateway/' -l help -s h -d 'Show what it does and takes'
complete -c aasm-py -n '__aasm_py_at /gateway/start/' -l policy -r -F -d 'A policy, or a directory of them'
complete -c aasm-py -n '__aasm_py_at /gateway/start/' -l port -r -f -d 'The port to listen on; 0 picks a free one'
complete -c aasm-py -n '__aasm_py_at /gateway/start/' -l min-enforcement -r -f -a 'enforce observe disabled' -d 'What agents are held to at least'
complete -c aasm-py -n '__aasm_py_at /gateway/start/' -l foreground -d 'Stay in the foreground, until Ctrl-C'
complete -c aasm-py -n '__aasm_py_at /gateway/start/' -l help -s h -d 'Show what it does and takes'
complete -c aasm-py -n '__aasm_py_at /gateway/stop/' -l help -s h -d 'Show what it does and takes'
complete -c aasm-py -n '__aasm_py_at /gateway/status/' -l json -d 'Print JSON, for programs'
complete -c aasm-py -n '__aasm_py_at /gateway/status/' -l help -s h -d 'Show what it does and takes'
complete -c aasm-py -n __aasm_py_in_command -a '(__aasm_py_command)'
