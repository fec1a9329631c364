//! Logins that wait for their password to be hashed, and which of them is next: fair by network, and within one by user. Pure.

use std::collections::VecDeque;

use crate::types::ClientNetwork;

/// Logins of one user from one network that may wait.
const MOST_OF_USER: usize = 16;

/// Who comes first. One of a rank waits for none of a lower one, so that floods stop nobody above them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rank {
    /// These very credentials were right before.
    Before,
    /// The password file has the user, and a flood of strangers waits.
    Known,
    /// Anybody else: a stranger, who can't be right, must not be told from a user.
    Stranger,
}

/// Strangers that wait and are a flood: from this number on a user comes before them. Below it the order tells nobody who is a user.
const FLOOD: usize = 8;

/// Most that wait in each rank. Those that were right before are bounded by the users that there are; of strangers so many
/// take some 4 s at bcrypt's cost 10.
const MOST: [usize; 3] = [4096, 256, 64];

/// All that wait.
pub(super) struct Line<T>([Lane<T>; 3]);

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self(MOST.map(|most| Lane { most, networks: VecDeque::new() }))
    }
}

impl<T> Line<T> {
    /// Most that can wait in all.
    pub(super) const MOST: usize = MOST[0] + MOST[1] + MOST[2];

    /// One more waits. Where a rank is full, it takes the place of the last of whoever has most there, which is returned.
    ///
    /// # Errors
    /// `job`, if it is of those who have most.
    pub(super) fn push(
        &mut self,
        rank: Rank,
        network: ClientNetwork,
        user: &str,
        job: T,
    ) -> Result<Option<T>, T> {
        self.lane(rank).push(network, user, job)
    }

    /// The next.
    pub(super) fn pop(&mut self) -> Option<T> {
        self.pop_user().or_else(|| self.lane(Rank::Stranger).pop())
    }

    /// The next who is no stranger.
    pub(super) fn pop_user(&mut self) -> Option<T> {
        let [before, known, _] = &mut self.0;
        before.pop().or_else(|| known.pop())
    }

    /// Takes out the one that `is` it.
    pub(super) fn remove(&mut self, is: impl Fn(&T) -> bool) -> Option<T> {
        self.0.iter_mut().find_map(|lane| lane.remove(&is))
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(Lane::len).sum()
    }

    /// The rank of credentials that were right before or not, of a user whom the password file has or not.
    pub(super) fn rank(&self, was_right: bool, is_user: bool) -> Rank {
        let [_, _, strangers] = &self.0;
        match (was_right, is_user) {
            (true, _) => Rank::Before,
            (false, true) if strangers.len() >= FLOOD => Rank::Known,
            (false, _) => Rank::Stranger,
        }
    }

    #[expect(clippy::indexing_slicing, reason = "there is a lane for each rank")]
    const fn lane(&mut self, rank: Rank) -> &mut Lane<T> {
        &mut self.0[rank as usize]
    }
}

/// Those of one rank: networks in turn, in each its users in turn, of each in the order in which they came.
struct Lane<T> {
    most: usize,
    networks: VecDeque<Network<T>>,
}

struct Network<T> {
    name: ClientNetwork,
    users: VecDeque<(String, VecDeque<T>)>,
}

impl<T> Network<T> {
    fn len(&self) -> usize {
        self.users.iter().map(|(_, jobs)| jobs.len()).sum()
    }

    fn of_user(&self, user: &str) -> usize {
        self.users.iter().find(|(name, _)| name == user).map_or(0, |(_, jobs)| jobs.len())
    }

    /// The last of the user who has most.
    fn pop_longest(&mut self) -> Option<T> {
        let (at, (_, jobs)) = self.users.iter_mut().enumerate().max_by_key(|(_, (_, jobs))| jobs.len())?;
        let job = jobs.pop_back();
        if jobs.is_empty() {
            self.users.remove(at);
        }
        job
    }
}

impl<T> Lane<T> {
    fn len(&self) -> usize {
        self.networks.iter().map(Network::len).sum()
    }

    fn push(&mut self, name: ClientNetwork, user: &str, job: T) -> Result<Option<T>, T> {
        let at = self.networks.iter().position(|network| network.name == name);
        let own = at.and_then(|at| self.networks.get(at));
        let of_user = own.map_or(0, |network| network.of_user(user));
        if of_user >= MOST_OF_USER {
            return Err(job);
        }
        let mut pushed_out = None;
        if self.len() >= self.most {
            let of_network = own.map_or(0, Network::len);
            let most_of_user =
                own.and_then(|own| own.users.iter().map(|(_, jobs)| jobs.len()).max()).unwrap_or(0);
            let longest = self.networks.iter().enumerate().max_by_key(|(_, network)| network.len());
            let longest = longest.filter(|(_, network)| network.len() > of_network + 1).map(|(at, _)| at);
            // Else whoever has most in its own network gives way.
            let Some(from) = longest.or(at.filter(|_| most_of_user > of_user + 1)) else { return Err(job) };
            pushed_out = self.networks.get_mut(from).and_then(Network::pop_longest);
            self.networks.retain(|network| !network.users.is_empty());
        }
        let at = self.networks.iter().position(|network| network.name == name).unwrap_or_else(|| {
            self.networks.push_back(Network { name, users: VecDeque::new() });
            self.networks.len() - 1
        });
        if let Some(network) = self.networks.get_mut(at) {
            match network.users.iter_mut().find(|(name, _)| name == user) {
                Some((_, jobs)) => jobs.push_back(job),
                None => network.users.push_back((user.to_owned(), VecDeque::from([job]))),
            }
        }
        Ok(pushed_out)
    }

    fn pop(&mut self) -> Option<T> {
        let mut network = self.networks.pop_front()?;
        let next = network.users.pop_front().and_then(|(user, mut jobs)| {
            let job = jobs.pop_front();
            if !jobs.is_empty() {
                network.users.push_back((user, jobs));
            }
            job
        });
        if !network.users.is_empty() {
            self.networks.push_back(network);
        }
        next
    }

    fn remove(&mut self, is: impl Fn(&T) -> bool) -> Option<T> {
        let mut removed = None;
        for network in &mut self.networks {
            for (_, jobs) in &mut network.users {
                if let Some(at) = jobs.iter().position(&is) {
                    removed = jobs.remove(at);
                }
            }
            network.users.retain(|(_, jobs)| !jobs.is_empty());
        }
        self.networks.retain(|network| !network.users.is_empty());
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn network(n: u8) -> ClientNetwork {
        IpAddr::from([10, 0, 0, n]).into()
    }

    fn drained(line: &mut Line<u32>) -> Vec<u32> {
        std::iter::from_fn(|| line.pop()).collect()
    }

    #[test]
    fn ranks_then_networks_then_users_take_turns() {
        let mut line = Line::default();
        for (rank, n, user, job) in [
            (Rank::Stranger, 1, "x", 1),
            (Rank::Known, 1, "a", 2),
            (Rank::Known, 1, "a", 3),
            (Rank::Known, 1, "b", 4),
            (Rank::Known, 2, "a", 5),
            (Rank::Before, 3, "c", 6),
        ] {
            assert_eq!(line.push(rank, network(n), user, job), Ok(None));
        }
        assert_eq!(line.len(), 6);
        assert_eq!(drained(&mut line), [6, 2, 5, 4, 3, 1]);
        assert_eq!(line.push(Rank::Stranger, network(1), "x", 7), Ok(None));
        assert_eq!((line.pop_user(), line.pop()), (None, Some(7)));
        assert!(line.len() == 0 && line.0.iter().all(|lane| lane.networks.is_empty()));
    }

    #[test]
    fn whoever_has_most_gives_way() {
        let mut line = Line::default();
        for n in 0..64 {
            assert_eq!(line.push(Rank::Stranger, network(1), &format!("u{n}"), n), Ok(None));
        }
        assert_eq!(line.push(Rank::Stranger, network(1), "more", 100), Err(100), "it is one of them");
        assert!(matches!(line.push(Rank::Stranger, network(2), "more", 101), Ok(Some(_))));
        assert_eq!(line.len(), 64);
        assert_eq!(line.remove(|job| *job == 101), Some(101));
        assert_eq!(line.remove(|job| *job == 101), None);
        assert_eq!(line.push(Rank::Stranger, network(1), "more", 102), Ok(None));
        // A user has a bound of its own.
        let mut line = Line::default();
        for n in 0..16 {
            assert_eq!(line.push(Rank::Known, network(1), "a", n), Ok(None));
        }
        assert_eq!(line.push(Rank::Known, network(1), "a", 16), Err(16));
        assert_eq!(line.push(Rank::Known, network(2), "a", 16), Ok(None));
        for n in 0..239 {
            assert_eq!(line.push(Rank::Known, network(1), &format!("b{}", n / 16), n), Ok(None));
        }
        assert_eq!(line.len(), 256);
        assert!(matches!(line.push(Rank::Known, network(1), "new", 999), Ok(Some(_))));
        assert_eq!(line.len(), 256);
    }
}
