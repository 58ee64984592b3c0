//! The history client's program: arguments to [`history_client::Config`], run, exit code.

use std::process::ExitCode;

use history_client::args;

fn main() -> ExitCode {
    args::APP.main(history_client::run)
}
