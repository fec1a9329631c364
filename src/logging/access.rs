//! The log of requests in Apache's combined format: to a file that is opened anew when it was rotated, or to standard
//! output.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::logging::queue::{Queue, Sink};
use crate::logging::shown;

/// Permissions of a new file.
const MODE: u32 = 0o640;

/// One request.
#[derive(Debug)]
pub struct Entry<'e> {
    /// Of the client.
    pub address: &'e str,
    /// Who logged in.
    pub user: Option<&'e str>,
    /// In HTTP's form: `Sun, 06 Nov 1994 08:49:37 GMT`.
    pub date: &'e str,
    /// Method, target and version, the target escaped.
    pub request: &'e str,
    /// Of the answer.
    pub status: u16,
    /// Of the answer's body.
    pub bytes: u64,
    /// The header, as it came.
    pub referer: &'e [u8],
    /// The header, as it came.
    pub agent: &'e [u8],
}

impl Entry<'_> {
    /// The line. Nothing that a client sends can begin another one, or end a field.
    fn line(&self) -> String {
        let user = self.user.map_or_else(|| "-".into(), |user| user.escape_default().to_string());
        // The words of the date in Apache's order.
        let mut words = self.date.split(' ').skip(1);
        let mut word = || words.next().unwrap_or_default();
        let (day, month, year, time) = (word(), word(), word(), word());
        format!(
            "{} - {user} [{day}/{month}/{year}:{time} +0000] \"{}\" {} {} \"{}\" \"{}\"\n",
            self.address,
            self.request,
            self.status,
            self.bytes,
            shown(self.referer),
            shown(self.agent)
        )
    }
}

/// Writes requests on a thread of its own; a worker never waits for it.
pub struct AccessLog(Queue);

impl AccessLog {
    /// Writes to a file (0640), or to standard output.
    ///
    /// # Errors
    /// It can't be opened, or the thread not started.
    pub fn open(path: Option<&Path>) -> io::Result<Self> {
        let out: Box<dyn Write + Send> = match path {
            Some(path) => Box::new(open(path)?),
            None => Box::new(io::stdout()),
        };
        let place = Place { out, path: path.map(Into::into) };
        Queue::start("access log", place).map(Self)
    }

    /// Writes one request. When nobody writes fast enough it is dropped and counted.
    pub fn write(&self, entry: &Entry<'_>) {
        self.0.line(entry.line().into_bytes());
    }

    /// Opens the file anew, behind all lines so far.
    pub fn reopen(&self) {
        self.0.reopen();
    }

    /// Waits until all lines so far are written: for the end of the process.
    pub fn flush(&self) {
        self.0.flush();
    }
}

/// Where the lines go.
struct Place {
    out: Box<dyn Write + Send>,
    path: Option<PathBuf>,
}

impl Sink for Place {
    fn line(&mut self, line: &[u8]) {
        if let Err(e) = self.out.write_all(line) {
            log::debug!("the log of requests can't be written: {e}");
        }
    }

    fn lost(&mut self, count: u64) {
        log::warn!("{count} lines of the log of requests were dropped: its disk is too slow");
    }

    fn reopen(&mut self) {
        match self.path.as_deref().map(open) {
            Some(Ok(file)) => self.out = Box::new(file),
            Some(Err(e)) => {
                log::error!("the log of requests can't be opened anew, the old file stays: {e}");
            }
            None => {}
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    match File::options().append(true).create_new(true).mode(MODE).open(path) {
        // The process's mask takes the right of the group away, which is to rotate and to read logs.
        Ok(file) => file.set_permissions(PermissionsExt::from_mode(MODE)).map(|()| file),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            let file = File::options().append(true).open(path)?;
            let open_to_all =
                file.metadata().is_ok_and(|meta| meta.permissions().mode() & !MODE & 0o777 != 0);
            // As another user's file it stays as it is.
            if open_to_all && file.set_permissions(PermissionsExt::from_mode(MODE)).is_err() {
                log::warn!("{}: others can read or change the log of requests", path.display());
            }
            Ok(file)
        }
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_can_not_be_forged_and_none_is_lost_when_the_file_is_rotated() {
        let dir = tempfile::tempdir().expect("a folder");
        let (path, old) = (dir.path().join("log"), dir.path().join("log.1"));
        let log = AccessLog::open(Some(&path)).expect("opened");
        let mut entry = Entry {
            address: "192.0.2.1",
            user: Some("a\n\"b"),
            date: "Sun, 06 Nov 1994 08:49:37 GMT",
            request: "GET /r1/%0aconfig HTTP/1.1",
            status: 206,
            bytes: 2,
            referer: b"",
            agent: b"x\"\r\n127.0.0.1 - - \xff",
        };
        log.write(&entry);
        std::fs::rename(&path, &old).expect("renamed");
        log.write(&entry);
        log.reopen();
        entry.user = None;
        log.write(&entry);
        log.flush();
        let line = r#"192.0.2.1 - a\n\"b [06/Nov/1994:08:49:37 +0000] "GET /r1/%0aconfig HTTP/1.1" 206 2 "" "x\"\r\n127.0.0.1 - - \xff""#;
        assert_eq!(std::fs::read_to_string(old).expect("read"), format!("{line}\n{line}\n"));
        assert!(std::fs::read_to_string(path).expect("read").starts_with("192.0.2.1 - - [06/Nov/1994"));
    }
}
