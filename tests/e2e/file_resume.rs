//! The file client's `--resume`: downloads and uploads that are killed, cut off, refused, changed and
//! forgotten in the middle end with the right file, or say why not.

use std::collections::VecDeque;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use tempfile::TempDir;

use crate::file_client::{
    Asked, Sides, check_says, client, command, cutting_proxy, names, read_request, said, sides,
    through_proxy,
};
use crate::harness::{
    Address, Needs, Noise, Running, Then, door, eventually, fake_server, has_door, run_command,
};
use crate::planted::plant;

/// Where `photo` is kept while it arrives, and its state.
const PART: &str = ".quartet-download-photo";
const PART_STATE: &str = ".quartet-resume-photo";

/// The line that gets a photograph as `photo`, so that it can be gone on with.
const GET_PHOTO: &[&str] = &["get", "site/photoServer.jpg", "-o", "photo", "--resume"];

/// Passes one connection on to a server, and stops passing on the reply after a number of bytes.
fn stalling_proxy(server: Address, bytes: u64) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let (client, _) = listener.accept().unwrap();
        let upstream = door().connect(server).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| std::io::copy(&mut (&upstream).take(bytes), &mut &client));
            // Ends when the client does.
            let _ = std::io::copy(&mut &client, &mut &upstream);
            let _ = upstream.shutdown(Shutdown::Both);
        });
    });
    port
}

/// A client that has got a part of the photograph, and waits for more.
fn stalled_get(sides: &Sides) -> Running {
    let port = stalling_proxy(sides.server.addr(), 30_000);
    let client = Running::start(through_proxy(port, sides.here.path(), GET_PHOTO));
    let part = sides.here.path().join(PART);
    let has_begun = || fs::metadata(&part).is_ok_and(|part| part.len() > 20_000);
    eventually("a part has arrived", has_begun);
    client
}

/// The same, killed. Returns how much it has left.
fn killed_get(sides: &Sides) -> usize {
    stalled_get(sides).kill();
    assert!(!sides.here.path().join("photo").exists());
    fs::read(sides.here.path().join(PART)).unwrap().len()
}

fn photo(sides: &Sides) -> Vec<u8> {
    fs::read(sides.tree.root("site/photoServer.jpg")).unwrap()
}

/// The photograph is here, and nothing is left of how it came.
#[track_caller]
fn check_photo(sides: &Sides) {
    let here = sides.here.path();
    assert!(fs::read(here.join("photo")).unwrap() == photo(sides));
    assert_eq!(names(here), ["folder", "mine.txt", "photo"]);
}

#[test]
fn a_killed_download_goes_on_where_it_was() {
    let sides = sides(&[]);
    let kept = killed_get(&sides);
    // So much is the rest and its head, and there is no second connection.
    let rest = photo(&sides).len() - kept + 1000;
    let port = cutting_proxy(sides.server.addr(), vec![rest as u64]);
    sides.check_says_through(port, GET_PHOTO, 0, "Saved photo: ");
    check_photo(&sides);
}

#[test]
fn a_download_starts_over_when_the_file_has_changed() {
    let sides = sides(&[]);
    killed_get(&sides);
    let changed = [b"new".to_vec(), photo(&sides)].concat();
    fs::write(sides.tree.root("site/photoServer.jpg"), changed).unwrap();
    sides.check_says(GET_PHOTO, 0, "starting over");
    check_photo(&sides);
    // Nor is another file gone on with.
    fs::remove_file(sides.here.path().join("photo")).unwrap();
    killed_get(&sides);
    let other = ["get", "site/index.html", "-o", "photo", "--resume"];
    sides.check_says(&other, 0, "Saved photo: ");
    let page = fs::read(sides.tree.root("site/index.html")).unwrap();
    assert_eq!(fs::read(sides.here.path().join("photo")).unwrap(), page);
}

#[test]
fn one_client_at_a_time_goes_on_with_a_download() {
    let sides = sides(&[]);
    let first = stalled_get(&sides);
    let says = "file-client: another client is writing .quartet-download-photo\n";
    sides.check_says(GET_PHOTO, 2, says);
    first.kill();
    sides.check_says(GET_PHOTO, 0, "Saved photo: ");
    check_photo(&sides);
}

#[test]
fn a_download_that_fails_says_what_is_kept() {
    let sides = sides(&[]);
    let port = cutting_proxy(sides.server.addr(), vec![10_000; 5]);
    let ran = run_command(through_proxy(port, sides.here.path(), GET_PHOTO), b"").expect(3);
    let kept = fs::read(sides.here.path().join(PART)).unwrap().len();
    assert!((40_000..50_000).contains(&kept), "{kept}");
    let want = format!("; {kept} bytes are kept, and --resume continues from there\n");
    assert!(ran.stderr.ends_with(&want), "{}", ran.stderr);
    let start = "file-client: site/photoServer.jpg: the connection to the server was lost: ";
    let said = ran.stderr.lines().last().unwrap();
    assert!(said.starts_with(start), "{said}");
    // Without the option it begins anew, and leaves the part alone.
    let anew = &GET_PHOTO[..4];
    sides.check_says(anew, 0, "Saved photo: ");
    assert_eq!(
        names(sides.here.path()),
        [PART, PART_STATE, "folder", "mine.txt", "photo"]
    );
    sides.check_says(GET_PHOTO, 0, "Saved photo: ");
    check_photo(&sides);
}

#[test]
fn a_download_that_has_all_arrived_is_finished() {
    let sides = sides(&[]);
    killed_get(&sides);
    // Killed behind the last byte.
    fs::write(sides.here.path().join(PART), photo(&sides)).unwrap();
    let proxy = cutting_proxy(sides.server.addr(), vec![1000]);
    sides.check_says_through(proxy, GET_PHOTO, 0, "Saved photo: ");
    check_photo(&sides);
    // There cannot be more than all of it.
    fs::remove_file(sides.here.path().join("photo")).unwrap();
    killed_get(&sides);
    let more = [photo(&sides), photo(&sides)].concat();
    fs::write(sides.here.path().join(PART), more).unwrap();
    sides.check_says(GET_PHOTO, 0, "starting over");
    check_photo(&sides);
}

#[test]
fn a_part_that_is_damaged_is_not_kept() {
    let sides = sides(&[]);
    let kept = killed_get(&sides);
    fs::write(sides.here.path().join(PART), vec![b'x'; kept]).unwrap();
    let says = "the file does not match the server's digest\n";
    sides.check_says(GET_PHOTO, 3, says);
    assert_eq!(names(sides.here.path()), ["folder", "mine.txt"]);
}

#[test]
fn what_cannot_be_gone_on_with_is_refused() {
    let sides = sides(&[]);
    let check = |args: &[&str], code, says: &str| {
        sides.check_says(args, code, says);
        assert_eq!(names(sides.here.path()), ["folder", "mine.txt"], "{args:?}");
    };
    let other = tempfile::tempdir().unwrap();
    let pipe = other.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
    let pipe = pipe.to_str().unwrap();
    let says = "/pipe is not a regular file, as --resume needs it\n";
    check(&["get", "plain/a.txt", "-o", pipe, "--resume"], 2, says);
    let says = "--resume needs a file to save to, not standard output";
    check(&["get", "plain/a.txt", "-o", "-", "--resume"], 2, says);
    let says = "gone: the server refused: 404 Not Found, there is no such file\n";
    check(&["get", "gone", "--resume"], 1, says);
    let long = "a".repeat(240);
    let says = "is too long: with --resume it may have 237 bytes\n";
    check(&["get", "plain/a.txt", "-o", &long, "--resume"], 2, says);
}

#[test]
fn the_lines_of_a_batch_can_be_gone_on_with() {
    if !has_door(Needs::Tcp, "a batch names a host and a port") {
        return;
    }
    let sides = sides(&[]);
    killed_get(&sides);
    // Its part is of another path, that this one is not mistaken for.
    fs::rename(
        sides.here.path().join(PART),
        sides.here.path().join(".quartet-download-a.txt"),
    )
    .unwrap();
    fs::rename(
        sides.here.path().join(PART_STATE),
        sides.here.path().join(".quartet-resume-a.txt"),
    )
    .unwrap();
    let lines = "client_get plain/a.txt 127.0.0.1\nclient_post mine.txt 127.0.0.1\n";
    fs::write(sides.here.path().join("batch"), lines).unwrap();
    let args = ["batch", "batch", "--resume", "-j", "2"];
    client(&sides.server, sides.here.path(), &args).expect(0);
    let left = names(sides.here.path());
    assert_eq!(left, ["a.txt", "batch", "folder", "mine.txt"]);
    assert_eq!(fs::read(sides.here.path().join("a.txt")).unwrap(), b"a");
    assert_eq!(fs::read(sides.tree.root("mine.txt")).unwrap(), b"mine\n");
}

/// What a [`Depot`] does when it has read a number of the appended bytes.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    /// It takes all and says nothing, and remembers that it has it.
    Remember,
    /// It says that somebody else is at it, when it is asked how much it has.
    Locked,
    /// It takes all.
    Take,
    /// It ends the connection after a number of bytes.
    Cut(usize),
    /// It reads no more after this many, until the client has gone.
    Stall(usize),
    /// It takes all, and says nothing.
    Mute,
    /// It takes this many bytes, and says that the offset was another: behind these.
    Conflict(usize),
    /// It reads all and keeps nothing, and says no in these words.
    Refuse(&'static str),
}

/// A server that takes resumable uploads, one connection after the other.
#[derive(Clone)]
struct Depot {
    port: u16,
    state: Arc<Mutex<DepotState>>,
}

#[derive(Default)]
struct DepotState {
    /// What it does with the next appends; then it takes them.
    fates: VecDeque<Fate>,
    /// Each request, with what it says of the upload.
    asked: Vec<String>,
    /// What it has of the upload that is under way.
    part: Option<Vec<u8>>,
    /// Whether it remembers that an upload has become the file.
    is_finished: bool,
    /// The file, with the digest that was announced of it.
    file: Option<(Vec<u8>, String)>,
    digest: String,
}

/// Where the upload that is under way is.
const UPLOAD_URL: &str = "/folder/.quartet-upload-1";

impl Depot {
    fn start(fates: &[Fate]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let depot = Self {
            port: listener.local_addr().unwrap().port(),
            state: Arc::default(),
        };
        depot.state().fates.extend(fates);
        let serving = depot.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                while let Some(asked) = read_request(&mut stream) {
                    if !serving.answer(&asked, &mut stream) {
                        break;
                    }
                }
            }
        });
        depot
    }

    fn state(&self) -> MutexGuard<'_, DepotState> {
        self.state.lock().unwrap()
    }

    /// The requests since the last call.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.state().asked)
    }

    /// Answers a request; returns whether the connection goes on.
    fn answer(&self, asked: &Asked, stream: &mut TcpStream) -> bool {
        let mut state = self.state();
        assert_eq!(asked.field("upload-draft-interop-version"), "8");
        let reply = match asked.line.as_str() {
            "OPTIONS /folder/a" => "204 No Content\r\nUpload-Limit: min-size=0".to_owned(),
            "POST /folder/a" => {
                assert_eq!(asked.field("upload-complete"), "?0");
                assert_eq!(asked.field("content-length"), "0");
                state.part = Some(Vec::new());
                asked.field("repr-digest").clone_into(&mut state.digest);
                format!("201 Created\r\nLocation: {UPLOAD_URL}\r\nContent-Length: 0")
            }
            "HEAD /folder/a" => match &state.file {
                Some((_, digest)) => format!("200 OK\r\nRepr-Digest: {digest}"),
                None => "404 Not Found".to_owned(),
            },
            "HEAD /folder/.quartet-upload-1" if state.fates.front() == Some(&Fate::Locked) => {
                state.fates.pop_front();
                "423 Locked".to_owned()
            }
            "HEAD /folder/.quartet-upload-1" if state.is_finished => {
                let length = state.file.as_ref().unwrap().0.len();
                format!("204 No Content\r\nUpload-Complete: ?1\r\nUpload-Offset: {length}")
            }
            "HEAD /folder/.quartet-upload-1" => match &state.part {
                Some(part) => format!(
                    "204 No Content\r\nUpload-Complete: ?0\r\nUpload-Offset: {}",
                    part.len()
                ),
                None => "404 Not Found".to_owned(),
            },
            "PATCH /folder/.quartet-upload-1" => {
                let offset: usize = asked.field("upload-offset").parse().unwrap();
                state.asked.push(format!("{} {offset}", asked.line));
                assert_eq!(asked.field("content-type"), "application/partial-upload");
                assert_eq!(asked.field("upload-complete"), "?1");
                let bytes: usize = asked.field("content-length").parse().unwrap();
                drop(state);
                return match self.append(stream, offset, bytes) {
                    Some(reply) => write!(stream, "HTTP/1.1 {reply}\r\n\r\n").is_ok(),
                    None => false,
                };
            }
            other => panic!("{other}"),
        };
        state.asked.push(asked.line.clone());
        write!(stream, "HTTP/1.1 {reply}\r\n\r\n").is_ok()
    }

    fn append(&self, stream: &mut TcpStream, offset: usize, bytes: usize) -> Option<String> {
        let fate = self.state().fates.pop_front().unwrap_or(Fate::Take);
        let read = match fate {
            Fate::Cut(bytes_max) | Fate::Stall(bytes_max) => bytes_max.min(bytes),
            _ => bytes,
        };
        let mut piece = vec![0; read];
        stream.read_exact(&mut piece).ok()?;
        let mut state = self.state();
        let part = state.part.as_mut().unwrap();
        assert_eq!(part.len(), offset);
        match fate {
            Fate::Refuse(reply) => return Some(format!("{reply}\r\nContent-Length: 0")),
            Fate::Conflict(taken) => part.extend_from_slice(&piece[..taken]),
            _ => part.extend_from_slice(&piece),
        }
        let offset = part.len();
        match fate {
            Fate::Conflict(_) => {
                let fields = format!("Upload-Complete: ?0\r\nUpload-Offset: {offset}");
                return Some(format!("409 Conflict\r\n{fields}\r\nContent-Length: 0"));
            }
            Fate::Cut(_) => return None,
            Fate::Stall(_) => {
                drop(state);
                let _ = std::io::copy(stream, &mut std::io::sink());
                return None;
            }
            _ => {}
        }
        let file = state.part.take().unwrap();
        let digest = state.digest.clone();
        state.file = Some((file, digest));
        state.is_finished = fate == Fate::Remember;
        // With the line breaks that are written behind each reply.
        let saved = "200 OK\r\nUpload-Complete: ?1\r\nContent-Length: 9\r\n\r\nSaved";
        (fate == Fate::Take).then(|| saved.to_owned())
    }
}

/// A file to send, and how.
struct Sending {
    here: TempDir,
    depot: Depot,
    bytes: Vec<u8>,
}

/// So long is the file that is sent.
const SENT_BYTES: usize = 2_000_000;

/// What is left beside the file while it is being sent.
const UPLOAD_STATE: &str = ".quartet-upload-mine";

const SEND: &[&str] = &["put", "mine", "folder/a", "--resume"];

fn sending(fates: &[Fate]) -> Sending {
    let here = tempfile::tempdir().unwrap();
    let bytes = Noise::new(7).bytes(SENT_BYTES);
    fs::write(here.path().join("mine"), &bytes).unwrap();
    Sending {
        here,
        depot: Depot::start(fates),
        bytes,
    }
}

impl Sending {
    #[track_caller]
    fn check(&self, code: i32, says: &str, asked: &[&str]) {
        check_says(self.depot.port, self.here.path(), SEND, code, says);
        assert_eq!(self.depot.asked(), asked);
    }

    /// The server has the file, and nothing is left here of how it got there.
    #[track_caller]
    fn check_sent(&self) {
        let state = self.depot.state();
        let (file, _) = state.file.as_ref().unwrap();
        assert!(*file == self.bytes, "{} bytes", file.len());
        assert_eq!(names(self.here.path()), ["mine"]);
    }

    #[track_caller]
    fn check_kept(&self) {
        assert_eq!(names(self.here.path()), [UPLOAD_STATE, "mine"]);
    }
}

const OPTIONS: &str = "OPTIONS /folder/a";
const CREATE: &str = "POST /folder/a";
const OFFSET: &str = "HEAD /folder/.quartet-upload-1";
const IS_THERE: &str = "HEAD /folder/a";

fn append(offset: usize) -> String {
    format!("PATCH {UPLOAD_URL} {offset}")
}

#[test]
fn an_upload_that_loses_its_connection_goes_on_by_itself() {
    let sending = sending(&[Fate::Cut(500_000), Fate::Cut(0), Fate::Cut(700_000)]);
    let (second, third) = (append(500_000), append(1_200_000));
    let asked = [
        OPTIONS,
        CREATE,
        &append(0),
        OFFSET,
        &second,
        OFFSET,
        &second,
        OFFSET,
        &third,
    ];
    sending.check(0, "Sent mine: 2000000 bytes, Saved\n", &asked);
    sending.check_sent();
}

#[test]
fn a_killed_upload_goes_on_where_it_was() {
    let sending = sending(&[Fate::Stall(300_000)]);
    let client = Running::start(command(sending.depot.port, sending.here.path(), SEND));
    let part = || sending.depot.state().part.as_ref().map_or(0, Vec::len);
    eventually("a part has arrived", || part() == 300_000);
    client.kill();
    sending.check_kept();
    assert_eq!(sending.depot.asked(), [OPTIONS, CREATE, &append(0)]);
    sending.check(0, "Sent mine: ", &[OFFSET, &append(300_000), IS_THERE]);
    sending.check_sent();
}

#[test]
fn an_upload_that_fails_says_what_is_kept() {
    let sending = sending(&[Fate::Cut(100_000); 5]);
    let port = sending.depot.port;
    let says = "; at least 400000 bytes are on the server, and --resume continues from there\n";
    check_says(port, sending.here.path(), SEND, 3, says);
    sending.check_kept();
    sending.depot.asked();
    // The server has had trouble, or wants to know who asks: that can change.
    for refused in [
        "507 Insufficient Storage",
        "401 Unauthorized",
        "403 Forbidden",
    ] {
        sending.depot.state().fates.push_back(Fate::Refuse(refused));
        let says = format!("file-client: folder/a: the server refused: {refused}; ");
        let says = match refused {
            "401 Unauthorized" => format!("{says}--auth-file FILE says who asks; at least "),
            _ => format!("{says}at least "),
        };
        check_says(port, sending.here.path(), SEND, 1, &says);
        sending.check_kept();
    }
    sending.depot.asked();
    sending.check(0, "Sent mine: ", &[OFFSET, &append(500_000), IS_THERE]);
    sending.check_sent();
}

#[test]
fn an_upload_that_is_refused_is_given_up() {
    for refused in [
        "400 Bad Request\r\nUpload-Complete: ?1",
        "412 Precondition Failed",
        "500 Internal Server Error\r\nUpload-Complete: ?1",
    ] {
        let sending = sending(&[Fate::Refuse(refused)]);
        let phrase = refused.split('\r').next().unwrap();
        let says = format!("file-client: folder/a: the server refused: {phrase}\n");
        sending.check(1, &says, &[OPTIONS, CREATE, &append(0)]);
        assert_eq!(names(sending.here.path()), ["mine"]);
    }
}

#[test]
fn an_upload_whose_last_reply_was_lost_is_done() {
    let sending = sending(&[Fate::Mute]);
    let asked = [OPTIONS, CREATE, &append(0), OFFSET, IS_THERE];
    sending.check(
        0,
        "Sent mine: 2000000 bytes, the server had all of it\n",
        &asked,
    );
    sending.check_sent();
}

#[test]
fn a_server_that_remembers_what_is_done_is_not_asked_for_the_digest() {
    let sending = sending(&[Fate::Remember]);
    let asked = [OPTIONS, CREATE, &append(0), OFFSET];
    sending.check(0, "the server had all of it\n", &asked);
    sending.check_sent();
}

#[test]
fn an_upload_that_somebody_else_is_at_is_waited_for() {
    let sending = sending(&[]);
    kill_an_upload(&sending);
    sending.depot.state().fates.extend([Fate::Locked; 2]);
    let asked = [OFFSET, OFFSET, OFFSET, &append(500_000), IS_THERE];
    sending.check(0, "Sent mine: ", &asked);
    sending.check_sent();
}

/// Leaves the state of an upload whose client was killed.
fn kill_an_upload(sending: &Sending) -> Vec<u8> {
    let fates = [Fate::Cut(100_000); 5];
    sending.depot.state().fates.extend(fates);
    check_says(sending.depot.port, sending.here.path(), SEND, 3, "--resume");
    sending.depot.asked();
    fs::read(sending.here.path().join(UPLOAD_STATE)).unwrap()
}

#[test]
fn an_upload_begins_anew_when_the_server_has_forgotten_it() {
    let mut sending = sending(&[]);
    let state = kill_an_upload(&sending);
    sending.depot.state().part = None;
    let asked = [OFFSET, IS_THERE, OPTIONS, CREATE, &append(0)];
    sending.check(0, "starting over", &asked);
    sending.check_sent();
    // It had all of it.
    plant(&sending.here.path().join(UPLOAD_STATE), &state);
    sending.check(
        0,
        "Sent mine: 2000000 bytes, the server",
        &[OFFSET, IS_THERE],
    );
    sending.check_sent();
    // And when the file is another, or the state is none.
    sending.bytes[0] ^= 1;
    fs::write(sending.here.path().join("mine"), &sending.bytes).unwrap();
    let anew = [OPTIONS, CREATE, &append(0)];
    for state in [state.as_slice(), b"{\"server\":", b""] {
        plant(&sending.here.path().join(UPLOAD_STATE), state);
        sending.check(0, "Sent mine: 2000000 bytes, Saved\n", &anew);
        sending.check_sent();
    }
}

#[test]
fn an_upload_takes_the_servers_word_for_how_much_it_has() {
    let sending = sending(&[]);
    kill_an_upload(&sending);
    // What an earlier connection held was taken between the question and the append.
    sending
        .depot
        .state()
        .fates
        .push_back(Fate::Conflict(100_000));
    let (second, third) = (append(500_000), append(600_000));
    let asked = [OFFSET, &second, &third, IS_THERE];
    sending.check(0, "Sent mine: ", &asked);
    sending.check_sent();
}

#[test]
fn an_upload_to_a_server_that_cannot_resume_is_sent_in_one() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        assert_eq!(read_request(&mut stream).unwrap().line, OPTIONS);
        stream
            .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
            .unwrap();
        assert_eq!(read_request(&mut stream).unwrap().line, CREATE);
        let mut body = [0; 4];
        stream.read_exact(&mut body).unwrap();
        assert_eq!(&body, b"mine");
        stream
            .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
            .unwrap();
    });
    let here = tempfile::tempdir().unwrap();
    fs::write(here.path().join("mine"), "mine").unwrap();
    let ran = run_command(command(port, here.path(), SEND), b"").expect(0);
    server.join().unwrap();
    let said = said(&ran);
    let warned = "[WARN] [main] folder/a: this server takes no uploads in pieces: sent in one";
    assert_eq!(
        said,
        [warned, "[INFO] [main] Sent mine: 4 bytes, No Content"]
    );
    assert_eq!(names(here.path()), ["mine"]);
}

#[test]
fn an_upload_is_not_sent_to_another_server() {
    for location in ["http://127.0.0.1:1/a", "//127.0.0.1:1/a", "a", "/a b"] {
        let head = "HTTP/1.1 201 Created\r\nUpload-Limit: min-size=0\r\nContent-Length: 0";
        let reply = format!("{head}\r\nLocation: {location}\r\n\r\n");
        let port = fake_server(reply.into_bytes(), Then::Close);
        let here = tempfile::tempdir().unwrap();
        fs::write(here.path().join("mine"), "mine").unwrap();
        let says = "folder/a: the server's reply, 201, does not match the request\n";
        check_says(port, here.path(), SEND, 3, says);
        assert_eq!(names(here.path()), ["mine"]);
    }
}
