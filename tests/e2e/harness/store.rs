//! Where the queue servers of a run keep their messages.
//!
//! `QUARTET_TEST_DATA=postgres` has every queue server that the harness starts keep them in PostgreSQL: each
//! path behind `--data` stands for a database, the same one whenever the path is said again, and a server
//! without one, which would keep them in memory, has a new one. `QUARTET_TEST_DATA=pglite` does the same with
//! another engine. A test that is about SQLite says so with [`has_sqlite`].

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use super::postgres::{self, pglite};
use super::{lock, skipped};

/// The variable that says where.
pub const VARIABLE: &str = "QUARTET_TEST_DATA";

/// What the variable has for PostgreSQL.
pub const POSTGRES: &str = "postgres";

/// What it has for PGlite.
pub const PGLITE: &str = "pglite";

/// What is before the path of a database, or before the URL of one that needs no other.
const OPTION: &str = "--data";

/// What a server says when it has the messages in PostgreSQL to itself, and hands them out.
const IS_ACTIVE: &str = "] Active;";

/// A program that keeps them.
#[derive(Clone, Copy)]
enum Engine {
    Postgres,
    Pglite,
}

/// A database of its.
enum Database {
    Postgres(postgres::Database),
    Pglite(pglite::Database),
}

/// Who keeps the messages of queue servers, instead of themselves.
fn engine() -> Option<Engine> {
    let told = std::env::var(VARIABLE).unwrap_or_default();
    match told.as_str() {
        "" => None,
        POSTGRES => Some(Engine::Postgres),
        PGLITE => Some(Engine::Pglite),
        other => panic!("{VARIABLE}: '{other}'"),
    }
}

/// Whether queue servers keep their messages as a test needs, in memory or in SQLite; says that the test is
/// skipped if not, and why.
pub fn has_sqlite(why: &str) -> bool {
    let has_it = engine().is_none();
    if !has_it {
        skipped(&format!("not in PostgreSQL: {why}"));
    }
    has_it
}

/// Where a server keeps its messages while it runs.
pub struct Store {
    has_engine: bool,
    /// That of a server that would keep them in memory.
    _own: Option<Database>,
}

impl Store {
    /// Has a queue server that is started like this keep its messages where the run has them.
    #[track_caller]
    pub fn open(command: &mut Command) -> Self {
        let Some(engine) = engine() else {
            return Self {
                has_engine: false,
                _own: None,
            };
        };
        let mut words: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let place = words.iter().position(|word| word == OPTION);
        let path = place.and_then(|place| words.get_mut(place + 1));
        let own = match path {
            Some(path) => {
                let said = path.to_str().unwrap();
                if !said.contains("://") {
                    *path = of_path(engine, said).into();
                }
                None
            }
            None => {
                let own = Database::new(engine);
                words.extend([OPTION.into(), own.url().into()]);
                Some(own)
            }
        };
        *command = with_words(command, words);
        Self {
            has_engine: true,
            _own: own,
        }
    }

    /// Whether a server with this log hands messages out.
    pub fn is_ready(&self, log: &str) -> bool {
        !self.has_engine || log.contains(IS_ACTIVE)
    }
}

impl Database {
    #[track_caller]
    fn new(engine: Engine) -> Self {
        let new = match engine {
            Engine::Postgres => postgres::database().map(Self::Postgres),
            Engine::Pglite => pglite::database().map(Self::Pglite),
        };
        new.unwrap_or_else(|| panic!("there is none for {VARIABLE}"))
    }

    fn url(&self) -> String {
        match self {
            Self::Postgres(database) => database.url(),
            Self::Pglite(database) => database.url(),
        }
    }
}

/// The URL of the database that a path stands for. Databases of paths whose folder is gone are removed: their
/// tests are over.
#[track_caller]
fn of_path(engine: Engine, path: &str) -> String {
    static DATABASES: Mutex<Option<HashMap<String, Database>>> = Mutex::new(None);
    let mut databases = lock(&DATABASES);
    let databases = databases.get_or_insert_default();
    databases.retain(|path, _| Path::new(path).parent().is_none_or(Path::exists));
    let database = databases.entry(path.to_owned());
    let database = database.or_insert_with(|| Database::new(engine));
    database.url()
}

/// The same command with other words.
fn with_words(command: &Command, words: Vec<std::ffi::OsString>) -> Command {
    let mut other = Command::new(command.get_program());
    other.args(words);
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => other.env(name, value),
            None => other.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        other.current_dir(folder);
    }
    other
}
