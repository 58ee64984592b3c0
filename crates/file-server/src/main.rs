//! The file server's program: arguments to [`file_server::Config`], run, exit code.

use std::process::ExitCode;

use file_server::{Server, args};

fn main() -> ExitCode {
    cli::exit::main(&args::APP, args::parse, |config| {
        daemon::handle_file_size_limit()?;
        let server = Server::bind(config)?;
        daemon::handle_signals(server.handle(), server.reload())?;
        server.run()
    })
}
