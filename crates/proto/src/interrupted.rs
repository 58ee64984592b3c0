//! Calls that a signal interrupts (EINTR).

use std::io;

/// Makes a call, and repeats it as long as a signal interrupts it: an interruption says nothing about
/// the file or the stream. `read_to_end` of the standard library does the same.
///
/// # Errors
/// Any other error of the call.
pub fn retry_interrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            made => return made,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_interrupted_is_made_again_and_nothing_else() {
        let mut left = 3;
        let call = || {
            left -= 1;
            match left {
                0 => Err(io::ErrorKind::NotFound.into()),
                _ => Err::<(), _>(io::ErrorKind::Interrupted.into()),
            }
        };
        let made = retry_interrupted(call);
        assert_eq!(made.unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(left, 0);
    }
}
