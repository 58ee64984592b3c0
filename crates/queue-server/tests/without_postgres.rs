//! A queue server that was built without PostgreSQL.
#![cfg(not(feature = "postgres"))]

use std::process::Command;

#[test]
fn a_server_without_postgresql_says_how_to_build_one_with_it() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_queue-server"));
    let output = command
        .args(["0", "--data", "postgresql://user@localhost/queue"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    let want = "queue-server: this queue-server was built without PostgreSQL; build it with cargo build \
                --release -p queue-server --features postgres\n";
    assert_eq!(said, want);
}
