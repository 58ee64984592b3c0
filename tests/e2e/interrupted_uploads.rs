//! A large upload that is cut off at random points, by killing the client or the server, again and
//! again: nobody ever sees a part of it, and in the end it is all there.
//!
//! With `QUARTET_CUTS=1000:100` it is 1000 megabytes and 100 cuts; else what a test may take.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use proto::http::digest::Hasher;

use crate::file::{Tree, ask, get};
use crate::harness::{
    Needs, Noise, PATIENCE, Running, Server, eventually, has_door, program, run_command,
};

/// How large the file is, in megabytes, and how often it is cut off.
const CUTS_VARIABLE: &str = "QUARTET_CUTS";
const DEFAULT: (usize, usize) = (24, 20);

/// What comes is synced each time after this many bytes; what a killed server has not synced is sent again.
const SYNC_BYTES: u64 = 32 << 20;

/// What has come of the upload, in bytes.
fn arrived(tree: &Tree) -> u64 {
    let is_part = |name: &str| name.starts_with(".quartet-upload-") && !name.ends_with(".head");
    let entries = fs::read_dir(tree.root("")).unwrap().flatten();
    let parts = entries.filter(|entry| is_part(&entry.file_name().to_string_lossy()));
    parts
        .map(|part| part.metadata().map_or(0, |part| part.len()))
        .sum()
}

fn upload(server: &Server, here: &Path) -> Command {
    let mut command = Command::new(program("file-client"));
    command.args(server.host_and_ports());
    command.args(["put", "large", "--resume"]);
    command.current_dir(here);
    command
}

/// Waits until so much has come, or the client has ended.
fn wait_for(client: &Running, tree: &Tree, bytes: u64) {
    let deadline = Instant::now() + PATIENCE;
    while arrived(tree) < bytes && client.ended().is_none() {
        assert!(Instant::now() < deadline, "{bytes} bytes do not come");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// Why not through a Unix socket.
const WHY: &str = "the harness gives each server a socket of its own";

/// A server that takes the place of one that was killed.
fn restart(tree: &Tree, port: u16) -> Server {
    let root = tree.path("root");
    Server::start(
        "file-server",
        &[&port.to_string(), "--root", root.to_str().unwrap()],
    )
}

#[test]
fn an_upload_goes_on_when_the_server_is_back() {
    if !has_door(Needs::Tcp, WHY) {
        return;
    }
    let tree = Tree::new();
    let here = tempfile::tempdir().unwrap();
    let large = File::create(here.path().join("large")).unwrap();
    large.set_len(100_000_000).unwrap();
    let server = tree.start(&[]);
    let port = server.addr().port();
    let client = Running::start(upload(&server, here.path()));
    wait_for(&client, &tree, 1_000_000);
    server.kill();
    client.wait_for_stderr(|said| said.contains("cannot connect"));
    let _server = restart(&tree, port);
    assert_eq!(client.wait(), Some(0));
    assert_eq!(tree.root("large").metadata().unwrap().len(), 100_000_000);
}

#[test]
fn an_upload_that_is_cut_off_again_and_again_arrives() {
    if !has_door(Needs::Tcp, WHY) {
        return;
    }
    let variable = std::env::var(CUTS_VARIABLE).ok();
    let given = variable.as_deref().and_then(|text| {
        let (megabytes, cuts) = text.split_once(':')?;
        Some((megabytes.parse().ok()?, cuts.parse().ok()?))
    });
    let (megabytes, cuts) = given.unwrap_or(DEFAULT);
    let tree = Tree::new();
    let here = tempfile::tempdir().unwrap();
    let mut noise = Noise::new(u64::from(std::process::id()));
    let mut file = File::create(here.path().join("large")).unwrap();
    for _ in 0..megabytes {
        let piece: Vec<u8> = (0..125_000)
            .flat_map(|_| noise.next().to_le_bytes())
            .collect();
        file.write_all(&piece).unwrap();
    }
    let bytes = megabytes as u64 * 1_000_000;
    // Before the end, which the client may reach before it is killed.
    let before_the_end = bytes as usize / 10 * 8;
    let mut points: Vec<u64> = (0..cuts)
        .map(|_| noise.below(before_the_end) as u64)
        .collect();
    points.sort_unstable();

    let mut server = tree.start(&[]);
    let port = server.addr().port();
    let restart = || restart(&tree, port);
    let mut farthest = 0;
    for (cut, point) in points.into_iter().enumerate() {
        let client = Running::start(upload(&server, here.path()));
        wait_for(&client, &tree, point);
        if cut % 2 == 0 {
            client.kill();
        } else {
            server.kill();
            client.wait();
            server = restart();
        }
        if let Ok(there) = fs::metadata(tree.root("large")) {
            // The client has come to the end before this thread was woken to kill anything.
            assert_eq!(there.len(), bytes, "cut {cut} at {point}");
            assert!(cut > cuts / 2, "only {cut} of {cuts} cuts");
            break;
        }
        assert_eq!(
            ask(&server, get("/large")).status,
            404,
            "cut {cut} at {point}"
        );
        // What has come is not sent again.
        let now = arrived(&tree);
        let server_was_killed = cut > 0 && cut % 2 == 0;
        let lost = if server_was_killed { SYNC_BYTES } else { 0 };
        assert!(
            now + lost >= farthest,
            "{now} bytes at cut {cut}, and {farthest} before it"
        );
        farthest = now;
    }
    let has_state = fs::read_dir(here.path()).unwrap().count() > 1;
    if has_state || !tree.root("large").exists() {
        run_command(upload(&server, here.path()), b"").expect(0);
    }
    let digest = |path: &Path| Hasher::digest_of(File::open(path).unwrap()).unwrap();
    assert_eq!(
        digest(&tree.root("large")),
        digest(&here.path().join("large"))
    );
    assert_eq!(tree.temporary_files(), 1, "that it came");
    eventually("nothing is left here either", || {
        fs::read_dir(here.path()).unwrap().count() == 1
    });
    println!("cuts: {megabytes} MB arrived whole after {cuts} cuts, the last at {farthest}");
}
