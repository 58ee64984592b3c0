//! The pages that a reader sees: the README.md of the repository, of each crate and of the tests. Their
//! links lead somewhere, their Python programs print what the page says, and so do their commands.
//!
//! Commands are run where a page asks for it with [`RUN`]: typed one after the other into one folder with
//! a copy of `data/`, each server in place of the one before it. A command that starts a server prints
//! what it likes. Times, ids and the ports of peers differ from run to run and are not compared.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::file::contents;
use crate::harness::{Running, Server, has_program, program, root, run_command, skipped};

/// The line behind which a page's examples are run, up to the next heading of the second level.
const RUN: &str = "<!-- The examples of this section are run by tests/e2e/readme.rs. -->";

/// The services, the ports that they have on the pages, and how a server is started for a page that does
/// not show it.
const SERVICES: [(&str, &[&str], &str); 4] = [
    ("code", &["8000", "8001"], "code-server --data-dir codes"),
    ("queue", &["55556"], "queue-server 55556 BOTH"),
    ("history", &["5007"], "history-server --data-dir history"),
    ("file", &["8080"], "file-server --root data"),
];

/// A page and the folder that its links start from.
struct Page {
    path: PathBuf,
    text: String,
}

fn pages() -> Vec<Page> {
    let crates = fs::read_dir(root().join("crates")).unwrap();
    let mut folders: Vec<_> = crates.map(|entry| entry.unwrap().path()).collect();
    folders.extend([
        root().to_owned(),
        root().join("data/systemd"),
        root().join("tests"),
    ]);
    folders.sort();
    let paths = folders.into_iter().map(|folder| folder.join("README.md"));
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).ok()?;
        Some(Page { path, text })
    };
    paths.filter_map(read).collect()
}

impl Page {
    /// The boxes of a language, each with the line behind its start.
    fn boxes<'a>(&'a self, start: &'a str) -> impl Iterator<Item = Vec<&'a str>> + 'a {
        let mut lines = self.text.lines();
        std::iter::from_fn(move || {
            lines.find(|line| *line == start)?;
            Some(lines.by_ref().take_while(|line| *line != "```").collect())
        })
    }

    /// The boxes of commands that are to be run, in order.
    fn runs(&self) -> Vec<Vec<Example>> {
        let mut runs = Vec::new();
        let mut is_run = false;
        let mut lines = self.text.lines();
        while let Some(line) = lines.next() {
            is_run = (is_run && !line.starts_with("## ")) || line == RUN;
            if line.starts_with("```") {
                let inside: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
                if is_run && line == "```console" {
                    runs.push(examples(&inside));
                }
            }
        }
        runs
    }
}

/// A command, and what it prints.
#[derive(Debug)]
struct Example {
    command: String,
    output: Vec<String>,
}

fn examples(lines: &[&str]) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let mut goes_on = false;
    for line in lines {
        match (line.strip_prefix("$ "), examples.last_mut()) {
            (None, Some(example)) if goes_on => {
                example.command.push('\n');
                example.command.push_str(line);
            }
            (Some(command), _) => examples.push(Example {
                command: command.to_owned(),
                output: Vec::new(),
            }),
            (None, Some(example)) => example.output.push((*line).to_owned()),
            (None, None) => panic!("output without a command: {line}"),
        }
        goes_on = line.ends_with('\\');
    }
    examples
}

/// What differs from run to run, for `sed -E`: times, names, hashes, numbers of jobs and processes, ports
/// of peers, how much had come when something was killed.
const DIFFERENT: &[&str] = &[
    r"s/\r$//",
    r"/^\[1\]|Killed /d",
    r"s/^Enter host password.*//",
    r"s/^(Verifying - )?Password: *//",
    r"/^$/d",
    r"s/[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9:]{8}\.[0-9]{3}Z?/TIME/",
    r"s/[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} GMT/DATE/g",
    r"s/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/UUID/g",
    r"s/^(alice:.6.).*/\1/",
    r"s/\[job-[0-9]\]/[job]/",
    r"s/^(#?[0-9]+ TIME 127\.0\.0\.1):[0-9]+ /\1:PORT /",
    r#"s/("from":"127\.0\.0\.1):[0-9]+"/\1:PORT"/"#,
    r"s/^(Upload-Offset:) [0-9]{8,}/\1 N/",
    r"s/max-age=8639[0-9]/max-age=86400/",
    r#"s/^ETag: "[^"]*"/ETag: TAG/"#,
    r"s/Message [0-9]+([ ,:])/Message N\1/",
    r"s/, age [0-9]+ s/, age N s/",
    r"s/dead letters: 1 \([0-9]+ /dead letters: 1 (N /",
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

/// Free ports in the place of those on the pages.
struct Ports(BTreeMap<&'static str, String>);

impl Ports {
    fn free() -> Self {
        let all = SERVICES.into_iter().flat_map(|(_, ports, _)| ports);
        let listeners = all.map(|port| (*port, TcpListener::bind("127.0.0.1:0").unwrap()));
        // All of them are bound at once, so that no two are the same.
        let listeners: Vec<_> = listeners.collect();
        let number = |listener: TcpListener| listener.local_addr().unwrap().port().to_string();
        let free = listeners.into_iter();
        Self(
            free.map(|(port, listener)| (port, number(listener)))
                .collect(),
        )
    }

    /// A text of a page, with the free ports.
    fn in_text(&self, text: &str) -> String {
        let is_word = |c: &char| c.is_ascii_alphanumeric();
        let mut text = text.to_owned();
        for (page, free) in &self.0 {
            let mut parts = text.split(page);
            let mut replaced = parts.next().unwrap_or_default().to_owned();
            for part in parts {
                // Not in the middle of a UUID.
                let is_inside = replaced.chars().last().is_some_and(|c| is_word(&c))
                    || part.chars().next().is_some_and(|c| is_word(&c));
                replaced += if is_inside { page } else { free };
                replaced += part;
            }
            text = replaced;
        }
        text
    }

    /// A command of a page. A program that is told no port there uses the one on the page.
    fn in_command(&self, command: &str) -> String {
        let mut command = self.in_text(command);
        for (name, ports, _) in SERVICES {
            let there: Vec<_> = ports.iter().map(|port| self.0[port].as_str()).collect();
            let there = there.join(" ");
            for (start, insert) in [
                (format!("{name}-client "), format!("127.0.0.1 {there} ")),
                (format!("{name}-server "), format!("{there} ")),
            ] {
                let mut parts = command.split(&start).map(str::to_owned);
                let mut whole = parts.next().unwrap_or_default();
                for part in parts {
                    let told = ["127.0.0.", "localhost ", &there];
                    let is_told = told.iter().any(|start| part.starts_with(start));
                    whole += &start;
                    whole += if is_told { "" } else { &insert };
                    whole += &part;
                }
                command = whole;
            }
        }
        command
    }
}

/// Where the examples of a page are typed.
struct Terminals<'a> {
    folder: &'a Path,
    ports: Ports,
    servers: BTreeMap<String, Server>,
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

    /// Starts a server, in place of the one of this name that runs.
    fn start(&mut self, command: &str) {
        let command = self.ports.in_command(command);
        let mut words = command.split_whitespace();
        let name = words.next().unwrap();
        drop(self.servers.remove(name));
        let mut server = Command::new(program(name));
        server.args(words).current_dir(self.folder);
        self.servers.insert(name.to_owned(), Server::spawn(server));
    }

    /// Types the commands of one box, and compares what they print.
    #[track_caller]
    fn check(&self, examples: &[Example]) {
        const END: &str = "--- end ---";
        let mut script = "exec 2>&1\n".to_owned();
        for example in examples {
            let command = self.ports.in_command(&example.command);
            let by_name = ["pkill", "killall"];
            assert!(
                !by_name.iter().any(|word| command.contains(word)),
                "{command}"
            );
            // A person is asked for these.
            let command = command.replace("passwd -6", "passwd -6 'correct horse'");
            let command = command.replace("-u alice", "-u 'alice:correct horse'");
            // The next command may ask for the status of this one.
            script += &format!("{command}\nstatus=$?; echo '{END}'; (exit $status)\n");
        }
        let mut shell = self.shell();
        shell.args(["-c", &script]);
        let running = Running::start(shell);
        running.wait();
        let said = running.stdout_text();
        let said: Vec<_> = said.split(&format!("{END}\n")).collect();
        assert_eq!(said.len(), examples.len() + 1, "{said:?}");
        for (example, said) in examples.iter().zip(said) {
            let want = self.ports.in_text(&example.output.join("\n"));
            assert_eq!(comparable(said), comparable(&want), "$ {}", example.command);
        }
    }
}

/// Whether a command starts a server, as its output on the page says.
fn is_server(example: &Example) -> bool {
    example
        .output
        .iter()
        .any(|line| line.contains("Server started on"))
}

#[test]
fn the_examples_on_the_pages_are_true() {
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
    let mut boxes = 0;
    for page in pages() {
        let runs = page.runs();
        if runs.is_empty() {
            continue;
        }
        eprintln!("{}", page.path.display());
        let folder = tempfile::tempdir().unwrap();
        let copied = Command::new("cp")
            .arg("-R")
            .arg(root().join("data"))
            .arg(folder.path())
            .status();
        assert!(copied.unwrap().success());
        let mut terminals = Terminals {
            folder: folder.path(),
            ports: Ports::free(),
            servers: BTreeMap::new(),
        };
        boxes += runs.len();
        for (name, ports, start) in SERVICES {
            let shown = |example: &Example| is_server(example) && example.command.contains(name);
            let used = |example: &Example| {
                example.command.contains(&format!("{name}-client "))
                    || example.command.contains(&format!("localhost:{}", ports[0]))
            };
            if runs.iter().flatten().any(used) && !runs.iter().flatten().any(shown) {
                terminals.start(start);
            }
        }
        for run in runs {
            let (servers, rest): (Vec<_>, Vec<_>) = run.into_iter().partition(is_server);
            terminals.check(&rest);
            for server in servers {
                terminals.start(&server.command);
            }
        }
    }
    assert!(boxes > 5, "{boxes} boxes");
    assert!(repository() == before, "the repository has changed");
}

/// Of `print(...)   # -> what it prints`, what it prints.
fn printed(line: &str) -> Option<&str> {
    line.split_once("  # -> ").map(|(_, printed)| printed)
}

#[test]
fn the_python_programs_on_the_pages_print_what_the_pages_say() {
    if !has_program("python3") {
        return;
    }
    let mut programs = 0;
    for page in pages() {
        for lines in page.boxes("```python") {
            let folder = tempfile::tempdir().unwrap();
            let mut terminals = Terminals {
                folder: folder.path(),
                ports: Ports::free(),
                servers: BTreeMap::new(),
            };
            let code = lines.join("\n");
            for (_, ports, start) in SERVICES {
                if code.contains(ports[0]) {
                    terminals.start(start);
                }
            }
            let mut python = Command::new("python3");
            let code = terminals.ports.in_text(&code);
            python
                .args(["-W", "error", "-c", &code])
                .current_dir(folder.path());
            let out = run_command(python, b"").expect(0).out();
            let mut out_lines = out.lines();
            for want in lines.iter().filter_map(|line| printed(line)) {
                let found = out_lines.any(|line| line == want.trim());
                assert!(found, "{}: no line {want:?} in\n{out}", page.path.display());
            }
            programs += 1;
        }
    }
    assert!(programs > 2, "{programs} programs");
}

/// A link of a page: the words, the path from the page, and the place in it.
struct Link<'a> {
    words: &'a str,
    path: PathBuf,
    place: Option<&'a str>,
}

impl Page {
    /// The links to files in some lines of this page.
    fn links<'a>(&self, lines: &'a str) -> Vec<Link<'a>> {
        let mut links = Vec::new();
        for (before, behind) in lines.match_indices("](").map(|(at, _)| lines.split_at(at)) {
            let words = before.rsplit('[').next().unwrap_or_default();
            let target = behind[2..].split(')').next().unwrap_or_default();
            if target.contains("://") {
                continue;
            }
            let (path, place) = match target.split_once('#') {
                Some((path, place)) => (path, Some(place)),
                None => (target, None),
            };
            let path = match path {
                "" => self.path.clone(),
                path => self.path.with_file_name(path),
            };
            links.push(Link { words, path, place });
        }
        links
    }
}

/// The place in a page that a heading makes, as a forge that shows the page names it.
fn place_of(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = kept.chars().filter_map(|c| match c {
        ' ' | '-' => Some('-'),
        '_' => Some('_'),
        c => c.is_alphanumeric().then_some(c),
    });
    kept.collect()
}

impl Link<'_> {
    /// Whether it leads to something: a file, and in it a heading, or a line that has the words.
    fn leads_somewhere(&self) -> bool {
        let Some(place) = self.place else {
            return self.path.exists();
        };
        let Ok(text) = fs::read_to_string(&self.path) else {
            return false;
        };
        match place.strip_prefix('L').map(str::parse::<usize>) {
            Some(Ok(number)) => {
                let line = text.lines().nth(number - 1).unwrap_or_default();
                let name = self.words.trim_matches('`');
                let name = name.rsplit("::").next().unwrap_or_default();
                !self.words.starts_with('`') || line.contains(name)
            }
            Some(Err(_)) | None => {
                let mut headings = text.lines().filter(|line| line.starts_with('#'));
                headings.any(|heading| place_of(heading) == place)
            }
        }
    }
}

#[test]
fn the_links_on_the_pages_lead_somewhere() {
    let mut missing = Vec::new();
    for page in pages() {
        for link in page.links(&page.text) {
            if !link.leads_somewhere() {
                let (page, to) = (page.path.display(), link.path.display());
                missing.push(format!(
                    "{page}: [{}] {to} {:?}",
                    link.words,
                    link.place.unwrap_or_default()
                ));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

/// The lines of a file without its tests.
fn lines_of(path: &Path) -> usize {
    let text = fs::read_to_string(path).unwrap();
    let tests = text
        .match_indices("\n#[cfg(test)]\nmod ")
        .find(|(at, start)| {
            text[at + start.len()..]
                .lines()
                .next()
                .is_some_and(is_block)
        });
    let code = tests.map_or(text.as_str(), |(at, _)| &text[..at]);
    code.lines().count()
}

/// Whether a line opens a block.
fn is_block(line: &str) -> bool {
    line.ends_with('{')
}

/// A row of a table tells how long the files are that it names, unless it names a part of one.
#[test]
fn the_counts_on_the_pages_are_true() {
    /// How far a count may be off before it misleads, of a hundred.
    const OFF_MAX: usize = 5;
    let mut wrong = Vec::new();
    let mut rows = 0;
    for page in pages() {
        // The head of the table that a row belongs to.
        let mut head = None;
        for row in page.text.lines() {
            head = row.starts_with('|').then(|| head.unwrap_or(row));
            if !head.is_some_and(|head| head.contains("lines")) {
                continue;
            }
            let mut cells = row.split('|').map(|cell| cell.trim().replace(',', ""));
            let Some(count) = cells.find_map(|cell| cell.parse::<usize>().ok()) else {
                continue;
            };
            let links = page.links(row);
            let is_whole = |link: &Link| {
                link.place.is_none() && link.path.extension().is_some_and(|is| is == "rs")
            };
            if links.is_empty() || !links.iter().all(is_whole) || row.contains(", lines ") {
                continue;
            }
            rows += 1;
            let lines: usize = links.iter().map(|link| lines_of(&link.path)).sum();
            if lines.abs_diff(count) * 100 > lines * OFF_MAX {
                wrong.push(format!("{}: {lines} lines: {row}", page.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(rows > 20, "{rows} rows");
}

#[test]
fn the_first_page_is_short() {
    let page = fs::read_to_string(root().join("README.md")).unwrap();
    assert!(page.lines().count() <= 300);
}
