//! Simulation: what the store promises holds whatever order things happen in, and wherever the power goes.
//!
//! A history has four clients of two workers on the model disk, who store, repeat, delete and give up, and somebody who
//! copies files in beside them. Before every operation on the disk the power of a copy of it is cut: of what was not
//! synced nothing, all or any part survives. A seed is one history, always the same: `TEST_SEED=N` runs that one.
//! `TEST_SEEDS=N` runs so many of them.
#![allow(clippy::pedantic, clippy::restriction, unreachable_pub, reason = "tests")]

use packhouse::io::runtime::{Driver, begin, block_on};
use packhouse::store::model::Flaw;

use crate::world::End;

mod oracle;
mod paper;
mod world;

/// Histories of an ordinary run.
const SEEDS: u64 = 10_000;
/// Histories within which every flaw must be found.
const SEEDS_FOR_FLAWS: u64 = 2_000;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().expect("a number"))
}

/// Runs histories until one fails.
fn run(seeds: impl Iterator<Item = u64>, flaw: Option<Flaw>) -> Result<End, String> {
    let all = async {
        let mut all = End::default();
        for seed in seeds {
            // A task like any other: who runs first in a runtime is not one.
            let one = begin(world::history(seed, flaw)).end().await.expect("no panic")?;
            all = End { cuts: all.cuts + one.cuts, digest: all.digest.rotate_left(1) ^ one.digest };
        }
        Ok(all)
    };
    block_on(Driver::Epoll, all).expect("a runtime")
}

fn all_hold(part: u64, parts: u64) {
    if let Some(seed) = number("TEST_SEED") {
        run(std::iter::once(seed), None).unwrap();
        return;
    }
    let seeds = number("TEST_SEEDS").unwrap_or(SEEDS);
    let End { cuts, .. } = run((part..seeds).step_by(parts as usize), None)
        .unwrap_or_else(|wrong| panic!("{wrong}\nTEST_SEED=N runs that one again"));
    println!("{cuts} power cuts in {} histories, nothing lost", seeds / parts);
    assert!(cuts > seeds, "there were hardly any");
}

#[test]
fn every_promise_holds_after_every_step_of_even_seeds() {
    all_hold(0, 2);
}

#[test]
fn every_promise_holds_after_every_step_of_odd_seeds() {
    all_hold(1, 2);
}

#[test]
fn a_seed_is_always_the_same_history() {
    for seed in 0..50 {
        let once = run(std::iter::once(seed), None);
        assert_eq!(once, run(std::iter::once(seed), None));
    }
}

/// The simulator has teeth: a sync that does nothing is found, whichever it is.
#[test]
fn a_sync_that_is_left_out_is_found() {
    for flaw in [
        Flaw::NewContent,
        Flaw::NamedContent,
        Flaw::LateContent,
        Flaw::AddedFolders(0),
        Flaw::AddedFolders(1),
        Flaw::AddedFolders(2),
        Flaw::AddedFiles(1),
        Flaw::AddedFiles(2),
        Flaw::AddedFiles(3),
        Flaw::Removed,
    ] {
        let found = run(0..SEEDS_FOR_FLAWS, Some(flaw));
        println!("{flaw:?}: {found:?}");
        assert!(found.is_err(), "{flaw:?} was not noticed");
    }
}
