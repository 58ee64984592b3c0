//! Web servers under load: ours, nginx, lighttpd, and the bare responder.

use std::fs;
use std::net::SocketAddrV4;
use std::path::Path;
use std::sync::Arc;

use super::http::{get_request, http_exchange, http_talk};
use super::records::Codes;
use super::{Served, noise, start, start_on};
use crate::contestant::Lab;
use crate::error::Error;
use crate::load::Load;
use crate::process::{Process, free_addr};

/// Which web server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Web {
    /// Ours.
    Ours,
    /// nginx.
    Nginx,
    /// lighttpd.
    Lighttpd,
}

/// The configuration of nginx. `USER` is a line that only root may, and must, have.
const NGINX_CONF: &str = "\
daemon off;
USER
worker_processes 2;
pid DIR/nginx.pid;
error_log DIR/error.log;
events { worker_connections 1024; }
http {
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000000;
    client_body_temp_path DIR/body;
    proxy_temp_path DIR/proxy;
    fastcgi_temp_path DIR/fastcgi;
    uwsgi_temp_path DIR/uwsgi;
    scgi_temp_path DIR/scgi;
    server { listen 127.0.0.1:PORT; root DIR/root; }
}
";

/// The configuration of lighttpd.
const LIGHTTPD_CONF: &str = "\
server.bind = \"127.0.0.1\"
server.port = PORT
server.document-root = \"DIR/root\"
server.errorlog = \"DIR/error.log\"
server.max-keep-alive-requests = 65535
";

/// What stands behind the command line of nginx.
const NGINX_NOTE: &str = " (`worker_processes 2; sendfile on; tcp_nopush on; access_log off; \
                          keepalive_requests 1000000000;`)";

/// What stands behind the command line of lighttpd.
const LIGHTTPD_NOTE: &str = " (`server.max-keep-alive-requests = 65535`)";

/// Starts a web server on the folder `root` in `dir`.
///
/// # Errors
/// If it is not installed or cannot be started.
pub fn start_web(web: Web, dir: &Path) -> Result<(Process, SocketAddrV4, &'static str), Error> {
    let addr = free_addr()?;
    let configure = |name: &str, text: &str| {
        let user = match rustix::process::geteuid().is_root() {
            true => "user root;",
            false => "",
        };
        let text = text
            .replace("USER", user)
            .replace("PORT", &addr.port().to_string())
            .replace("DIR", &dir.to_string_lossy());
        fs::write(dir.join(name), text).map_err(Error::io("write a configuration"))
    };
    let (program, args, note): (_, &[&str], _) = match web {
        Web::Ours => {
            let args = &["PORT", "--root", "DIR/root", "--idle-exit", "0"];
            ("file-server", args, "")
        }
        Web::Nginx => {
            configure("nginx.conf", NGINX_CONF)?;
            let args = &["-c", "DIR/nginx.conf", "-e", "DIR/error.log"];
            ("nginx", args, NGINX_NOTE)
        }
        Web::Lighttpd => {
            configure("lighttpd.conf", LIGHTTPD_CONF)?;
            (
                "lighttpd",
                &["-D", "-f", "DIR/lighttpd.conf"],
                LIGHTTPD_NOTE,
            )
        }
    };
    let mut process = start_on(program, args, dir, addr)?;
    process.connect(addr)?;
    Ok((process, addr, note))
}

/// A web server under load: `GET` of one file of so many bytes.
///
/// # Errors
/// If it is not installed or cannot be started.
pub fn file(lab: &Lab, load: Load, web: Web, bytes: usize) -> Result<Served, Error> {
    let dir = lab.dir()?;
    let root = dir.path().join("root");
    let body = noise(bytes, 1);
    let written = fs::create_dir(&root).and_then(|()| fs::write(root.join("file.bin"), &body));
    written.map_err(Error::io("write the file to serve"))?;
    let (process, addr, note) = start_web(web, dir.path())?;
    let request: Arc<[u8]> = get_request(addr, "/file.bin").into();
    let body: Arc<[u8]> = body.into();
    let talk = http_talk(request, body);
    Ok(Served {
        note,
        ..Served::new((process, addr), load, talk, dir)
    })
}

/// Whose replies the bare responder repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeated {
    /// Those of the code server to a known UUID.
    Code,
    /// Those of the file server to a file of so many bytes.
    File(usize),
}

/// The bare responder, sending what our server would.
///
/// # Errors
/// If one of the two cannot be started.
pub fn responder(lab: &Lab, load: Load, repeated: Repeated) -> Result<Served, Error> {
    let dir = lab.dir()?;
    let (request, reply, body, body_bytes) = match repeated {
        Repeated::Code => {
            let codes = Codes::start(dir.path())?;
            (
                codes.request,
                codes.reply,
                codes.body,
                codes.request_body_bytes,
            )
        }
        Repeated::File(bytes) => {
            let ours = file(lab, load, Web::Ours, bytes)?;
            let request = get_request(ours.addr, "/file.bin");
            let (reply, body) = http_exchange(ours.addr, &request)?;
            (request, reply, body, 0)
        }
    };
    let written = fs::write(dir.path().join("reply"), reply);
    written.map_err(Error::io("write the reply"))?;
    let body_bytes = body_bytes.to_string();
    let args = ["respond", "PORT", "DIR/reply", &body_bytes];
    let server = start("bench", &args, dir.path())?;
    let talk = http_talk(request.into(), body.into());
    Ok(Served::new(server, load, talk, dir))
}
