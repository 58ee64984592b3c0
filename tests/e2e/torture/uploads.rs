//! Uploads of all kinds to a disk that fails again and again. After each failure it is mounted anew,
//! and has to have all that was acknowledged.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::*;
use crate::file::{Http, Reply};
use crate::harness::{ThinDisk, program, run_command};
use crate::resumable::{append, append_last, begin, head, resource_of};

/// How often the disk fails, unless there is a time to fill.
const FAILURES: usize = 3;

/// The longest file, in bytes.
const FILE_BYTES_MAX: usize = 400_000;

/// The disk fails after at most this many acknowledgements: its files are removed only after it has.
const ACKS_MAX: usize = 12;

/// What a file holds, by its name.
fn letters(name: &str) -> String {
    let seed = name.bytes().fold(7, |seed: u64, byte| {
        seed.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte)
    });
    let mut noise = Noise::new(seed);
    let bytes = 1 + noise.below(FILE_BYTES_MAX);
    let letter = |byte: u8| char::from(b'a' + byte % 26);
    noise.bytes(bytes).into_iter().map(letter).collect()
}

/// An upload in parts, as its client knows it.
struct Begun {
    name: String,
    resource: String,
    /// The server says that this many bytes are on the disk.
    bytes: usize,
}

/// The clients of all kinds, over all lives of the server.
struct Uploads<'d> {
    disk: &'d ThinDisk,
    /// What the file client sends from.
    here: tempfile::TempDir,
    /// The port of the first life; what is gone on with is on one server.
    port: u16,
    /// Since the disk was looked at.
    acknowledged: Mutex<Vec<String>>,
    acks: AtomicUsize,
    begun: Mutex<Option<Begun>>,
    /// What the file client has begun.
    sent: Mutex<Option<String>>,
}

impl Uploads<'_> {
    #[track_caller]
    fn start(&mut self) -> Server {
        let root = self.disk.path();
        let port = self.port.to_string();
        let options = ["--idle-exit", "0", "--keep-free", "0"];
        let mut line = vec![port.as_str(), "--root", root.to_str().unwrap()];
        line.extend(options);
        let server = Server::start("file-server", &line);
        self.port = server.addr().port();
        server
    }

    fn acknowledge(&self, name: &str) {
        self.acknowledged.lock().unwrap().push(name.to_owned());
        self.acks.fetch_add(1, Ordering::SeqCst);
    }

    /// Sends files, until one is not taken; `request` is by name and contents.
    fn send(
        &self,
        server: &Server,
        kind: &str,
        life: usize,
        request: impl Fn(&str, &str) -> String,
    ) {
        for number in 0.. {
            let name = format!("{kind}{life}.{number}");
            match ask_once(server, &request(&name, &letters(&name))) {
                Some(reply) if reply.status < 400 => self.acknowledge(&name),
                Some(_) | None => return,
            }
        }
    }

    /// Resumes unfinished uploads and starts new ones, in parts.
    fn send_parts(&self, server: &Server, life: usize) {
        let mut begun = self.begun.lock().unwrap();
        let mut number = 0;
        loop {
            let Some(upload) = &mut *begun else {
                let name = format!("parts{life}.{number}");
                number += 1;
                let whole = letters(&name);
                let first = &whole[..whole.len() / 3];
                match ask_once(server, &begin(&format!("/{name}"), "", first)) {
                    Some(reply) if reply.status == 201 => {
                        *begun = Some(Begun {
                            resource: resource_of(&reply),
                            bytes: first.len(),
                            name,
                        });
                    }
                    Some(_) | None => return,
                }
                continue;
            };
            let asked = ask_once(server, &head(&format!("HEAD {}", upload.resource), "", 0));
            let Some(asked) = asked.filter(|asked| asked.status != 500) else {
                return;
            };
            assert!(matches!(asked.status, 204 | 404), "{}", asked.head);
            if asked.status == 204 && asked.has("Upload-Complete: ?0") {
                let at: usize = asked.field("Upload-Offset").parse().unwrap();
                let (name, known) = (&upload.name, upload.bytes);
                assert!(at >= known, "{name}: {known} bytes were promised, not {at}");
                let whole = letters(&upload.name);
                let rest = &whole[at..];
                let request = match rest.len() > FILE_BYTES_MAX / 4 {
                    true => append(&upload.resource, at, &rest[..rest.len() / 2]),
                    false => append_last(&upload.resource, at, rest),
                };
                match ask_once(server, &request) {
                    Some(reply) if reply.status == 204 => {
                        upload.bytes = reply.field("Upload-Offset").parse().unwrap();
                        continue;
                    }
                    // It has all of it, and could not put it into its place: it is dropped.
                    Some(reply) if reply.status == 500 && reply.has("Upload-Complete: ?1") => {}
                    Some(reply) if reply.status < 300 => self.acknowledge(&upload.name),
                    Some(_) | None => return,
                }
            } else if asked.status == 204 {
                self.acknowledge(&upload.name);
            }
            *begun = None;
        }
    }

    /// The file client sends a file, and the same again until it has been taken.
    fn put_and_resume(&self, server: &Server, life: usize) {
        let mut sent = self.sent.lock().unwrap();
        for number in 0.. {
            let name = sent
                .get_or_insert_with(|| format!("client{life}.{number}"))
                .clone();
            let local = self.here.path().join(&name);
            fs::write(&local, letters(&name)).unwrap();
            let mut command = Command::new(program("file-client"));
            command.args(server.host_and_ports());
            command
                .args(["put", &name, "--resume"])
                .current_dir(self.here.path());
            if run_command(command, b"").code != Some(0) {
                return;
            }
            fs::remove_file(&local).unwrap();
            self.acknowledge(&name);
            *sent = None;
        }
    }

    /// Checks that the disk has what was acknowledged, and removes what no client resumes.
    #[track_caller]
    fn check(&self) -> usize {
        self.disk.drop_cache();
        let acknowledged = std::mem::take(&mut *self.acknowledged.lock().unwrap());
        let lost: HashMap<_, _> = acknowledged
            .iter()
            .filter_map(|name| Some((name, wrong(&self.disk.path(), name)?)))
            .collect();
        assert!(lost.is_empty(), "bytes of acknowledged files: {lost:?}");
        for entry in fs::read_dir(self.disk.path()).unwrap().flatten() {
            let is_file = entry.file_type().unwrap().is_file();
            let name = entry.file_name().into_string().unwrap();
            let is_under_way = name.starts_with(".quartet-upload-");
            let is_finished = || fs::read(entry.path()).unwrap().starts_with(b"finished");
            if is_file && (!is_under_way || name.ends_with(".head") && is_finished()) {
                fs::remove_file(entry.path()).unwrap();
            }
        }
        acknowledged.len()
    }
}

/// How many bytes of a file are not what was sent, if any.
fn wrong(root: &Path, name: &str) -> Option<usize> {
    let want = letters(name);
    let there = fs::read(root.join(name)).unwrap_or_default();
    let equal = there.iter().zip(want.as_bytes()).filter(|(a, b)| a == b);
    let wrong = want.len().max(there.len()) - equal.count();
    (wrong > 0).then_some(wrong)
}

/// The reply to a request, from a server that may be about to end.
fn ask_once(server: &Server, request: &str) -> Option<Reply> {
    let stream = crate::harness::door().connect(server.addr()).ok()?;
    let mut http = Http::over(stream);
    http.send(request);
    let method = request.split(' ').next()?;
    http.reply_to(method)
}

#[test]
fn uploads_outlive_a_disk_that_fails() {
    let Some(disk) = ThinDisk::mount() else {
        return;
    };
    let mut uploads = Uploads {
        disk: &disk,
        here: tempfile::tempdir().unwrap(),
        port: 0,
        acknowledged: Mutex::default(),
        acks: AtomicUsize::new(0),
        begun: Mutex::default(),
        sent: Mutex::default(),
    };
    let mut noise = noise();
    let mut checked = 0;
    let failures = rounds(FAILURES, |life| {
        let server = uploads.start();
        thread::scope(|scope| {
            let (uploads, server) = (&uploads, &server);
            let put = |name: &str, body: &str| head(&format!("PUT /{name}"), "", body.len()) + body;
            scope.spawn(move || uploads.send(server, "put", life, put));
            scope.spawn(move || uploads.send(server, "form", life, form));
            scope.spawn(move || uploads.send_parts(server, life));
            scope.spawn(move || uploads.put_and_resume(server, life));
            let acks = || uploads.acks.load(Ordering::SeqCst);
            let target = acks() + 1 + noise.below(ACKS_MAX);
            eventually("there are enough acknowledgements", || acks() >= target);
            uploads.disk.fail_after(noise.below(FILE_BYTES_MAX) as u64);
            let (code, log) = server.wait();
            assert_eq!(code, Some(2), "{log}");
        });
        disk.recover();
        checked += uploads.check();
    });
    println!("torture: uploads: {failures} failures, {checked} acknowledged, 0 lost");
}

/// A form with a file in it.
fn form(name: &str, body: &str) -> String {
    let part = format!("Content-Disposition: form-data; name=f; filename={name}");
    let form = format!("--b\r\n{part}\r\n\r\n{body}\r\n--b--\r\n");
    let fields = "Content-Type: multipart/form-data; boundary=b\r\n";
    head("POST /", fields, form.len()) + &form
}
