//! A HAProxy in front of servers.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::{Running, eventually, skipped};

/// Debian has it where only root looks.
const HAPROXY: &str = "/usr/sbin/haproxy";

/// HAProxy, which is ended when this is dropped.
pub struct Haproxy {
    _running: Running,
    _dir: TempDir,
}

impl Haproxy {
    /// Starts it with this configuration, and waits until it listens at this address of it; `None` if there is no
    /// HAProxy.
    #[track_caller]
    pub fn start(config: &str, addr: SocketAddr) -> Option<Self> {
        let mut version = Command::new(HAPROXY);
        version.arg("-v").stdout(Stdio::null());
        if !version.status().is_ok_and(|status| status.success()) {
            skipped("there is no HAProxy");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("haproxy.cfg");
        fs::write(&path, config).unwrap();
        let mut command = Command::new(HAPROXY);
        command.arg("-db").arg("-f").arg(&path);
        let running = Running::start(command);
        eventually("HAProxy listens", || {
            TcpStream::connect(addr).is_ok() || running.ended().is_some()
        });
        Some(Self {
            _running: running,
            _dir: dir,
        })
    }
}
