//! The reply cache: replies over UDP, by the id of their request. A request comes again because its
//! reply was lost, or because the network doubled it. It is answered again, but not done twice.
//!
//! No reply is evicted to make room for others: each source has its share, and without room, new
//! requests are dropped. A peer asks for one thing after the other, so once it asks again it has got the
//! reply before, which is then kept only if it is short.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// How long a reply is kept: longer than a client repeats its request, unless its user says so.
const AGE_MAX: Duration = Duration::from_secs(120);

/// What all replies may take, in bytes of memory...
const BYTES_MAX: usize = 64 << 20;

/// ...those to one source...
const SOURCE_BYTES_MAX: usize = BYTES_MAX / 8;

/// ...and those to this machine, where many programs may ask once each.
const LOOPBACK_BYTES_MAX: usize = BYTES_MAX / 2;

/// How many replies to one peer, which is an address and a port, are kept. At most this many requests
/// can overtake another.
const PEER_REPLIES_MAX: usize = 64;

/// The longest reply of which the bytes are kept when its peer asks for something else, in bytes.
const SHORT_BYTES: usize = 256;

/// What a peer and a reply take beside the reply's bytes, about, in bytes.
const PEER_BYTES: usize = 256;
const REPLY_BYTES: usize = 64;

/// Whose share a reply counts against: an IPv4 address, the network part of an IPv6 address (64 bits),
/// or this machine, whose programs may choose among many addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    Loopback,
    V4(Ipv4Addr),
    V6([u16; 4]),
}

impl Source {
    fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            ip if ip.is_loopback() => Self::Loopback,
            IpAddr::V4(ip) => Self::V4(ip),
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.segments();
                Self::V6([a, b, c, d])
            }
        }
    }

    fn bytes_max(self) -> usize {
        match self {
            Self::Loopback => LOOPBACK_BYTES_MAX,
            Self::V4(_) | Self::V6(_) => SOURCE_BYTES_MAX,
        }
    }
}

/// A request: its peer and its id.
pub(crate) type RequestKey = (SocketAddr, u64);

/// The cache.
#[derive(Default)]
pub(crate) struct ReplyCache {
    peers: HashMap<SocketAddr, Peer>,
    /// When each was last answered.
    oldest_first: BTreeSet<(Instant, SocketAddr)>,
    /// What the replies to each source take, in bytes.
    sources: HashMap<Source, usize>,
    bytes: usize,
}

struct Peer {
    answered: Instant,
    replies: VecDeque<Cached>,
}

struct Cached {
    at: Instant,
    id: u64,
    /// Empty if its bytes are not kept.
    reply: Vec<u8>,
}

impl Cached {
    fn bytes(&self) -> usize {
        REPLY_BYTES + self.reply.len()
    }
}

impl ReplyCache {
    /// The reply that was given to this request; empty if its bytes are not kept.
    pub(crate) fn get(&self, (peer, id): &RequestKey) -> Option<&[u8]> {
        let replies = &self.peers.get(peer)?.replies;
        let found = replies.iter().rev().find(|one| one.id == *id);
        found.map(|one| one.reply.as_slice())
    }

    /// Whether there is room for one more reply to this address.
    pub(crate) fn has_room(&mut self, now: Instant, ip: IpAddr) -> bool {
        while let Some(&(answered, peer)) = self.oldest_first.first()
            && now.duration_since(answered) > AGE_MAX
        {
            self.remove(peer);
        }
        let source = Source::of(ip);
        let taken = self.sources.get(&source).copied().unwrap_or(0);
        taken < source.bytes_max() && self.bytes < BYTES_MAX
    }

    /// Keeps a reply.
    pub(crate) fn insert(&mut self, now: Instant, (addr, id): RequestKey, mut reply: Vec<u8>) {
        reply.shrink_to_fit();
        let cached = Cached { at: now, id, reply };
        let mut more = cached.bytes();
        let mut less = 0;
        let peer = self.peers.entry(addr).or_insert_with(|| {
            more += PEER_BYTES;
            Peer {
                answered: now,
                // Most ask once.
                replies: VecDeque::with_capacity(1),
            }
        });
        for before in &mut peer.replies {
            if before.reply.len() > SHORT_BYTES {
                less += before.reply.len();
                before.reply = Vec::new();
            }
        }
        while let Some(first) = peer.replies.front()
            && (peer.replies.len() >= PEER_REPLIES_MAX || now.duration_since(first.at) > AGE_MAX)
        {
            less += first.bytes();
            peer.replies.pop_front();
        }
        peer.replies.push_back(cached);
        self.oldest_first.remove(&(peer.answered, addr));
        self.oldest_first.insert((now, addr));
        peer.answered = now;
        let taken = self.sources.entry(Source::of(addr.ip())).or_default();
        *taken = *taken + more - less;
        self.bytes = self.bytes + more - less;
    }

    fn remove(&mut self, addr: SocketAddr) {
        let Some(peer) = self.peers.remove(&addr) else {
            return;
        };
        self.oldest_first.remove(&(peer.answered, addr));
        let replies: usize = peer.replies.iter().map(Cached::bytes).sum();
        let less = PEER_BYTES + replies;
        self.bytes -= less;
        let source = Source::of(addr.ip());
        if let Some(taken) = self.sources.get_mut(&source) {
            *taken -= less;
            if *taken == 0 {
                self.sources.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(ip: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, ip], port))
    }

    #[test]
    fn what_is_old_is_removed() {
        let start = Instant::now();
        let mut cache = ReplyCache::default();
        let (one, two) = (peer(1, 1), peer(1, 2));
        cache.insert(start, (one, 1), b"one".to_vec());
        cache.insert(start + AGE_MAX, (two, 2), b"two".to_vec());
        assert!(cache.has_room(start + AGE_MAX, one.ip()));
        assert_eq!(cache.get(&(one, 1)), Some(b"one".as_slice()));
        let later = start + AGE_MAX + Duration::from_millis(1);
        assert!(cache.has_room(later, one.ip()));
        assert_eq!(cache.get(&(one, 1)), None);
        assert_eq!(cache.get(&(two, 2)), Some(b"two".as_slice()));
        assert!(cache.has_room(later + AGE_MAX, one.ip()));
        assert_eq!((cache.bytes, cache.sources.len()), (0, 0));
        assert!(cache.peers.is_empty() && cache.oldest_first.is_empty());
    }

    #[test]
    fn no_source_takes_the_room_of_another_and_nothing_is_evicted_for_want_of_it() {
        let now = Instant::now();
        let mut cache = ReplyCache::default();
        let honest = (peer(1, 1), 1);
        cache.insert(now, honest, b"once".to_vec());
        let flood = |cache: &mut ReplyCache, ip| {
            let mut answered = 0;
            for port in 1.. {
                let addr = peer(ip, port);
                if !cache.has_room(now, addr.ip()) {
                    return answered;
                }
                cache.insert(now, (addr, 1), vec![b'x'; 65_000]);
                answered += 1;
            }
            answered
        };
        assert_eq!(flood(&mut cache, 2), SOURCE_BYTES_MAX.div_ceil(65_320));
        assert!(cache.has_room(now, honest.0.ip()));
        for ip in 3..20 {
            flood(&mut cache, ip);
        }
        // Now there is none left, for nobody; but what was answered is known.
        assert!(!cache.has_room(now, honest.0.ip()));
        assert_eq!(cache.get(&honest), Some(b"once".as_slice()));
        assert!(cache.bytes < BYTES_MAX + 70_000);
    }

    #[test]
    fn addresses_of_one_source_share() {
        let source = |ip: &str| Source::of(ip.parse().unwrap());
        for (one, other, are_one) in [
            ("127.0.0.1", "127.9.9.9", true),
            ("127.0.0.1", "::1", true),
            ("::ffff:192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("2001:db8::1", "2001:db8::ffff:1", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
        ] {
            assert_eq!(source(one) == source(other), are_one, "{one} {other}");
        }
    }

    #[test]
    fn many_programs_of_this_machine_may_ask_once_each() {
        let now = Instant::now();
        let mut cache = ReplyCache::default();
        for number in 0..100_000_u32 {
            let addr = SocketAddr::from(([127, 0, (number >> 16) as u8, 1], number as u16));
            assert!(cache.has_room(now, addr.ip()), "{number}");
            cache.insert(now, (addr, 1), vec![0; 14]);
        }
        assert!(cache.has_room(now, peer(1, 1).ip()));
    }

    #[test]
    fn a_peer_that_asks_on_makes_room_for_itself() {
        let now = Instant::now();
        let mut cache = ReplyCache::default();
        let one = peer(1, 1);
        for id in 0..1000 {
            assert!(cache.has_room(now, one.ip()));
            cache.insert(now, (one, id), vec![b'x'; 65_000]);
            cache.insert(now, (one, id + 5000), b"short".to_vec());
        }
        assert_eq!(cache.get(&(one, 999)), Some(b"".as_slice()));
        assert_eq!(cache.get(&(one, 5999)), Some(b"short".as_slice()));
        assert_eq!(cache.get(&(one, 5990)), Some(b"short".as_slice()));
        assert_eq!(cache.get(&(one, 5)), None);
        assert!(cache.bytes < 10_000);
    }
}
