//! The owner of a group of tasks. Tasks are spawned into a scope, never by `tokio::spawn`.
//!
//! Cancellation flows down (a child scope is cancelled with its parent), results flow up by join. Dropping a scope cancels its
//! token and aborts what still runs. A task that panics is logged by name; the process and the other tasks continue.

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::deadline::Deadline;

/// A named group of tasks with one cancellation token; share it behind an `Arc`.
pub struct TaskScope {
    name: &'static str,
    cancel: CancellationToken,
    /// `None` once shut down: what is spawned after that is dropped at once.
    tasks: Mutex<Option<JoinSet<()>>>,
}

impl TaskScope {
    /// A scope of its own.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self::with_token(name, CancellationToken::new())
    }

    /// A scope that is cancelled together with this one; its own owner shuts it down.
    #[must_use]
    pub fn child(&self, name: &'static str) -> Self {
        Self::with_token(name, self.cancel.child_token())
    }

    fn with_token(name: &'static str, cancel: CancellationToken) -> Self {
        Self { name, cancel, tasks: Mutex::new(Some(JoinSet::new())) }
    }

    /// Starts a task; `name` is logged if it panics. Must be called inside a runtime.
    pub fn spawn<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let scope = self.name;
        let mut tasks = self.lock();
        let Some(set) = tasks.as_mut() else {
            tracing::debug!(scope, task = name, "task not started, its scope is shut down");
            return;
        };
        // Finished tasks are taken out here, so a scope that lives as long as the node does not grow.
        while set.try_join_next().is_some() {}
        set.spawn(async move {
            if let Err(panic) = AssertUnwindSafe(future).catch_unwind().await {
                tracing::error!(scope, task = name, panic = panic_text(panic.as_ref()), "task panicked");
            }
        });
    }

    /// The token that is cancelled when the scope shuts down; tasks watch it.
    #[must_use]
    pub fn cancel_token(&self) -> CancellationToken {
        self.cancel.clone()
    }

    /// Cancels the token without waiting for anyone.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// How many tasks still run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.lock().as_mut().map_or(0, |set| {
            while set.try_join_next().is_some() {}
            set.len()
        })
    }

    /// Cancels the token, waits for every task until the grace is over, aborts the rest and returns how many those were.
    ///
    /// # Cancel safety
    /// Dropping the future aborts the tasks that are left.
    pub async fn shutdown(&self, grace: Duration) -> usize {
        self.cancel.cancel();
        let Some(mut set) = self.lock().take() else { return 0 };
        let deadline = Deadline::after(grace);
        while let Ok(Some(_)) = deadline.bound(set.join_next()).await {}
        while set.try_join_next().is_some() {}
        let late = set.len();
        if late > 0 {
            // A grace of zero means: abort them.
            if !grace.is_zero() {
                tracing::warn!(scope = self.name, tasks = late, "tasks aborted after the grace was over");
            }
            set.shutdown().await;
        }
        late
    }

    fn lock(&self) -> MutexGuard<'_, Option<JoinSet<()>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for TaskScope {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl fmt::Debug for TaskScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskScope")
            .field("name", &self.name)
            .field("cancelled", &self.cancel.is_cancelled())
            .finish_non_exhaustive()
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    match (panic.downcast_ref::<&'static str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (None, Some(text)) => text,
        (None, None) => "no message",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_task_that_heeds_the_token_is_not_aborted() {
        let scope = TaskScope::new("test");
        let token = scope.cancel_token();
        scope.spawn("polite", async move { token.cancelled().await });
        assert_eq!(scope.shutdown(Duration::from_secs(5)).await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deaf_task_is_aborted_and_counted() {
        let scope = TaskScope::new("test");
        scope.spawn("deaf", std::future::pending());
        scope.spawn("short", async {});
        assert_eq!(scope.shutdown(Duration::from_millis(50)).await, 1);
        assert_eq!(scope.shutdown(Duration::from_millis(50)).await, 0);
    }

    #[tokio::test]
    async fn a_panicking_task_leaves_its_neighbours_alone() {
        let scope = Arc::new(TaskScope::new("test"));
        let (done, answer) = oneshot::channel();
        scope.spawn("bad", async { panic!("on purpose") });
        scope.spawn("good", async move {
            let _ = done.send(1);
        });
        assert_eq!(answer.await, Ok(1));
        assert_eq!(scope.shutdown(Duration::from_secs(5)).await, 0);
    }

    #[tokio::test]
    async fn a_child_is_cancelled_with_its_parent_and_not_the_other_way_round() {
        let parent = TaskScope::new("parent");
        let (one, two) = (parent.child("one"), parent.child("two"));
        one.cancel();
        assert!(!parent.cancel_token().is_cancelled());
        drop(parent);
        assert!(two.cancel_token().is_cancelled());
    }

    #[tokio::test]
    async fn finished_tasks_are_forgotten_and_a_closed_scope_starts_nothing() {
        let scope = TaskScope::new("test");
        for _ in 0..1000 {
            scope.spawn("tick", async {});
            tokio::task::yield_now().await;
        }
        assert!(scope.running() < 10);
        scope.shutdown(Duration::from_secs(5)).await;
        let (sender, receiver) = oneshot::channel::<()>();
        scope.spawn("late", async move { drop(sender) });
        assert!(receiver.await.is_err());
        assert_eq!(scope.running(), 0);
    }
}
