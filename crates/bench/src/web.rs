//! HTTP under load: the file server beside nginx, the code server, and both beside the bare responder.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddrV4;
use std::path::Path;
use std::process::Stdio;

use proto::code::{CodeRequest, MessageRequest, Reply};
use proto::http::request::put_head;
use proto::http::{BodyLength, ResponseHead};
use tempfile::TempDir;
use uuid::Uuid;

use crate::contestant::{Clients, Contestant, Lab};
use crate::conversation::Wrong;
use crate::error::Error;
use crate::process::{Process, free_addr};
use crate::served::{Served, fixed_talk};
use crate::target::{Target, certify};

/// A file that the file server has in memory, in bytes.
pub const SMALL_BYTES: usize = 600;

/// A file that it has open, in bytes.
pub const MEDIUM_BYTES: usize = 44_000;

/// The UUID whose code is asked for.
const UUID: Uuid = Uuid::from_u128(0x67e5_5044_10b1_426f_9247_bb68_0e5f_e0c8);

/// Which web server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Web {
    /// Ours.
    Ours,
    /// nginx.
    Nginx,
    /// Ours over TLS.
    OursTls,
    /// nginx over TLS.
    NginxTls,
}

/// The configuration of nginx. `USER` is a line that only root may have, and must.
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
    server { listen 127.0.0.1:PORTSSL; root DIR/root; }
}
";

/// What stands behind the port of nginx for TLS.
const NGINX_SSL: &str =
    " ssl; ssl_certificate DIR/cert.pem; ssl_certificate_key DIR/key.pem; ssl_protocols TLSv1.3";

/// Starts a web server on the folder `root` in `dir`, which is made.
///
/// # Errors
/// If it is not installed or cannot be started.
pub fn start_web(web: Web, dir: &Path) -> Result<(Process, Target), Error> {
    const PLAIN: [&str; 5] = ["PORT", "--root", "DIR/root", "--idle-exit", "0"];
    const SECURED: [&str; 4] = ["--tls-cert", "DIR/cert.pem", "--tls-key", "DIR/key.pem"];
    fs::create_dir(dir.join("root")).map_err(Error::io("make the root"))?;
    let (process, tls) = match web {
        Web::Ours => (Process::start("file-server", &PLAIN, dir)?, None),
        Web::OursTls => {
            let tls = certify(dir)?;
            let args = [&PLAIN[..], &SECURED].concat();
            (Process::start("file-server", &args, dir)?, Some(tls))
        }
        Web::Nginx => (start_nginx("", dir)?, None),
        Web::NginxTls => {
            let tls = certify(dir)?;
            (start_nginx(NGINX_SSL, dir)?, Some(tls))
        }
    };
    let addr = process.addr();
    Ok((process, Target { addr, tls }))
}

/// Starts nginx; `ssl` is what stands behind its port.
fn start_nginx(ssl: &str, dir: &Path) -> Result<Process, Error> {
    let addr = free_addr()?;
    let user = match rustix::process::geteuid().is_root() {
        true => "user root;",
        false => "",
    };
    let config = NGINX_CONF
        .replace("USER", user)
        .replace("SSL", ssl)
        .replace("PORT", &addr.port().to_string())
        .replace("DIR", &dir.to_string_lossy());
    let written = fs::write(dir.join("nginx.conf"), config);
    written.map_err(Error::io("write a configuration"))?;
    let args = ["-c", "DIR/nginx.conf", "-e", "DIR/error.log"];
    let mut nginx = Process::spawn("nginx", &args, dir, addr, Stdio::null())?;
    nginx.connect()?;
    Ok(nginx)
}

/// A request with this body; a `GET` has none.
pub fn request(addr: SocketAddrV4, method: &str, path: &str, body: &str) -> Vec<u8> {
    let length = body.len().to_string();
    let fields = [
        ("Content-Type", "application/json"),
        ("Content-Length", length.as_str()),
    ];
    let fields = if method == "GET" { &[][..] } else { &fields };
    let mut request = Vec::new();
    put_head(&mut request, method, path, &addr.to_string(), fields);
    request.extend_from_slice(body.as_bytes());
    request
}

/// Asks once; returns the whole reply, and where its body begins.
fn exchange(target: &Target, request: &[u8]) -> Result<(Vec<u8>, usize), Error> {
    let mut stream = target.connect()?;
    stream.write_all(request).map_err(Error::io("send"))?;
    let mut reply = Vec::new();
    let mut piece = [0; 16 * 1024];
    loop {
        let bytes = stream.read(&mut piece).map_err(Error::io("read"))?;
        reply.extend_from_slice(&piece[..bytes]);
        let wrong = || Wrong::new("HTTP/1.1 200 with a length", &reply);
        if bytes == 0 {
            return Err(wrong().into());
        }
        let mut rest = &reply[..];
        let Ok(head) = ResponseHead::read(&mut rest, "GET") else {
            continue;
        };
        let body = reply.len() - rest.len();
        match head.body {
            BodyLength::Bytes(length) if head.status == 200 => {
                if rest.len() as u64 == length {
                    return Ok((reply, body));
                }
            }
            _ => return Err(wrong().into()),
        }
    }
}

/// A server that always gives the same reply to the same request, and the first exchange with it.
struct Asked {
    process: Process,
    target: Target,
    request: Vec<u8>,
    reply: Vec<u8>,
    /// Where the reply's body begins.
    body: usize,
}

impl Asked {
    fn new(process: Process, target: Target, request: Vec<u8>) -> Result<Self, Error> {
        let (reply, body) = exchange(&target, &request)?;
        Ok(Self {
            process,
            target,
            request,
            reply,
            body,
        })
    }

    /// A web server, asked for a file of this length.
    fn file(dir: &Path, web: Web, bytes: usize) -> Result<Self, Error> {
        let (process, target) = start_web(web, dir)?;
        let content: Vec<u8> = (0..=250).cycle().take(bytes).collect();
        let written = fs::write(dir.join("root/file.bin"), &content);
        written.map_err(Error::io("write the file to serve"))?;
        let get = request(target.addr, "GET", "/file.bin", "");
        let asked = Self::new(process, target, get)?;
        match asked.reply[asked.body..] == content {
            true => Ok(asked),
            false => Err(Wrong::new("the file", &asked.reply).into()),
        }
    }

    /// The code server, asked for the code of [`UUID`], which it knows from then on.
    fn code(dir: &Path, messages: SocketAddrV4) -> Result<Self, Error> {
        let port = messages.port().to_string();
        let process = Process::start("code-server", &["PORT", &port, "--data-dir", "DIR"], dir)?;
        let body = CodeRequest { uuid: UUID }.encode();
        let target = Target::from(process.addr());
        let request = request(target.addr, "POST", "/", &body);
        Self::new(process, target, request)
    }

    fn under_load(self, lab: &Lab, clients: Clients, dir: TempDir) -> Box<dyn Contestant> {
        let talk = fixed_talk(self.request, &self.reply);
        let mut served = Served::new(lab, clients, self.process, talk, dir);
        served.target = self.target;
        Box::new(served)
    }
}

/// A web server under load: `GET` of a file of this length, in bytes.
///
/// # Errors
/// If it is not installed, or gives something else.
pub fn file(
    lab: &Lab,
    clients: Clients,
    web: Web,
    bytes: usize,
) -> Result<Box<dyn Contestant>, Error> {
    let dir = lab.dir()?;
    Ok(Asked::file(dir.path(), web, bytes)?.under_load(lab, clients, dir))
}

/// The code server, asked for the code of a UUID that it knows.
///
/// # Errors
/// If it cannot be started.
pub fn codes(lab: &Lab, clients: Clients) -> Result<Box<dyn Contestant>, Error> {
    let dir = lab.dir()?;
    Ok(Asked::code(dir.path(), free_addr()?)?.under_load(lab, clients, dir))
}

/// The code server, given messages that it puts on the disk.
///
/// # Errors
/// If it cannot be started.
pub fn code_messages(lab: &Lab, clients: Clients) -> Result<Box<dyn Contestant>, Error> {
    let (dir, addr) = (lab.dir()?, free_addr()?);
    let asked = Asked::code(dir.path(), addr)?;
    let Ok(Reply::Code(code)) = Reply::decode(&asked.reply[asked.body..]) else {
        return Err(Wrong::new("a code", &asked.reply).into());
    };
    let message = MessageRequest {
        uuid: UUID,
        unique: code.to_string(),
        text: "A message as a client leaves it".to_owned(),
    };
    let request = request(addr, "POST", "/", &message.encode());
    let (reply, _) = exchange(&addr.into(), &request)?;
    // The first is there already.
    let lines = (dir.path().join("messages.log"), 1);
    let talk = fixed_talk(request, &reply);
    let mut served = Served::new(lab, clients, asked.process, talk, dir);
    served.target = addr.into();
    served.lines = Some(lines);
    Ok(Box::new(served))
}

/// Whose replies the bare responder repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeated {
    /// Those of the code server to a known UUID.
    Code,
    /// Those of the file server to the small file.
    File,
}

/// The bare responder, sending what our server would.
///
/// # Errors
/// If one of the two cannot be started.
pub fn responder(
    lab: &Lab,
    clients: Clients,
    repeated: Repeated,
) -> Result<Box<dyn Contestant>, Error> {
    let dir = lab.dir()?;
    let asked = match repeated {
        Repeated::Code => Asked::code(dir.path(), free_addr()?)?,
        Repeated::File => Asked::file(dir.path(), Web::Ours, SMALL_BYTES)?,
    };
    let Asked { request, reply, .. } = asked;
    let written = fs::write(dir.path().join("reply"), &reply);
    written.map_err(Error::io("write the reply"))?;
    let head = request.windows(4).position(|four| four == b"\r\n\r\n");
    let body_bytes = head.map_or(0, |end| request.len() - end - 4).to_string();
    let args = ["respond", "PORT", "DIR/reply", &body_bytes];
    let process = Process::start("bench", &args, dir.path())?;
    let target = process.addr().into();
    Asked::new(process, target, request).map(|asked| asked.under_load(lab, clients, dir))
}
