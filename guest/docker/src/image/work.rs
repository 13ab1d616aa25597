//! Pulls and builds that are under way. The engine ends a build whose connection is closed, so a build lives in the instance
//! that started it. A cursor names the build and a position in its log; another instance that gets it finds the finished
//! image, or says that the build has to be started again.

use std::{cell::RefCell, collections::HashMap, rc::Rc};

use futures_util::{
    FutureExt as _,
    future::{Either, select},
};
use sandbox_provider_kit::{
    Error, Result,
    api::{
        check,
        ids::derived_uuid,
        time::bounded_wait,
        wit::{BuildProgress, ErrorKind, LogChunk, RetryAdvice},
    },
    platform::LocalFuture,
};

use super::{
    BUILT, Plan, Ready,
    build::{Log, carry_out},
    content::Contents,
    inspect,
};
use crate::engine::Engine;

/// Most builds that are remembered. A finished build is only remembered for its log.
const MAX_WORKS: usize = 64;

struct Work {
    log: Log,
    state: State,
    /// The position in the order of the starts.
    number: u64,
}

enum State {
    Running(LocalFuture<'static, Result<Ready>>),
    Over(Result<Ready>),
}

/// The pulls and builds of this instance.
pub struct Works {
    engine: Engine,
    contents: Rc<Contents>,
    works: RefCell<HashMap<String, Work>>,
}

impl Works {
    /// Makes an empty list.
    #[must_use]
    pub fn new(engine: Engine, contents: Rc<Contents>) -> Works {
        Works { engine, contents, works: RefCell::default() }
    }

    fn begin(&self, plan: Plan) -> (String, Log, LocalFuture<'static, Result<Ready>>) {
        let tag = name(&plan);
        let log = Log::default();
        let work = carry_out(self.engine.clone(), self.contents.clone(), plan, tag.clone(), log.clone());
        (tag, log, Box::pin(work))
    }

    /// Carries out a plan to its end. Joins the same one that is under way.
    ///
    /// # Errors
    ///
    /// As for [`carry_out`].
    pub async fn finish(&self, plan: Plan) -> Result<Ready> {
        let key = name(&plan);
        let running = match self.works.borrow_mut().remove(&key) {
            Some(Work { state: State::Running(work), .. }) => Some(work),
            _ => None,
        };
        match running {
            Some(work) => work.await,
            None => self.begin(plan).2.await,
        }
    }

    /// Starts a plan, or joins the same one that is under way.
    ///
    /// # Errors
    ///
    /// As for [`carry_out`].
    pub async fn start(&self, plan: Plan) -> Result<BuildProgress> {
        let key = name(&plan);
        let running = matches!(self.works.borrow().get(&key), Some(Work { state: State::Running(_), .. }));
        let kind = if plan.build.is_some() { 'b' } else { 'p' };
        let rest = match (&plan.build, &plan.base) {
            (None, Some(base)) => base.reference.clone(),
            _ => String::new(),
        };
        if !running {
            let (_, log, work) = self.begin(plan);
            let mut works = self.works.borrow_mut();
            let number = works.values().map(|work| work.number + 1).max().unwrap_or(0);
            if works.len() >= MAX_WORKS
                && let Some(oldest) = works.iter().min_by_key(|(_, work)| work.number).map(|(key, _)| key.clone())
            {
                works.remove(&oldest);
            }
            works.insert(key.clone(), Work { log, state: State::Running(work), number });
        }
        self.read(&format!("{kind}.{key}.0.{rest}"), 64 * 1024, 0).await
    }

    /// Implements `read-build`.
    ///
    /// # Errors
    ///
    /// `invalid-argument` for a wrong cursor; `unavailable` if this instance does not know the build and there is no finished
    /// image; otherwise as for [`carry_out`], after the whole log has been read.
    pub async fn read(&self, cursor: &str, max_bytes: u32, wait: u64) -> Result<BuildProgress> {
        let max = check::max_bytes(max_bytes)?;
        let wrong = || Error::invalid("The cursor is unknown: give the one of the last progress.").about("cursor");
        let mut parts = cursor.splitn(4, '.');
        let (kind, key) = (parts.next().unwrap_or_default(), parts.next().ok_or_else(wrong)?);
        let offset: usize = parts.next().and_then(|text| text.parse().ok()).ok_or_else(wrong)?;
        let rest = parts.next().ok_or_else(wrong)?;
        if !matches!(kind, "b" | "p") {
            return Err(wrong());
        }
        let Some(mut work) = self.works.borrow_mut().remove(key) else {
            return self.elsewhere(cursor, key, rest).await;
        };
        let until = self.engine.now() + bounded_wait(wait);
        loop {
            if let State::Running(running) = &mut work.state {
                let left = until.saturating_sub(self.engine.now());
                // It has to be carried on even if the caller does not wait.
                let step = match left.is_zero() {
                    true => running.as_mut().now_or_never(),
                    false => match select(running.as_mut(), self.engine.transport().sleep(left.min(STEP))).await {
                        Either::Left((result, _)) => Some(result),
                        Either::Right(_) => None,
                    },
                };
                if let Some(result) = step {
                    work.state = State::Over(result);
                }
            }
            let news = work.log.borrow().len() > offset;
            if news || matches!(work.state, State::Over(_)) || self.engine.now() >= until {
                break;
            }
        }
        let (text, next, read_all) = {
            let log = work.log.borrow();
            let from = log.floor_char_boundary(offset.min(log.len()));
            let end = log.floor_char_boundary((from + max).min(log.len()));
            (log[from..end].to_string(), end, end == log.len())
        };
        let cursor = format!("{kind}.{key}.{next}.{rest}");
        let image = match &work.state {
            State::Over(Ok(image)) if read_all => Some(image.clone().built()),
            State::Over(Err(error)) if read_all && text.is_empty() => {
                let error = error.clone();
                self.works.borrow_mut().insert(key.to_string(), work);
                return Err(error);
            }
            _ => None,
        };
        self.works.borrow_mut().insert(key.to_string(), work);
        let chunk = (!text.is_empty()).then_some(LogChunk { stream: None, text, at: None });
        Ok(BuildProgress { log: chunk.into_iter().collect(), cursor, image })
    }

    /// Answers for a build that this instance does not know.
    async fn elsewhere(&self, cursor: &str, key: &str, reference: &str) -> Result<BuildProgress> {
        let built = format!("{BUILT}:{key}");
        let reference = if reference.is_empty() { &built } else { reference };
        match inspect(&self.engine, reference).await? {
            Some(image) => {
                Ok(BuildProgress { log: Vec::new(), cursor: cursor.to_string(), image: Some(image.built()) })
            }
            None => {
                let message =
                    "The instance that followed the build is gone, and the engine has ended the build: start it again.";
                Err(Error::new(ErrorKind::Unavailable, message).with_retry(RetryAdvice::Maybe))
            }
        }
    }
}

/// The longest wait before the log is looked at again.
const STEP: std::time::Duration = std::time::Duration::from_millis(100);

/// Returns the name of a plan: the same for the same definition.
fn name(plan: &Plan) -> String {
    let mut text = format!("{:?} {:?}\n", plan.base, plan.platform);
    if let Some(dockerfile) = &plan.build {
        text.push_str(&format!("{:?} {:?}\n{}\n", dockerfile.build_args, dockerfile.target, dockerfile.text));
        for file in &dockerfile.context {
            text.push_str(&format!("{:?} {:o} {}\n", file.path, file.mode, file.content.sha256));
        }
    }
    derived_uuid(&text)
}
