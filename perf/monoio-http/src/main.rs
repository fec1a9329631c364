//! As little of a restic REST server as can be measured, on monoio-http: objects are stored verified and synced, read whole or
//! in one range, and asked for by HEAD. No logins, no lists, no limits: never serve anything real with it.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, RANGE};
use http::{Method, StatusCode};
use monoio::FusionDriver;
use monoio::io::Splitable;
use monoio::io::sink::SinkExt;
use monoio::io::stream::Stream;
use monoio::net::{TcpListener, TcpStream};
use monoio_http::common::request::Request;
use monoio_http::common::response::Response;
use monoio_http::h1::codec::decoder::RequestDecoder;
use monoio_http::h1::codec::encoder::GenericEncoder;
use monoio_http::h1::payload::{FixedPayload, Payload};
use monoio_http::util::spsc::spsc_pair;

/// Makes names of temporary files differ.
static NEXT: AtomicUsize = AtomicUsize::new(0);

fn main() {
    let mut args = std::env::args().skip(1);
    let (Some(address), Some(root)) = (args.next(), args.next()) else {
        eprintln!("usage: packhouse-perf-monoio-http ADDRESS FOLDER");
        std::process::exit(2);
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let mut runtime = monoio::RuntimeBuilder::<FusionDriver>::new().build().expect("a runtime");
                runtime.block_on(serve(&address, Path::new(&root)))
            });
        }
    });
}

async fn serve(address: &str, root: &Path) {
    let listener = TcpListener::bind(address).expect("the address is free");
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).ok();
            monoio::spawn(connection(stream, root.to_owned()));
        }
    }
}

/// One task receives and one answers, because a body arrives only while the decoder is asked for the next request.
async fn connection(stream: TcpStream, root: PathBuf) {
    let (read, write) = stream.into_split();
    let (mut requests, mut answers) = (RequestDecoder::new(read), GenericEncoder::new(write));
    let (mut sender, mut receiver) = spsc_pair::<Request>();
    monoio::spawn(async move {
        while let Some(request) = receiver.recv().await {
            let answer = answer(request, &root).await;
            if answers.send_and_flush(answer).await.is_err() {
                break;
            }
        }
    });
    while let Some(Ok(request)) = requests.next().await {
        if sender.send(request).await.is_err() {
            break;
        }
    }
}

async fn answer(request: Request, root: &Path) -> Response {
    let (head, body) = request.into_parts();
    let path = head.uri.path().trim_matches('/');
    let file = file_of(root, path);
    let range = head.headers.get(RANGE).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let done = match (&head.method, file) {
        (&Method::POST, None) => std::fs::create_dir_all(root.join(path)).map(|()| Bytes::new()),
        (&Method::POST, Some(file)) => match received(body).await {
            Some(body) => store(&file, &body).map(|()| Bytes::new()),
            None => Err(io::ErrorKind::InvalidData.into()),
        },
        (&Method::GET, Some(file)) => load(&file, range.as_deref()),
        (&Method::HEAD, Some(file)) => std::fs::metadata(file).map(|_| Bytes::new()),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    };
    let status = match &done {
        Ok(_) if range.is_some() => StatusCode::PARTIAL_CONTENT,
        Ok(_) => StatusCode::OK,
        Err(e) if e.kind() == io::ErrorKind::NotFound => StatusCode::NOT_FOUND,
        Err(e) if e.kind() == io::ErrorKind::InvalidData => StatusCode::BAD_REQUEST,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let body = done.unwrap_or_default();
    let builder = http::response::Builder::new().status(status);
    let answer = if body.is_empty() {
        builder.header(CONTENT_LENGTH, 0).body(Payload::None)
    } else {
        builder.body(Payload::Fixed(FixedPayload::new(body)))
    };
    answer.expect("a valid answer")
}

/// Where an object lies, as restic's rest-server has it; none for a repository.
fn file_of(root: &Path, path: &str) -> Option<PathBuf> {
    let mut parts = path.split('/').collect::<Vec<_>>().into_iter();
    let (repo, kind, name) = (parts.next()?, parts.next()?, parts.next()?);
    let folder = root.join(repo).join(kind);
    Some(if kind == "data" { folder.join(name.get(..2)?).join(name) } else { folder.join(name) })
}

/// A whole body: it is handed over only when all of it is there.
async fn received(body: Payload) -> Option<Bytes> {
    match body {
        Payload::Fixed(mut body) => body.next().await?.ok(),
        Payload::None => Some(Bytes::new()),
        Payload::Stream(_) => None,
    }
}

fn store(file: &Path, body: &[u8]) -> io::Result<()> {
    let digest = ring::digest::digest(&ring::digest::SHA256, body);
    let id: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    if file.file_name().is_none_or(|name| name.to_string_lossy() != id) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let folder = file.parent().ok_or(io::ErrorKind::InvalidInput)?;
    std::fs::create_dir_all(folder)?;
    let temp = folder.join(format!("{id}.{}.tmp", NEXT.fetch_add(1, Ordering::Relaxed)));
    let mut made = File::create_new(&temp)?;
    made.write_all(body)?;
    made.sync_data()?;
    std::fs::rename(&temp, file)?;
    File::open(folder)?.sync_all()
}

fn load(file: &Path, range: Option<&str>) -> io::Result<Bytes> {
    let Some((from, to)) = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-')) else {
        return std::fs::read(file).map(Bytes::from);
    };
    let file = File::open(file)?;
    let end = file.metadata()?.len();
    let from = from.parse::<u64>().map_err(io::Error::other)?;
    let to = to.parse::<u64>().map_or(end, |last| end.min(last + 1));
    let mut bytes = vec![0; usize::try_from(to.saturating_sub(from)).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, from)?;
    Ok(bytes.into())
}
