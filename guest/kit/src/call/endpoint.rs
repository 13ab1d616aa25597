//! Calls to a service with a short-lived token. A service may revoke a token before it expires, so a call whose token
//! is rejected is repeated once with a new token. A second rejection is final.

use std::{future::Future, rc::Rc, time::Duration};

use super::{
    failure::Failure,
    retry::{self, Attempt, Policy, Throttle},
};
use crate::{api::error::Result, platform::Transport};

/// A service and the access to it.
///
/// A provider implements this trait once per service and makes its calls with [`call`] and [`open`].
pub trait Endpoint {
    /// The failure of a call.
    type Failure: Failure;

    /// What a call needs, such as an address and a token.
    type Access;

    /// Returns the transport that requests are sent with.
    fn transport(&self) -> &Rc<dyn Transport>;

    /// Returns how waits that the service asks for are read and limited.
    ///
    /// # Errors
    ///
    /// An error about the configuration if it is not valid.
    fn throttle(&self) -> Result<Throttle<Self::Failure>>;

    /// Returns the access for the next call. Fetches it if there is none or if it is about to expire.
    ///
    /// # Errors
    ///
    /// The error of the failed request for the access.
    fn access(&self) -> impl Future<Output = Result<Self::Access>>;

    /// Makes the next [`Endpoint::access`] fetch a new token.
    fn expire(&self);

    /// Handles a service that may still be starting up: waits and returns `true` if the call should be repeated, or
    /// returns `false` if `failure` is final. `since` is the time of the first attempt.
    ///
    /// # Errors
    ///
    /// An error that explains the failure better.
    fn comes_up(&self, failure: &Self::Failure, since: Duration) -> impl Future<Output = Result<bool>> {
        let _ = (failure, since);
        std::future::ready(Ok(false))
    }
}

/// Renews a rejected token at most once.
#[derive(Debug, Default)]
pub struct Renewal {
    done: bool,
}

impl Renewal {
    /// Returns whether the call should be repeated at once with a new token. If so, expires the current token.
    pub fn helps<E: Endpoint>(&mut self, endpoint: &E, failure: &E::Failure) -> bool {
        let helps = failure.is_unauthenticated() && !self.done;
        if helps {
            self.done = true;
            endpoint.expire();
        }
        helps
    }
}

/// Makes one call with the retries of `policy`, and renews the token if the service rejects it.
///
/// # Errors
///
/// Outer: an error from [`Endpoint::throttle`], [`Endpoint::access`] or [`Endpoint::comes_up`]. Inner: the failure of
/// the last attempt.
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

/// Opens a stream in one attempt, and in a second one if the service rejects the token.
///
/// # Errors
///
/// Outer: an error from [`Endpoint::access`]. Inner: the failure of the last attempt.
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

    /// A service whose tokens are numbers and that takes three seconds to start.
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
        // The first attempt may have had its effect, whatever the answers to the later ones are.
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
