//! Requests over HTTP, each over a connection of its own, to a server that may be gone at any time.

use std::io::{self, Read, Write};

use queue_client::{Error, MessageId};

use crate::harness::{Server, door};

/// What is done over HTTP.
pub struct Http<'s>(pub &'s Server);

/// A message that was handed out under a lease.
pub struct Leased {
    pub id: MessageId,
    pub token: String,
    pub record: String,
}

impl Http<'_> {
    /// The head and the body of the reply; `None` if it says no.
    ///
    /// # Errors
    /// If the server is lost.
    pub fn ask(&self, line: &str, body: &str) -> Result<Option<(String, String)>, Error> {
        let length = body.len();
        let request = format!(
            "{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let mut stream = door().connect(self.0.addr())?;
        stream.write_all(request.as_bytes())?;
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply)?;
        let reply = String::from_utf8_lossy(&reply).into_owned();
        let lost = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let (head, body) = reply.split_once("\r\n\r\n").ok_or_else(lost)?;
        let length = field(head, "Content-Length").and_then(|length| length.parse().ok());
        if length.is_some_and(|length: usize| body.len() < length) {
            return Err(lost().into());
        }
        let is_done = head.starts_with("HTTP/1.1 2");
        assert!(
            is_done || !head.starts_with("HTTP/1.1 400"),
            "{line}: {reply}"
        );
        Ok(is_done.then(|| (head.to_owned(), body.to_owned())))
    }

    /// The same, for what has nothing to tell.
    pub fn done(&self, line: &str) -> Result<Option<()>, Error> {
        Ok(self.ask(line, "")?.map(drop))
    }

    /// The id of a message that was stored.
    pub fn send(&self, path: &str, body: &str) -> Result<Option<MessageId>, Error> {
        let reply = self.ask(&format!("POST {path}"), body)?;
        let id = |(_, body): (String, String)| {
            let stored: serde_json::Value = serde_json::from_str(&body).unwrap();
            stored["id"].as_u64().unwrap()
        };
        Ok(reply.map(id))
    }

    /// Leases a message for this many seconds, if there is one.
    pub fn lease(&self, queues: &str, secs: u32) -> Result<Option<Leased>, Error> {
        let reply = self.ask(&format!("POST /queues/{queues}/lease?seconds={secs}"), "")?;
        let leased = |(head, record): (String, String)| {
            let token = field(&head, "Queue-Token")?.to_owned();
            let id = field(&head, "Queue-Id")?.parse().unwrap();
            Some(Leased { id, token, record })
        };
        Ok(reply.and_then(leased))
    }
}

fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    let mut values = lines.filter(|(found, _)| found.eq_ignore_ascii_case(name));
    values.next().map(|(_, value)| value)
}
