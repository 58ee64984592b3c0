use super::*;

const OPTIONS: &[Opt] = &[
    Opt::value("--wait"),
    Opt::flag("--json").short('j'),
    Opt::value("--queue").short('Q'),
];

fn parse(line: &str) -> Result<Parsed<Line>, String> {
    let args = ["program"].into_iter().chain(line.split_whitespace());
    let parser = lexopt::Parser::from_iter(args);
    split(parser, &[OPTIONS, Opt::CLIENT]).map_err(|error| error.to_string())
}

#[track_caller]
fn parts(line: &str) -> (Words, Given) {
    match parse(line).unwrap() {
        Parsed::Run { config, .. } => config.into_parts(),
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn numbers_say_their_range() {
    let parse = |word: &str| number("N", OsStr::new(word), 1..=9).map_err(|e| e.to_string());
    assert_eq!(parse("9"), Ok(9));
    for bad in ["0", "10", "", "x", "1.5"] {
        let want = format!("N must be a number from 1 to 9, not '{bad}'");
        assert_eq!(parse(bad), Err(want));
    }
}

#[test]
fn options_may_stand_anywhere() {
    for line in [
        "--wait 5 a -j b",
        "a --wait=5 b --json",
        "-j a b --wait 5 -j",
    ] {
        let (mut words, mut given) = parts(line);
        assert_eq!(given.take("--wait").unwrap(), "5", "{line}");
        assert!(given.flag("--json") && !given.flag("--json"), "{line}");
        assert_eq!(words.take().unwrap(), "a");
        assert_eq!(words.take().unwrap(), "b");
        given.end(None).unwrap();
        words.end().unwrap();
    }
}

#[test]
fn what_stands_behind_dashes_is_no_option() {
    let (mut words, given) = parts("a -- --wait -j");
    for want in ["a", "--wait", "-j"] {
        assert_eq!(words.take().unwrap(), want);
    }
    given.end(None).unwrap();
}

#[test]
fn how_much_is_said() {
    let verbosity = |line: &str| match parse(line) {
        Ok(Parsed::Run { verbosity, .. }) => verbosity,
        other => panic!("{line}: {other:?}"),
    };
    assert_eq!(verbosity("a"), Verbosity::Normal);
    assert_eq!(verbosity("a -v"), Verbosity::Verbose);
    assert_eq!(verbosity("--quiet a -q"), Verbosity::Quiet);
    assert!(matches!(parse("a --help --nonsense"), Ok(Parsed::Help)));
    assert!(matches!(parse("-V"), Ok(Parsed::Version)));
}

#[test]
fn wrong_options_are_one_sentence() {
    for (line, want) in [
        ("--quue x", "unknown option '--quue', did you mean --queue?"),
        ("--jsn", "unknown option '--jsn', did you mean --json?"),
        ("--frobnicate", "unknown option '--frobnicate'"),
        ("-x", "unknown option '-x'"),
        ("--wait 1 --wait 1", "--wait is given twice"),
        ("-Q a --queue=b", "--queue is given twice"),
        ("--wait", "missing argument for option '--wait'"),
        ("-q -v", "--quiet and --verbose exclude each other"),
    ] {
        assert_eq!(parse(line).unwrap_err(), want, "{line}");
    }
    // A flag has no value.
    parse("--json=1").unwrap_err();
}

#[test]
fn what_nobody_takes_is_misplaced() {
    let refused = |verb| {
        let (_, given) = parts("--wait 5");
        given.end(verb).unwrap_err().to_string()
    };
    assert_eq!(refused(Some("list")), "--wait does not go with list");
    assert_eq!(refused(None), "--wait needs a verb");
}
