//! Who may use the queue over HTTP: accounts by their roles, and no page of another site.

use super::*;

/// Of "sesame", as `openssl passwd -6` makes it.
const HASH: &str = "$6$quartet$tOFfjOUJjT8tUEFbjfHa7RKvFURczCKqKXZOeTA7C6YVbwu73zbAF8hWAr.HmymC3dKxDWAtXaIK9CIGE/h3G/";

#[test]
fn no_page_of_another_site_changes_or_sees_anything() {
    if !is_ready() {
        return;
    }
    let server = Server::start("queue-server", &["0"]);
    send(&server, "a", "secret");
    let cross = ["--header", "Origin: http://evil.example"];
    let frame = ["--header", "Sec-Fetch-Site: cross-site"];
    let neighbour = ["--header", "Sec-Fetch-Site: same-site"];
    let rebound = ["--header", "Host: evil.example"];
    let changes = [
        (&["--data", "planted"][..], "/queues/a/messages"),
        (&POST, "/queues/a/purge"),
        (&POST, "/queues/a/pause"),
        (&POST, "/queues/a/lease"),
        (&POST, "/queues/a/messages/1/delete"),
        (&POST, "/drain"),
        (&DELETE, "/queues/a/messages"),
    ];
    for (args, target) in changes {
        for site in [cross, frame, neighbour] {
            server.check_ask(&[args, &site].concat(), target, 403, "may not change");
        }
        server.check_ask(
            &[args, &rebound].concat(),
            target,
            421,
            "--host evil.example",
        );
    }
    for site in [frame, neighbour] {
        for target in [
            "/queues",
            "/queues/a/messages",
            "/events",
            "/?queue=a",
            "/openapi.json",
        ] {
            server.check_ask(&site, target, 403, "may only open the page");
        }
        let opens = ["--header", "Sec-Fetch-Mode: navigate", "--header"];
        let opened = [&site[..], &opens, &["Sec-Fetch-Dest: document"]].concat();
        server.check_ask(&opened, "/", 200, "");
        server.check_ask(&opened, "/?queue=a", 403, "may only open the page");
        server.check_ask(&opened, "/queues", 403, "");
        let framed = [&site[..], &opens, &["Sec-Fetch-Dest: iframe"]].concat();
        server.check_ask(&framed, "/", 403, "may only open the page");
    }
    assert_eq!(figures(&server, "a"), Some([1, 0, 0, 0]));
    let (_, head) = server.ask(&["--head"], "/?queue=a");
    assert!(head.contains("default-src 'none'"), "{head}");
    assert!(head.contains("frame-ancestors 'none'"), "{head}");
}

#[test]
fn roles_count() {
    if !is_ready() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let accounts = dir.path().join("accounts");
    let lines = ["read", "write", "admin"].map(|role| format!("{role}:{HASH}:{role}\n"));
    fs::write(&accounts, lines.concat()).unwrap();
    fs::set_permissions(&accounts, fs::Permissions::from_mode(0o600)).unwrap();
    let accounts = ["0", "--auth-file", accounts.to_str().unwrap()];
    let server = Server::start("queue-server", &accounts);
    let user = |role: &str| ["--user".to_owned(), format!("{role}:sesame")];
    let requests = [
        ("read", &[][..], "/queues", 200),
        ("read", &[], "/", 200),
        ("read", &[], "/queues/a/messages", 200),
        ("write", &["--data", "x"], "/queues/a/messages", 201),
        ("write", &POST, "/queues/b/lease", 204),
        (
            "write",
            &DELETE,
            "/leases/0b6ab2d4-5d49-4a8f-8c39-2f0cbd2a9d3f",
            404,
        ),
        ("admin", &POST, "/queues/a/pause", 200),
        ("admin", &POST, "/queues/a/messages/999/delete", 404),
        ("admin", &DELETE, "/queues/a/messages", 200),
        ("admin", &POST, "/drain/end", 200),
    ];
    let roles = ["read", "write", "admin"];
    for (needs, args, target, status) in requests {
        server.check_ask(args, target, 401, "user and a password");
        let needed = roles.iter().position(|role| *role == needs);
        for (rank, role) in roles.iter().enumerate() {
            let user = user(role);
            let args = [args, &user.each_ref().map(String::as_str)].concat();
            match Some(rank) < needed {
                true => server.check_ask(&args, target, 403, &format!("needs the role {needs}")),
                false if role == &needs => server.check_ask(&args, target, status, ""),
                false => {}
            }
        }
    }
    // The page has no buttons for who may not use them, and a login for who may look without one.
    let admin = user("admin");
    let write = user("write");
    server.check_ask(
        &["--data", "x", &write[0], &write[1]],
        "/queues/a/messages",
        201,
        "",
    );
    server.check_ask(&[&admin[0], &admin[1]], "/?queue=a", 200, "Resume");
    let (_, page) = server.ask(&[&write[0], &write[1]], "/?queue=a");
    assert!(
        !page.contains("Resume") && !page.contains("Delete"),
        "{page}"
    );
    let free = [&accounts[..], &["--auth-read-free"]].concat();
    let server = Server::start("queue-server", &free);
    server.check_ask(&[], "/", 200, "Log in");
    server.check_ask(&[], "/queues", 200, "");
    server.check_ask(&[], "/login", 401, "");
    server.check_ask(&[&admin[0], &admin[1]], "/login", 303, "");
    server.check_ask(&["--data", "x"], "/queues/a/messages", 401, "");
}
