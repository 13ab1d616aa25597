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

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;
    use crate::{
        call::http::{Refusal, exchange},
        platform::{
            Method, Request, Url, empty,
            scripted::{Answer, Script, run},
        },
    };

    const POLICY: Policy = Policy {
        retries: 1,
        base: Duration::from_millis(100),
        cap: Duration::from_secs(1),
        refused: 0,
        attempt: None,
        throttle_any: false,
        patience: None,
    };

    /// A service whose tokens are numbered, and that takes three seconds to come up.
    struct Service {
        transport: Rc<dyn Transport>,
        token: RefCell<Option<u32>>,
        fetched: Cell<u32>,
    }

    impl Endpoint for Service {
        type Failure = Refusal;
        type Access = u32;

        fn transport(&self) -> &Rc<dyn Transport> {
            &self.transport
        }

        fn throttle(&self) -> Result<Throttle<Refusal>> {
            Ok(Throttle { wait: Refusal::retry_after, longest: None })
        }

        async fn access(&self) -> Result<u32> {
            if self.token.borrow().is_none() {
                self.fetched.set(self.fetched.get() + 1);
                *self.token.borrow_mut() = Some(self.fetched.get());
            }
            Ok(self.fetched.get())
        }

        fn expire(&self) {
            *self.token.borrow_mut() = None;
        }

        async fn comes_up(&self, failure: &Refusal, since: Duration) -> Result<bool> {
            if !failure.is_refused() || self.transport.now() - since >= Duration::from_secs(3) {
                return Ok(false);
            }
            self.transport.sleep(Duration::from_secs(1)).await;
            Ok(true)
        }
    }

    fn service(script: &Script) -> Service {
        Service { transport: Rc::new(script.clone()), token: RefCell::default(), fetched: Cell::default() }
    }

    fn ask(service: &Service) -> Result<(), Refusal> {
        let answer = run(call(service, &POLICY, |token, _| {
            let (method, url) = (Method::Get, Url::parse("http://a/x").expect("a URL"));
            let headers = vec![("authorization", token.to_string())];
            let (transport, request) = (service.transport.clone(), Request { method, url, headers, body: empty() });
            async move { exchange(&transport, request, 100).await.map(drop) }
        }));
        answer.expect("a token")
    }

    #[test]
    fn a_token_that_is_refused_is_renewed_once() {
        let script = Script::new();
        let service = service(&script);
        script.will("x", Answer::Http(401, "", ""));
        script.will("x", Answer::Http(200, "", ""));
        assert!(ask(&service).is_ok());
        let tokens: Vec<_> = script.calls("x").iter().map(|seen| seen.header("authorization")).collect();
        assert_eq!(tokens, ["1", "2"]);
        for _ in 0..2 {
            script.will("x", Answer::Http(401, "", ""));
        }
        assert!(ask(&service).is_err_and(|refusal| refusal.is_unauthenticated()), "the second refusal is believed");
        assert_eq!(service.fetched.get(), 3);
    }

    #[test]
    fn an_attempt_before_the_renewal_counts() {
        let script = Script::new();
        let service = service(&script);
        // It may have happened at the first attempt, whatever the later ones are answered.
        for status in [502, 401, 404] {
            script.will("x", Answer::Http(status, "", ""));
        }
        let refusal = ask(&service).unwrap_err();
        assert!(refusal.status() == Some(404) && refusal.may_have_happened(), "{refusal}");
    }

    #[test]
    fn an_endpoint_that_is_not_up_yet_is_waited_for() {
        let script = Script::new();
        let waiting = service(&script);
        for _ in 0..2 {
            script.will("x", Answer::Refused);
        }
        script.will("x", Answer::Http(200, "", ""));
        assert!(ask(&waiting).is_ok());
        assert_eq!(script.now(), Duration::from_secs(2));
        for _ in 0..4 {
            script.will("x", Answer::Refused);
        }
        assert!(ask(&waiting).is_err_and(|refusal| refusal.is_refused()));
        assert_eq!(script.now(), Duration::from_secs(5), "but not for ever");
    }
}
