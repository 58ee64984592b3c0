//! The file client's program: arguments to [`file_client::Config`], run, exit code.

use std::process::ExitCode;

use file_client::args;

fn main() -> ExitCode {
    args::APP.main(file_client::run)
}
