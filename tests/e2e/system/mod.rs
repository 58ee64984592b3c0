//! A place in the system: what a service manager is told, completions and manual pages.

mod completions;
mod generated;
mod help;
mod install;
mod manual;
mod notifications;
mod shells;

/// Each of the programs.
const PROGRAMS: [&str; 8] = [
    "code-client",
    "code-server",
    "file-client",
    "file-server",
    "history-client",
    "history-server",
    "queue-client",
    "queue-server",
];
