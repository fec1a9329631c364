//! A path: whatever it is, what is touched on disk lies below the data folder.
#![no_main]

use std::path::{Component, Path};

use libfuzzer_sys::fuzz_target;
use packhouse::api::route::{Route, route};
use packhouse::http::head::Target;
use packhouse::store::layout;

fn check(path: &Path) {
    assert!(path.components().all(|part| matches!(part, Component::Normal(_))), "{}", path.display());
    let text = path.as_os_str().as_encoded_bytes();
    assert!(!text.contains(&0) && !text.starts_with(b"/"), "{}", path.display());
    assert!(path.iter().all(|name| !name.as_encoded_bytes().starts_with(b".")), "{}", path.display());
}

fuzz_target!(|data: &[u8]| {
    let (path, query) = match data.iter().position(|byte| *byte == b'?') {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &[][..]),
    };
    let target = Target::Path { path: [b"/", path].concat(), query: query.to_vec() };
    match route(&target, 2) {
        Ok(Route::Object(handle)) => check(&layout::object_path(&handle)),
        Ok(Route::List(repo, kind)) => check(&layout::type_dir(&repo, kind)),
        Ok(Route::Repo(repo)) => check(&layout::repo_dir(&repo)),
        Ok(Route::Server) | Err(_) => {}
    }
});
