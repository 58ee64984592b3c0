//! PostgreSQL, as Debian has it: servers of a test's own, pairs of them with synchronous replication, and a
//! pair that all tests of a run share, in which each has a database of its own.

mod database;
pub mod pair;
mod server;

pub use database::{Database, database, shared};
pub use server::{Options, PASSWORD, Postgres, USER, free_port, is_installed};
