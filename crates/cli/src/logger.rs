//! The logger of all eight binaries: one line an event, on standard error.

use std::io::Write;
use std::panic;
use std::thread;

use log::LevelFilter;

/// Starts the logger; `RUST_LOG` overrides the level. A line reads
/// `2026-11-20 17:37:53.230 [INFO] [main] Server started on 127.0.0.1:55556`, with the local time
/// and the thread's name. A panic is logged the same way, as an error.
pub fn init(verbose: bool) {
    let level = if verbose {
        LevelFilter::Debug
    } else {
        LevelFilter::Info
    };
    env_logger::Builder::new()
        .filter_level(level)
        .parse_default_env()
        .format(|out, record| {
            let thread = thread::current();
            writeln!(
                out,
                "{} [{}] [{}] {}",
                jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S%.3f"),
                record.level(),
                thread.name().unwrap_or("-"),
                record.args()
            )
        })
        .init();
    panic::set_hook(Box::new(|info| log::error!("{info}")));
}
