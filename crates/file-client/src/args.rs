//! The file client's command line.

use std::ffi::OsStr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use cli::args::{number, seconds};
use cli::{App, Endpoint, Parsed, UsageError, Words};
use lexopt::prelude::*;

use crate::{Action, Config, Output, Transfer};

/// The program.
pub const APP: App = App {
    name: "file-client",
    version: env!("CARGO_PKG_VERSION"),
    help: HELP,
};

/// The server's port unless told otherwise.
pub const PORT_DEFAULT: u16 = 8080;

/// The most requests of a batch at once.
const JOBS_MAX: u64 = 64;

const VERBS: &[&str] = &["get", "post", "put", "head", "list", "batch"];

const HELP: &str = "\
Gets files from a file server and sends files to it.

Usage: file-client [HOST PORT] [OPTIONS]
       file-client [HOST PORT] get PATH [-o FILE|-] [--resume] [OPTIONS]
       file-client [HOST PORT] post FILE [PATH] [--create-only] [--resume] [OPTIONS]
       file-client [HOST PORT] head PATH [OPTIONS]
       file-client [HOST PORT] list [PATH] [OPTIONS]
       file-client [HOST PORT] batch FILE [-j N] [--resume] [OPTIONS]

Arguments:
  HOST PORT              the server [default: 127.0.0.1 8080]
  get PATH               saves the file at PATH on the server
  post FILE [PATH]       sends FILE, to stand at PATH [default: FILE's base name]; put is
                         another word for it
  head PATH              shows what the server says of a file
  list [PATH]            shows what stands in a folder, an entry a line: name, bytes, time
  batch FILE             does what each line of FILE says:
                           client_get PATH HOST [PORT]
                           client_post FILE HOST [PORT]
                         without PORT that of the command line; empty lines and lines that
                         start with # mean nothing; a line that fails does not stop the rest
  no verb                asks for one command after another, until 'exit':
                           GET PATH
                           POST FILE

PATH starts at the server's root, with or without a slash, and is not percent-encoded.

Options:
  -o, --output FILE|-    where get saves; - is standard output [default: PATH's base name,
                         in the current folder; index.html if PATH ends in a slash]
  --create-only          do not overwrite a file on the server
  --resume               with get, post and batch: go on where an earlier try with --resume
                         was cut off, and leave behind what the next one needs to go on:
                         .quartet-download-NAME and .quartet-download-NAME.json beside the
                         file that get saves, .quartet-upload-NAME beside the file that post
                         sends; they go away when it is done
  -j, --jobs N           do so many lines of a batch at once, 1 to 64 [default: 1]
  --auth-file FILE       say who asks: the first line of FILE is USER:PASSWORD, and nobody
                         but its owner may read FILE; it is sent, not encrypted, to HOST and
                         PORT alone, not to other servers in a batch
  -q, --quiet            say nothing when all is well, and show no progress
  --timeout SECS         the longest wait for anything [default: 30]
  --wait-for-server SECS keep trying to connect for so long [default: 0]
  -v, --verbose          log more
  -h, --help             print this help
  -V, --version          print the version

Exit codes:
  0  done; also at the end of the prompt, which has said what failed
  1  the server refused: no such file, uploads forbidden, file too large, wrong password
  2  wrong usage, or trouble with a file on this side
  3  cannot connect, timed out, connection lost, or no sense in the reply
A batch ends with the highest code of its lines.

A transfer that takes a while shows how far it is if standard error is a terminal.

Examples:
  file-client get server/photoServer.jpg -o photo.jpg
  file-client localhost 8080 post data/client/testClient.txt
  file-client get large.iso --resume
  file-client batch files.txt -j 8 --auth-file ~/.quartet-auth
";

/// Reads a command line.
///
/// # Errors
/// One sentence that says what is wrong and what would be right.
pub fn parse(mut parser: lexopt::Parser) -> Result<Parsed<Config>, UsageError> {
    let mut endpoint = Endpoint::new("127.0.0.1", PORT_DEFAULT);
    let mut output = None;
    let mut create_only = false;
    let mut resume = false;
    let mut jobs = None;
    let mut auth_file = None;
    let mut is_quiet = false;
    let mut verbose = false;
    let mut words = Words::default();
    while let Some(arg) = parser.next()? {
        match arg {
            Short('h') | Long("help") => return Ok(Parsed::Help),
            Short('V') | Long("version") => return Ok(Parsed::Version),
            Short('v') | Long("verbose") => verbose = true,
            Long("timeout") => endpoint.timeout = cli::args::timeout(&parser.value()?)?,
            Long("wait-for-server") => {
                endpoint.wait_for_server = seconds("--wait-for-server", &parser.value()?)?;
            }
            Short('q') | Long("quiet") => is_quiet = true,
            Long("create-only") => create_only = true,
            Long("resume") => resume = true,
            Short('j') | Long("jobs") => {
                let jobs_wanted = number("--jobs", &parser.value()?, 1..=JOBS_MAX)?;
                jobs = NonZeroUsize::new(jobs_wanted as usize);
            }
            Long("auth-file") => auth_file = Some(PathBuf::from(parser.value()?)),
            Short('o') | Long("output") => output = Some(parser.value()?),
            Value(word) => words.push(word),
            other => return Err(other.unexpected().into()),
        }
    }
    if words.starts_with_host(VERBS) {
        endpoint.host = words.required_text("HOST")?;
        endpoint.port = words.required_port("PORT")?;
    }
    let output = output.map(|word| match word == "-" {
        true => Output::Stdout,
        false => Output::File(PathBuf::from(word)),
    });
    let mut action = action(&mut words, output)?;
    words.end()?;
    match &mut action {
        Action::Transfer(Transfer::Post { is_new, .. }) => *is_new = create_only,
        _ if create_only => return Err(UsageError::Conflict("--create-only goes with post")),
        _ => {}
    }
    match (&mut action, jobs) {
        (_, None) => {}
        (Action::Batch { jobs, .. }, Some(wanted)) => *jobs = wanted,
        _ => return Err(UsageError::Conflict("--jobs goes with batch")),
    }
    if resume {
        check_resume(&action)?;
    }
    let config = Config {
        endpoint,
        is_quiet,
        resume,
        auth_file,
        action,
    };
    Ok(Parsed::Run { config, verbose })
}

fn action(words: &mut Words, output: Option<Output>) -> Result<Action, UsageError> {
    let Some(verb) = words.take() else {
        refuse_output(output)?;
        return Ok(Action::Prompt);
    };
    match verb.to_ascii_lowercase().to_str() {
        Some("get") => {
            let path = words.required("the PATH to get")?;
            let transfer = match output {
                Some(output) => Ok(Transfer::Get { path, output }),
                None => Transfer::get(path),
            };
            Ok(Action::Transfer(transfer.map_err(UsageError::Conflict)?))
        }
        Some("head") => {
            refuse_output(output)?;
            Ok(Action::Head(words.required("the PATH to ask for")?))
        }
        Some("list") => {
            refuse_output(output)?;
            Ok(Action::List(words.take().unwrap_or_else(|| "/".into())))
        }
        Some("post" | "put") => {
            refuse_output(output)?;
            let file = words.required("the FILE to post")?;
            let transfer = match words.take() {
                Some(path) => Ok(Transfer::Post {
                    file: PathBuf::from(file),
                    path,
                    is_new: false,
                }),
                None => Transfer::post(file),
            };
            Ok(Action::Transfer(transfer.map_err(UsageError::Conflict)?))
        }
        Some("batch") => {
            refuse_output(output)?;
            let file = words.required("the FILE of the batch")?;
            Ok(Action::Batch {
                file: PathBuf::from(file),
                jobs: NonZeroUsize::MIN,
            })
        }
        _ => Err(unknown_verb(&verb)),
    }
}

fn refuse_output(output: Option<Output>) -> Result<(), UsageError> {
    match output {
        None => Ok(()),
        Some(_) => Err(UsageError::Conflict("--output goes with get")),
    }
}

fn check_resume(action: &Action) -> Result<(), UsageError> {
    let sentence = match action {
        Action::Transfer(Transfer::Get {
            output: Output::Stdout,
            ..
        }) => "--resume needs a file to save to, not standard output",
        Action::Transfer(_) | Action::Batch { .. } => return Ok(()),
        _ => "--resume goes with get, post and batch",
    };
    Err(UsageError::Conflict(sentence))
}

fn unknown_verb(verb: &OsStr) -> UsageError {
    UsageError::Value {
        what: "the verb",
        value: verb.to_string_lossy().into_owned(),
        want: "get, post, put, head, list or batch".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn parse(line: &str) -> Result<Config, String> {
        let args = ["file-client"].into_iter().chain(line.split_whitespace());
        match super::parse(lexopt::Parser::from_iter(args)) {
            Ok(Parsed::Run { config, .. }) => Ok(config),
            Ok(other) => panic!("{line}: {other:?}"),
            Err(error) => Err(error.to_string()),
        }
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
            file: file.into(),
            path: path.into(),
            is_new: false,
        })
    }

    fn batch(file: &str, jobs: usize) -> Action {
        Action::Batch {
            file: file.into(),
            jobs: NonZeroUsize::new(jobs).unwrap(),
        }
    }

    #[test]
    fn a_file_has_its_name_on_the_other_side_too() {
        check(
            "get /a/b.txt",
            get("/a/b.txt", Output::File("b.txt".into())),
        );
        check("get a/", get("a/", Output::File("index.html".into())));
        check("post a/b.txt", post("a/b.txt", "b.txt"));
    }

    #[test]
    fn the_name_on_the_other_side_can_be_said() {
        check("-o c/d get a", get("a", Output::File("c/d".into())));
        check("GET a/.. --output=-", get("a/..", Output::Stdout));
        check("Post a/b.txt /c/", post("a/b.txt", "/c/"));
    }

    #[test]
    fn the_server_may_be_left_out() {
        check("", Action::Prompt);
        check("h 7", Action::Prompt);
        check("batch x", batch("x", 1));
        assert_eq!(
            parse("").unwrap().endpoint,
            Endpoint::new("127.0.0.1", PORT_DEFAULT)
        );
        let endpoint = parse("h 7 --timeout 1 get a --wait-for-server 2")
            .unwrap()
            .endpoint;
        assert_eq!((endpoint.host.as_str(), endpoint.port), ("h", 7));
        assert_eq!(endpoint.timeout, Duration::from_secs(1));
        assert_eq!(endpoint.wait_for_server, Duration::from_secs(2));
    }

    #[test]
    fn how_it_is_done_can_be_said() {
        check("-j 64 batch x", batch("x", 64));
        check("batch x --jobs=2", batch("x", 2));
        let config = parse("get a --resume --auth-file b/c").unwrap();
        assert!(config.resume && !config.is_quiet);
        assert_eq!(config.auth_file, Some("b/c".into()));
        for line in ["put a --resume --create-only", "batch a --resume"] {
            let config = parse(line).unwrap();
            assert!(config.resume && config.auth_file.is_none(), "{line}");
        }
    }

    #[track_caller]
    fn check_refused(line: &str, want: &str) {
        assert_eq!(parse(line).unwrap_err(), want);
    }

    #[test]
    fn a_wrong_command_line_is_one_sentence() {
        check_refused("h", "PORT is missing");
        check_refused("h x get a", "PORT must be a port from 0 to 65535, not 'x'");
        check_refused("get", "the PATH to get is missing");
        check_refused("post", "the FILE to post is missing");
        check_refused("batch", "the FILE of the batch is missing");
        check_refused("get a b", "there is one argument too many: 'b'");
        check_refused("post a b c", "there is one argument too many: 'c'");
        check_refused(
            "h 1 give a",
            "the verb must be get, post, put, head, list or batch, not 'give'",
        );
        check_refused("post a -o b", "--output goes with get");
        check_refused("-o b", "--output goes with get");
        check_refused("get a -j 1", "--jobs goes with batch");
        check_refused("-j 1", "--jobs goes with batch");
        let jobs = |n| format!("--jobs must be a number from 1 to 64, not '{n}'");
        check_refused("batch a -j 0", &jobs("0"));
        check_refused("batch a -j 65", &jobs("65"));
        let resume = "--resume goes with get, post and batch";
        check_refused("--resume", resume);
        check_refused("list --resume", resume);
        check_refused("head a --resume", resume);
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
            "--timeout must be more than 0 seconds, not '0'",
        );
    }
}
