//! A bound on what the server remembers for its peers, with a share for each source. What is full
//! refuses; nothing is forgotten to make room.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use daemon::Source;

use crate::memory::Memory;

/// The share of one source, as a part of all...
const SHARE_PART: usize = 8;

/// ...and of this machine, where many programs may ask once each.
const LOCAL_SHARE_PART: usize = 2;

/// Bytes that are remembered, and for whom.
#[derive(Debug)]
pub(crate) struct Quota {
    bytes_max: usize,
    bytes: usize,
    by_source: HashMap<Source, usize>,
    /// The account of which they are a part.
    memory: Arc<Memory>,
}

impl Quota {
    /// Nothing yet.
    pub(crate) fn new(bytes_max: usize, memory: &Arc<Memory>) -> Self {
        Self {
            bytes_max,
            bytes: 0,
            by_source: HashMap::new(),
            memory: Arc::clone(memory),
        }
    }

    /// Charges a source, if its share and the whole have room; what was found at the start is nobody's.
    #[must_use]
    pub(crate) fn charge(&mut self, from: Option<Source>, bytes: usize) -> bool {
        let has = from.and_then(|from| self.by_source.get(&from)).copied();
        let share = from.map_or(self.bytes_max, |from| self.share(from));
        let has_room = has.unwrap_or(0) + bytes <= share && self.bytes + bytes <= self.bytes_max;
        if has_room {
            self.charge_always(from, bytes);
        }
        has_room
    }

    /// Charges it also beyond the bound: it is there already.
    pub(crate) fn charge_always(&mut self, from: Option<Source>, bytes: usize) {
        self.memory.allocate_always(bytes);
        self.bytes += bytes;
        if let Some(from) = from {
            *self.by_source.entry(from).or_default() += bytes;
        }
    }

    /// Undoes a charge.
    pub(crate) fn free(&mut self, from: Option<Source>, bytes: usize) {
        self.memory.free(bytes);
        self.bytes -= bytes;
        if let Some(from) = from
            && let Some(has) = self.by_source.get_mut(&from)
        {
            *has -= bytes;
            if *has == 0 {
                self.by_source.remove(&from);
            }
        }
    }

    /// All that is charged, in bytes.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn share(&self, from: Source) -> usize {
        let part = match from {
            Source::Ip(IpAddr::V4(ip)) if ip.is_loopback() => LOCAL_SHARE_PART,
            // The source is the network, which is all zeros.
            Source::Ip(IpAddr::V6(ip)) if ip.segments()[..4] == [0; 4] => LOCAL_SHARE_PART,
            Source::Ip(_) => SHARE_PART,
            Source::User(_) => LOCAL_SHARE_PART,
        };
        self.bytes_max / part
    }
}

#[cfg(test)]
mod tests {
    use daemon::Peer;

    use super::*;

    fn source(ip: &str) -> Source {
        let peer = std::net::SocketAddr::new(ip.parse().unwrap(), 1);
        Source::from(Peer::Ip(peer))
    }

    #[test]
    fn no_source_takes_the_room_of_another_and_what_is_full_refuses() {
        let memory = Memory::new(8000);
        let mut quota = Quota::new(8000, &memory);
        let one = Some(source("192.0.2.1"));
        assert!(quota.charge(one, 1000) && !quota.charge(one, 1));
        // Another address of the same network is the same source.
        let [six, same] = ["2001:db8::1", "2001:db8::2"].map(|ip| Some(source(ip)));
        assert!(quota.charge(six, 900) && !quota.charge(same, 101) && quota.charge(same, 100));
        for here in ["127.0.0.1", "::1"] {
            assert!(!quota.charge(Some(source(here)), 4001));
        }
        assert!(quota.charge(Some(source("127.0.0.1")), 4000));
        assert!(quota.charge(Some(Source::User(7)), 2000));
        // There is none left, for nobody.
        assert!(!quota.charge(Some(source("192.0.2.2")), 1) && !quota.charge(None, 1));
        quota.free(one, 1000);
        assert!(quota.charge(Some(source("192.0.2.2")), 1000));
        assert_eq!(memory.allocated(), 8000);
        for (from, bytes) in [
            (Some(source("192.0.2.2")), 1000),
            (six, 1000),
            (Some(source("127.0.0.1")), 4000),
            (Some(Source::User(7)), 2000),
        ] {
            quota.free(from, bytes);
        }
        assert_eq!((quota.bytes(), quota.by_source.len()), (0, 0));
        assert_eq!(memory.allocated(), 0);
    }
}
