//! The `Location` of a reply: the URL of an upload resource, which must be a path on the same server, or
//! a redirect to a folder.

use proto::http::{ResponseHead, TARGET_BYTES_MAX, resolve};

/// Resolves a `Location` that starts with a dot against the target of the request (RFC 3986 section 5.2).
/// Any other is returned as it is; one that leads above the root is empty.
pub(crate) fn seen_from(target: &str, location: &str) -> String {
    if !location.starts_with('.') {
        return location.to_owned();
    }
    resolve(target, location).unwrap_or_default()
}

/// Whether this is a path on the same server that can stand in a request as it is.
pub(crate) fn is_url(url: &str) -> bool {
    url.len() <= TARGET_BYTES_MAX
        && url.starts_with('/')
        && !url.starts_with("//")
        && url.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether a reply to a request for `target` redirects to the same path with a slash behind it: then it
/// is a folder.
pub(crate) fn leads_to_folder(target: &str, head: &ResponseHead) -> bool {
    let location = head.field("location").unwrap_or_default();
    let folder = location.split(['?', '#']).next().unwrap_or_default();
    let name = |path: &str| path.rsplit('/').next().map(str::to_owned);
    matches!(head.status, 300..=399) && folder.strip_suffix('/').and_then(name) == name(target)
}

/// Whether a reply is no file: that has a version, or the time of its last change.
pub(crate) fn is_page(head: &ResponseHead) -> bool {
    head.field("etag").is_none() && head.field("last-modified").is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_tells_a_folder() {
        let check = |target: &str, location: &str, want: bool| {
            let head = format!("HTTP/1.1 301 Moved\r\nLocation: {location}\r\n\r\n");
            let mut head = ResponseHead::read(&mut head.as_bytes(), "HEAD").unwrap();
            assert_eq!(leads_to_folder(target, &head), want, "{target} {location}");
            head.status = 200;
            assert!(!leads_to_folder(target, &head), "{target} {location}");
        };
        check("/a/b", "/a/b/", true);
        check("/b", "b/", true);
        check("/b", "./b/?json", true);
        check("/b", "http://h:1/b/", true);
        check("/b%20c", "/b%20c/", true);
        check("/b", "/b", false);
        check("/b", "/c/", false);
        check("/b", "/login?to=/b/", false);
        check("/b", "", false);
    }

    #[test]
    fn an_upload_stays_on_its_server() {
        for url in ["/a/.quartet-upload-1", "/", "/a?b#c"] {
            assert!(is_url(url), "{url}");
        }
        let long = format!("/{}", "a".repeat(TARGET_BYTES_MAX));
        for url in [
            "",
            "a",
            "//h/a",
            "http://h/a",
            "/a b",
            "/a\r\nB: c",
            "/\u{e4}",
            &long,
        ] {
            assert!(!is_url(url), "{url}");
        }
    }

    #[test]
    fn a_location_may_be_relative_to_the_target() {
        let check = |target: &str, location: &str, want: &str| {
            assert_eq!(
                seen_from(target, location),
                want,
                "{location} from {target}"
            );
        };
        check("/new", "./.up-1", "/.up-1");
        check("/files/a/new", "../a/.up-1", "/files/a/.up-1");
        check("/files/a/new", "../../.up-1", "/.up-1");
        check("/new", "../../.up-1", "");
        check("/a/new", "/.up-1", "/.up-1");
        check("/a/new", "http://evil.example/", "http://evil.example/");
        check("/a/new", "//evil.example/", "//evil.example/");
        check("/a/new", ".//evil.example/", "/a//evil.example/");
    }
}
