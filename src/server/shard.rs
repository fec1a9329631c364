//! One worker: its runtime, its accept loops, its connections, and its end.

use std::cell::Cell;
use std::fmt;
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use event_listener::Event;

use crate::api::Live;
use crate::http::proxy::ProxyError;
use crate::io::BufferPool;
use crate::io::gate::Permit;
use crate::io::listener::{Acceptor, Shared as SharedListener};
use crate::io::runtime::{Either, race, sleep, spawn, supervise, timeout, turn};
use crate::io::signal::Latch;
use crate::io::socket::Socket;
use crate::io::wake::until;
use crate::logging::access::AccessLog;
use crate::logging::limit;
use crate::server::balance::{Balance, Moving, Parcel, Seat};
use crate::server::connection;
use crate::server::crowd::{Crowd, Newcomer};
use crate::server::door::{self, Door, MuteProxies, Turned, Visitor};
use crate::server::gate::Gates;
use crate::store::Store;

/// How long an accept loop rests after a failure, such as for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often an accept loop without room looks for a connection to close.
const ROOM_PAUSE: Duration = Duration::from_millis(50);

/// How long a server that is stopping waits for clients that have their answer to close: one that still sends would lose it
/// to the reset of the connection.
const LINGER_AT_STOP: Duration = Duration::from_millis(250);

/// What all shards share.
pub struct Shared {
    /// Raised when the server is to end: no new connections, no new requests.
    pub stopping: Arc<Latch>,
    /// How many connections and requests there may be.
    pub gates: Gates,
    /// Connections of clients that were never let in.
    pub crowd: Arc<Crowd>,
    /// Proxies that send no header.
    pub mute_proxies: MuteProxies,
    /// Which worker serves which connection.
    pub balance: Arc<Balance>,
    /// Where requests are logged.
    pub access_log: Option<Arc<AccessLog>>,
}

/// What one worker's connections share.
pub struct Shard<S> {
    /// What requests are answered with.
    pub live: Live<S>,
    /// For request bodies.
    pub receive_buffers: BufferPool,
    /// For objects on their way out. Apart from the others: clients that do not read must not stop uploads.
    pub send_buffers: BufferPool,
    /// Whether cached objects are sent straight from their files.
    pub sendfile: bool,
    /// What it shares with other workers.
    pub shared: Arc<Shared>,
    /// Which of the workers this is.
    pub number: usize,
    /// Raised when the one that is shared was. Every request waits for it, which takes a lock that no other worker takes.
    pub stopping: Latch,
    requests: Cell<u64>,
    /// Tells this process's request ids from those of another.
    id_prefix: u32,
    connections: Cell<usize>,
    /// Of those, the ones that are answered and only wait for the client to close.
    lingering: Cell<usize>,
    connection_ended: Event,
}

impl<S: Store> Shard<S> {
    /// The worker of this number, with `buffers` transfer buffers in each direction; the ids of its requests start with
    /// `id_prefix`.
    pub fn new(live: Live<S>, number: usize, buffers: usize, shared: Arc<Shared>, id_prefix: u32) -> Self {
        Self {
            live,
            receive_buffers: BufferPool::new(buffers),
            send_buffers: BufferPool::new(buffers),
            sendfile: true,
            shared,
            number,
            stopping: Latch::default(),
            requests: Cell::new(0),
            id_prefix,
            connections: Cell::new(0),
            lingering: Cell::new(0),
            connection_ended: Event::new(),
        }
    }

    /// Serves until the server is to end, then lets requests in flight finish for at most `drain`. Returns how many
    /// connections were left.
    pub async fn run(
        self: Rc<Self>,
        listeners: Vec<(SharedListener, Door)>,
        drain: Duration,
    ) -> std::io::Result<usize> {
        // What that needs is opened now, not when descriptors are short.
        turn().await;
        for (listener, door) in listeners {
            spawn(accept(Rc::clone(&self), listener.register()?, door));
        }
        spawn(adopt(Rc::clone(&self)));
        self.shared.stopping.wait().await;
        self.stopping.raise();
        let answered = until(&self.connection_ended, || (self.unanswered() == 0).then_some(()));
        timeout(drain, answered).await.ok();
        let ended = until(&self.connection_ended, || (self.connections.get() == 0).then_some(()));
        timeout(LINGER_AT_STOP, ended).await.ok();
        Ok(self.unanswered())
    }
}

impl<S> Shard<S> {
    /// A connection could not move to another worker, for want of descriptors.
    fn lose(&self, cause: &std::io::Error) {
        log::warn!("a connection was lost on its way to another worker: {cause}");
        self.live.counters.connections_ended.increment();
    }

    /// Connections with a request that is not answered yet.
    fn unanswered(&self) -> usize {
        self.connections.get().saturating_sub(self.lingering.get())
    }

    /// The last answer of a connection is sent; until `closing` ends it only waits for the client to close. A server that is
    /// stopping does not wait for that.
    pub async fn linger(&self, closing: impl Future<Output = ()>) {
        let _counted = Lingering::begin(&self.lingering);
        self.connection_ended.notify(usize::MAX);
        closing.await;
    }

    /// An id for the next request.
    pub fn next_request_id(&self) -> RequestId {
        let number = self.requests.get();
        self.requests.set(number + 1);
        RequestId { prefix: self.id_prefix, number }
    }
}

/// A connection that only waits for its client to close; it may be given up meanwhile.
struct Lingering<'s>(&'s Cell<usize>);

impl<'s> Lingering<'s> {
    fn begin(count: &'s Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Lingering<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// Names a request in the log: unique in this process's life, and hardly ever repeated by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId {
    prefix: u32,
    number: u64,
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{:x}", self.prefix, self.number)
    }
}

async fn accept<S: Store>(shard: Rc<Shard<S>>, acceptor: Acceptor, door: Door) {
    // Not the shard's own: the listener is shut down at the same time, which is no failure.
    let stopping = &shard.shared.stopping;
    loop {
        let next = async {
            let connections = &shard.shared.gates.connections;
            let permit = loop {
                if let Some(permit) = connections.try_enter() {
                    break permit;
                }
                shard.shared.crowd.close_oldest();
                if let Ok(permit) = timeout(ROOM_PAUSE, connections.enter()).await {
                    break permit;
                }
            };
            (acceptor.accept().await, permit)
        };
        match race(stopping.wait(), next).await {
            Either::Left(()) => return,
            Either::Right((Ok(socket), permit)) => {
                shard.live.counters.connections.increment();
                let balance = &shard.shared.balance;
                let seat = balance.sit(balance.of_new(shard.number));
                if seat.worker() == shard.number {
                    spawn(connect(Rc::clone(&shard), Coming::New(socket, door.clone()), permit, seat));
                    continue;
                }
                match socket.detach() {
                    Ok(socket) => {
                        balance.send(Moving { what: Parcel::New(socket, door.clone()), permit, seat });
                    }
                    Err(e) => shard.lose(&e),
                }
            }
            Either::Right((Err(e), _)) => {
                // A connection that was reset while it waited is nobody's loss. Anything else would come again at once.
                if matches!(e.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) {
                    log::debug!("a connection was lost before it was accepted: {e}");
                    continue;
                }
                shard.live.counters.accept_failures.increment();
                log::warn!(
                    "cannot accept a connection: {e}: trying again in {} ms",
                    ACCEPT_PAUSE.as_millis()
                );
                race(stopping.wait(), sleep(ACCEPT_PAUSE)).await;
            }
        }
    }
}

/// Takes over connections that other workers send, until the server is to end: then no request of theirs is served.
async fn adopt<S: Store>(shard: Rc<Shard<S>>) {
    loop {
        let coming = race(shard.stopping.wait(), shard.shared.balance.receive(shard.number)).await;
        let Either::Right(Moving { what, permit, seat }) = coming else { return };
        let coming = match what {
            Parcel::New(socket, door) => socket.attach().map(|socket| Coming::New(socket, door)),
            Parcel::Known(visitor) => visitor.attach().map(|visitor| Coming::Known(Box::new(visitor))),
        };
        match coming {
            Ok(coming) => spawn(connect(Rc::clone(&shard), coming, permit, seat)),
            Err(e) => shard.lose(&e),
        }
    }
}

/// A connection that this worker is to serve.
enum Coming {
    New(Socket, Door),
    Known(Box<Visitor>),
}

async fn connect<S: Store>(shard: Rc<Shard<S>>, coming: Coming, permit: Permit, seat: Seat) {
    shard.connections.set(shard.connections.get() + 1);
    let peer = match &coming {
        Coming::New(socket, _) => socket.peer().to_string(),
        Coming::Known(visitor) => {
            visitor.origin.address.map_or_else(|| "unix".into(), |address| address.to_string())
        }
    };
    let counters = Arc::clone(&shard.live.counters);
    let ended = supervise(visit(Rc::clone(&shard), coming, permit, seat), |took| {
        counters.stalls.increment();
        log::debug!("a worker stalled for {} ms", took.as_millis());
    });
    let moved = ended.await.unwrap_or_else(|panic| {
        counters.panics.increment();
        log::error!("{peer}: the connection ended in a panic: {panic}");
        false
    });
    if !moved {
        counters.connections_ended.increment();
    }
    shard.connections.set(shard.connections.get() - 1);
    shard.connection_ended.notify(usize::MAX);
}

/// One connection from its first byte here to its last. True if it goes on with another worker.
async fn visit<S: Store>(shard: Rc<Shard<S>>, coming: Coming, permit: Permit, seat: Seat) -> bool {
    let visitor = match coming {
        Coming::Known(visitor) => *visitor,
        Coming::New(socket, door) => match enter(&shard, &door, shard.shared.crowd.welcome(), socket).await {
            Some(visitor) => visitor,
            None => return false,
        },
    };
    let closed = visitor.newcomer.closed();
    let served = Box::pin(connection::serve(Rc::clone(&shard), visitor, seat));
    let moved = match race(closed.wait(), served).await {
        Either::Left(()) => {
            shard.live.counters.crowded.increment();
            return false;
        }
        Either::Right(moved) => moved,
    };
    let Some((visitor, seat)) = moved else { return false };
    shard.shared.balance.send(Moving { what: Parcel::Known(Box::new(visitor)), permit, seat });
    true
}

/// Lets a new connection in.
async fn enter<S: Store>(
    shard: &Shard<S>,
    door: &Door,
    newcomer: Newcomer,
    socket: Socket,
) -> Option<Visitor> {
    let peer = socket.peer();
    let rules = shard.live.rules.load_full();
    // What is needed at the entrance takes no room afterwards.
    let closed = newcomer.closed();
    let entering = Box::pin(door::enter(door, &rules, newcomer, socket));
    match race(race(shard.stopping.wait(), closed.wait()), entering).await {
        Either::Left(Either::Left(())) => None,
        Either::Left(Either::Right(())) => {
            shard.live.counters.crowded.increment();
            None
        }
        Either::Right(Ok(visitor)) => Some(visitor),
        Either::Right(Err(turned)) => {
            let counters = &shard.live.counters;
            match &turned {
                Turned::Crowded => counters.crowded.increment(),
                Turned::Handshake(e) => {
                    if let Some(reason) = e.reason() {
                        counters.note_handshake(reason);
                        if !limit::admits(peer.address()) {
                            return None;
                        }
                        log::info!("{peer}: no TLS: reason={}: {} ({e})", reason.name(), reason.advice());
                        return None;
                    }
                }
                Turned::Proxy(ProxyError::Malformed(what)) if shard.shared.mute_proxies.note(peer, what) => {
                    log::warn!("{peer}: not served: {turned}. This is told once of each proxy and cause");
                    return None;
                }
                Turned::Proxy(_) => {}
            }
            log::debug!("{peer}: not served: {turned}");
            None
        }
    }
}
