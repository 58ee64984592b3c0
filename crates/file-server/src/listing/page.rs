//! The page around the rows of a folder: its head, the way back, and the form for uploads.

use uuid::Uuid;

use super::escape::escape;

const STYLE: &str = include_str!("style.css");

/// Choose files or drop them: with scripts, one request and one progress bar for each; without, one
/// form for all.
const UPLOAD_FORM: &str = include_str!("upload.html");
const UPLOAD_SCRIPT: &str = include_str!("upload.js");

/// The page of one folder, without the table of what stands there.
#[derive(Debug)]
pub(super) struct Page {
    /// The folder's path, decoded.
    path: String,
    has_form: bool,
    /// Only the script that knows this word runs, whatever a name holds.
    nonce: String,
}

impl Page {
    /// The page of the folder at this path, with a form if it takes uploads.
    pub(super) fn new(path: String, takes_uploads: bool) -> Self {
        Self {
            path,
            has_form: takes_uploads,
            nonce: Uuid::new_v4().simple().to_string(),
        }
    }

    /// What the page's `Content-Security-Policy` has to be.
    pub(super) fn policy(&self) -> String {
        format!(
            "default-src 'none'; style-src 'unsafe-inline'; script-src 'nonce-{}'; \
             connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
            self.nonce
        )
    }

    /// Whether it is the page of the root, which has no folder above it.
    pub(super) fn is_root(&self) -> bool {
        self.path.trim_matches('/').is_empty()
    }

    /// What comes in front of the table.
    pub(super) fn start(&self) -> String {
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n<title>{}</title>\n\
             <style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{}</h1>\n",
            escape(&self.path),
            breadcrumbs(&self.path)
        )
    }

    /// What comes behind the table.
    pub(super) fn end(&self) -> String {
        let form = match self.has_form {
            true => {
                let nonce = &self.nonce;
                format!("{UPLOAD_FORM}<script nonce=\"{nonce}\">\n{UPLOAD_SCRIPT}</script>\n")
            }
            false => String::new(),
        };
        format!("{form}</body>\n</html>\n")
    }
}

/// The path as links to every folder on the way to it.
fn breadcrumbs(path: &str) -> String {
    let names: Vec<_> = path.split('/').filter(|name| !name.is_empty()).collect();
    let mut crumbs = match names.len() {
        0 => "/".to_owned(),
        depth => format!("<a href=\"{}\">/</a>", "../".repeat(depth)),
    };
    for (at, name) in names.iter().enumerate() {
        let name = escape(name);
        crumbs.push_str(&match names.len() - 1 - at {
            0 => format!("{name}/"),
            up => format!("<a href=\"{}\">{name}/</a>", "../".repeat(up)),
        });
    }
    crumbs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_back() {
        assert_eq!(breadcrumbs("/"), "/");
        assert_eq!(
            breadcrumbs("/a/b/"),
            "<a href=\"../../\">/</a><a href=\"../\">a/</a>b/"
        );
    }
}
