//! What keeps records, under load: the codes, the messages and the history.

use std::ffi::OsString;
use std::io::{BufReader, Write};
use std::net::SocketAddrV4;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use proto::code::{CodeRequest, MessageRequest, Reply as CodeReply};
use proto::frame::{self, Message as _};
use proto::history;
use uuid::Uuid;

use super::http::{http_exchange, http_talk, post_request};
use super::{After, NewTalk, Served, connect, start};
use crate::contestant::Lab;
use crate::conversation::{FixedTalk, Wrong};
use crate::error::Error;
use crate::load::Load;
use crate::process::{Process, free_addr};

/// The UUID whose code is asked for.
const UUID: Uuid = Uuid::from_u128(0x67e5_5044_10b1_426f_9247_bb68_0e5f_e0c8);

/// The code server, and the first exchange with it.
pub struct Codes {
    process: Process,
    codes: SocketAddrV4,
    messages: SocketAddrV4,
    /// Asks for the code of [`UUID`].
    pub request: Vec<u8>,
    /// What the request has behind its head, in bytes.
    pub request_body_bytes: usize,
    /// The whole reply.
    pub reply: Vec<u8>,
    /// The reply's body.
    pub body: Vec<u8>,
}

impl Codes {
    /// Starts the server and asks it for a code, so that it knows the UUID.
    ///
    /// # Errors
    /// If it cannot be started, or refuses.
    pub fn start(dir: &Path) -> Result<Self, Error> {
        let (codes, messages) = (free_addr()?, free_addr()?);
        let ports = [codes, messages].map(|addr| OsString::from(addr.port().to_string()));
        let [first, second] = ports;
        let args = [first, second, "--data-dir".into(), dir.into()];
        let shown = "PORT PORT --data-dir DIR";
        let mut process = Process::start("code-server", &args, dir, Stdio::null(), shown)?;
        process.connect(codes)?;
        process.connect(messages)?;
        let asked = CodeRequest { uuid: UUID }.encode();
        let request = post_request(codes, &asked);
        let (reply, body) = http_exchange(codes, &request)?;
        Ok(Self {
            process,
            codes,
            messages,
            request,
            request_body_bytes: asked.len(),
            reply,
            body,
        })
    }
}

/// The code server, asked for the code of a UUID that it knows.
///
/// # Errors
/// If it cannot be started.
pub fn codes(lab: &Lab, load: Load) -> Result<Served, Error> {
    let dir = lab.dir()?;
    let server = Codes::start(dir.path())?;
    let talk = http_talk(server.request.into(), server.body.into());
    Ok(Served::new((server.process, server.codes), load, talk, dir))
}

/// The code server, left messages that it puts on the disk.
///
/// # Errors
/// If it cannot be started.
pub fn code_messages(lab: &Lab, load: Load) -> Result<Served, Error> {
    lab.require_disk()?;
    let dir = lab.dir()?;
    let server = Codes::start(dir.path())?;
    let CodeReply::Code(code) =
        CodeReply::decode(&server.body).map_err(|_| Wrong::new("a code in JSON", &server.body))?
    else {
        return Err(Wrong::new("a code", &server.body).into());
    };
    let request = MessageRequest {
        uuid: UUID,
        unique: code.to_string(),
        text: "A message as a client leaves it".to_owned(),
    };
    let request = post_request(server.messages, &request.encode());
    let body = CodeReply::Logged.to_json().into_bytes();
    let talk = http_talk(request.into(), body.into());
    let path = dir.path().join("messages.log");
    Ok(Served {
        after: After::Lines { path, lines: 0 },
        ..Served::new((server.process, server.messages), load, talk, dir)
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
    let talk: NewTalk =
        Box::new(move || Box::new(FixedTalk::new(Arc::clone(&request), Arc::clone(&reply))));
    let path = dir.path().join("history.txt");
    Ok(Served {
        // One line is there already.
        after: After::Lines { path, lines: 1 },
        ..Served::new((process, addr), load, talk, dir)
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
