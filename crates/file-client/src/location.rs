//! Where a server says that an upload goes on: a path on that server, and on no other.

/// The longest URL of an upload that is taken from a server, in bytes.
const URL_BYTES_MAX: usize = 4096;

/// The path that a `Location` means, which may be relative to the target of the request, as a path that
/// starts with a dot (RFC 3986 section 5.2); anything else is left as it is.
pub(crate) fn seen_from(target: &str, location: &str) -> String {
    if !location.starts_with('.') {
        return location.to_owned();
    }
    let mut folder = target.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut rest = location;
    loop {
        rest = match (rest.strip_prefix("./"), rest.strip_prefix("../")) {
            (Some(rest), _) => rest,
            (None, Some(rest)) => {
                folder = folder.rsplit_once('/').map_or("", |(folder, _)| folder);
                rest
            }
            (None, None) => return format!("{folder}/{rest}"),
        };
    }
}

/// Whether this is a path on the same server, that can stand in a request as it is.
pub(crate) fn is_url(url: &str) -> bool {
    url.len() <= URL_BYTES_MAX
        && url.starts_with('/')
        && !url.starts_with("//")
        && url.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_stays_on_its_server() {
        for url in ["/a/.quartet-upload-1", "/", "/a?b#c"] {
            assert!(is_url(url), "{url}");
        }
        let long = format!("/{}", "a".repeat(URL_BYTES_MAX));
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
        check("/new", "../../.up-1", "/.up-1");
        check("/a/new", "/.up-1", "/.up-1");
        check("/a/new", "http://evil.example/", "http://evil.example/");
        check("/a/new", "//evil.example/", "//evil.example/");
        check("/a/new", ".//evil.example/", "/a//evil.example/");
    }
}
