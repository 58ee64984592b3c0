//! The code server's program: arguments to [`code_server::Config`], run, exit code.

use std::process::ExitCode;

use code_server::{Server, args};

fn main() -> ExitCode {
    args::APP.serve(|config| daemon::run(|standby| Server::bind(config, standby)))
}
