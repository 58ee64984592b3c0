//! What a server that stands by says to everyone, and that the same port serves the queues then.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::OpenOptionsExt as _;
use std::thread;

use cli::{Auth, ServerOptions};
use daemon::{Address, Daemon, Handle, Switch};
use proto::frame::Message as _;
use proto::queue::{
    Properties, QueueName, Reply, Request, RequestId, put_datagram, split_datagram,
};
use proto::text::{QUEUE_EMPTY, QUEUE_GET};
use proto::{ErrorCode, ErrorReply};

use super::*;
use crate::Limits;
use crate::datagram::Datagrams;
use crate::queues::Queues;

const PATIENCE: Duration = Duration::from_secs(30);

const BODY_BYTES_MAX: usize = 100_000;

const TEXT: &str = "Error - this server stands by; another one is active\n";

const REFUSED: Reply = Reply::Error(ErrorReply {
    code: ErrorCode::Standby,
    sentence: STANDS_BY,
});

/// A server that stands by, and what its ports serve.
struct Server {
    addr: SocketAddr,
    tcp: Switch,
    udp: Switch<dyn DatagramService>,
    counter: DatagramCounter,
    handle: Handle,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.handle.stop();
    }
}

impl Server {
    /// Runs one while it is tested.
    fn with(auth: Option<Auth>, test: impl FnOnce(&Self)) {
        let options = ServerOptions {
            auth,
            ..ServerOptions::new(100)
        };
        let mut daemon = Daemon::new(options, 1, "").unwrap();
        let counter = daemon.datagram_counter();
        let tcp = Switch::new(protocols(BODY_BYTES_MAX));
        let udp = Switch::new(datagrams(false, counter.clone()));
        let address = daemon.listen_both(0, tcp.clone(), udp.clone()).unwrap();
        let Address::Ip(addr) = address else {
            panic!("{address}");
        };
        let server = Self {
            addr,
            tcp,
            udp,
            counter,
            handle: daemon.handle(),
        };
        thread::scope(|scope| {
            scope.spawn(|| daemon.run().unwrap());
            // Behind the test it stops, also if that fails.
            let server = server;
            test(&server);
        });
    }

    fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(self.addr).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client
    }

    /// Everything that is replied to this until the server ends the connection.
    fn replied(&self, sent: &[u8]) -> Vec<u8> {
        let mut client = self.connect();
        client.write_all(sent).unwrap();
        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        got
    }

    /// The same in text, and the client ends its half.
    fn said(&self, sent: &str) -> String {
        let mut client = self.connect();
        client.write_all(sent.as_bytes()).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut got = String::new();
        client.read_to_string(&mut got).unwrap();
        got
    }
}

fn send(body: &[u8]) -> Request<'_> {
    Request::Send {
        queue: QueueName::DEFAULT,
        properties: Properties::default(),
        body,
    }
}

fn request(request: &Request) -> Vec<u8> {
    let mut frame = Vec::new();
    request.encode(&mut frame);
    frame
}

fn refused() -> Vec<u8> {
    let mut frame = Vec::new();
    REFUSED.encode(&mut frame);
    frame
}

const SESSION: Request = Request::Session {
    id: uuid::Uuid::nil(),
    next: 0,
};

#[test]
fn each_frame_that_has_arrived_is_refused_and_then_the_connection_ends() {
    Server::with(None, |server| {
        for requests in [vec![SESSION], vec![SESSION, send(b"a"), Request::Stats]] {
            let sent: Vec<_> = requests.iter().flat_map(request).collect();
            let want = refused().repeat(requests.len());
            assert_eq!(server.replied(&sent), want, "{requests:?}");
        }
        // One that is long is not kept, and no longer than the active server takes.
        let long = vec![b'x'; BODY_BYTES_MAX];
        let sent = [request(&send(&long)), request(&Request::Stats)].concat();
        assert_eq!(server.replied(&sent), refused().repeat(2));
    });
}

#[test]
fn http_and_text_are_refused_as_a_program_and_a_person_read_it() {
    Server::with(None, |server| {
        for line in ["GET /queues", "GET /nothing", "POST /queues/a/messages"] {
            let got = server.said(&format!("{line} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
            assert!(got.starts_with("HTTP/1.1 503 "), "{line}: {got}");
            let json = r#"{"code":15,"error":"this server stands by; another one is active","name":"Standby"}"#;
            assert!(got.ends_with(&format!("\r\n\r\n{json}\n")), "{line}: {got}");
        }
        let get = |path: &str| {
            let fields = "Host: localhost\r\nAccept: text/html\r\n\r\n";
            server.said(&format!("GET {path} HTTP/1.1\r\n{fields}"))
        };
        let page = get("/");
        assert!(page.starts_with("HTTP/1.1 503 "), "{page}");
        assert!(page.contains(&format!("<p>{STANDS_BY}</p>")), "{page}");
        assert!(get("/style.css").starts_with("HTTP/1.1 200 "));
        let health = get("/healthz");
        assert!(
            health.starts_with("HTTP/1.1 503 ") && health.ends_with("another one is active\n"),
            "{health}"
        );
        assert!(get("/metrics").contains("quartet_connections"));
        for text in ["<<GET>>", "hello"] {
            assert_eq!(server.said(text), TEXT, "{text}");
        }
    });
}

#[test]
fn who_may_not_ask_is_told_that_first() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("accounts");
    let mut options = std::fs::OpenOptions::new();
    let mut accounts = options
        .mode(0o600)
        .write(true)
        .create(true)
        .open(&file)
        .unwrap();
    accounts.write_all(b"bea:secret\n").unwrap();
    let auth = Auth {
        file,
        is_read_free: false,
    };
    Server::with(Some(auth), |server| {
        let get = |fields: &str| {
            let head = format!("GET /queues HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
            server.said(&head)["HTTP/1.1 ".len()..][..3].to_owned()
        };
        assert_eq!(get(""), "401");
        assert_eq!(get("Authorization: Basic YmVhOnNlY3JldA==\r\n"), "503");
    });
}

#[test]
fn a_port_serves_the_queues_and_stands_by_again_as_it_is_told() {
    Server::with(None, |server| {
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(server.addr).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let ask = |datagram: &[u8]| {
            client.send(datagram).unwrap();
            let mut reply = [0; 1000];
            let bytes = client.recv(&mut reply).unwrap();
            reply[..bytes].to_vec()
        };
        let id = RequestId {
            session: uuid::Uuid::from_u128(7),
            number: 0,
        };
        let mut stats = Vec::new();
        put_datagram(&mut stats, id, &Request::Stats);
        let is_refused = || {
            let reply = ask(&stats);
            let (_, kind, payload) = split_datagram(&reply).unwrap();
            Reply::decode(kind, payload).unwrap() == REFUSED
        };
        assert!(is_refused());
        assert_eq!(ask(QUEUE_GET), TEXT.as_bytes());
        // A sender expects no reply: the next one is to the next request.
        client.send(b"hello").unwrap();
        assert!(is_refused());

        let limits = Limits {
            body_bytes_max: BODY_BYTES_MAX,
            messages_max: usize::MAX,
            queue_bytes_max: usize::MAX,
            memory_bytes_max: usize::MAX,
            attempts_max: 5,
            key_window: Duration::from_secs(600),
        };
        let queues = Arc::new(Queues::in_memory(limits));
        let active = Datagrams::new(Arc::clone(&queues), false, server.counter.clone());
        let mut idle = server.connect();
        while server.handle.open_connections() == 0 {
            thread::yield_now();
        }
        server.tcp.set(crate::active::protocols(&queues));
        server.udp.set(Arc::new(active) as Arc<dyn DatagramService>);
        server.handle.abort_connections();
        assert_eq!(idle.read(&mut [0]).unwrap(), 0);
        assert!(!is_refused());
        assert_eq!(ask(QUEUE_GET), QUEUE_EMPTY.as_bytes());
        assert_eq!(server.said("hello"), "");
        assert_eq!(server.said("<<GET>>"), "hello");

        let mut follows = server.connect();
        let receive = Request::Receive {
            queues: QueueName::DEFAULT.into(),
            wait_millis: 60_000,
            delivery: proto::queue::Delivery::AtLeastOnce,
        };
        follows.write_all(&request(&receive)).unwrap();
        let waiters = || {
            queues
                .stats()
                .queues
                .iter()
                .map(|queue| queue.waiters)
                .sum::<usize>()
        };
        while waiters() == 0 {
            thread::yield_now();
        }
        server.tcp.set(protocols(BODY_BYTES_MAX));
        server.udp.set(datagrams(false, server.counter.clone()));
        server.handle.abort_connections();
        assert_eq!(follows.read(&mut [0]).unwrap(), 0);
        assert!(is_refused());
        assert_eq!(server.said("<<GET>>"), TEXT);
        // Nothing keeps the queues.
        while Arc::strong_count(&queues) > 1 {
            thread::yield_now();
        }
    });
}
