//! Waiting for something that another task or thread makes true.

use event_listener::Event;

/// Tries until `attempt` gives something, again after every notification of `event`. Whoever makes it possible must do
/// so before it notifies.
pub async fn until<T>(event: &Event, mut attempt: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(got) = attempt() {
            return got;
        }
        let notified = event.listen();
        // It may have become possible between the try and the listen.
        if let Some(got) = attempt() {
            return got;
        }
        notified.await;
    }
}
