//! Which logins are granted, which must wait, and which files of accounts are refused.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Barrier;
use std::thread;

use cli::FileError;
use rustix::time::{ClockId, clock_gettime};

use super::*;
use crate::access::whole_secs;

/// Of "sesame", as `openssl passwd -5` and `-6` make them.
const SHA_256: &str = "$5$quartet$K7C2DS9Dq7yQ/l93/AD8dVYZWK6a57uqo5Az3wsic64";
const SHA_512: &str = "$6$quartet$tOFfjOUJjT8tUEFbjfHa7RKvFURczCKqKXZOeTA7C6YVbwu73zbAF8hWAr.HmymC3dKxDWAtXaIK9CIGE/h3G/";

pub(crate) fn accounts(text: impl AsRef<[u8]>, mode: u32) -> Result<Accounts, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("accounts");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    let shown = path.display().to_string();
    Accounts::read(&path, None).map_err(|error| error.to_string().replace(&shown, "FILE"))
}

/// Logs in as a connection does.
fn log_in(
    accounts: &Accounts,
    from: Peer,
    user: &str,
    password: &str,
) -> Result<Arc<Account>, LoginError> {
    match accounts.proven(user, password) {
        Some(account) => Ok(account),
        None => accounts.log_in(from, user, password, &|| false),
    }
}

fn here() -> Peer {
    Peer::Ip(([127, 0, 0, 1], 1).into())
}

fn there() -> Peer {
    Peer::Ip(([127, 0, 0, 2], 1).into())
}

#[track_caller]
fn check(accounts: &Accounts, from: Peer, credentials: &str, want: Result<Role, LoginError>) {
    let (user, password) = credentials.split_once(':').unwrap();
    let got = log_in(accounts, from, user, password);
    let got = got.map(|account| account.role());
    assert_eq!(got, want, "{credentials:.60}");
}

const MAY_WRITE: Result<Role, LoginError> = Ok(Role::Write);

const WRONG: Result<Role, LoginError> = Err(LoginError::Wrong);

#[test]
fn the_right_password_is_granted() {
    let text = format!("# Us.\n\nann:{SHA_256}\r\nbob:{SHA_512}\neve:a:b c\n");
    let accounts = accounts(&text, 0o600).unwrap();
    let is_proven = |user: &str, password: &str| accounts.proven(user, password).is_some();
    assert!(!is_proven("ann", "sesame"));
    for _ in 0..2 {
        check(&accounts, here(), "ann:sesame", MAY_WRITE);
        check(&accounts, here(), "bob:sesame", MAY_WRITE);
        check(&accounts, here(), "eve:a:b c", MAY_WRITE);
        for wrong in [
            "ann:sesam",
            "ann:",
            "bob:Sesame",
            "eve:a",
            "eve:",
            "dan:sesame",
            ":",
        ] {
            check(&accounts, here(), wrong, WRONG);
        }
    }
    assert!(is_proven("ann", "sesame") && is_proven("eve", "a:b c"));
    assert!(!is_proven("ann", "sesam") && !is_proven("dan", "sesame"));
}

/// The time that a wrong password takes is that of the same hashes for each user: for one whose hash
/// has many rounds, for others, and for one that there is not.
#[test]
fn the_time_does_not_tell_which_accounts_exist() {
    let dear = SHA_512.replace("$6$", "$6$rounds=20000$");
    let text = format!("ann:{dear}\nbob:{SHA_512}\ncat:{SHA_256}\neve:2\n");
    let accounts = accounts(text, 0o600).unwrap();
    let users = ["ann", "bob", "cat", "eve", "nobody"];
    // What the processor takes, and the least of that: a busy machine only makes it longer. So it is asked
    // more often until it is the same, or never is.
    let now = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
    let mut least = users.map(|_| Duration::MAX);
    let is_same = (0..50).any(|_| {
        for (user, least) in users.iter().zip(&mut least) {
            let started = now();
            assert!(accounts.find(user, "guess").is_none());
            *least = (now() - started).min(*least);
        }
        *least.iter().max().unwrap() < *least.iter().min().unwrap() * 3 / 2
    });
    assert!(is_same, "{users:?}: {least:?}");
}

#[test]
fn an_address_that_guesses_wrong_must_wait_and_no_other() {
    let accounts = accounts("ann:sesame\nbob:secret\n", 0o600).unwrap();
    check(&accounts, here(), "ann:sesame", MAY_WRITE);
    for _ in 0..16 {
        check(&accounts, here(), "ann:guess", WRONG);
    }
    for right_or_not in ["ann:guess", "bob:secret"] {
        let (user, password) = right_or_not.split_once(':').unwrap();
        let refused = log_in(&accounts, here(), user, password).map(drop);
        assert!(matches!(refused, Err(LoginError::Wait(_))), "{refused:?}");
    }
    check(&accounts, there(), "ann:guess", WRONG);
    check(&accounts, there(), "bob:secret", MAY_WRITE);
    // Users whose passwords are proven do not wait, wherever that was.
    check(&accounts, here(), "ann:sesame", MAY_WRITE);
    check(&accounts, here(), "bob:secret", MAY_WRITE);
}

#[test]
fn many_connections_with_one_new_password_need_not_wait() {
    const CONNECTIONS: usize = 64;
    let accounts = accounts(format!("ann:{SHA_512}\n"), 0o600).unwrap();
    let start = Barrier::new(CONNECTIONS);
    thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| {
                start.wait();
                check(&accounts, here(), "ann:sesame", MAY_WRITE);
            });
        }
    });
}

#[test]
fn a_password_that_is_too_long_is_not_hashed() {
    let longest = "x".repeat(PASSWORD_BYTES_MAX);
    let accounts = accounts(format!("ann:{SHA_512}\nbob:{longest}\n"), 0o600).unwrap();
    check(&accounts, here(), &format!("bob:{longest}"), MAY_WRITE);
    // So it is no guess either.
    for _ in 0..1000 {
        for user in ["ann", "bob", "dan"] {
            check(&accounts, here(), &format!("{user}:{longest}x"), WRONG);
        }
        check(&accounts, here(), &format!("{}:x", "u".repeat(256)), WRONG);
    }
    check(&accounts, here(), "ann:sesame", MAY_WRITE);
    check_refused(
        format!("# Us.\nann:{longest}x\n"),
        0o600,
        "FILE, line 2: a password has at most 256 bytes",
    );
}

#[track_caller]
fn check_refused(text: impl AsRef<[u8]>, mode: u32, want: &str) {
    let shown = String::from_utf8_lossy(text.as_ref()).into_owned();
    assert_eq!(accounts(text, mode).err().as_deref(), Some(want), "{shown}");
}

#[test]
fn a_file_that_is_wrong_is_refused() {
    let exposed = "FILE holds a plain password and others can read it; chmod 600 FILE ends that";
    check_refused("ann:secret\n", 0o644, exposed);
    check_refused("ann:secret\n", 0o640, exposed);
    check_refused(format!("ann:{SHA_512}\nbob:secret\n"), 0o604, exposed);
    accounts(format!("ann:{SHA_512}\n"), 0o644).unwrap();
    check_refused("# Nobody.\n", 0o600, "FILE holds no account");
    check_refused(
        "\nann\n",
        0o600,
        "FILE, line 2: a line is USER:HASH[:ROLE] or USER:PASSWORD",
    );
    check_refused(
        ":x\n",
        0o600,
        "FILE, line 1: a line is USER:HASH[:ROLE] or USER:PASSWORD",
    );
    check_refused(
        "ann:\n",
        0o600,
        "FILE, line 1: a line is USER:HASH[:ROLE] or USER:PASSWORD",
    );
    check_refused(
        "ann:1\nann:2\n",
        0o600,
        "FILE, line 2: this user has a line already",
    );
    let space = "FILE, line 1: there is a space around the user's name";
    for line in [" ann:1", "ann :1", "\u{a0}ann:1"] {
        check_refused(line, 0o600, space);
    }
    check_refused(b"ann:1\nb\xf6b:2\n", 0o600, "FILE, line 2: a line is UTF-8");
    let control = "FILE, line 1: neither a user nor a password has control characters";
    check_refused("an\x1bn:1\n", 0o600, control);
    check_refused("ann:a\tb\n", 0o600, control);
    check_refused(
        vec![b'#'; (1 << 20) + 1],
        0o600,
        "FILE exceeds 1048576 bytes",
    );
}

#[test]
fn an_editor_may_have_marked_the_file_as_utf_8() {
    let accounts = accounts("\u{feff}ann:secret\r\n", 0o600).unwrap();
    check(&accounts, here(), "ann:secret", MAY_WRITE);
}

#[test]
fn a_hash_that_no_password_has_is_refused() {
    #[track_caller]
    fn check(hash: &str, sentence: &str) {
        let text = format!("# Us.\nann:{SHA_256}\nbob:{hash}\n");
        check_refused(text, 0o600, &format!("FILE, line 3: {sentence}"));
    }
    let scheme =
        "a hashed password is a SHA-crypt one, which starts with $5$ or $6$: openssl passwd -6";
    check("$apr1$salt$hash", scheme);
    check("$1$salt$hash", scheme);
    check(&format!(" {SHA_512}"), scheme);
    check("{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", scheme);
    check("$6$salt", scheme);
    check("$6", scheme);
    check("$", scheme);
    check("$6$rounds=5000$salt$hash$more", scheme);
    check("$6$hour=5000$salt$hash", scheme);
    let rounds = "a hash has 1000 to 1000000 rounds";
    for wrong in ["", "x", "-1", "999", "1000001", "99999999999999999999"] {
        check(
            &SHA_512.replace("$6$", &format!("$6$rounds={wrong}$")),
            rounds,
        );
    }
    let broken = "this hash is not whole: no password has it";
    check("$5$x$!!!!", broken);
    check("$6$x$!!!!", broken);
    check("$5$x$", broken);
    check("$5$$K7C2DS9Dq7yQ/l93/AD8dVYZWK6a57uqo5Az3wsic64", broken);
    check(&SHA_512.replace("$6$", "$5$"), broken);
    check(&SHA_256.replace("$5$", "$6$"), broken);
    check(&SHA_256[..SHA_256.len() - 1], broken);
    check(&format!("{SHA_256}4"), broken);
    check(&format!("{SHA_256} "), broken);
    check(&SHA_256.replace("K7C2", "K7!2"), broken);
    check(&SHA_256.replace("K7C2", "K7\u{e4}"), broken);
    check(&SHA_256.replace("quartet", "longer-than-16-is"), broken);
    check(&SHA_256.replace("quartet", "a salt"), broken);
    // The last digit has four bits, or two.
    for (hash, digit) in [(SHA_256, 'E'), (SHA_512, '2')] {
        check(&format!("{}{digit}", &hash[..hash.len() - 1]), broken);
    }
}

#[test]
fn a_role_stands_behind_a_hash() {
    let text = format!(
        "ann:{SHA_256}:read\nbob:{SHA_256}:write\neve:{SHA_256}:admin\ndan:{SHA_256}\nflo:x:admin\n"
    );
    let accounts = accounts(&text, 0o600).unwrap();
    check(&accounts, here(), "ann:sesame", Ok(Role::Read));
    check(&accounts, here(), "bob:sesame", MAY_WRITE);
    check(&accounts, here(), "eve:sesame", Ok(Role::Admin));
    check(&accounts, here(), "dan:sesame", MAY_WRITE);
    // A plain password is the rest of the line.
    check(&accounts, here(), "flo:x:admin", MAY_WRITE);
    check(&accounts, here(), "flo:x", WRONG);
    for role in ["", "Read", "root", "admin ", "admin:write"] {
        let want = "FILE, line 1: a role is read, write or admin";
        check_refused(format!("ann:{SHA_256}:{role}"), 0o600, want);
    }
    let long = "u".repeat(256);
    let want = "FILE, line 1: a user's name has at most 255 bytes";
    check_refused(format!("{long}:x"), 0o600, want);
}

/// A file of accounts that changes.
struct Changing(tempfile::NamedTempFile);

impl Changing {
    fn write(&self, text: &str) {
        fs::write(self.0.path(), text).unwrap();
    }
}

#[test]
fn accounts_that_are_read_again_are_the_same_if_their_lines_are() {
    let file = Changing(tempfile::NamedTempFile::new().unwrap());
    file.write(&format!("ann:{SHA_512}\nbob:1\neve:{SHA_256}\nflo:1\n"));
    let accounts = Accounts::read(file.0.path(), None).unwrap();
    let log_in = |user, password| log_in(&accounts, here(), user, password);
    let [ann, bob, eve, flo] = [
        ("ann", "sesame"),
        ("bob", "1"),
        ("eve", "sesame"),
        ("flo", "1"),
    ]
    .map(|(user, password)| log_in(user, password).ok().unwrap());
    file.write(&format!(
        "# New.\nann:{SHA_512}\nbob:2\neve:{SHA_256}:read\n"
    ));
    accounts.reload().unwrap();
    assert!(accounts.has(&ann) && accounts.proven("ann", "sesame").is_some());
    assert!(!accounts.has(&bob) && !accounts.has(&eve) && !accounts.has(&flo));
    assert_eq!(log_in("bob", "1").err(), Some(LoginError::Wrong));
    assert_eq!(log_in("flo", "1").err(), Some(LoginError::Wrong));
    check(&accounts, here(), "eve:sesame", Ok(Role::Read));
    // A file that is wrong changes nothing.
    for wrong in ["", "ann\n"] {
        file.write(wrong);
        assert!(accounts.reload().is_err());
        assert!(accounts.has(&ann));
    }
}

#[test]
fn a_pipe_or_a_folder_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).unwrap();
    symlink("fifo", folder.path().join("link")).unwrap();
    for path in [&fifo, &folder.path().join("link"), folder.path()] {
        let read = Accounts::read(path, None).map(drop);
        assert!(
            matches!(read, Err(AccountsError::File(FileError::NotAFile(_)))),
            "{path:?}"
        );
    }
    let read = Accounts::read(&folder.path().join("gone"), None).map(drop);
    assert!(matches!(
        read,
        Err(AccountsError::File(FileError::Read { .. }))
    ));
}

#[test]
fn a_wait_in_seconds_is_not_less_than_the_wait() {
    for (wait, secs) in [(1, 1), (999_999, 1), (1_000_000_000, 1), (1_000_000_001, 2)] {
        assert_eq!(whole_secs(Duration::from_nanos(wait)), secs, "{wait} ns");
    }
}
