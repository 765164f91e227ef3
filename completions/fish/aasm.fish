# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_aasm_global_optspecs
    string join \n h/help V/version
end

function __fish_aasm_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_aasm_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_aasm_using_subcommand
    set -l cmd (__fish_aasm_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c aasm -n "__fish_aasm_needs_command" -s h -l help -d 'Print help'
complete -c aasm -n "__fish_aasm_needs_command" -s V -l version -d 'Print version'
complete -c aasm -n "__fish_aasm_needs_command" -f -a "start" -d 'Start the gateway, or find the one that runs'
complete -c aasm -n "__fish_aasm_needs_command" -f -a "stop" -d 'Stop the gateway, once it has finished what it is doing'
complete -c aasm -n "__fish_aasm_needs_command" -f -a "status" -d 'Show where the gateway runs and which policy holds; exits with 3 when none runs'
complete -c aasm -n "__fish_aasm_needs_command" -f -a "audit" -d 'Check the audit log'
complete -c aasm -n "__fish_aasm_needs_command" -f -a "version" -d 'Print the version'
complete -c aasm -n "__fish_aasm_using_subcommand start" -l home -d 'Where everything is kept [default: $AASM_HOME, else ~/.aasm]' -r -f -a "(__fish_complete_directories)"
complete -c aasm -n "__fish_aasm_using_subcommand start" -l mode -d 'Whom it serves: local is this machine, on loopback' -r -f -a "local\t''"
complete -c aasm -n "__fish_aasm_using_subcommand start" -l port -d 'The port to listen on; 0 picks a free one [default: $AASM_GATEWAY_PORT, else 7391]' -r
complete -c aasm -n "__fish_aasm_using_subcommand start" -l policy -d 'A policy, or a directory of them [default: policies/ in the home, else the built-in starter]' -r -F
complete -c aasm -n "__fish_aasm_using_subcommand start" -l min-enforcement -d 'The least strict enforcement that a run may choose [default: disabled]' -r -f -a "enforce\t''
observe\t''
disabled\t''"
complete -c aasm -n "__fish_aasm_using_subcommand start" -l foreground -d 'Stay in the foreground; a terminal shows the log, too'
complete -c aasm -n "__fish_aasm_using_subcommand start" -s h -l help -d 'Print help'
complete -c aasm -n "__fish_aasm_using_subcommand stop" -l home -d 'Where everything is kept [default: $AASM_HOME, else ~/.aasm]' -r -f -a "(__fish_complete_directories)"
complete -c aasm -n "__fish_aasm_using_subcommand stop" -s h -l help -d 'Print help'
complete -c aasm -n "__fish_aasm_using_subcommand status" -l home -d 'Where everything is kept [default: $AASM_HOME, else ~/.aasm]' -r -f -a "(__fish_complete_directories)"
complete -c aasm -n "__fish_aasm_using_subcommand status" -l json -d 'Print one JSON object, for programs'
complete -c aasm -n "__fish_aasm_using_subcommand status" -s h -l help -d 'Print help'
complete -c aasm -n "__fish_aasm_using_subcommand audit; and not __fish_seen_subcommand_from verify" -s h -l help -d 'Print help'
complete -c aasm -n "__fish_aasm_using_subcommand audit; and not __fish_seen_subcommand_from verify" -f -a "verify" -d 'Read the whole audit log and name what was changed, reordered, cut off or is missing; exits with 1 then'
complete -c aasm -n "__fish_aasm_using_subcommand audit; and __fish_seen_subcommand_from verify" -l home -d 'Where everything is kept [default: $AASM_HOME, else ~/.aasm]' -r -f -a "(__fish_complete_directories)"
complete -c aasm -n "__fish_aasm_using_subcommand audit; and __fish_seen_subcommand_from verify" -l json -d 'Print one JSON object, for programs'
complete -c aasm -n "__fish_aasm_using_subcommand audit; and __fish_seen_subcommand_from verify" -s h -l help -d 'Print help'
complete -c aasm -n "__fish_aasm_using_subcommand version" -s h -l help -d 'Print help'
