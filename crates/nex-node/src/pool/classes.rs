//! One warm pool for each class of machine, and one for deploys that ask for none.

use std::collections::BTreeMap;

use nex_process::TaskScope;
use tokio::sync::watch;

use super::warm::{Factory, Status, WarmPool};

/// The pools of a node.
#[derive(Debug)]
pub struct Pools<T> {
    standard: WarmPool<T>,
    classes: BTreeMap<String, WarmPool<T>>,
}

impl<T: Send + 'static> Pools<T> {
    /// Starts the pool of the standard machine.
    pub fn start<F: Factory<Item = T>>(scope: &TaskScope, factory: F, target: usize) -> Self {
        Self { standard: WarmPool::start(scope, factory, target), classes: BTreeMap::new() }
    }

    /// Adds the pool of a class; with a target of 0 its machines are made on demand.
    pub fn add<F: Factory<Item = T>>(&mut self, name: String, scope: &TaskScope, factory: F, target: usize) {
        self.classes.insert(name, WarmPool::start(scope, factory, target));
    }

    /// The pool of a class; `None` is the standard pool.
    #[must_use]
    pub fn of(&self, class: Option<&str>) -> Option<&WarmPool<T>> {
        match class {
            Some(name) => self.classes.get(name),
            None => Some(&self.standard),
        }
    }

    /// The status of the standard pool and its changes.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.standard.status()
    }

    /// Agents ready in all pools.
    #[must_use]
    pub fn ready(&self) -> usize {
        let of = |pool: &WarmPool<T>| pool.status().borrow().ready;
        of(&self.standard) + self.classes.values().map(of).sum::<usize>()
    }
}
