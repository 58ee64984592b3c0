//! A server under load: what most sides of most rows are.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use proto::code::{CodeRequest, MessageRequest, Reply as CodeReply};
use proto::frame::{self, Message as _};
use proto::history;
use proto::http::request::put_head;
use proto::http::{BodyLength, ResponseHead};
use tempfile::TempDir;
use uuid::Uuid;

use crate::contestant::{Contestant, Lab, Sample, require_descriptors};
use crate::conversation::{
    BeanstalkTalk, Conversation, FixedTalk, HttpTalk, Ledger, Messages, QueueTalk, RedisTalk, Work,
    Wrong,
};
use crate::error::Error;
use crate::figures;
use crate::load::{self, Connection, Load, Until};
use crate::process::{Process, free_port};

/// How long a single reply may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Descriptors the bench and a server need besides idle connections.
const DESCRIPTORS_SPARE: usize = 400;

/// Makes the conversation of a new connection.
type NewTalk = Box<dyn FnMut() -> Box<dyn Conversation>>;

/// A server, and the load it is put under.
// The order matters: the process ends first, then connections close, then the folder goes.
pub struct Served {
    process: Process,
    addr: SocketAddrV4,
    load: Load,
    talk: NewTalk,
    after: After,
    idle: Vec<Connection>,
    note: &'static str,
    _dir: TempDir,
}

/// What is checked at the end.
enum After {
    Nothing,
    /// That each message came out again that went in. `drain` takes out what was queued first.
    Messages {
        ledger: Arc<Ledger>,
        drain: NewTalk,
    },
    /// That the file has as many lines as there were operations.
    Lines {
        path: PathBuf,
        lines: u64,
    },
}

impl Contestant for Served {
    fn commands(&self) -> String {
        format!("`{}`{}", self.process.command(), self.note)
    }

    fn round(&mut self) -> Result<Sample, Error> {
        let pid = self.process.pid();
        let outcome = load::run(self.addr.into(), self.load, pid, &mut self.talk)?;
        if let After::Lines { lines, .. } = &mut self.after {
            *lines += outcome.operations_in_all;
        }
        let operations = outcome.operations as f64;
        let secs = outcome.elapsed.as_secs_f64();
        Ok(Sample {
            value: operations / secs,
            generator_busy: Some(outcome.generator.as_secs_f64() / secs),
            processor_micros: Some(outcome.processor.as_secs_f64() * 1e6 / operations),
            latency_nanos: Some(outcome.latency_nanos),
        })
    }

    fn memory_peak_bytes(&self) -> Option<u64> {
        figures::memory_peak_bytes(self.process.pid()).ok()
    }

    fn finish(&mut self) -> Result<(), Error> {
        self.idle.clear();
        match &mut self.after {
            After::Nothing => Ok(()),
            After::Messages { ledger, drain } => {
                let (pid, queued) = (self.process.pid(), ledger.queued());
                move_messages(self.addr, pid, queued, drain)?;
                ledger.check()
            }
            After::Lines { path, lines } => {
                let found = count_lines(path)?;
                if found == *lines {
                    return Ok(());
                }
                let got = format!("{found} lines in the file, {lines} operations");
                Err(Wrong::new("a line for each operation", got.as_bytes()).into())
            }
        }
    }
}

/// Sends or receives so many messages, many at a time.
fn move_messages(
    addr: SocketAddrV4,
    pid: u32,
    messages: u64,
    talk: &mut NewTalk,
) -> Result<(), Error> {
    const CONNECTIONS: usize = 8;
    const IN_FLIGHT: usize = 125;
    const AT_ONCE: u64 = (CONNECTIONS * IN_FLIGHT) as u64;
    let (connections, in_flight, batches) = match messages {
        0 => return Ok(()),
        many if many % AT_ONCE == 0 => (CONNECTIONS, IN_FLIGHT, many / AT_ONCE),
        few => (1, few as usize, 1),
    };
    let load = Load {
        connections,
        in_flight,
        threads: 1,
        until: Until::Batches(batches),
    };
    load::run(addr.into(), load, pid, talk).map(drop)
}

fn count_lines(path: &Path) -> Result<u64, Error> {
    let shown = || Error::io("read back what was stored");
    let file = File::open(path).map_err(shown())?;
    let mut input = BufReader::with_capacity(1 << 20, file);
    let mut lines = 0;
    loop {
        let bytes = input.fill_buf().map_err(shown())?;
        if bytes.is_empty() {
            return Ok(lines);
        }
        lines += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        let taken = bytes.len();
        input.consume(taken);
    }
}

/// Starts a server that is given its port as `PORT` in `args` and its folder as `DIR`, and waits
/// until it listens.
///
/// # Errors
/// If it is not installed, or ends instead.
pub fn start(
    program: &'static str,
    args: &[&str],
    dir: &Path,
) -> Result<(Process, SocketAddrV4), Error> {
    let addr = SocketAddrV4::new(Ipv4Addr::LOCALHOST, free_port()?);
    let mut process = start_on(program, args, dir, addr)?;
    process.connect(addr)?;
    Ok((process, addr))
}

/// The same, on a given port, and without waiting.
///
/// # Errors
/// If it is not installed.
pub fn start_on(
    program: &'static str,
    args: &[&str],
    dir: &Path,
    addr: SocketAddrV4,
) -> Result<Process, Error> {
    let port = addr.port().to_string();
    let folder = dir.to_string_lossy();
    let fill = |arg: &&str| arg.replace("PORT", &port).replace("DIR", &folder).into();
    let filled: Vec<OsString> = args.iter().map(fill).collect();
    let quote = |arg: &&str| match arg.is_empty() {
        true => "''".to_owned(),
        false => (*arg).to_owned(),
    };
    let shown: Vec<String> = args.iter().map(quote).collect();
    Process::start(program, &filled, dir, Stdio::null(), &shown.join(" "))
}

/// The load of a row.
pub fn timed(lab: &Lab, connections: usize, in_flight: usize) -> Load {
    Load {
        connections,
        in_flight,
        threads: lab.scale.generator_threads,
        until: Until::Time {
            warm_up: lab.scale.warm_up,
            measured: lab.scale.measured,
        },
    }
}

/// The arguments of our queue.
pub fn queue_args(is_durable: bool, connections: usize) -> Vec<String> {
    let mut args = vec!["PORT".to_owned(), "TCP".to_owned()];
    if is_durable {
        args.extend(["--data", "DIR/queue.db"].map(String::from));
    }
    // The default suits all rows but those with ten thousand connections.
    if connections > 1000 {
        args.extend([
            "--max-connections".to_owned(),
            (connections + 300).to_string(),
        ]);
    }
    args
}

/// Our queue, with messages queued and idle connections beforehand.
///
/// # Errors
/// If it cannot be started, or descriptors are too few.
pub fn queue(
    lab: &Lab,
    load: Load,
    is_durable: bool,
    queued: u64,
    idle: usize,
) -> Result<Served, Error> {
    if is_durable {
        lab.require_disk()?;
    }
    require_descriptors((load.connections + idle + DESCRIPTORS_SPARE) as u64)?;
    let dir = lab.dir()?;
    let args = queue_args(is_durable, idle);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (process, addr) = start("queue-server", &args, dir.path())?;
    let ledger = Arc::new(Ledger::default());
    let talk = |work| queue_talk(&ledger, work);
    move_messages(addr, process.pid(), queued, &mut talk(Work::Fill))?;
    let mut exchange = talk(Work::SendAndReceive);
    let idle = match idle {
        0 => Vec::new(),
        // Each has sent and received a message, so that it had its buffers once.
        idle => load::burst(addr, idle, 2, &mut exchange)?.0,
    };
    Ok(Served {
        process,
        addr,
        load,
        talk: talk(Work::SendAndReceive),
        after: After::Messages {
            drain: talk(Work::Drain),
            ledger: Arc::clone(&ledger),
        },
        idle,
        note: "",
        _dir: dir,
    })
}

/// Makes conversations with our queue.
pub fn queue_talk(ledger: &Arc<Ledger>, work: Work) -> NewTalk {
    let ledger = Arc::clone(ledger);
    Box::new(move || Box::new(QueueTalk::new(Messages::new(&ledger), work)))
}

/// Fills a queue that runs already.
///
/// # Errors
/// If it is lost or answers wrongly.
pub fn fill_queue(addr: SocketAddrV4, pid: u32, messages: u64) -> Result<(), Error> {
    let ledger = Arc::new(Ledger::default());
    move_messages(addr, pid, messages, &mut queue_talk(&ledger, Work::Fill))
}

/// Redis.
///
/// # Errors
/// If it is not installed or cannot be started.
pub fn redis(lab: &Lab, load: Load, is_durable: bool) -> Result<Served, Error> {
    let mut args = vec!["--port", "PORT", "--bind", "127.0.0.1", "--dir", "DIR"];
    args.extend(["--save", ""]);
    match is_durable {
        true => args.extend(["--appendonly", "yes", "--appendfsync", "always"]),
        false => args.extend(["--appendonly", "no"]),
    }
    messages_peer(lab, load, is_durable, "redis-server", &args, |messages| {
        Box::new(RedisTalk::new(messages, Work::SendAndReceive))
    })
}

/// beanstalkd.
///
/// # Errors
/// If it is not installed or cannot be started.
pub fn beanstalkd(lab: &Lab, load: Load, is_durable: bool) -> Result<Served, Error> {
    let mut args = vec!["-l", "127.0.0.1", "-p", "PORT"];
    if is_durable {
        args.extend(["-b", "DIR", "-f0"]);
    }
    messages_peer(lab, load, is_durable, "beanstalkd", &args, |messages| {
        Box::new(BeanstalkTalk::new(messages))
    })
}

fn messages_peer(
    lab: &Lab,
    load: Load,
    is_durable: bool,
    program: &'static str,
    args: &[&str],
    talk: fn(Messages) -> Box<dyn Conversation>,
) -> Result<Served, Error> {
    if is_durable {
        lab.require_disk()?;
    }
    let dir = lab.dir()?;
    let (process, addr) = start(program, args, dir.path())?;
    let ledger = Arc::new(Ledger::default());
    let new_talk = || -> NewTalk {
        let ledger = Arc::clone(&ledger);
        Box::new(move || talk(Messages::new(&ledger)))
    };
    Ok(Served {
        process,
        addr,
        load,
        talk: new_talk(),
        after: After::Messages {
            drain: new_talk(),
            ledger: Arc::clone(&ledger),
        },
        idle: Vec::new(),
        note: "",
        _dir: dir,
    })
}

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
    let addr = SocketAddrV4::new(Ipv4Addr::LOCALHOST, free_port()?);
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
    Ok(Served {
        process,
        addr,
        load,
        talk: http_talk(request, body),
        after: After::Nothing,
        idle: Vec::new(),
        note,
        _dir: dir,
    })
}

/// A `GET`, as small as a client may make it.
pub fn get_request(addr: SocketAddrV4, path: &str) -> Vec<u8> {
    let mut request = Vec::new();
    put_head(&mut request, "GET", path, &addr.to_string(), &[]);
    request
}

fn post_request(addr: SocketAddrV4, body: &str) -> Vec<u8> {
    let length = body.len().to_string();
    let fields = [
        ("Content-Type", "application/json"),
        ("Content-Length", length.as_str()),
    ];
    let mut request = Vec::new();
    put_head(&mut request, "POST", "/", &addr.to_string(), &fields);
    request.extend_from_slice(body.as_bytes());
    request
}

fn http_talk(request: Arc<[u8]>, body: Arc<[u8]>) -> NewTalk {
    Box::new(move || Box::new(HttpTalk::new(Arc::clone(&request), Arc::clone(&body))))
}

/// Bytes that look random and are always the same (xorshift64*).
pub fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    };
    let mut noise: Vec<u8> = (0..bytes.div_ceil(8))
        .flat_map(|_| next().to_le_bytes())
        .collect();
    noise.truncate(bytes);
    noise
}

/// The code server, its two ports, and a UUID that it knows.
struct Codes {
    process: Process,
    codes: SocketAddrV4,
    messages: SocketAddrV4,
    uuid: Uuid,
    /// The whole first reply, and its body.
    reply: Vec<u8>,
    body: Vec<u8>,
}

fn start_codes(dir: &Path) -> Result<Codes, Error> {
    let messages = SocketAddrV4::new(Ipv4Addr::LOCALHOST, free_port()?);
    let second = messages.port().to_string();
    let args = ["PORT", &second, "--data-dir", "DIR"];
    let (mut process, codes) = start("code-server", &args, dir)?;
    process.connect(messages)?;
    let uuid = Uuid::from_u128(0x67e5_5044_10b1_426f_9247_bb68_0e5f_e0c8);
    let request = post_request(codes, &CodeRequest { uuid }.encode());
    let (reply, body) = http_exchange(codes, &request)?;
    Ok(Codes {
        process,
        codes,
        messages,
        uuid,
        reply,
        body,
    })
}

/// The code server, asked for the code of a UUID that it knows.
///
/// # Errors
/// If it cannot be started.
pub fn codes(lab: &Lab, load: Load) -> Result<Served, Error> {
    let dir = lab.dir()?;
    let server = start_codes(dir.path())?;
    let request = CodeRequest { uuid: server.uuid }.encode();
    let request = post_request(server.codes, &request);
    Ok(Served {
        talk: http_talk(request.into(), server.body.into()),
        process: server.process,
        addr: server.codes,
        load,
        after: After::Nothing,
        idle: Vec::new(),
        note: "",
        _dir: dir,
    })
}

/// The code server, left messages that it puts on the disk.
///
/// # Errors
/// If it cannot be started.
pub fn code_messages(lab: &Lab, load: Load) -> Result<Served, Error> {
    lab.require_disk()?;
    let dir = lab.dir()?;
    let server = start_codes(dir.path())?;
    let CodeReply::Code(code) =
        CodeReply::decode(&server.body).map_err(|_| Wrong::new("a code in JSON", &server.body))?
    else {
        return Err(Wrong::new("a code", &server.body).into());
    };
    let request = MessageRequest {
        uuid: server.uuid,
        unique: code.to_string(),
        text: "A message as a client leaves it".to_owned(),
    };
    let request = post_request(server.messages, &request.encode());
    let body = CodeReply::Logged.to_json().into_bytes();
    Ok(Served {
        process: server.process,
        addr: server.messages,
        load,
        talk: http_talk(request.into(), body.into()),
        after: After::Lines {
            path: dir.path().join("messages.log"),
            lines: 0,
        },
        idle: Vec::new(),
        note: "",
        _dir: dir,
    })
}

/// The history, greeted over and over; each greeting is a line in it.
///
/// # Errors
/// If it cannot be started.
pub fn history(lab: &Lab, load: Load) -> Result<Served, Error> {
    lab.require_disk()?;
    let dir = lab.dir()?;
    let (process, addr) = start("history-server", &["PORT", "--data-dir", "DIR"], dir.path())?;
    let mut request = Vec::new();
    let hello = history::Request {
        user: "alice",
        operation: history::Operation::Hello,
    };
    hello.encode(&mut request);
    let reply: Arc<[u8]> = hello_reply(addr, &request)?.into();
    let request: Arc<[u8]> = request.into();
    Ok(Served {
        process,
        addr,
        load,
        talk: Box::new(move || Box::new(FixedTalk::new(Arc::clone(&request), Arc::clone(&reply)))),
        after: After::Lines {
            path: dir.path().join("history.txt"),
            lines: 1,
        },
        idle: Vec::new(),
        note: "",
        _dir: dir,
    })
}

/// The frames with which the history answers a greeting.
fn hello_reply(addr: SocketAddrV4, request: &[u8]) -> Result<Vec<u8>, Error> {
    let mut stream = connect(addr)?;
    stream.write_all(request).map_err(Error::io("send"))?;
    let mut input = BufReader::new(stream);
    let mut reply = Vec::new();
    let mut payload = Vec::new();
    loop {
        let kind = frame::read(&mut input, frame::PAYLOAD_BYTES_MAX, &mut payload);
        let Ok(Some(kind)) = kind else {
            return Err(Wrong::new("a frame", &payload).into());
        };
        frame::put(&mut reply, kind, |out| out.extend_from_slice(&payload));
        match history::Reply::decode(kind, &payload) {
            Ok(history::Reply::About(_)) => {}
            Ok(history::Reply::Done("")) => return Ok(reply),
            _ => return Err(Wrong::new("a greeting", &payload).into()),
        }
    }
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
            let codes = start_codes(dir.path())?;
            let asked = CodeRequest { uuid: codes.uuid }.encode();
            let request = post_request(codes.codes, &asked);
            (request, codes.reply, codes.body, asked.len())
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
    let (process, addr) = start("bench", &args, dir.path())?;
    Ok(Served {
        process,
        addr,
        load,
        talk: http_talk(request.into(), body.into()),
        after: After::Nothing,
        idle: Vec::new(),
        note: "",
        _dir: dir,
    })
}

/// A connection that gives up in time.
///
/// # Errors
/// If it cannot be made.
pub fn connect(addr: SocketAddrV4) -> Result<TcpStream, Error> {
    let connect = || {
        let stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    connect().map_err(Error::io(format!("connect to {addr}")))
}

/// Asks once; returns the whole reply, and its body.
fn http_exchange(addr: SocketAddrV4, request: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Error> {
    let mut stream = connect(addr)?;
    stream.write_all(request).map_err(Error::io("send"))?;
    let mut reply = Vec::new();
    let mut piece = [0; 16 * 1024];
    loop {
        let bytes = stream.read(&mut piece).map_err(Error::io("read"))?;
        if bytes == 0 {
            return Err(Wrong::new("a whole reply", &reply).into());
        }
        reply.extend_from_slice(&piece[..bytes]);
        let Some(end) = reply.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let (head, body) = reply.split_at(end + 4);
        let wrong = || Wrong::new("HTTP/1.1 200 with a length", &reply);
        let parsed = ResponseHead::read(&mut &head[..], "GET").map_err(|_| wrong())?;
        match parsed.body {
            BodyLength::Bytes(length) if parsed.status == 200 => {
                if body.len() as u64 == length {
                    let body = body.to_vec();
                    return Ok((reply, body));
                }
            }
            _ => return Err(wrong().into()),
        }
    }
}
