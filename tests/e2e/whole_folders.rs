//! A folder of everything that a folder can have goes to a server, over a network that is cut again and
//! again, and comes back in each way there is: by the client, as zip and as tar. Nothing differs.
//!
//! With `QUARTET_FOLDER=5000:5120` it has 5000 files, and one more of 5120 megabytes, most of it a hole;
//! else what a test may take.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{Shutdown, TcpListener};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use crate::archives::{is_there, run_in, save_sparse};
use crate::file_client::{Sides, said, sides, through_proxy};
use crate::folders::{NAMES, name};
use crate::harness::{
    Address, PATIENCE, Running, door, has_program, lock, on_a_terminal, run_at_most, run_command,
};

/// How many files there are, and how long the largest is, in megabytes.
const FOLDER_VARIABLE: &str = "QUARTET_FOLDER";
const DEFAULT: (usize, u64) = (500, 64);

/// How often the network is cut in each direction: half of it while small files are on their way, and half
/// in the large one.
const CUTS: u64 = 10;

/// What at least goes over the network for a small file, in bytes.
const SMALL_BYTES_MIN: u64 = 500;

/// A network in front of a server that carries a number of bytes, in both directions together. Then
/// all connections are cut, and new ones too, until it may carry more.
struct Network {
    port: u16,
    state: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    left: u64,
    carried: u64,
    is_cut: bool,
}

impl Network {
    fn to(server: Address) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state: Arc<(Mutex<State>, Condvar)> = Arc::default();
        let carrying = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming() {
                let client = Arc::new(client.unwrap());
                // The server may be gone, at the end of the test.
                let Ok(server) = door().connect(server) else {
                    return;
                };
                let server = Arc::new(server);
                // One direction is silent as long as a file goes in the other.
                server.set_read_timeout(None).unwrap();
                for is_back in [false, true] {
                    let (client, server) = (Arc::clone(&client), Arc::clone(&server));
                    let state = Arc::clone(&carrying);
                    thread::spawn(move || {
                        match is_back {
                            true => carry(&*server, &*client, &state),
                            false => carry(&*client, &*server, &state),
                        }
                        let _ = client.shutdown(Shutdown::Both);
                        let _ = server.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        Self { port, state }
    }

    /// Carries this many bytes from now on.
    fn carry(&self, bytes: u64) {
        let mut state = lock(&self.state.0);
        (state.left, state.is_cut) = (bytes, false);
    }

    /// Waits until it is cut.
    #[track_caller]
    fn wait_for_cut(&self) {
        let state = lock(&self.state.0);
        let (_state, waited) = (self.state.1)
            .wait_timeout_while(state, 4 * PATIENCE, |state| !state.is_cut)
            .unwrap();
        assert!(!waited.timed_out(), "not all of it goes over the network");
    }

    fn carried(&self) -> u64 {
        lock(&self.state.0).carried
    }
}

fn carry(mut from: impl Read, mut to: impl Write, state: &(Mutex<State>, Condvar)) {
    let mut piece = [0; 16 << 10];
    while let Ok(bytes @ 1..) = from.read(&mut piece) {
        let mut now = lock(&state.0);
        let Some(left) = now.left.checked_sub(bytes as u64) else {
            (now.left, now.is_cut) = (0, true);
            state.1.notify_all();
            return;
        };
        now.left = left;
        now.carried += bytes as u64;
        drop(now);
        if to.write_all(&piece[..bytes]).is_err() {
            return;
        }
    }
}

#[test]
fn a_line_on_a_terminal_has_the_rate_and_the_time_left_of_all_files() {
    if !has_program("python3") {
        return;
    }
    const BYTES: u64 = 40 << 20;
    let sides = sides(&[]);
    let here = |path: &str| sides.here.path().join(path);
    fs::create_dir(here("f")).unwrap();
    fs::write(here("f/small"), "small").unwrap();
    let large = File::create(here("f/large")).unwrap();
    large.set_len(BYTES).unwrap();
    for args in [&["put", "f"][..], &["get", "f/", "-o", "back"]] {
        let network = Network::to(sides.server.addr());
        network.carry(BYTES / 2);
        let mut client = through_proxy(network.port, sides.here.path(), args);
        client.arg("--resume");
        let mut on_a_terminal = on_a_terminal("stderr", &client);
        on_a_terminal.current_dir(sides.here.path());
        let shown = thread::scope(|scope| {
            let running = scope.spawn(|| run_command(on_a_terminal, b"").expect(0).out());
            network.wait_for_cut();
            // The client waits before it tries again, for longer than what is shown at once.
            network.carry(u64::MAX);
            running.join().unwrap()
        });
        let is_it = |line: &str| {
            let bar = line
                .split_once("/2 files [")
                .and_then(|(_, bar)| bar.split_once("] "));
            bar.is_some_and(|(_, rest)| {
                rest.contains("/40.00 MiB ") && rest.contains("iB/s, ") && rest.contains(" left")
            })
        };
        let mut lines = shown.split(['\r', '\n']);
        assert!(lines.any(is_it), "{shown:?}");
        assert!(!shown.contains("? left"), "{shown:?}");
    }
}

/// How many files, and how many bytes the large one has.
fn size() -> (usize, u64) {
    let variable = std::env::var(FOLDER_VARIABLE).ok();
    let given = variable.as_deref().and_then(|text| {
        let (files, megabytes) = text.split_once(':')?;
        Some((files.parse().ok()?, megabytes.parse().ok()?))
    });
    let (files, megabytes): (usize, u64) = given.unwrap_or(DEFAULT);
    (files, megabytes << 20)
}

/// Makes the folder `whole`, and `beside`, which links lead to.
fn plant(here: &Path, files: usize, large_bytes: u64) {
    let at = |path: &str| here.join("whole").join(path);
    for folder in ["empty", "no/file/in/it", "last/of/all", "\u{e4} \n", "-rf"] {
        fs::create_dir_all(at(folder)).unwrap();
    }
    // Every byte that a name can have, alone and between others, and names that look like something else.
    let bytes = (1..=255).filter(|byte| !b"/.".contains(byte));
    let alone = bytes.map(|byte| vec![byte]).collect::<Vec<_>>();
    let names = alone.iter().map(Vec::as_slice).chain(NAMES);
    let mut made = 0;
    for bytes in names {
        fs::write(at("").join(name(bytes)), bytes).unwrap();
        made += 1;
    }
    let between = [b"a", &alone.concat()[..200], b"b"].concat();
    let folder = at("").join(name(&between));
    fs::create_dir(&folder).unwrap();
    let long = alone.concat()[55..].repeat(2);
    fs::write(folder.join(name(&long[..255])), "long").unwrap();
    made += 1;
    for number in made..files {
        let folder = at("").join(format!("folder {}", number % 7));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join(format!("file {number}"));
        fs::write(file, vec![number as u8; number % 1500]).unwrap();
    }
    let mut large = File::create(at("last/of/all/large")).unwrap();
    for (offset, bytes) in [
        (0, "begin"),
        (large_bytes / 2, "middle"),
        (large_bytes - 3, "end"),
    ] {
        large.seek(SeekFrom::Start(offset)).unwrap();
        large.write_all(bytes.as_bytes()).unwrap();
    }
    fs::create_dir(here.join("beside")).unwrap();
    fs::write(here.join("beside/file"), "beside").unwrap();
    for (link, target) in [
        ("link", "plain.txt"),
        ("last/of/link", "../../plain.txt"),
        ("-rf/outside", "../../mine.txt"),
        ("to a folder", "../beside"),
    ] {
        symlink(target, at(link)).unwrap();
    }
}

/// Runs the client over a network that is cut again and again. Three times out of four the client is
/// killed as well, and started again.
#[track_caller]
fn transfer(sides: &Sides, args: &[&str], files: usize, large_bytes: u64) -> String {
    let network = Network::to(sides.server.addr());
    let command = || {
        let mut command = through_proxy(network.port, sides.here.path(), args);
        command.args(["--resume", "--update", "-j", "3"]);
        command
    };
    let small_bytes = files as u64 * SMALL_BYTES_MIN;
    let mut client = None;
    for cut in 0..CUTS {
        let bytes = if cut < CUTS / 2 {
            small_bytes
        } else {
            large_bytes
        };
        network.carry(bytes / (CUTS / 2 + 1));
        let running = client
            .take()
            .filter(|client: &Running| client.ended().is_none());
        let running = running.unwrap_or_else(|| Running::start(command()));
        network.wait_for_cut();
        match cut % 4 < 3 {
            true => running.kill(),
            false => client = Some(running),
        }
    }
    network.carry(u64::MAX);
    if let Some(client) = client {
        client.kill();
    }
    let ran = run_at_most(10 * PATIENCE, command(), b"").expect(0);
    // What was there was not sent again.
    let carried = network.carried();
    assert!(carried < large_bytes + large_bytes / 3, "{carried} bytes");
    said(&ran).join("\n")
}

/// Nothing differs below two folders: neither a name nor a byte.
#[track_caller]
fn check_same(one: &Path, other: &Path) {
    let mut diff = Command::new("diff");
    // What a server keeps of uploads that were complete.
    diff.args(["-r", "-x", ".quartet-*"]).args([one, other]);
    let ran = run_at_most(10 * PATIENCE, diff, b"").expect(0);
    assert_eq!(ran.out(), "");
}

/// How much of the disk the large file takes, in megabytes.
fn taken(folder: &Path) -> u64 {
    let large = folder.join("last/of/all/large").metadata().unwrap();
    (large.blocks() * 512) >> 20
}

#[test]
fn a_folder_of_everything_comes_back_as_it_was_though_it_is_cut_off_ten_times() {
    let (files, large_bytes) = size();
    let sides = sides(&["--manage", "--idle-exit", "0"]);
    let here = |path: &str| sides.here.path().join(path);
    plant(sides.here.path(), files, large_bytes);
    for (link, target) in [("loop", "."), ("nowhere", "gone")] {
        symlink(target, here("whole").join(link)).unwrap();
    }
    let said = transfer(&sides, &["put", "whole"], files, large_bytes);
    for left_out in [
        "whole/loop is left out: it is a link to a folder that it is in",
        "whole/nowhere is left out: it is a link that leads nowhere",
    ] {
        assert!(said.contains(left_out), "{said}");
    }
    for link in ["loop", "nowhere"] {
        fs::remove_file(here("whole").join(link)).unwrap();
    }
    let there = sides.tree.root("whole");
    check_same(&here("whole"), &there);
    let mut blocks = vec![taken(&here("whole")), taken(&there)];
    // On the server, a link to a file is that file, and one to a folder is left out.
    for (link, target) in [("there", "last/of/link"), ("no folder", "last")] {
        symlink(target, there.join(link)).unwrap();
    }
    symlink("last/of/link", here("whole/there")).unwrap();
    let get = ["get", "whole/", "-o", "back"];
    let said = transfer(&sides, &get, files, large_bytes);
    let left_out = "whole/no folder is left out: it is a link to a folder";
    assert!(said.contains(left_out), "{said}");
    check_same(&here("whole"), &here("back"));
    blocks.push(taken(&here("back")));
    fs::remove_dir_all(here("back")).unwrap();
    for (target, program, args, left_out) in [
        // -^ keeps control characters, and -V a semicolon at the end, which is no version of VMS.
        ("?zip", "unzip", &["-q", "-^", "-V"][..], &["-z"][..]),
        ("?tar", "tar", &["-xpf"], &["-xOf"]),
    ] {
        if !is_there(program) {
            continue;
        }
        let archive = here("archive");
        save_sparse(&sides.server, &format!("/whole/{target}"), &archive);
        let out = here("out");
        fs::create_dir(&out).unwrap();
        let run = |args: &[&str], names: &[&str]| {
            let mut command = run_in(&out, program);
            command.args(args).arg(&archive).args(names);
            run_at_most(10 * PATIENCE, command, b"").expect(0).out()
        };
        run(args, &[]);
        let note = match target {
            "?zip" => run(left_out, &[]),
            _ => run(left_out, &["whole-left-out.txt"]),
        };
        let want = "whole/no folder: a link to a folder";
        assert!(note.trim_end().ends_with(want), "{note}");
        check_same(&here("whole"), &out.join("whole"));
        blocks.push(taken(&out.join("whole")));
        fs::remove_dir_all(out).unwrap();
    }
    let megabytes = large_bytes >> 20;
    println!(
        "cuts: a folder of {files} files and {megabytes} MB went there and back whole after {CUTS} cuts each way; \
         the large file takes {blocks:?} MB here, there, got, unzipped, and of the tar"
    );
}
