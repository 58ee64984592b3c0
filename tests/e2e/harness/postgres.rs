//! PostgreSQL, as Debian has it: servers of a test's own, pairs of them with synchronous replication, and a
//! pair that all tests of a run share, in which each has a database of its own.

mod database;
pub mod pair;
mod server;

pub use database::{Database, database};
pub use server::{Options, free_port, is_installed};
