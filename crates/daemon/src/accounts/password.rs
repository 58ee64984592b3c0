//! A password of the file of accounts: plain, or hashed by SHA-crypt.
//!
//! A hash is checked when it is read, so that no login can fail because of it.

use proto::login::PASSWORD_BYTES_MAX;
use sha_crypt::{ROUNDS_DEFAULT, Sha256Params, Sha512Params, sha256_crypt_b64, sha512_crypt_b64};
use subtle::ConstantTimeEq;

/// The fewest rounds of a hash.
const ROUNDS_MIN: usize = 1000;

/// The most rounds of a hash. More would take a processor over a second for each guess.
const ROUNDS_MAX: usize = 1_000_000;

/// The longest salt, in bytes.
const SALT_BYTES_MAX: usize = 16;

#[derive(PartialEq, Eq)]
pub(super) enum Password {
    Plain(String),
    Hash(Hash),
}

/// `$5$` or `$6$`, the rounds if they are not the default, the salt and the hash.
#[derive(PartialEq, Eq)]
pub(super) struct Hash {
    scheme: Scheme,
    rounds: usize,
    salt: String,
    /// The hash, as it is written.
    hash: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Sha256,
    Sha512,
}

/// What a check of a password costs, apart from what is checked: the scheme, the rounds and the length of
/// the salt, if it is a hash.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Cost(Option<(Scheme, usize, usize)>);

impl Password {
    /// Whether a text is meant to be a hash. Hashes of other kinds, and behind a space, are no plain
    /// passwords either.
    pub(super) fn looks_hashed(text: &str) -> bool {
        text.trim_start().starts_with('$') || text.starts_with("{SHA}")
    }

    /// Reads the password of a line. The error is what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        if Self::looks_hashed(text) {
            return Hash::parse(text).map(Self::Hash);
        }
        if text.len() > PASSWORD_BYTES_MAX {
            return Err("a password has at most 256 bytes");
        }
        Ok(Self::Plain(text.to_owned()))
    }

    pub(super) fn cost(&self) -> Cost {
        Cost(match self {
            Self::Plain(_) => None,
            Self::Hash(hash) => Some((hash.scheme, hash.rounds, hash.salt.len())),
        })
    }

    pub(super) fn is_hash(&self) -> bool {
        matches!(self, Self::Hash(_))
    }
}

impl Hash {
    fn parse(text: &str) -> Result<Self, &'static str> {
        const SCHEME: &str = "a hashed password is a SHA-crypt one, which starts with $5$ or $6$: \
                              openssl passwd -6";
        const ROUNDS: &str = "a hash has 1000 to 1000000 rounds";
        let parts: Vec<&str> = text.split('$').collect();
        let (scheme, rounds, salt, hash) = match parts[..] {
            ["", scheme, salt, hash] => (scheme, None, salt, hash),
            ["", scheme, rounds, salt, hash] => (scheme, Some(rounds), salt, hash),
            _ => return Err(SCHEME),
        };
        let rounds = match rounds {
            None => ROUNDS_DEFAULT,
            Some(rounds) => {
                let number = rounds.strip_prefix("rounds=").ok_or(SCHEME)?;
                let number = number.parse().map_err(|_| ROUNDS)?;
                let is_right = (ROUNDS_MIN..=ROUNDS_MAX).contains(&number);
                is_right.then_some(number).ok_or(ROUNDS)?
            }
        };
        // A digit has six bits; four or two are left for the last one.
        let (scheme, length, last_digits) = match scheme {
            "5" => (Scheme::Sha256, 43, "./0123456789ABCD"),
            "6" => (Scheme::Sha512, 86, "./01"),
            _ => return Err(SCHEME),
        };
        let is_salt = (1..=SALT_BYTES_MAX).contains(&salt.len())
            && salt.bytes().all(|b| b.is_ascii_graphic() && b != b':');
        let is_digit = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'/');
        let is_hash = hash.len() == length
            && hash.bytes().all(is_digit)
            && hash.ends_with(|digit| last_digits.contains(digit));
        if !(is_salt && is_hash) {
            return Err("this hash is not whole: no password has it");
        }
        Ok(Self {
            scheme,
            rounds,
            salt: salt.to_owned(),
            hash: hash.to_owned(),
        })
    }

    /// Whether this is the password.
    pub(super) fn is_of(&self, password: &str) -> bool {
        let (password, salt) = (password.as_bytes(), self.salt.as_bytes());
        let made = match self.scheme {
            Scheme::Sha256 => Sha256Params::new(self.rounds)
                .and_then(|params| sha256_crypt_b64(password, salt, &params)),
            Scheme::Sha512 => Sha512Params::new(self.rounds)
                .and_then(|params| sha512_crypt_b64(password, salt, &params)),
        };
        made.is_ok_and(|made| made.as_bytes().ct_eq(self.hash.as_bytes()).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of "sesame", as `openssl passwd -5` and `-6` make them with `-salt rounds=10000$...`.
    const SHA_256: &str =
        "$5$rounds=10000$sixteencharacter$SFbLcuoRPBaYJhpTsdzhjNNKuTqZiJTUayHcjdTgv73";
    const SHA_512: &str = "$6$rounds=10000$sixteencharacter$/V.Lc/5CoOKUIrM7n5eHE81cIifqHln/metvSIvsszctzsHI8dbWX5pTdbKdNtFKOa9lduF6eLZaCsXg6v/PR/";

    #[test]
    fn hashes_with_rounds_are_checked() {
        let check = |hash: &str, password: &str, want: bool| {
            let parsed = Hash::parse(hash).unwrap_or_else(|sentence| panic!("{hash}: {sentence}"));
            assert_eq!(parsed.is_of(password), want, "{password}, {hash}");
        };
        for hash in [SHA_256, SHA_512] {
            check(hash, "sesame", true);
            check(hash, "sesam", false);
            check(&hash.replace("10000", "10001"), "sesame", false);
        }
    }

    /// Cut off or changed anywhere, a hash is refused, or it can be checked.
    #[test]
    fn no_hash_makes_it_panic() {
        let quick = |hash: &str| hash.replace("10000", "1000");
        for hash in [&quick(SHA_256), &quick(SHA_512)] {
            for at in (0..hash.len()).step_by(5) {
                let try_out = |text: &str| {
                    if let Ok(hash) = Hash::parse(text) {
                        hash.is_of("sesame");
                    }
                };
                try_out(&hash[..at]);
                for other in ["$", "!", "=", "\u{e4}", ":", "A", "9", " "] {
                    try_out(&format!("{}{other}{}", &hash[..at], &hash[at + 1..]));
                }
            }
        }
    }
}
