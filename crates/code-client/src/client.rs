//! A client of the code server: one persistent HTTP connection to each of its two ports.

use std::io::{self, BufReader, Read, Write};
use std::time::Duration;

use cli::{ClientError, Endpoint, ServerStream};
use proto::code::{CodeRequest, MessageRequest, Reply};
use proto::http::request::{host_field, put_head};
use proto::http::{Body, ResponseHead};
use uuid::Uuid;

use crate::Error;

/// The longest reply that is read, in bytes.
const REPLY_BYTES_MAX: u64 = 64 * 1024;

/// Talks to one code server. It connects when the first request needs it.
///
/// ```no_run
/// use cli::Endpoint;
/// use code_client::Client;
/// use uuid::Uuid;
///
/// let server = Endpoint::new("127.0.0.1", 8000);
/// let mut client = Client::new(server.clone(), server.with_port(8001));
/// let uuid = Uuid::new_v4();
/// let code = client.request(uuid)?;
/// client.send(uuid, &code.to_string(), "hello")?;
/// # Ok::<(), code_client::Error>(())
/// ```
pub struct Client {
    codes: Link,
    messages: Link,
}

struct Link {
    server: Endpoint,
    stream: Option<BufReader<ServerStream>>,
}

impl Client {
    /// A client of the server at these two ports.
    pub fn new(codes: Endpoint, messages: Endpoint) -> Self {
        let link = |server| Link {
            server,
            stream: None,
        };
        Self {
            codes: link(codes),
            messages: link(messages),
        }
    }

    /// Asks for the code of a UUID.
    ///
    /// # Errors
    /// If the server refuses or is lost.
    pub fn request(&mut self, uuid: Uuid) -> Result<Uuid, Error> {
        match self.codes.ask(&CodeRequest { uuid }.encode())? {
            Reply::Code(code) => Ok(code),
            other => Err(unexpected(other)),
        }
    }

    /// Leaves a message.
    ///
    /// # Errors
    /// If the server refuses or is lost. If it is lost, the message may or may not be stored.
    pub fn send(&mut self, uuid: Uuid, code: &str, text: &str) -> Result<(), Error> {
        let request = MessageRequest {
            uuid,
            unique: code.to_owned(),
            text: text.to_owned(),
        };
        match self.messages.ask(&request.encode())? {
            Reply::Logged => Ok(()),
            other => Err(unexpected(other)),
        }
    }
}

fn unexpected(reply: Reply) -> Error {
    match reply {
        Reply::Refused(sentence) => Error::Refused(sentence),
        Reply::Code(_) | Reply::Logged => ClientError::Unexpected.into(),
    }
}

impl Link {
    fn ask(&mut self, body: &str) -> Result<Reply, Error> {
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => BufReader::new(self.server.connect()?),
        };
        let reply = self.exchange(stream, body).map_err(ClientError::lost)?;
        Ok(Reply::decode(&reply).map_err(ClientError::malformed)?)
    }

    /// Sends a request and reads the body of its reply. Keeps the connection if the server does.
    fn exchange(&mut self, mut stream: BufReader<ServerStream>, body: &str) -> io::Result<Vec<u8>> {
        let host = host_field(&self.server.host, self.server.port);
        let length = body.len().to_string();
        let fields = [
            ("Content-Type", "application/json"),
            ("Content-Length", length.as_str()),
        ];
        let mut request = Vec::new();
        put_head(&mut request, "POST", "/", &host, &fields);
        request.extend_from_slice(body.as_bytes());
        stream.get_mut().reset_timeout(Duration::ZERO);
        let sent = stream.get_mut().write_all(&request);
        stream.get_mut().reset_timeout(Duration::ZERO);
        // A server that refuses before it has read everything may close the connection while the request
        // is still being written. Its reply says more than the broken pipe.
        let head = match ResponseHead::read(&mut stream, "POST") {
            Ok(head) => head,
            Err(error) => return Err(sent.err().unwrap_or_else(|| error.into())),
        };
        let mut reply = Vec::new();
        let mut body = Body::new(&mut stream, head.body).take(REPLY_BYTES_MAX);
        body.read_to_end(&mut reply)?;
        if !body.get_ref().is_done() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if head.keep_alive {
            self.stream = Some(stream);
        }
        Ok(reply)
    }
}
