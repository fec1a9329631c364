//! One connection: request after request. The only place that writes responses and logs requests: one request, one line.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::header::{REFERER, USER_AGENT};
use http::{HeaderValue, Method, StatusCode};
use thiserror::Error;

use crate::api::list::ListBody;
use crate::api::{self, Answer, Content, Origin, Request};
use crate::http::conn::{NoRequest, TransferError, Waited};
use crate::http::date::with_date;
use crate::http::head::Target;
use crate::http::pace::Pace;
use crate::http::response::Ending;
use crate::http::{Conn, Head, ResponseHead};
use crate::io::file::Sent;
use crate::io::runtime::{Either, now, race, turn};
use crate::logging::access::{self, AccessLog};
use crate::logging::{self, limit};
use crate::metrics::Refusal;
use crate::server::balance::{BUSY_FOR, Seat};
use crate::server::crowd::Newcomer;
use crate::server::door::Visitor;
use crate::server::shard::{RequestId, Shard};
use crate::store::{self, Download, Listing, Store};
use crate::tls::DetachedStream;
use crate::types::{ByteRange, Principal, UserName};

/// Pieces of a cached object that are sent before others have their turn, should the client take them that fast.
const TURNS: usize = 4;

/// An object of so many bytes is sent with the head of its answer.
const SHORT_BYTES: usize = 16 * 1024;

/// Why a response did not get to its end.
#[derive(Debug, Error)]
enum Broken {
    #[error(transparent)]
    Transfer(#[from] TransferError),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("the object is shorter than it was when it was opened")]
    Shrunk,
}

/// Serves a connection to its end, or until it is to move to another worker: then it comes back with its new seat. What
/// takes room is boxed, so that an idle connection holds little.
pub async fn serve<S: Store>(
    shard: Rc<Shard<S>>,
    visitor: Visitor,
    seat: Seat,
) -> Option<(Visitor<DetachedStream>, Seat)> {
    let Visitor { stream, origin, limits, newcomer } = visitor;
    let mut conn = Conn::new(stream, limits, shard.receive_buffers.clone(), newcomer.bytes());
    let mut seat = Some(seat);
    // A client that connects has a request: the first one has less time than the next ones.
    let mut idle = if newcomer.has_asked() { limits.idle } else { limits.idle.min(limits.head) };
    loop {
        let request = wait(&mut conn, idle, &mut seat);
        let Either::Right(Waited::Request) = race(shard.stopping.wait(), request).await else {
            return None;
        };
        if origin.is_outdated(shard.live.status.tls.as_ref()) {
            // A client with a good certificate shows it again on its next connection.
            return None;
        }
        idle = limits.idle;
        newcomer.asks();
        let sitting = seat.take().unwrap_or_else(|| shard.shared.balance.sit(shard.number));
        let start = now();
        // Half a head at the stop is no request in flight: its client tries again elsewhere.
        let Either::Left(head) = race(conn.read_head(), shard.stopping.wait()).await else { return None };
        let next = match head {
            Ok(head) => Box::pin(exchange(&shard, &mut conn, (&origin, &newcomer), &head, start)).await,
            Err(NoRequest::Closed) => Next::Abort,
            Err(refused) => Box::pin(refuse_head(&shard, &mut conn, &origin, &refused, start)).await,
        };
        match next {
            // Who sends requests ahead of the answers lets others come first.
            Next::Request if !conn.is_idle() => turn().await,
            Next::Request => {}
            Next::Linger => {
                shard.linger(Box::pin(conn.linger())).await;
                return None;
            }
            Next::Abort => return None,
        }
        // A worker that is to end takes nobody over.
        let can_move = || conn.is_idle() && !shard.shared.stopping.is_raised();
        if let Some(worker) = shard.shared.balance.better(shard.number).filter(|_| can_move()) {
            // Counted there before it is counted here no more: else others would follow.
            let new = shard.shared.balance.sit(worker);
            let stream = conn.into_stream().detach().ok()?;
            return Some((Visitor { stream, origin, limits, newcomer }, new));
        }
        seat = Some(sitting);
    }
}

/// Waits for a request, for the `idle` time at the most; gives the seat up when none comes for a while.
async fn wait(conn: &mut Conn, idle: Duration, seat: &mut Option<Seat>) -> Waited {
    let busy = BUSY_FOR.min(idle);
    match conn.wait(busy).await {
        Waited::Silent => {
            *seat = None;
            conn.wait(idle.saturating_sub(busy)).await
        }
        other => other,
    }
}

/// What becomes of a connection after an answer.
enum Next {
    Request,
    Linger,
    Abort,
}

/// Answers one request.
async fn exchange<S: Store>(
    shard: &Shard<S>,
    conn: &mut Conn,
    (origin, newcomer): (&Origin, &Newcomer),
    request: &Head,
    start: Instant,
) -> Next {
    let rules = shard.live.rules.load_full();
    let caller = origin.caller(&rules, &request.headers);
    let entry = Entry { address: caller.address, request: Some(request), id: shard.next_request_id(), start };
    let mut body = conn.body(request);
    let let_in = |who: &Principal| newcomer.let_in(who.user().is_some());
    let asked =
        Request { head: request, caller: &caller, admin: origin.admin, rules: &rules, let_in: &let_in };
    let mut answer = api::handle(&shard.live, &asked, &mut body).await;
    if let Some(hsts) = rules.hsts.as_ref().filter(|_| origin.encrypted) {
        answer.head.headers.push(("Strict-Transport-Security", hsts.clone().into()));
    }
    drop(rules);
    let Answer { head, content, who, place, reason, refusal, reading, hang_up } = answer;
    let ending = ending(&content, request);
    let keep = request.keep_alive && !hang_up && ending != Ending::Close && body.may_keep_alive();
    let keep = keep && !shard.shared.stopping.is_raised();
    let head_bytes = head.encode(ending, keep, request.is_1_1);
    let content = Some(content).filter(|_| request.method != Method::HEAD);
    let mut sent = 0;
    let written = write(shard, body.conn(), head_bytes, content, ending, &mut sent).await;
    if let Some(row) = reading {
        row.read.increment();
        row.read_bytes.add(sent);
    }
    drop(place);
    entry.log(shard, who.as_ref(), head.status, reason.as_deref(), refusal, (sent, &written));
    match written {
        Err(_) => Next::Abort,
        Ok(()) if keep && body.settle().await => Next::Request,
        Ok(()) => Next::Linger,
    }
}

/// How the end of an answer's body is told.
fn ending<S: Store>(content: &Content<S>, request: &Head) -> Ending {
    match content {
        Content::Text(text) => Ending::Length(text.len() as u64),
        Content::Length(length) => Ending::Length(*length),
        Content::Object(_, range) => Ending::Length(range.len()),
        Content::List(_) if request.is_1_1 => Ending::Chunked,
        Content::List(_) => Ending::Close,
    }
}

/// Writes one response; counts the bytes of its body into `sent`.
async fn write<S: Store>(
    shard: &Shard<S>,
    conn: &mut Conn,
    mut head: Vec<u8>,
    content: Option<Content<S>>,
    ending: Ending,
    sent: &mut u64,
) -> Result<(), Broken> {
    let mut pace = Pace::default();
    if let Some(Content::Text(text)) = &content {
        head.extend(text.as_bytes());
    }
    let follows = match &content {
        Some(Content::Object(object, range)) => !range.is_empty() && !goes_along(object, *range, &mut head),
        _ => false,
    };
    conn.send_before(&head, follows, &mut pace).await?;
    match content {
        Some(Content::Object(object, range)) if follows => {
            write_object(shard, conn, &object, range, &mut pace, sent).await?;
        }
        Some(Content::Object(_, range)) => *sent = range.len(),
        Some(Content::List(list)) => write_list(conn, list, ending, &mut pace, sent).await?,
        Some(Content::Text(text)) => *sent = text.len() as u64,
        Some(Content::Length(_)) | None => {}
    }
    Ok(())
}

/// Adds what is short and in memory of an object to the head of its answer.
fn goes_along(object: &impl Download, range: ByteRange, head: &mut Vec<u8>) -> bool {
    match (object.file(), usize::try_from(range.len())) {
        (Some(file), Ok(count @ ..=SHORT_BYTES)) => file.read_cached(head, range.start, count),
        _ => false,
    }
}

async fn write_object<S: Store>(
    shard: &Shard<S>,
    conn: &mut Conn,
    object: &S::Download,
    range: ByteRange,
    pace: &mut Pace,
    sent: &mut u64,
) -> Result<(), Broken> {
    let mut at = range.start;
    // An object begins when nothing waits to be sent.
    let mut turns = TURNS;
    while at < range.end {
        if turns == 0 {
            conn.writable(pace).await?;
            turns = TURNS;
        }
        let rest = ByteRange { start: at, end: range.end };
        let direct = match object.file().filter(|_| shard.sendfile) {
            Some(file) => conn.send_file(file, rest, pace)?,
            None => Sent::Cold,
        };
        turns = if let Sent::Bytes(_) = direct { turns - 1 } else { 0 };
        let count = match direct {
            Sent::Bytes(0) => return Err(Broken::Shrunk),
            Sent::Bytes(count) => count,
            Sent::Full => 0,
            Sent::Cold => send_read(shard, conn, object, rest, pace).await?,
        };
        at += count as u64;
        *sent += count as u64;
    }
    Ok(conn.push(pace).await?)
}

/// Reads a piece of an object and sends of it what the client takes now.
async fn send_read<S: Store>(
    shard: &Shard<S>,
    conn: &mut Conn,
    object: &S::Download,
    range: ByteRange,
    pace: &mut Pace,
) -> Result<usize, Broken> {
    let mut buffer = shard.send_buffers.take().await;
    // What is not taken would be read again.
    buffer.limit(usize::try_from(range.len()).unwrap_or(usize::MAX).min(conn.piece_bytes()));
    let buffer = object.read(range.start, buffer).await?;
    if buffer.is_empty() {
        return Err(Broken::Shrunk);
    }
    let count = conn.send_some(&buffer, pace)?;
    drop(buffer);
    // TLS has taken what it has encrypted.
    conn.push(pace).await?;
    Ok(count)
}

async fn write_list<L: Listing>(
    conn: &mut Conn,
    mut list: ListBody<L>,
    ending: Ending,
    pace: &mut Pace,
    sent: &mut u64,
) -> Result<(), Broken> {
    while let Some(piece) = list.next().await? {
        let count = piece.len() as u64;
        let piece = if ending == Ending::Chunked { chunk(piece) } else { piece };
        conn.send(&piece, pace).await?;
        *sent += count;
        // A client that reads as fast as the disk is read would keep the worker to itself.
        turn().await;
    }
    if ending == Ending::Chunked {
        conn.send(b"0\r\n\r\n", pace).await?;
    }
    Ok(())
}

/// Makes a chunk of a piece, in its place: two copies would last for as long as the client does not read.
fn chunk(mut piece: Vec<u8>) -> Vec<u8> {
    let head = format!("{:x}\r\n", piece.len());
    piece.splice(..0, head.bytes());
    piece.extend(b"\r\n");
    piece
}

/// Answers a head that can't be served.
async fn refuse_head<S: Store>(
    shard: &Shard<S>,
    conn: &mut Conn,
    origin: &Origin,
    refused: &NoRequest,
    start: Instant,
) -> Next {
    let status = match refused {
        NoRequest::Refused(error) => error.status(),
        NoRequest::Closed | NoRequest::TimedOut => StatusCode::REQUEST_TIMEOUT,
    };
    let text = format!("{refused}\n");
    let head = ResponseHead::text(status);
    let mut bytes = head.encode(Ending::Length(text.len() as u64), false, true);
    bytes.extend(text.as_bytes());
    let entry = Entry { address: origin.address, request: None, id: shard.next_request_id(), start };
    let written = conn.send(&bytes, &mut Pace::default()).await.map_err(Broken::from);
    let reason = refused.to_string();
    entry.log(shard, None, status, Some(&reason), Some(Refusal::Request), (text.len() as u64, &written));
    Next::Linger
}

/// What the logs say about a request.
struct Entry<'r> {
    address: Option<IpAddr>,
    request: Option<&'r Head>,
    id: RequestId,
    start: Instant,
}

impl Entry<'_> {
    fn log<S>(
        &self,
        shard: &Shard<S>,
        who: Option<&Principal>,
        status: StatusCode,
        reason: Option<&str>,
        refusal: Option<Refusal>,
        (sent, written): (u64, &Result<(), Broken>),
    ) {
        let counters = &shard.live.counters;
        let method = self.request.map_or("-", |request| request.method.as_str());
        counters.note_request(method, status.as_u16(), self.start.elapsed());
        if let Some(refusal) = refusal {
            counters.note_refusal(refusal);
        }
        if let Some(log) = &shard.shared.access_log {
            self.write_access(log, who, status, sent);
        }
        let level = match status.as_u16() {
            // What every scanner of the network does: it has logged in nowhere, and has done nothing. Wrong passwords have a
            // line of their own.
            400..=499 | 501 | 505 if who.is_none() => log::Level::Debug,
            // A method, coding or version that is not spoken here is the client's matter.
            501 | 505 => log::Level::Info,
            500.. => log::Level::Error,
            400.. => log::Level::Info,
            _ if written.is_err() => log::Level::Info,
            _ => log::Level::Debug,
        };
        if !log::log_enabled!(level) || !limit::admits(self.address) {
            return;
        }
        let target = self.request.map_or_else(|| "-".into(), |request| shown(&request.target));
        let method = logging::shown(method.as_bytes());
        let who = who.map_or_else(|| "-".into(), ToString::to_string);
        let took = self.start.elapsed().as_secs_f64() * 1000.0;
        let named = |reason: &str| format!(" reason=\"{}\"", reason.escape_default());
        let reason = reason.map(named).unwrap_or_default();
        let aborted =
            written.as_ref().err().map(|broken| named(&format!("aborted: {broken}"))).unwrap_or_default();
        let (address, id, status) = (self.shown_address(), self.id, status.as_u16());
        log::log!(
            level,
            "{address} user={who} \"{method} {target}\" status={status} bytes={sent} ms={took:.1} id={id}{reason}{aborted}"
        );
    }

    fn shown_address(&self) -> String {
        self.address.map_or_else(|| "unix".into(), |address| address.to_string())
    }

    fn write_access(&self, log: &AccessLog, who: Option<&Principal>, status: StatusCode, bytes: u64) {
        let request = self.request.map_or_else(
            || "-".into(),
            |r| {
                let method = logging::shown(r.method.as_str().as_bytes());
                format!("{method} {} HTTP/1.{}", shown(&r.target), u8::from(r.is_1_1))
            },
        );
        let header =
            |name| self.request.and_then(|r| r.headers.get(name)).map_or(&b""[..], HeaderValue::as_bytes);
        with_date(|date| {
            log.write(&access::Entry {
                address: &self.shown_address(),
                user: who.and_then(Principal::user).map(UserName::as_str),
                date,
                request: &request,
                status: status.as_u16(),
                bytes,
                referer: header(REFERER),
                agent: header(USER_AGENT),
            });
        });
    }
}

/// The target as the client wrote it, with everything but printable ASCII escaped: no line of the log can be forged.
fn shown(target: &Target) -> String {
    match target {
        Target::Asterisk => "*".into(),
        Target::Path { path, query } if query.is_empty() => logging::shown(path),
        Target::Path { path, query } => format!("{}?{}", logging::shown(path), logging::shown(query)),
    }
}
