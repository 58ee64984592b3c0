//! The file client's command line.

use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cli::args::{Opt, Options, Verbs, server_default};
use cli::{Address, App, Args, ClientOptions, UsageError, Words};

use crate::folder_download::split_pattern;
use crate::{Action, Change, Config, Input, Output, Transfer, Update};

/// The program.
pub const APP: App<Config> = App {
    name: "file-client",
    version: env!("CARGO_PKG_VERSION"),
    help: &[HELP],
    options: &[ClientOptions::TABLE, OPTIONS],
    read: config,
};

/// The server's default port.
pub const PORT_DEFAULT: u16 = 8080;

/// The most lines of a batch that run at once.
const JOBS_MAX: usize = 64;

#[derive(Debug, Clone, Copy)]
enum Verb {
    Get,
    Post,
    Head,
    List,
    Delete,
    CreateFolder,
    Rename,
    Batch,
}

const VERBS: &Verbs<Verb> = &[
    ("get", Verb::Get),
    ("post", Verb::Post),
    ("put", Verb::Post),
    ("head", Verb::Head),
    ("list", Verb::List),
    ("rm", Verb::Delete),
    ("mkdir", Verb::CreateFolder),
    ("mv", Verb::Rename),
    ("batch", Verb::Batch),
];

const OPTIONS: &[Opt] = &[
    Opt::value("--output").short('o'),
    Opt::flag("--create-only"),
    Opt::flag("--recursive").short('r'),
    Opt::flag("--resume"),
    Opt::optional("--update"),
    Opt::value("--jobs").short('j'),
];

const HELP: &str = "\
Downloads files from a file server and uploads files to it.

Usage: file-client [HOST PORT] [OPTIONS]
       file-client [HOST PORT] get PATH [-o FILE|-] [--resume] [--update] [OPTIONS]
       file-client [HOST PORT] get FOLDER/ [-o DIR] [-j N] [--resume] [--update] [OPTIONS]
       file-client [HOST PORT] post FILE|- [PATH] [--create-only] [--resume] [--update]
       file-client [HOST PORT] post FOLDER [PATH] [-j N] [--resume] [--update] [OPTIONS]
       file-client [HOST PORT] head PATH [OPTIONS]
       file-client [HOST PORT] list [PATH] [OPTIONS]
       file-client [HOST PORT] rm PATH... [-r] [OPTIONS]
       file-client [HOST PORT] mkdir PATH [OPTIONS]
       file-client [HOST PORT] mv FROM TO [--create-only] [OPTIONS]
       file-client [HOST PORT] batch FILE|- [-j N] [--resume] [OPTIONS]
       file-client unix:/path [VERB ...] [OPTIONS]

Arguments:
  HOST PORT              the server [default: $QUARTET_FILE, else 127.0.0.1 8080]; an IPv6
                         address as ::1 or [::1], behind which PORT may be left out
  unix:/path             a server's Unix socket; in a batch it is a HOST without a PORT
  get PATH               downloads the file at PATH; a PATH that ends in a slash is a
                         folder, and all of it is saved in DIR, which is made if there is
                         none; the last name may be a pattern of *, ? and [a-z], as
                         'photos/*.jpg', unless there is a file of that name
  post FILE [PATH]       uploads FILE to PATH [default: FILE's base name], or into the
                         folder PATH if it ends in a slash; put is the same; a folder is
                         sent with all that is in it, and nothing is deleted in PATH; - is
                         standard input, which needs a PATH with a name and is kept in a
                         temporary file until it is sent
  head PATH              prints the fields of the server's reply for a file
  list [PATH]            prints the entries of a folder, one a line: name, bytes, time;
                         exit code 1 if the server's list is incomplete
  rm PATH...             deletes files and empty folders
  mkdir PATH             creates a folder, in one that exists
  mv FROM TO             renames a file or a folder, or moves it into the folder TO if that
                         ends in a slash; a file replaces a file, and a folder an empty one
  batch FILE             runs each line of FILE, or of standard input for -:
                           client_get PATH HOST [PORT]
                           client_post FILE HOST [PORT]
                         each is a file and no folder;
                         the default PORT is that of the command line; a name with spaces is
                         quoted as in a shell; empty lines and lines that start with # are
                         skipped; a line that fails or is wrong does not stop the rest
  no verb                asks for one command after another, until 'exit':
                           GET PATH
                           POST FILE

PATH, FROM and TO start at the server's root, with or without a slash, and are not
percent-encoded.

Options:
  -o, --output FILE|DIR|-
                         where get saves; - is standard output [default: PATH's base name,
                         in the current folder; the current folder for a pattern]
  --create-only          do not overwrite a file on the server
  -r, --recursive        with rm: also delete folders that are not empty
  --resume               with get, post and batch: continue an unfinished transfer that was
                         made with --resume; its state is kept in .quartet-download-NAME and
                         .quartet-resume-NAME beside the file that get saves, and in
                         .quartet-upload-NAME beside the file that post sends; they are
                         removed at the end, and are used only if no other user can open
                         them
  --update[=digest]      with get and post: skip a file whose length and time agree, for
                         post if the server's is not older; with =digest if length and
                         SHA-256 do
  -j, --jobs N           transfer N files of a folder or lines of a batch at once, 1 to 64
                         [default: 1]
  --tls                  encrypt with TLS; the server's certificate must be for HOST
  --tls-ca FILE          trust the certificates in FILE [default: the system's]
  --tls-cert FILE, --tls-key FILE
                         the certificate of this client, and its key
  --auth-file FILE|-     the account: the first line of FILE is USER:PASSWORD, and only its
                         owner may read FILE; it is sent to HOST and PORT and not to other
                         servers of a batch, and is encrypted with --tls only
  -q, --quiet            say nothing but errors: no prompt, no progress
  --timeout TIME         the longest wait for anything [default: 30]
  --wait-for-server TIME keep trying to connect for this long [default: 0]
  -v, --verbose          log more
  -h, --help             print this help
  -V, --version          print the version

A TIME is in seconds, as 90 or 90s, or as 15m, 2h or 7d.

Exit codes:
  0  done; also at the end of the prompt, which reports errors itself
  1  the server refused: no such file, uploads forbidden, file too large, wrong password
  2  wrong usage, or trouble with a file, standard input or standard output
  3  cannot connect, no TLS that can be trusted, timed out, connection lost, or a
     malformed reply
A batch or a folder ends with the highest code of its lines or files.

A long transfer shows its progress if standard error is a terminal.

Examples:
  file-client get server/photoServer.jpg -o photo.jpg
  file-client localhost 8080 post data/client/testClient.txt
  file-client put photos albums/ -j 4 --update
  file-client get large.iso --resume
  file-client batch files.txt -j 8 --auth-file ~/.quartet-auth
";

fn config(args: &mut Args) -> Result<Config, UsageError> {
    let Args { words, options } = args;
    let client = ClientOptions::read(options)?;
    let [address] = match words.bracketed_host() {
        Some(host) => [Address::new(&host, PORT_DEFAULT)],
        None => match words.server(["PORT"], VERBS)? {
            Some(server) => server,
            None => server_default("$QUARTET_FILE", [("PORT", PORT_DEFAULT)])?,
        },
    };
    let verb = words.verb(VERBS)?;
    let mut how = How::default();
    let action = match verb {
        Some(verb) => action(verb, words, options, &mut how)?,
        None => Action::Prompt,
    };
    client.check_stdin(action.reads_stdin())?;
    Ok(Config {
        is_quiet: client.is_quiet,
        endpoint: client.endpoint(address)?,
        resume: how.resume,
        update: how.update,
        jobs: how.jobs,
        action,
    })
}

/// How a verb transfers what it transfers.
#[derive(Default)]
struct How {
    resume: bool,
    update: Option<Update>,
    jobs: Option<NonZeroUsize>,
}

impl How {
    fn read_resume_and_jobs(options: &mut Options) -> Result<Self, UsageError> {
        let jobs = options.number("--jobs", 1..=JOBS_MAX)?;
        Ok(Self {
            resume: options.flag("--resume"),
            update: None,
            jobs: jobs.and_then(NonZeroUsize::new),
        })
    }

    fn read(options: &mut Options) -> Result<Self, UsageError> {
        let update = match options.raw("--update") {
            None => None,
            Some(word) if word.is_empty() => Some(Update::Time),
            Some(word) if word == "digest" => Some(Update::Digest),
            Some(word) => {
                let want = "given alone, or as --update=digest";
                return Err(UsageError::value("--update", &word, want));
            }
        };
        let how = Self::read_resume_and_jobs(options)?;
        Ok(Self { update, ..how })
    }
}

fn action(
    verb: Verb,
    words: &mut Words,
    options: &mut Options,
    how: &mut How,
) -> Result<Action, UsageError> {
    Ok(match verb {
        Verb::Get => {
            *how = How::read(options)?;
            get(how, words, options)?
        }
        Verb::Post => {
            *how = How::read(options)?;
            Action::Transfer(post(how, words, options)?)
        }
        Verb::Head => Action::Head(words.required("the PATH to ask for")?),
        Verb::List => Action::List(words.next_word().unwrap_or_else(|| "/".into())),
        Verb::Delete => {
            let mut paths = vec![words.required("the PATH to delete")?];
            paths.extend(std::iter::from_fn(|| words.next_word()));
            let is_deep = options.flag("--recursive");
            Action::Change(Change::Delete { paths, is_deep })
        }
        Verb::CreateFolder => {
            let path = words.required("the PATH of the folder")?;
            Action::Change(Change::CreateFolder(path))
        }
        Verb::Rename => {
            let from = words.required("the path FROM")?;
            let to = words.required("the path TO")?;
            let is_new = options.flag("--create-only");
            let rename = Change::rename(from, to, is_new).map_err(UsageError::Conflict)?;
            Action::Change(rename)
        }
        Verb::Batch => {
            *how = How::read_resume_and_jobs(options)?;
            Action::Batch(Input::new(words.required("the FILE of the batch")?))
        }
    })
}

fn get(how: &How, words: &mut Words, options: &mut Options) -> Result<Action, UsageError> {
    let path = words.required("the PATH to get")?;
    let output = options.raw("--output").map(|word| match word == "-" {
        true => Output::Stdout,
        false => Output::File(PathBuf::from(word)),
    });
    let refused = |sentence| Err(UsageError::Conflict(sentence));
    if output == Some(Output::Stdout) {
        if path.as_bytes().ends_with(b"/") {
            return refused(
                "a folder does not go to standard output; 'curl http://HOST:PORT/FOLDER/?tar' \
                 gets it in one stream",
            );
        }
        if how.resume {
            return refused("--resume needs a file to save to, not standard output");
        }
        if how.update.is_some() {
            return refused("--update needs a file to save to, not standard output");
        }
    }
    if path.as_bytes().ends_with(b"/") {
        let into = match output {
            Some(Output::File(into)) => into,
            Some(Output::Stdout) | None => match Path::new(&path).file_name() {
                Some(name) => PathBuf::from(name),
                None => return refused("the root has no base name to save it under; say -o DIR"),
            },
        };
        return Ok(Action::GetFolder { path, into });
    }
    if split_pattern(&path).is_some() {
        return Ok(Action::GetMatching { path, output });
    }
    if how.jobs.is_some() {
        return refused("--jobs needs more than one file: a folder's path ends in a slash");
    }
    Ok(Action::Transfer(match output {
        None => Transfer::get(path).map_err(UsageError::Conflict)?,
        Some(output) => Transfer::Get { path, output },
    }))
}

fn post(how: &How, words: &mut Words, options: &mut Options) -> Result<Transfer, UsageError> {
    let file = Input::new(words.required("the FILE to post")?);
    if file == Input::Stdin {
        let refused = |sentence| Err(UsageError::Conflict(sentence));
        if how.resume {
            return refused("--resume needs a file to send, not standard input");
        }
        if how.update.is_some() {
            return refused("--update needs a file to send, not standard input");
        }
        if how.jobs.is_some() {
            return refused("--jobs needs a folder to send, not standard input");
        }
    }
    let path = words.next_word().unwrap_or_default();
    let is_new = options.flag("--create-only");
    Transfer::post(file, path, is_new).map_err(UsageError::Conflict)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cli::{AccountSource, Endpoint, Security};

    use super::*;

    fn parse(line: &str) -> Result<Config, String> {
        APP.config_of(line.split_whitespace())
    }

    #[track_caller]
    fn check(line: &str, want: Action) {
        assert_eq!(parse(line).unwrap().action, want, "{line}");
    }

    fn get(path: &str, output: Output) -> Action {
        Action::Transfer(Transfer::Get {
            path: path.into(),
            output,
        })
    }

    fn post(file: &str, path: &str) -> Action {
        Action::Transfer(Transfer::Post {
            file: Input::File(file.into()),
            path: path.into(),
            is_new: false,
        })
    }

    fn batch(file: &str) -> Action {
        Action::Batch(Input::File(file.into()))
    }

    fn get_folder(path: &str, into: &str) -> Action {
        Action::GetFolder {
            path: path.into(),
            into: into.into(),
        }
    }

    fn get_matching(path: &str, output: Option<Output>) -> Action {
        let path = path.into();
        Action::GetMatching { path, output }
    }

    #[test]
    fn the_help_has_each_option() {
        APP.check_help();
    }

    #[test]
    fn a_file_has_its_name_on_the_other_side_too() {
        check(
            "get /a/b.txt",
            get("/a/b.txt", Output::File("b.txt".into())),
        );
        check("get a/", get_folder("a/", "a"));
        check("get /a/b//", get_folder("/a/b//", "b"));
        check("get a/*.b", get_matching("a/*.b", None));
        check("post a/b.txt", post("a/b.txt", "b.txt"));
    }

    #[test]
    fn the_name_on_the_other_side_can_be_said() {
        check("-o c/d get a", get("a", Output::File("c/d".into())));
        check("GET a/.. --output=-", get("a/..", Output::Stdout));
        check("Post a/b.txt /c", post("a/b.txt", "/c"));
        check("put a/b.txt /c/", post("a/b.txt", "/c/b.txt"));
        check("put . /", post(".", "/"));
        check("get / -o c", get_folder("/", "c"));
        check("get a/ -o ../c/", get_folder("a/", "../c/"));
        let into = Some(Output::File("c".into()));
        check("get [a] -o c", get_matching("[a]", into));
        check("get a? -o -", get_matching("a?", Some(Output::Stdout)));
    }

    #[test]
    fn what_is_tidied_is_named() {
        let delete = |paths: &[&str], is_deep| {
            let paths = paths.iter().map(Into::into).collect();
            Action::Change(Change::Delete { paths, is_deep })
        };
        check("rm a", delete(&["a"], false));
        check("rm - a/ -r b", delete(&["-", "a/", "b"], true));
        check(
            "mkdir a/b/",
            Action::Change(Change::CreateFolder("a/b/".into())),
        );
        for (line, to, is_new) in [
            ("mv a/b c", "c", false),
            ("mv a/b/ c/ --create-only", "c/b", true),
            ("mv a/b -", "-", false),
        ] {
            let from = line.split(' ').nth(1).unwrap().into();
            let to = to.into();
            check(line, Action::Change(Change::Rename { from, to, is_new }));
        }
    }

    #[test]
    fn the_server_may_be_left_out() {
        check("", Action::Prompt);
        check("h 7", Action::Prompt);
        for (line, host, port) in [
            ("unix:/f", "unix:/f", 0),
            ("unix:/f list", "unix:/f", 0),
            ("[::1]", "::1", PORT_DEFAULT),
            ("[::1] list", "::1", PORT_DEFAULT),
            ("[::1] 7 list", "::1", 7),
            ("::1 7 list", "::1", 7),
        ] {
            let endpoint = parse(line).unwrap().endpoint;
            assert_eq!(endpoint.address, Address::new(host, port));
        }
        check("batch x", batch("x"));
        assert_eq!(
            parse("").unwrap().endpoint,
            Endpoint::new("127.0.0.1", PORT_DEFAULT)
        );
        let endpoint = parse("h 7 --timeout 1 get a --wait-for-server 2")
            .unwrap()
            .endpoint;
        assert_eq!(endpoint.address, Address::new("h", 7));
        assert_eq!(endpoint.timeout, Duration::from_secs(1));
        assert_eq!(endpoint.wait_for_server, Duration::from_secs(2));
    }

    #[test]
    fn how_it_is_done_can_be_said() {
        for (line, jobs, update) in [
            ("-j 64 batch x", 64, None),
            ("batch x --jobs=2", 2, None),
            ("get a/ -j 3", 3, None),
            ("get a* -j 3 --update", 3, Some(Update::Time)),
            ("put a -j 3 --update=digest", 3, Some(Update::Digest)),
            ("--update get a", 0, Some(Update::Time)),
            ("put a", 0, None),
        ] {
            let config = parse(line).unwrap();
            let jobs = NonZeroUsize::new(jobs);
            assert_eq!((config.jobs, config.update), (jobs, update), "{line}");
        }
        let config = parse("get a --resume --auth-file b/c").unwrap();
        assert!(config.resume && !config.is_quiet);
        let auth_file = AccountSource::File("b/c".into());
        let security = Security::new(None, Some(auth_file));
        assert_eq!(config.endpoint.security, security);
        for line in ["put a --resume --create-only", "batch a --resume"] {
            let config = parse(line).unwrap();
            assert!(config.resume, "{line}");
            assert_eq!(config.endpoint.security, Security::default(), "{line}");
        }
    }

    #[track_caller]
    fn check_refused(line: &str, want: &str) {
        assert_eq!(parse(line).unwrap_err(), want);
    }

    #[test]
    fn a_wrong_command_line_is_one_sentence() {
        let all = "the verbs are get, post, put, head, list, rm, mkdir, mv, batch";
        check_refused(
            "ls",
            &format!("unknown verb 'ls', {all}; a server is HOST PORT or unix:/path"),
        );
        check_refused("lst", "unknown verb 'lst', did you mean list?");
        check_refused("h x get a", "PORT must be a port from 0 to 65535, not 'x'");
        check_refused("get", "the PATH to get is missing");
        check_refused("post", "the FILE to post is missing");
        check_refused("batch", "the FILE of the batch is missing");
        check_refused("rm -r", "the PATH to delete is missing");
        check_refused("mkdir", "the PATH of the folder is missing");
        check_refused("mkdir a b", "there is one argument too many: 'b'");
        check_refused("mv", "the path FROM is missing");
        check_refused("mv a", "the path TO is missing");
        check_refused("mv a b c", "there is one argument too many: 'c'");
        check_refused(
            "mv a/.. b/",
            "the path FROM has no base name to keep in the folder TO",
        );
        check_refused("mv a b -r", "--recursive does not go with mv");
        check_refused("mkdir a -r", "--recursive does not go with mkdir");
        check_refused("rm a --create-only", "--create-only does not go with rm");
        check_refused("get a -r", "--recursive does not go with get");
        check_refused("get a b", "there is one argument too many: 'b'");
        check_refused("post a b c", "there is one argument too many: 'c'");
        check_refused("h 1 give a", &format!("unknown verb 'give', {all}"));
        check_refused("post a -o b", "--output does not go with post");
        check_refused("-o b", "--output needs a verb");
        check_refused(
            "get a -j 1",
            "--jobs needs more than one file: a folder's path ends in a slash",
        );
        check_refused("head a -j 1", "--jobs does not go with head");
        check_refused(
            "get a/ -o -",
            "a folder does not go to standard output; 'curl http://HOST:PORT/FOLDER/?tar' gets it \
             in one stream",
        );
        let no_name = "the root has no base name to save it under; say -o DIR";
        for line in ["get /", "get a/../", "get ../"] {
            check_refused(line, no_name);
        }
        let to_save = "--update needs a file to save to, not standard output";
        check_refused("get a -o - --update", to_save);
        let to_send = "needs a file to send, not standard input";
        check_refused("put - a --update", &format!("--update {to_send}"));
        let to_send = "--jobs needs a folder to send, not standard input";
        check_refused("put - a -j 2", to_send);
        for line in [
            "batch a --update",
            "list --update",
            "head a --update=digest",
        ] {
            let verb = line.split_whitespace().next().unwrap();
            check_refused(line, &format!("--update does not go with {verb}"));
        }
        check_refused("--update", "--update needs a verb");
        check_refused("get a --update --update=digest", "--update is given twice");
        let word = "--update must be given alone, or as --update=digest, not 'time'";
        check_refused("get a --update=time", word);
        check_refused("put .", "the FILE has no base name to send it under");
        check_refused("-j 1", "--jobs needs a verb");
        check_refused("get a --create-only", "--create-only does not go with get");
        check_refused("[::1] lst", "unknown verb 'lst', did you mean list?");
        for line in ["post -", "put - a/"] {
            let sentence = "standard input has no name to send it under; say a PATH";
            check_refused(line, sentence);
        }
        let once = "standard input is for one thing: --auth-file, or what is to be sent or done";
        for line in ["post - a", "batch -", ""] {
            check_refused(&format!("{line} --auth-file -"), once);
        }
        let jobs = |n| format!("--jobs must be a number from 1 to 64, not '{n}'");
        check_refused("batch a -j 0", &jobs("0"));
        check_refused("batch a -j 65", &jobs("65"));
        check_refused("get a/ -j x", &jobs("x"));
        check_refused("put a -j -1", &jobs("-1"));
        for line in ["rm a", "mkdir a", "mv a b"] {
            let verb = line.split(' ').next().unwrap();
            for option in ["-j 2", "--update", "--resume", "-o c"] {
                let name = match option {
                    "-j 2" => "--jobs",
                    "-o c" => "--output",
                    long => long,
                };
                let sentence = format!("{name} does not go with {verb}");
                check_refused(&format!("{line} {option}"), &sentence);
            }
        }
        check_refused("get a/ b/", "there is one argument too many: 'b/'");
        check_refused("put a/ b/ c/", "there is one argument too many: 'c/'");
        check_refused("get a/ --create-only", "--create-only does not go with get");
        check_refused("put a/ -r", "--recursive does not go with put");
        check_refused("put a/ -o b", "--output does not go with put");
        check_refused("--resume", "--resume needs a verb");
        check_refused("list --resume", "--resume does not go with list");
        check_refused("head a --resume", "--resume does not go with head");
        check_refused(
            "post - a --resume",
            "--resume needs a file to send, not standard input",
        );
        check_refused(
            "get a -o - --resume",
            "--resume needs a file to save to, not standard output",
        );
        check_refused(
            "get a/..",
            "the PATH has no base name to save the file under",
        );
        check_refused("post ..", "the FILE has no base name to send it under");
        check_refused(
            "get a --timeout 0",
            "--timeout must be a duration from 0.001s to 365d, such as 90, 90s, 15m, 2h or 7d, not '0'",
        );
    }
}
