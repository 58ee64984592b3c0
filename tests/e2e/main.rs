//! The end-to-end tests: every server and client as the program that is shipped, over real
//! sockets on loopback, with real files.

#![allow(clippy::unwrap_used)]

mod accounts;
mod afar;
mod begun;
mod behind_a_proxy;
mod browser;
mod busy;
mod code;
mod cuts;
mod deferred;
mod demo;
mod downloads;
mod escape;
mod eviction;
mod faults;
mod file;
mod file_client;
mod file_digest;
mod file_finished;
mod file_resume;
mod file_words;
mod forms;
mod harness;
mod history;
mod hostile;
mod http;
mod limits;
mod lists;
mod logs;
mod long_history;
mod lying;
mod memory;
mod others;
mod planted;
mod programs;
mod queue;
mod readme;
mod refused;
mod resume;
mod roots;
mod strangers;
mod streams;
mod style;
mod torture;
mod udp;
mod verbs;
mod words;
mod work;
mod workers;
