//! Forms with files in them, as curl and Python send them: where they may go, what their files are
//! called, and what they cost. A browser's are in `browser`.

use std::collections::BTreeMap;
use std::fs;

use crate::file::{SAVED, Tree, ask};
use crate::harness::{Needs, Ran, Server, has_door, has_program, python, run_command, skipped};

/// The exit code of a Python script that lacks what it needs.
const NO_PACKAGE: Option<i32> = Some(77);

/// A folder to send files from.
struct Here {
    tree: Tree,
}

impl Here {
    fn new() -> Self {
        let tree = Tree::new();
        fs::create_dir(tree.path("here")).unwrap();
        Self { tree }
    }

    /// Writes a file to send.
    fn write(&self, name: &str, text: &str) {
        let path = self.tree.path("here").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// curl, from there; behind what it prints stands the status of the reply.
    #[track_caller]
    fn curl(&self, server: &Server, args: &[&str], target: &str) -> Ran {
        let mut command = server.curl(target);
        command.current_dir(self.tree.path("here"));
        command.args(["--silent", "--noproxy", "*", "--write-out", "%{http_code}"]);
        command.args(args);
        run_command(command, b"").expect(0)
    }

    /// The files in a folder of the server, by their names.
    fn files(&self, folder: &str) -> BTreeMap<String, String> {
        let Ok(entries) = fs::read_dir(self.tree.root(folder)) else {
            return BTreeMap::new();
        };
        entries
            .map(|entry| {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                (name, fs::read_to_string(path).unwrap())
            })
            .collect()
    }

    #[track_caller]
    fn check_files(&self, folder: &str, want: &[(&str, &str)]) {
        let want = want
            .iter()
            .map(|(name, text)| (name.to_string(), text.to_string()));
        assert_eq!(self.files(folder), want.collect(), "{folder}");
    }
}

#[test]
fn a_form_that_is_not_for_a_folder_is_refused_and_told_where_to_go() {
    if !has_program("curl") {
        return;
    }
    let here = Here::new();
    here.write("f.txt", "sent");
    let server = here.tree.start(&[]);
    let before = here.tree.inside();
    for (options, target, folder) in [
        (&[][..], "/f.txt", "/"),
        (&[], "/upload", "/"),
        (&[], "/new/upload", "/new/"),
        (&[], "/plain/a.txt", "/plain/"),
        (&[], "/plain", "/plain/"),
        (&[], "/plain?json", "/plain/"),
        (&["-X", "PUT"], "/plain", "/plain/"),
        (&["-X", "PUT"], "/plain/", "/plain/"),
        (&["-X", "PUT"], "/f.txt", "/"),
        (&["-H", "Upload-Complete: ?0"], "/f.txt", "/"),
    ] {
        let args = [&["-F", "file=@f.txt"], options].concat();
        let reply = here.curl(&server, &args, target).out();
        let want = format!("a form goes to a folder: POST it to {folder}");
        assert_eq!(reply, format!("{want}\n400"), "{args:?} {target}");
        assert_eq!(here.tree.inside(), before, "{args:?} {target}");
    }
    // What it is told is right.
    let reply = here.curl(&server, &["-F", "file=@f.txt"], "/plain/");
    assert_eq!(reply.out(), format!("{SAVED}303"));
    here.check_files("plain", &[("a.txt", "a"), ("f.txt", "sent")]);
}

#[test]
fn files_of_one_name_in_a_form_are_all_kept() {
    if !has_program("curl") {
        return;
    }
    let here = Here::new();
    for (name, text) in [
        ("1/image.jpg", "one"),
        ("2/image.jpg", "two"),
        ("3/image.jpg", "three"),
    ] {
        here.write(name, text);
    }
    here.write("image (2).jpg", "mine");
    let server = here.tree.start(&[]);
    let file = |path: &str| format!("file=@{path}");
    let forms: Vec<_> = ["1/image.jpg", "2/image.jpg", "image (2).jpg", "3/image.jpg"]
        .map(file)
        .into();
    let args: Vec<_> = forms.iter().flat_map(|form| ["-F", form]).collect();
    let renamed = "another file called image.jpg was saved as";
    let reply = here.curl(&server, &args, "/phone/").out();
    let want = format!("{SAVED}{renamed} image (1).jpg\n{renamed} image (3).jpg\n303");
    assert_eq!(reply, want);
    let all = [
        ("image (1).jpg", "two"),
        ("image (2).jpg", "mine"),
        ("image (3).jpg", "three"),
        ("image.jpg", "one"),
    ];
    here.check_files("phone", &all);
    // The next form replaces what it names, and nothing else.
    let reply = here.curl(&server, &args[..4], "/phone/").out();
    assert_eq!(reply, format!("{SAVED}{renamed} image (4).jpg\n303"));
    here.check_files(
        "phone",
        &[&all[..3], &[("image (4).jpg", "two"), all[3]]].concat(),
    );
    // Nor one file, if that is asked for.
    let mut only_new = vec![
        "-H",
        "If-None-Match: *",
        "-F",
        "file=@3/image.jpg;filename=new",
    ];
    only_new.extend(["-F", "file=@3/image.jpg"]);
    let reply = here.curl(&server, &only_new, "/phone/").out();
    let refused = "image.jpg: the file does not meet the request's condition";
    assert_eq!(reply, format!("{refused}; files saved before that: 1\n412"));
    let files = here.files("phone");
    assert_eq!(
        (files["image.jpg"].as_str(), files["new"].as_str()),
        ("one", "three")
    );
    assert_eq!(here.tree.temporary_files(), 0);
}

#[test]
fn a_file_is_called_in_a_form_as_curl_has_it() {
    if !has_program("curl") {
        return;
    }
    let here = Here::new();
    let server = here.tree.start(&[]);
    for (name, want) in [
        ("f.txt", "f.txt"),
        ("say \"hi\".txt", "say \"hi\".txt"),
        ("100%.txt", "100%.txt"),
        ("%41%2e.txt", "%41%2e.txt"),
        ("naïve €.txt", "naïve €.txt"),
        ("a;b=c.txt", "a;b=c.txt"),
        ("two\nlines", "two\nlines"),
        // As if it came from a machine where that is between folders.
        ("a\\b.txt", "b.txt"),
        ("C:\\Users\\me\\f.txt", "f.txt"),
    ] {
        here.write(name, want);
        let quoted = name.replace('\\', r"\\").replace('"', "\\\"");
        let form = format!("file=@\"{quoted}\"");
        for options in [&[][..], &["--form-escape"]] {
            // With backslashes, curl leaves line breaks as they are.
            if name.contains('\n') && !options.is_empty() {
                continue;
            }
            let args = [options, &["-F", &form]].concat();
            let reply = here.curl(&server, &args, "/names/").out();
            assert_eq!(reply, format!("{SAVED}303"), "{name} {options:?}");
            here.check_files("names", &[(want, want)]);
            fs::remove_dir_all(here.tree.root("names")).unwrap();
        }
    }
}

#[test]
fn python_sends_forms() {
    if !has_door(Needs::Plain, "the script knows plain TCP alone") {
        return;
    }
    if !has_program("python3") {
        return;
    }
    let tree = Tree::new();
    let server = tree.start(&[]);
    let ran = python("forms.py", &[format!("http://{}", server.addr())]);
    if ran.code == NO_PACKAGE {
        return skipped("there is no requests package");
    }
    ran.expect(0);
    assert_eq!(tree.temporary_files(), 0);
}

/// How often a process has asked for something to be written.
fn writes(server: &Server) -> u64 {
    let io = fs::read_to_string(format!("/proc/{}/io", server.pid())).unwrap();
    let line = io.lines().find_map(|line| line.strip_prefix("syscw: "));
    line.unwrap().parse().unwrap()
}

#[test]
fn what_comes_in_small_pieces_is_written_in_large_ones() {
    const BYTES: usize = 200_000;
    let tree = Tree::new();
    let server = tree.start(&[]);
    let body = "\r".repeat(BYTES);
    let form = format!(
        "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"f\"\r\n\r\n{body}\r\n--b--"
    );
    let length = form.len();
    let of_crs = format!(
        "POST /new/ HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\
         Content-Type: multipart/form-data; boundary=b\r\n\r\n{form}"
    );
    let chunks = "1\r\n\r\r\n".repeat(BYTES);
    let chunked = format!(
        "PUT /new/f HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"
    );
    for request in [of_crs, chunked] {
        let before = writes(&server);
        let reply = ask(&server, &request);
        assert!(matches!(reply.status, 201 | 303), "{}", reply.text());
        assert!(fs::read(tree.root("new/f")).unwrap() == body.as_bytes());
        let writes = writes(&server) - before;
        assert!(writes < 100, "{writes} for {:.30}", request);
        fs::remove_file(tree.root("new/f")).unwrap();
    }
}

#[test]
fn a_form_has_limits() {
    let tree = Tree::new();
    let server = tree.start(&["--max-upload", "100K"]);
    let before = tree.inside();
    let send = |form: String| {
        let request = format!(
            "POST /plain/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\
             Content-Type: multipart/form-data; boundary=b\r\n\r\n{:x}\r\n{form}\r\n0\r\n\r\n",
            form.len()
        );
        let reply = ask(&server, request);
        (reply.status, reply.text())
    };
    let part = |parameters: &str, body: &str| {
        format!("--b\r\nContent-Disposition: form-data; {parameters}\r\n\r\n{body}\r\n")
    };
    let (large, end) = ("x".repeat(200_000), "--b--\r\n");
    // Also of what is no file, and of a form whose length nobody has said.
    for form in [
        part("name=a", &large),
        part("filename=a", &large),
        large.clone(),
    ] {
        let (status, text) = send(form + end);
        assert_eq!(
            (status, text.contains("exceeds 102400 bytes")),
            (413, true),
            "{text}"
        );
    }
    // A file that would be lost without a word is none that may be passed over.
    for parameters in ["filename*=x''a", "filename=\"a", "filename=\"a\"b\""] {
        let (status, text) = send(part(parameters, "lost") + end);
        assert_eq!(status, 400, "{text}");
    }
    let nameless = send(part("filename=\"\"", "lost") + end);
    assert_eq!(nameless, (400, "a file has no name\n".to_owned()));
    assert_eq!(tree.inside(), before);
    // A browser sends a field of which no file was chosen.
    let chosen = part("filename=\"\"", "") + &part("name=n", "field") + &part("filename=f", "sent");
    assert_eq!(send(chosen + end), (303, SAVED.to_owned()));
    assert_eq!(fs::read(tree.root("plain/f")).unwrap(), b"sent");
    let many = part("filename=f", "").repeat(1001);
    let (status, text) = send(many + end);
    assert_eq!(
        (status, text.as_str()),
        (
            400,
            "f: the form has more than 1000 files; files saved before that: 1000\n"
        )
    );
    assert_eq!(tree.temporary_files(), 0);
}
