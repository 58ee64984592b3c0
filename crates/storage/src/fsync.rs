//! Whether a commit waits for the disk: the option `--fsync`.

use std::str::FromStr;

/// Whether a commit waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fsync {
    /// It waits: what was answered OK survives a power cut.
    #[default]
    Always,
    /// It does not wait: what was answered OK survives the end of the server, but a power cut may
    /// lose the newest of it.
    Never,
}

impl Fsync {
    /// Logs a warning if a power cut can lose data.
    pub fn warn(self) {
        if self == Self::Never {
            log::warn!("With --fsync never, a power cut loses what was acknowledged last");
        }
    }
}

impl FromStr for Fsync {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        match word {
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            _ => Err(()),
        }
    }
}
