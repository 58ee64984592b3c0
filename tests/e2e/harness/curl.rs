//! What curl gets from a server, as any other program would.

use std::process::Command;

use super::{Server, run_command};

impl Server {
    /// The first address as a URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// The status and the body of the reply to what curl asks with these arguments.
    #[track_caller]
    pub fn ask(&self, args: &[&str], target: &str) -> (u16, String) {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--noproxy", "*"]);
        command.args(["--max-time", "20", "--write-out", "%{http_code}"]);
        command.args(args).arg(self.url() + target);
        let said = run_command(command, b"").expect(0).out();
        let (body, status) = said.split_at(said.len() - 3);
        (status.parse().unwrap(), body.to_owned())
    }

    /// Checks the status, and that this is a part of the body.
    #[track_caller]
    pub fn check_ask(&self, args: &[&str], target: &str, status: u16, part: &str) {
        let (code, body) = self.ask(args, target);
        assert_eq!(code, status, "{target} {args:?}: {body}");
        assert!(body.contains(part), "{target} {args:?}: {body}");
    }
}
