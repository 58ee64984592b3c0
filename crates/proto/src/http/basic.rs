//! Basic authentication (RFC 7617): `Authorization: Basic`, and `USER:PASSWORD` in base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::RequestHead;

/// The value of the `Authorization` field of this user, who has no colon in the name.
pub fn authorization(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// The user and the password of a request; `None` if it carries none, or if the field is malformed or
/// repeated.
pub fn credentials(request: &RequestHead) -> Option<(String, String)> {
    let value = request.single("authorization")?;
    let space = value.iter().position(|byte| *byte == b' ')?;
    let (scheme, encoded) = value.split_at(space);
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let decoded = STANDARD.decode(encoded.trim_ascii()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(fields: &str, want: Option<(&str, &str)>) {
        let head = format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
        let request = RequestHead::parse(head.as_bytes()).unwrap();
        let got = credentials(&request);
        let got = got
            .as_ref()
            .map(|(user, password)| (user.as_str(), password.as_str()));
        assert_eq!(got, want, "{fields}");
    }

    #[test]
    fn a_request_says_who_asks() {
        // From RFC 7617 section 2.
        const ALADDIN: &str = "Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n";
        let aladdin = Some(("Aladdin", "open sesame"));
        check(ALADDIN, aladdin);
        check(&ALADDIN.replace("Basic", "bAsIc"), aladdin);
        check(&ALADDIN.replace("Basic ", "Basic   "), aladdin);
        let field = authorization("Aladdin", "open sesame");
        assert_eq!(ALADDIN, format!("Authorization: {field}\r\n"));
        let encoded = |text: &str| format!("Authorization: Basic {}\r\n", STANDARD.encode(text));
        check(&encoded("a:b:c"), Some(("a", "b:c")));
        check(&encoded(":"), Some(("", "")));
        check(&encoded("no colon"), None);
        check(&ALADDIN.repeat(2), None);
        check(&ALADDIN.replace("Basic", "Bearer"), None);
        check("", None);
        check("Authorization: Basic\r\n", None);
        check("Authorization: Basic !\r\n", None);
        check("Authorization: Basic /zo=\r\n", None);
    }
}
