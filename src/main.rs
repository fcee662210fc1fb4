//! The fleetmint command. All of it is in the library's `cli`.

fn main() -> std::process::ExitCode {
    fleetmint::cli::main().into()
}
