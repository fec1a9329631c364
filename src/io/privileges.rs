//! The capabilities of root, `capabilities(7)`, that a server gives up.

use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set, set_capabilities,
};

/// The capabilities that the process keeps if it has them: rights to files. A server that runs as root, in a container above all, has its data on
/// a volume whose folders and files belong to other users, and rest-server works there. `CAP_FOWNER` reads such files without a
/// write to the disk (`O_NOATIME`). To all other files Landlock is in the way.
const KEPT: CapabilitySet =
    CapabilitySet::DAC_OVERRIDE.union(CapabilitySet::DAC_READ_SEARCH).union(CapabilitySet::FOWNER);
/// Numbers of capabilities that there can be.
const NUMBERS: u32 = 64;

/// What the calling thread has, and what it keeps of that.
fn sets() -> io::Result<(CapabilitySets, CapabilitySets)> {
    let has = capabilities(None)?;
    let mut kept = has.permitted & KEPT;
    if kept.contains(CapabilitySet::DAC_OVERRIDE) {
        // It comes with the first, but for opening files by their handles, past all folders.
        kept.remove(CapabilitySet::DAC_READ_SEARCH);
    }
    let keeps = CapabilitySets {
        effective: has.effective & kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    Ok((has, keeps))
}

/// Whether [`give_up`] has something to do.
pub(super) fn has_more() -> bool {
    sets().is_ok_and(|(has, keeps)| has != keeps)
}

/// Gives up all capabilities but those to files, for good: for this thread and those that it will start, so that it is to be
/// called before there are others. Nothing happens where there are none.
///
/// # Errors
/// They could not be given up.
pub fn give_up() -> io::Result<()> {
    let (has, keeps) = sets()?;
    if has == keeps {
        return Ok(());
    }
    // While there is the right to. No program is run that could get one back, and the kernel would not let it
    // (PR_SET_NO_NEW_PRIVS): a container without that right goes on.
    for number in 0..NUMBERS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if remove_capability_from_bounding_set(one).is_err() {
            break;
        }
    }
    Ok(set_capabilities(None, keeps)?)
}
