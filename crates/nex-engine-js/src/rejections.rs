//! Rejections of promises that nobody has handled when a call ends: they go to the log, for no one else would ever hear of them.

use std::cell::RefCell;

use crate::held::Held;
use crate::value::{Fresh, Scope, Value};

/// Most that are kept of one call.
const MAX: usize = 16;

/// Those of the present call.
#[derive(Default)]
pub(crate) struct Rejections(RefCell<Vec<(Held, Held)>>);

impl Rejections {
    /// A promise was rejected and nobody waits for it yet, or somebody does now.
    pub(crate) fn tell(&self, scope: Scope<'_>, promise: Value<'_>, reason: Value<'_>, is_handled: bool) {
        let mut kept = self.0.borrow_mut();
        if !is_handled && kept.len() < MAX {
            kept.push((Held::new(scope, promise), Held::new(scope, reason)));
        } else if is_handled && let Some(at) = kept.iter().position(|(known, _)| known.is(promise)) {
            let (promise, reason) = kept.remove(at);
            scope.free(promise.into_value(scope));
            scope.free(reason.into_value(scope));
        }
    }

    /// The caller is told of this one.
    pub(crate) fn forget(&self, promise: Value<'_>) {
        self.0.borrow_mut().retain(|(known, _)| !known.is(promise));
    }

    /// The reasons of all that are left.
    pub(crate) fn take<'a>(&self, scope: Scope<'a>) -> Vec<Fresh<'a>> {
        self.0.take().into_iter().map(|(_, reason)| reason.into_value(scope)).collect()
    }
}
