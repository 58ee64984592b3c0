//! The file service behind nginx, below a prefix that nginx cuts off.

use std::fs;
use std::process::Command;

use crate::file::Tree;
use crate::harness::{Nginx, has_program, run, run_command};

/// What curl prints when it follows where it is sent.
#[track_caller]
fn curl(proxy: &Nginx, args: &[&str], path: &str) -> String {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--location", "--max-time", "30"]);
    command
        .args(args)
        .arg(format!("http://{}{path}", proxy.addr));
    run_command(command, b"").expect(0).out()
}

#[test]
fn a_redirected_client_stays_below_the_prefix() {
    if !has_program("curl") {
        return;
    }
    let tree = Tree::new();
    let server = tree.start(&[]);
    let location = format!(
        "client_max_body_size 0;\nlocation /files/ {{ proxy_pass http://{}/; }}",
        server.addr()
    );
    let Some(proxy) = Nginx::start("", &location) else {
        return;
    };
    // A folder without its slash, with a page and without one, and with a query.
    let page = fs::read_to_string(tree.root("site/index.html")).unwrap();
    assert_eq!(curl(&proxy, &[], "/files/site"), page);
    let listed = curl(&proxy, &[], "/files/plain?json");
    assert!(listed.contains("\"path\":\"/plain/\""), "{listed}");
    let place = [
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_code} %{url_effective}",
    ];
    let url = format!("http://{}/files/plain/", proxy.addr);
    assert_eq!(curl(&proxy, &place, "/files/plain"), format!("200 {url}"));
    // A form sends back to the folder.
    let form = ["--form", "file=@Cargo.toml;filename=form.txt"];
    assert_eq!(
        curl(&proxy, &[&form[..], &place].concat(), "/files/plain/"),
        format!("200 {url}")
    );
    assert!(tree.root("plain/form.txt").exists());
    // And an upload that can be gone on with is gone on with there.
    let port = proxy.addr.port().to_string();
    for path in ["files/whole.bin", "files/plain/deep/whole.bin"] {
        let mine = tree.path("mine");
        fs::write(&mine, vec![7; 300_000]).unwrap();
        let args = [
            "127.0.0.1",
            &port,
            "put",
            mine.to_str().unwrap(),
            path,
            "--resume",
        ];
        run("file-client", &args, b"").expect(0);
        let saved = tree.root(path.strip_prefix("files/").unwrap());
        assert_eq!(fs::read(saved).unwrap(), [7; 300_000]);
    }
}
