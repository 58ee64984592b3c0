//! The whole: one small round against our queue and one against the bare responder, both in this process.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use cli::Parsed;
use daemon::Address;
use queue_server::{Serve, Server};

use crate::args::Measure;
use crate::conversation::{Dialect, Work};
use crate::error::Error;
use crate::floors;
use crate::load::{self, Load, Outcome, Until};
use crate::queues::queue_talk;
use crate::served::fixed_talk;

const LOAD: Load = Load {
    connections: 8,
    in_flight: 16,
    threads: 2,
    until: Until::Time {
        warm_up: Duration::from_millis(20),
        measured: Duration::from_millis(200),
    },
};

#[track_caller]
fn check_plausible(outcome: &Outcome) {
    assert!(outcome.operations > 100, "{}", outcome.operations);
    assert!(outcome.operations_in_all > outcome.operations);
    assert_eq!(outcome.latency_nanos.len(), outcome.operations);
    assert!(outcome.latency_nanos.max() < 2_000_000_000);
}

#[track_caller]
fn v4(addr: &Address) -> SocketAddrV4 {
    match addr {
        Address::Ip(SocketAddr::V4(addr)) => *addr,
        other => panic!("{other}"),
    }
}

/// Our queue on a free port, and what ends it.
fn start_queue() -> (SocketAddrV4, impl FnOnce()) {
    let line = ["0", "TCP"];
    let parsed = queue_server::args::APP.parse(line);
    let Ok(Parsed::Run { config, .. }) = parsed else {
        panic!("{line:?} is not understood");
    };
    let server = Server::bind(config).unwrap();
    let (handle, addr) = (server.handle(), v4(server.local_addr()));
    let running = thread::spawn(|| server.run().unwrap());
    let stop = move || {
        handle.stop();
        running.join().unwrap();
    };
    (addr, stop)
}

#[test]
fn a_round_against_our_queue() {
    let (addr, stop) = start_queue();
    let [mut talk, mut in_session] =
        [Dialect::Quartet, Dialect::Session].map(|it| queue_talk(it, Work::SendAndReceive));
    for connections in [1, 8] {
        let load = Load {
            connections,
            ..LOAD
        };
        for talk in [&mut talk, &mut in_session] {
            check_plausible(&load::run(&addr.into(), load, talk).unwrap());
        }
    }
    let burst = Load {
        connections: 50,
        in_flight: 1,
        threads: 1,
        until: Until::Batches(2),
    };
    let outcome = load::run(&addr.into(), burst, &mut talk).unwrap();
    assert_eq!(outcome.connections.len(), 50);
    stop();
}

#[test]
fn a_message_that_nobody_sent_is_noticed() {
    let (addr, stop) = start_queue();
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.write_all(b"another message").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    // The server closes the connection when it has stored the message.
    stream.read_to_end(&mut Vec::new()).unwrap();
    let mut talk = queue_talk(Dialect::Quartet, Work::SendAndReceive);
    let wrong = load::run(&addr.into(), LOAD, &mut talk);
    stop();
    assert!(matches!(wrong, Err(Error::Wrong(_))));
}

#[test]
fn a_round_against_the_bare_responder() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = v4(&Address::Ip(listener.local_addr().unwrap()));
    // Has no end but that of the process.
    thread::spawn(move || floors::respond_on(&listener, b"whatever".to_vec(), 4));
    let run = |reply| {
        let request = b"GET / HTTP/1.1\r\n\r\nbody".to_vec();
        load::run(&addr.into(), LOAD, &mut fixed_talk(request, reply))
    };
    check_plausible(&run(b"whatever").unwrap());
    match run(b"whatsoever") {
        Err(Error::Wrong(wrong)) => {
            let shown = wrong.to_string();
            let want = "expected the reply that came first, got 'whatever";
            assert!(shown.starts_with(want), "{shown}");
        }
        Err(other) => panic!("{other:?}"),
        Ok(outcome) => panic!("{}", outcome.operations),
    }
}

#[test]
fn a_server_that_falls_silent_is_given_up() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = v4(&Address::Ip(listener.local_addr().unwrap()));
    // One connection, two on a thread each, and two on one thread.
    for (connections, threads) in [(1, 1), (2, 2), (2, 1)] {
        let load = Load {
            connections,
            threads,
            ..LOAD
        };
        let (done, outcome) = mpsc::channel();
        thread::spawn(move || {
            let outcome = load::run(&addr.into(), load, &mut fixed_talk(b"?".to_vec(), b"!"));
            let _ = done.send(outcome.map(|outcome| outcome.operations));
        });
        let outcome = outcome.recv_timeout(Duration::from_secs(10));
        let outcome = outcome.expect("it waits for ever");
        assert!(matches!(outcome, Err(Error::Silent { .. })), "{outcome:?}");
    }
}

#[test]
fn a_pattern_that_is_in_no_name_is_refused() {
    let only = "quiche".to_owned();
    let measure = Measure {
        only,
        ..Measure::default()
    };
    assert!(matches!(crate::run(&measure), Err(Error::NoRow(_))));
}
