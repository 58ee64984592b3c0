//! A client of the file server: requests and replies over one kept-alive HTTP connection.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, Write};
use std::net::TcpStream;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use cli::{Endpoint, is_timeout};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use proto::escape::{Escaped, EscapedBytes};
use proto::http::digest::{self, Digest, Hasher};
use proto::http::request::{host_field, put_head};
use proto::http::{Body, BodyLength, ResponseHead};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use crate::Error;
use crate::partial::PartialFile;
use crate::transfer::shown;

/// Files are read and written in pieces of up to so many bytes.
const PIECE_BYTES: usize = 64 * 1024;

/// The longest list that is read, in bytes: some 500,000 entries.
const LIST_BYTES_MAX: u64 = 64 << 20;

/// How often a file is asked for whose connection gets lost on the way.
const GET_TRIES: u32 = 5;

/// The pause between two tries.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// So much of a reply's body is read for its first line, in bytes, if it is not a file.
const SENTENCE_READ_MAX: u64 = 4096;

/// The longest sentence of a server that is shown, in bytes.
const SENTENCE_BYTES_MAX: usize = 200;

/// Every byte of a path that does not stand for itself in a target (RFC 3986 section 2.3), but for
/// the slash.
const PATH_ESCAPES: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

/// Talks to one file server. It connects when it first has to, keeps the connection for as long as
/// the server does, and then connects again.
///
/// ```no_run
/// use std::ffi::OsStr;
/// use std::path::Path;
///
/// use cli::Endpoint;
/// use file_client::Client;
///
/// let mut client = Client::new(Endpoint::new("127.0.0.1", 8080));
/// client.download(OsStr::new("server/index.html"), Path::new("index.html"))?;
/// client.upload(Path::new("photo.jpg"), OsStr::new("photos/photo.jpg"))?;
/// # Ok::<(), file_client::Error>(())
/// ```
pub struct Client {
    server: Endpoint,
    stream: Option<BufReader<TcpStream>>,
}

/// What stands in a folder on a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name; what of it is not UTF-8 is replaced.
    pub name: String,
    /// A file's length; `None` for a folder.
    pub bytes: Option<u64>,
    /// When it was last changed, as an HTTP date.
    pub modified: String,
}

impl Entry {
    /// The entries of a list as the server writes it.
    fn parse_list(json: &[u8]) -> Option<Vec<Self>> {
        let list: serde_json::Value = serde_json::from_slice(json).ok()?;
        let entry = |entry: &serde_json::Value| {
            Some(Self {
                name: entry["name"].as_str()?.to_owned(),
                bytes: entry["bytes"].as_u64(),
                modified: entry["modified"].as_str()?.to_owned(),
            })
        };
        list["entries"].as_array()?.iter().map(entry).collect()
    }
}

/// A file that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uploaded {
    /// How long it is.
    pub bytes: u64,
    /// What the server said, in one line.
    pub answer: String,
}

impl Client {
    /// A client of this server.
    pub fn new(server: Endpoint) -> Self {
        Self {
            server,
            stream: None,
        }
    }

    /// The server.
    pub fn server(&self) -> &Endpoint {
        &self.server
    }

    /// Gets a file and writes it to `out`. Returns how many bytes it had.
    ///
    /// # Errors
    /// If the server refuses or is lost, or with [`Error::Output`]; then some of it may have been
    /// written.
    pub fn get(&mut self, path: &OsStr, out: &mut dyn Write) -> Result<u64, Error> {
        let (bytes, out) = self.fetch(path, || Ok(out), Error::Output)?;
        out.flush().map_err(Error::Output)?;
        Ok(bytes)
    }

    /// Gets a file and saves it at `to`, where it appears when it is whole. Returns how many bytes
    /// it had.
    ///
    /// # Errors
    /// If the server refuses or is lost, or the file cannot be written; then what was there still
    /// is.
    pub fn download(&mut self, path: &OsStr, to: &Path) -> Result<u64, Error> {
        let failed = |cause| Error::Write {
            path: to.to_owned(),
            cause,
        };
        let create = || PartialFile::create(to).map_err(failed);
        let (bytes, partial) = self.fetch(path, create, failed)?;
        partial.finish().map_err(failed)?;
        Ok(bytes)
    }

    /// Sends a file, to stand at `path` on the server, in place of what may be there.
    ///
    /// # Errors
    /// If the server refuses or is lost, or the file cannot be read or changes meanwhile.
    pub fn upload(&mut self, file: &Path, path: &OsStr) -> Result<Uploaded, Error> {
        self.send_file(file, path, false)
    }

    /// Sends a file, to stand at `path` on the server if nothing is there.
    ///
    /// # Errors
    /// As [`Client::upload`]; a server that has such a file refuses with the status 412.
    pub fn upload_new(&mut self, file: &Path, path: &OsStr) -> Result<Uploaded, Error> {
        self.send_file(file, path, true)
    }

    fn send_file(&mut self, file: &Path, path: &OsStr, is_new: bool) -> Result<Uploaded, Error> {
        let source = Source::open(file)?;
        let mut fields = vec![("Repr-Digest", digest::format(&source.digest()?))];
        if is_new {
            fields.push(("If-None-Match", "*".to_owned()));
        }
        let (mut stream, head) = self.ask("POST", path, Some(&source), &fields)?;
        let (sentence, is_whole) = read_sentence(&mut stream, &head);
        self.keep(stream, &head, is_whole);
        match head.status {
            200..=299 => Ok(Uploaded {
                bytes: source.bytes,
                answer: match sentence.is_empty() {
                    true => Escaped(&head.phrase).to_string(),
                    false => sentence,
                },
            }),
            _ => Err(refused(path, &head, sentence)),
        }
    }

    /// Asks what the server says of a file: the fields of its reply, in their order.
    ///
    /// # Errors
    /// If the server refuses or is lost.
    pub fn head(&mut self, path: &OsStr) -> Result<Vec<(String, String)>, Error> {
        let (stream, head) = self.ask("HEAD", path, None, &[])?;
        let fields = head.fields().map(|(n, v)| (n.to_owned(), v.to_owned()));
        let fields = fields.collect();
        self.keep(stream, &head, true);
        match head.status {
            200 => Ok(fields),
            _ => Err(refused(path, &head, String::new())),
        }
    }

    /// Asks what stands in a folder.
    ///
    /// # Errors
    /// If the server refuses or is lost, or has a page for that folder instead of a list.
    pub fn list(&mut self, path: &OsStr) -> Result<Vec<Entry>, Error> {
        let mut folder = path.to_owned();
        if !folder.as_bytes().ends_with(b"/") {
            folder.push("/");
        }
        let accept = [("Accept", "application/json".to_owned())];
        let (mut stream, head) = self.ask("GET", &folder, None, &accept)?;
        if head.status != 200 {
            return Err(self.refusal(path, stream, &head));
        }
        if head.field("content-type") != Some("application/json") {
            return Err(Error::NoList(shown(path).to_string()));
        }
        let mut json = Vec::new();
        let mut body = Body::new(&mut stream, head.body).take(LIST_BYTES_MAX);
        body.read_to_end(&mut json)?;
        let list = Entry::parse_list(&json);
        list.ok_or_else(|| Error::NoList(shown(path).to_string()))
    }

    /// Gets a file, and opens where it goes when the server has agreed. When the connection is lost,
    /// the rest is asked for, of the same version of the file.
    fn fetch<W: Write>(
        &mut self,
        path: &OsStr,
        open: impl FnOnce() -> Result<W, Error>,
        failed: impl Fn(io::Error) -> Error,
    ) -> Result<(u64, W), Error> {
        let mut arrived = Arrived::default();
        let mut out = None;
        let mut open = Some(open);
        for tries_left in (0..GET_TRIES).rev() {
            let (mut stream, head) = self.ask("GET", path, None, &arrived.fields())?;
            if !matches!((head.status, arrived.bytes), (200, 0) | (206, 1..)) {
                return Err(self.refused_get(path, stream, &head, arrived.bytes));
            }
            arrived.note(&head)?;
            if head.body == BodyLength::UntilClose {
                log::warn!(
                    "{}: the server does not say how long it is; if the end is missing, nobody can \
                     tell",
                    shown(path)
                );
            }
            if let Some(open) = open.take() {
                out = Some(open()?);
            }
            let Some(out) = &mut out else {
                break;
            };
            match copy(
                &mut Body::new(&mut stream, head.body),
                out,
                &mut arrived,
                &failed,
            ) {
                Ok(()) => {
                    self.keep(stream, &head, true);
                    break;
                }
                Err(Error::Lost(cause)) if tries_left > 0 && arrived.can_go_on() => {
                    let bytes = arrived.bytes;
                    log::warn!(
                        "{}: lost the connection after {bytes} bytes, going on from there: {cause}",
                        shown(path)
                    );
                    thread::park_timeout(RETRY_PAUSE);
                }
                Err(error) => return Err(error),
            }
        }
        let Some(out) = out else {
            return Err(Error::Lost(io::ErrorKind::UnexpectedEof.into()));
        };
        let bytes = arrived.bytes;
        match arrived.is_right() {
            true => Ok((bytes, out)),
            false => Err(Error::WrongDigest(shown(path).to_string())),
        }
    }

    /// Why a `GET` has no file for us, or not the rest of it.
    fn refused_get(
        &mut self,
        path: &OsStr,
        stream: BufReader<TcpStream>,
        head: &ResponseHead,
        arrived_bytes: u64,
    ) -> Error {
        match head.status {
            200 if arrived_bytes > 0 => Error::ChangedThere(shown(path).to_string()),
            200..=299 => Error::Unexpected(head.status),
            _ => self.refusal(path, stream, head),
        }
    }

    /// Why a server refuses, from the body of its reply.
    fn refusal(
        &mut self,
        path: &OsStr,
        mut stream: BufReader<TcpStream>,
        head: &ResponseHead,
    ) -> Error {
        let (sentence, is_whole) = read_sentence(&mut stream, head);
        self.keep(stream, head, is_whole);
        refused(path, head, sentence)
    }

    /// Sends a request and reads the head of its reply.
    fn ask(
        &mut self,
        method: &str,
        path: &OsStr,
        source: Option<&Source>,
        more_fields: &[(&str, String)],
    ) -> Result<(BufReader<TcpStream>, ResponseHead), Error> {
        let host = host_field(&self.server.host, self.server.port);
        let mut fields = vec![("User-Agent", crate::args::APP.name)];
        fields.extend(more_fields.iter().map(|(name, value)| (*name, &**value)));
        let length = source.map(|source| source.bytes.to_string());
        fields.extend(length.iter().map(|length| ("Content-Length", &**length)));
        let mut request = Vec::new();
        put_head(&mut request, method, &target(path), &host, &fields);

        if let Some(mut stream) = self.stream.take().filter(|s| is_open(s.get_ref())) {
            match exchange(&mut stream, method, &request, source) {
                // The server closed it as we wrote to it. Both requests can be made twice: the
                // second upload would replace the first.
                Err(Error::Lost(error)) if !is_timeout(&error) => {
                    log::debug!("Connecting again: {error}");
                }
                other => return Ok((stream, other?)),
            }
        }
        let mut stream = BufReader::new(self.server.connect()?);
        let head = exchange(&mut stream, method, &request, source)?;
        Ok((stream, head))
    }

    /// Keeps a connection for the next request, if it can be.
    fn keep(&mut self, stream: BufReader<TcpStream>, head: &ResponseHead, body_is_read: bool) {
        if head.keep_alive && body_is_read && stream.buffer().is_empty() {
            self.stream = Some(stream);
        }
    }
}

/// What has arrived of a file, and how to go on with it.
#[derive(Default)]
struct Arrived {
    bytes: u64,
    hasher: Hasher,
    /// The version that it is of, if the server says so.
    etag: Option<String>,
    /// What the whole of it must have, if the server says so.
    digest: Option<Digest>,
}

impl Arrived {
    /// The fields of a request for what is missing.
    fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = vec![("Want-Repr-Digest", "sha-256=1".to_owned())];
        if let (1.., Some(etag)) = (self.bytes, &self.etag) {
            fields.push(("Range", format!("bytes={}-", self.bytes)));
            fields.push(("If-Range", etag.clone()));
        }
        fields
    }

    /// Whether what is missing can be asked for: only a strong tag says that the rest will fit.
    fn can_go_on(&self) -> bool {
        self.bytes > 0 && self.etag.is_some()
    }

    /// Notes what a reply says of the file.
    fn note(&mut self, head: &ResponseHead) -> Result<(), Error> {
        if head.status == 206 {
            let wanted = format!("bytes {}-", self.bytes);
            let range = head.field("content-range").unwrap_or_default();
            if !range.starts_with(&wanted) {
                return Err(Error::Unexpected(head.status));
            }
        }
        let etag = head.field("etag").filter(|etag| etag.starts_with('"'));
        self.etag = etag.map(str::to_owned);
        let digest = head.field("repr-digest");
        let digest = digest.and_then(|value| digest::parse(value.as_bytes()).ok());
        self.digest = digest.flatten();
        Ok(())
    }

    /// Whether the file is what the server says it is, as far as it says so.
    fn is_right(&self) -> bool {
        let digest = || self.hasher.clone().finish();
        self.digest.is_none_or(|wanted| wanted == digest())
    }
}

/// Copies a body to where it goes. It knows how long it is: to end early is an error of its own.
fn copy(
    body: &mut impl Read,
    out: &mut impl Write,
    arrived: &mut Arrived,
    failed: impl Fn(io::Error) -> Error,
) -> Result<(), Error> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = match body.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        out.write_all(&piece[..read]).map_err(&failed)?;
        arrived.hasher.update(&piece[..read]);
        arrived.bytes += read as u64;
    }
}

/// A path as a person writes it, as a target.
fn target(path: &OsStr) -> String {
    let path = path.as_bytes();
    let path = path.strip_prefix(b"/").unwrap_or(path);
    format!("/{}", percent_encode(path, PATH_ESCAPES))
}

/// Whether a connection has been silent since the last reply. If it was closed, or the server said
/// something unasked, that it was going to close it perhaps, the next request needs a new one.
fn is_open(stream: &TcpStream) -> bool {
    peek(stream, &mut [0]) == Err(Errno::AGAIN)
}

/// Whether the server has begun its answer, or ended the connection. An interim response (1xx),
/// also one that was not asked for, is no answer.
fn has_answered(stream: &TcpStream) -> bool {
    const CLASS_AT: usize = "HTTP/1.1 ".len();
    let mut start = [0; CLASS_AT + 1];
    match peek(stream, &mut start) {
        Ok(0) => true,
        Ok(bytes) => bytes > CLASS_AT && start[CLASS_AT] != b'1',
        Err(error) => error != Errno::AGAIN,
    }
}

/// What a read would give, without waiting and without taking it.
fn peek(stream: &TcpStream, start: &mut [u8]) -> Result<usize, Errno> {
    let (bytes, _) = recv(stream, start, RecvFlags::PEEK | RecvFlags::DONTWAIT)?;
    Ok(bytes)
}

/// Sends a request and reads the head of its reply, over one connection.
fn exchange(
    stream: &mut BufReader<TcpStream>,
    method: &str,
    request: &[u8],
    source: Option<&Source>,
) -> Result<ResponseHead, Error> {
    let sent = match send(stream.get_ref(), request, source) {
        Err(error @ (Error::Read { .. } | Error::Changed(_))) => return Err(error),
        // To wait for an answer now would be to wait twice.
        Err(Error::Lost(error)) if is_timeout(&error) && !has_answered(stream.get_ref()) => {
            return Err(error.into());
        }
        other => other,
    };
    // A server that refuses a file does not wait for the end of it, and may close while we still
    // write. Its reply tells more than the broken pipe does.
    let mut head = match ResponseHead::read(stream, method) {
        Ok(head) => head,
        Err(error) => return Err(sent.err().unwrap_or(error.into())),
    };
    if !matches!(sent, Ok(true)) {
        // Whoever agrees without having seen all of it does not mean us.
        if head.status < 300 {
            return Err(Error::Unexpected(head.status));
        }
        head.keep_alive = false;
    }
    Ok(head)
}

/// Sends a request; returns whether it is whole, or the server answered before it was.
fn send(mut stream: &TcpStream, request: &[u8], source: Option<&Source>) -> Result<bool, Error> {
    stream.write_all(request)?;
    match source {
        None => Ok(true),
        Some(source) => source.send(stream),
    }
}

/// A file that is to be sent, and how long it was when that was decided.
struct Source<'a> {
    path: &'a Path,
    file: File,
    bytes: u64,
}

impl<'a> Source<'a> {
    fn open(path: &'a Path) -> Result<Self, Error> {
        let failed = |cause| Error::Read {
            path: path.to_owned(),
            cause,
        };
        // Before it is opened: opening a fifo waits for its writer.
        if !fs::metadata(path).map_err(failed)?.is_file() {
            return Err(Error::NotAFile(path.to_owned()));
        }
        let file = File::open(path).map_err(failed)?;
        let bytes = file.metadata().map_err(failed)?.len();
        Ok(Self { path, file, bytes })
    }

    /// The digest of all of it.
    fn digest(&self) -> Result<Digest, Error> {
        let failed = |cause| Error::Read {
            path: self.path.to_owned(),
            cause,
        };
        let mut file = &self.file;
        file.rewind().map_err(failed)?;
        Hasher::digest_of(file).map_err(failed)
    }

    /// Sends all of it; returns `false` if the server answered before that.
    fn send(&self, mut stream: &TcpStream) -> Result<bool, Error> {
        let failed = |cause| Error::Read {
            path: self.path.to_owned(),
            cause,
        };
        let changed = || Error::Changed(self.path.to_owned());
        let mut file = &self.file;
        file.rewind().map_err(failed)?;
        let mut file = file.take(self.bytes);
        let mut piece = vec![0; PIECE_BYTES];
        while file.limit() > 0 {
            if has_answered(stream) {
                return Ok(false);
            }
            let read = file.read(&mut piece).map_err(failed)?;
            if read == 0 {
                return Err(changed());
            }
            // Without its last piece the file is not whole, and the server keeps nothing.
            if file.limit() == 0 && self.file.metadata().map_err(failed)?.len() != self.bytes {
                return Err(changed());
            }
            stream.write_all(&piece[..read])?;
        }
        Ok(true)
    }
}

/// The first line of a reply's body, safe to stand in a line, and whether the body was read to its
/// end.
fn read_sentence(stream: &mut BufReader<TcpStream>, head: &ResponseHead) -> (String, bool) {
    let mut text = Vec::new();
    let mut body = Body::new(stream, head.body).take(SENTENCE_READ_MAX);
    // What came before an error may still say what is wrong.
    let _ = body.read_to_end(&mut text);
    let line = text.split(|b| *b == b'\n').next().unwrap_or_default();
    let sentence = EscapedBytes {
        bytes: line.trim_ascii(),
        bytes_max: SENTENCE_BYTES_MAX,
    };
    (sentence.to_string(), body.get_ref().is_done())
}

fn refused(path: &OsStr, head: &ResponseHead, sentence: String) -> Error {
    Error::Refused {
        path: shown(path).to_string(),
        status: head.status,
        phrase: Escaped(&head.phrase).to_string(),
        sentence,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_target(path: &[u8], want: &str) {
        assert_eq!(target(OsStr::from_bytes(path)), want);
    }

    #[test]
    fn a_path_is_encoded_name_by_name() {
        check_target(b"a/b.txt", "/a/b.txt");
        check_target(b"/a/b.txt", "/a/b.txt");
        check_target(b"", "/");
        check_target(b"/", "/");
        check_target(b"a/", "/a/");
        check_target(b"//a", "//a");
        check_target(b"a b?c#d", "/a%20b%3Fc%23d");
        check_target(b"100%.txt", "/100%25.txt");
        check_target("ä".as_bytes(), "/%C3%A4");
        check_target(b"\xff\n\r\0", "/%FF%0A%0D%00");
        check_target(b"a-b_c~d", "/a-b_c~d");
        check_target(b"..", "/..");
    }

    #[test]
    fn only_regular_files_are_sent() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
        for path in [folder.path(), &fifo, Path::new("/dev/null")] {
            let opened = Source::open(path).map(drop);
            assert!(matches!(opened, Err(Error::NotAFile(_))), "{path:?}");
        }
        let gone = Source::open(&folder.path().join("gone")).map(drop);
        assert!(matches!(gone, Err(Error::Read { .. })));
    }
}
