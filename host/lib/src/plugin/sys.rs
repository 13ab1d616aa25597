//! Compiled machine code. Loading it is unsafe, because arbitrary bytes could do anything when they run. [`Code`]
//! therefore has only two sources: the compiler of this program, and a cache file with a tag made with the key of this
//! user.

use std::borrow::Cow;

use ring::hmac;
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::plugin::compile;
use crate::plugin::engine::Shared;

/// The compiled code of a component for the engine of this process.
pub(super) struct Code<'a>(Cow<'a, [u8]>);

impl<'a> Code<'a> {
    /// Compiles a component, in a separate process if that was set up. Fails with the cause as text.
    pub(super) fn compile(shared: &Shared, wasm: &[u8]) -> Result<Code<'static>, String> {
        compile::compile(shared, wasm).map(|code| Code(code.into()))
    }

    /// Takes cached code with this name. Returns `None` if `tag` is not the tag of the code. Only this user and root
    /// can read `key`. The comparison need not take constant time: it detects disk errors and not attackers.
    pub(super) fn kept(key: &hmac::Key, name: &str, tag: &[u8], code: &'a [u8]) -> Option<Code<'a>> {
        let code = Code(code.into());
        (code.tag(key, name).as_ref() == tag).then_some(code)
    }

    /// Wraps the bytes of a test.
    #[cfg(test)]
    pub(super) fn of(bytes: Vec<u8>) -> Code<'static> {
        Code(bytes.into())
    }

    /// Returns the tag of the code in the cache: an HMAC-SHA256 of its name and the code.
    pub(super) fn tag(&self, key: &hmac::Key, name: &str) -> hmac::Tag {
        let mut context = hmac::Context::with_key(key);
        context.update(name.as_bytes());
        context.update(&self.0);
        context.sign()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Loads the code as a component.
    pub(super) fn load(&self, engine: &Engine) -> wasmtime::Result<Component> {
        // SAFETY: `precompile_component` of this version of wasmtime has created the bytes, in this process, in another
        // process of this program, or in one of this user, because only these can make a tag with the user's key. The
        // bytes are in memory, so nothing changes them between the check and their use. wasmtime refuses code for
        // another engine.
        unsafe { Component::deserialize(engine, &self.0) }
    }
}
