//! Machine code that was compiled before. Loading it is unsafe, since bytes that no compiler made can do anything once they
//! run. So it is a type that has two origins only: this program's own compiler, and a file with a tag by this user's key.

use std::borrow::Cow;

use ring::hmac;
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::plugin::compile;
use crate::plugin::engine::Shared;

/// Code of a component for the engine of this process.
pub(super) struct Code<'a>(Cow<'a, [u8]>);

impl<'a> Code<'a> {
    /// Compiles a component, in a process of its own if that was set up. Fails with the reason in words.
    pub(super) fn compile(shared: &Shared, wasm: &[u8]) -> Result<Code<'static>, String> {
        compile::compile(shared, wasm).map(|code| Code(code.into()))
    }

    /// Takes code that was kept under this name. Returns `None` if `tag` is not that of the code by `key`, which only this
    /// user and root can read. An error of the disk is no attack that could measure the time of the comparison.
    pub(super) fn kept(key: &hmac::Key, name: &str, tag: &[u8], code: &'a [u8]) -> Option<Code<'a>> {
        let code = Code(code.into());
        (code.tag(key, name).as_ref() == tag).then_some(code)
    }

    /// Bytes that a test chooses.
    #[cfg(test)]
    pub(super) fn of(bytes: Vec<u8>) -> Code<'static> {
        Code(bytes.into())
    }

    /// The tag under which the code is kept: an HMAC-SHA256 over its name and itself.
    pub(super) fn tag(&self, key: &hmac::Key, name: &str) -> hmac::Tag {
        let mut context = hmac::Context::with_key(key);
        context.update(name.as_bytes());
        context.update(&self.0);
        context.sign()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Makes a component of it.
    pub(super) fn load(&self, engine: &Engine) -> wasmtime::Result<Component> {
        // SAFETY: the bytes are what `precompile_component` of this version of wasmtime made, in this process or in another
        // one of this program, or of this user: nothing else has a tag by the user's key. They lie in memory, so nothing
        // changes them between the check and their use. wasmtime itself refuses code for another engine.
        unsafe { Component::deserialize(engine, &self.0) }
    }
}
