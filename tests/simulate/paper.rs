//! A folder for the quota's journal that keeps apart what is durable, as the model disk does for objects.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use packhouse::io::Fault;
use packhouse::quota::journal::{Folder, Journal};

use crate::world::Random;

type Files = BTreeMap<String, Arc<Vec<u8>>>;

/// The folder of all lives of a history.
#[derive(Clone)]
pub struct Paper(Arc<Mutex<State>>);

struct State {
    now: Files,
    /// What a crash leaves, should nothing happen before that did not have to.
    durable: Files,
    /// What crashes since the last look could have left.
    possible: Vec<Files>,
    random: Random,
    /// Once in so many times something can't be written.
    fails: Option<u64>,
    life: u32,
}

impl State {
    /// What a crash could leave now, or could have left since the last look.
    fn views(&mut self) -> Vec<Files> {
        let mut views = std::mem::take(&mut self.possible);
        views.extend([self.now.clone(), self.durable.clone()]);
        views
    }
}

impl Paper {
    pub fn new(seed: u64, fails: Option<u64>) -> Self {
        let random = Random::new(seed);
        let (now, durable, possible) = (Files::new(), Files::new(), Vec::new());
        Self(Arc::new(Mutex::new(State { now, durable, possible, random, fails, life: 0 })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no panic")
    }

    /// The journal of the process that runs now.
    pub fn journal(&self) -> Journal {
        Journal::new(Hand { paper: self.clone(), life: self.lock().life })
    }

    /// The journals that a crash could leave now, or could have left since the last look.
    pub fn after_a_crash(&self) -> Vec<Journal> {
        let views = self.lock().views();
        let journal = |now: Files| {
            let paper = Self::new(0, None);
            paper.lock().now = now;
            paper.journal()
        };
        views.into_iter().map(journal).collect()
    }

    /// The power goes, and with it the process. What it still tries fails.
    pub fn crash(&self) {
        let mut state = self.lock();
        let views = state.views();
        let left = state.random.pick(&views).clone();
        (state.durable, state.now) = (left.clone(), left);
        state.life += 1;
    }

    /// The process ends, and nothing is lost.
    pub fn end(&self) {
        self.lock().life += 1;
    }
}

/// What one process has of it.
struct Hand {
    paper: Paper,
    life: u32,
}

impl Hand {
    fn change(&self, may_fail: bool, change: impl FnOnce(&mut State) -> io::Result<()>) -> io::Result<()> {
        let mut state = self.paper.lock();
        if state.life != self.life {
            return Err(Fault::Device.to_error());
        }
        if let Some(fails) = state.fails.filter(|_| may_fail)
            && state.random.once_in(fails)
        {
            return Err(Fault::Device.to_error());
        }
        let before = state.durable.clone();
        change(&mut state)?;
        let now = state.now.clone();
        state.possible.extend([before, now]);
        Ok(())
    }
}

fn missing() -> io::Error {
    Fault::Missing.to_error()
}

impl Folder for Hand {
    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.paper.lock().now.get(name).map(|content| content.to_vec()).ok_or_else(missing)
    }

    fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.change(true, |state| {
            state.now.insert(name.into(), Arc::new(content.to_vec()));
            Ok(())
        })
    }

    fn append(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.change(true, |state| {
            let old = state.now.get(name).cloned().ok_or_else(missing)?;
            let with = |added: &[u8]| Arc::new([&old, added].concat());
            // The same file, as far as its name is durable.
            let is_durable = state.durable.get(name).is_some_and(|durable| Arc::ptr_eq(durable, &old));
            let torn = with(&content[..content.len() / 2]);
            state.possible.push(Files::from([(name.to_owned(), torn)]));
            let new = with(content);
            state.now.insert(name.into(), Arc::clone(&new));
            if is_durable {
                state.durable.insert(name.into(), new);
            }
            Ok(())
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(false, |state| {
            let file = state.now.remove(from).ok_or_else(missing)?;
            state.now.insert(to.into(), file);
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.change(false, |state| state.now.remove(name).map(drop).ok_or_else(missing))
    }

    fn sync_names(&self) -> io::Result<()> {
        self.change(false, |state| {
            state.durable = state.now.clone();
            Ok(())
        })
    }
}
