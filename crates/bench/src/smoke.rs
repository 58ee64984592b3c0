//! One small round against our queue and one against the bare responder, both in this process.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use cli::Parsed;
use queue_server::Server;

use crate::conversation::{FixedTalk, Ledger, Messages, Work};
use crate::error::Error;
use crate::floors;
use crate::load::{self, Load, Outcome, Until};
use crate::served::queue_talk;

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
    assert!(outcome.operations > 100, "{outcome:?}");
    assert!(outcome.operations_in_all > outcome.operations);
    assert_eq!(outcome.latency_nanos.len(), outcome.operations);
    assert!(outcome.latency_nanos.max() < 2_000_000_000);
}

/// Our queue on a free port, and what ends it.
fn start_queue() -> (SocketAddr, impl FnOnce()) {
    let line = ["0", "TCP"];
    let parsed = queue_server::args::APP.parse(line);
    let Ok(Parsed::Run { config, .. }) = parsed else {
        panic!("{line:?} is not understood");
    };
    let server = Server::bind(config).unwrap();
    let (handle, addr) = (server.handle(), server.local_addr());
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
    let ledger = Arc::new(Ledger::default());
    for connections in [1, 8] {
        let load = Load {
            connections,
            ..LOAD
        };
        let mut talk = queue_talk(&ledger, Work::SendAndReceive);
        let outcome = load::run(addr, load, std::process::id(), &mut talk);
        check_plausible(&outcome.unwrap());
        assert_eq!(ledger.queued(), 0);
        ledger.check().unwrap();
    }
    let SocketAddr::V4(addr) = addr else {
        panic!("{addr}");
    };
    let mut talk = queue_talk(&ledger, Work::SendAndReceive);
    let (open, _) = load::burst(addr, 50, 2, &mut talk).unwrap();
    assert_eq!(open.len(), 50);
    drop(open);
    ledger.check().unwrap();
    stop();
}

#[test]
fn a_message_that_nobody_sent_is_noticed() {
    let (addr, stop) = start_queue();
    let load = Load {
        connections: 1,
        in_flight: 3,
        threads: 1,
        until: Until::Batches(1),
    };
    let run = |ledger: &Arc<Ledger>, work| {
        let mut talk = queue_talk(ledger, work);
        load::run(addr, load, std::process::id(), &mut talk).unwrap();
    };
    let others = Arc::new(Ledger::default());
    run(&others, Work::Fill);
    let ours = Arc::new(Ledger::default());
    // The same numbers would be the same messages.
    drop(Messages::new(&ours));
    run(&ours, Work::Fill);
    run(&ours, Work::Drain);
    stop();
    assert_eq!(ours.queued(), 0);
    ours.check().unwrap_err();
}

#[test]
fn a_round_against_the_bare_responder() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    // Has no end but that of the process.
    thread::spawn(move || floors::respond_on(&listener, b"whatever".to_vec(), 4));
    let run = |reply: &'static [u8]| {
        let request: Arc<[u8]> = Arc::from(*b"GET / HTTP/1.1\r\n\r\nbody");
        let reply: Arc<[u8]> = Arc::from(reply);
        load::run(addr, LOAD, std::process::id(), &mut move || {
            Box::new(FixedTalk::new(Arc::clone(&request), Arc::clone(&reply)))
        })
    };
    check_plausible(&run(b"whatever").unwrap());
    match run(b"whatsoever") {
        Err(Error::Wrong(wrong)) => {
            let shown = wrong.to_string();
            let want = "expected the reply that came first, got 'whatever";
            assert!(shown.starts_with(want), "{shown}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_server_that_falls_silent_is_given_up() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    // One connection, two on a thread each, and two on one thread.
    for (connections, threads) in [(1, 1), (2, 2), (2, 1)] {
        let load = Load {
            connections,
            threads,
            ..LOAD
        };
        let (done, outcome) = mpsc::channel();
        thread::spawn(move || {
            let talk = || Box::new(FixedTalk::new(Arc::from(*b"?"), Arc::from(*b"!"))) as _;
            let _ = done.send(load::run(addr, load, std::process::id(), &mut { talk }));
        });
        let outcome = outcome.recv_timeout(Duration::from_secs(10));
        let outcome = outcome.expect("it waits for ever");
        assert!(matches!(outcome, Err(Error::Silent { .. })), "{outcome:?}");
    }
}
