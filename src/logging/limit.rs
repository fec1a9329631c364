//! How many lines of a log one network may cause: whoever can reach the port must not be able to fill a disk, or to hide what
//! others do among its own lines.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::types::ClientNetwork;

/// Lines of one network in a second.
const LINES: u32 = 20;
/// Lines of all networks in a second.
const ALL_LINES: u32 = 1000;
/// Networks that are told apart in a second; the others share one count.
const MAX_NETWORKS: usize = 4096;

/// The lines of this second.
#[derive(Default)]
struct Second {
    /// Which second it is, since the first line.
    number: u64,
    lines: HashMap<Option<ClientNetwork>, u32>,
    all: u32,
    left_out: u64,
}

/// Whether a line about a client may be written, in this process.
pub fn admits(address: Option<IpAddr>) -> bool {
    static LIMIT: LazyLock<LineLimit> = LazyLock::new(LineLimit::default);
    LIMIT.admits(address)
}

/// The same of a wrong login, for which others look (fail2ban): no other lines take its place.
pub fn admits_login(address: Option<IpAddr>) -> bool {
    static LIMIT: LazyLock<LineLimit> = LazyLock::new(LineLimit::default);
    LIMIT.admits(address)
}

/// Lets a network have its lines, and counts the rest.
struct LineLimit {
    start: Instant,
    second: Mutex<Second>,
}

impl Default for LineLimit {
    fn default() -> Self {
        Self { start: Instant::now(), second: Mutex::default() }
    }
}

impl LineLimit {
    /// With `--debug` all may. Tells, once a second passed, how many were left out in it.
    fn admits(&self, address: Option<IpAddr>) -> bool {
        if log::log_enabled!(log::Level::Debug) {
            return true;
        }
        let (admitted, left_out) = self.count(address, self.start.elapsed().as_secs());
        if left_out > 0 {
            log::warn!(
                "{left_out} lines about clients were left out: at most {LINES} a second of one network"
            );
        }
        admitted
    }

    /// Whether a line fits into a second, and how many were left out of the last one, if this is the first of a new one.
    fn count(&self, address: Option<IpAddr>, number: u64) -> (bool, u64) {
        let mut second = self.second();
        let mut left_out = 0;
        if second.number != number {
            left_out = second.left_out;
            *second = Second { number, ..Second::default() };
        }
        let network = address.map(ClientNetwork::from);
        let is_known = second.lines.len() < MAX_NETWORKS || second.lines.contains_key(&network);
        // A unix socket, and who comes when too many are counted, have one count together.
        let lines = second.lines.entry(network.filter(|_| is_known)).or_default();
        *lines = lines.saturating_add(1);
        let admitted = *lines <= LINES && second.all < ALL_LINES;
        second.all += u32::from(admitted);
        second.left_out += u64::from(!admitted);
        (admitted, left_out)
    }

    fn second(&self) -> MutexGuard<'_, Second> {
        self.second.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_network_has_its_lines_and_the_rest_is_counted() {
        let limit = LineLimit::default();
        let (one, two) = (Some([10, 0, 0, 1].into()), Some([10, 0, 0, 2].into()));
        let admitted = |address, number| (0..1000).filter(|_| limit.count(address, number).0).count();
        assert_eq!((admitted(one, 0), admitted(two, 0), admitted(None, 0)), (20, 20, 20));
        assert_eq!(limit.count(one, 1), (true, 3 * 980));
        assert_eq!(limit.count(one, 2), (true, 0));
        // From everywhere: bounded in memory and in lines.
        let all = (0..100_000_u32).filter(|n| limit.count(Some(n.to_be_bytes().into()), 3).0).count();
        assert_eq!(all, ALL_LINES as usize);
        assert_eq!(limit.second().lines.len(), MAX_NETWORKS + 1);
    }
}
