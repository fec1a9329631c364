//! Holds the house rules: which layer may import which, where the machine is named, where `unsafe` stands, how long files
//! and functions are, and that every flag is documented.
#![allow(clippy::pedantic, clippy::restriction, unreachable_pub, reason = "tests")]

use std::path::{Path, PathBuf};

/// For every module, all that it may import; itself is understood.
const LAYERS: [(&str, &[&str]); 15] = [
    ("types", &[]),
    ("io", &["types"]),
    ("hash", &["types"]),
    ("metrics", &["types"]),
    ("logging", &["types"]),
    ("tls", &["types", "io"]),
    ("http", &["types", "io", "tls"]),
    ("auth", &["types", "io", "hash", "http", "metrics", "logging"]),
    ("policy", &["types"]),
    ("quota", &["types", "io"]),
    ("store", &["types", "io", "hash", "metrics", "logging"]),
    (
        "api",
        &["types", "io", "hash", "tls", "http", "metrics", "logging", "auth", "policy", "quota", "store"],
    ),
    ("settings", &["types"]),
    (
        "server",
        &[
            "types", "io", "hash", "tls", "http", "metrics", "logging", "auth", "policy", "quota", "store",
            "api", "settings",
        ],
    ),
    ("cli", &["types", "io", "logging", "auth", "server", "settings"]),
];
/// The crates that only `io/` may name.
const MACHINE: [&str; 8] =
    ["monoio", "io_uring", "rustix", "libc", "nix", "landlock", "seccompiler", "thread_priority"];
const UNSAFE_FILES: [&str; 8] = [
    "src/hash/avx2.rs",
    "src/hash/avx512.rs",
    "src/hash/engine.rs",
    "src/hash/shani.rs",
    "src/io/buffer.rs",
    "src/io/ring.rs",
    "src/io/socket.rs",
    "src/io/syscalls.rs",
];
const MAX_FILE_LINES: usize = 500;
const MAX_MEDIAN_LINES: usize = 200;
const MAX_FUNCTION_LINES: usize = 70;
const MAX_README_LINES: usize = 200;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(root()).unwrap().to_path_buf(), text));
            }
        }
    }
    assert!(found.len() > 30, "the sources are where this test looks for them");
    found
}

/// The code of a file without comments and without its tests.
fn code(text: &str) -> Vec<&str> {
    let end = text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len());
    text[..end].lines().filter(|line| !line.trim_start().starts_with("//")).collect()
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap()
}

#[test]
fn imports_go_down_only() {
    for (path, text) in sources() {
        let Some(module) = path.iter().nth(1).filter(|_| path.components().count() > 2) else { continue };
        let module = module.to_str().unwrap();
        let (_, allowed) = LAYERS
            .iter()
            .find(|(name, _)| *name == module)
            .unwrap_or_else(|| panic!("{module} has no layer"));
        for line in code(&text) {
            for part in line.split("crate::").skip(1) {
                // An import in braces would hide its modules from this test.
                let name: String = part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                assert!(!name.is_empty(), "{}: one `use crate::module` a line: {line}", path.display());
                assert!(
                    name == module || allowed.contains(&name.as_str()),
                    "{}: {module} may not import {name}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn only_io_names_the_machine() {
    for (path, text) in sources() {
        if path.starts_with("src/io") {
            continue;
        }
        for line in code(&text) {
            for name in MACHINE {
                let path_of = format!("{name}::");
                let named = line
                    .match_indices(&path_of)
                    .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'));
                assert!(!named, "{}: only io/ may name {name}: {line}", path.display());
            }
        }
    }
}

#[test]
fn unsafe_stands_where_it_is_listed() {
    for (path, text) in sources() {
        let listed = UNSAFE_FILES.contains(&path.to_str().unwrap());
        let uses = code(&text).iter().any(|line| line.contains("unsafe ") || line.contains("unsafe_code"));
        assert_eq!(listed, uses, "{}", path.display());
    }
}

#[test]
fn files_and_functions_are_short() {
    let mut lengths = Vec::new();
    for (path, text) in sources() {
        let count = text.lines().count();
        assert!(count <= MAX_FILE_LINES, "{} has {count} lines", path.display());
        lengths.push(count);
        let mut start: Option<(usize, usize, &str)> = None;
        for (number, line) in text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let begins = line.trim_start().split(" fn ").count() > 1 || line.trim_start().starts_with("fn ");
            if begins && start.is_none() && !line.trim_start().starts_with("//") && !line.ends_with(';') {
                start = Some((number, indent, line));
            }
            if let Some((first, depth, name)) = start
                && (line == format!("{}}}", " ".repeat(depth)) || (number == first && line.ends_with('}')))
            {
                let length = number - first + 1;
                assert!(length <= MAX_FUNCTION_LINES, "{}: {length} lines: {}", path.display(), name.trim());
                start = None;
            }
        }
    }
    lengths.sort_unstable();
    assert!(
        lengths[lengths.len() / 2] <= MAX_MEDIAN_LINES,
        "half of the files are longer than {MAX_MEDIAN_LINES} lines"
    );
}

#[test]
fn nothing_is_left_undone() {
    for (path, text) in sources() {
        for mark in
            [["to", "do!"], ["unimple", "mented!"], ["TO", "DO"], ["FIX", "ME"]].map(|halves| halves.concat())
        {
            assert!(!text.contains(&mark), "{}: {mark}", path.display());
        }
    }
}

#[test]
fn the_readme_is_short_and_names_every_flag() {
    let readme = read("README.md");
    assert!(readme.lines().count() <= MAX_README_LINES);
    let keys: Vec<_> = packhouse::settings::keys::all().map(|key| key.name).collect();
    for name in &keys {
        assert!(readme.contains(&format!("`--{name}")), "README.md does not name --{name}");
    }
    let count = keys.len();
    assert!(count > 15, "the flags are where this test looks for them");
}

#[test]
fn the_change_log_knows_this_version() {
    assert!(read("CHANGELOG.md").contains(env!("CARGO_PKG_VERSION")));
}
