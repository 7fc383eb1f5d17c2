//! The client's half of stream management (XEP-0198): what is not yet acknowledged, and the two counters.
//!
//! Numbers belong to the stream and wrap at 2³²; what is kept keeps its id, not its number.

use std::collections::VecDeque;

use bytes::Bytes;

/// A stanza the client has to answer for until the server has counted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Id of the stanza; what is sent again keeps it.
    pub id: String,
    /// The whole stanza as it goes over the wire.
    pub bytes: Bytes,
    /// Whether it is sent again in a *new* session. Messages are; presence and requests belong to the old one.
    pub survives: bool,
}

/// The server's counter makes no sense: it counted what was never sent, or took back what it had counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server says h={h}, but between {acknowledged} and {sent} was possible")]
pub struct BadCount {
    /// What the server said.
    pub h: u32,
    /// What it had acknowledged before.
    pub acknowledged: u32,
    /// What it can have received at most.
    pub sent: u32,
}

/// What became of the stanzas of a session that is gone, but for those that wait to be sent again.
#[derive(Debug, Default)]
pub struct Ended {
    /// The server had counted these.
    pub acknowledged: Vec<Outgoing>,
    /// Nobody can say whether the server had these; they belong to the old session and are not sent again.
    pub unknown: Vec<Outgoing>,
}

/// Both counters of a session and the queue of what is not acknowledged.
#[derive(Debug)]
pub struct SmQueue {
    queue: VecDeque<Outgoing>,
    /// The number of the stanza before the first in the queue, which is also the last `h` that was heard.
    acknowledged: u32,
    /// How many at the head of the queue have been written to the present stream.
    written: usize,
    inbound: u32,
    request_every: usize,
    unrequested: usize,
}

impl SmQueue {
    /// An empty queue that asks for an acknowledgement after every `request_every` stanzas (0 means 1).
    pub fn new(request_every: usize) -> Self {
        SmQueue {
            queue: VecDeque::new(),
            acknowledged: 0,
            written: 0,
            inbound: 0,
            request_every: request_every.max(1),
            unrequested: 0,
        }
    }

    /// Adds a stanza at the end; [`SmQueue::write_next`] says when it goes out.
    pub fn push(&mut self, stanza: Outgoing) {
        self.queue.push_back(stanza);
    }

    /// Adds a stanza before all others of a session that has just begun, nothing of which has been written.
    pub fn push_first(&mut self, stanza: Outgoing) {
        debug_assert_eq!(self.written, 0, "numbers given already would shift");
        if self.written == 0 { self.queue.push_front(stanza) } else { self.queue.push_back(stanza) }
    }

    /// The next stanza to write to the present stream, in order; it counts as written from now on.
    pub fn write_next(&mut self) -> Option<Bytes> {
        let next = self.queue.get(self.written)?.bytes.clone();
        self.written += 1;
        self.unrequested += 1;
        Some(next)
    }

    /// Whether it is time for `<r/>`; says so once.
    pub fn take_request(&mut self) -> bool {
        let due = self.unrequested >= self.request_every;
        if due {
            self.unrequested = 0;
        }
        due
    }

    /// `<r/>` was sent for another reason.
    pub fn requested(&mut self) {
        self.unrequested = 0;
    }

    /// `<a h/>`: what is acknowledged by it, in order.
    pub fn acknowledge(&mut self, h: u32) -> Result<Vec<Outgoing>, BadCount> {
        let count = h.wrapping_sub(self.acknowledged) as usize;
        if count > self.written {
            let sent = self.acknowledged.wrapping_add(u32::try_from(self.written).unwrap_or(u32::MAX));
            return Err(BadCount { h, acknowledged: self.acknowledged, sent });
        }
        self.acknowledged = h;
        self.written -= count;
        Ok(self.queue.drain(..count).collect())
    }

    /// `<resumed h/>`: what is acknowledged by it. The rest counts as not written and gets the numbers from `h + 1`.
    pub fn resumed(&mut self, h: u32) -> Result<Vec<Outgoing>, BadCount> {
        let acknowledged = self.acknowledge(h)?;
        self.written = 0;
        self.unrequested = 0;
        Ok(acknowledged)
    }

    /// The session is gone and a new one begins. `<failed h/>` may still tell what the server had counted; a count
    /// that cannot be is ignored. What survives waits for the new session: see [`SmQueue::waiting`].
    pub fn begin_anew(&mut self, failed_h: Option<u32>) -> Ended {
        let acknowledged = failed_h.and_then(|h| self.acknowledge(h).ok()).unwrap_or_default();
        let (queue, unknown): (VecDeque<_>, VecDeque<_>) =
            self.queue.drain(..).partition(|stanza| stanza.survives);
        self.queue = queue;
        self.acknowledged = 0;
        self.written = 0;
        self.inbound = 0;
        self.unrequested = 0;
        Ended { acknowledged, unknown: unknown.into() }
    }

    /// Ids of what waits for its acknowledgement, in order.
    pub fn waiting(&self) -> impl Iterator<Item = &str> {
        self.queue.iter().map(|stanza| stanza.id.as_str())
    }

    /// A stanza came in and has been dealt with.
    pub fn handled(&mut self) {
        self.inbound = self.inbound.wrapping_add(1);
    }

    /// Our `h`: how many stanzas have been dealt with in this session.
    pub fn inbound(&self) -> u32 {
        self.inbound
    }

    /// How many stanzas wait for their acknowledgement, written or not.
    pub fn backlog(&self) -> usize {
        self.queue.len()
    }

    /// How many of them are on the way, written to the present stream.
    pub fn in_flight(&self) -> usize {
        self.written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: u32) -> Outgoing {
        Outgoing {
            id: format!("m{id}"),
            bytes: Bytes::from(format!("<message id='m{id}'/>")),
            survives: true,
        }
    }

    fn ids(stanzas: &[Outgoing]) -> Vec<&str> {
        stanzas.iter().map(|stanza| stanza.id.as_str()).collect()
    }

    fn write_all(queue: &mut SmQueue) -> Vec<String> {
        std::iter::from_fn(|| queue.write_next())
            .map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
            .map(|text| text.split('\'').nth(1).unwrap().to_owned())
            .collect()
    }

    fn filled(count: u32) -> SmQueue {
        let mut queue = SmQueue::new(3);
        (1..=count).for_each(|id| queue.push(message(id)));
        queue
    }

    #[test]
    fn acknowledgements_drop_from_the_head() {
        let mut queue = filled(4);
        assert_eq!(write_all(&mut queue), ["m1", "m2", "m3", "m4"]);
        assert_eq!(ids(&queue.acknowledge(0).unwrap()), [""; 0]);
        assert_eq!(ids(&queue.acknowledge(3).unwrap()), ["m1", "m2", "m3"]);
        assert_eq!(ids(&queue.acknowledge(4).unwrap()), ["m4"]);
        assert_eq!((queue.backlog(), queue.in_flight()), (0, 0));
    }

    #[test]
    fn counts_that_cannot_be_are_refused() {
        let mut queue = filled(3);
        queue.write_next();
        queue.write_next();
        assert_eq!(queue.acknowledge(3).unwrap_err(), BadCount { h: 3, acknowledged: 0, sent: 2 });
        queue.acknowledge(2).unwrap();
        assert!(queue.acknowledge(1).is_err(), "a count never goes back");
        assert_eq!(queue.backlog(), 1);
    }

    #[test]
    fn resume_drops_what_was_counted_and_repeats_the_rest_in_order() {
        let mut queue = filled(4);
        write_all(&mut queue);
        queue.push(message(5));
        assert_eq!(ids(&queue.resumed(2).unwrap()), ["m1", "m2"]);
        assert_eq!(write_all(&mut queue), ["m3", "m4", "m5"]);
        assert_eq!(ids(&queue.acknowledge(4).unwrap()), ["m3", "m4"]);
        assert_eq!(ids(&queue.resumed(4).unwrap()), [""; 0]);
        assert_eq!(write_all(&mut queue), ["m5"]);
    }

    #[test]
    fn numbers_wrap_around() {
        let mut queue = filled(4);
        queue.acknowledged = u32::MAX - 1;
        write_all(&mut queue);
        assert_eq!(ids(&queue.acknowledge(u32::MAX).unwrap()), ["m1"]);
        assert_eq!(ids(&queue.acknowledge(1).unwrap()), ["m2", "m3"]);
        assert!(queue.acknowledge(u32::MAX).is_err());
        assert!(queue.acknowledge(3).is_err());
        assert_eq!(ids(&queue.resumed(2).unwrap()), ["m4"]);
        queue.inbound = u32::MAX;
        queue.handled();
        assert_eq!(queue.inbound(), 0);
    }

    #[test]
    fn a_new_session_keeps_messages_and_their_ids_but_not_presence() {
        let mut queue = filled(2);
        queue.push(Outgoing {
            id: "p".into(),
            bytes: Bytes::from_static(b"<presence id='p'/>"),
            survives: false,
        });
        write_all(&mut queue);
        queue.handled();
        let ended = queue.begin_anew(Some(1));
        assert_eq!((ids(&ended.acknowledged), ids(&ended.unknown)), (vec!["m1"], vec!["p"]));
        assert_eq!(queue.waiting().collect::<Vec<_>>(), ["m2"]);
        assert_eq!((queue.inbound(), queue.backlog(), queue.in_flight()), (0, 1, 0));
        assert_eq!(write_all(&mut queue), ["m2"]);
        assert_eq!(ids(&queue.acknowledge(1).unwrap()), ["m2"]);
        let mut queue = filled(1);
        assert_eq!(ids(&queue.begin_anew(Some(77)).acknowledged), [""; 0]);
        assert_eq!(write_all(&mut queue), ["m1"]);
    }

    #[test]
    fn asks_after_every_third() {
        let mut queue = filled(7);
        let asked: Vec<bool> = (0..7)
            .map(|_| {
                queue.write_next();
                queue.take_request()
            })
            .collect();
        assert_eq!(asked, [false, false, true, false, false, true, false]);
        queue.requested();
        assert!(!queue.take_request());
    }
}
