//! Logging in: the same frames in the queue and in the history, so that the front door answers them and
//! neither service knows of them.
//!
//! A [`Login`] is the first frame of a connection, or there is none. The connection then acts for that
//! user until it ends.

use std::fmt;

use crate::error::DecodeError;
use crate::error_reply::ErrorReply;
use crate::fields::{Field, Fields, put_name};
use crate::frame::Message;
use crate::message::tagged;

/// The longest name of an account's user, in bytes: its length is a u8.
pub const USER_BYTES_MAX: usize = 255;

/// The longest password, in bytes. Hashing takes longer for a longer one.
pub const PASSWORD_BYTES_MAX: usize = 256;

/// Says who asks, and proves it. A server without accounts accepts any.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Login<'a> {
    /// Who; 1 to [`USER_BYTES_MAX`] bytes without a colon.
    pub user: &'a str,
    /// The proof; at most [`PASSWORD_BYTES_MAX`] bytes. It is the rest of the frame.
    pub password: &'a str,
}

tagged! {
    /// The reply to a [`Login`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum LoginReply<'a> {
        /// User and password are right, or the server has no accounts.
        0x70 => LoggedIn,
        /// [`ErrorCode::Unauthorized`](crate::ErrorCode::Unauthorized) or
        /// [`ErrorCode::TooManyLogins`](crate::ErrorCode::TooManyLogins). The connection ends.
        0x7f => Refused(error: ErrorReply<'a>),
    }
}

impl Login<'_> {
    /// The kind of its frame, in both services.
    pub const KIND: u8 = 0x30;

    /// The longest payload of its frame, in bytes.
    pub const PAYLOAD_BYTES_MAX: usize = 1 + USER_BYTES_MAX + PASSWORD_BYTES_MAX;
}

/// The user alone: a password is shown nowhere.
impl fmt::Debug for Login<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Login");
        shown.field("user", &self.user).finish_non_exhaustive()
    }
}

impl<'a> Message<'a> for Login<'a> {
    fn kind(&self) -> u8 {
        Self::KIND
    }

    fn encode_payload(&self, out: &mut Vec<u8>) {
        put_name(out, self.user);
        self.password.write(out);
    }

    fn decode(kind: u8, payload: &'a [u8]) -> Result<Self, DecodeError> {
        if kind != Self::KIND {
            return Err(DecodeError::UnknownKind(kind));
        }
        let mut fields = Fields::new(payload);
        let login = Self {
            user: fields.name("user")?,
            password: Field::read(&mut fields, "password")?,
        };
        // HTTP Basic cannot say a user with a colon, nor can the file of accounts.
        if login.user.is_empty() || login.user.contains(':') {
            return Err(DecodeError::Invalid("user"));
        }
        if login.password.len() > PASSWORD_BYTES_MAX {
            return Err(DecodeError::Invalid("password"));
        }
        fields.end()?;
        Ok(login)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorCode;
    use crate::frame::HEADER_BYTES;
    use crate::frame::check::{self, same_message};

    same_message!(Login, LoginReply);

    #[test]
    fn a_login_on_the_wire() {
        let user = "al";
        check::message(
            Login {
                user,
                password: "a:b",
            },
            b"\0\0\0\x07\x30\x02ala:b",
        );
        check::message(Login { user, password: "" }, b"\0\0\0\x04\x30\x02al");
        check::message(LoginReply::LoggedIn, b"\0\0\0\x01\x70");
        let refused = ErrorReply {
            code: ErrorCode::Unauthorized,
            sentence: "no",
        };
        check::message(LoginReply::Refused(refused), b"\0\0\0\x04\x7f\x0cno");
    }

    #[test]
    fn the_longest_login_fits() {
        let (user, password) = ("u".repeat(USER_BYTES_MAX), "p".repeat(PASSWORD_BYTES_MAX));
        let login = Login {
            user: &user,
            password: &password,
        };
        let mut out = Vec::new();
        login.encode(&mut out);
        assert_eq!(out.len(), HEADER_BYTES + Login::PAYLOAD_BYTES_MAX);
        assert!(Login::decode(Login::KIND, &out[HEADER_BYTES..]) == Ok(login));
        out.push(b'p');
        let refused = Login::decode(Login::KIND, &out[HEADER_BYTES..]);
        assert_eq!(refused, Err(DecodeError::Invalid("password")));
    }

    #[test]
    fn a_user_has_a_name_without_a_colon() {
        for payload in [&b"\0p"[..], b"\x03a:bp"] {
            let refused = Login::decode(Login::KIND, payload);
            assert_eq!(refused, Err(DecodeError::Invalid("user")));
        }
    }

    #[test]
    fn a_password_is_shown_nowhere() {
        let (user, password) = ("alice", "secret");
        let shown = format!("{:?}", Login { user, password });
        assert_eq!(shown, "Login { user: \"alice\", .. }");
    }
}
