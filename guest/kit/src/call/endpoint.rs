//! A service that is called with a short-lived token. A token may be withdrawn before its time, so a call that is refused
//! for it is repeated once with a new one; a second refusal is believed.

use std::{future::Future, rc::Rc, time::Duration};

use super::{
    failure::Failure,
    retry::{self, Attempt, Policy, Throttle},
};
use crate::{api::error::Result, platform::Transport};

/// Where calls go, and what lets them in.
///
/// A provider implements it once per service; [`call`] and [`open`] then do the rest.
pub trait Endpoint {
    /// Why a call fails.
    type Failure: Failure;

    /// What a call needs: an address, a token, whatever else is learned with them.
    type Access;

    /// What it is reached over.
    fn transport(&self) -> &Rc<dyn Transport>;

    /// How long waits are that the service asks for, and how long they may be.
    ///
    /// # Errors
    ///
    /// What is wrong with the configuration.
    fn throttle(&self) -> Result<Throttle<Self::Failure>>;

    /// The access for the next call. Fetched when there is none, or when it is about to end.
    ///
    /// # Errors
    ///
    /// Why it could not be had.
    fn access(&self) -> impl Future<Output = Result<Self::Access>>;

    /// Makes the next [`Endpoint::access`] fetch a new token.
    fn expire(&self);

    /// Waits, and returns true, if an endpoint that has failed so since that time may only be slow to come up.
    ///
    /// # Errors
    ///
    /// A better explanation than the failure is.
    fn comes_up(&self, failure: &Self::Failure, since: Duration) -> impl Future<Output = Result<bool>> {
        let _ = (failure, since);
        std::future::ready(Ok(false))
    }
}

/// Renews a token that was refused, once.
#[derive(Debug, Default)]
pub struct Renewal {
    done: bool,
}

impl Renewal {
    /// Whether a call that failed so is worth repeating at once, with a new token.
    pub fn helps<E: Endpoint>(&mut self, endpoint: &E, failure: &E::Failure) -> bool {
        let helps = failure.is_unauthenticated() && !self.done;
        if helps {
            self.done = true;
            endpoint.expire();
        }
        helps
    }
}

/// Makes one call, repeated as the policy says.
///
/// # Errors
///
/// Outer: no access could be had. Inner: how the last attempt failed.
pub async fn call<E: Endpoint, T, Fut>(
    endpoint: &E,
    policy: &Policy,
    mut attempt: impl FnMut(&E::Access, Attempt) -> Fut,
) -> Result<Result<T, E::Failure>>
where
    Fut: Future<Output = Result<T, E::Failure>>,
{
    let throttle = endpoint.throttle()?;
    let begun = endpoint.transport().now();
    let (mut renewal, mut earlier) = (Renewal::default(), false);
    loop {
        let access = endpoint.access().await?;
        let result = retry::run(endpoint.transport(), policy, throttle, |at| attempt(&access, at)).await;
        let mut failure = match result {
            Ok(answer) => return Ok(Ok(answer)),
            Err(failure) => failure,
        };
        if renewal.helps(endpoint, &failure) {
            earlier |= failure.had_earlier();
            continue;
        }
        if earlier {
            failure.mark_earlier();
        }
        if !endpoint.comes_up(&failure, begun).await? {
            return Ok(Err(failure));
        }
        earlier = failure.had_earlier();
    }
}

/// Opens a stream: one attempt, and a second one if the token was refused.
///
/// # Errors
///
/// As [`call`].
pub async fn open<E: Endpoint, T, Fut>(
    endpoint: &E,
    mut attempt: impl FnMut(&E::Access) -> Fut,
) -> Result<Result<T, E::Failure>>
where
    Fut: Future<Output = Result<T, E::Failure>>,
{
    let mut renewal = Renewal::default();
    loop {
        let access = endpoint.access().await?;
        match attempt(&access).await {
            Err(failure) if renewal.helps(endpoint, &failure) => {}
            opened => return Ok(opened),
        }
    }
}
