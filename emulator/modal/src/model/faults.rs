//! Faults on demand: what a test wants to go wrong, and how often. None unless a test orders them.
//!
//! A [`Rule`] names methods and a [`Fault`]. The first rule that fits a call and has any left is applied; which calls are
//! hit by a rule with a probability follows from a seed. Every fault is in the log.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// Number of the gRPC status RESOURCE_EXHAUSTED.
const RESOURCE_EXHAUSTED: i32 = 8;

/// The rules in force.
#[derive(Debug)]
pub struct Chaos {
    seed: u64,
    state: Mutex<State>,
    /// How often calls that were held back were let go.
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
    /// Calls let through lately, for [`Fault::Rate`].
    tokens: f64,
    refilled: Instant,
}

/// A fault and the calls it is for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Method name without service, such as `TaskExecStart`; `*` at the end stands for anything.
    pub method: String,
    /// How many calls it is applied to; all of them when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// How many fitting calls are let through before.
    #[serde(default)]
    pub skip: u32,
    /// Share of fitting calls it is applied to, from 0 to 1.
    #[serde(default = "always")]
    pub probability: f64,
    /// What goes wrong.
    pub fault: Fault,
}

fn always() -> f64 {
    1.0
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// The call is answered with a status and does nothing.
    Status {
        /// Number of the gRPC status.
        code: i32,
        /// Its text.
        #[serde(default)]
        message: String,
        /// Tells the client when to try again (docs/modal-protocol.md, section 1.5).
        #[serde(default)]
        retry_after_secs: Option<f32>,
    },
    /// The call does its work, and then its answer is replaced by a status: a lost answer.
    LoseAnswer {
        /// Number of the gRPC status.
        code: i32,
    },
    /// The call is held back.
    Delay {
        /// At least so long.
        millis: u64,
        /// And up to so much longer.
        #[serde(default)]
        jitter_millis: u64,
    },
    /// The answer is cut after so many bytes of it.
    Cut {
        /// Bytes of the body, frame heads included, that still arrive.
        after_bytes: u64,
    },
    /// The request is cut after so many bytes of it.
    CutRequest {
        /// Bytes of the body, frame heads included, that still arrive.
        after_bytes: u64,
    },
    /// The connection is closed on the spot.
    Close,
    /// The connection is given up in an orderly way: calls in flight end, new ones go elsewhere.
    Goaway,
    /// Calls beyond a rate are refused with RESOURCE_EXHAUSTED and a time to try again.
    Rate {
        /// Calls let through per second; as many may come at once.
        per_second: f64,
    },
    /// The tokens in the answer are good for so long only.
    TokenLife {
        /// At least one.
        seconds: u64,
    },
    /// The token that the call came with is refused from this call on, whatever its `exp` says.
    ExpireToken,
    /// The sandbox or sidecar that the call makes has so much space to write to, then it runs out of disk.
    Disk {
        /// Mebibytes, at least one.
        mib: u64,
    },
    /// The command that the call starts runs without a time limit, whatever limit the request gives.
    IgnoreTimeLimit,
}

/// Calls whose answers hand out tokens.
const GIVE_TOKENS: [&str; 4] =
    ["AuthTokenGet", "SandboxCreateV2", "SandboxGetCommandRouterAccess", "TaskGetCommandRouterAccess"];

/// Calls that start commands with a time limit.
const START_COMMANDS: [&str; 1] = ["TaskExecStart"];

/// Calls that make containers.
const MAKE_CONTAINERS: [&str; 6] = [
    "PersistentSandboxCreate",
    "PersistentSandboxResume",
    "SandboxContainerCreateV2",
    "SandboxCreate",
    "SandboxCreateV2",
    "TaskContainerCreate",
];

impl Fault {
    /// The calls in which it can happen, when that is not any.
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
    /// Says what is wrong with a rule that could never do what it says.
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
                Err(format!("this fault happens in {}, not in {}", calls.join(", "), self.method))
            }
            _ => Ok(()),
        }
    }

    fn concerns(&self, method: &str) -> bool {
        fits(&self.method, method) && self.fault.calls().is_none_or(|calls| calls.contains(&method))
    }
}

/// What a call that is carried out does differently.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ordered {
    /// How long the tokens in its answer are good for.
    pub token_life: Option<Duration>,
    /// Bytes that what it makes has to write to.
    pub disk: Option<u64>,
    /// Whether the time limit of the command that it starts is ignored.
    pub ignore_time_limit: bool,
}

/// What a call has to expect.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Answer with this and do nothing.
    Refuse(Answer),
    /// Do it, then answer with this.
    Lose(Answer),
    /// Wait first.
    Delay(Duration),
    /// Cut the answer.
    Cut(u64),
    /// Cut the request.
    CutRequest(u64),
    /// Close the connection.
    Close,
    /// Give the connection up.
    Goaway,
    /// Let tokens in the answer be good for so long.
    TokenLife(Duration),
    /// Refuse its token from now on.
    ExpireToken,
    /// Give what is made so many bytes to write to.
    Disk(u64),
    /// Start the command without its time limit.
    IgnoreTimeLimit,
}

/// The status of an answer that was ordered.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Number of the gRPC status.
    pub code: i32,
    /// Its text.
    pub message: String,
    /// Tells the client when to try again, in seconds.
    pub retry_after_secs: Option<f32>,
}

impl Chaos {
    /// No rules. The same seed and the same calls give the same faults.
    pub fn new(seed: u64) -> Chaos {
        let state = State { rules: Vec::new(), random: StdRng::seed_from_u64(seed) };
        Chaos { seed, state: Mutex::new(state), released: watch::Sender::new(0) }
    }

    /// Adds a rule after those that are there.
    pub fn add(&self, rule: Rule) {
        tracing::info!(method = rule.method, fault = ?rule.fault, times = rule.times, "fault ordered");
        let tokens = if let Fault::Rate { per_second } = rule.fault { per_second.max(1.0) } else { 0.0 };
        self.state.lock().rules.push(Active { rule, seen: 0, applied: 0, tokens, refilled: Instant::now() });
    }

    /// Removes all rules, and begins again with the seed: what is ordered next does not depend on what was before. Calls
    /// that are held back stay so.
    pub fn clear(&self) {
        let mut state = self.state.lock();
        state.rules.clear();
        state.random = StdRng::seed_from_u64(self.seed);
    }

    /// Lets all calls go on that [`Fault::Delay`] holds back now.
    pub fn release(&self) {
        self.released.send_modify(|released| *released += 1);
    }

    /// How often calls were let go so far; for [`Chaos::hold_back`].
    pub fn released(&self) -> u64 {
        *self.released.borrow()
    }

    /// Holds a call back for so long, or until calls are let go once more than `released` times.
    pub async fn hold_back(&self, delay: Duration, released: u64) {
        let mut current = self.released.subscribe();
        let _ = tokio::time::timeout(delay, current.wait_for(|current| *current != released)).await;
    }

    /// The rules, each with how often it was applied.
    pub fn rules(&self) -> Vec<(Rule, u32)> {
        self.state.lock().rules.iter().map(|active| (active.rule.clone(), active.applied)).collect()
    }

    /// What a call of `method` has to expect.
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
    if message.is_empty() { "a fault that was ordered".to_owned() } else { message }
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
