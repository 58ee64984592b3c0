//! The end-to-end tests: every server and client as the program that is shipped, over real
//! sockets on loopback, with real files.

#![allow(clippy::unwrap_used)]

mod accounts;
mod behind_a_proxy;
mod browser;
mod busy;
mod code;
mod command_lines;
mod demo;
mod doors;
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
mod http;
mod interrupted_uploads;
mod limits;
mod lists;
mod logins;
mod logs;
mod long_history;
mod malformed_replies;
mod malformed_requests;
mod memory;
mod metrics;
mod other_clients;
mod other_origins;
mod other_servers;
mod pending_replies;
mod planted;
mod programs;
mod queue;
mod readme;
mod refusals;
mod resumable;
mod roots;
mod streams;
mod style;
mod system;
mod torture;
mod udp;
mod udp_reply_size;
mod upload_records;
mod verbs;
mod work;
mod workers;
