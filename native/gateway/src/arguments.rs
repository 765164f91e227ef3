//! The command line of `aasm`: what it takes, its help, and its completions.

use std::path::PathBuf;

use aasm_wire::terms::EnforcementMode;
use clap::{Args, Command, CommandFactory, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::aot::{Bash, Fish, Zsh, generate};

const EXAMPLES: &str = "\
Examples:
  aasm start                        start this user's gateway, unless it runs already
  aasm start --policy policy.yaml   the same, under a policy of yours
  aasm status                       where it listens, and which policy holds
  aasm audit verify                 whether anyone has changed the audit log
  aasm stop

`aasm-run python agent.py` runs a program under governance, and starts the gateway by itself;
`aasm-py audit list` shows what agents called and what was decided.";

const START_EXAMPLES: &str = "\
Examples:
  aasm start                              with the policies of ~/.aasm/policies, if there are any
  aasm start --policy policy.yaml         with this policy for every run
  aasm start --min-enforcement enforce    no run may merely observe
  aasm start --foreground                 for service managers and containers; Ctrl-C ends it

What was given with --policy and --min-enforcement holds until `aasm stop`, also after a crash.";

const STATUS_EXAMPLES: &str = "\
Examples:
  aasm status
  aasm status --json
  aasm status >/dev/null || aasm start";

const VERIFY_EXAMPLES: &str = "\
Examples:
  aasm audit verify
  aasm audit verify --json
  aasm audit verify --home /backup/.aasm    a copy, on another machine";

/// The gateway of Agent Assembly: decides what agents may call, and keeps the audit log
#[derive(Parser)]
#[command(name = "aasm", version, propagate_version = false, max_term_width = 100, after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Task,
}

#[derive(Args)]
pub struct HomeArgument {
    /// Where everything is kept [default: $AASM_HOME, else ~/.aasm]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub home: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Mode {
    Local,
    #[value(hide = true)]
    Remote,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Minimum {
    Enforce,
    Observe,
    Disabled,
}

impl From<Minimum> for EnforcementMode {
    fn from(minimum: Minimum) -> Self {
        match minimum {
            Minimum::Enforce => Self::Enforce,
            Minimum::Observe => Self::Observe,
            Minimum::Disabled => Self::Disabled,
        }
    }
}

/// A shell that completions are made for.
#[derive(Clone, Copy, ValueEnum)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Subcommand)]
pub enum Task {
    /// Start the gateway, or find the one that runs
    #[command(after_help = START_EXAMPLES)]
    Start {
        #[command(flatten)]
        home: HomeArgument,
        /// Whom it serves: local is this machine, on loopback
        #[arg(long, value_enum, default_value = "local", hide_possible_values = true)]
        mode: Mode,
        /// Stay in the foreground; a terminal shows the log, too
        #[arg(long)]
        foreground: bool,
        /// The port to listen on; 0 picks a free one [default: $AASM_GATEWAY_PORT, else 7391]
        #[arg(long)]
        port: Option<u16>,
        /// A policy, or a directory of them [default: policies/ in the home, else the built-in starter]
        #[arg(long, value_name = "FILE|DIR", value_hint = ValueHint::AnyPath)]
        policy: Option<PathBuf>,
        /// The least strict enforcement that a run may choose [default: disabled]
        #[arg(long, value_enum, value_name = "MODE")]
        min_enforcement: Option<Minimum>,
        /// Used by `aasm start` itself
        #[arg(long, hide = true, requires = "foreground")]
        detached: bool,
    },
    /// Stop the gateway, once it has finished what it is doing
    Stop {
        #[command(flatten)]
        home: HomeArgument,
    },
    /// Show where the gateway runs and which policy holds; exits with 3 when none runs
    #[command(after_help = STATUS_EXAMPLES)]
    Status {
        #[command(flatten)]
        home: HomeArgument,
        /// Print one JSON object, for programs
        #[arg(long)]
        json: bool,
    },
    /// Check the audit log
    Audit {
        #[command(subcommand)]
        task: AuditTask,
    },
    /// Print the script that completes `aasm` in a shell
    #[command(hide = true)]
    Completions { shell: Shell },
    /// Print the version
    Version,
}

#[derive(Subcommand)]
pub enum AuditTask {
    /// Read the whole audit log and name what was changed, reordered, cut off or is missing; exits with 1 then
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify {
        #[command(flatten)]
        home: HomeArgument,
        /// Print one JSON object, for programs
        #[arg(long)]
        json: bool,
    },
}

/// The script that completes `aasm` in `shell`.
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut command = shown(&Arguments::command());
    let mut script = Vec::new();
    match shell {
        Shell::Bash => generate(Bash, &mut command, "aasm", &mut script),
        Shell::Zsh => generate(Zsh, &mut command, "aasm", &mut script),
        Shell::Fish => generate(Fish, &mut command, "aasm", &mut script),
    }
    script
}

/// The command without what its help hides: the generators do not look at that.
fn shown(command: &Command) -> Command {
    let mut copy = Command::new(command.get_name().to_owned()).disable_help_subcommand(true);
    if let Some(version) = command.get_version() {
        copy = copy.version(version.to_owned());
    }
    if let Some(about) = command.get_about() {
        copy = copy.about(about.clone());
    }
    copy.args(command.get_arguments().filter(|argument| !argument.is_hide_set()).cloned())
        .subcommands(command.get_subcommands().filter(|command| !command.is_hide_set()).map(shown))
}
