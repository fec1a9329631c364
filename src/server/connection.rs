//! One connection: request after request. The only place that writes responses and logs requests: one request, one line.

use std::rc::Rc;
use std::time::Instant;

use http::{Method, StatusCode};
use thiserror::Error;

use crate::api::list::ListBody;
use crate::api::{self, Answer, Content};
use crate::http::conn::{NoRequest, TransferError};
use crate::http::head::Target;
use crate::http::pace::Pace;
use crate::http::response::Ending;
use crate::http::{Conn, Head, ResponseHead};
use crate::io::runtime::{Either, now, race};
use crate::io::socket::Socket;
use crate::server::shard::Shard;
use crate::store::{self, Download, Listing, Store};
use crate::types::ByteRange;

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

/// Serves a connection to its end.
pub async fn serve<S: Store>(shard: Rc<Shard<S>>, socket: Socket) {
    let mut conn = Conn::new(socket, shard.limits, shard.receive_buffers.clone());
    loop {
        let Either::Right(true) = race(shard.shared.stopping.wait(), conn.wait()).await else {
            return;
        };
        let start = now();
        let head = match conn.read_head().await {
            Ok(head) => head,
            Err(NoRequest::Closed) => return,
            Err(refused) => {
                refuse_head(&shard, &mut conn, &refused, start).await;
                return conn.linger().await;
            }
        };
        // Boxed, so that an idle connection does not keep the room that a request needs.
        match Box::pin(exchange(&shard, &mut conn, &head, start)).await {
            Next::Request => {}
            Next::Linger => return conn.linger().await,
            Next::Abort => return,
        }
    }
}

enum Next {
    Request,
    Linger,
    Abort,
}

/// Answers one request.
async fn exchange<S: Store>(shard: &Shard<S>, conn: &mut Conn, head: &Head, start: Instant) -> Next {
    let id = shard.next_request_id();
    let peer = conn.peer();
    let mut body = conn.body(head);
    let answer = api::handle(&shard.live, head, &mut body).await;
    let keep =
        head.keep_alive && !answer.hang_up && body.may_keep_alive() && !shard.shared.stopping.is_raised();
    let entry = Entry { peer: peer.to_string(), request: Some(head), id, start };
    let (who, status, reason) = (
        answer.who.as_ref().map_or_else(|| "-".into(), ToString::to_string),
        answer.head.status,
        answer.reason.clone(),
    );
    let ending = ending(&answer, head);
    let keep = keep && ending != Ending::Close;
    let sent = write(shard, body.conn(), head, answer, ending, keep).await;
    let reason = reason.as_deref();
    match sent {
        Ok(bytes) => entry.log(shard, &who, status, bytes, reason),
        Err(broken) => {
            let reason = reason.map_or_else(
                || format!("aborted: {broken}"),
                |reason| format!("{reason}; aborted: {broken}"),
            );
            entry.log(shard, &who, status, 0, Some(&reason));
            return Next::Abort;
        }
    }
    if keep && body.settle().await { Next::Request } else { Next::Linger }
}

/// How the end of an answer's body is told.
fn ending<S: Store>(answer: &Answer<S>, request: &Head) -> Ending {
    match &answer.content {
        Content::Text(text) => Ending::Length(text.len() as u64),
        Content::Length(length) => Ending::Length(*length),
        Content::Object(_, range) => Ending::Length(range.len()),
        Content::List(_) if request.is_1_1 => Ending::Chunked,
        Content::List(_) => Ending::Close,
    }
}

/// Writes one response; returns the bytes of its body.
async fn write<S: Store>(
    shard: &Shard<S>,
    conn: &mut Conn,
    request: &Head,
    answer: Answer<S>,
    ending: Ending,
    keep: bool,
) -> Result<u64, Broken> {
    let mut pace = Pace::default();
    let mut bytes = answer.head.encode(ending, keep, request.is_1_1);
    let bodiless = request.method == Method::HEAD;
    match answer.content {
        Content::Text(text) if !bodiless => {
            bytes.extend(text.as_bytes());
            conn.send(bytes, &mut pace).await?;
            Ok(text.len() as u64)
        }
        Content::Text(_) | Content::Length(_) => {
            conn.send(bytes, &mut pace).await?;
            Ok(0)
        }
        Content::Object(object, range) => {
            conn.send(bytes, &mut pace).await?;
            write_object(shard, conn, &object, range, &mut pace).await?;
            Ok(range.len())
        }
        Content::List(list) => {
            conn.send(bytes, &mut pace).await?;
            write_list(conn, list, ending, &mut pace).await
        }
    }
}

async fn write_object<S: Store>(
    shard: &Shard<S>,
    conn: &mut Conn,
    object: &S::Download,
    range: ByteRange,
    pace: &mut Pace,
) -> Result<(), Broken> {
    let mut at = range.start;
    while at < range.end {
        conn.writable().await?;
        let mut buffer = object.read(at, shard.send_buffers.take().await).await?;
        buffer.truncate(usize::try_from(range.end - at).unwrap_or(usize::MAX));
        if buffer.is_empty() {
            return Err(Broken::Shrunk);
        }
        at += buffer.len() as u64;
        conn.send(buffer, pace).await?;
    }
    Ok(())
}

async fn write_list<L: Listing>(
    conn: &mut Conn,
    mut list: ListBody<L>,
    ending: Ending,
    pace: &mut Pace,
) -> Result<u64, Broken> {
    let mut count = 0;
    while let Some(piece) = list.next().await? {
        count += piece.len() as u64;
        let piece = if ending == Ending::Chunked { chunk(&piece) } else { piece };
        conn.send(piece, pace).await?;
    }
    if ending == Ending::Chunked {
        conn.send(b"0\r\n\r\n".as_slice(), pace).await?;
    }
    Ok(count)
}

fn chunk(piece: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()
}

async fn refuse_head<S: Store>(shard: &Shard<S>, conn: &mut Conn, refused: &NoRequest, start: Instant) {
    let status = match refused {
        NoRequest::Refused(error) => error.status(),
        NoRequest::Closed | NoRequest::TimedOut => StatusCode::REQUEST_TIMEOUT,
    };
    let text = format!("{refused}\n");
    let head = ResponseHead::new(status).with("Content-Type", "text/plain; charset=utf-8");
    let mut bytes = head.encode(Ending::Length(text.len() as u64), false, true);
    bytes.extend(text.as_bytes());
    let entry = Entry { peer: conn.peer().to_string(), request: None, id: shard.next_request_id(), start };
    // A client that has gone can't be told.
    conn.send(bytes, &mut Pace::default()).await.ok();
    entry.log(shard, "-", status, text.len() as u64, Some(&refused.to_string()));
}

/// What the log says about a request.
struct Entry<'r> {
    peer: String,
    request: Option<&'r Head>,
    id: String,
    start: Instant,
}

impl Entry<'_> {
    fn log<S>(&self, shard: &Shard<S>, who: &str, status: StatusCode, bytes: u64, reason: Option<&str>) {
        let counters = &shard.shared.counters;
        counters.requests.increment();
        let level = match status.as_u16() {
            500.. => log::Level::Error,
            400.. => log::Level::Info,
            _ if reason.is_some() => log::Level::Info,
            _ => log::Level::Debug,
        };
        if status.as_u16() >= 400 {
            counters.refusals.increment();
        }
        let method = self.request.map_or("-", |request| request.method.as_str());
        let target = self.request.map_or_else(|| "-".into(), |request| shown(&request.target));
        let took = self.start.elapsed().as_secs_f64() * 1000.0;
        let reason =
            reason.map(|reason| format!(" reason=\"{}\"", reason.escape_default())).unwrap_or_default();
        let Self { peer, id, .. } = self;
        log::log!(
            level,
            "{peer} user={who} \"{method} {target}\" status={} bytes={bytes} ms={took:.1} id={id}{reason}",
            status.as_u16()
        );
    }
}

/// The target as the client wrote it, with everything but printable ASCII escaped: no line of the log can be forged.
fn shown(target: &Target) -> String {
    match target {
        Target::Asterisk => "*".into(),
        Target::Path { path, query } if query.is_empty() => path.escape_ascii().to_string(),
        Target::Path { path, query } => format!("{}?{}", path.escape_ascii(), query.escape_ascii()),
    }
}
