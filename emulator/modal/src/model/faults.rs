//! Faults that tests order: which calls fail, how, and how often. There are none unless a test orders them.
//!
//! A [`Rule`] names methods and a [`Fault`]. The first rule that matches a call and is not used up is applied. For a rule with
//! a probability, a seeded random number generator selects the calls. Every applied fault is logged.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// Number of the gRPC status RESOURCE_EXHAUSTED.
const RESOURCE_EXHAUSTED: i32 = 8;

/// The rules that are in effect.
#[derive(Debug)]
pub struct Chaos {
    seed: u64,
    state: Mutex<State>,
    /// How many times delayed calls have been released.
    released: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    rules: Vec<Active>,
    random: StdRng,
}

#[derive(Debug)]
struct Active {
    rule: Rule,
    seen: u32,
    applied: u32,
    /// Available tokens of the token bucket of [`Fault::Rate`].
    tokens: f64,
    refilled: Instant,
}

/// A fault, and the calls that it applies to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Method name without the service, such as `TaskExecStart`; a `*` at the end matches any suffix.
    pub method: String,
    /// Number of calls that the fault applies to; no limit if missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// Number of matching calls that pass before the first fault.
    #[serde(default)]
    pub skip: u32,
    /// Probability that the fault applies to a matching call, from 0 to 1.
    #[serde(default = "always")]
    pub probability: f64,
    /// The fault.
    pub fault: Fault,
}

fn always() -> f64 {
    1.0
}

/// What happens to a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// The call fails with a status and has no effect.
    Status {
        /// Number of the gRPC status.
        code: i32,
        /// Message of the status.
        #[serde(default)]
        message: String,
        /// Seconds after which the client should retry (docs/modal-protocol.md, section 1.5).
        #[serde(default)]
        retry_after_secs: Option<f32>,
    },
    /// The call takes effect, and then its response is replaced by a status, as if the response had been lost.
    LoseAnswer {
        /// Number of the gRPC status.
        code: i32,
    },
    /// The call is delayed.
    Delay {
        /// Shortest delay.
        millis: u64,
        /// Longest random addition to the delay.
        #[serde(default)]
        jitter_millis: u64,
    },
    /// The response is cut off after this many bytes.
    Cut {
        /// Bytes of the body, including frame headers, that still arrive.
        after_bytes: u64,
    },
    /// The request is cut off after this many bytes.
    CutRequest {
        /// Bytes of the body, including frame headers, that still arrive.
        after_bytes: u64,
    },
    /// The connection is closed at once.
    Close,
    /// The connection is shut down gracefully with GOAWAY: calls in flight finish, and new calls need another connection.
    Goaway,
    /// Calls above a rate fail with RESOURCE_EXHAUSTED and a time to retry.
    Rate {
        /// Calls that pass per second; also the size of a burst, which is at least one call.
        per_second: f64,
    },
    /// The tokens in the response have this lifetime.
    TokenLife {
        /// Lifetime in seconds, at least 1.
        seconds: u64,
    },
    /// The token that the call presents is rejected from this call on, whatever its `exp` says.
    ExpireToken,
    /// The sandbox or sidecar that the call creates gets this much disk space, and then runs out of it.
    Disk {
        /// Mebibytes, at least 1.
        mib: u64,
    },
    /// The command that the call starts has no time limit, whatever the request says.
    IgnoreTimeLimit,
}

/// Calls whose responses contain tokens.
const GIVE_TOKENS: [&str; 4] =
    ["AuthTokenGet", "SandboxCreateV2", "SandboxGetCommandRouterAccess", "TaskGetCommandRouterAccess"];

/// Calls that start commands with a time limit.
const START_COMMANDS: [&str; 1] = ["TaskExecStart"];

/// Calls that create containers.
const MAKE_CONTAINERS: [&str; 6] = [
    "PersistentSandboxCreate",
    "PersistentSandboxResume",
    "SandboxContainerCreateV2",
    "SandboxCreate",
    "SandboxCreateV2",
    "TaskContainerCreate",
];

impl Fault {
    /// Returns the calls that the fault can apply to; `None` means all calls.
    fn calls(&self) -> Option<&'static [&'static str]> {
        match self {
            Fault::TokenLife { .. } => Some(&GIVE_TOKENS),
            Fault::Disk { .. } => Some(&MAKE_CONTAINERS),
            Fault::IgnoreTimeLimit => Some(&START_COMMANDS),
            _ => None,
        }
    }
}

impl Rule {
    /// Checks the values of a rule, and that the fault can apply to its methods.
    ///
    /// # Errors
    ///
    /// Returns a text that says what is wrong.
    pub fn check(&self) -> Result<(), String> {
        if !(0.0..=1.0).contains(&self.probability) {
            return Err(format!("probability must be from 0 to 1, not {}", self.probability));
        }
        match &self.fault {
            Fault::Disk { mib: 0 } => return Err("mib must be at least 1".to_owned()),
            Fault::TokenLife { seconds: 0 } => return Err("seconds must be at least 1".to_owned()),
            Fault::Rate { per_second } if !(per_second.is_finite() && *per_second > 0.0) => {
                return Err(format!("per_second must be more than 0, not {per_second}"));
            }
            _ => {}
        }
        match self.fault.calls() {
            Some(calls) if !calls.iter().any(|call| fits(&self.method, call)) => {
                Err(format!("this fault is possible in {}, not in {}", calls.join(", "), self.method))
            }
            _ => Ok(()),
        }
    }

    fn concerns(&self, method: &str) -> bool {
        fits(&self.method, method) && self.fault.calls().is_none_or(|calls| calls.contains(&method))
    }
}

/// The parameters of faults that change how a call is carried out.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ordered {
    /// Lifetime of the tokens in the response.
    pub token_life: Option<Duration>,
    /// Bytes that the created sandbox or sidecar may write.
    pub disk: Option<u64>,
    /// Whether the started command runs without its time limit.
    pub ignore_time_limit: bool,
}

/// The fault that applies to one call.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Respond with this status, without effect.
    Refuse(Answer),
    /// Carry out the call, then respond with this status.
    Lose(Answer),
    /// Delay the call.
    Delay(Duration),
    /// Cut off the response after this many bytes.
    Cut(u64),
    /// Cut off the request after this many bytes.
    CutRequest(u64),
    /// Close the connection.
    Close,
    /// Shut the connection down gracefully.
    Goaway,
    /// Use this lifetime for the tokens in the response.
    TokenLife(Duration),
    /// Reject the call's token from now on.
    ExpireToken,
    /// Limit the created sandbox or sidecar to this many bytes of disk space.
    Disk(u64),
    /// Start the command without its time limit.
    IgnoreTimeLimit,
}

/// The status of an ordered failure.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Number of the gRPC status.
    pub code: i32,
    /// Message of the status.
    pub message: String,
    /// Seconds after which the client should retry.
    pub retry_after_secs: Option<f32>,
}

impl Chaos {
    /// Returns a registry without rules. The same seed and the same calls lead to the same faults.
    pub fn new(seed: u64) -> Chaos {
        let state = State { rules: Vec::new(), random: StdRng::seed_from_u64(seed) };
        Chaos { seed, state: Mutex::new(state), released: watch::Sender::new(0) }
    }

    /// Adds a rule after the existing ones.
    pub fn add(&self, rule: Rule) {
        tracing::info!(method = rule.method, fault = ?rule.fault, times = rule.times, "fault ordered");
        let tokens = if let Fault::Rate { per_second } = rule.fault { per_second.max(1.0) } else { 0.0 };
        self.state.lock().rules.push(Active { rule, seen: 0, applied: 0, tokens, refilled: Instant::now() });
    }

    /// Removes all rules and resets the random number generator to the seed, so that later rules do not depend on earlier ones.
    /// Calls that are delayed stay delayed.
    pub fn clear(&self) {
        let mut state = self.state.lock();
        state.rules.clear();
        state.random = StdRng::seed_from_u64(self.seed);
    }

    /// Releases all calls that [`Fault::Delay`] delays now.
    pub fn release(&self) {
        self.released.send_modify(|released| *released += 1);
    }

    /// Returns how many times calls have been released so far, for [`Chaos::hold_back`].
    pub fn released(&self) -> u64 {
        *self.released.borrow()
    }

    /// Waits for `delay`, or until delayed calls are released: until the count differs from `released`.
    pub async fn hold_back(&self, delay: Duration, released: u64) {
        let mut current = self.released.subscribe();
        let _ = tokio::time::timeout(delay, current.wait_for(|current| *current != released)).await;
    }

    /// Returns the rules, each with the number of calls that it was applied to.
    pub fn rules(&self) -> Vec<(Rule, u32)> {
        self.state.lock().rules.iter().map(|active| (active.rule.clone(), active.applied)).collect()
    }

    /// Returns the fault that applies to a call of `method`, and counts it. Returns `None` if no rule applies.
    pub fn verdict(&self, method: &str) -> Option<Verdict> {
        let mut state = self.state.lock();
        let State { rules, random } = &mut *state;
        for active in rules {
            if !active.rule.concerns(method) {
                continue;
            }
            active.seen += 1;
            let over = active.rule.times.is_some_and(|times| active.applied >= times);
            if over || active.seen <= active.rule.skip || random.random::<f64>() >= active.rule.probability {
                continue;
            }
            let Some(verdict) = active.verdict(random) else { continue };
            active.applied += 1;
            tracing::info!(method, fault = ?active.rule.fault, "fault");
            return Some(verdict);
        }
        None
    }
}

impl Active {
    fn verdict(&mut self, random: &mut StdRng) -> Option<Verdict> {
        Some(match self.rule.fault.clone() {
            Fault::Status { code, message, retry_after_secs } => {
                Verdict::Refuse(Answer { code, message: text(message), retry_after_secs })
            }
            Fault::LoseAnswer { code } => {
                Verdict::Lose(Answer { code, message: text(String::new()), retry_after_secs: None })
            }
            Fault::Delay { millis, jitter_millis } => {
                Verdict::Delay(Duration::from_millis(millis + random.random_range(0..=jitter_millis)))
            }
            Fault::Cut { after_bytes } => Verdict::Cut(after_bytes),
            Fault::CutRequest { after_bytes } => Verdict::CutRequest(after_bytes),
            Fault::Close => Verdict::Close,
            Fault::Goaway => Verdict::Goaway,
            Fault::TokenLife { seconds } => Verdict::TokenLife(Duration::from_secs(seconds)),
            Fault::ExpireToken => Verdict::ExpireToken,
            Fault::Disk { mib } => Verdict::Disk(mib.saturating_mul(1 << 20)),
            Fault::IgnoreTimeLimit => Verdict::IgnoreTimeLimit,
            Fault::Rate { per_second } => {
                let now = Instant::now();
                let refill = now.duration_since(self.refilled).as_secs_f64() * per_second;
                self.tokens = (self.tokens + refill).min(per_second.max(1.0));
                self.refilled = now;
                if self.tokens >= 1.0 {
                    self.tokens -= 1.0;
                    return None;
                }
                let wait = (1.0 - self.tokens) / per_second.max(1e-3);
                Verdict::Refuse(Answer {
                    code: RESOURCE_EXHAUSTED,
                    message: "Too many requests".to_owned(),
                    retry_after_secs: Some(wait as f32),
                })
            }
        })
    }
}

fn text(message: String) -> String {
    if message.is_empty() { "an ordered fault".to_owned() } else { message }
}

fn fits(pattern: &str, method: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => method.starts_with(start),
        None => pattern == method,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Rule {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn rules_count() {
        let chaos = Chaos::new(1);
        chaos.add(rule(r#"{"method":"A*","times":2,"skip":1,"fault":{"status":{"code":14}}}"#));
        let hits: Vec<bool> = ["AB", "B", "A", "AC", "AD"].iter().map(|m| chaos.verdict(m).is_some()).collect();
        assert_eq!(hits, [false, false, true, true, false]);
        assert_eq!(chaos.rules()[0].1, 2);
    }

    #[test]
    fn the_same_seed_gives_the_same_faults() {
        let run = |seed| {
            let chaos = Chaos::new(seed);
            chaos.add(rule(r#"{"method":"*","probability":0.5,"fault":"close"}"#));
            (0..64).map(|_| chaos.verdict("X").is_some()).collect::<Vec<_>>()
        };
        assert_eq!(run(3), run(3));
        assert_ne!(run(3), run(4));
        let chaos = Chaos::new(3);
        for _ in 0..2 {
            chaos.clear();
            chaos.add(rule(r#"{"method":"*","probability":0.5,"fault":"close"}"#));
            assert_eq!((0..64).map(|_| chaos.verdict("X").is_some()).collect::<Vec<_>>(), run(3));
        }
    }

    #[test]
    fn unknown_faults_are_refused() {
        for text in [r#"{"method":"*","fault":"melt"}"#, r#"{"method":"*","fault":"close","x":1}"#] {
            assert!(serde_json::from_str::<Rule>(text).is_err(), "{text}");
        }
        for text in [
            r#"{"method":"AppList","fault":{"disk":{"mib":1}}}"#,
            r#"{"method":"*","fault":{"disk":{"mib":0}}}"#,
            r#"{"method":"TaskExecStart","fault":{"token_life":{"seconds":1}}}"#,
            r#"{"method":"*","fault":{"rate":{"per_second":0}}}"#,
            r#"{"method":"*","probability":2,"fault":"close"}"#,
        ] {
            assert!(rule(text).check().is_err(), "{text}");
        }
    }

    #[test]
    fn faults_of_some_calls_pass_others_by() {
        let chaos = Chaos::new(1);
        chaos.add(rule(r#"{"method":"*","times":1,"fault":{"disk":{"mib":2}}}"#));
        assert_eq!(chaos.verdict("AppList"), None);
        assert_eq!(chaos.verdict("SandboxCreateV2"), Some(Verdict::Disk(2 << 20)));
        assert_eq!(chaos.verdict("SandboxCreateV2"), None);
    }
}
