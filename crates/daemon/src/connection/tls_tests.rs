//! Whole connections over loopback, encrypted.

use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Barrier;
use std::thread::{self, ScopedJoinHandle};
use std::time::Instant;

use rustix::net::RecvFlags;
use rustls::version;

use super::tests::give_time;
use super::*;
use crate::pending_reply::SharedBytes;
use crate::registry::Registry;
use crate::tls::testing::{Authority, Client, VERSIONS, connect, read_all, send_last};

/// More than the buffer of a connection holds that asks little, and one record.
const LONG: usize = 10_000;

/// The only connection there may be, and the other end.
fn registered() -> (Arc<Registration>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, from) = listener.accept().unwrap();
    let registration = Registry::new(1).register(stream.into(), from.into());
    (Arc::new(registration.unwrap()), peer)
}

/// Runs `server` with a connection that has done its handshake, and `client` at the other end; with
/// each version.
fn serve<S: Send>(
    server: impl Fn(&mut Connection) -> S + Sync,
    client: impl Fn(&mut Client, ScopedJoinHandle<'_, S>),
) {
    let authority = Authority::new();
    let tls = authority.tls();
    for version in VERSIONS {
        let (registered, peer) = registered();
        let config = authority.client(version, None);
        thread::scope(|scope| {
            let served = scope.spawn(|| {
                let mut connection = Connection::new(&registered);
                assert_eq!(connection.peek(9).unwrap()[0], 0x16);
                connection.encrypt(&tls).unwrap();
                server(&mut connection)
            });
            let mut connected = connect(&config, peer);
            connected.flush().unwrap();
            client(&mut connected, served);
        });
    }
}

/// Reads a request of this many bytes, and returns its first.
#[track_caller]
fn ask(connection: &mut Connection, bytes: usize) -> u8 {
    let first = connection.next_request(None).unwrap().unwrap();
    io::copy(&mut Read::take(connection, bytes as u64), &mut io::sink()).unwrap();
    first
}

#[test]
fn requests_are_answered_in_their_order_up_to_the_end() {
    serve(
        |connection| {
            let mut asked = Vec::new();
            while let Some(first) = connection.next_request(None).unwrap() {
                connection.consume(1);
                asked.push(first);
                connection.write_all(&[first]).unwrap();
            }
            assert!(connection.peer_has_closed());
            connection.end().unwrap();
            asked
        },
        |client, served| {
            // In one record, and one by one.
            client.write_all(b"123").unwrap();
            client.read_exact(&mut [0; 3]).unwrap();
            send_last(client, b"4");
            assert_eq!(read_all(client), "4");
            assert_eq!(served.join().unwrap(), b"1234");
        },
    );
}

#[test]
fn a_reply_is_sent_by_the_owner_which_another_thread_wakes() {
    serve(
        |connection| {
            let body: SharedBytes = Arc::new(vec![b'b'; LONG]);
            for body in [None, Some(body)] {
                ask(connection, 1);
                let pending = connection.pending_reply(0).unwrap();
                thread::scope(|scope| {
                    let next = scope.spawn(|| connection.next_request(None).unwrap());
                    give_time(|| next.is_finished());
                    pending.complete_with(b"reply".to_vec(), body);
                    assert_eq!(next.join().unwrap(), Some(b'x'));
                });
            }
        },
        |client, served| {
            for body_bytes in [0, LONG] {
                client.write_all(b"x").unwrap();
                let mut read = vec![0; 5 + body_bytes];
                client.read_exact(&mut read).unwrap();
                assert!(read.starts_with(b"reply"));
            }
            client.write_all(b"x").unwrap();
            served.join().unwrap();
        },
    );
}

#[test]
fn while_a_reply_is_open_what_is_decrypted_is_not_waited_for() {
    serve(
        |connection| {
            ask(connection, 1);
            let pending = connection.pending_reply(0).unwrap();
            // The rest of it is in no buffer of the socket.
            assert_eq!(ask(connection, LONG), b'x');
            pending.complete(b"reply".to_vec());
            connection.flush().unwrap();
        },
        |client, served| {
            client.write_all(&[b'x'; 1 + LONG]).unwrap();
            client.read_exact(&mut [0; 5]).unwrap();
            served.join().unwrap();
        },
    );
}

#[test]
fn a_part_of_a_record_keeps_no_reply_back() {
    let both = Barrier::new(2);
    serve(
        |connection| {
            ask(connection, 1);
            let pending = connection.pending_reply(0).unwrap();
            let entry = Arc::clone(connection.entry());
            thread::scope(|scope| {
                let next = scope.spawn(|| connection.next_request(None).unwrap());
                give_time(|| next.is_finished());
                both.wait();
                both.wait();
                // The owner reads the part, and waits again.
                let peek = RecvFlags::PEEK | RecvFlags::DONTWAIT;
                while entry.socket.receive(&mut [0], peek).is_ok() {
                    thread::yield_now();
                }
                pending.complete(b"reply".to_vec());
                assert_eq!(next.join().unwrap(), Some(b'x'));
            });
        },
        |client, served| {
            client.write_all(b"x").unwrap();
            let mut record = Vec::new();
            client.conn.writer().write_all(b"x").unwrap();
            client.conn.write_tls(&mut record).unwrap();
            let (part, rest) = record.split_at(7);
            both.wait();
            client.sock.write_all(part).unwrap();
            both.wait();
            client.read_exact(&mut [0; 5]).unwrap();
            client.sock.write_all(rest).unwrap();
            served.join().unwrap();
        },
    );
}

#[test]
fn a_file_is_sent_whole_and_from_its_middle() {
    const START: u64 = 100;
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&content).unwrap();
    let bytes = content.len() as u64;
    serve(
        |connection| {
            connection.write_all(b"head").unwrap();
            assert_eq!(connection.send_file(&file, START, 50).unwrap(), 50);
            // It is shorter than that.
            let sent = connection.send_file(&file, START, bytes).unwrap();
            assert_eq!(sent, bytes - START);
            connection.end().unwrap();
        },
        |client, served| {
            let mut read = Vec::new();
            client.read_to_end(&mut read).unwrap();
            let start = START as usize;
            let want = [b"head", &content[start..start + 50], &content[start..]].concat();
            assert!(read == want);
            served.join().unwrap();
        },
    );
}

#[test]
fn a_stream_that_somebody_cut_is_not_taken_for_a_whole_message() {
    serve(
        |connection| {
            ask(connection, 1);
            let rest = connection.fill_buf().map(<[u8]>::len);
            // Between two requests nothing depends on it.
            (rest.unwrap_err().kind(), connection.next_request(None))
        },
        |client, served| {
            client.write_all(b"x").unwrap();
            client.sock.shutdown(Shutdown::Write).unwrap();
            let (rest, next) = served.join().unwrap();
            assert_eq!(rest, io::ErrorKind::UnexpectedEof);
            assert_eq!(next.unwrap(), None);
        },
    );
}

#[test]
fn a_reply_that_ends_early_does_not_look_whole() {
    serve(
        |connection| {
            connection.write_all(b"half").unwrap();
            connection.flush().unwrap();
            connection.entry().abort();
        },
        |client, served| {
            let mut read = Vec::new();
            let error = client.read_to_end(&mut read).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
            assert_eq!(read, b"half");
            served.join().unwrap();
        },
    );
}

#[test]
fn a_handshake_has_a_deadline_and_is_evicted_as_one_that_is_slow() {
    let authority = Authority::new();
    let tls = authority.tls();
    // Nothing, half a hello, rubbish of the right kind that is not complete.
    let mut hello = Vec::new();
    let (_registered, unused) = registered();
    let mut client = connect(&authority.client(&version::TLS13, None), unused);
    client.conn.write_tls(&mut hello).unwrap();
    let half = &hello[..hello.len() / 2];
    for sent in [&[][..], half, b"\x16\x03\x01\x40\x00rubbish"] {
        let (registered, mut peer) = registered();
        let state = || registered.entry.eviction.state();
        peer.write_all(sent).unwrap();
        let mut connection = Connection::new(&registered);
        connection.set_deadline(Deadline::Within(Duration::from_millis(50)));
        let error = connection.encrypt(&tls).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        connection.set_deadline(Deadline::None);
        thread::scope(|scope| {
            let shakes = scope.spawn(|| connection.encrypt(&tls));
            let slow = loop {
                if let slow @ State::Slow(_) = state() {
                    break slow;
                }
                thread::yield_now();
            };
            assert!(registered.entry.eviction.claim(slow).unwrap().end());
            registered.entry.abort();
            let error = shakes.join().unwrap().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        });
    }
}

#[test]
fn messages_of_tls_alone_are_bounded_and_harmless() {
    let authority = Authority::new();
    let tls = authority.tls();
    for updates in [10, 10_000] {
        let (registered, peer) = registered();
        let mut client = connect(&authority.client(&version::TLS13, None), peer);
        thread::scope(|scope| {
            let next = scope.spawn(|| {
                let mut connection = Connection::new(&registered);
                connection.encrypt(&tls).unwrap();
                connection.next_request(None)
            });
            client.flush().unwrap();
            for _ in 0..updates {
                client.conn.refresh_traffic_keys().unwrap();
                // Where it is too much, the server ends the connection.
                if client.flush().is_err() {
                    break;
                }
            }
            let _ = client.write_all(b"x").and_then(|()| client.flush());
            let next = next.join().unwrap();
            if updates == 10 {
                assert_eq!(next.unwrap(), Some(b'x'));
            } else {
                assert_eq!(next.unwrap_err().kind(), io::ErrorKind::InvalidData);
            }
        });
    }
}

#[test]
fn the_rest_of_a_record_does_not_come_byte_by_byte_for_ever() {
    const STALL: Duration = Duration::from_millis(200);
    serve(
        |connection| {
            let started = Instant::now();
            (connection.next_request(Some(STALL)), started.elapsed())
        },
        |client, served| {
            let mut record = Vec::new();
            client.conn.writer().write_all(&[b'x'; LONG]).unwrap();
            client.conn.write_tls(&mut record).unwrap();
            let mut bytes = record.iter();
            let mut sent = Instant::now();
            while !served.is_finished() {
                // Faster than the peer may be silent.
                if sent.elapsed() > STALL / 10 {
                    sent = Instant::now();
                    let _ = client.sock.write_all(&[*bytes.next().unwrap()]);
                }
                thread::yield_now();
            }
            let (next, waited) = served.join().unwrap();
            assert_eq!(next.unwrap(), None);
            assert!(waited < 5 * STALL, "{waited:?}");
        },
    );
}
