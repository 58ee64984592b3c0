//! The file server's program: arguments to [`file_server::Config`], run, exit code.

use std::process::ExitCode;

use file_server::{Server, args};

fn main() -> ExitCode {
    args::APP.serve(|config| daemon::run(|_| Server::bind(config)))
}
