//! PostgreSQL, as Debian has it: servers of a test's own, pairs of them with synchronous replication, and a
//! pair that all tests of a run share, in which each has a database of its own. And [`pglite`], which is another engine.

mod database;
pub mod pair;
pub mod pglite;
mod server;

pub use database::{Database, database};
pub use server::{Options, free_port, is_installed};
