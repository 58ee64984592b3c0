//! The code server's program: arguments to [`code_server::Config`], run, exit code.

use std::process::ExitCode;

use code_server::{Server, args};
use daemon::{Signals, StartError};

fn main() -> ExitCode {
    args::APP.main(args::parse, |config| {
        cli::logger::write_in_background().map_err(StartError::Thread)?;
        let signals = Signals::handle()?;
        let server = Server::bind(config)?;
        signals.serve(server.handle(), server.reload());
        server.run()
    })
}
