//! The code server's program: arguments to [`code_server::Config`], run, exit code.

use std::process::ExitCode;

use code_server::{Server, args};
use daemon::Signals;

fn main() -> ExitCode {
    args::APP.serve(|config| {
        let signals = Signals::handle()?;
        let server = Server::bind(config)?;
        signals.serve(server.handle(), server.reload());
        server.run()
    })
}
