//! The history server's program: arguments to [`history_server::Config`], run, exit code.

use std::process::ExitCode;

use history_server::{Server, args};

fn main() -> ExitCode {
    args::APP.serve(|config| daemon::run(|standby| Server::bind(config, standby)))
}
