//! `send`: an input is one message, or each of its pieces is one.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::PathBuf;

use cli::stream::read_piece;
use proto::queue::{Key, Properties};

use crate::{Config, Error};

/// The buffer for an input with many messages, in bytes.
const INPUT_BYTES: usize = 64 * 1024;

/// What to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Send {
    /// The input.
    pub source: Source,
    /// The byte that ends each message, if the input has more than one.
    pub piece_end: Option<u8>,
    /// What each message has beside its body.
    pub properties: Properties<'static>,
    /// What makes it the same message when it is sent again.
    pub key: Option<String>,
    /// The longest message, in bytes.
    pub body_bytes_max: usize,
    /// Whether the beginning of a longer one is sent.
    pub truncate: bool,
}

/// Where messages are read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// Standard input.
    Stdin,
}

impl Source {
    fn open(&self) -> Result<(PathBuf, Box<dyn Read>), Error> {
        match self {
            Self::Stdin => {
                let input = cli::stream::input()?;
                Ok((PathBuf::from("standard input"), Box::new(input)))
            }
            Self::File(path) => match File::open(path) {
                Ok(file) => Ok((path.clone(), Box::new(file))),
                Err(cause) => Err(Error::Read {
                    path: path.clone(),
                    cause,
                }),
            },
        }
    }
}

impl Send {
    pub(crate) fn run(&self, config: &Config) -> Result<(), Error> {
        let (path, input) = self.source.open()?;
        if let Some(end) = self.piece_end {
            let input = BufReader::with_capacity(INPUT_BYTES, input);
            return self.send_pieces(config, end, path, input);
        }
        let body = self.read_message(path, input)?;
        let properties = Properties {
            key: self.key.as_deref().and_then(Key::new),
            ..self.properties
        };
        config.ask(|client| client.send_with(&body, &properties))?;
        log::info!("Sent: {} bytes", body.len());
        Ok(())
    }

    /// Sends each piece of the input as a message.
    fn send_pieces(
        &self,
        config: &Config,
        end: u8,
        path: PathBuf,
        mut input: BufReader<impl Read>,
    ) -> Result<(), Error> {
        let mut client = config.connect()?;
        let mut batch = client.batch(self.properties);
        let mut piece = Vec::new();
        let mut bytes = 0;
        loop {
            if !input.buffer().contains(&end) {
                // The next piece may take a while; those before it must not wait for it.
                batch.flush()?;
            }
            match read_piece(&mut input, end, self.body_bytes_max, &mut piece) {
                Ok(true) => {}
                Ok(false) => break,
                Err(cause) => {
                    let sent = batch.finish()?;
                    log::warn!("Messages sent before the input failed: {sent}");
                    return Err(Error::Read { path, cause });
                }
            }
            if piece.len() > self.body_bytes_max {
                let sent = batch.finish()?;
                return Err(Error::PieceTooLong {
                    number: sent + 1,
                    sent,
                    bytes_max: self.body_bytes_max,
                });
            }
            batch.send(&piece)?;
            bytes += piece.len();
        }
        let messages = batch.finish()?;
        log::info!("Sent: {messages} messages, {bytes} bytes");
        Ok(())
    }

    /// Reads the message to send, and never more than one byte over the limit.
    fn read_message(&self, path: PathBuf, input: impl Read) -> Result<Vec<u8>, Error> {
        let bytes_max = self.body_bytes_max;
        let mut body = Vec::new();
        let read = input.take(bytes_max as u64 + 1).read_to_end(&mut body);
        if let Err(cause) = read {
            return Err(Error::Read { path, cause });
        }
        if body.len() <= bytes_max {
            return Ok(body);
        }
        if self.truncate {
            log::warn!("Sending the first {bytes_max} bytes of {}", path.display());
            body.truncate(bytes_max);
            return Ok(body);
        }
        // Its length is unknown: the input may have no end.
        Err(Error::TooLong { path, bytes_max })
    }
}
