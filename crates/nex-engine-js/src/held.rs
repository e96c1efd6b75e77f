//! Values that are held between two turns of the engine, within one call: after it its memory is put back, or freed.

use rquickjs::qjs;

use crate::value::{Fresh, Scope, Value};

/// Such a value.
pub(crate) struct Held(qjs::JSValue);

#[expect(unsafe_code, reason = "the engine is C")]
impl Held {
    /// Holds it.
    pub(crate) fn new(scope: Scope<'_>, value: Value<'_>) -> Self {
        // SAFETY: the value is of this context.
        Self(unsafe { qjs::JS_DupValue(scope.raw(), value.raw()) })
    }

    /// Whether it is the same object.
    pub(crate) fn is(&self, other: Value<'_>) -> bool {
        // SAFETY: only the tag is read.
        if !unsafe { qjs::JS_IsObject(other.raw()) } {
            return false;
        }
        // SAFETY: the addresses of what lives on the heap, or whatever stands in their place, are only compared.
        let [own, other] = [self.0, other.raw()].map(|raw| unsafe { qjs::JS_VALUE_GET_PTR(raw) });
        own == other
    }

    /// It, in the engine that holds it.
    pub(crate) fn into_value<'a>(self, _scope: Scope<'a>) -> Fresh<'a> {
        // SAFETY: whoever has a scope is in the call that it is held in.
        unsafe { Fresh::of(self.0) }
    }
}
