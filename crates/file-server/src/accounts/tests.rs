//! Which logins are granted, which must wait, and which files of accounts are refused.

use std::fs::{self, Permissions};
use std::os::unix::fs::symlink;
use std::sync::Barrier;
use std::thread;

use super::*;

/// Of "sesame", as `openssl passwd -5` and `-6` make them.
const SHA_256: &str = "$5$quartet$K7C2DS9Dq7yQ/l93/AD8dVYZWK6a57uqo5Az3wsic64";
const SHA_512: &str = "$6$quartet$tOFfjOUJjT8tUEFbjfHa7RKvFURczCKqKXZOeTA7C6YVbwu73zbAF8hWAr.HmymC3dKxDWAtXaIK9CIGE/h3G/";

fn accounts(text: impl AsRef<[u8]>, mode: u32) -> Result<Accounts, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("accounts");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    let shown = path.display().to_string();
    Accounts::read(&path).map_err(|error| error.to_string().replace(&shown, "FILE"))
}

fn here() -> Source {
    Source::Ip([127, 0, 0, 1].into())
}

fn there() -> Source {
    Source::Ip([127, 0, 0, 2].into())
}

#[track_caller]
fn check(accounts: &Accounts, from: Source, credentials: &str, want: Access) {
    let (user, password) = credentials.split_once(':').unwrap();
    let got = accounts.check(from, user, password);
    assert_eq!(got, want, "{credentials:.60}");
}

#[test]
fn the_right_password_is_granted() {
    let text = format!("# Us.\n\nann:{SHA_256}\r\nbob:{SHA_512}\neve:a:b c\n");
    let accounts = accounts(&text, 0o600).unwrap();
    assert!(!accounts.is_proven("ann", "sesame"));
    for _ in 0..2 {
        check(&accounts, here(), "ann:sesame", Access::Granted);
        check(&accounts, here(), "bob:sesame", Access::Granted);
        check(&accounts, here(), "eve:a:b c", Access::Granted);
        for wrong in [
            "ann:sesam",
            "ann:",
            "bob:Sesame",
            "eve:a",
            "eve:",
            "dan:sesame",
            ":",
        ] {
            check(&accounts, here(), wrong, Access::Denied);
        }
    }
    assert!(accounts.is_proven("ann", "sesame") && accounts.is_proven("eve", "a:b c"));
    assert!(!accounts.is_proven("ann", "sesam") && !accounts.is_proven("dan", "sesame"));
}

#[test]
fn the_time_does_not_tell_which_accounts_exist() {
    let accounts = accounts(format!("ann:{SHA_512}\nbob:1\neve:2\nflo:3\n"), 0o600).unwrap();
    // The shortest of three: a busy machine only makes it longer.
    let least = |user: &str| {
        let took = (0..3).map(|_| {
            let started = Instant::now();
            assert!(!accounts.is_right(user, "guess"));
            started.elapsed()
        });
        took.min().unwrap()
    };
    let of_hash = least("ann");
    for user in ["bob", "dan"] {
        assert!(least(user) > of_hash / 4, "{user}");
    }
}

#[test]
fn an_address_that_guesses_wrong_must_wait_and_no_other() {
    let accounts = accounts("ann:sesame\nbob:secret\n", 0o600).unwrap();
    check(&accounts, here(), "ann:sesame", Access::Granted);
    let denied = || accounts.check(here(), "ann", "guess") == Access::Denied;
    // One more for each second that this takes.
    let guessed = (0..1000).take_while(|_| denied()).count();
    assert!(guessed < 1000, "it never has to wait");
    check(&accounts, there(), "ann:guess", Access::Denied);
    check(&accounts, there(), "bob:secret", Access::Granted);
    // A user with a proven password does not wait.
    check(&accounts, here(), "ann:sesame", Access::Granted);
    check(&accounts, here(), "bob:secret", Access::Granted);
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
                check(&accounts, here(), "ann:sesame", Access::Granted);
            });
        }
    });
}

#[test]
fn a_password_that_is_too_long_is_not_hashed() {
    let longest = "x".repeat(PASSWORD_BYTES_MAX);
    let accounts = accounts(format!("ann:{SHA_512}\nbob:{longest}\n"), 0o600).unwrap();
    check(
        &accounts,
        here(),
        &format!("bob:{longest}"),
        Access::Granted,
    );
    // So it is no guess either.
    for _ in 0..1000 {
        for user in ["ann", "bob", "dan"] {
            check(
                &accounts,
                here(),
                &format!("{user}:{longest}x"),
                Access::Denied,
            );
        }
    }
    check(&accounts, here(), "ann:sesame", Access::Granted);
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
    let exposed = "FILE holds a plain password, so only its owner may read it: chmod 600 FILE";
    check_refused("ann:secret\n", 0o644, exposed);
    check_refused("ann:secret\n", 0o640, exposed);
    check_refused(format!("ann:{SHA_512}\nbob:secret\n"), 0o604, exposed);
    accounts(format!("ann:{SHA_512}\n"), 0o644).unwrap();
    check_refused("# Nobody.\n", 0o600, "FILE holds no account");
    check_refused("\nann\n", 0o600, "FILE, line 2: a line is USER:PASSWORD");
    check_refused(":x\n", 0o600, "FILE, line 1: a line is USER:PASSWORD");
    check_refused("ann:\n", 0o600, "FILE, line 1: a line is USER:PASSWORD");
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
        vec![b'#'; FILE_BYTES_MAX as usize + 1],
        0o600,
        "FILE exceeds 1048576 bytes",
    );
}

#[test]
fn an_editor_may_have_marked_the_file_as_utf_8() {
    let accounts = accounts("\u{feff}ann:secret\r\n", 0o600).unwrap();
    check(&accounts, here(), "ann:secret", Access::Granted);
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
fn a_pipe_or_a_folder_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).unwrap();
    symlink("fifo", folder.path().join("link")).unwrap();
    for path in [&fifo, &folder.path().join("link"), folder.path()] {
        let read = Accounts::read(path).map(drop);
        assert!(matches!(read, Err(AccountsError::NotAFile(_))), "{path:?}");
    }
    let read = Accounts::read(&folder.path().join("gone")).map(drop);
    assert!(matches!(read, Err(AccountsError::Read { .. })));
}
