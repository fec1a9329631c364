//! One runtime a worker thread: io_uring where it can be had, epoll elsewhere. Tasks, clocks, randomness.

use std::any::Any;
use std::cell::{Cell, OnceCell};
use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use futures_channel::oneshot;
use io_uring::{IoUring, Probe, opcode};
use monoio::net::UnixStream;
use monoio::time::TimeDriver;
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};
use pin_project_lite::pin_project;
use rustix::io::Errno;
use thiserror::Error;

use crate::io::{ring, syscalls};

/// How a worker waits for the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// An io_uring a worker; sockets and file data go through it.
    Uring,
    /// epoll for sockets; all file work on the blocking pool.
    Epoll,
}

impl std::fmt::Display for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Uring => "io_uring",
            Self::Epoll => "epoll",
        })
    }
}

/// Why io_uring cannot be had here. Its text names the remedy.
#[derive(Debug, Error)]
#[error("io_uring is not available: {cause}. {remedy}")]
pub struct NoUring {
    cause: io::Error,
    remedy: &'static str,
}

/// Finds out whether this process may use io_uring.
///
/// # Errors
/// With the reason and what the operator can do about it.
pub fn probe_uring() -> Result<(), NoUring> {
    if !syscalls::found().io_uring {
        let cause = io::Error::other("a system call filter forbids it");
        return Err(NoUring { cause, remedy: "Allow it (systemd: SystemCallFilter=@aio)." });
    }
    let mut probe = Probe::new();
    IoUring::new(8)
        .and_then(|mut ring| {
            ring.submitter().register_probe(&mut probe)?;
            syscalls::enter(&mut ring)
        })
        .map_err(|cause| NoUring { remedy: remedy(&cause), cause })?;
    let needed = [
        opcode::Read::CODE,
        opcode::Write::CODE,
        opcode::Recv::CODE,
        opcode::Send::CODE,
        opcode::Accept::CODE,
        opcode::PollAdd::CODE,
        opcode::AsyncCancel::CODE,
        opcode::Close::CODE,
    ];
    if needed.into_iter().all(|code| probe.is_supported(code)) {
        return Ok(());
    }
    let cause = io::Error::from(io::ErrorKind::Unsupported);
    Err(NoUring {
        cause,
        remedy: "This kernel's io_uring lacks operations that packhouse needs: Linux 5.6 or newer has them.",
    })
}

fn remedy(cause: &io::Error) -> &'static str {
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    match (Errno::from_io_error(cause), disabled.trim()) {
        (_, "1" | "2") => {
            "It is switched off on this machine: `sysctl kernel.io_uring_disabled=0` allows it."
        }
        (Some(Errno::PERM | Errno::ACCESS), _) => {
            "A seccomp profile forbids it (the default one of Docker and containerd does): allow io_uring_setup, io_uring_enter and io_uring_register in the profile."
        }
        (Some(Errno::NOSYS), _) => {
            "The kernel has none, or a seccomp profile hides it: Linux 5.6 or newer is needed."
        }
        (Some(Errno::NOMEM), _) => {
            "The limit on locked memory is too low: raise it (`ulimit -l`, LimitMEMLOCK=)."
        }
        _ => "The epoll driver (`--io-driver epoll`) works without it.",
    }
}

thread_local! {
    static CURRENT: Cell<Option<Driver>> = const { Cell::new(None) };
}

/// The driver of the calling worker; epoll on a thread that is no worker.
pub fn current() -> Driver {
    CURRENT.get().unwrap_or(Driver::Epoll)
}

/// Builds a runtime in the calling thread and runs `main` on it to its end.
///
/// The runtime must not end with operations in flight (the kernel would write to freed memory): `main` of a worker
/// never returns before the process does.
pub fn block_on<F: Future>(driver: Driver, main: F) -> io::Result<F::Output> {
    CURRENT.set(Some(driver));
    match driver {
        Driver::Uring => Ok(uring_runtime()?.block_on(main)),
        Driver::Epoll => Ok(RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()?.block_on(main)),
    }
}

type UringRuntime = monoio::Runtime<TimeDriver<IoUringDriver>>;

/// A runtime whose ring is held to the operations in use, or to none where the kernel knows no limits (before 5.10).
fn uring_runtime() -> io::Result<UringRuntime> {
    ring::limited(|| best_ring(true)).or_else(|e| {
        let unlimited = best_ring(false)?;
        ring::note_unlimited(&e);
        Ok(unlimited)
    })
}

/// The best ring that the kernel takes: cooperative task running is 5.19, the single issuer 6.0. A `disabled` one does nothing
/// until it is enabled.
fn best_ring(disabled: bool) -> io::Result<UringRuntime> {
    const SETUPS: [fn(&mut io_uring::Builder); 3] = [
        |ring| {
            ring.setup_coop_taskrun().setup_single_issuer();
        },
        |ring| {
            ring.setup_coop_taskrun();
        },
        |_| (),
    ];
    for setup in SETUPS {
        let mut ring = IoUring::builder();
        setup(&mut ring);
        if disabled {
            ring.setup_r_disabled();
        }
        match RuntimeBuilder::<IoUringDriver>::new().uring_builder(ring).enable_timer().build() {
            Err(e) if Errno::from_io_error(&e) == Some(Errno::INVAL) => {}
            other => return other,
        }
    }
    Err(Errno::INVAL.into())
}

/// Starts a task on this worker and lets it go. Should it panic, the worker goes on.
pub fn spawn(task: impl Future<Output = ()> + 'static) {
    let task = supervise(task, |_| ());
    drop(monoio::spawn(async {
        if let Err(panic) = task.await {
            log::error!("a background task panicked: {panic}");
        }
    }));
}

/// A task that was begun, and what comes of it.
pub struct Begun<T>(oneshot::Receiver<T>);

/// Starts a task on this worker. It runs to its end, whether or not anybody waits for that.
pub fn begin<T: 'static>(work: impl Future<Output = T> + 'static) -> Begun<T> {
    let (answer, answered) = oneshot::channel();
    // Who has gone needs no answer.
    spawn(async move { drop(answer.send(work.await)) });
    Begun(answered)
}

impl<T> Begun<T> {
    /// Waits for the end. To be called once.
    ///
    /// # Errors
    /// `Other` if the task panicked.
    pub async fn end(&mut self) -> io::Result<T> {
        (&mut self.0).await.map_err(|_canceled| io::Error::other("a background task panicked"))
    }
}

/// Waits.
pub async fn sleep(duration: Duration) {
    monoio::time::sleep(duration).await;
}

/// The monotonic clock.
pub fn now() -> Instant {
    Instant::now()
}

/// 64 random bits from the kernel, or from the clock should it have none.
pub fn random() -> u64 {
    let mut bytes = [0; 8];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(8) => u64::from_ne_bytes(bytes),
        _ => SystemTime::UNIX_EPOCH.elapsed().map_or(1, |d| d.subsec_nanos().into()),
    }
}

/// The time limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed;

/// Whether a time in seconds since 1970, such as the end of a certificate, has passed.
pub fn is_past(time: i64) -> bool {
    let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
    u64::try_from(time).unwrap_or(0) < now
}

/// Time for a last look when a time is over.
const LAST_LOOK: Duration = Duration::from_millis(1);

/// Runs `work` for at most `limit`; it is cancelled when the time is over, and what it waits for has not come in it. Where the
/// process was stopped (SIGSTOP, a suspended machine), the time is over before the kernel was asked what has come.
pub async fn timeout<F: Future>(limit: Duration, work: F) -> Result<F::Output, Elapsed> {
    let mut work = pin!(work);
    if let Ok(done) = monoio::time::timeout(limit, work.as_mut()).await {
        return Ok(done);
    }
    monoio::time::timeout(LAST_LOOK, work).await.map_err(|_elapsed| Elapsed)
}

thread_local! {
    /// A socket of the calling worker that can always be written to.
    static READY: OnceCell<Option<Rc<UnixStream>>> = const { OnceCell::new() };
}

/// Lets every task that can run have a turn, and the kernel tell what has ended.
///
/// A task of monoio that wakes itself is the next one to run: it would have the worker for itself. So something else
/// wakes it: the ring, asked for what is so already, or another task at the end of the queue.
pub async fn turn() {
    if current() == Driver::Uring {
        let pair = || UnixStream::pair().ok().map(|(one, _other)| Rc::new(one));
        if let Some(ready) = READY.with(|ready| ready.get_or_init(pair).clone()) {
            // Without an answer a turn has passed as well.
            ready.writable(false).await.ok();
            return;
        }
    }
    let (wake, woken) = oneshot::channel();
    drop(monoio::spawn(async {
        // Who has gone needs no turn.
        wake.send(()).ok();
    }));
    woken.await.ok();
}

/// What came first in [`race`].
pub enum Either<A, B> {
    /// The first future ended.
    Left(A),
    /// The second future ended.
    Right(B),
}

pin_project! {
    struct Race<A, B> {
        #[pin]
        a: A,
        #[pin]
        b: B,
    }
}

impl<A: Future, B: Future> Future for Race<A, B> {
    type Output = Either<A::Output, B::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let race = self.project();
        if let Poll::Ready(out) = race.a.poll(cx) {
            return Poll::Ready(Either::Left(out));
        }
        race.b.poll(cx).map(Either::Right)
    }
}

/// Runs both until one ends; the other is cancelled. The first has precedence.
///
/// No `async fn`: that would keep its arguments beside what it pins, and every connection waits in one.
pub fn race<A: Future, B: Future>(a: A, b: B) -> impl Future<Output = Either<A::Output, B::Output>> {
    Race { a, b }
}

/// A turn of a worker that took longer than this is a stall.
pub const STALL: Duration = Duration::from_millis(10);

/// Runs `task` so that a panic ends only the task, and reports every turn that took longer than [`STALL`].
///
/// # Errors
/// The message of the panic.
pub fn supervise<F: Future>(
    task: F,
    on_stall: impl Fn(Duration),
) -> impl Future<Output = Result<F::Output, String>> {
    // No async fn: its future would keep room for the task beside the box.
    let mut task = Box::pin(task);
    poll_fn(move |cx| {
        let start = Instant::now();
        let polled = catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(cx)));
        let took = start.elapsed();
        if took > STALL {
            on_stall(took);
        }
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(out)) => Poll::Ready(Ok(out)),
            Err(panic) => Poll::Ready(Err(message(&*panic))),
        }
    })
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_both(test: impl AsyncFn()) {
        for driver in [Driver::Epoll, Driver::Uring] {
            if driver == Driver::Uring
                && let Err(e) = probe_uring()
            {
                eprintln!("SKIPPED on io_uring: {e}");
                continue;
            }
            block_on(driver, test()).expect("a runtime");
        }
    }

    #[test]
    fn a_panic_ends_only_its_task_and_a_long_turn_is_a_stall() {
        on_both(async || {
            let stalls = Cell::new(0);
            let task = async {
                sleep(Duration::from_millis(1)).await;
                std::thread::sleep(STALL * 2);
                assert!(stalls.get() > 5, "on purpose");
            };
            let ended = supervise(task, |_| stalls.set(stalls.get() + 1)).await;
            assert_eq!(ended, Err("on purpose".into()));
            assert_eq!(stalls.get(), 1);
        });
    }

    #[test]
    fn a_timeout_cancels() {
        on_both(async || {
            assert_eq!(timeout(Duration::from_millis(5), std::future::pending::<()>()).await, Err(Elapsed));
            assert_eq!(timeout(Duration::from_secs(5), async { 1 }).await, Ok(1));
        });
    }
}
