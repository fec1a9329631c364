//! The store's logic on the model disk: what is acknowledged survives a power cut, what fails leaves nothing behind.
#![allow(clippy::pedantic, clippy::restriction, unreachable_pub, reason = "tests")]

use std::ffi::OsStr;
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

use futures_channel::oneshot;
use packhouse::hash::Sha256;
use packhouse::io::runtime::{Driver, block_on, spawn, timeout};
use packhouse::io::{BufferPool, Fault};
use packhouse::quota::{Ledger, Limits};
use packhouse::server::scrub::Scrub;
use packhouse::store::disk::Disk;
use packhouse::store::faulty::{Faults, FaultyDisk, Op};
use packhouse::store::fs::{FsStore, Options};
use packhouse::store::health::Health;
use packhouse::store::model::ModelDisk;
use packhouse::store::scrub::{Place, Scrubber, Verdict};
use packhouse::store::sync::DirSyncs;
use packhouse::store::{Download, Error, Listing, Store, Upload, sweep};
use packhouse::types::{BlobId, BlobType, FolderName, Handle, Object, RepoPath};

type TestStore = FsStore<FaultyDisk<ModelDisk>>;

struct Bench {
    model: ModelDisk,
    faults: Faults,
    health: Arc<Health>,
    store: TestStore,
    buffers: BufferPool,
}

impl Bench {
    fn new(options: Options) -> Self {
        let model = ModelDisk::default();
        let made = pin!(model.make_repo("r1")).poll(&mut Context::from_waker(Waker::noop()));
        assert!(made.is_ready(), "the model makes nobody wait");
        let faults = Faults::default();
        let health = Arc::new(Health::new(None));
        let store =
            FsStore::new(FaultyDisk::new(model.clone(), faults.clone()), options, Arc::clone(&health));
        Self { model, faults, health, store, buffers: BufferPool::new(4) }
    }

    async fn put(&self, handle: &Handle, announced: Option<u64>, pieces: &[&[u8]]) -> Result<(), Error> {
        let mut upload = self.store.upload(handle, announced, None).await?;
        for piece in pieces {
            let mut buffer = self.buffers.take().await;
            buffer.append(piece);
            upload.write(buffer).await?;
        }
        upload.commit(|_| ()).await
    }

    async fn get(&self, handle: &Handle) -> Result<Vec<u8>, Error> {
        let download = self.store.download(handle).await?;
        Ok(download.read(0, self.buffers.take().await).await?.to_vec())
    }
}

const VERIFY: Options = Options { verify: true, hash_lanes: true, group_commit: true, unnamed_temps: true };
const NAMED: Options = Options { verify: true, hash_lanes: true, group_commit: true, unnamed_temps: false };
const TRUST: Options = Options { verify: false, hash_lanes: true, group_commit: true, unnamed_temps: true };

fn repo() -> RepoPath {
    RepoPath::new(vec![FolderName::parse(b"r1").unwrap()])
}

fn blob(kind: BlobType, body: &[u8]) -> Handle {
    Handle { repo: repo(), object: Object::Blob(kind, BlobId::from_digest(Sha256::of(body))) }
}

fn config() -> Handle {
    Handle { repo: repo(), object: Object::Config }
}

fn run(test: impl AsyncFn(Options)) {
    for options in [VERIFY, NAMED, TRUST] {
        block_on(Driver::Epoll, test(options)).unwrap();
    }
}

#[test]
fn every_acknowledged_object_survives_a_power_cut() {
    run(async |options| {
        let bench = Bench::new(options);
        for (n, kind) in BlobType::ALL.into_iter().enumerate() {
            let body = format!("body {n}");
            let handle = blob(kind, body.as_bytes());
            bench.put(&handle, None, &[b"body ", n.to_string().as_bytes()]).await.unwrap();
            bench.model.crash();
            assert_eq!(bench.get(&handle).await.unwrap(), body.as_bytes(), "{kind}");
        }
        bench.put(&config(), Some(6), &[b"config"]).await.unwrap();
        bench.model.crash();
        assert_eq!(bench.get(&config()).await.unwrap(), b"config");
        bench.store.delete(&config(), None).await.unwrap();
        bench.model.crash();
        assert!(matches!(bench.get(&config()).await, Err(Error::NotFound)));
        assert_eq!(bench.model.files().len(), 5);
    });
}

#[test]
fn a_created_repository_survives_a_power_cut() {
    run(async |options| {
        let bench = Bench::new(options);
        bench.store.create_repo(&repo(), |_| ()).await.unwrap();
        bench.model.crash();
        for kind in BlobType::ALL {
            assert!(bench.store.list(&repo(), kind, true).await.unwrap().page().await.unwrap().is_empty());
        }
        bench.store.create_repo(&repo(), |_| ()).await.unwrap();
    });
}

#[test]
fn a_repeat_is_flushed_before_it_is_acknowledged() {
    run(async |options| {
        let bench = Bench::new(options);
        let handle = blob(BlobType::Keys, b"key");
        bench.put(&handle, Some(3), &[b"key"]).await.unwrap();
        bench.faults.take_calls();
        bench.put(&handle, Some(3), &[b"key"]).await.unwrap();
        let calls = bench.faults.take_calls();
        let at = |op| calls.iter().position(|call| *call == op).unwrap();
        assert!(at(Op::SyncData) < at(Op::SyncDir), "{calls:?}");
        assert!(!calls.contains(&Op::Write) && !calls.contains(&Op::Publish), "{calls:?}");
        bench.store.delete(&handle, None).await.unwrap();
        bench.faults.take_calls();
        bench.store.delete(&handle, None).await.unwrap();
        assert!(bench.faults.take_calls().contains(&Op::SyncDir), "the second delete too");
    });
}

#[test]
fn data_is_flushed_before_it_gets_its_name_and_the_name_after() {
    run(async |options| {
        let bench = Bench::new(options);
        bench.put(&blob(BlobType::Data, b"x"), Some(1), &[b"x"]).await.unwrap();
        let calls = bench.faults.take_calls();
        let last = |op| calls.iter().rposition(|call| *call == op).unwrap();
        assert!(
            last(Op::Write) < last(Op::SyncData)
                && last(Op::SyncData) < last(Op::Publish)
                && last(Op::Publish) < last(Op::SyncDir),
            "{calls:?}"
        );
    });
}

#[test]
fn what_exists_is_compared_and_never_replaced() {
    run(async |options| {
        let bench = Bench::new(options);
        for handle in [config(), blob(BlobType::Index, b"right")] {
            bench.put(&handle, Some(5), &[b"right"]).await.unwrap();
            assert!(matches!(bench.put(&handle, Some(6), &[]).await, Err(Error::Conflict)));
            assert!(matches!(bench.put(&handle, Some(5), &[b"wr", b"ong"]).await, Err(Error::Conflict)));
            assert!(matches!(bench.put(&handle, None, &[b"rig"]).await, Err(Error::Conflict)));
            assert!(matches!(bench.put(&handle, None, &[b"right", b"!"]).await, Err(Error::Conflict)));
            bench.put(&handle, None, &[b"r", b"ight"]).await.unwrap();
            assert_eq!(bench.get(&handle).await.unwrap(), b"right");
        }
        assert_eq!(bench.health.damaged(), 0);
    });
}

#[test]
fn a_damaged_object_is_noticed_by_a_verified_repeat_and_kept() {
    run(async |options| {
        let bench = Bench::new(options);
        let handle = blob(BlobType::Locks, b"right");
        bench.put(&handle, Some(5), &[b"right"]).await.unwrap();
        bench.model.damage(&bench.model.files()[0], b"rXght");
        let repeated = bench.put(&handle, Some(5), &[b"right"]).await;
        if options.verify {
            assert!(matches!(repeated, Err(Error::Damaged)));
            assert!(matches!(bench.put(&handle, Some(5), &[b"rXght"]).await, Err(Error::Mismatch)));
        } else {
            assert!(matches!(repeated, Err(Error::Conflict)));
            bench.put(&handle, Some(5), &[b"rXght"]).await.unwrap();
        }
        assert_eq!(bench.health.damaged(), u64::from(options.verify));
        assert_eq!(bench.get(&handle).await.unwrap(), b"rXght");
    });
}

#[test]
fn of_two_uploads_at_once_both_succeed_if_they_are_equal() {
    run(async |options| {
        let bench = Bench::new(options);
        for handle in [config(), blob(BlobType::Data, b"same")] {
            let mut first = bench.store.upload(&handle, Some(4), None).await.unwrap();
            let mut second = bench.store.upload(&handle, Some(4), None).await.unwrap();
            for upload in [&mut first, &mut second] {
                let mut buffer = bench.buffers.take().await;
                buffer.append(b"same");
                upload.write(buffer).await.unwrap();
            }
            second.commit(|_| ()).await.unwrap();
            first.commit(|_| ()).await.unwrap();
            assert_eq!(bench.get(&handle).await.unwrap(), b"same");
        }
        // The second of two configs with other bytes loses.
        bench.store.delete(&config(), None).await.unwrap();
        let mut late = bench.store.upload(&config(), None, None).await.unwrap();
        bench.put(&config(), None, &[b"same"]).await.unwrap();
        let mut buffer = bench.buffers.take().await;
        buffer.append(b"else");
        late.write(buffer).await.unwrap();
        assert!(matches!(late.commit(|_| ()).await, Err(Error::Conflict)));
        assert_eq!(bench.get(&config()).await.unwrap(), b"same");
    });
}

/// What a failed upload leaves is removed after its answer.
async fn let_leftovers_go() {
    packhouse::io::runtime::sleep(std::time::Duration::from_millis(1)).await;
}

#[test]
fn of_many_uploads_at_once_each_is_verified_for_itself() {
    const UPLOADS: u8 = 40;
    run(async |options| {
        let bench = Rc::new(Bench { buffers: BufferPool::new(64), ..Bench::new(options) });
        let uploads = Vec::from_iter((0..UPLOADS).map(|n| {
            let (bench, (done, stored)) = (Rc::clone(&bench), oneshot::channel());
            spawn(async move {
                // Some are wrong, most are long enough to be hashed side by side where that pays, and no two have the same length.
                let body = vec![n; 1000 + usize::from(n) * 7919];
                let handle = blob(BlobType::Data, &body);
                let mut came = body.clone();
                let wrong = n % 5 == 4;
                came[500] ^= u8::from(wrong);
                let pieces = Vec::from_iter(came.chunks(100_000));
                let stored = bench.put(&handle, Some(body.len() as u64), &pieces).await;
                if options.verify && wrong {
                    assert!(matches!(stored, Err(Error::Mismatch)), "{n}");
                } else {
                    assert!(stored.is_ok(), "{n}");
                }
                done.send(()).ok();
            });
            stored
        }));
        for stored in uploads {
            stored.await.unwrap();
        }
        let_leftovers_go().await;
        let wrong = if options.verify { UPLOADS / 5 } else { 0 };
        assert_eq!(bench.model.files().len(), usize::from(UPLOADS - wrong));
    });
}

#[test]
fn a_repeat_whose_object_is_deleted_meanwhile_is_not_acknowledged() {
    run(async |options| {
        let bench = Bench::new(options);
        let handle = blob(BlobType::Data, b"x");
        bench.put(&handle, None, &[b"x"]).await.unwrap();
        let mut repeat = bench.store.upload(&handle, Some(1), None).await.unwrap();
        let mut buffer = bench.buffers.take().await;
        buffer.append(b"x");
        repeat.write(buffer).await.unwrap();
        bench.store.delete(&handle, None).await.unwrap();
        assert!(matches!(repeat.commit(|_| ()).await, Err(Error::Busy)));
        assert!(matches!(bench.get(&handle).await, Err(Error::NotFound)));
    });
}

#[test]
fn nothing_is_acknowledged_after_a_flush_has_failed() {
    run(async |options| {
        let bench = Bench::new(options);
        let handle = blob(BlobType::Data, b"x");
        let mut begun = bench.store.upload(&handle, Some(1), None).await.unwrap();
        let mut buffer = bench.buffers.take().await;
        buffer.append(b"x");
        begun.write(buffer).await.unwrap();
        bench.faults.fail(Some((Op::SyncData, Fault::Device)));
        assert!(bench.put(&config(), None, &[b"c"]).await.is_err());
        bench.faults.fail(None);
        assert!(matches!(begun.commit(|_| ()).await, Err(Error::Suspended)));
        assert!(matches!(bench.get(&handle).await, Err(Error::NotFound)));
    });
}

#[test]
fn wrong_bytes_are_refused_and_leave_nothing() {
    run(async |options| {
        let bench = Bench::new(options);
        let stored = bench.put(&blob(BlobType::Snapshots, b"right"), None, &[b"wrong"]).await;
        assert_eq!(matches!(stored, Err(Error::Mismatch)), options.verify);
        let_leftovers_go().await;
        assert_eq!(bench.model.files().len(), usize::from(!options.verify));
    });
}

#[test]
fn a_failure_at_any_step_is_reported_and_leaves_nothing() {
    run(async |options| {
        for op in
            [Op::MakeDir, Op::Create, Op::Preallocate, Op::Write, Op::SyncData, Op::Publish, Op::SyncDir]
        {
            let bench = Bench::new(options);
            let body = vec![7; 1 << 20];
            let handle = blob(BlobType::Data, &body);
            let pieces: Vec<_> = body.chunks(100_000).collect();
            bench.faults.fail(Some((op, Fault::NoSpace)));
            let failed = bench.put(&handle, Some(body.len() as u64), &pieces).await;
            assert!(matches!(failed, Err(Error::NoSpace)), "{op:?}: {failed:?}");
            let_leftovers_go().await;
            bench.model.crash();
            // As at the next start: the removal of a temporary name need not be durable.
            sweep::sweep(&bench.model, 3, None).await;
            assert_eq!(bench.model.files(), Vec::<String>::new(), "{op:?}");
            bench.faults.fail(None);
            bench.put(&handle, Some(body.len() as u64), &pieces).await.unwrap();
            assert!(bench.health.check_writable().is_ok());
        }
    });
}

#[test]
fn a_failed_flush_stops_writes_until_the_operator_resumes() {
    run(async |options| {
        for op in [Op::SyncData, Op::SyncDir] {
            let bench = Bench::new(options);
            let handle = blob(BlobType::Data, b"x");
            bench.put(&config(), None, &[b"c"]).await.unwrap();
            bench.faults.fail(Some((op, Fault::Device)));
            assert!(matches!(bench.put(&handle, None, &[b"x"]).await, Err(Error::Io { .. })));
            bench.faults.fail(None);
            assert!(matches!(bench.put(&handle, None, &[b"x"]).await, Err(Error::Suspended)));
            assert!(matches!(bench.store.delete(&config(), None).await, Err(Error::Suspended)));
            assert!(matches!(bench.store.create_repo(&repo(), |_| ()).await, Err(Error::Suspended)));
            assert_eq!(bench.get(&config()).await.unwrap(), b"c");
            assert!(bench.health.resume());
            bench.put(&handle, None, &[b"x"]).await.unwrap();
        }
    });
}

#[test]
fn a_read_only_file_system_refuses_writes_and_serves_reads() {
    run(async |options| {
        let bench = Bench::new(options);
        bench.put(&config(), None, &[b"c"]).await.unwrap();
        bench.faults.fail(Some((Op::Create, Fault::ReadOnly)));
        assert!(matches!(bench.put(&blob(BlobType::Data, b"x"), None, &[b"x"]).await, Err(Error::ReadOnly)));
        assert_eq!(bench.get(&config()).await.unwrap(), b"c");
        bench.faults.fail(None);
        bench.put(&blob(BlobType::Data, b"x"), None, &[b"x"]).await.unwrap();
    });
}

#[test]
fn the_reserve_lets_locks_in_when_data_no_longer_fits() {
    run(async |options| {
        let bench = Bench::new(options);
        bench.model.set_free(1 << 20);
        assert!(matches!(
            bench.put(&blob(BlobType::Data, b"x"), Some(1), &[b"x"]).await,
            Err(Error::Reserved)
        ));
        bench.put(&blob(BlobType::Locks, b"x"), Some(1), &[b"x"]).await.unwrap();
        bench.store.delete(&blob(BlobType::Locks, b"x"), None).await.unwrap();
        bench.model.set_free(1 << 30);
        bench.put(&blob(BlobType::Data, b"x"), Some(1), &[b"x"]).await.unwrap();
    });
}

#[test]
fn a_list_that_fails_is_no_short_list() {
    run(async |options| {
        let bench = Bench::new(options);
        let nobodys = "/r2/".parse().unwrap();
        assert!(matches!(bench.store.list(&nobodys, BlobType::Data, true).await, Err(Error::NotFound)));
        for n in 0..50_u8 {
            bench.put(&blob(BlobType::Data, &[n]), Some(1), &[&[n]]).await.unwrap();
        }
        let mut listing = bench.store.list(&repo(), BlobType::Data, true).await.unwrap();
        let mut count = 0;
        loop {
            let page = listing.page().await.unwrap();
            assert!(page.iter().all(|listed| listed.size == 1));
            count += page.len();
            if page.is_empty() {
                break;
            }
        }
        assert_eq!(count, 50);
        assert!(
            bench.store.list(&repo(), BlobType::Keys, true).await.unwrap().page().await.unwrap().is_empty()
        );
        for op in [Op::Open, Op::ReadDir] {
            let mut listing = bench.store.list(&repo(), BlobType::Data, true).await.unwrap();
            assert!(!listing.page().await.unwrap().is_empty());
            bench.faults.fail(Some((op, Fault::Device)));
            let failed = loop {
                match listing.page().await {
                    Ok(page) => assert!(!page.is_empty(), "the list ended as if it were whole"),
                    Err(e) => break e,
                }
            };
            assert!(matches!(failed, Error::Io { .. }));
            bench.faults.fail(None);
        }
    });
}

#[test]
fn a_dropped_upload_leaves_nothing_and_a_crashed_one_is_swept() {
    run(async |options| {
        let bench = Bench::new(options);
        bench.store.create_repo(&repo(), |_| ()).await.unwrap();
        let mut upload = bench.store.upload(&blob(BlobType::Data, b"x"), Some(1), None).await.unwrap();
        let mut buffer = bench.buffers.take().await;
        buffer.append(b"x");
        upload.write(buffer).await.unwrap();
        assert_eq!(bench.model.files().len(), usize::from(!options.unnamed_temps));
        if options.unnamed_temps {
            drop(upload);
        } else {
            assert_eq!(sweep::sweep(&bench.model, 2, None).await.removed, 0, "it is being written");
            bench.model.crash_with(|_, _| true);
            assert_eq!(sweep::sweep(&bench.model, 2, None).await.removed, 1);
            drop(upload);
        }
        let_leftovers_go().await;
        assert_eq!(bench.model.files(), Vec::<String>::new());
    });
}

#[test]
fn a_directory_sync_is_shared_by_all_who_wait_and_so_is_its_failure() {
    run(async |_| {
        let model = ModelDisk::default();
        let faults = Faults::default();
        let disk = FaultyDisk::new(model, faults.clone());
        let syncs = DirSyncs::new(disk.clone());
        let root = disk.root();
        let all = || async {
            let (mut first, mut second, mut third) =
                (pin!(syncs.sync(&root)), pin!(syncs.sync(&root)), pin!(syncs.sync(&root)));
            // All three wait before the sync begins.
            let mut cx = Context::from_waker(Waker::noop());
            for waiting in [&mut first, &mut second, &mut third] {
                assert!(waiting.as_mut().poll(&mut cx).is_pending());
            }
            [first.await.is_ok(), second.await.is_ok(), third.await.is_ok()]
        };
        assert_eq!(all().await, [true; 3]);
        assert_eq!(faults.take_calls(), [Op::SyncDir], "one for all");
        faults.fail(Some((Op::SyncDir, Fault::NoSpace)));
        assert_eq!(all().await, [false; 3]);
        faults.fail(None);
        assert_eq!(all().await, [true; 3]);
        // One after the other, each has its own.
        faults.take_calls();
        for _ in 0..3 {
            syncs.sync(&root).await.unwrap();
        }
        assert_eq!(faults.take_calls().len(), 3);
    });
}

#[test]
fn the_parents_of_a_folder_are_synced_once_whoever_made_it() {
    run(async |options| {
        let bench = Bench::new(options);
        // Made by somebody else, and not durable.
        for path in ["r1/index"] {
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
            let parent = bench.model.open_dir(Path::new(parent)).await.unwrap();
            assert!(bench.model.make_dir(&parent, OsStr::new(name)).await.unwrap());
        }
        bench.put(&blob(BlobType::Index, b"1"), None, &[b"1"]).await.unwrap();
        let syncs = |calls: Vec<Op>| calls.iter().filter(|op| **op == Op::SyncDir).count();
        assert_eq!(syncs(bench.faults.take_calls()), 3, "the root, the repository, the folder of indexes");
        bench.put(&blob(BlobType::Index, b"2"), None, &[b"2"]).await.unwrap();
        assert_eq!(syncs(bench.faults.take_calls()), 1);
        bench.model.crash();
        assert_eq!(bench.model.files().len(), 2);
    });
}

#[test]
fn a_verification_goes_on_where_it_was_whatever_it_was_looking_at() {
    run(async |options| {
        let bench = Bench::new(options);
        for repo in ["/a/", "/a/b/", "/z/"] {
            bench.model.make_repo(repo.trim_matches('/')).await.unwrap();
            let put = async |object, body: &[u8]| {
                let handle = Handle { repo: repo.parse().unwrap(), object };
                bench.put(&handle, None, &[body]).await.unwrap();
            };
            put(Object::Config, b"config").await;
            for kind in BlobType::ALL {
                for n in 0..4_u8 {
                    put(Object::Blob(kind, BlobId::from_digest(Sha256::of(&[n]))), &[n]).await;
                }
            }
        }
        let all = async |after: Option<Place>| {
            let mut scrubber = Scrubber::new(bench.model.clone(), None, 2, after).await;
            let mut places = Vec::new();
            while let Some(checked) = scrubber.next(|_| std::time::Duration::ZERO).await.unwrap() {
                assert_eq!(checked.verdict, Verdict::Right);
                places.push(checked.place);
            }
            places
        };
        let places = all(None).await;
        assert_eq!(places.len(), 3 * (1 + 5 * 4));
        for (n, place) in places.iter().enumerate() {
            let known = Place::of(&place.path()).unwrap();
            assert_eq!(all(Some(known)).await, places[n + 1..]);
        }
    });
}

#[test]
fn a_dead_disk_is_not_taken_for_many_damaged_objects() {
    run(async |options| {
        let bench = Bench::new(options);
        for n in 0..20_u8 {
            bench.put(&blob(BlobType::Data, &[n]), None, &[&[n]]).await.unwrap();
        }
        let state = tempfile::tempdir().unwrap();
        let scrub = Scrub {
            path: "/".into(),
            alone: true,
            depth: 2,
            state_dir: state.path().into(),
            period: std::time::Duration::from_secs(1),
            quarantine: false,
            health: Arc::clone(&bench.health),
            ledger: Arc::new(Ledger::open(Limits::default(), None).unwrap()),
            counters: Arc::default(),
        };
        bench.faults.fail(Some((Op::Read, Fault::Device)));
        let disk = FaultyDisk::new(bench.model.clone(), bench.faults.clone());
        timeout(std::time::Duration::from_millis(500), scrub.run(disk)).await.unwrap_err();
        assert_eq!(bench.health.damaged(), 8, "then it rests");
    });
}

#[test]
fn only_what_stays_damaged_goes_into_quarantine() {
    const NOW: std::time::Duration = std::time::Duration::ZERO;
    run(async |options| {
        let bench = Bench::new(options);
        let (key, pack) = (blob(BlobType::Keys, b"key"), blob(BlobType::Data, b"pack"));
        bench.put(&key, None, &[b"key"]).await.unwrap();
        bench.put(&pack, None, &[b"pack"]).await.unwrap();
        bench.put(&config(), None, &[b"c"]).await.unwrap();
        let disk = FaultyDisk::new(bench.model.clone(), bench.faults.clone());
        let mut scrubber = Scrubber::new(disk.clone(), None, 2, None).await;
        bench.faults.fail(Some((Op::Read, Fault::Device)));
        let mut found = Vec::new();
        while let Some(checked) = scrubber.next(|_| NOW).await.unwrap() {
            assert_eq!(checked.verdict, Verdict::Unreadable);
            found.push(checked);
        }
        // What nobody can open the repository without stays, whatever it is like.
        found.retain(packhouse::store::scrub::Checked::is_for_quarantine);
        let [checked] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(checked.place.handle(), Some(pack.clone()));
        // A disk that was away for a moment has damaged nothing.
        bench.faults.fail(None);
        assert!(scrubber.quarantine(checked, NOW, NOW).await.unwrap().is_err());
        assert_eq!(bench.get(&pack).await.unwrap(), b"pack");
        bench.faults.fail(Some((Op::Read, Fault::Device)));
        let path = scrubber.quarantine(checked, NOW, NOW).await.unwrap().unwrap().path;
        bench.faults.fail(None);
        bench.model.crash();
        assert!(bench.model.content(path.to_str().unwrap()).is_some(), "durable, and not lost");
        assert!(matches!(bench.get(&pack).await, Err(Error::NotFound)));
        bench.put(&pack, None, &[b"pack"]).await.unwrap();
        // The name stands for another file now, with which nothing is wrong.
        bench.faults.fail(Some((Op::Read, Fault::Device)));
        assert!(scrubber.quarantine(checked, NOW, NOW).await.unwrap().is_err());
        bench.faults.fail(None);
        assert_eq!(bench.get(&pack).await.unwrap(), b"pack");
        // Another error says nothing about an object.
        let mut scrubber = Scrubber::new(disk, None, 2, None).await;
        bench.faults.fail(Some((Op::Read, Fault::Busy)));
        assert!(scrubber.next(|_| NOW).await.is_err());
    });
}
