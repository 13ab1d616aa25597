//! The provider's state: configuration, and caches that save requests and may be lost at any time.

use std::{
    cell::{OnceCell, RefCell},
    collections::{HashMap, VecDeque},
    rc::Rc,
    time::Duration,
};

use crate::{
    auth::AuthToken,
    config::Config,
    error::Result,
    follow::Follow,
    images::Join,
    router::Access,
    transport::{Channel, Transport},
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
    pub(crate) secrets: HashMap<String, String>,
    pub(crate) routers: Bounded<String, Access>,
    pub(crate) follows: Bounded<(String, String, i32), Follow>,
    pub(crate) joins: Bounded<String, Join>,
    pub(crate) started: Bounded<(String, String), ()>,
    pub(crate) users: Bounded<(String, String), Switch>,
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
        Channel(self.inner.transport.clone())
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
    entries: VecDeque<(K, V)>,
}

impl<K, V> Default for Bounded<K, V> {
    fn default() -> Self {
        Bounded { entries: VecDeque::new() }
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
        self.entries.remove(index).map(|(_, value)| value)
    }

    /// Puts in, as the newest.
    pub fn insert(&mut self, key: K, value: V) {
        self.remove(&key);
        if self.entries.len() == REMEMBERED {
            self.entries.pop_front();
        }
        self.entries.push_back((key, value));
    }

    /// All entries, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, value)| (key, value))
    }
}
