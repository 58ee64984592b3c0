//! The hex dumps of README.md are what the encoders write.

#![allow(clippy::unwrap_used)]

use proto::frame::Message;
use proto::history::{self, Filter, Operation};
use proto::queue::{
    Claim, Delivery, Properties, QueueName, Reply, Request, RequestId, Token, put_datagram,
};
use proto::{ErrorCode, ErrorReply, Login, LoginReply};

const PAGE: &str = include_str!("../README.md");

/// The frames of the page: a line that begins with `>` or `<`, and the indented lines behind it.
fn dumps() -> Vec<Vec<u8>> {
    let mut dumps: Vec<Vec<u8>> = Vec::new();
    for line in PAGE.lines() {
        match line.get(..2) {
            Some("> " | "< ") if is_hex(line) => dumps.push(Vec::new()),
            Some("  ") if is_hex(line) => {}
            Some(_) | None => continue,
        }
        let bytes: Vec<_> = line[2..49]
            .split_whitespace()
            .map(|byte| u8::from_str_radix(byte, 16).unwrap())
            .collect();
        let shown = |byte: &u8| match byte {
            b' '..=b'~' => char::from(*byte),
            _ => '.',
        };
        let shown: String = bytes.iter().map(shown).collect();
        assert_eq!(line[51..].get(..bytes.len()), Some(&*shown), "{line}");
        dumps.last_mut().unwrap().extend(bytes);
    }
    dumps
}

/// Whether a line begins with two digits and a space behind its direction.
fn is_hex(line: &str) -> bool {
    let byte = line.get(2..5).unwrap_or_default();
    u8::from_str_radix(byte.trim_end(), 16).is_ok() && byte.ends_with(' ')
}

fn frame<'a>(message: impl Message<'a>) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode(&mut out);
    out
}

fn datagram<'a>(number: u64, message: impl Message<'a>) -> Vec<u8> {
    let session = "1c6f0f3e-9d5b-4a52-8f0e-6f4d2b7a9c10".parse().unwrap();
    let mut out = Vec::new();
    put_datagram(&mut out, RequestId { session, number }, &message);
    out
}

fn send() -> Request<'static> {
    Request::Send {
        queue: QueueName::DEFAULT,
        properties: Properties::default(),
        body: b"hi\n",
    }
}

fn receive(delivery: Delivery) -> Request<'static> {
    Request::Receive {
        queues: QueueName::DEFAULT.into(),
        wait_millis: 0,
        delivery,
    }
}

#[test]
fn the_dumps_are_what_is_sent() {
    let (id, queue_index, attempt, body) = (1, 0, 1, &b"hi\n"[..]);
    let claim = Claim::Reserved(id);
    let done = || Reply::Done { messages: 1 };
    let token: Token = "63fc2234-6c2b-4d28-baea-e539fdc698c0".parse().unwrap();
    let lease_millis = 60_000;
    let leased = Reply::Leased {
        token,
        id: 2,
        queue_index,
        attempt,
        body,
    };
    let ids = [0, 1, 2];
    let login = Login {
        user: "alice",
        password: "secret",
    };
    let ask = |operation| {
        let user = "alice";
        frame(history::Request { user, operation })
    };
    let filter = Filter {
        last: 2,
        contains: "pump",
        ..Filter::ALL
    };
    let no_line = ErrorReply {
        code: ErrorCode::NotFound,
        sentence: "There is no line 9; the history has 2 lines.",
    };
    let want = [
        frame(send()),
        frame(Reply::Stored { id }),
        frame(receive(Delivery::AtLeastOnce)),
        frame(Reply::Message {
            id,
            queue_index,
            attempt,
            body,
        }),
        frame(Request::Ack { claim }),
        frame(done()),
        datagram(ids[0], send()),
        datagram(ids[0], Reply::Stored { id: 2 }),
        datagram(ids[1], receive(Delivery::Lease { lease_millis })),
        datagram(ids[1], leased),
        datagram(
            ids[2],
            Request::Ack {
                claim: token.into(),
            },
        ),
        datagram(ids[2], done()),
        frame(login),
        frame(LoginReply::LoggedIn),
        ask(Operation::delete_line(9)),
        frame(history::Reply::Error(no_line)),
        ask(Operation::Get(filter)),
        ask(Operation::Follow { last: 0, behind: 7 }),
        frame(history::Reply::Line {
            sequence: 8,
            text: b"2026-11-26T21:43:43.087Z 127.0.0.1:35266 bob note hi",
        }),
        frame(history::Reply::Deleted { first: 3, last: 8 }),
    ];
    let dumps = dumps();
    assert_eq!(dumps.len(), want.len());
    for (dump, want) in dumps.iter().zip(&want) {
        assert_eq!(dump, want);
    }
}
