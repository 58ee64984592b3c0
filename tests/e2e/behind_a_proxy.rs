//! The file service behind nginx, below a prefix that nginx cuts off.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};

use crate::file::Tree;
use crate::harness::{Running, Server, eventually, has_program, run, run_command, skipped};

/// nginx, which is ended when this is dropped, and where it listens.
struct Proxy {
    _running: Running,
    addr: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Proxy {
    /// Starts nginx so that `/files/` is the root of a server; `None` if there is no nginx.
    fn start(server: &Server) -> Option<Self> {
        let mut version = Command::new(NGINX);
        version.arg("-v").stderr(Stdio::null());
        if !version.status().is_ok_and(|status| status.success()) {
            skipped("there is no nginx");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let addr = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let own_folders = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|what| format!("{what}_temp_path {what};\n"))
            .concat();
        let config = format!(
            "daemon off;\nmaster_process off;\npid nginx.pid;\nevents {{}}\nhttp {{\naccess_log off;\n\
             {own_folders}client_max_body_size 0;\nserver {{\nlisten {addr};\n\
             location /files/ {{ proxy_pass http://{}/; }}\n}}\n}}\n",
            server.addr()
        );
        fs::write(dir.path().join("nginx.conf"), config).unwrap();
        let mut command = Command::new(NGINX);
        command
            .args(["-e", "stderr", "-c", "nginx.conf", "-p"])
            .arg(dir.path());
        let running = Running::start(command);
        eventually("nginx listens", || TcpStream::connect(addr).is_ok());
        Some(Self {
            _running: running,
            addr,
            _dir: dir,
        })
    }

    /// What curl prints when it follows where it is sent.
    #[track_caller]
    fn curl(&self, args: &[&str], path: &str) -> String {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--location", "--max-time", "30"]);
        command
            .args(args)
            .arg(format!("http://{}{path}", self.addr));
        run_command(command, b"").expect(0).out()
    }
}

/// Debian has it where only root looks.
const NGINX: &str = "/usr/sbin/nginx";

#[test]
fn whoever_is_sent_elsewhere_stays_below_the_prefix() {
    if !has_program("curl") {
        return;
    }
    let tree = Tree::new();
    let server = tree.start(&[]);
    let Some(proxy) = Proxy::start(&server) else {
        return;
    };
    // A folder without its slash, with a page and without one, and with a query.
    let page = fs::read_to_string(tree.root("site/index.html")).unwrap();
    assert_eq!(proxy.curl(&[], "/files/site"), page);
    let listed = proxy.curl(&[], "/files/plain?json");
    assert!(listed.contains("\"path\":\"/plain/\""), "{listed}");
    let place = [
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_code} %{url_effective}",
    ];
    let url = format!("http://{}/files/plain/", proxy.addr);
    assert_eq!(proxy.curl(&place, "/files/plain"), format!("200 {url}"));
    // A form sends back to the folder.
    let form = ["--form", "file=@Cargo.toml;filename=form.txt"];
    assert_eq!(
        proxy.curl(&[&form[..], &place].concat(), "/files/plain/"),
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
