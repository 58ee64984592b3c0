//! What a program says of itself with `--help`, taken apart: what completions and manual pages are
//! made of. The help is written for people, so its form is checked here.

use crate::harness::run;

/// Where the texts of a help begin.
const TEXT_COLUMN: usize = 25;

/// A part of a help.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    /// A title, such as `Options`.
    Title(String),
    /// A paragraph.
    Paragraph(String),
    /// A line that is what is typed: of the usage, of an example.
    Typed(String),
    /// A line of two columns.
    Entry(Entry),
}

/// An option, a verb or another argument, and what it is for.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whether it belongs to the verb above it.
    pub is_nested: bool,
    /// What is typed: `-q, --quiet`.
    pub tag: String,
    /// What it is for.
    pub text: String,
    /// Lines below the text that are typed.
    pub typed: Vec<String>,
}

/// An option.
#[derive(Debug, PartialEq, Eq)]
pub struct Choice {
    /// `--quiet`.
    pub long: String,
    /// `-q`.
    pub short: Option<String>,
    /// What its value is called: `FILE`.
    pub value: Option<String>,
    /// What it is for, in a few words.
    pub about: String,
    /// Whether it may be given more than once.
    pub repeats: bool,
    /// The verb that it belongs to.
    pub verb: Option<String>,
}

/// A verb.
#[derive(Debug, PartialEq, Eq)]
pub struct Verb {
    /// Its name.
    pub name: String,
    /// What follows it: `TIME FILE`.
    pub arguments: String,
    /// What it does, in a few words.
    pub about: String,
}

/// What completes a word.
#[derive(Debug, PartialEq, Eq)]
pub enum Completed {
    /// The name of a file.
    File,
    /// The name of a folder.
    Folder,
    /// A command.
    Command,
    /// One of these.
    Words(Vec<String>),
    /// Nobody knows.
    Unknown,
}

/// A program's help.
pub struct Help {
    /// The program's name.
    pub name: &'static str,
    /// All of it, in order.
    pub parts: Vec<Part>,
}

impl Help {
    /// Asks a program.
    #[track_caller]
    pub fn of(name: &'static str) -> Self {
        let text = run(name, &["--help"], b"").expect(0).out();
        let parts = parse(&text);
        Self { name, parts }
    }

    /// The parts below a title.
    pub fn section(&self, title: &str) -> impl Iterator<Item = &Part> {
        let is_title = move |part: &&Part| matches!(part, Part::Title(is) if is == title);
        let parts = self
            .parts
            .iter()
            .skip_while(move |part| !is_title(part))
            .skip(1);
        parts.take_while(|part| !matches!(part, Part::Title(_)))
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        let titles = ["Arguments", "Verbs", "Options"];
        let parts = titles.into_iter().flat_map(|title| self.section(title));
        parts.filter_map(|part| match part {
            Part::Entry(entry) => Some(entry),
            Part::Title(_) | Part::Paragraph(_) | Part::Typed(_) => None,
        })
    }

    /// What it does, in one sentence.
    pub fn about(&self) -> &str {
        match self.parts.first() {
            Some(Part::Paragraph(text)) => text,
            other => panic!("{}: {other:?}", self.name),
        }
    }

    /// Its verbs.
    pub fn verbs(&self) -> Vec<Verb> {
        let mut verbs: Vec<Verb> = Vec::new();
        for entry in self.entries().filter(|entry| is_verb(entry)) {
            // A verb is described by the first of its lines.
            for name in names(&entry.tag) {
                let (name, arguments) = name.split_once(' ').unwrap_or((name, ""));
                match verbs.iter_mut().find(|verb| verb.name == name) {
                    Some(verb) => verb.arguments += &format!(" {arguments}"),
                    None => verbs.push(Verb {
                        name: name.to_owned(),
                        arguments: arguments.to_owned(),
                        about: brief(&entry.text),
                    }),
                }
            }
        }
        verbs
    }

    /// Its options.
    pub fn options(&self) -> Vec<Choice> {
        let mut options = Vec::new();
        let mut verb = None;
        for entry in self.entries() {
            if !entry.is_nested {
                verb = is_verb(entry).then(|| entry.tag.split([' ', ',']).next().unwrap());
            }
            let mut short = None;
            for name in names(&entry.tag).filter(|name| name.starts_with('-')) {
                // What may be left out is not completed: `--update[=digest]`.
                let name = name.split("[=").next().unwrap();
                let (name, value) = match name.split_once(' ') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (name, None),
                };
                if !name.starts_with("--") {
                    short = Some(name.to_owned());
                    continue;
                }
                options.push(Choice {
                    long: name.to_owned(),
                    short: short.take(),
                    value,
                    about: brief(&entry.text),
                    repeats: entry.text.contains("may be repeated"),
                    verb: verb.map(str::to_owned).filter(|_| entry.is_nested),
                });
            }
        }
        options
    }

    /// Words that may stand anywhere, such as `TCP`.
    pub fn words(&self) -> Vec<String> {
        let tags = self.entries().map(|entry| entry.tag.as_str());
        let choices = tags.filter(|tag| tag.contains('|') && !tag.contains([' ', '-']));
        choices
            .flat_map(|tag| tag.split('|'))
            .map(str::to_owned)
            .collect()
    }
}

impl Choice {
    /// What completes its value; `None` if it has none.
    pub fn completed(&self) -> Option<Completed> {
        let value = self.value.as_deref()?;
        let words: Vec<_> = value.split('|').map(str::to_owned).collect();
        let is_word = |word: &String| word.bytes().all(|b| b.is_ascii_lowercase());
        Some(match value {
            _ if words.iter().any(|word| word == "FILE") => Completed::File,
            "DIR" => Completed::Folder,
            _ if words.iter().all(is_word) => Completed::Words(words),
            _ => Completed::Unknown,
        })
    }
}

impl Verb {
    /// What completes the words behind it.
    pub fn completed(&self) -> Completed {
        match &self.arguments {
            arguments if arguments.contains("FILE") => Completed::File,
            arguments if arguments.contains("COMMAND") => Completed::Command,
            _ => Completed::Unknown,
        }
    }
}

/// A word with a colon is a place: `unix:/path`.
fn is_verb(entry: &Entry) -> bool {
    let is_named = entry.tag.starts_with(|c: char| c.is_ascii_lowercase());
    !entry.is_nested && is_named && entry.tag != "no verb" && !entry.tag.contains(':')
}

/// The names in `-q, --quiet` or `pause, resume`.
fn names(tag: &str) -> impl Iterator<Item = &str> {
    tag.split(", ")
}

/// The beginning of a text, up to what is not needed to choose it.
fn brief(text: &str) -> String {
    let ends = ["; ", ": ", ", which ", " [", " ("].map(|end| text.find(end));
    let end = ends.into_iter().flatten().min().unwrap_or(text.len());
    text[..end].to_owned()
}

fn parse(text: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut is_typed = false;
    let mut continues = false;
    for line in text.lines() {
        let typed = line.trim_start();
        let indent = line.len() - typed.len();
        match (indent, parts.last_mut()) {
            (0, _) if line.is_empty() => {
                continues = false;
                continue;
            }
            (0, _) if line.ends_with(':') => {
                let title = line.trim_end_matches(':').to_owned();
                is_typed = title == "Examples";
                parts.push(Part::Title(title));
            }
            (0, Some(Part::Paragraph(text))) if continues => *text += &format!(" {line}"),
            (0, _) => match line.strip_prefix("Usage: ") {
                Some(usage) => {
                    is_typed = true;
                    parts.push(Part::Title("Usage".to_owned()));
                    parts.push(Part::Typed(usage.to_owned()));
                }
                None => parts.push(Part::Paragraph(line.to_owned())),
            },
            (_, _) if is_typed => parts.push(Part::Typed(typed.to_owned())),
            (TEXT_COLUMN, Some(Part::Entry(entry))) if entry.text.is_empty() => {
                entry.text = typed.to_owned();
            }
            // Of the exit codes, the texts begin further to the left.
            (5 | TEXT_COLUMN, Some(Part::Entry(entry))) => entry.text += &format!(" {typed}"),
            (26.., Some(Part::Entry(entry))) => entry.typed.push(typed.to_owned()),
            (2 | 6, _) => parts.push(Part::Entry(entry(line, indent))),
            _ => panic!("the help has a line that is none of its forms:\n{line}"),
        }
        continues = true;
    }
    parts
}

fn entry(line: &str, indent: usize) -> Entry {
    let line = &line[indent..];
    // A tag that is as wide as its column has one space behind it.
    let column = TEXT_COLUMN - indent;
    let wide = (line.len() > column && line.as_bytes()[column - 1] == b' ')
        .then(|| (&line[..column - 1], &line[column..]));
    let (tag, text) = line.split_once("  ").or(wide).unwrap_or((line, ""));
    Entry {
        is_nested: indent > 2,
        tag: tag.trim_end().to_owned(),
        text: text.trim_start().to_owned(),
        typed: Vec::new(),
    }
}

#[test]
fn a_help_is_taken_apart() {
    let text = "\
Does it.
Well.

Usage: it VERB
       it

Verbs:
  lease TIME FILE        leases; and more
      --a-long-option NN waits,
                         and waits
      --count N, --null  as before
  pause, resume          pauses

A TIME is a time.

Options:
  -q, --quiet            hush [default: no]
  --fsync always|never   whether; or not
  --auth-file FILE|-     an account:
                           USER:PASSWORD
  TCP|UDP                how

Exit codes:
  0  done
     well
";
    let help = Help {
        name: "it",
        parts: parse(text),
    };
    assert_eq!(help.about(), "Does it. Well.");
    let verbs = help.verbs();
    let shown: Vec<_> = verbs
        .iter()
        .map(|v| (v.name.as_str(), v.about.as_str()))
        .collect();
    assert_eq!(
        shown,
        [
            ("lease", "leases"),
            ("pause", "pauses"),
            ("resume", "pauses")
        ]
    );
    assert_eq!(verbs[0].completed(), Completed::File);
    assert_eq!(verbs[1].completed(), Completed::Unknown);
    let options = help.options();
    let shown: Vec<_> = options
        .iter()
        .map(|o| {
            (
                o.long.as_str(),
                o.value.as_deref().unwrap_or(""),
                o.verb.as_deref(),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("--a-long-option", "NN", Some("lease")),
            ("--count", "N", Some("lease")),
            ("--null", "", Some("lease")),
            ("--quiet", "", None),
            ("--fsync", "always|never", None),
            ("--auth-file", "FILE|-", None),
        ]
    );
    assert_eq!(options[0].about, "waits, and waits");
    assert_eq!(options[3].short.as_deref(), Some("-q"));
    let words = ["always", "never"].map(str::to_owned).to_vec();
    assert_eq!(options[4].completed(), Some(Completed::Words(words)));
    assert_eq!(options[5].completed(), Some(Completed::File));
    assert_eq!(help.words(), ["TCP", "UDP"]);
    let codes: Vec<_> = help.section("Exit codes").collect();
    let want = Entry {
        is_nested: false,
        tag: "0".to_owned(),
        text: "done well".to_owned(),
        typed: Vec::new(),
    };
    assert_eq!(codes, [&Part::Entry(want)]);
}
