//! The file server's program: arguments to [`file_server::Config`], run, exit code.

use std::process::ExitCode;

use daemon::Signals;
use file_server::{Server, args};

fn main() -> ExitCode {
    args::APP.serve(|config| {
        let signals = Signals::handle()?;
        let server = Server::bind(config)?;
        signals.serve(server.handle(), server.reload());
        server.run()
    })
}
