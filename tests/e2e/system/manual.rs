//! A manual page, made of a program's help.

use super::help::{Entry, Help, Part};

/// When the pages were last written in another form; man(7) wants a date.
const DATE: &str = "2026-11-27";

/// The page, for man(7).
pub fn page(help: &Help) -> String {
    let name = help.name;
    let about = help.about().trim_end_matches('.');
    // The first sentence, as it reads behind the name.
    let about = about.split(". ").next().unwrap_or(about);
    let (first, rest) = about.split_at(1);
    let mut page = format!(
        ".\\\" Made of `{name} --help` (data/systemd/README.md).\n\
         .TH {} 1 {DATE} \"Quartet {}\" Quartet\n.SH NAME\n{} \\- {}{}\n",
        name.to_uppercase(),
        env!("CARGO_PKG_VERSION"),
        escaped(name),
        first.to_lowercase(),
        escaped(rest),
    );
    let titles = help
        .parts
        .iter()
        .position(|part| matches!(part, Part::Title(_)));
    let (before, sections) = help.parts.split_at(titles.unwrap_or(help.parts.len()));
    let usage: Vec<_> = help.section("Usage").collect();
    page += ".SH SYNOPSIS\n.nf\n";
    for part in &usage {
        if let Part::Typed(line) = part {
            let arguments = line.strip_prefix(name).unwrap_or(line);
            page += &format!(".B {}\n", escaped(&format!("{name}{arguments}")));
        }
    }
    page += ".fi\n.SH DESCRIPTION\n";
    // Some of it stands behind the usage, and is of no section.
    for part in before.iter().chain(usage) {
        if let Part::Paragraph(text) = part {
            page += &format!("{}{}\n", begin(&page), escaped(text));
        }
    }
    let mut is_usage = false;
    let mut is_nested = false;
    for part in sections {
        if let Part::Title(title) = part {
            is_usage = title == "Usage";
        }
        if is_usage {
            continue;
        }
        let nests = matches!(
            part,
            Part::Entry(Entry {
                is_nested: true,
                ..
            })
        );
        page += match (is_nested, nests) {
            (false, true) => ".RS\n",
            (true, false) => ".RE\n",
            (false, false) | (true, true) => "",
        };
        is_nested = nests;
        page += &match part {
            Part::Title(title) => {
                let title = match title.as_str() {
                    "Exit codes" => "Exit status",
                    other => other,
                };
                format!(".SH {}\n", title.to_uppercase())
            }
            Part::Paragraph(text) => format!("{}{}\n", begin(&page), escaped(text)),
            Part::Typed(line) => {
                format!("{}.RS 4\n.nf\n{}\n.fi\n.RE\n", begin(&page), escaped(line))
            }
            Part::Entry(entry) => tagged(entry),
        };
    }
    let (service, role) = name.split_once('-').unwrap();
    let other = if role == "server" { "client" } else { "server" };
    page + &format!(".SH SEE ALSO\n.BR {service}\\-{other} (1)\n")
}

/// Begins a paragraph. A section begins one by itself.
fn begin(page: &str) -> &'static str {
    let last = page.lines().last().unwrap_or_default();
    if last.starts_with(".SH") { "" } else { ".PP\n" }
}

fn tagged(entry: &Entry) -> String {
    // What is typed as it stands is bold; what stands for something else, as FILE, is not.
    let is_fixed =
        |word: &str| word.starts_with('-') || word.contains(|c: char| c.is_ascii_lowercase());
    let words = entry.tag.split(' ').map(|word| match is_fixed(word) {
        true => format!("\\fB{}\\fR", escaped(word)),
        false => format!("\\fI{}\\fR", escaped(word)),
    });
    let tag = words.collect::<Vec<_>>().join(" ");
    let text = escaped(&entry.text);
    let mut lines = format!(".TP\n{tag}\n{text}\n");
    if !entry.typed.is_empty() {
        let typed: Vec<_> = entry.typed.iter().map(|line| escaped(line)).collect();
        lines += &format!(".RS\n.nf\n{}\n.fi\n.RE\n", typed.join("\n"));
    }
    lines
}

/// Text in which nothing is a request of roff, and all is ASCII as it is typed.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\\' => out += "\\e",
            '-' => out += "\\-",
            '\'' => out += "\\(aq",
            '`' => out += "\\(ga",
            '^' => out += "\\(ha",
            '~' => out += "\\(ti",
            '"' => out += "\\(dq",
            '.' if out.is_empty() => out += "\\&.",
            other => out.push(other),
        }
    }
    out
}
