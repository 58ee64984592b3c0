//! Requests to web servers, and single exchanges with them.

use std::io::{Read, Write};
use std::net::SocketAddrV4;
use std::sync::Arc;

use proto::http::request::put_head;
use proto::http::{BodyLength, ResponseHead};

use super::{NewTalk, connect};
use crate::conversation::{HttpTalk, Wrong};
use crate::error::Error;

/// A `GET`, as small as a client may make it.
pub fn get_request(addr: SocketAddrV4, path: &str) -> Vec<u8> {
    let mut request = Vec::new();
    put_head(&mut request, "GET", path, &addr.to_string(), &[]);
    request
}

/// A `POST` of JSON.
pub fn post_request(addr: SocketAddrV4, body: &str) -> Vec<u8> {
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

/// Makes conversations that ask this and expect that.
pub fn http_talk(request: Arc<[u8]>, body: Arc<[u8]>) -> NewTalk {
    Box::new(move || Box::new(HttpTalk::new(Arc::clone(&request), Arc::clone(&body))))
}

/// Asks once; returns the whole reply, and its body.
///
/// # Errors
/// If the reply is no 200 with a length.
pub fn http_exchange(addr: SocketAddrV4, request: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Error> {
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
