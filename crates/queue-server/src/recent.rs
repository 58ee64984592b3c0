//! What was answered over UDP lately, so that a request that comes again, because its reply was lost
//! or the network made two of it, is answered again but not acted on twice.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long a reply is remembered: longer than a client goes on asking, unless its user said so.
const AGE_MAX: Duration = Duration::from_secs(120);

/// What all of them may take, in bytes of memory; when it is more, the oldest are forgotten early.
const BYTES_MAX: usize = 64 << 20;

/// What a reply takes beside its bytes, about.
const OVERHEAD_BYTES: usize = 128;

/// A request: who asked, and under which id.
pub(crate) type Asked = (SocketAddr, u64);

/// The replies to recent requests.
#[derive(Default)]
pub(crate) struct Recent {
    replies: HashMap<Asked, Vec<u8>>,
    oldest_first: VecDeque<(Instant, Asked)>,
    bytes: usize,
}

impl Recent {
    /// The reply that was given to this request.
    pub(crate) fn reply(&self, asked: &Asked) -> Option<&[u8]> {
        self.replies.get(asked).map(Vec::as_slice)
    }

    /// Remembers a reply.
    pub(crate) fn remember(&mut self, asked: Asked, reply: Vec<u8>) {
        self.remember_at(Instant::now(), asked, reply);
    }

    fn remember_at(&mut self, now: Instant, asked: Asked, reply: Vec<u8>) {
        self.bytes += OVERHEAD_BYTES + reply.len();
        self.oldest_first.push_back((now, asked));
        if let Some(before) = self.replies.insert(asked, reply) {
            self.bytes -= before.len();
        }
        while let Some((then, asked)) = self.oldest_first.front()
            && (self.bytes > BYTES_MAX || now.duration_since(*then) > AGE_MAX)
        {
            let reply = self.replies.remove(asked);
            self.bytes -= OVERHEAD_BYTES + reply.map_or(0, |reply| reply.len());
            self.oldest_first.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(id: u64) -> Asked {
        (SocketAddr::from(([127, 0, 0, 1], 1)), id)
    }

    #[test]
    fn what_is_old_or_too_much_is_forgotten() {
        let start = Instant::now();
        let mut recent = Recent::default();
        recent.remember_at(start, asked(1), b"one".to_vec());
        recent.remember_at(start + AGE_MAX, asked(2), b"two".to_vec());
        assert_eq!(recent.reply(&asked(1)), Some(b"one".as_slice()));
        let later = start + AGE_MAX + Duration::from_millis(1);
        recent.remember_at(later, asked(3), b"three".to_vec());
        assert_eq!(recent.reply(&asked(1)), None);
        assert_eq!(recent.reply(&asked(2)), Some(b"two".as_slice()));
        recent.remember_at(later, asked(4), vec![0; BYTES_MAX - OVERHEAD_BYTES]);
        assert_eq!(recent.reply(&asked(3)), None);
        assert_eq!(recent.replies.len(), 1);
        assert_eq!(recent.bytes, BYTES_MAX);
    }
}
