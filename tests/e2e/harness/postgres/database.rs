//! A database for each test, all of them in one pair of servers.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::pair::Pair;
use super::server::{Options, Postgres, is_installed};

/// A database of the server that all tests of this run share. Dropping it removes it.
pub struct Database {
    server: &'static Postgres,
    name: String,
}

/// The server that all tests of this run share: the primary of a pair, whose commits wait for the replica.
fn shared() -> Option<&'static Postgres> {
    static SHARED: OnceLock<Option<&Postgres>> = OnceLock::new();
    // Each test says that it is skipped.
    if !is_installed() {
        return None;
    }
    let options = Options {
        fsync: false,
        ..Options::default()
    };
    *SHARED.get_or_init(|| {
        let pair = Pair::start([options.clone(), options])?;
        // It is never dropped; their guardians end both.
        Some(Box::leak(Box::new(pair)).primary())
    })
}

/// A new database; `None`, and a word of it, if PostgreSQL is not installed.
#[track_caller]
pub fn database() -> Option<Database> {
    static DATABASES: AtomicUsize = AtomicUsize::new(0);
    let server = shared()?;
    let name = format!("test{}", DATABASES.fetch_add(1, Ordering::Relaxed));
    server.sql(&format!("CREATE DATABASE {name}"));
    Some(Database { server, name })
}

impl Database {
    /// Its URL, which needs no password.
    pub fn url(&self) -> String {
        self.server.url(&self.name)
    }

    /// What these statements say in it.
    #[track_caller]
    pub fn sql(&self, statements: &str) -> String {
        self.server.sql_in(&self.name, statements)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let name = &self.name;
        let drop = format!("DROP DATABASE {name} WITH (FORCE)");
        // Room is all that it takes.
        let _ = self.server.try_sql("postgres", &drop);
    }
}

#[test]
fn each_test_has_a_database_of_its_own() {
    let Some((one, other)) = database().zip(database()) else {
        return;
    };
    one.sql("CREATE TABLE t (n int)");
    assert_eq!(
        other.sql("SELECT count(*) FROM pg_class WHERE relname = 't'"),
        "0"
    );
    let (server, name) = (one.server, one.name.clone());
    drop(one);
    let count = format!("SELECT count(*) FROM pg_database WHERE datname = '{name}'");
    assert_eq!(server.sql(&count), "0");
    assert!(
        other
            .url()
            .ends_with(&format!(":{}/{}", server.port(), other.name))
    );
}
