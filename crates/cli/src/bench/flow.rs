//! How many messages a publisher may send now, and how late it is by its own fault. Pure.
//!
//! In an open loop messages fall due by the clock and wait here while the server holds the publisher back; their time still
//! counts from when they were due. In a closed loop there is always one more to send, and the window of messages that
//! subscribers have not got yet is what paces the publisher.

/// What may hold a closed loop back, besides the window: see [`Flow::closed`].
#[derive(Clone, Debug)]
pub(super) struct Flow {
    /// Messages sent so far: the number of the next one.
    sent: u64,
    pace: Pace,
    /// There was more to send than was allowed.
    held_back: bool,
    /// When the server let go of the publisher last.
    freed_at: u64,
}

#[derive(Clone, Debug)]
enum Pace {
    Open {
        /// Messages whose time has come.
        due: u64,
    },
    Closed {
        /// Messages to send in all.
        limit: u64,
        /// Messages that subscribers may not have got yet.
        window: u64,
        /// Copies of each message that arrive if nothing is lost.
        fan: u64,
        /// Copies that arrived, or were given up.
        arrived: u64,
        /// Fewer than this are not worth a write while more are to come.
        burst: u64,
    },
}

/// What a publisher's connection has room for, in messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Until the socket's buffer counts as full.
    pub(super) socket: u64,
    /// Until too many wait for their acknowledgement; without bound at QoS 0.
    pub(super) unacknowledged: u64,
}

impl Flow {
    /// Paced by [`Flow::fall_due`].
    pub(super) fn open() -> Self {
        Self { sent: 0, pace: Pace::Open { due: 0 }, held_back: false, freed_at: 0 }
    }

    /// Paced by what arrives: `window` (above zero) messages at most are under way to the subscribers, who get `fan` copies
    /// of each; a fan of zero turns the window off. `inflight` is the bound on unacknowledged ones.
    pub(super) fn closed(limit: u64, window: u64, fan: u64, inflight: u64) -> Self {
        let burst = (window.min(inflight) / 4).max(1);
        let pace = Pace::Closed { limit, window, fan, arrived: 0, burst };
        Self { sent: 0, pace, held_back: false, freed_at: 0 }
    }

    /// The server takes fewer unacknowledged messages than we would like.
    pub(super) fn limit_inflight(&mut self, inflight: u64) {
        if let Pace::Closed { burst, .. } = &mut self.pace {
            *burst = (*burst).min(inflight / 4).max(1);
        }
    }

    /// Open loop: the time of one more message has come.
    pub(super) fn fall_due(&mut self) {
        if let Pace::Open { due } = &mut self.pace {
            *due += 1;
        }
    }

    /// Closed loop: so many copies of this publisher's messages have arrived in all, or more than before if some were
    /// given up.
    pub(super) fn set_arrived(&mut self, total: u64) {
        if let Pace::Closed { arrived, .. } = &mut self.pace {
            *arrived = (*arrived).max(total);
        }
    }

    /// Copies under way to subscribers.
    pub(super) fn under_way(&self) -> u64 {
        match &self.pace {
            Pace::Closed { fan, arrived, .. } => (self.sent * fan).saturating_sub(*arrived),
            Pace::Open { .. } => 0,
        }
    }

    /// Messages that wait for their turn: in an open loop those that are due.
    pub(super) fn backlog(&self) -> u64 {
        match &self.pace {
            Pace::Open { due } => due - self.sent,
            Pace::Closed { limit, .. } => limit.saturating_sub(self.sent),
        }
    }

    /// How many messages may be sent now.
    pub(super) fn allowance(&mut self, room: Room, now: u64) -> u64 {
        let wanted = self.backlog();
        let allowed = match &self.pace {
            Pace::Open { .. } => wanted.min(room.unacknowledged).min(room.socket),
            Pace::Closed { window, fan, burst, .. } => {
                let window = match fan {
                    0 => u64::MAX,
                    _ => (window * fan).saturating_sub(self.under_way()) / fan,
                };
                let allowed = wanted.min(window).min(room.unacknowledged);
                if allowed < *burst && allowed < wanted { 0 } else { allowed.min(room.socket) }
            }
        };
        if self.held_back {
            self.freed_at = now;
        }
        self.held_back = allowed < wanted;
        allowed
    }

    /// One is sent now: its number.
    pub(super) fn send(&mut self) -> u64 {
        let number = self.sent;
        self.sent += 1;
        number
    }

    /// Messages sent so far.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// How late a message is that was to be sent at `intended` and could have been: what the server's back-pressure is
    /// not to blame for.
    pub(super) fn own_lateness(&self, intended: u64, now: u64) -> u64 {
        now.saturating_sub(intended.max(self.freed_at))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::bench::latency::Times;
    use crate::bench::schedule::Schedule;

    const MILLI: u64 = 1_000_000;
    const SECOND: u64 = 1_000 * MILLI;
    const FREE: Room = Room { socket: u64::MAX, unacknowledged: u64::MAX };

    #[test]
    fn an_open_loop_sends_what_is_due_and_no_more() {
        let mut flow = Flow::open();
        assert_eq!(flow.allowance(FREE, 0), 0);
        flow.fall_due();
        flow.fall_due();
        assert_eq!(flow.allowance(Room { unacknowledged: 1, ..FREE }, 0), 1);
        assert_eq!(flow.allowance(FREE, 0), 2);
        assert_eq!((flow.send(), flow.send()), (0, 1));
        assert_eq!(flow.backlog(), 0);
    }

    #[test]
    fn a_closed_loop_keeps_its_window_and_refills_it_in_bursts() {
        let mut flow = Flow::closed(100, 8, 3, u64::MAX);
        assert_eq!(flow.allowance(FREE, 0), 8);
        for _ in 0..8 {
            flow.send();
        }
        assert_eq!((flow.allowance(FREE, 0), flow.under_way()), (0, 24));
        flow.set_arrived(5); // one message at all three subscribers: less than a burst of two
        assert_eq!(flow.allowance(FREE, 0), 0);
        flow.set_arrived(6);
        assert_eq!(flow.allowance(FREE, 0), 2);
    }

    #[test]
    fn the_last_messages_are_sent_though_they_make_no_burst() {
        let mut flow = Flow::closed(1, 100, 1, 100);
        assert_eq!(flow.allowance(FREE, 0), 1);
        flow.send();
        assert_eq!(flow.allowance(FREE, 0), 0);
    }

    #[test]
    fn a_server_that_takes_less_than_a_burst_is_not_waited_for() {
        let mut flow = Flow::closed(1_000, 1_000, 1, 100);
        assert_eq!(flow.allowance(Room { unacknowledged: 5, ..FREE }, 0), 0);
        flow.limit_inflight(5);
        assert_eq!(flow.allowance(Room { unacknowledged: 5, ..FREE }, 0), 5);
        flow.limit_inflight(1);
        assert_eq!(flow.allowance(Room { unacknowledged: 1, ..FREE }, 0), 1);
    }

    #[test]
    fn a_socket_with_room_for_one_gets_one() {
        let mut flow = Flow::closed(1_000, 100, 1, 100);
        assert_eq!(flow.allowance(Room { socket: 1, ..FREE }, 0), 1);
    }

    #[test]
    fn back_pressure_is_not_the_generators_lateness() {
        let mut flow = Flow::open();
        flow.fall_due(); // at 10
        assert_eq!(flow.allowance(Room { socket: 0, ..FREE }, 10), 0);
        assert_eq!(flow.allowance(FREE, 500), 1);
        assert_eq!(flow.own_lateness(10, 500), 0);
        flow.send();
        flow.fall_due(); // at 600, looked at not before 900
        assert_eq!(flow.allowance(FREE, 900), 1);
        assert_eq!(flow.own_lateness(600, 900), 300);
    }

    /// A publisher of QoS 1 at 1,000 messages a second for 10 s, and a server that answers at once but for the second from
    /// 5 s to 6 s. Gives the latency from the intended time, and from the time of the write.
    fn with_a_stall(rate: Option<f64>, inflight: u64) -> (Times, Times) {
        // Without a rate a window goes out each millisecond, for ten seconds too.
        let total = if rate.is_some() { 10_000 } else { 10_000 * inflight };
        let mut schedule = Schedule::new(rate.unwrap_or(1.0), 1, vec![0], 0, total);
        let mut flow = match rate {
            Some(_) => Flow::open(),
            None => Flow::closed(total, inflight, 1, inflight),
        };
        let (mut from_intended, mut from_write) = (Times::default(), Times::default());
        let mut under_way: VecDeque<(u64, u64)> = VecDeque::new();
        let (mut now, mut arrived) = (0, 0);
        while arrived < total {
            let stalled = (5 * SECOND..6 * SECOND).contains(&now);
            while !stalled && let Some((intended, written)) = under_way.pop_front() {
                from_intended.add(now - intended);
                from_write.add(now - written);
                arrived += 1;
                flow.set_arrived(arrived);
            }
            while rate.is_some() && schedule.pop_due(now).is_some() {
                flow.fall_due();
            }
            let room = Room { socket: u64::MAX, unacknowledged: inflight - under_way.len() as u64 };
            for _ in 0..flow.allowance(room, now) {
                let number = flow.send();
                let intended = if rate.is_some() { schedule.intended(0, number) } else { now };
                under_way.push_back((intended, now));
            }
            now += MILLI;
        }
        (from_intended, from_write)
    }

    #[test]
    fn a_stall_shows_in_full_when_times_count_from_the_schedule() {
        let (from_intended, from_write) = with_a_stall(Some(1_000.0), 20);
        // A thousand of ten thousand messages were due in the second of silence: one in a hundred waited 0.9 s or more.
        let p99 = from_intended.quantile(0.99);
        assert!((880 * MILLI..920 * MILLI).contains(&p99), "{p99}");
        // ... and the one in eleven at the end of it 0.1 s, and the time that the backlog took.
        assert!((100..160).contains(&(from_intended.quantile(0.91) / MILLI)));
        // Counted from the write, all but the twenty in flight hide: coordinated omission.
        assert!(from_write.quantile(0.99) <= 2 * MILLI, "{}", from_write.quantile(0.99));
    }

    #[test]
    fn a_closed_loop_hides_a_stall_and_so_gives_no_latency_of_a_rate() {
        let (times, _) = with_a_stall(None, 20);
        assert!(times.quantile(0.99) <= 2 * MILLI, "{}", times.quantile(0.99));
        assert!(times.quantile(1.0) > 990 * MILLI, "{}", times.quantile(1.0));
    }
}
