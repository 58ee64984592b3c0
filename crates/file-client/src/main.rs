//! The file client's program: arguments to [`file_client::Config`], run, exit code.

use std::process::ExitCode;

use file_client::args;

fn main() -> ExitCode {
    cli::exit::main(&args::APP, args::parse, file_client::run)
}
