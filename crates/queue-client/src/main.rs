//! The queue client's program: arguments to [`queue_client::Config`], run, exit code.

use std::process::ExitCode;

use queue_client::args;

fn main() -> ExitCode {
    cli::exit::main(&args::APP, args::parse, queue_client::run)
}
