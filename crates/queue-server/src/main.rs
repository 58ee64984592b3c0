//! The queue server's program: arguments to [`queue_server::Config`], run, exit code.

use std::process::ExitCode;

use queue_server::{Server, args};

fn main() -> ExitCode {
    cli::exit::main(&args::APP, args::parse, |config| {
        daemon::handle_file_size_limit()?;
        let server = Server::bind(config)?;
        daemon::handle_signals(server.handle(), server.reload())?;
        server.run()
    })
}
