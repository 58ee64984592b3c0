use cli::{Address, Endpoint};

use super::*;

fn parse_words(words: &[&str]) -> Result<Config, String> {
    APP.config_of(words)
}

fn parse(line: &str) -> Result<Config, String> {
    parse_words(&line.split_whitespace().collect::<Vec<_>>())
}

#[track_caller]
fn check(line: &str, want: Action) {
    assert_eq!(parse(line).unwrap().action, want, "{line}");
}

fn al() -> String {
    "al".to_owned()
}

#[test]
fn the_help_has_each_option() {
    APP.check_help();
}

#[test]
fn verbs() {
    check("hello al", Action::Hello(al()));
    check("get al", Action::Get(Get::all(al())));
    check("CLEAR al", Action::Clear(al()));
    check("register", Action::Register(String::new()));
    check("register al", Action::Register(al()));
    let config = parse_words(&["send", "alice 1 3"]).unwrap();
    assert_eq!(config.action, Action::Line("alice 1 3".to_owned()));
    check("send -", Action::Stdin);
}

#[test]
fn lines_are_deleted_by_number_and_by_text() {
    let delete = |first, last, contains: &str| Action::Delete {
        user: al(),
        first,
        last,
        contains: contains.to_owned(),
    };
    check("delete al 3", delete(3, 3, ""));
    check("delete al 3-5", delete(3, 5, ""));
    check("delete al 3-3 --if pump", delete(3, 3, "pump"));
}

#[test]
fn a_note_is_a_text_or_standard_input() {
    let note = |source| Action::Note(Note { user: al(), source });
    let text = |text: &str| note(Source::Text(text.to_owned()));
    check("note al hi", text("hi"));
    check("note al -", note(Source::Stdin));
    check("note al - --lines", note(Source::Lines));
    check("note --lines al -", note(Source::Lines));
    let config = parse_words(&["note", "al", "--", "--lines"]).unwrap();
    assert_eq!(config.action, text("--lines"));
}

#[test]
fn lines_are_found_by_each_option() {
    check(
        "get al --last 5 --since 2026-11-27T09:00:00Z --until 2026-11-27T10:00:00+00:00 \
         --by bo --match pump --json",
        Action::Get(Get {
            last: 5,
            since: 1_795_770_000_000,
            until: 1_795_773_600_000,
            by: "bo".to_owned(),
            contains: "pump".to_owned(),
            json: true,
            ..Get::all(al())
        }),
    );
    let Action::Get(get) = parse("get al --since 2h").unwrap().action else {
        panic!("another verb")
    };
    let ago = Timestamp::now().as_millisecond() - i64::try_from(get.since).unwrap();
    assert!((7_190_000..=7_260_000).contains(&ago), "{ago}");
}

#[test]
fn a_follower_begins_with_some_lines() {
    let follow = |last| Action::Follow(Follow { user: al(), last });
    check("follow al", follow(10));
    check("follow al --last 0", follow(0));
    check("follow al --last 1000", follow(1000));
}

#[test]
fn the_server_and_the_verb_may_be_left_out() {
    let config = parse("").unwrap();
    assert_eq!(config.action, Action::Prompt);
    assert_eq!(config.endpoint, Endpoint::new("127.0.0.1", PORT_DEFAULT));
    let config = parse("h 7").unwrap();
    assert_eq!(config.action, Action::Prompt);
    assert_eq!(config.endpoint, Endpoint::new("h", 7));
}

#[test]
fn options_may_stand_anywhere() {
    let config = parse("--timeout 2 h 7 get --wait-for-server=1.5 al").unwrap();
    assert_eq!(config.endpoint.timeout.as_secs(), 2);
    assert_eq!(config.endpoint.wait_for_server.as_millis(), 1500);
    assert_eq!(config.endpoint.address, Address::new("h", 7));
}

#[test]
fn standard_input_is_for_one_thing() {
    for line in [
        "--auth-file -",
        "send - --auth-file -",
        "note al - --auth-file -",
        "note al - --lines --auth-file -",
    ] {
        let refused = parse(line).unwrap_err();
        assert!(refused.starts_with("standard input is for one thing: "));
    }
    parse("get al --auth-file -").unwrap();
    parse("note al x --auth-file -").unwrap();
}

#[track_caller]
fn check_refused(line: &str, want: &str) {
    assert_eq!(parse(line).unwrap_err(), want);
}

#[test]
fn a_wrong_command_line_is_one_sentence() {
    let all = "the verbs are send, hello, note, get, follow, delete, clear, register";
    check_refused(
        "h",
        &format!("unknown verb 'h', {all}; a server is HOST PORT or unix:/path"),
    );
    check_refused("delte al 3", "unknown verb 'delte', did you mean delete?");
    check_refused("h 7 claer al", "unknown verb 'claer', did you mean clear?");
    check_refused("h x get al", "PORT must be a port from 0 to 65535, not 'x'");
    check_refused("h 7 show al", &format!("unknown verb 'show', {all}"));
    check_refused("send", "the LINE to send is missing");
    check_refused("send alice 2", "there is one argument too many: '2'");
    check_refused("get", "USER is missing");
    check_refused(
        "get a/b",
        "USER must be 1 to 64 of A-Z a-z 0-9 . _ -, not 'a/b'",
    );
    check_refused("delete al", "N, the line to delete, is missing");
    for word in ["0", "x", "5-3", "3-", "-3", "1-2-3", "0-1"] {
        check_refused(
            &format!("delete al -- {word}"),
            &format!("N must be the number of a line, 1 or more, or a range, as 3-5, not '{word}'"),
        );
    }
    check_refused("clear al x", "there is one argument too many: 'x'");
    check_refused(
        "get al --timeout 0",
        "--timeout must be a duration from 0.001s to 365d, such as 90, 90s, 15m, 2h or 7d, not '0'",
    );
}

#[test]
fn each_value_has_its_sentence() {
    check_refused("note al", "the TEXT to note is missing");
    check_refused("note al a b", "there is one argument too many: 'b'");
    let sentence = "--lines is for standard input: note USER --lines -";
    check_refused("note al a --lines", sentence);
    let bounds = format!("from 1 to {}", u64::MAX);
    let sentence = format!("--last must be a number {bounds}, not '0'");
    check_refused("get al --last 0", &sentence);
    check_refused(
        "get al --by a/b",
        "--by must be 1 to 64 of A-Z a-z 0-9 . _ -, not 'a/b'",
    );
    check_refused(
        "get al --match=",
        "--match must be a text of 1 to 1024 bytes, not ''",
    );
    check_refused(
        "delete al 1 --if=",
        "--if must be a text of 1 to 1024 bytes, not ''",
    );
    let sentence = "--since must be a time before --until";
    check_refused("get al --since 1h --until 2h", sentence);
    let refused = parse("get al --until tomorrow").unwrap_err();
    assert!(
        refused.starts_with("--until must be a time as 2026-11-27, "),
        "{refused}"
    );
    let want = "PREFIX must be 1 to 40 of A-Z a-z 0-9 . _ -, not";
    check_refused("register a/b", &format!("{want} 'a/b'"));
    let long = "x".repeat(41);
    check_refused(&format!("register {long}"), &format!("{want} '{long}'"));
    check_refused("register a b", "there is one argument too many: 'b'");
}

#[test]
fn an_option_is_for_its_verb() {
    for (line, option, verb) in [
        ("get al --lines", "--lines", "get"),
        ("follow al --json", "--json", "follow"),
        ("follow al --since 2h", "--since", "follow"),
        ("delete al 1 --match x", "--match", "delete"),
        ("note al x --if y", "--if", "note"),
        ("clear al --last 1", "--last", "clear"),
        ("register --by al", "--by", "register"),
        ("hello al --until 2h", "--until", "hello"),
    ] {
        check_refused(line, &format!("{option} does not go with {verb}"));
    }
    check_refused("--last 1", "--last needs a verb");
}
