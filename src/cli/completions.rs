//! `fleetmint completions`: shell completions.

use clap::Command;
use clap_complete::{Shell, generate};

use super::exit::{Exit, Fatal};
use super::speech::print;

const PLACES: &str = "\
Where they go:
  bash        fleetmint completions bash > ~/.local/share/bash-completion/completions/fleetmint
  zsh         fleetmint completions zsh > DIR/_fleetmint, in a DIR of $fpath
  fish        fleetmint completions fish > ~/.config/fish/completions/fleetmint.fish
  powershell  fleetmint completions powershell >> $PROFILE";

/// Print shell completions.
#[derive(Debug, clap::Args)]
#[command(after_help = PLACES)]
pub(super) struct CompletionsArgs {
    /// Which shell.
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs, mut command: Command) -> Result<Exit, Fatal> {
    let mut script = Vec::new();
    generate(args.shell, &mut command, "fleetmint", &mut script);
    print(&String::from_utf8_lossy(&script));
    Ok(Exit::Complete)
}
