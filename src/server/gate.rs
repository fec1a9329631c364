//! How many connections, requests and lists there may be at once: as many as there are descriptors and memory for. Shared by
//! all shards.

use std::sync::Arc;

use crate::api::live::Who;
use crate::io::gate::Gate;
use crate::io::limits::{memory_limit, open_descriptors, raise_descriptors};
use crate::io::shares::Shares;
use crate::server::memory::MemoryPlan;

/// Descriptors that a request may need beside its connection's: a folder, and a file with its second one for the ring. A list
/// needs more for a moment; where all descriptors are used up it is 503.
const DESCRIPTORS_OF_REQUEST: u64 = 3;
/// The part of all descriptors that requests have, a third. Most connections of a fleet are idle.
const PART_OF_REQUESTS: u64 = 3;
/// Descriptors kept for what the process itself opens later: a ring and its event for each worker, and some to spare.
const RESERVE: u64 = 8;
const RESERVE_PER_WORKER: u64 = 4;

/// The gates of a server.
pub struct Gates {
    /// For connections, from the accept to the end.
    pub connections: Arc<Gate>,
    /// For requests of users who are let in. They wait for each other, so that who is idle keeps no descriptors for them.
    pub requests: Arc<Shares<Who>>,
    /// For requests for lists, which have room in memory for so many pages.
    pub lists: Arc<Shares<Who>>,
    /// How memory is divided.
    pub memory: MemoryPlan,
}

impl Gates {
    /// As many as the limit on open files allows, which is raised first; at least `least` of each.
    pub fn for_descriptors(workers: usize, least: usize) -> Self {
        let limit = raise_descriptors();
        let used = open_descriptors() + RESERVE + RESERVE_PER_WORKER * workers as u64;
        let room = limit.saturating_sub(used);
        let for_requests = room / PART_OF_REQUESTS;
        let count = |count| usize::try_from(count).unwrap_or(usize::MAX).max(least);
        let memory = MemoryPlan::of(memory_limit());
        Self {
            connections: Arc::new(Gate::new(count(memory.connections.min(room - for_requests)))),
            requests: Arc::new(Shares::new(count(for_requests / DESCRIPTORS_OF_REQUEST))),
            lists: Arc::new(Shares::new(memory.lists)),
            memory,
        }
    }
}
