//! An nginx in front of a server.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::door::connect_tcp;
use super::{Carried, Running, Stream, eventually, free_addr, skipped};

/// Debian has it where only root looks.
const NGINX: &str = "/usr/sbin/nginx";

/// nginx, which is ended when this is dropped.
pub struct Nginx {
    _running: Running,
    _dir: TempDir,
    /// Where it listens.
    pub addr: SocketAddr,
}

impl Nginx {
    /// Starts it with these directives, which are for `http` and for its one `server`; `None` if there
    /// is no nginx.
    #[track_caller]
    pub fn start(of_http: &str, of_server: &str) -> Option<Self> {
        let mut version = Command::new(NGINX);
        version.arg("-v").stderr(Stdio::null());
        if !version.status().is_ok_and(|status| status.success()) {
            skipped("there is no nginx");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let addr = free_addr();
        let own_folders = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|what| format!("{what}_temp_path {what};\n"))
            .concat();
        let config = format!(
            "daemon off;\nmaster_process off;\npid nginx.pid;\nevents {{}}\nhttp {{\naccess_log off;\n\
             {own_folders}{of_http}\nserver {{\nlisten {addr};\n{of_server}\n}}\n}}\n"
        );
        fs::write(dir.path().join("nginx.conf"), config).unwrap();
        let mut command = Command::new(NGINX);
        command
            .args(["-e", "stderr", "-c", "nginx.conf", "-p"])
            .arg(dir.path());
        let running = Running::start(command);
        eventually("nginx listens", || {
            TcpStream::connect(addr).is_ok() || running.ended().is_some()
        });
        Some(Self {
            _running: running,
            _dir: dir,
            addr,
        })
    }
    /// A connection to it.
    pub fn connect(&self) -> Stream {
        Stream::new(Carried::Tcp(connect_tcp(self.addr).unwrap()), false)
    }
}
