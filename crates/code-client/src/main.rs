//! The code client's program: arguments to [`code_client::Config`], run, exit code.

use std::process::ExitCode;

use code_client::args;

fn main() -> ExitCode {
    args::APP.main(code_client::run)
}
