//! A file server for an hour: it ends by itself, says where other machines find it, serves one file, or
//! stands below a prefix that its proxy leaves there.

use std::fs;
use std::process::Command;

use crate::file::{Tree, ask, get};
use crate::harness::network::Network;
use crate::harness::{Nginx, Server, has_program, on_a_terminal, program, run_command};

#[test]
fn a_server_ends_when_its_time_is_over_even_if_it_is_busy() {
    let tree = Tree::new();
    let server = tree.start(&["--for", "2"]);
    assert!(server.log().contains("(ends after 2s)"), "{}", server.log());
    let mut asked = 0;
    while !server.has_ended() {
        // It may end meanwhile.
        if let Ok(mut stream) = std::net::TcpStream::connect(server.addr().to_string()) {
            let request = "GET /plain/a.txt HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
            let _ = std::io::Write::write_all(&mut stream, request.as_bytes());
            let mut reply = Vec::new();
            let _ = std::io::Read::read_to_end(&mut stream, &mut reply);
            asked += usize::from(!reply.is_empty());
        }
    }
    let (code, log) = server.wait();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("The time of this server is over"), "{log}");
    assert!(asked > 1, "{log}");
}

#[test]
fn one_file_is_served_at_the_root_and_nothing_beside_it() {
    let tree = Tree::new();
    let path = tree.path("only one.txt");
    fs::write(&path, "first").unwrap();
    fs::write(tree.path("beside"), "not for clients").unwrap();
    let server = Server::start("file-server", &["0", "--root", path.to_str().unwrap()]);
    let reply = ask(&server, get("/"));
    assert_eq!((reply.status, reply.text().as_str()), (200, "first"));
    assert_eq!(
        reply.field("Content-Disposition"),
        "inline; filename=\"only one.txt\"; filename*=UTF-8''only%20one.txt"
    );
    for target in ["/beside", "/only%20one.txt", "/x/", "/../beside", "/?json"] {
        let status = ask(&server, get(target)).status;
        let want = match target {
            "/?json" => 200,
            _ => 404,
        };
        assert_eq!(status, want, "{target}");
    }
    let put = "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx";
    assert_eq!(ask(&server, put).status, 403);
    let mut refused = Command::new(program("file-server"));
    refused.args(["0", "--manage", "--root"]).arg(&path);
    run_command(refused, b"").expect(2).check_says(
        "file-server: --manage does not go with a file as the --root, which is read-only \
         (see file-server --help)\n",
    );
    // Replaced as an editor does it.
    fs::write(tree.path("next"), "second").unwrap();
    fs::rename(tree.path("next"), &path).unwrap();
    assert_eq!(ask(&server, get("/")).text(), "second");
}

#[test]
fn a_prefix_that_the_proxy_leaves_is_not_part_of_a_path() {
    if !has_program("curl") {
        return;
    }
    let tree = Tree::new();
    let server = tree.start(&["--path-prefix", "/deep/files/"]);
    let location = format!(
        "location /deep/files {{ proxy_pass http://{}; }}",
        server.addr()
    );
    let Some(proxy) = Nginx::start("", &location) else {
        return;
    };
    let curl = |args: &[&str], path: &str| {
        let mut command = Command::new("curl");
        command.args([
            "--silent",
            "--location",
            "--max-time",
            "30",
            "--write-out",
            " %{http_code}",
        ]);
        command
            .args(args)
            .arg(format!("http://{}{path}", proxy.addr));
        run_command(command, b"").expect(0).out()
    };
    let a = fs::read_to_string(tree.root("plain/a.txt")).unwrap();
    assert_eq!(curl(&[], "/deep/files/plain/a.txt"), format!("{a} 200"));
    let listed = curl(&[], "/deep/files?json");
    assert!(listed.contains("\"name\":\"plain\""), "{listed}");
    let listed = curl(&[], "/deep/files/plain?json");
    assert!(listed.contains("\"path\":\"/plain/\""), "{listed}");
    let form = ["--form", "file=@Cargo.toml;filename=form.txt"];
    let sent = curl(&form, "/deep/files/plain/");
    assert!(sent.ends_with(" 200"), "{sent}");
    assert!(tree.root("plain/form.txt").exists());
    // Elsewhere is nothing, and the reply says where to look.
    for target in ["/a.txt", "/deep/a.txt", "/deep/filesa.txt", "/"] {
        let reply = ask(&server, get(target));
        let text = "the files of this server are below /deep/files/\n";
        assert_eq!(
            (reply.status, reply.text().as_str()),
            (404, text),
            "{target}"
        );
    }
    assert_eq!(ask(&server, get("/.quartet/healthz")).status, 200);
    // A browser follows a redirect of a form by a GET, which would look as if the form was stored.
    let form = "POST /deep/files HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx";
    assert_eq!(ask(&server, form).status, 404);
    let to_folder = ask(&server, get("/deep/files"));
    assert_eq!(
        (to_folder.status, to_folder.field("Location")),
        (301, "./files/")
    );
}

#[test]
fn another_machine_reaches_a_server_where_it_says() {
    let Some(network) = Network::new(2) else {
        return;
    };
    if !has_program("curl") {
        return;
    }
    let tree = Tree::new();
    let a = fs::read_to_string(tree.root("plain/a.txt")).unwrap();
    let mut command = network.host(0).command(program("file-server"));
    command.args(["0", "--root"]).arg(tree.path("root"));
    command.args(["--bind", "0.0.0.0", "--path-prefix", "/x", "--qr"]);
    let server = Server::spawn(command);
    let log = server.log();
    let (_, url) = log.split_once("Other machines reach it at ").unwrap();
    let url = url.lines().next().unwrap();
    let host = network.host(0).addr();
    assert!(url.starts_with(&format!("http://{host}:")), "{log}");
    assert!(
        log.contains("--qr: standard error is not a terminal"),
        "{log}"
    );
    let mut curl = network.host(1).command("curl");
    curl.args(["--silent", "--fail", "--max-time", "30"]);
    curl.arg(format!("{url}plain/a.txt"));
    assert_eq!(run_command(curl, b"").expect(0).out(), a);
    // Of one file, others can do no more than read it.
    let mut command = network.host(0).command(program("file-server"));
    command
        .args(["0", "--bind", "0.0.0.0", "--root"])
        .arg(tree.root("plain/a.txt"));
    let one = Server::spawn(command);
    one.wait_for_log(|log| log.contains("everyone can read /"));
    assert!(one.log().contains("root/plain/a.txt\n"), "{}", one.log());
    // On a terminal there is a code, too.
    let mut command = network.host(0).command(program("file-server"));
    command.args(["0", "--root"]).arg(tree.path("root"));
    command.args(["--bind", "0.0.0.0", "--for", "1", "--qr"]);
    let shown = run_command(on_a_terminal("stderr", &command), b"")
        .expect(0)
        .out();
    let code = shown
        .lines()
        .filter(|line| line.contains('\u{2588}'))
        .count();
    assert!(code > 10, "{shown}");
    // Who is alone on his machine is told how others get in.
    let server = tree.start(&["--qr"]);
    server.wait_for_log(|log| log.contains("--bind 0.0.0.0 lets them"));
}
