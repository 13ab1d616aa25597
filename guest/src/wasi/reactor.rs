//! Futures over `wasi:io/poll`, for as long as the instance lives.
//!
//! A library reactor that is made anew for each call would do for calls that are complete in themselves. Here output streams
//! stay open between calls, so that following an output costs no further requests; their pollables must therefore belong
//! to something that outlives the call. That is the one thread-local below: a table of pollables with the waker of
//! whoever waits for them, and the tasks that run beside the call (the request bodies being sent).
//!
//! A future holds its pollable by table key ([`Readiness`]), never directly, so dropping the future drops the pollable
//! before the stream that it belongs to.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use wasip2::io::poll::{self, Pollable};

use crate::transport::LocalFuture;

/// A pollable in the table. One without a waker is not waited for.
struct Entry {
    pollable: Pollable,
    waker: Option<Waker>,
}

/// Something that runs beside the call.
struct Task {
    future: LocalFuture<'static, ()>,
    woken: Arc<Flag>,
}

#[derive(Default)]
struct Reactor {
    entries: Vec<Option<Entry>>,
    free: Vec<usize>,
    tasks: Vec<Task>,
}

thread_local! {
    static REACTOR: RefCell<Reactor> = RefCell::default();
}

/// A waker that notes that it was called.
struct Flag(AtomicBool);

impl Flag {
    fn raised() -> Arc<Flag> {
        Arc::new(Flag(AtomicBool::new(true)))
    }

    fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Waits for one pollable at a time: made when first needed, dropped when it has fired.
#[derive(Default)]
pub struct Readiness(Option<usize>);

impl Readiness {
    /// Ready once the pollable that `make` gives has fired. After `Ready` the next call makes a new one.
    pub fn poll(&mut self, cx: &mut Context<'_>, make: &dyn Fn() -> Pollable) -> Poll<()> {
        REACTOR.with_borrow_mut(|reactor| {
            let key = *self.0.get_or_insert_with(|| {
                let entry = Some(Entry { pollable: make(), waker: None });
                match reactor.free.pop() {
                    Some(key) => {
                        reactor.entries[key] = entry;
                        key
                    }
                    None => {
                        reactor.entries.push(entry);
                        reactor.entries.len() - 1
                    }
                }
            });
            let Some(entry) = reactor.entries[key].as_mut() else { return Poll::Ready(()) };
            if entry.pollable.ready() {
                reactor.entries[key] = None;
                reactor.free.push(key);
                self.0 = None;
                return Poll::Ready(());
            }
            entry.waker = Some(cx.waker().clone());
            Poll::Pending
        })
    }
}

impl Drop for Readiness {
    fn drop(&mut self) {
        let Some(key) = self.0.take() else { return };
        // At the end of the instance the table may be gone already, and the pollable with it.
        let _ = REACTOR.try_with(|reactor| {
            if let Ok(mut reactor) = reactor.try_borrow_mut() {
                reactor.entries[key] = None;
                reactor.free.push(key);
            }
        });
    }
}

/// Resolves after `duration`.
pub async fn sleep(duration: Duration) {
    let mut readiness = Readiness::default();
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    poll_fn(|cx| readiness.poll(cx, &|| wasip2::clocks::monotonic_clock::subscribe_duration(nanos))).await;
}

/// Runs `future` beside the call, and beside later ones if it takes so long.
pub fn spawn(future: LocalFuture<'static, ()>) {
    REACTOR.with_borrow_mut(|reactor| reactor.tasks.push(Task { future, woken: Flag::raised() }));
}

/// Runs `future` to its end, and what was spawned along with it.
pub fn block_on(mut future: Pin<&mut dyn Future<Output = ()>>) {
    let woken = Flag::raised();
    let waker = Waker::from(woken.clone());
    loop {
        if woken.take() && future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            // Give request bodies that were just made a chance to leave before the instance is put to rest.
            run_tasks();
            return;
        }
        if !run_tasks() && !woken.0.load(Ordering::Relaxed) {
            wait();
        }
    }
}

/// Polls every task that was woken; true if there was one.
fn run_tasks() -> bool {
    let mut ran = false;
    let mut index = 0;
    loop {
        let task = REACTOR.with_borrow_mut(|reactor| {
            while index < reactor.tasks.len() {
                if reactor.tasks[index].woken.take() {
                    return Some(reactor.tasks.swap_remove(index));
                }
                index += 1;
            }
            None
        });
        let Some(mut task) = task else { return ran };
        ran = true;
        let waker = Waker::from(task.woken.clone());
        if task.future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            // Put back where it was taken from, and step over it, or it would be polled for ever when it wakes itself.
            REACTOR.with_borrow_mut(|reactor| {
                reactor.tasks.push(task);
                let last = reactor.tasks.len() - 1;
                reactor.tasks.swap(index.min(last), last);
            });
            index += 1;
        }
    }
}

/// Blocks until one of the pollables that somebody waits for fires, and wakes who waits for it.
fn wait() {
    REACTOR.with_borrow_mut(|reactor| {
        let keys: Vec<usize> = (0..reactor.entries.len())
            .filter(|key| reactor.entries[*key].as_ref().is_some_and(|entry| entry.waker.is_some()))
            .collect();
        assert!(!keys.is_empty(), "a future waits for nothing that could ever happen");
        let pollables: Vec<&Pollable> =
            keys.iter().filter_map(|key| reactor.entries[*key].as_ref().map(|entry| &entry.pollable)).collect();
        let fired = poll::poll(&pollables);
        for index in fired {
            if let Some(key) = keys.get(index as usize)
                && let Some(entry) = reactor.entries[*key].as_mut()
                && let Some(waker) = entry.waker.take()
            {
                waker.wake();
            }
        }
    });
}
