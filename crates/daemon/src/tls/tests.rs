//! What is read from the files, when, and what that means for clients.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ServerConnection, version};

use super::testing::{Authority, VERSIONS};
use super::*;

/// A handshake in memory, with a reply behind it; how it went, or what the server says against it.
fn shake(tls: &Tls, client: &Arc<ClientConfig>) -> Result<HandshakeKind, rustls::Error> {
    let mut server = ServerConnection::new(tls.settings()).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
    while client.wants_write() || server.wants_write() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        while !wire.is_empty() {
            let mut rest = &wire[..];
            server.read_tls(&mut rest).unwrap();
            wire = rest.to_vec();
            server.process_new_packets()?;
        }
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        while !wire.is_empty() {
            let mut rest = &wire[..];
            client.read_tls(&mut rest).unwrap();
            wire = rest.to_vec();
            client.process_new_packets().unwrap();
        }
    }
    Ok(server.handshake_kind().unwrap())
}

/// What is wrong with these files.
#[track_caller]
fn refused(files: ServerTls) -> String {
    Tls::new(files, None).unwrap_err().to_string()
}

#[test]
fn a_key_that_others_may_read_stops_the_start() {
    let authority = Authority::new();
    let key = authority.path("server.key");
    fs::set_permissions(&key, Permissions::from_mode(0o640)).unwrap();
    let sentence = refused(authority.files(None));
    assert!(
        sentence.ends_with(&format!("chmod 600 {} ends that", key.display())),
        "{sentence}"
    );
}

#[test]
fn what_is_wrong_with_the_files_is_said() {
    let [authority, other] = [(); 2].map(|()| Authority::new());
    let check = |files, want: &str| {
        let sentence = refused(files);
        assert!(sentence.contains(want), "{sentence}");
    };
    let mut files = authority.files(None);
    files.pair.key = other.path("server.key");
    check(files, "is not that of the certificate in");
    let mut files = authority.files(None);
    files.pair.cert = authority.path("none.pem");
    check(files, "cannot read");
    let mut files = authority.files(Some(&other));
    files.client_ca = Some(authority.path("server.key"));
    check(files, "holds no certificate");
}

#[test]
fn files_are_read_again_and_the_old_stay_if_that_fails() {
    let authority = Authority::new();
    let tls = authority.tls();
    let before = tls.settings();
    authority.renew();
    assert!(Arc::ptr_eq(&before, &tls.settings()));
    tls.reload().unwrap();
    let renewed = tls.settings();
    assert!(!Arc::ptr_eq(&before, &renewed));
    fs::write(authority.path("server.pem"), "half of a certif").unwrap();
    tls.reload().unwrap_err();
    assert!(Arc::ptr_eq(&renewed, &tls.settings()));
    shake(&tls, &authority.client(&version::TLS13, None)).unwrap();
}

#[test]
fn a_ticket_is_good_until_the_files_are_read_again() {
    for version in VERSIONS {
        let authority = Authority::new();
        let tls = authority.tls();
        let client = authority.client(version, None);
        for want in [HandshakeKind::Full, HandshakeKind::Resumed] {
            assert_eq!(shake(&tls, &client), Ok(want), "{version:?}");
        }
        tls.reload().unwrap();
        assert_eq!(shake(&tls, &client), Ok(HandshakeKind::Full), "{version:?}");
    }
}

#[test]
fn a_client_needs_a_certificate_where_one_is_asked_for() {
    let [authority, clients, others] = [(); 3].map(|()| Authority::new());
    let tls = Tls::new(authority.files(Some(&clients)), None).unwrap();
    for version in VERSIONS {
        let shake = |identity| shake(&tls, &authority.client(version, identity));
        assert!(shake(Some(&clients)).is_ok(), "{version:?}");
        assert!(shake(Some(&others)).is_err(), "{version:?}");
        assert_eq!(shake(None), Err(rustls::Error::NoCertificatesPresented));
    }
}

#[test]
fn a_client_that_offers_only_other_protocols_is_refused() {
    let authority = Authority::new();
    let tls = authority.tls();
    for (offered, is_refused) in [
        (&["h2", "http/1.1"][..], false),
        (&["h2"], true),
        (&[], false),
    ] {
        let mut client = (*authority.client(&version::TLS13, None)).clone();
        client.alpn_protocols = offered
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        let shaken = shake(&tls, &Arc::new(client));
        assert_eq!(shaken.is_err(), is_refused, "{offered:?}");
    }
}
