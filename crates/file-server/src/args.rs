//! The file server's command line.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use cli::args::{DURATION_MAX, Opt};
use cli::{App, Args, ServerOptions, UsageError};
use daemon::{CONNECTIONS_DEFAULT, CONNECTIONS_MAX};

use crate::Config;

/// The program.
pub const APP: App<Config> = App {
    name: "file-server",
    version: env!("CARGO_PKG_VERSION"),
    help: &[
        HELP,
        ServerOptions::HELP,
        ServerOptions::READ_FREE_HELP,
        HELP_END,
    ],
    options: &[ServerOptions::TABLE, ServerOptions::READ_FREE, OPTIONS],
    read: config,
};

/// The default port.
pub const PORT_DEFAULT: u16 = 8080;

/// The default time without a request after which the server ends.
pub const IDLE_EXIT_DEFAULT: Duration = Duration::from_secs(60);

/// The default limit of an upload, in bytes: 10 GiB.
pub const UPLOAD_BYTES_DEFAULT: u64 = 10 << 30;

/// How much of the disk uploads leave free by default, in bytes: 256 MiB.
pub const KEEP_FREE_DEFAULT: u64 = 256 << 20;

/// How long an unfinished upload is kept by default: a day.
pub const RESUME_KEEP_DEFAULT: Duration = Duration::from_secs(24 * 3600);

/// How long the sender of an upload may be silent by default: a minute.
pub const BODY_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);

/// How many archives of folders are made at once by default.
pub const ARCHIVES_DEFAULT: usize = 4;

/// The most archives at once that can be set.
const ARCHIVES_MAX: usize = 64;

/// The shortest time for which an unfinished upload can be kept.
const RESUME_KEEP_MIN: Duration = Duration::from_secs(1);

/// The shortest time for which the sender of an upload may be silent.
const BODY_TIMEOUT_MIN: Duration = Duration::from_millis(1);

/// The shortest time after which a server may end (`--for`).
const EXIT_AFTER_MIN: Duration = Duration::from_secs(1);

/// The highest limit of an upload that can be set, in bytes: no file is longer.
const UPLOAD_BYTES_MAX: u64 = i64::MAX as u64;

const HELP: &str = "\
Serves the files of a folder over HTTP/1.1, and stores uploads in it.

Usage: file-server [PORT] [OPTIONS]

Arguments:
  PORT                   the port to listen on, 0 for any free one [default: 8080]

Options:
  --root DIR             the folder that is served; nothing outside it is ever read or
                         written; --auth-file and --tls-key must be outside [default: the
                         current folder]. A file is served alone, at /, and read-only;
                         options for folders and uploads do not go with it
  --path-prefix PATH     what stands in front of each path, such as /files, for a proxy that
                         does not remove it
  --idle-exit TIME       end after TIME without a request, 0 for never [default: 60; with
                         --for 0]
  --for TIME             end after TIME
  --qr                   show the address as a QR code, for a phone (with --bind 0.0.0.0)
  --no-listing           do not list a folder without an index.html
  --archives N           make at most N archives of folders at once (?zip, ?tar, ?tgz); 0
                         makes none [default: 4]
  --no-compress          send lists and texts uncompressed, also to clients that accept gzip
  --read-only            refuse all uploads
  --create-only          refuse what would overwrite or delete a file
  --manage               let clients delete and rename files and folders, and create
                         folders: DELETE, MOVE and MKCOL, and the verbs rm, mv and mkdir
                         of file-client
  --max-upload SIZE      the largest upload [default: 10G]
  --keep-free SIZE       refuse uploads that would leave less of the disk free
                         [default: 256M]
  --resume-keep TIME     keep an unfinished upload for TIME, so that the client can resume
                         it [default: 1d]
  --body-timeout TIME    end an upload whose sender is silent for TIME [default: 60]
  --access-log           write a line for each request to standard output, in the common
                         log format; with --auth-file, it has the user
";

const HELP_END: &str = "  -v, --verbose          log a line for every request
  -h, --help             print this help
  -V, --version          print the version

A TIME is in seconds, as 90 or 90s, or as 15m, 2h or 7d. A SIZE is in bytes, as 4096, or
in units of 1024, as 64K, 10M or 2G.

Exit codes:
  0  stopped by SIGINT or SIGTERM, idle for --idle-exit, or at the end of --for
  2  wrong usage, or trouble with the root, the --auth-file or the disk
  3  cannot listen on the port

Examples:
  file-server --root data/server
  file-server 0 --root . --idle-exit 0 --read-only
  file-server --root holiday.zip --bind 0.0.0.0 --for 1h --qr
  file-server --root /srv/files --idle-exit 0 --auth-file /etc/quartet/accounts
";

const OPTIONS: &[Opt] = &[
    Opt::value("--root"),
    Opt::value("--path-prefix"),
    Opt::value("--idle-exit"),
    Opt::value("--for"),
    Opt::flag("--qr"),
    Opt::flag("--read-only"),
    Opt::flag("--create-only"),
    Opt::flag("--manage"),
    Opt::flag("--no-listing"),
    Opt::value("--archives"),
    Opt::flag("--no-compress"),
    Opt::value("--max-upload"),
    Opt::value("--keep-free"),
    Opt::value("--resume-keep"),
    Opt::value("--body-timeout"),
    Opt::flag("--access-log"),
];

/// The options that a file as the root has no use for: it is read, and there is no folder.
const OF_FOLDERS: [&str; 8] = [
    "--create-only",
    "--manage",
    "--no-listing",
    "--archives",
    "--max-upload",
    "--keep-free",
    "--resume-keep",
    "--body-timeout",
];

fn config(args: &mut Args) -> Result<Config, UsageError> {
    let Args { words, options } = args;
    let root = options.path("--root").unwrap_or_else(|| ".".into());
    let of_folder = OF_FOLDERS.into_iter().find(|option| options.has(option));
    if let Some(option) = of_folder
        && root.is_file()
    {
        let verb = Some("a file as the --root, which is read-only");
        return Err(UsageError::Misplaced { option, verb });
    }
    let mut door = ServerOptions::read(options, CONNECTIONS_DEFAULT, CONNECTIONS_MAX)?;
    let idle_exit = options.duration("--idle-exit", Duration::ZERO..=DURATION_MAX)?;
    let exit_after = options.duration("--for", EXIT_AFTER_MIN..=DURATION_MAX)?;
    let idle_exit_default = exit_after.map_or(IDLE_EXIT_DEFAULT, |_| Duration::ZERO);
    let config = Config {
        port: door.port(words.port("PORT")?, PORT_DEFAULT)?,
        door,
        root,
        path_prefix: path_prefix(options.raw("--path-prefix").as_deref())?,
        idle_exit: Some(idle_exit.unwrap_or(idle_exit_default)).filter(|idle| !idle.is_zero()),
        exit_after,
        has_qr: options.flag("--qr"),
        read_only: options.flag("--read-only"),
        create_only: options.flag("--create-only"),
        manage: options.flag("--manage"),
        has_listing: !options.flag("--no-listing"),
        archives_max: options
            .number("--archives", 0..=ARCHIVES_MAX)?
            .unwrap_or(ARCHIVES_DEFAULT),
        has_compression: !options.flag("--no-compress"),
        upload_bytes_max: options
            .size("--max-upload", 1..=UPLOAD_BYTES_MAX)?
            .unwrap_or(UPLOAD_BYTES_DEFAULT),
        keep_free_bytes: options
            .size("--keep-free", 0..=UPLOAD_BYTES_MAX)?
            .unwrap_or(KEEP_FREE_DEFAULT),
        resume_keep: options
            .duration("--resume-keep", RESUME_KEEP_MIN..=DURATION_MAX)?
            .unwrap_or(RESUME_KEEP_DEFAULT),
        body_timeout: options
            .duration("--body-timeout", BODY_TIMEOUT_MIN..=DURATION_MAX)?
            .unwrap_or(BODY_TIMEOUT_DEFAULT),
        has_access_log: options.flag("--access-log"),
    };
    if config.read_only && config.create_only {
        let sentence = "--create-only does not go with --read-only";
        return Err(UsageError::Conflict(sentence));
    }
    if config.read_only && config.manage {
        let sentence = "--manage does not go with --read-only";
        return Err(UsageError::Conflict(sentence));
    }
    Ok(config)
}

/// The prefix of all paths, without its final slash; empty without one.
fn path_prefix(prefix: Option<&OsStr>) -> Result<String, UsageError> {
    let Some(prefix) = prefix else {
        return Ok(String::new());
    };
    let bare = prefix.to_str().unwrap_or_default();
    let bare = bare.strip_suffix('/').unwrap_or(bare);
    let is_plain = |c: u8| c.is_ascii_alphanumeric() || b"-._~".contains(&c);
    let is_name = |name: &str| !matches!(name, "" | "." | "..") && name.bytes().all(is_plain);
    let mut names = bare.split('/');
    let is_right =
        prefix.as_bytes().starts_with(b"/") && names.next() == Some("") && names.all(is_name);
    if !is_right {
        let want = "a path of plain names, such as /files";
        return Err(UsageError::value("--path-prefix", prefix, want));
    }
    Ok(bare.to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use cli::Bind;

    use super::*;

    fn parse(line: &str) -> Result<Config, String> {
        APP.config_of(line.split_whitespace())
    }

    #[test]
    fn the_help_has_each_option() {
        APP.check_help();
    }

    #[test]
    fn everything_has_a_default() {
        let config = parse("").unwrap();
        assert_eq!(config.port, PORT_DEFAULT);
        assert_eq!(config.root, PathBuf::from("."));
        assert_eq!(config.idle_exit, Some(IDLE_EXIT_DEFAULT));
        assert_eq!(config.upload_bytes_max, 10_737_418_240);
        assert_eq!(config.body_timeout, Duration::from_secs(60));
        assert!(config.door.hosts.is_empty());
        assert!(!config.read_only && !config.manage && config.has_compression);
        assert!(!parse("--no-compress").unwrap().has_compression);
    }

    #[test]
    fn options_may_stand_anywhere() {
        let config = parse(
            "--root a/b --idle-exit=1.5 0 --read-only --max-upload 7 --bind ::1 \
             --max-connections=7 --host a.example --body-timeout 5m --host b",
        )
        .unwrap();
        assert_eq!(config.door.hosts, ["a.example", "b"]);
        assert_eq!(config.body_timeout, Duration::from_secs(300));
        assert_eq!((config.port, config.door.connections_max), (0, 7));
        assert_eq!(config.root, PathBuf::from("a/b"));
        assert_eq!(config.idle_exit, Some(Duration::from_millis(1500)));
        assert_eq!((config.read_only, config.upload_bytes_max), (true, 7));
        assert_eq!(config.door.binds, [Bind::Ip("::1".parse().unwrap())]);
    }

    #[test]
    fn a_server_for_some_time_does_not_end_before() {
        let config = parse("--for 1h").unwrap();
        assert_eq!(config.exit_after, Some(Duration::from_secs(3600)));
        assert_eq!(config.idle_exit, None);
        let config = parse("--for 1h --idle-exit 5m").unwrap();
        assert_eq!(config.idle_exit, Some(Duration::from_secs(300)));
    }

    #[test]
    fn a_file_as_the_root_has_no_options_of_folders() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        for option in OF_FOLDERS {
            let is_flag = parse(option).is_ok();
            let line = format!("{option}{} --root", if is_flag { "" } else { " 1" });
            let want =
                format!("{option} does not go with a file as the --root, which is read-only");
            check_refused(&format!("{line} {path}"), &want);
            assert!(parse(&format!("{line} /")).is_ok(), "{line}");
        }
        assert!(parse(&format!("--read-only --access-log --for 1h --root {path}")).is_ok());
    }

    #[test]
    fn a_prefix_has_no_final_slash() {
        let prefix = |line: &str| parse(line).unwrap().path_prefix;
        assert_eq!(prefix(""), "");
        assert_eq!(prefix("--path-prefix /files"), "/files");
        assert_eq!(prefix("--path-prefix /~me/a.b/"), "/~me/a.b");
        assert_eq!(prefix("--path-prefix /"), "");
    }

    #[test]
    fn archives_can_be_turned_off() {
        let archives = |line: &str| parse(line).unwrap().archives_max;
        assert_eq!(archives(""), ARCHIVES_DEFAULT);
        assert_eq!(archives("--archives 0"), 0);
        assert_eq!(archives("--archives 64"), ARCHIVES_MAX);
    }

    #[test]
    fn an_idle_exit_of_0_is_never() {
        assert_eq!(parse("--idle-exit 0").unwrap().idle_exit, None);
    }

    #[track_caller]
    fn check_refused(line: &str, want: &str) {
        assert_eq!(parse(line).unwrap_err(), want);
    }

    #[test]
    fn a_wrong_command_line_is_one_sentence() {
        check_refused("x", "PORT must be a port from 0 to 65535, not 'x'");
        check_refused("1 2", "there is one argument too many: '2'");
        check_refused(
            "--idle-exit -1",
            "--idle-exit must be a duration from 0 to 365d, such as 90, 90s, 15m, 2h or 7d, not '-1'",
        );
        check_refused(
            "--max-upload 0",
            "--max-upload must be a size in bytes from 1 to 9223372036854775807, such as 4096, 64K, \
             10M or 2G, not '0'",
        );
        check_refused(
            "--auth-file f --auth-all",
            "--auth-all is gone: --auth-file alone closes reading, too, and --auth-read-free opens it",
        );
        check_refused("--auth-read-free", "--auth-read-free goes with --auth-file");
        check_refused(
            "--create-only --read-only",
            "--create-only does not go with --read-only",
        );
        check_refused(
            "--read-only --manage",
            "--manage does not go with --read-only",
        );
        check_refused(
            "--resume-keep 0",
            "--resume-keep must be a duration from 1s to 365d, such as 90, 90s, 15m, 2h or 7d, \
             not '0'",
        );
        for host in ["http://a", "a:80", "[::1]", "a/"] {
            let line = format!("--host b --host {host}");
            let want =
                "--host must be the name of a host, without a port, such as files.example.com";
            check_refused(&line, &format!("{want}, not '{host}'"));
        }
        for prefix in ["files", "//a", "/a//b", "/a/..", "/a b", "/a?b", "/%41", ""] {
            assert_eq!(
                APP.config_of(["--path-prefix", prefix]).unwrap_err(),
                format!(
                    "--path-prefix must be a path of plain names, such as /files, not '{prefix}'"
                )
            );
        }
        check_refused(
            "--for 0",
            "--for must be a duration from 1s to 365d, such as 90, 90s, 15m, 2h or 7d, not '0'",
        );
        for number in ["x", "-1", "65", ""] {
            assert_eq!(
                APP.config_of(["--archives", number]).unwrap_err(),
                format!("--archives must be a number from 0 to 64, not '{number}'")
            );
        }
        check_refused("--root", "missing argument for option '--root'");
        check_refused(
            "--bind 1.2.3",
            "--bind must be an IP address, a host name, or unix:PATH, not '1.2.3'",
        );
        check_refused("--frobnicate", "unknown option '--frobnicate'");
    }
}
