//! The queue client's program: arguments to [`queue_client::Config`], run, exit code.

use std::process::ExitCode;

use queue_client::args;

fn main() -> ExitCode {
    if let Some(exit) = queue_client::guard(std::env::args_os()) {
        return exit;
    }
    args::APP.main(queue_client::run)
}
