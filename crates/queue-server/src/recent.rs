//! What was answered over UDP lately, so that a request that comes again, because its reply was lost
//! or the network made two of it, is answered again but not acted on twice.
//!
//! No reply is forgotten early for the sake of others: each source has its share, and where there is
//! no room, new requests are not acted on. A peer makes room for itself: it asks for one thing after
//! the other, so that of what it asked before, a long reply need not be kept any more.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// How long a reply is remembered: longer than a client goes on asking, unless its user said so.
const AGE_MAX: Duration = Duration::from_secs(120);

/// What all of them may take, in bytes of memory...
const BYTES_MAX: usize = 64 << 20;

/// ...those to one source...
const SOURCE_BYTES_MAX: usize = BYTES_MAX / 8;

/// ...and those to this machine, where many programs may ask, each of them once.
const LOOPBACK_BYTES_MAX: usize = BYTES_MAX / 2;

/// How many replies to one peer, which is an address and a port, are remembered. They are
/// overtaken by so many others at the most.
const PEER_REPLIES_MAX: usize = 64;

/// When a peer asks for something else, of a longer reply no more is kept than that it was given.
const SHORT_BYTES: usize = 256;

/// What a peer and a reply take beside the reply's bytes, about.
const PEER_BYTES: usize = 256;
const REPLY_BYTES: usize = 64;

/// Whose share a reply counts against: an IPv4 address, the 64 bits of an IPv6 address that are given to
/// one network, or this machine, whose programs may choose among many addresses.
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

/// A request: who asked, and under which id.
pub(crate) type Asked = (SocketAddr, u64);

/// The replies to recent requests.
#[derive(Default)]
pub(crate) struct Recent {
    peers: HashMap<SocketAddr, Peer>,
    /// When each was last answered.
    oldest_first: BTreeSet<(Instant, SocketAddr)>,
    /// What the replies to each source take, in bytes.
    sources: HashMap<Source, usize>,
    bytes: usize,
}

struct Peer {
    answered: Instant,
    replies: VecDeque<Remembered>,
}

struct Remembered {
    at: Instant,
    id: u64,
    /// Empty if it is not kept any more.
    reply: Vec<u8>,
}

impl Remembered {
    fn bytes(&self) -> usize {
        REPLY_BYTES + self.reply.len()
    }
}

impl Recent {
    /// The reply that was given to this request; empty if the peer has got it, for it has asked for
    /// something else since.
    pub(crate) fn reply(&self, (peer, id): &Asked) -> Option<&[u8]> {
        let replies = &self.peers.get(peer)?.replies;
        let found = replies.iter().rev().find(|one| one.id == *id);
        found.map(|one| one.reply.as_slice())
    }

    /// Whether one more reply to this address can be remembered.
    pub(crate) fn has_room(&mut self, ip: IpAddr) -> bool {
        self.has_room_at(Instant::now(), ip)
    }

    fn has_room_at(&mut self, now: Instant, ip: IpAddr) -> bool {
        while let Some(&(answered, peer)) = self.oldest_first.first()
            && now.duration_since(answered) > AGE_MAX
        {
            self.forget(peer);
        }
        let source = Source::of(ip);
        let taken = self.sources.get(&source).copied().unwrap_or(0);
        taken < source.bytes_max() && self.bytes < BYTES_MAX
    }

    /// Remembers a reply.
    pub(crate) fn remember(&mut self, asked: Asked, reply: Vec<u8>) {
        self.remember_at(Instant::now(), asked, reply);
    }

    fn remember_at(&mut self, now: Instant, (addr, id): Asked, mut reply: Vec<u8>) {
        reply.shrink_to_fit();
        let remembered = Remembered { at: now, id, reply };
        let mut more = remembered.bytes();
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
        peer.replies.push_back(remembered);
        self.oldest_first.remove(&(peer.answered, addr));
        self.oldest_first.insert((now, addr));
        peer.answered = now;
        let taken = self.sources.entry(Source::of(addr.ip())).or_default();
        *taken = *taken + more - less;
        self.bytes = self.bytes + more - less;
    }

    fn forget(&mut self, addr: SocketAddr) {
        let Some(peer) = self.peers.remove(&addr) else {
            return;
        };
        self.oldest_first.remove(&(peer.answered, addr));
        let replies: usize = peer.replies.iter().map(Remembered::bytes).sum();
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
    fn what_is_old_is_forgotten() {
        let start = Instant::now();
        let mut recent = Recent::default();
        let (one, two) = (peer(1, 1), peer(1, 2));
        recent.remember_at(start, (one, 1), b"one".to_vec());
        recent.remember_at(start + AGE_MAX, (two, 2), b"two".to_vec());
        assert!(recent.has_room_at(start + AGE_MAX, one.ip()));
        assert_eq!(recent.reply(&(one, 1)), Some(b"one".as_slice()));
        let later = start + AGE_MAX + Duration::from_millis(1);
        assert!(recent.has_room_at(later, one.ip()));
        assert_eq!(recent.reply(&(one, 1)), None);
        assert_eq!(recent.reply(&(two, 2)), Some(b"two".as_slice()));
        assert!(recent.has_room_at(later + AGE_MAX, one.ip()));
        assert_eq!((recent.bytes, recent.sources.len()), (0, 0));
        assert!(recent.peers.is_empty() && recent.oldest_first.is_empty());
    }

    #[test]
    fn no_source_takes_the_room_of_another_and_nothing_is_forgotten_for_want_of_it() {
        let now = Instant::now();
        let mut recent = Recent::default();
        let honest = (peer(1, 1), 1);
        recent.remember_at(now, honest, b"once".to_vec());
        let flood = |recent: &mut Recent, ip| {
            let mut answered = 0;
            for port in 1.. {
                let addr = peer(ip, port);
                if !recent.has_room_at(now, addr.ip()) {
                    return answered;
                }
                recent.remember_at(now, (addr, 1), vec![b'x'; 65_000]);
                answered += 1;
            }
            answered
        };
        assert_eq!(flood(&mut recent, 2), SOURCE_BYTES_MAX.div_ceil(65_320));
        assert!(recent.has_room_at(now, honest.0.ip()));
        for ip in 3..20 {
            flood(&mut recent, ip);
        }
        // Now there is none left, for nobody; but what was answered is known.
        assert!(!recent.has_room_at(now, honest.0.ip()));
        assert_eq!(recent.reply(&honest), Some(b"once".as_slice()));
        assert!(recent.bytes < BYTES_MAX + 70_000);
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
        let mut recent = Recent::default();
        for number in 0..100_000_u32 {
            let addr = SocketAddr::from(([127, 0, (number >> 16) as u8, 1], number as u16));
            assert!(recent.has_room_at(now, addr.ip()), "{number}");
            recent.remember_at(now, (addr, 1), vec![0; 14]);
        }
        assert!(recent.has_room_at(now, peer(1, 1).ip()));
    }

    #[test]
    fn a_peer_that_asks_on_makes_room_for_itself() {
        let now = Instant::now();
        let mut recent = Recent::default();
        let one = peer(1, 1);
        for id in 0..1000 {
            assert!(recent.has_room_at(now, one.ip()));
            recent.remember_at(now, (one, id), vec![b'x'; 65_000]);
            recent.remember_at(now, (one, id + 5000), b"short".to_vec());
        }
        assert_eq!(recent.reply(&(one, 999)), Some(b"".as_slice()));
        assert_eq!(recent.reply(&(one, 5999)), Some(b"short".as_slice()));
        assert_eq!(recent.reply(&(one, 5990)), Some(b"short".as_slice()));
        assert_eq!(recent.reply(&(one, 5)), None);
        assert!(recent.bytes < 10_000);
    }
}
