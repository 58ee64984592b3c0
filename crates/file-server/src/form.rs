//! Forms with files in them, as browsers send them and `curl -F`.
//!
//! A form goes to a folder, and its files keep the names that they had where they come from. Phones
//! call many pictures by one name; so the second file of a name within a form gets a number.

use std::collections::HashMap;
use std::io::{self, Read};

use cli::escape::Escaped;
use daemon::http::{RequestBody, Response, body_refusal};
use proto::http::conditional::{self, Verdict};
use proto::http::multipart::Form;
use proto::http::{Refusal, RequestHead, Status};

use crate::connection::{Connections, TEXT, path_of, refusal, with_always};
use crate::files::Found;
use crate::path::TreePath;
use crate::take::SAVED;

/// The most files a form may have: their names are kept in memory until its end.
const FILES_MAX: usize = 1000;

/// The highest number that a file gets to tell it from others of its name.
const NUMBER_MAX: u32 = 10_000;

/// What has been saved of a form.
#[derive(Default)]
struct Saved {
    /// The name of each file, and the highest number that another one of that name got.
    names: HashMap<TreePath, u32>,
    /// A line for each file that is not called as it was.
    renamed: String,
}

impl Connections {
    /// Takes the files of a form into a folder, and sends the browser back to it.
    pub(crate) fn take_form(
        &self,
        request: &RequestHead,
        body: &mut dyn RequestBody,
        boundary: &str,
    ) -> Result<Response, Refusal> {
        let folder = self.folder_of_form(request)?;
        let limited = Limited {
            body,
            bytes: 0,
            bytes_max: self.upload_bytes_max,
        };
        let mut form = Form::new(limited, boundary);
        let mut saved = Saved::default();
        let all = self.take_files(request, &folder, &mut form, &mut saved);
        match (all, saved.names.len()) {
            (Ok(()), 0) => {
                let sentence = "the form has no file in it";
                Err(Refusal::new(Status::BadRequest, sentence))
            }
            (Ok(()), _) => {
                let body = format!("{SAVED}{}", saved.renamed);
                let response = Response::new(Status::SeeOther, TEXT, body);
                Ok(with_always(response.with_field("Location", "./")))
            }
            (Err(refusal), 0) => Err(refusal),
            (Err(Refusal { status, sentence }), files) => {
                let sentence = format!("{sentence}; files saved before that: {files}");
                Err(Refusal::new(status, sentence))
            }
        }
    }

    /// The folder that a form is for. Elsewhere, what surrounds its files would become a file.
    fn folder_of_form(&self, request: &RequestHead) -> Result<TreePath, Refusal> {
        let path = path_of(request)?;
        if request.method == "POST" && path.has_final_slash() {
            return Ok(path);
        }
        let end = request.path.rfind('/').map_or(0, |at| at + 1);
        let folder = match self.files.find(&path) {
            Ok(Found::FolderWithoutSlash { .. }) => format!("{}/", request.path),
            Ok(Found::Folder | Found::File { .. }) | Err(_) => request.path[..end].to_owned(),
        };
        let sentence = format!("a form goes to a folder: POST it to {}", Escaped(&folder));
        Err(Refusal::new(Status::BadRequest, sentence))
    }

    fn take_files(
        &self,
        request: &RequestHead,
        folder: &TreePath,
        form: &mut Form<Limited<'_>>,
        saved: &mut Saved,
    ) -> Result<(), Refusal> {
        while let Some(head) = form.next_part().map_err(|error| body_refusal(&error))? {
            let Some(name) = head.file_name else {
                continue;
            };
            if name.is_empty() {
                // A browser whose user has chosen no file sends one without a name and a byte.
                let bytes = form.part().read(&mut [0]);
                if bytes.map_err(|error| body_refusal(&error))? == 0 {
                    continue;
                }
            }
            self.take_file(request, folder, &name, form, saved)
                .map_err(|Refusal { status, sentence }| {
                    let name = String::from_utf8_lossy(&name);
                    match name.is_empty() {
                        true => Refusal::new(status, sentence),
                        false => Refusal::new(status, format!("{}: {sentence}", Escaped(&name))),
                    }
                })?;
        }
        Ok(())
    }

    fn take_file(
        &self,
        request: &RequestHead,
        folder: &TreePath,
        name: &[u8],
        form: &mut Form<Limited<'_>>,
        saved: &mut Saved,
    ) -> Result<(), Refusal> {
        let bad = |sentence: String| Refusal::new(Status::BadRequest, sentence);
        if saved.names.len() == FILES_MAX {
            return Err(bad(format!("the form has more than {FILES_MAX} files")));
        }
        let path = folder.child(name).map_err(|error| bad(error.to_string()))?;
        let is_wanted = |current: Option<&_>| {
            let is_free = current.is_none() || !creates_only(request);
            is_free && conditional::judge(request, current) == Verdict::Go
        };
        let number = saved.names.get(&path).copied();
        let mut upload = self.files.upload(&path, 0).map_err(refusal)?;
        if number.is_none() && self.files.version(&path).map_err(refusal)?.is_some() {
            self.files.check_create(true).map_err(refusal)?;
            if creates_only(request) {
                let sentence = "there is a file of this name already";
                return Err(Refusal::new(Status::Conflict, sentence));
            }
        }
        self.fill(&mut upload, &mut form.part(), None)?;
        let Some(number) = number else {
            upload.finish(is_wanted).map_err(refusal)?;
            saved.names.insert(path, 0);
            return Ok(());
        };
        // What stands there under a number is nobody's to replace: it was not named.
        let others = (number + 1..=NUMBER_MAX).map(|number| (number, path.numbered(number)));
        let (number, other) = upload.finish_beside(others).map_err(refusal)?;
        let names = [&path, &other].map(|path| path.as_path().file_name().unwrap_or_default());
        let [name, other_name] = names.map(|name| Escaped(&name.to_string_lossy()).to_string());
        let line = format!("another file called {name} was saved as {other_name}\n");
        saved.renamed.push_str(&line);
        saved.names.insert(path, number);
        saved.names.insert(other, 0);
        Ok(())
    }
}

/// Whether the files of a form are to replace none: a form can say so in its target alone.
fn creates_only(request: &RequestHead) -> bool {
    let mut parameters = request.query.unwrap_or_default().split('&');
    parameters.any(|one| matches!(one, "create-only" | "create-only="))
}

/// The body of a form, which has a limit also where nobody has said how long it is.
struct Limited<'b> {
    body: &'b mut dyn RequestBody,
    /// How many bytes have come.
    bytes: u64,
    bytes_max: u64,
}

impl Read for Limited<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let bytes = self.body.read(out)?;
        self.bytes += bytes as u64;
        match self.bytes <= self.bytes_max {
            true => Ok(bytes),
            false => Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("the form exceeds {} bytes", self.bytes_max),
            )),
        }
    }
}
