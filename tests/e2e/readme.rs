//! The examples of the file service in README.md: typed as they are printed, they say what is printed,
//! and leave the repository alone.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use crate::file::contents;
use crate::harness::{Running, Server, has_program, program, root, run_command, skipped};

/// A command, and what it says.
#[derive(Debug)]
struct Example {
    command: String,
    output: Vec<String>,
}

/// The examples in one of the page's boxes, from the line behind its start.
fn examples<'a>(lines: &mut impl Iterator<Item = &'a str>) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let mut goes_on = false;
    for line in lines.take_while(|line| *line != "```") {
        match (line.strip_prefix("$ "), examples.last_mut()) {
            (None, Some(example)) if goes_on => {
                example.command.push('\n');
                example.command.push_str(line);
            }
            (Some(command), _) => examples.push(Example {
                command: command.to_owned(),
                output: Vec::new(),
            }),
            (None, Some(example)) => example.output.push(line.to_owned()),
            (None, None) => panic!("output without a command: {line}"),
        }
        goes_on = line.ends_with('\\');
    }
    examples
}

/// What differs from run to run, for `sed -E`: times, names, hashes, numbers of jobs and processes, how
/// much had come when something was killed.
const DIFFERENT: &[&str] = &[
    r"s/\r$//",
    r"/^\[1\]|Killed /d",
    r"s/^Enter host password.*//",
    r"s/^(Verifying - )?Password: *//",
    r"/^$/d",
    r"s/[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8}\.[0-9]{3}/TIME/",
    r"s/[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} GMT/DATE/g",
    r"s/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/UUID/g",
    r"s/^(alice:.6.).*/\1/",
    r"s/\[job-[0-9]\]/[job]/",
    r"s/^(Upload-Offset:) [0-9]{8,}/\1 N/",
    r"s/max-age=8639[0-9]/max-age=86400/",
];

/// Lines as they can be compared; those of two streams may come in any order.
fn comparable(text: &str) -> Vec<String> {
    let mut sed = Command::new("sed");
    sed.arg("-E")
        .args(DIFFERENT.iter().flat_map(|rule| ["-e", rule]));
    let text = run_command(sed, text.as_bytes()).expect(0).out();
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// Where the examples are typed.
struct Terminals<'a> {
    folder: &'a Path,
    port: String,
    server: Option<Server>,
}

impl Terminals<'_> {
    fn shell(&self) -> Command {
        let mut shell = Command::new("bash");
        let programs = program("file-client").parent().unwrap().to_owned();
        let path = std::env::var("PATH").unwrap_or_default();
        shell.env("PATH", format!("{}:{path}", programs.display()));
        shell.env("no_proxy", "127.0.0.1").current_dir(self.folder);
        shell
    }

    /// Starts the server, in place of the one that runs.
    fn start(&mut self, command: &str) {
        self.server = None;
        let mut words = command.split_whitespace();
        let mut server = Command::new(program(words.next().unwrap()));
        server.arg(&self.port).args(words).current_dir(self.folder);
        self.server = Some(Server::spawn(server));
    }

    /// Types the commands of one box, and compares what they say.
    #[track_caller]
    fn check(&self, examples: &[Example]) {
        const END: &str = "--- end ---";
        let mut script = "exec 2>&1\n".to_owned();
        for example in examples {
            let command = example.command.replace("8080", &self.port);
            let there = format!("file-client 127.0.0.1 {} ", self.port);
            let command = command.replace("file-client ", &there);
            // A person is asked for these.
            let command = command.replace("passwd -6", "passwd -6 'correct horse'");
            let command = command.replace("-u alice", "-u 'alice:correct horse'");
            script += &format!("{command}\necho '{END}'\n");
        }
        let mut shell = self.shell();
        shell.args(["-c", &script]);
        let running = Running::start(shell);
        running.wait();
        let said = running.stdout_text();
        let said: Vec<_> = said.split(&format!("{END}\n")).collect();
        assert_eq!(said.len(), examples.len() + 1, "{said:?}");
        for (example, said) in examples.iter().zip(said) {
            let want = example.output.join("\n").replace("8080", &self.port);
            assert_eq!(comparable(said), comparable(&want), "$ {}", example.command);
        }
    }
}

#[test]
fn the_examples_of_the_file_service_are_true() {
    if !(has_program("curl") && has_program("bash")) {
        return;
    }
    if Command::new("openssl").arg("version").output().is_err() {
        return skipped("there is no openssl");
    }
    let repository = || {
        (
            fs::read_dir(root()).unwrap().count(),
            contents(&root().join("data")),
        )
    };
    let before = repository();
    let folder = tempfile::tempdir().unwrap();
    let copied = Command::new("cp")
        .arg("-R")
        .arg(root().join("data"))
        .arg(folder.path())
        .status();
    assert!(copied.unwrap().success());
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut terminals = Terminals {
        folder: folder.path(),
        port: free.local_addr().unwrap().port().to_string(),
        server: None,
    };
    drop(free);

    let page = fs::read_to_string(root().join("README.md")).unwrap();
    let mut lines = page.lines().skip_while(|line| *line != "### File").skip(1);
    let mut boxes = 0;
    while let Some(line) = lines.next().filter(|line| !line.starts_with("## ")) {
        if line != "```console" {
            continue;
        }
        boxes += 1;
        let (servers, rest): (Vec<_>, Vec<_>) = examples(&mut lines)
            .into_iter()
            .partition(|example| example.command.starts_with("file-server "));
        terminals.check(&rest);
        for server in servers {
            terminals.start(&server.command);
        }
    }
    assert!(boxes > 5, "{boxes} boxes");
    assert!(repository() == before, "the repository has changed");
}
