//! Servers that ask for a client certificate, and clients that have none, one of another authority, one
//! that has expired, or the right one: `openssl s_client`, curl and our own. Who is refused is told why
//! in one sentence, and nothing that it sent is acted on.

use std::process::Command;

use tempfile::TempDir;

use crate::harness::{
    Authority, Carrier, Certificates, Door, Identity, Server, has_program, program, run_command,
};
use crate::tls::{CLIENTS, SERVICES, has_openssl, openssl, start};

const CLIENT_CERT: Door = Door {
    carrier: Carrier::ClientCert,
    has_accounts: false,
};

/// What a client shows that is refused, and what is said of it.
struct Refused {
    shows: Option<Identity>,
    /// By our clients.
    sentence: &'static str,
    /// By openssl and those who use it: the alert (RFC 8446 section 6.2).
    alert: &'static str,
    /// By the server, in its log.
    log: &'static str,
}

fn refused() -> ([Refused; 3], TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let other = Authority::new(dir.path(), "other").client(dir.path(), "stranger");
    let authority = &Certificates::get().authority;
    let kinds = [
        Refused {
            shows: None,
            sentence: "the server asks for a client certificate: --tls-cert FILE and --tls-key FILE",
            alert: "alert certificate required",
            log: "peer sent no certificates",
        },
        Refused {
            shows: Some(other),
            sentence: "the server refuses the client certificate: nobody whom it trusts has signed it",
            alert: "alert unknown ca",
            log: "UnknownIssuer",
        },
        Refused {
            shows: Some(authority.expired_client(dir.path(), "expired")),
            sentence: "the server refuses the client certificate: it has expired or is not valid yet",
            alert: "alert certificate expired",
            log: "expired",
        },
    ];
    (kinds, dir)
}

/// How a program is told which certificate it shows.
fn options(shows: Option<&Identity>, names: [&'static str; 2]) -> Vec<String> {
    let Some(identity) = shows else {
        return Vec::new();
    };
    let [cert, key] = [&identity.cert, &identity.key].map(|path| path.to_str().unwrap());
    let [name_cert, name_key] = names;
    [name_cert, cert, name_key, key].map(str::to_owned).into()
}

/// One of our clients, which checks the server's certificate and shows its own.
fn client(name: &str, server: &Server, shows: Option<&Identity>) -> Command {
    let mut command = Command::new(program(name));
    let addrs = server.addrs.iter();
    command.arg("127.0.0.1");
    command.args(addrs.map(|addr| addr.port().to_string()));
    command.arg("--tls").arg("--tls-ca");
    command.arg(&Certificates::get().authority.cert);
    command.args(options(shows, ["--tls-cert", "--tls-key"]));
    command
}

#[test]
fn our_clients_say_why_they_are_refused() {
    let (kinds, _dir) = refused();
    for (name, service, verb) in CLIENTS {
        let (server, _dir) = start(CLIENT_CERT, service);
        for kind in &kinds {
            let mut command = client(name, &server, kind.shows.as_ref());
            command.args(verb);
            let ran = run_command(command, b"").expect(3);
            assert_eq!(ran.out(), "");
            assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
            assert!(ran.stderr.contains(kind.sentence), "{}", ran.stderr);
            server.wait_for_log(|log| log.contains(kind.log));
        }
        let mut command = client(name, &server, Some(&Certificates::get().client));
        command.args(verb);
        // An empty queue is a no of the service.
        run_command(command, b"").expect(i32::from(name == "queue-client"));
    }
}

#[test]
fn a_client_that_sends_much_hears_why_it_is_refused_and_nothing_of_it_is_kept() {
    let (kinds, _dir) = refused();
    let much = vec![b'x'; 4 << 20];
    let [(queue, _queue_dir), (files, files_dir)] =
        ["queue-server", "file-server"].map(|name| start(CLIENT_CERT, name));
    for kind in &kinds {
        let shows = kind.shows.as_ref();
        let mut send = client("queue-client", &queue, shows);
        send.args(["send", "-", "--max-message", "8M"]);
        let mut put = client("file-client", &files, shows);
        put.args(["post", "-", "much"]);
        for command in [send, put] {
            let ran = run_command(command, &much).expect(3);
            assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
            assert!(ran.stderr.contains(kind.sentence), "{}", ran.stderr);
        }
    }
    assert!(!files_dir.path().join("much").exists());
    let mut receive = client("queue-client", &queue, Some(&Certificates::get().client));
    receive.arg("receive");
    run_command(receive, b"").expect(1);
}

#[test]
fn openssl_is_told_by_an_alert_in_both_versions() {
    if !has_openssl() {
        return;
    }
    let (kinds, _dir) = refused();
    for (service, request, answer) in SERVICES {
        let (server, _dir) = start(CLIENT_CERT, service);
        for version in ["-tls1_2", "-tls1_3"] {
            let ask = |shows: Option<&Identity>| {
                let mut line = vec![version.to_owned()];
                line.extend(options(shows, ["-cert", "-key"]));
                let line: Vec<_> = line.iter().map(String::as_str).collect();
                openssl(&server, &line, request)
            };
            for kind in &kinds {
                let ran = ask(kind.shows.as_ref()).expect(1);
                assert_eq!(ran.out(), "", "{}", ran.command);
                assert!(
                    ran.stderr.contains(kind.alert),
                    "{}: {}",
                    ran.command,
                    ran.stderr
                );
            }
            let ran = ask(Some(&Certificates::get().client));
            assert!(
                ran.out().starts_with(answer),
                "{}: {}",
                ran.out(),
                ran.stderr
            );
        }
    }
}

#[test]
fn curl_is_told_by_an_alert() {
    if !has_program("curl") {
        return;
    }
    let (kinds, _dir) = refused();
    for (service, ..) in SERVICES {
        let (server, _dir) = start(CLIENT_CERT, service);
        let path = match service {
            "file-server" => "/hello.txt",
            _ => "/healthz",
        };
        let ask = |shows: Option<&Identity>| {
            let mut curl = Command::new("curl");
            curl.args(["-q", "-sS", "--fail", "--cacert"]);
            curl.arg(&Certificates::get().authority.cert);
            curl.args(options(shows, ["--cert", "--key"]));
            curl.arg(CLIENT_CERT.url(server.addr(), path));
            run_command(curl, b"")
        };
        for kind in &kinds {
            // "Failure in receiving network data": in TLS 1.3 the handshake is over for the client
            // before the server has looked at its certificate.
            let ran = ask(kind.shows.as_ref()).expect(56);
            assert_eq!(ran.out(), "");
            assert!(ran.stderr.contains(kind.alert), "{}", ran.stderr);
        }
        ask(Some(&Certificates::get().client)).expect(0);
    }
}
