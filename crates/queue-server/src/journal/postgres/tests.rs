use std::net::TcpListener;
use std::sync::atomic::Ordering;

use postgres::error::SqlState;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::connect::{Connected, Connector, Timeouts};
use super::environment::Environment;
use super::testing::{Cluster, PASSWORD, USER};
use super::url::Url;
use crate::error::{PostgresError, WhyNot};

mod terms;

fn connect(url: &str, environment: &Environment) -> Result<Connected, PostgresError> {
    let url = Url::parse(url)?;
    Connector::new(url, environment.clone(), Timeouts::default())?.connect()
}

/// What a query of one text says.
fn ask(connected: &mut Connected, query: &str) -> String {
    connected.client.query_one(query, &[]).unwrap().get(0)
}

#[track_caller]
fn refused(url: &str, environment: &Environment) -> PostgresError {
    match connect(url, environment) {
        Ok(connected) => panic!("{url} is {}", connected.server),
        Err(error) => error,
    }
}

/// That somebody must change something, and this is what.
#[track_caller]
fn rejected(url: &str, environment: &Environment, want: &str) {
    let error = refused(url, environment);
    assert!(matches!(error, PostgresError::Rejected(_)), "{error}");
    assert!(error.to_string().contains(want), "{error}");
}

/// That it may be otherwise later.
#[track_caller]
fn unreachable(url: &str, environment: &Environment, want: &str) {
    let error = refused(url, environment);
    assert!(matches!(error, PostgresError::Unreachable(_)), "{error}");
    assert!(error.to_string().contains(want), "{error}");
}

fn with_password() -> Environment {
    Environment {
        user: Some(USER.to_owned()),
        password: Some(PASSWORD.into()),
        ..Environment::default()
    }
}

/// A port on which nobody listens.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[test]
fn a_session_is_set_up_and_the_password_comes_from_the_environment_or_a_file() {
    let Some(cluster) = Cluster::new() else {
        return;
    };
    let _running = cluster.start(&[]);
    let port = cluster.port();
    let folder = cluster.folder().display();
    let tcp = format!("postgresql://127.0.0.1:{port}");
    let socket = format!("postgresql:///postgres?host={folder}&port={port}&application_name=me");

    let mut connected = connect(&socket, &with_password()).unwrap();
    assert_eq!(ask(&mut connected, "SELECT current_user::text"), USER);
    assert_eq!(ask(&mut connected, "SHOW application_name"), "me");
    assert_eq!(ask(&mut connected, "SHOW lock_timeout"), "5s");
    assert_eq!(
        ask(&mut connected, "SHOW idle_in_transaction_session_timeout"),
        "5s"
    );
    assert_eq!(ask(&mut connected, "SHOW statement_timeout"), "1min");

    let mut connected = connect(&tcp, &with_password()).unwrap();
    assert_eq!(connected.server.port, port);
    assert_eq!(ask(&mut connected, "SELECT current_database()::text"), USER);

    // The first two lines are for another port and for a socket in the default folder, and so for nobody here.
    let escaped = PASSWORD.replace('\\', r"\\").replace(':', r"\:");
    let lines =
        format!("*:1:*:*:no\nlocalhost:{port}:*:*:no\n{folder}:{port}:*:{USER}:{escaped}\n");
    let file = cluster.write("pass", lines.as_bytes());
    let in_file = Environment {
        user: Some(USER.to_owned()),
        passfile: Some(file.clone()),
        ..Environment::default()
    };
    connect(&socket, &in_file).unwrap();
    rejected(&tcp, &in_file, &format!("put it into {}", file.display()));

    let wrong = Environment {
        password: Some("wrong".into()),
        ..with_password()
    };
    let sentence = format!("127.0.0.1:{port}: password authentication failed for user \"{USER}\"");
    rejected(&tcp, &wrong, &sentence);
    let elsewhere = format!("{tcp}/none");
    rejected(
        &elsewhere,
        &with_password(),
        "database \"none\" does not exist",
    );
    let nobody = format!("postgresql://nobody@127.0.0.1:{port}");
    rejected(&nobody, &with_password(), "authentication failed");
    rejected(
        &format!("{tcp}?sslmode=require"),
        &with_password(),
        "does not support TLS",
    );
}

#[test]
fn the_first_server_that_can_be_written_to_is_taken() {
    let (Some(first), Some(second)) = (Cluster::new(), Cluster::new()) else {
        return;
    };
    let down = free_port();
    let ports = [first.port(), second.port()];
    let url = format!(
        "postgresql://127.0.0.1:{down},127.0.0.1:{},127.0.0.1:{}",
        ports[0], ports[1]
    );
    unreachable(&url, &with_password(), "refused");
    let first = first.start(&["default_transaction_read_only=on"]);
    unreachable(
        &url,
        &with_password(),
        &format!("127.0.0.1:{}: it can only be read", ports[0]),
    );
    // Each server has a password of its own.
    let lines = format!(
        "*:{}:*:*:{}\n*:{}:*:*:wrong\n",
        ports[0], r"a\:b\\c", ports[1]
    );
    let environment = Environment {
        user: Some(USER.to_owned()),
        passfile: Some(first.cluster().write("pass", lines.as_bytes())),
        ..Environment::default()
    };
    let second = second.start(&[]);
    rejected(&url, &environment, "password authentication failed");
    let connected = connect(&url, &with_password()).unwrap();
    assert_eq!(connected.server.port, ports[1]);
    drop(second);
    // The session is gone with its server.
    let mut client = connected.client;
    let error = client.simple_query("SELECT 1").unwrap_err();
    assert!(
        error.is_closed()
            || error.code() == Some(&SqlState::ADMIN_SHUTDOWN)
            || error.code() == Some(&SqlState::CRASH_SHUTDOWN),
        "{error:?}"
    );
}

#[test]
fn a_warning_of_the_server_is_seen() {
    let Some(cluster) = Cluster::new() else {
        return;
    };
    let _running = cluster.start(&[]);
    let url = format!("postgresql://127.0.0.1:{}", cluster.port());
    let Connected {
        mut client,
        is_warned,
        ..
    } = connect(&url, &with_password()).unwrap();
    client
        .batch_execute("DO $$BEGIN RAISE NOTICE 'x'; END$$")
        .unwrap();
    assert!(!is_warned.load(Ordering::Relaxed));
    client
        .batch_execute("DO $$BEGIN RAISE WARNING 'x'; END$$")
        .unwrap();
    assert!(is_warned.load(Ordering::Relaxed));
}

#[test]
fn a_server_that_hangs_is_given_up_and_not_asked_without_end() {
    let (Some(cluster), Some(other)) = (Cluster::new(), Cluster::new()) else {
        return;
    };
    let running = cluster.start(&[]);
    let _other = other.start(&[]);
    running.freeze();
    let connector = |servers: &str| {
        let url = format!("postgresql://{servers}?connect_timeout=1");
        let url = Url::parse(&url).unwrap();
        Connector::new(url, with_password(), Timeouts::default()).unwrap()
    };
    let hanging = format!("127.0.0.1:{}", cluster.port());
    let alone = connector(&hanging);
    let why = || match alone.connect() {
        Err(PostgresError::Unreachable(mut unusable)) => unusable.remove(0).why,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it answers"),
    };
    for _ in 0..8 {
        let why = why();
        assert!(matches!(why, WhyNot::NoAnswer(_)), "{why}");
    }
    assert!(matches!(why(), WhyNot::StillTrying(8)));
    // The others are asked however long it hangs.
    let both = connector(&format!("{hanging},127.0.0.1:{}", other.port()));
    for _ in 0..10 {
        match both.connect() {
            Ok(connected) => assert_eq!(connected.server.port, other.port()),
            Err(PostgresError::Unreachable(unusable)) => {
                let why = &unusable[1].why;
                assert!(matches!(why, WhyNot::NoAnswer(_)), "{why}");
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn tls_checks_what_sslmode_says() {
    let Some(cluster) = Cluster::new() else {
        return;
    };
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority =
        CertifiedIssuer::self_signed(params.clone(), KeyPair::generate().unwrap()).unwrap();
    let stranger = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    cluster.write("server.crt", certificate.pem().as_bytes());
    cluster.write("server.key", key.serialize_pem().as_bytes());
    let root = cluster.write("root.crt", authority.pem().as_bytes());
    let other = cluster.write("other.crt", stranger.pem().as_bytes());
    let certificate = format!("ssl_cert_file={}", cluster.path("server.crt").display());
    let key = format!("ssl_key_file={}", cluster.path("server.key").display());
    let _running = cluster.start(&["ssl=on", &certificate, &key]);

    let port = cluster.port();
    let url = |host: &str, query: &str| format!("postgresql://{host}:{port}?{query}");
    let (root, other) = (root.display(), other.display());
    let environment = with_password();
    let encrypted = "SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    for (host, query, want) in [
        ("127.0.0.1", "sslmode=disable".to_owned(), "false"),
        ("127.0.0.1", String::new(), "true"),
        ("127.0.0.1", "sslmode=require".to_owned(), "true"),
        (
            "127.0.0.1",
            format!("sslmode=require&sslrootcert={root}"),
            "true",
        ),
        (
            "127.0.0.1",
            format!("sslmode=verify-ca&sslrootcert={root}"),
            "true",
        ),
        (
            "localhost",
            format!("sslmode=verify-full&sslrootcert={root}"),
            "true",
        ),
    ] {
        let mut connected = connect(&url(host, &query), &environment).unwrap();
        assert_eq!(ask(&mut connected, encrypted), want, "{host} {query}");
    }
    let wrong_host = url(
        "127.0.0.1",
        &format!("sslmode=verify-full&sslrootcert={root}"),
    );
    rejected(
        &wrong_host,
        &environment,
        "not for 127.0.0.1 but for localhost",
    );
    for mode in ["require", "verify-ca", "verify-full"] {
        let url = url("localhost", &format!("sslmode={mode}&sslrootcert={other}"));
        rejected(&url, &environment, "nobody in the root certificate");
    }
    rejected(
        &url("localhost", "sslrootcert=system"),
        &environment,
        "certificate",
    );

    // Without one in the URL, the user's own root certificate counts.
    let verify = url("localhost", "sslmode=verify-full");
    let error = refused(&verify, &environment);
    assert!(matches!(error, PostgresError::NoRootCertificate), "{error}");
    let home = tempfile::tempdir().unwrap();
    let at_home = Environment {
        home: Some(home.path().to_owned()),
        ..environment
    };
    std::fs::create_dir(home.path().join(".postgresql")).unwrap();
    let own = home.path().join(".postgresql/root.crt");
    std::fs::write(&own, stranger.pem()).unwrap();
    rejected(&verify, &at_home, "nobody in the root certificate");
    rejected(
        &url("localhost", "sslmode=require"),
        &at_home,
        "nobody in the root certificate",
    );
    std::fs::write(&own, authority.pem()).unwrap();
    connect(&verify, &at_home).unwrap();
}
