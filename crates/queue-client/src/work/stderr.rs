//! The standard error of a command: it is shown as it comes, and its end is kept to say why the command
//! has failed.
//!
//! Nothing here waits. What cannot be shown at once is kept and no more is read, so a command waits for a
//! reader that is slow as it would without this.

use std::io::{self, Read, Write};
use std::process::ChildStderr;

use proto::queue::REASON_BYTES_MAX;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::ioctl_fionbio;
use rustix::process::getpgrp;
use rustix::termios::{LocalModes, tcgetattr, tcgetpgrp};

/// How much is read and shown at once, in bytes. A pipe that can be written to takes that much without a
/// wait (pipe(7), PIPE_BUF).
const PIECE_BYTES: usize = 4096;

/// What a pipe holds, in bytes (pipe(7)). When a command has ended, no more of what is read is its own.
const PIPE_BYTES: usize = 64 * 1024;

/// The standard error of a command.
pub(super) struct Stderr {
    /// `None` when nobody can write to it any more.
    pipe: Option<ChildStderr>,
    /// What was read and is not shown yet.
    unshown: Vec<u8>,
    /// The end of what was read.
    tail: Vec<u8>,
    /// How much may still be read of what the command has written, once it has ended.
    left: usize,
    /// Nothing is there to be read.
    is_empty: bool,
}

impl Stderr {
    pub(super) fn new(pipe: Option<ChildStderr>) -> io::Result<Self> {
        if let Some(pipe) = &pipe {
            ioctl_fionbio(pipe, true)?;
        }
        Ok(Self {
            pipe,
            unshown: Vec::new(),
            tail: Vec::new(),
            left: PIPE_BYTES,
            is_empty: false,
        })
    }

    /// Shows a piece of what there is.
    pub(super) fn show(&mut self) {
        if !self.unshown.is_empty() && is_writable() {
            let bytes = self.unshown.len().min(PIECE_BYTES);
            match io::stderr().write(&self.unshown[..bytes]) {
                Ok(bytes @ 1..) => drop(self.unshown.drain(..bytes)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Nobody sees it.
                Ok(0) | Err(_) => self.unshown.clear(),
            }
        }
        if self.unshown.is_empty() {
            self.read();
        }
    }

    fn read(&mut self) {
        let Some(pipe) = &mut self.pipe else {
            self.is_empty = true;
            return;
        };
        let mut piece = [0; PIECE_BYTES];
        match pipe.read(&mut piece) {
            Ok(bytes @ 1..) => {
                self.is_empty = false;
                self.unshown.extend_from_slice(&piece[..bytes]);
                self.tail.extend_from_slice(&piece[..bytes]);
                let before = self.tail.len().saturating_sub(REASON_BYTES_MAX);
                self.tail.drain(..before);
                self.left = self.left.saturating_sub(bytes);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_empty = true,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => (self.pipe, self.is_empty) = (None, true),
        }
    }

    /// Notes that the command has ended: what it has written is there to be read.
    pub(super) fn note_end(&mut self) {
        (self.left, self.is_empty) = (PIPE_BYTES, false);
    }

    /// Whether all is shown that a command has written that has ended. Others may still write.
    pub(super) fn is_shown(&self) -> bool {
        self.unshown.is_empty() && (self.is_empty || self.left == 0)
    }

    /// Whether somebody can still write to it, or something is not shown.
    pub(super) fn is_open(&self) -> bool {
        self.pipe.is_some() || !self.unshown.is_empty()
    }

    /// The end of what was read.
    pub(super) fn tail(&self) -> &[u8] {
        &self.tail
    }

    /// What to wait for until there is something to do.
    pub(super) fn event(&self) -> Option<PollFd<'_>> {
        if !self.unshown.is_empty() {
            return Some(PollFd::from_borrowed_fd(
                rustix::stdio::stderr(),
                PollFlags::OUT,
            ));
        }
        let pipe = self.pipe.as_ref()?;
        Some(PollFd::new(pipe, PollFlags::IN))
    }

    /// Whether to show the rest would stop this process: a terminal takes no output from the background
    /// (`stty tostop`).
    pub(super) fn wants_terminal(&self) -> bool {
        let terminal = rustix::stdio::stderr();
        !self.unshown.is_empty()
            && tcgetattr(terminal).is_ok_and(|modes| modes.local_modes.contains(LocalModes::TOSTOP))
            && tcgetpgrp(terminal).is_ok_and(|group| group != getpgrp())
    }
}

fn is_writable() -> bool {
    let stderr = rustix::stdio::stderr();
    let mut events = [PollFd::from_borrowed_fd(stderr, PollFlags::OUT)];
    poll(&mut events, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}
