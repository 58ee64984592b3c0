//! A PostgreSQL server of the bench's own, and the databases in it.
//!
//! It is made anew in a temporary folder, with its default settings: a commit waits for the disk. It listens on
//! loopback alone, for a role that is no superuser.

use std::cell::Cell;
use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Command, Stdio};
use std::rc::Rc;

use rustix::process::geteuid;
use tempfile::TempDir;

use crate::error::Error;
use crate::process::{Process, find, free_addr};

/// Whom PostgreSQL runs as if the bench is run by root, which it refuses.
const NOBODY: u32 = 65534;

/// The role of both sides, which owns its databases and is no superuser.
const ROLE: &str = "bench";

/// A server. It ends with the last side that uses it.
// In this order: the server ends before its folder goes.
pub struct Instance {
    process: Process,
    dir: TempDir,
    databases: Cell<u32>,
}

impl Instance {
    /// Starts one in this folder, and waits until it is ready.
    ///
    /// # Errors
    /// If PostgreSQL is not installed, or does not start.
    pub fn start(dir: TempDir) -> Result<Self, Error> {
        // What may be missing is noticed before anything is made.
        find("pgbench")?;
        let (path, failed) = (dir.path(), || Error::io("prepare a folder for PostgreSQL"));
        if geteuid().is_root() {
            // The other user must get through to it.
            let above = path.parent().unwrap_or(path);
            fs::set_permissions(above, Permissions::from_mode(0o711)).map_err(failed())?;
            chown(path, Some(NOBODY), Some(NOBODY)).map_err(failed())?;
        }
        let data = path.join("data").to_string_lossy().into_owned();
        let initdb = [
            "--no-sync",
            "--no-locale",
            "-E",
            "UTF8",
            "-A",
            "trust",
            "-D",
            &data,
        ];
        run(as_user("initdb", &initdb)?, path, "")?;
        // Nobody can become its superuser.
        let rule = format!("host all {ROLE} 127.0.0.1/32 trust\n");
        fs::write(path.join("data/pg_hba.conf"), rule).map_err(failed())?;
        let single = as_user("postgres", &["--single", "-D", &data, "postgres"])?;
        run(
            single,
            path,
            &format!("CREATE ROLE {ROLE} LOGIN CREATEDB\n"),
        )?;
        let serve = [
            "-D",
            &data,
            "-k",
            "DIR",
            "-p",
            "PORT",
            "-c",
            "listen_addresses=127.0.0.1",
        ];
        let (program, args) = as_user("postgres", &serve)?;
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut process = Process::spawn(program, &args, path, free_addr()?, Stdio::null())?;
        let port = process.addr().port().to_string();
        let probe = ["-q", "-h", "127.0.0.1", "-p", &port, "-d", "postgres"];
        process.wait_until(|| Ok(run(client("pg_isready", &probe), path, "").ok()))?;
        Ok(Self {
            process,
            dir,
            databases: Cell::new(0),
        })
    }
}

/// A database of one side.
pub struct Database {
    instance: Rc<Instance>,
    name: String,
}

impl Database {
    /// A new one.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new(instance: Rc<Instance>) -> Result<Self, Error> {
        let number = instance.databases.get() + 1;
        instance.databases.set(number);
        let name = format!("side{number}");
        let database = Self { instance, name };
        database.run("createdb", &[])?;
        Ok(database)
    }

    /// Where our queue finds it.
    pub fn url(&self) -> String {
        let Self { instance, name } = self;
        format!("postgresql://{ROLE}@{}/{name}", instance.process.addr())
    }

    /// A folder for what its clients are given.
    pub fn folder(&self) -> &Path {
        self.instance.dir.path()
    }

    /// Runs one of PostgreSQL's clients on it, in [`Self::folder`]; returns its output.
    ///
    /// # Errors
    /// If it fails.
    pub fn run(&self, program: &'static str, args: &[&str]) -> Result<String, Error> {
        let port = self.instance.process.addr().port().to_string();
        let place = ["-h", "127.0.0.1", "-p", &port, "-U", ROLE];
        let args = [&place, args, &[&self.name]].concat();
        run(client(program, &args), self.folder(), "")
    }

    /// Runs these statements; returns what the last of them says.
    ///
    /// # Errors
    /// If one of them fails.
    pub fn query(&self, sql: &str) -> Result<String, Error> {
        let output = self.run(
            "psql",
            &["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", sql],
        )?;
        Ok(output.trim().to_owned())
    }
}

type CommandLine = (&'static str, Vec<String>);

fn client(program: &'static str, args: &[&str]) -> CommandLine {
    (program, args.iter().map(|&arg| arg.to_owned()).collect())
}

/// A program that refuses to run as root.
fn as_user(program: &'static str, args: &[&str]) -> Result<CommandLine, Error> {
    if !geteuid().is_root() {
        return Ok(client(program, args));
    }
    let path = find(program)?.to_string_lossy().into_owned();
    let [user, group] = ["reuid", "regid"].map(|id| format!("--{id}={NOBODY}"));
    let user = [&user, &group, "--clear-groups", &path];
    Ok(client("setpriv", &[&user, args].concat()))
}

/// Runs a program with this input up to its end; returns its output.
fn run((program, args): CommandLine, dir: &Path, input: &str) -> Result<String, Error> {
    let shown = format!("{program} {}", args.join(" "));
    let failed = || Error::io(shown.as_str());
    let mut command = Command::new(find(program)?);
    command.args(&args).current_dir(dir).stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed())?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).map_err(failed())?;
    }
    let output = child.wait_with_output().map_err(failed())?;
    let [out, log] =
        [output.stdout, output.stderr].map(|it| String::from_utf8_lossy(&it).into_owned());
    match output.status.success() {
        true => Ok(out),
        false => Err(Error::Ended {
            command: shown,
            log,
        }),
    }
}
