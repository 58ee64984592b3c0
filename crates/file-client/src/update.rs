//! Which files need no transfer, because the other side has them already (`--update`).

use std::ffi::OsStr;
use std::fs::Metadata;
use std::time::SystemTime;

use proto::http::digest::{Digest, Hasher};

use crate::Error;
use crate::client::{Client, Update};
use crate::connection::Request;
use crate::received::{WANT_DIGEST, digest_in, modified_in, time_of};
use crate::replacement::SaveTo;
use crate::source::Source;
use crate::spool::Item;

/// What a server says of a file.
struct OnServer {
    bytes: Option<u64>,
    modified: Option<u64>,
    digest: Option<Digest>,
}

impl Client {
    /// Whether a file is here already as it is on the server. `listed` is what a list says of it;
    /// without one the server is asked.
    pub(crate) fn is_saved(
        &mut self,
        update: Update,
        path: &OsStr,
        to: SaveTo,
        listed: Option<&Item>,
    ) -> Result<bool, Error> {
        let Some(file) = to.open() else {
            return Ok(false);
        };
        let shown = to.path();
        let failed = Error::read(&shown);
        let found = file.metadata().map_err(&failed)?;
        let here = (found.len(), seconds(&found));
        let is_same = match (update, listed) {
            (Update::Time, Some(item)) => here == (item.bytes, Some(item.modified)),
            (Update::Digest, Some(item)) if item.bytes != found.len() => false,
            (Update::Time | Update::Digest, _) => match self.on_server(update, path)? {
                Some(there) if there.bytes == Some(found.len()) => match update {
                    Update::Time => there.modified.is_some() && there.modified == here.1,
                    Update::Digest if there.digest.is_none() => false,
                    Update::Digest => {
                        there.digest == Some(Hasher::digest_of(&file).map_err(&failed)?)
                    }
                },
                Some(_) | None => false,
            },
        };
        Ok(is_same)
    }

    /// Whether the server has a file already as it is here.
    pub(crate) fn is_sent(
        &mut self,
        update: Update,
        source: &Source,
        path: &OsStr,
    ) -> Result<bool, Error> {
        let Some(there) = self.on_server(update, path)? else {
            return Ok(false);
        };
        if there.bytes != Some(source.bytes()) {
            return Ok(false);
        }
        Ok(match update {
            // The server's time has no fraction, so of what was sent and changed in one second the change
            // is later.
            Update::Time => source
                .modified()
                .is_some_and(|here| there.modified.and_then(time_of) >= Some(here)),
            Update::Digest => there.digest.is_some() && there.digest == Some(source.digest()?),
        })
    }

    /// What the server says of a file; `None` if it shows none, for whatever reason. The transfer then
    /// tells why.
    fn on_server(&mut self, update: Update, path: &OsStr) -> Result<Option<OnServer>, Error> {
        let request = Request::new("HEAD", path);
        let request = match update {
            Update::Time => request,
            Update::Digest => request.with(WANT_DIGEST.0, WANT_DIGEST.1),
        };
        let reply = self.connection.ask(&request)?;
        let head = &reply.head;
        let bytes = head.field("content-length");
        let found = (head.status == 200).then(|| OnServer {
            bytes: bytes.and_then(|bytes| bytes.parse().ok()),
            modified: modified_in(head),
            digest: digest_in(head),
        });
        self.connection.keep(reply, true);
        Ok(found)
    }
}

/// When a file was last changed, in seconds since 1970.
fn seconds(found: &Metadata) -> Option<u64> {
    let since = found
        .modified()
        .ok()?
        .duration_since(SystemTime::UNIX_EPOCH);
    Some(since.ok()?.as_secs())
}
