//! The queue server's program: arguments to [`queue_server::Config`], run, exit code.

use std::process::ExitCode;

use queue_server::{Server, args};

fn main() -> ExitCode {
    args::APP.serve(|config| daemon::run(|_| Server::bind(config)))
}
