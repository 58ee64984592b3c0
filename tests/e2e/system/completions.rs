//! Completions for bash, zsh and fish, made of a program's help.

use super::help::{Choice, Completed, Help, Verb};

/// The arms of a `case`: a word, and what is done then.
type Arms = Vec<(String, String)>;

/// For bash.
pub fn bash(help: &Help) -> String {
    let (name, verbs, options) = (help.name, help.verbs(), help.options());
    let function = format!("_{}", name.replace('-', "_"));
    let mut values = Arms::new();
    for option in &options {
        let reply = match option.completed() {
            None => continue,
            Some(Completed::File | Completed::Command) => "compopt -o default; return".to_owned(),
            Some(Completed::Folder) => "compopt -o dirnames; return".to_owned(),
            Some(Completed::Words(words)) => {
                format!("{}; return", offer(&format!("'{}'", words.join(" "))))
            }
            Some(Completed::Unknown) => "return".to_owned(),
        };
        values.extend(spellings(option).map(|spelling| (spelling.to_owned(), reply.clone())));
    }
    let (mut own, mut rest) = (Arms::new(), Arms::new());
    let first = verbs
        .iter()
        .map(|verb| verb.name.clone())
        .chain(help.words());
    let first = first.collect::<Vec<_>>().join(" ");
    if !first.is_empty() {
        rest.push(("''".to_owned(), offer(&format!("'{first}'"))));
    }
    for verb in &verbs {
        let options = all_spellings(&options, Some(&verb.name));
        if !options.is_empty() {
            own.push((verb.name.clone(), format!("options+=' {options}'")));
        }
        let reply = match verb.completed() {
            Completed::File => "compopt -o default".to_owned(),
            Completed::Command => {
                "compopt -o default; COMPREPLY=($(compgen -c -- \"$word\"))".to_owned()
            }
            Completed::Folder | Completed::Words(_) | Completed::Unknown => continue,
        };
        rest.push((verb.name.clone(), reply));
    }
    [
        made_of(name),
        format!("{function}() {{\n"),
        format!(
            "local word=$2 before=$3 verb= given options='{}'\n",
            all_spellings(&options, None)
        ),
        "COMPREPLY=()\n".to_owned(),
        "# bash takes --option=value apart.\n".to_owned(),
        "[ \"$word\" != = ] || word=\n".to_owned(),
        "[ \"$before\" != = ] || before=${COMP_WORDS[COMP_CWORD-2]}\n".to_owned(),
        case("before", &values),
        find_verb("\"${COMP_WORDS[@]:1:COMP_CWORD-1}\"", &verbs),
        case("verb", &own),
        case(
            "word",
            &[(
                "-*".to_owned(),
                format!("{}; return", offer("\"$options\"")),
            )],
        ),
        case("verb", &rest),
        format!("}}\ncomplete -F {function} {name}\n"),
    ]
    .concat()
}

fn offer(words: &str) -> String {
    format!("COMPREPLY=($(compgen -W {words} -- \"$word\"))")
}

/// For zsh.
pub fn zsh(help: &Help) -> String {
    let (name, verbs, options) = (help.name, help.verbs(), help.options());
    let mut first: Vec<_> = help.words();
    if !first.is_empty() {
        first = vec![format!(
            "compadd -M 'm:{{a-z}}={{A-Z}}' {}",
            first.join(" ")
        )];
    }
    if !verbs.is_empty() {
        first.push("_describe verb verbs".to_owned());
    }
    let (mut own, mut rest) = (Arms::new(), Arms::new());
    if !first.is_empty() {
        rest.push(("''".to_owned(), first.join("; ")));
    }
    let mut described = String::new();
    for verb in &verbs {
        described += &format!("    '{}:{}'\n", verb.name, quoted(&verb.about));
        let specs = zsh_options(&options, Some(&verb.name));
        if !specs.is_empty() {
            own.push((verb.name.clone(), format!("options+=(\n{specs})")));
        }
        let reply = match verb.completed() {
            Completed::File => "_files",
            Completed::Command => "_command_names -e || _files",
            Completed::Folder | Completed::Words(_) | Completed::Unknown => continue,
        };
        rest.push((verb.name.clone(), reply.to_owned()));
    }
    [
        format!("#compdef {name}\n"),
        made_of(name),
        "local -a options verbs\n".to_owned(),
        "local verb= given state\n".to_owned(),
        format!("verbs=(\n{described})\n"),
        format!("options=(\n{})\n", zsh_options(&options, None)),
        find_verb("${words[2,CURRENT-1]}", &verbs),
        case("verb", &own),
        "_arguments -s -S : $options '*: :->rest' && return\n".to_owned(),
        "[ \"$state\" = rest ] || return 1\n".to_owned(),
        case("verb", &rest),
    ]
    .concat()
}

/// A verb's own options as `_arguments` takes them, one a line; `None` has those of all verbs.
fn zsh_options(options: &[Choice], verb: Option<&str>) -> String {
    let mut lines = String::new();
    for option in options
        .iter()
        .filter(|option| option.verb.as_deref() == verb)
    {
        let about = quoted(&option.about)
            .replace('[', "\\[")
            .replace(']', "\\]");
        let action = option.completed().map(|completed| match completed {
            Completed::File | Completed::Command => "_files".to_owned(),
            Completed::Folder => "_files -/".to_owned(),
            Completed::Words(words) => format!("({})", words.join(" ")),
            Completed::Unknown => " ".to_owned(),
        });
        let called = option
            .value
            .as_deref()
            .unwrap_or_default()
            .replace(':', "\\:");
        let value = action.map_or(String::new(), |action| format!(":{called}:{action}"));
        let has_value = !value.is_empty();
        let long = format!("{}{}", option.long, if has_value { "=" } else { "" });
        // Those that one excludes: its other spelling, and itself.
        let excludes = match option.repeats {
            true => "*".to_owned(),
            false => format!("({})", spellings(option).collect::<Vec<_>>().join(" ")),
        };
        lines += &match &option.short {
            None => format!("    '{excludes}{long}[{about}]{value}'\n"),
            Some(short) => {
                let plus = if has_value { "+" } else { "" };
                format!("    '{excludes}'{{{short}{plus},{long}}}'[{about}]{value}'\n")
            }
        };
    }
    lines
}

/// For fish.
pub fn fish(help: &Help) -> String {
    let (name, verbs, options) = (help.name, help.verbs(), help.options());
    let names: Vec<_> = verbs.iter().map(|verb| verb.name.as_str()).collect();
    let mut lines = made_of(name);
    let mut first = "";
    if !names.is_empty() {
        first = " -n \"not __fish_seen_subcommand_from $verbs\"";
        lines += &format!("set -l verbs {}\n", names.join(" "));
    }
    let mut add = |rest: String| lines += &format!("complete -c {name}{rest}\n");
    add(" -f".to_owned());
    let words = help.words().join(" ");
    if !words.is_empty() {
        add(format!("{first} -a '{words}'"));
    }
    let seen = |verb: &str| format!(" -n '__fish_seen_subcommand_from {verb}'");
    for verb in &verbs {
        add(format!(
            "{first} -a {} -d '{}'",
            verb.name,
            fish_quoted(&verb.about)
        ));
        let seen = seen(&verb.name);
        match verb.completed() {
            Completed::File => add(format!("{seen} -F")),
            Completed::Command => add(format!("{seen} -F -a '(__fish_complete_command)'")),
            Completed::Folder | Completed::Words(_) | Completed::Unknown => {}
        }
    }
    for option in &options {
        let seen = option.verb.as_deref().map(seen).unwrap_or_default();
        let short = option
            .short
            .as_deref()
            .map(|short| format!(" -s {}", &short[1..]));
        let value = match option.completed() {
            None => String::new(),
            Some(Completed::File | Completed::Command) => " -r -F".to_owned(),
            Some(Completed::Folder) => " -x -a '(__fish_complete_directories)'".to_owned(),
            Some(Completed::Words(words)) => format!(" -x -a '{}'", words.join(" ")),
            Some(Completed::Unknown) => " -x".to_owned(),
        };
        let (short, long) = (short.unwrap_or_default(), &option.long[2..]);
        add(format!(
            "{seen}{short} -l {long}{value} -d '{}'",
            fish_quoted(&option.about)
        ));
    }
    lines
}

fn made_of(name: &str) -> String {
    format!("# Made of `{name} --help` (data/systemd/README.md).\n")
}

/// `-q` and `--quiet`.
fn spellings(option: &Choice) -> impl Iterator<Item = &str> {
    let all = option.short.iter().chain([&option.long]);
    all.map(String::as_str)
}

/// The spellings of a verb's own options, between spaces; `None` has those of all verbs.
fn all_spellings(options: &[Choice], verb: Option<&str>) -> String {
    let its = options
        .iter()
        .filter(|option| option.verb.as_deref() == verb);
    its.flat_map(spellings).collect::<Vec<_>>().join(" ")
}

/// A loop over the words of a command line that finds the verb.
fn find_verb(words: &str, verbs: &[Verb]) -> String {
    if verbs.is_empty() {
        return String::new();
    }
    let arm = |verb: &Verb| (verb.name.clone(), "verb=$given; break".to_owned());
    let arms: Arms = verbs.iter().map(arm).collect();
    format!("for given in {words}; do\n{}done\n", case("given", &arms))
}

/// A `case` of bash and zsh; words for which the same is done are one arm.
fn case(variable: &str, arms: &[(String, String)]) -> String {
    let mut joined: Vec<(Vec<&str>, &str)> = Vec::new();
    for (word, done) in arms {
        match joined.iter_mut().find(|(_, same)| same == done) {
            Some((words, _)) if words.contains(&word.as_str()) => {}
            Some((words, _)) => words.push(word),
            None => joined.push((vec![word], done)),
        }
    }
    let arm = |(words, done): &(Vec<&str>, &str)| format!("{}) {done} ;;\n", words.join(" | "));
    let arms: String = joined.iter().map(arm).collect();
    match arms.as_str() {
        "" => String::new(),
        arms => format!("case ${variable} in\n{arms}esac\n"),
    }
}

/// Text between single quotes of bash and zsh.
fn quoted(text: &str) -> String {
    text.replace('\'', "'\\''")
}

/// Text between single quotes of fish.
fn fish_quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\'', "\\'")
}
