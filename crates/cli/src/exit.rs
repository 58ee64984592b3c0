//! Exit codes, the same for all eight programs, and how an error is shown.

use std::error::Error;

/// How a program ends. The worst of several ends is the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// Done. If an error has this exit code, the reader of our output is gone, and nothing is
    /// printed.
    Done = 0,
    /// The service said no.
    Refused = 1,
    /// Wrong usage, or trouble with a local file, stream or disk.
    Local = 2,
    /// The network: cannot connect or listen, timed out, lost, or a malformed reply.
    Network = 3,
}

/// An error that can end a program.
pub trait Failure: Error {
    /// The exit code it ends with.
    fn exit(&self) -> Exit;
}

/// An error and its chain of sources: `cannot open 'x': No such file or directory (os error 2)`.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::ClientError;

    #[test]
    fn the_codes_are_what_scripts_rely_on() {
        let codes = [Exit::Done, Exit::Refused, Exit::Local, Exit::Network];
        assert_eq!(codes.map(|exit| exit as u8), [0, 1, 2, 3]);
    }

    #[test]
    fn an_error_is_told_with_its_causes() {
        let error = ClientError::Output(io::ErrorKind::StorageFull.into());
        let want = "cannot write to standard output: no storage space";
        assert_eq!(with_causes(&error), want);
        assert_eq!(with_causes(&io::Error::other("alone")), "alone");
    }
}
