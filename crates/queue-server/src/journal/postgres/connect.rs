//! Connects to the first server of a database that can be written to.
//!
//! Each server is tried by itself, in the order of the URL, because each can have a password of its own.
//! An attempt has a thread of its own: the timeout of the crate `postgres` ends with the TCP handshake, and
//! a server that hangs after it, with its machine alive, would be waited for without an end. Such a thread
//! is left to itself. There are at most [`ATTEMPTS_MAX`] of them for each server.
//!
//! A link that is cut later is noticed within seconds: by `tcp_user_timeout` if something was sent, and by
//! keepalives if an answer is waited for. A server that hangs later, with its machine alive, is noticed only
//! by who asks in another thread ([`Connector::within`]).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use postgres::config::{SslMode as Encryption, TargetSessionAttrs};
use postgres::error::{DbError, Severity};
use postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::environment::Environment;
use super::tls::{self, Trust};
use super::url::{Host, Server, SslMode, Url};
use crate::error::{PostgresError, Unusable, WhyNot};

/// How many attempts with one server may last at the same time, hanging ones with them.
const ATTEMPTS_MAX: usize = 8;

/// After how long without a byte keepalives begin, how far apart they are, and how many of them stay
/// without an answer.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(2);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
const KEEPALIVES: u32 = 3;

/// How long PostgreSQL lets something last before it ends it. So nothing stays for ever of a session whose program
/// is gone or cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timeouts {
    /// A wait for a lock.
    pub lock: Duration,
    /// A transaction that does nothing: the session ends with it, and its locks.
    pub idle_in_transaction: Duration,
    /// A statement; not the wait of a commit for a replica.
    pub statement: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            lock: Duration::from_secs(5),
            idle_in_transaction: Duration::from_secs(5),
            statement: Duration::from_secs(60),
        }
    }
}

/// Connects to a database, again and again.
pub(crate) struct Connector {
    url: Url,
    environment: Environment,
    user: String,
    database: String,
    trust: Trust,
    timeouts: Timeouts,
    /// Of each server, in the order of the URL: each attempt that lasts has one more of these.
    attempts: Vec<Arc<()>>,
}

/// A session with a server that can be written to.
pub(crate) struct Connected {
    /// The session.
    pub client: Client,
    /// Whether the server has sent a warning since this was last set to false. A commit that a warning
    /// comes with may be on that server alone (`canceling wait for synchronous replication`).
    pub is_warned: Arc<AtomicBool>,
    /// Which of the servers it is.
    pub server: Server,
}

impl Connector {
    /// Prepares to connect; nothing is read or asked yet.
    ///
    /// # Errors
    /// [`PostgresError::NoUser`], [`PostgresError::Environment`] and [`PostgresError::Unchecked`].
    pub(crate) fn new(
        url: Url,
        environment: Environment,
        timeouts: Timeouts,
    ) -> Result<Self, PostgresError> {
        let login = || environment.login.clone();
        let user = url.user.clone().or_else(|| environment.user.clone());
        let user = user.or_else(login).ok_or(PostgresError::NoUser)?;
        let database = url
            .database
            .clone()
            .or_else(|| environment.database.clone());
        Ok(Self {
            database: database.unwrap_or_else(|| user.clone()),
            user,
            trust: Trust::of(&url, &environment)?,
            attempts: url.servers.iter().map(|_| Arc::new(())).collect(),
            url,
            environment,
            timeouts,
        })
    }

    /// Tries each server once. The files of passwords and root certificates are read anew.
    ///
    /// # Errors
    /// [`PostgresError::Unreachable`] if a later call may succeed, and [`PostgresError::Rejected`] if somebody must change
    /// something first: one of the servers, while none could be used, refused the user, the database or
    /// the encryption. [`PostgresError::RootCertificate`] and [`PostgresError::NoRootCertificate`].
    pub(crate) fn connect(&self) -> Result<Connected, PostgresError> {
        let tls = tls::connector(&self.trust, &self.environment)?;
        let mut unusable = Vec::new();
        for server in &self.url.servers {
            match self.attempt(server, tls.clone()) {
                Ok(connected) => return Ok(connected),
                Err(why) => unusable.push(unusable_because(server, why)),
            }
        }
        match unusable.iter().any(|unusable| unusable.why.is_final()) {
            true => Err(PostgresError::Rejected(unusable)),
            false => Err(PostgresError::Unreachable(unusable)),
        }
    }

    /// Connects to one of the servers again.
    ///
    /// # Errors
    /// As [`Connector::connect`].
    pub(crate) fn connect_to(&self, server: &Server) -> Result<Connected, PostgresError> {
        let tls = tls::connector(&self.trust, &self.environment)?;
        self.attempt(server, tls)
            .map_err(|why| unreachable(server, why))
    }

    /// Has a thread of its own ask a server something. If the server does not answer in time, the thread is left
    /// to itself.
    ///
    /// # Errors
    /// [`PostgresError::Unreachable`].
    pub(crate) fn within<T: Send + 'static>(
        &self,
        server: &Server,
        wait: Duration,
        ask: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PostgresError> {
        self.try_within(server, wait, ask)
            .map_err(|why| unreachable(server, why))
    }

    fn try_within<T: Send + 'static>(
        &self,
        server: &Server,
        wait: Duration,
        ask: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, WhyNot> {
        let mut servers = self.url.servers.iter().zip(&self.attempts);
        let attempt = servers.find_map(|(one, attempts)| (one == server).then_some(attempts));
        let attempt = attempt.cloned().unwrap_or_default();
        // One of them is the connector's, and one this attempt's.
        if Arc::strong_count(&attempt) > ATTEMPTS_MAX + 1 {
            return Err(WhyNot::StillTrying(ATTEMPTS_MAX));
        }
        let (answers, answered) = sync_channel(1);
        let run = move || {
            // Nobody waits any more if it took too long.
            let _ = answers.send(ask());
            drop(attempt);
        };
        let thread = thread::Builder::new().name("postgres".to_owned());
        let thread = thread.spawn(run).map_err(WhyNot::Io)?;
        let answer = answered.recv_timeout(wait).map_err(|error| match error {
            RecvTimeoutError::Timeout => WhyNot::NoAnswer(wait),
            RecvTimeoutError::Disconnected => WhyNot::Panicked,
        })?;
        // It has nothing left to do.
        let _ = thread.join();
        Ok(answer)
    }

    /// One attempt to connect to one server.
    fn attempt(&self, server: &Server, tls: MakeRustlsConnect) -> Result<Connected, WhyNot> {
        let is_warned = Arc::new(AtomicBool::new(false));
        let config = self.config(server, Arc::clone(&is_warned));
        let set = self.timeouts.sql();
        let connect = move || {
            let mut client = config.connect(tls)?;
            client.batch_execute(&set)?;
            Ok(client)
        };
        let client = self.try_within(server, self.url.connect_timeout, connect)?;
        let client = client.map_err(|error| self.why(error, server))?;
        // What came with the login says nothing about a commit.
        is_warned.store(false, Ordering::Relaxed);
        Ok(Connected {
            client,
            is_warned,
            server: server.clone(),
        })
    }

    fn config(&self, server: &Server, is_warned: Arc<AtomicBool>) -> Config {
        let mut config = Config::new();
        let encryption = match (&server.host, self.trust.mode) {
            (Host::Folder(_), _) | (_, SslMode::Disable) => Encryption::Disable,
            (Host::Name(_), SslMode::Prefer) => Encryption::Prefer,
            (Host::Name(_), SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull) => {
                Encryption::Require
            }
        };
        match &server.host {
            Host::Name(name) => config.host(name),
            Host::Folder(path) => config.host_path(path),
        };
        config
            .port(server.port)
            .user(&self.user)
            .dbname(&self.database)
            .application_name(&self.url.application_name)
            .ssl_mode(encryption)
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .connect_timeout(self.url.connect_timeout)
            .tcp_user_timeout(self.url.tcp_user_timeout)
            .keepalives_idle(KEEPALIVE_IDLE)
            .keepalives_interval(KEEPALIVE_INTERVAL)
            .keepalives_retries(KEEPALIVES)
            .notice_callback(move |notice| {
                if is_warning(&notice) {
                    is_warned.store(true, Ordering::Relaxed);
                    log::warn!("PostgreSQL warns: {}", notice.message());
                } else {
                    log::debug!("PostgreSQL: {}", notice.message());
                }
            });
        let environment = &self.environment;
        if let Some(password) = environment.password(server, &self.database, &self.user) {
            config.password(password);
        }
        config
    }

    /// What an error of an attempt means.
    fn why(&self, error: postgres::Error, server: &Server) -> WhyNot {
        let text = error.to_string();
        let Some(cause) = error.into_source() else {
            return WhyNot::Io(io::Error::new(io::ErrorKind::ConnectionAborted, text));
        };
        let cause = match cause.downcast::<DbError>() {
            Ok(error) => return WhyNot::Server(error),
            Err(cause) => cause,
        };
        match cause.downcast::<io::Error>() {
            Ok(error) if error.kind() == io::ErrorKind::PermissionDenied => WhyNot::ReadOnly,
            Ok(error) => match error.get_ref().and_then(|cause| cause.downcast_ref()) {
                Some(of_tls) => tls::why(of_tls, &server.host),
                None => WhyNot::Io(*error),
            },
            // All others are about the settings of both sides.
            Err(cause) if cause.to_string() == "password missing" => {
                WhyNot::NoPassword(self.environment.passfile())
            }
            Err(cause) => WhyNot::Settings(cause.to_string()),
        }
    }
}

impl Timeouts {
    fn sql(&self) -> String {
        format!(
            "SET lock_timeout = {}; SET idle_in_transaction_session_timeout = {}; \
             SET statement_timeout = {}",
            self.lock.as_millis(),
            self.idle_in_transaction.as_millis(),
            self.statement.as_millis()
        )
    }
}

fn unusable_because(server: &Server, why: WhyNot) -> Unusable {
    Unusable {
        server: server.to_string(),
        why,
    }
}

fn unreachable(server: &Server, why: WhyNot) -> PostgresError {
    PostgresError::Unreachable(vec![unusable_because(server, why)])
}

/// Servers older than PostgreSQL 9.6, and some that only speak its protocol, send the localized word alone.
fn is_warning(notice: &DbError) -> bool {
    match notice.parsed_severity() {
        Some(severity) => severity == Severity::Warning,
        None => notice.severity() == "WARNING",
    }
}
