//! What a port serves is exchanged while it runs.

use super::*;

#[test]
fn a_connection_ends_or_is_served_by_what_a_port_was_exchanged_for() {
    let says = |name: &'static str| {
        text(Text(move |connection: &mut Connection| {
            while connection.next_request(None)?.is_some() {
                io::BufRead::consume(connection, 1);
                connection.write_all(name.as_bytes())?;
            }
            Ok(())
        }))
    };
    let waits = Text(|connection: &mut Connection| {
        connection.next_request(None)?;
        connection.write_all(b"waits")?;
        connection.wait(Instant::now() + PATIENCE).map(drop)
    });
    for former in [says("first"), text(waits)] {
        let server = Server::serving(10, |_| former);
        let (silent, mut served) = (server.admit(b""), server.admit(b"x"));
        served.read_exact(&mut [0; 5]).unwrap();
        server.switch.set(says("next"));
        server.registry.abort_all();
        assert_eq!([read_all(silent), read_all(served)], ["", ""]);
        let mut client = server.admit(b"x");
        let mut got = [0; 4];
        client.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"next");
    }
}

#[test]
fn a_connection_is_registered_before_it_reads_what_its_port_serves() {
    // One that has a place, and one that waits for it.
    for waits in [false, true] {
        let server = Server::new(1);
        let place = waits.then(|| server.fill());
        let client = TcpStream::connect(server.listener.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let (stream, _) = server.listener.accept().unwrap();
        let elsewhere = Peer::Ip(([10, 0, 0, 1], 1).into());
        let reading = server.switch.hold();
        thread::scope(|scope| {
            let (registry, switch) = (&server.registry, &server.switch);
            let admit = scope.spawn(|| registry.admit(stream.into(), elsewhere, switch));
            if let Some(place) = place {
                admit.join().unwrap();
                drop(place);
            }
            let deadline = Instant::now() + PATIENCE;
            while server.registry.open() == 0 {
                assert!(Instant::now() < deadline, "it is registered");
                thread::yield_now();
            }
            // So an abort finds it, which comes behind the exchange.
            server.registry.abort_all();
            drop(reading);
        });
        assert_eq!(read_all(client), "");
    }
}
