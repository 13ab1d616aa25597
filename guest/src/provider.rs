//! The provider's state: configuration, and caches that save requests and may be lost at any time.

use std::{
    cell::{OnceCell, RefCell},
    rc::Rc,
    time::Duration,
};

use crate::{
    auth::AuthToken,
    builds::Join,
    config::Config,
    context::Upload,
    error::Result,
    follow::Follow,
    grpc::{Channel, Wire},
    names::Secret,
    router::Access,
    run::Swept,
    transport::Transport,
    user::Switch,
};

/// Sandboxes whose router access is remembered, and streams that are kept open, per instance. A host sends calls about
/// one sandbox to one instance, so few are in use; the bound keeps a long-lived one from growing.
const REMEMBERED: usize = 64;

/// Modal as a provider. Cheap to clone: one state behind it.
#[derive(Clone)]
pub struct Provider {
    pub(crate) inner: Rc<Inner>,
}

/// See [`Provider`].
pub struct Inner {
    pub(crate) transport: Rc<dyn Transport>,
    config: OnceCell<Config>,
    pub(crate) state: RefCell<State>,
}

/// What is remembered between calls. Nothing in it is needed: each part can be had again for a request.
#[derive(Default)]
pub struct State {
    pub(crate) auth: Option<AuthToken>,
    pub(crate) app_id: Option<String>,
    pub(crate) builder_version: Option<String>,
    pub(crate) secrets: Bounded<String, Secret>,
    pub(crate) uploads: Bounded<String, Upload>,
    pub(crate) routers: Bounded<String, Access>,
    pub(crate) follows: Bounded<(String, String, i32), Follow>,
    pub(crate) joins: Bounded<String, Join>,
    pub(crate) started: Bounded<(String, String), ()>,
    pub(crate) users: Bounded<(String, Option<String>, String), Switch>,
    /// Execs that have outlived their time limit.
    pub(crate) swept: Bounded<(String, String), Swept>,
    /// Containers that have their shell in another place.
    pub(crate) shells: Bounded<(String, Option<String>), ()>,
}

impl Provider {
    /// A provider on this transport. Reads nothing and sends nothing yet.
    #[must_use]
    pub fn new(transport: Rc<dyn Transport>) -> Provider {
        Provider { inner: Rc::new(Inner { transport, config: OnceCell::new(), state: RefCell::default() }) }
    }

    /// The configuration, read at first use so that `describe` works whatever the environment says.
    ///
    /// # Errors
    ///
    /// `invalid-argument` naming the variable that makes no sense.
    pub fn config(&self) -> Result<&Config> {
        if self.inner.config.get().is_none() {
            let config = Config::read(&*self.inner.transport)?;
            let _ = self.inner.config.set(config);
        }
        self.inner.config.get().ok_or_else(|| crate::Error::internal("The configuration could not be kept."))
    }

    /// What it runs on.
    #[must_use]
    pub fn transport(&self) -> &Rc<dyn Transport> {
        &self.inner.transport
    }

    pub(crate) fn channel(&self) -> Channel {
        let wire = self.config().map_or(Wire::Grpc, |config| config.wire);
        Channel { transport: self.inner.transport.clone(), wire }
    }

    pub(crate) fn now(&self) -> Duration {
        self.inner.transport.now()
    }

    pub(crate) fn new_uuid(&self) -> String {
        crate::ids::format_uuid(self.inner.transport.random())
    }
}

/// A map that forgets the oldest entry when it is full.
pub struct Bounded<K, V> {
    entries: Vec<(K, V)>,
}

impl<K, V> Default for Bounded<K, V> {
    fn default() -> Self {
        Bounded { entries: Vec::new() }
    }
}

impl<K: PartialEq, V> Bounded<K, V> {
    /// Looks up.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.entries.iter().find(|(k, _)| k == key).map(|(_, value)| value)
    }

    /// Takes out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let index = self.entries.iter().position(|(k, _)| k == key)?;
        Some(self.entries.remove(index).1)
    }

    /// Puts in, as the newest.
    pub fn insert(&mut self, key: K, value: V) {
        self.remove(&key);
        if self.entries.len() == REMEMBERED {
            self.entries.remove(0);
        }
        self.entries.push((key, value));
    }

    /// All entries, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, value)| (key, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded_and_the_oldest_is_forgotten() {
        let mut kept = Bounded::default();
        for number in 0..REMEMBERED {
            kept.insert(number, 'a');
        }
        // Put in again, it is the newest.
        kept.insert(0, 'b');
        kept.insert(REMEMBERED, 'c');
        assert_eq!((kept.get(&0), kept.get(&1), kept.iter().count()), (Some(&'b'), None, REMEMBERED));
        assert_eq!(kept.iter().last(), Some((&REMEMBERED, &'c')));
        assert_eq!((kept.remove(&2), kept.remove(&2), kept.iter().count()), (Some('a'), None, REMEMBERED - 1));
    }
}
