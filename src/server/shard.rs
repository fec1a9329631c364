//! One worker: its runtime, its accept loops, its connections, and its end.

use std::cell::Cell;
use std::fmt;
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use event_listener::Event;

use crate::api::Live;
use crate::io::BufferPool;
use crate::io::listener::{Acceptor, Shared as SharedListener};
use crate::io::runtime::{Either, race, sleep, spawn, supervise, timeout};
use crate::io::signal::Flag;
use crate::io::socket::Socket;
use crate::io::wake::until;
use crate::logging::access::AccessLog;
use crate::server::connection;
use crate::server::crowd::Crowd;
use crate::server::door::{self, Door, Turned, Visitor};
use crate::server::gate::{Gate, Permit};
use crate::store::Store;

/// How long an accept loop rests after a failure, such as for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What all shards share.
pub struct Shared {
    /// Raised when the server is to end: no new connections, no new requests.
    pub stopping: Arc<Flag>,
    /// How many connections there may be.
    pub gate: Arc<Gate>,
    /// How many of one address.
    pub crowd: Arc<Crowd>,
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
    requests: Cell<u64>,
    /// Tells this process's request ids from those of another.
    id_prefix: u32,
    connections: Cell<usize>,
    connection_ended: Event,
}

impl<S: Store> Shard<S> {
    /// A worker with `buffers` transfer buffers in each direction; the ids of its requests start with `id_prefix`.
    pub fn new(live: Live<S>, buffers: usize, shared: Arc<Shared>, id_prefix: u32) -> Self {
        Self {
            live,
            receive_buffers: BufferPool::new(buffers),
            send_buffers: BufferPool::new(buffers),
            sendfile: true,
            shared,
            requests: Cell::new(0),
            id_prefix,
            connections: Cell::new(0),
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
        for (listener, door) in listeners {
            spawn(accept(Rc::clone(&self), listener.register()?, Rc::new(door)));
        }
        self.shared.stopping.wait().await;
        let drained = until(&self.connection_ended, || (self.connections.get() == 0).then_some(()));
        timeout(drain, drained).await.ok();
        Ok(self.connections.get())
    }
}

impl<S> Shard<S> {
    /// An id for the next request.
    pub fn next_request_id(&self) -> RequestId {
        let number = self.requests.get();
        self.requests.set(number + 1);
        RequestId { prefix: self.id_prefix, number }
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

async fn accept<S: Store>(shard: Rc<Shard<S>>, acceptor: Acceptor, door: Rc<Door>) {
    let stopping = &shard.shared.stopping;
    loop {
        let next = async {
            let permit = shard.shared.gate.enter().await;
            (acceptor.accept().await, permit)
        };
        match race(stopping.wait(), next).await {
            Either::Left(()) => return,
            Either::Right((Ok(socket), permit)) => {
                shard.live.counters.connections.increment();
                spawn(connect(Rc::clone(&shard), Rc::clone(&door), socket, permit));
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

async fn connect<S: Store>(shard: Rc<Shard<S>>, door: Rc<Door>, socket: Socket, permit: Permit) {
    shard.connections.set(shard.connections.get() + 1);
    let peer = socket.peer();
    let counters = Arc::clone(&shard.live.counters);
    let ended = supervise(visit(Rc::clone(&shard), door, socket), |took| {
        counters.stalls.increment();
        log::debug!("a worker stalled for {} ms", took.as_millis());
    });
    if let Err(panic) = ended.await {
        counters.panics.increment();
        log::error!("{peer}: the connection ended in a panic: {panic}");
    }
    drop(permit);
    counters.connections_ended.increment();
    shard.connections.set(shard.connections.get() - 1);
    shard.connection_ended.notify(usize::MAX);
}

/// One connection from its first byte to its last.
async fn visit<S: Store>(shard: Rc<Shard<S>>, door: Rc<Door>, socket: Socket) {
    let peer = socket.peer();
    let rules = shard.live.rules.load_full();
    // What is needed at the entrance takes no room afterwards.
    let entering = Box::pin(door::enter(&door, &rules, &shard.shared.crowd, socket));
    let entered = match race(shard.shared.stopping.wait(), entering).await {
        Either::Left(()) => return,
        Either::Right(entered) => entered,
    };
    match entered {
        Ok(Visitor { stream, origin, place }) => {
            let limits = rules.limits;
            drop(rules);
            Box::pin(connection::serve(shard, stream, origin, limits)).await;
            drop(place);
        }
        Err(turned) => {
            if let Turned::Crowded = turned {
                shard.live.counters.crowded.increment();
            }
            log::debug!("{peer}: not served: {turned}");
        }
    }
}
