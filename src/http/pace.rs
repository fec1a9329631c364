//! Tells a slow client from one that only pretends to send or to read. Pure.
//!
//! Only the time in which we wait for the client counts, so that a slow disk of ours ends no upload.

use std::time::Duration;

use crate::types::Timeouts;

/// The client moved too few bytes in the time it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSlow;

/// Time waited and bytes moved in one body.
#[derive(Debug, Default)]
pub struct Pace {
    waited: Duration,
    /// Both since the window began, once the grace is over.
    window: Duration,
    bytes: u64,
}

impl Pace {
    /// Counts one receive or send that took `waited` and moved `bytes`.
    ///
    /// # Errors
    /// The average of a whole window was below the least rate.
    pub fn note(&mut self, limits: &Timeouts, waited: Duration, bytes: usize) -> Result<(), TooSlow> {
        if self.waited < limits.grace {
            self.waited += waited;
            return Ok(());
        }
        // How long a client may be silent is `Timeouts::stall`: after a silence of any length, the first packet is not all that
        // it sends, so that it has some time more before it is judged (restic sends 32 KiB at a time, however slowly).
        self.window += waited.min(limits.grace);
        self.bytes += bytes as u64;
        if bytes == 0 || self.window < limits.grace + limits.grace / 8 {
            return Ok(());
        }
        let needed = u128::from(limits.min_rate) * self.window.as_millis() / 1000;
        let enough = u128::from(self.bytes) >= needed;
        (self.window, self.bytes) = (Duration::ZERO, 0);
        if enough { Ok(()) } else { Err(TooSlow) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds until a client that sends `bytes` every `every` seconds is given up; at most 1,000.
    fn given_up(bytes: usize, every: u64) -> Option<u64> {
        let mut pace = Pace::default();
        let limits = Timeouts::default();
        (1..=1000 / every)
            .find(|_| pace.note(&limits, Duration::from_secs(every), bytes).is_err())
            .map(|n| n * every)
    }

    #[test]
    fn a_slow_client_has_its_grace_and_a_fast_one_its_peace() {
        assert_eq!(given_up(10, 1), Some(255));
        assert_eq!(given_up(63, 1), Some(255));
        assert_eq!(given_up(64, 1), None);
        assert_eq!(given_up(1, 50), Some(300));
        assert_eq!(given_up(8 * 1024, 20), None);
    }

    #[test]
    fn a_burst_does_not_pay_for_a_later_stall() {
        let (mut pace, limits) = (Pace::default(), Timeouts::default());
        assert_eq!(pace.note(&limits, Duration::from_mins(2), 0), Ok(()));
        assert_eq!(pace.note(&limits, Duration::from_mins(2), 1 << 30), Ok(()));
        assert_eq!(pace.note(&limits, Duration::from_secs(15), 1), Ok(()));
        assert_eq!(pace.note(&limits, Duration::from_secs(119), 1), Ok(()));
        assert_eq!(pace.note(&limits, Duration::from_secs(16), 1), Err(TooSlow));
    }

    #[test]
    fn who_is_silent_for_five_minutes_again_and_again_goes_on() {
        let (mut pace, limits) = (Pace::default(), Timeouts::default());
        for _ in 0..10 {
            assert_eq!(pace.note(&limits, Duration::from_mins(5), 0), Ok(()));
            // The first packet, then the rest.
            assert_eq!(pace.note(&limits, Duration::ZERO, 1448), Ok(()));
            assert_eq!(pace.note(&limits, Duration::from_secs(1), 1 << 20), Ok(()));
        }
    }

    #[test]
    fn the_slowest_restic_is_fast_enough() {
        let (mut pace, limits) = (Pace::default(), Timeouts::default());
        // `--limit-upload 1` over five connections: a wait, told before what came after it.
        for _ in 0..100 {
            assert!(Duration::from_secs(160) < limits.stall);
            assert_eq!(pace.note(&limits, Duration::from_secs(160), 0), Ok(()));
            assert_eq!(pace.note(&limits, Duration::ZERO, 32 << 10), Ok(()));
        }
    }
}
