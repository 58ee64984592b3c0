//! The end-to-end tests: every server and client as the program that is shipped, over real
//! sockets on loopback, with real files.

#![allow(clippy::unwrap_used)]

mod code;
mod crash;
mod faults;
mod file;
mod file_client;
mod file_resume;
mod harness;
mod history;
mod hostile;
mod limits;
mod programs;
mod queue;
mod udp;
mod verbs;
mod work;
