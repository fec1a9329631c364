//! Small files of the server's own and of operators, replaced as a whole: a reader sees the old one or the new one, and
//! after a power cut one of them is there.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::io::optional::{fallocate, fgetxattr, flistxattr, fsetxattr};
use crate::io::{Fault, flush, runtime};

/// Longest list of extended attributes, and longest attribute, that is kept.
const MAX_ATTRIBUTE_BYTES: usize = 64 << 10;

/// Puts `content` in the place of the file at `path`, durably. A new file has `mode` and belongs to the owner of its
/// folder; a file that is there keeps its mode, its owner and its access control list.
///
/// Where the name can't be given to another file (a bind mount is EBUSY, a folder that this user may not write to), and where the
/// file has other names (hard links) that would keep the old content, the file is written in place: the caller holds its lock,
/// see `state::lock_file`.
///
/// # Errors
/// The old content is still there, unless a write in place was cut short.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    // Through a symbolic link the file behind it is meant, not the link.
    let target = std::fs::canonicalize(path).unwrap_or_else(|_missing| path.to_owned());
    let folder = folder_of(&target);
    if std::fs::metadata(&target).is_ok_and(|meta| meta.is_file() && meta.nlink() > 1) {
        if geteuid().is_root() && std::fs::metadata(folder)?.uid() != 0 {
            // Its owner may have linked a file of root's there.
            return Err(io::Error::other(
                "it has several names (hard links): name one in a folder of root's",
            ));
        }
        return write_in_place(&target, content);
    }
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{:016x}.new", runtime::random()));
    let new = folder.join(name);
    let replaced =
        write_new(&new, &target, folder, content, mode).and_then(|()| std::fs::rename(&new, &target));
    if replaced.is_err() {
        // It may not have been made at all.
        std::fs::remove_file(&new).ok();
    }
    match replaced {
        Ok(()) => flush::folder(folder),
        Err(e) if must_stay(&e) && target.is_file() => write_in_place(&target, content).map_err(|other| {
            io::Error::new(other.kind(), format!("{e}; nor can it be written in place: {other}"))
        }),
        Err(e) => Err(e),
    }
}

/// Longest file of settings, users, rights or certificates that is read.
const MAX_BYTES: u64 = 64 << 20;

/// Reads a file that an operator has named. Pipes are read at a start alone, where a shell has made one (`<(...)`): to open
/// another one would wait for a writer, and nothing would be reloaded any more.
///
/// # Errors
/// Also of what is neither a file nor such a pipe, and of more than 64 MiB.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let is_descriptor = ["/dev/fd/", "/proc/self/fd/", "/dev/stdin"].iter().any(|own| path.starts_with(own));
    let mut options = File::options();
    options.read(true);
    if !is_descriptor {
        options.custom_flags(libc::O_NONBLOCK);
    }
    let file = options.open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() && !is_descriptor {
        let kind = if meta.is_dir() { io::ErrorKind::IsADirectory } else { io::ErrorKind::InvalidInput };
        return Err(io::Error::new(kind, "it is no regular file"));
    }
    let mut content = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_BYTES {
        return Err(io::Error::other("it is larger than 64 MiB"));
    }
    Ok(content)
}

/// The same of text.
///
/// # Errors
/// Also of what is not UTF-8.
pub fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path)?)
        .map_err(|_not| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
}

/// The folder that a path's last name is in.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether an error says that the name has to stay with the file that has it.
fn must_stay(e: &io::Error) -> bool {
    let is_busy = matches!(e.kind(), io::ErrorKind::ResourceBusy | io::ErrorKind::CrossesDevices);
    is_busy || matches!(Fault::of(e), Fault::Denied | Fault::ReadOnly)
}

fn write_new(new: &Path, target: &Path, folder: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(new)?;
    match File::open(target).and_then(|old| Ok((old.metadata()?, old))) {
        Ok((meta, old)) => keep_rights(&old, &meta, &file)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            own(&file, &std::fs::metadata(folder)?).ok();
            file.set_permissions(PermissionsExt::from_mode(mode))?;
        }
        Err(e) => return Err(e),
    }
    file.write_all(content)?;
    flush::file(&file)
}

/// Gives a new file the owner, the group, the mode and the access control list of the old one.
fn keep_rights(old: &File, meta: &Metadata, new: &File) -> io::Result<()> {
    own(new, meta)?;
    new.set_permissions(PermissionsExt::from_mode(meta.mode() & 0o7777))?;
    let mut names = vec![0; MAX_ATTRIBUTE_BYTES];
    let length = match flistxattr(old, &mut names) {
        Ok(length) => length,
        // This file system has none.
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM) => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    for name in
        names.get(..length).unwrap_or_default().split(|byte| *byte == 0).filter(|name| !name.is_empty())
    {
        let name = OsStr::from_bytes(name);
        let mut value = vec![0; MAX_ATTRIBUTE_BYTES];
        let length = fgetxattr(old, name, &mut value)?;
        let kept = fsetxattr(new, name, value.get(..length).unwrap_or_default());
        // An access control list says who may read: without it the file would be another one. Labels of a security
        // module are given by its own rules.
        if name.as_bytes().starts_with(b"system.") {
            kept?;
        }
    }
    Ok(())
}

/// Gives a file the owner and the group of another file or a folder.
pub(super) fn own(file: &File, meta: &Metadata) -> io::Result<()> {
    let is = file.metadata()?;
    if (is.uid(), is.gid()) == (meta.uid(), meta.gid()) {
        return Ok(());
    }
    std::os::unix::fs::fchown(file, Some(meta.uid()), Some(meta.gid()))
}

fn write_in_place(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::options().write(true).open(path)?;
    // Room first: on a full disk the old content is to stay whole. Where room can't be reserved, none is short.
    let room = fallocate(&file, FallocateFlags::KEEP_SIZE, 0, content.len().max(1) as u64);
    if let Err(e @ (Errno::NOSPC | Errno::DQUOT)) = room {
        return Err(e.into());
    }
    file.write_all(content)?;
    file.set_len(content.len() as u64)?;
    flush::file(&file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_keeps_its_mode_and_its_attributes() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("file");
        replace(&path, b"one", 0o600).expect("made");
        assert_eq!(std::fs::metadata(&path).expect("there").mode() & 0o7777, 0o600);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).expect("changed");
        let file = File::open(&path).expect("opened");
        let has_attributes = fsetxattr(&file, "user.note", b"kept").is_ok();
        replace(&path, b"two", 0o600).expect("replaced");
        assert_eq!(std::fs::metadata(&path).expect("there").mode() & 0o7777, 0o640);
        assert_eq!(std::fs::read(&path).expect("read"), b"two");
        if has_attributes {
            let mut value = [0; 4];
            fgetxattr(File::open(&path).expect("opened"), "user.note", &mut value).expect("kept");
            assert_eq!(&value, b"kept");
        }
        assert_eq!(std::fs::read_dir(dir.path()).expect("read").count(), 1, "nothing is left over");
        write_in_place(&path, b"3").expect("written");
        assert_eq!(std::fs::read(&path).expect("read"), b"3");
    }
}
