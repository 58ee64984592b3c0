//! Uploads by forms, as browsers and `curl -F` send them.
//!
//! A form goes to a folder, and its files keep their names. Phones give many pictures the same name, so
//! the second file of a name within a form gets a number.

use std::collections::HashMap;
use std::io::{self, Read};

use cli::escape::Escaped;
use daemon::http::{RequestBody, Response, body_refusal};
use proto::http::conditional::{self, Verdict};
use proto::http::multipart::Form;
use proto::http::{Refusal, RequestHead, Status};

use crate::error::FilesError;
use crate::files::Found;
use crate::path::TreePath;
use crate::service::{FileService, Reply, TEXT, path_of, with_always};
use crate::upload::SAVED;

/// The most files in a form. Their names stay in memory until its end.
const FILES_MAX: usize = 1000;

/// The highest number that tells a file from others of its name.
const NUMBER_MAX: u32 = 10_000;

/// The files of a form that are saved.
#[derive(Default)]
struct Saved {
    /// The path of each file, and the highest number that another file of its name got.
    names: HashMap<TreePath, u32>,
    /// A line for each file that got a number.
    renamed: String,
}

impl FileService {
    /// Saves the files of a form in a folder, and redirects the browser to it.
    pub(crate) fn upload_form(
        &self,
        request: &RequestHead,
        body: &mut dyn RequestBody,
        boundary: &str,
    ) -> Reply {
        let folder = self.folder_of_form(request)?;
        let limited = Limited {
            body,
            bytes: 0,
            bytes_max: self.config.upload_bytes_max,
        };
        let mut form = Form::new(limited, boundary);
        let mut saved = Saved::default();
        let all = self.save_files(request, &folder, &mut form, &mut saved);
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

    /// The folder that a form goes to. Elsewhere the whole form would become a file.
    fn folder_of_form(&self, request: &RequestHead) -> Result<TreePath, Refusal> {
        let path = path_of(request)?;
        if request.method == "POST" && path.has_final_slash() {
            return Ok(path);
        }
        let end = request.path.rfind('/').map_or(0, |at| at + 1);
        let folder = match self.files.find(&path) {
            Ok(Found::FolderWithoutSlash { .. }) => format!("{}/", request.path),
            Ok(Found::Folder | Found::File(_)) | Err(_) => request.path[..end].to_owned(),
        };
        let sentence = format!("a form goes to a folder: POST it to {}", Escaped(&folder));
        Err(Refusal::new(Status::BadRequest, sentence))
    }

    fn save_files(
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
                // If no file was chosen, a browser sends one without a name and without a byte.
                let bytes = form.part().read(&mut [0]);
                if bytes.map_err(|error| body_refusal(&error))? == 0 {
                    continue;
                }
            }
            self.save_file(request, folder, &name, form, saved)
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

    fn save_file(
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
        let path = folder.child(name).map_err(FilesError::from)?;
        let is_wanted = |current: Option<&_>| {
            let is_free = current.is_none() || !creates_only(request);
            is_free && conditional::judge(request, current) == Verdict::Go
        };
        let number = saved.names.get(&path).copied();
        let mut upload = self.files.upload(&path, 0)?;
        if number.is_none() && upload.replaced().is_some() {
            self.files.check_create(true)?;
            if creates_only(request) {
                let sentence = "there is a file of this name already";
                return Err(Refusal::new(Status::Conflict, sentence));
            }
        }
        self.fill(&mut upload, &mut form.part(), None, u64::MAX)?;
        let Some(number) = number else {
            upload.commit(is_wanted)?;
            saved.names.insert(path, 0);
            return Ok(());
        };
        // The client did not name a file with a number, so none is replaced.
        let others = (number + 1..=NUMBER_MAX).map(|number| (number, path.numbered(number)));
        let (number, other) = upload.commit_numbered(others)?;
        let names = [&path, &other].map(|path| path.as_path().file_name().unwrap_or_default());
        let [name, other_name] = names.map(|name| Escaped(&name.to_string_lossy()).to_string());
        let line = format!("another file called {name} was saved as {other_name}\n");
        saved.renamed.push_str(&line);
        saved.names.insert(path, number);
        saved.names.insert(other, 0);
        Ok(())
    }
}

/// Whether the files of a form may replace none. A form says so in its target, which is all it can
/// choose.
fn creates_only(request: &RequestHead) -> bool {
    let mut parameters = request.query.unwrap_or_default().split('&');
    parameters.any(|one| matches!(one, "create-only" | "create-only="))
}

/// The body of a form, limited also if its length is not known.
struct Limited<'b> {
    body: &'b mut dyn RequestBody,
    /// The bytes that were read.
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
