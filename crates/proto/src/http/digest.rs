//! Digests of files in header fields (RFC 9530): `Repr-Digest: sha-256=:...:`. The only algorithm
//! here is SHA-256.

use std::io::{self, Read};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use crate::retry_interrupted;

/// How much is read and hashed at once, in bytes.
const PIECE_BYTES: usize = 64 * 1024;

/// The SHA-256 of a file.
pub type Digest = [u8; 32];

/// Hashes a file piece by piece.
#[derive(Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// The digest of everything that can be read from `input`.
    ///
    /// # Errors
    /// Those of the input.
    pub fn digest_of(mut input: impl Read) -> io::Result<Digest> {
        let mut hasher = Self::default();
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            match retry_interrupted(|| input.read(&mut piece))? {
                0 => return Ok(hasher.finish()),
                bytes => hasher.update(&piece[..bytes]),
            }
        }
    }

    /// Adds the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all pieces.
    pub fn finish(self) -> Digest {
        self.0.finalize().into()
    }
}

/// A digest as the value of a field.
pub fn format(digest: &Digest) -> String {
    format!("sha-256=:{}:", STANDARD.encode(digest))
}

/// The SHA-256 in the value of a field; `Ok(None)` if the field holds only other algorithms.
///
/// # Errors
/// If the SHA-256 is malformed.
pub fn parse(value: &[u8]) -> Result<Option<Digest>, BadDigest> {
    let Some(digest) = member(value) else {
        return Ok(None);
    };
    let digest = digest
        .split(|byte| *byte == b';')
        .next()
        .unwrap_or_default();
    let encoded = digest.trim_ascii().strip_prefix(b":");
    let encoded = encoded.and_then(|encoded| encoded.strip_suffix(b":"));
    let decoded = STANDARD.decode(encoded.ok_or(BadDigest)?);
    let digest = decoded.ok().and_then(|digest| digest.try_into().ok());
    digest.map(Some).ok_or(BadDigest)
}

/// A digest that is not 32 bytes in base64 between colons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a digest is written sha-256=:BASE64:")]
pub struct BadDigest;

/// Whether the value of a `Want-Repr-Digest` field asks for a SHA-256: a preference from 1 to 10 does, 0
/// does not.
pub fn is_wanted(value: &[u8]) -> bool {
    member(value).is_some_and(|weight| matches!(weight.trim_ascii(), [b'1'..=b'9', ..]))
}

/// What follows `sha-256=` in a list of members.
fn member(value: &[u8]) -> Option<&[u8]> {
    let mut members = value.split(|byte| *byte == b',');
    members.find_map(|member| member.trim_ascii().strip_prefix(b"sha-256="))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the text `{"hello": "world"}` and a line feed; from RFC 9530 appendix B.
    const HELLO: &[u8] = b"sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:";

    #[test]
    fn a_digest_round_trips() {
        let mut hasher = Hasher::default();
        hasher.update(b"{\"hello\": ");
        hasher.update(b"\"world\"}\n");
        let digest = hasher.finish();
        assert_eq!(format(&digest).as_bytes(), HELLO);
        assert_eq!(parse(HELLO), Ok(Some(digest)));
        let among = [b"sha-512=:AA==:, ", HELLO, b";x=1"].concat();
        assert_eq!(parse(&among), Ok(Some(digest)));
        assert_eq!(parse(b"md5=:AA==:"), Ok(None));
        assert_eq!(parse(b""), Ok(None));
    }

    #[test]
    fn what_is_malformed_is_an_error() {
        for bad in [
            "sha-256=",
            "sha-256=RK/0",
            "sha-256=:AA==:",
            "sha-256=:!:",
            "sha-256=::",
        ] {
            assert_eq!(parse(bad.as_bytes()), Err(BadDigest), "{bad}");
        }
    }

    #[test]
    fn it_can_be_wanted_or_not() {
        for (value, want) in [
            ("sha-256=1", true),
            ("sha-512=3, sha-256=10", true),
            ("sha-256=0", false),
            ("sha-256", false),
            ("sha-512=1", false),
        ] {
            assert_eq!(is_wanted(value.as_bytes()), want, "{value}");
        }
    }
}
