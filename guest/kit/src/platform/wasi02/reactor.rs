//! A reactor over `wasi:io/poll` that lives as long as the instance.
//!
//! A reactor that is made for each call would suffice if no stream outlived a call. Here output streams stay open
//! between calls, so that reading further output costs no further requests, and their pollables must outlive the call
//! too. They are in the thread-local `REACTOR`: a table of pollables with the wakers of the futures that wait for them,
//! and the tasks that run beside the calls, which send request bodies.
//!
//! A future refers to its pollable by a table key ([`Readiness`]). When the future is dropped, its pollable is dropped
//! before the stream that it belongs to.
//!
//! Calls to the host are expensive, so there are few of them: each object has one pollable for all waits on it, and all
//! timers share the pollable of the earliest timer.

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use wasip2::{
    clocks::monotonic_clock,
    io::poll::{self, Pollable},
};

use crate::platform::LocalFuture;

/// One wait of a future. Without a waker, no future is waiting.
#[derive(Default)]
struct Wait {
    waker: Option<Waker>,
    fired: bool,
}

impl Wait {
    fn poll(&mut self, cx: &Context<'_>) -> Poll<()> {
        if std::mem::take(&mut self.fired) {
            return Poll::Ready(());
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn fire(&mut self) {
        self.fired = true;
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// A table whose keys are reused.
struct Slots<T> {
    items: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Slots { items: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slots<T> {
    fn insert(&mut self, item: T) -> usize {
        match self.free.pop() {
            Some(key) => {
                self.items[key] = Some(item);
                key
            }
            None => {
                self.items.push(Some(item));
                self.items.len() - 1
            }
        }
    }

    fn remove(&mut self, key: usize) {
        self.items[key] = None;
        self.free.push(key);
    }
}

/// A future that runs beside the calls.
struct Task {
    future: LocalFuture<'static, ()>,
    woken: Arc<Flag>,
}

#[derive(Default)]
struct Reactor {
    pollables: Slots<(Pollable, Wait)>,
    /// Due times in nanoseconds of the monotonic clock, with their waits.
    timers: Slots<(u64, Wait)>,
    /// The due time and the pollable of the earliest timer.
    alarm: Option<(u64, Pollable)>,
    tasks: Vec<Task>,
}

thread_local! {
    static REACTOR: RefCell<Reactor> = RefCell::default();
}

/// Runs `work` on the reactor. Does nothing if the thread-local has been destroyed because the instance ends, or is
/// borrowed.
fn at_end(work: impl FnOnce(&mut Reactor)) {
    let _ = REACTOR.try_with(|reactor| reactor.try_borrow_mut().map(|mut reactor| work(&mut reactor)));
}

/// A waker that sets a flag when it is called.
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

/// Waits for an object of the host, any number of times. Makes the object's pollable at the first wait. Belongs to one
/// object and must be dropped before it.
#[derive(Default)]
pub struct Readiness(Option<usize>);

impl Readiness {
    /// Is ready when the pollable from `make` has fired since the last time this function returned ready. With `look`,
    /// the first call also checks the pollable at once; pass `true` unless the caller has just tested the object
    /// itself.
    pub fn poll(&mut self, cx: &mut Context<'_>, look: bool, make: &dyn Fn() -> Pollable) -> Poll<()> {
        REACTOR.with_borrow_mut(|reactor| {
            let key = *self.0.get_or_insert_with(|| {
                let pollable = make();
                let fired = look && pollable.ready();
                reactor.pollables.insert((pollable, Wait { waker: None, fired }))
            });
            reactor.pollables.items[key].as_mut().map_or(Poll::Ready(()), |(_, wait)| wait.poll(cx))
        })
    }
}

impl Drop for Readiness {
    fn drop(&mut self) {
        if let Some(key) = self.0.take() {
            at_end(|reactor| reactor.pollables.remove(key));
        }
    }
}

/// Resolves after `duration`.
pub fn sleep(duration: Duration) -> impl Future<Output = ()> {
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    Sleep { due: monotonic_clock::now().saturating_add(nanos), timer: None }
}

struct Sleep {
    due: u64,
    timer: Option<usize>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let due = self.due;
        REACTOR.with_borrow_mut(|reactor| {
            let key = *self.timer.get_or_insert_with(|| reactor.timers.insert((due, Wait::default())));
            reactor.timers.items[key].as_mut().map_or(Poll::Ready(()), |(_, wait)| wait.poll(cx))
        })
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.timer.take() {
            at_end(|reactor| reactor.timers.remove(key));
        }
    }
}

/// Runs `future` beside the current call, and beside later calls if it takes longer.
pub fn spawn(future: LocalFuture<'static, ()>) {
    REACTOR.with_borrow_mut(|reactor| reactor.tasks.push(Task { future, woken: Flag::raised() }));
}

/// Runs `future` to completion, and the spawned tasks while it waits.
pub fn block_on(mut future: Pin<&mut dyn Future<Output = ()>>) {
    let woken = Flag::raised();
    let waker = Waker::from(woken.clone());
    loop {
        if woken.take() && future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            // Lets new request bodies start before the instance is suspended.
            run_tasks();
            return;
        }
        if !run_tasks() && !woken.0.load(Ordering::Relaxed) {
            wait();
        }
    }
}

/// Polls every task that was woken. Returns whether there was one.
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
            // The task returns to its old place, and the loop skips it: a task that wakes itself would otherwise be
            // polled for ever.
            REACTOR.with_borrow_mut(|reactor| {
                reactor.tasks.push(task);
                let last = reactor.tasks.len() - 1;
                reactor.tasks.swap(index.min(last), last);
            });
            index += 1;
        }
    }
}

/// Blocks until a pollable fires that a future waits for, and wakes that future.
fn wait() {
    REACTOR.with_borrow_mut(|reactor| {
        let Reactor { pollables, timers, alarm, .. } = reactor;
        let waited = |wait: &Wait| wait.waker.is_some();
        let due = timers.items.iter().flatten().filter(|(_, wait)| waited(wait)).map(|(due, _)| *due).min();
        if alarm.as_ref().map(|(due, _)| *due) != due {
            *alarm = due.map(|due| (due, monotonic_clock::subscribe_instant(due)));
        }
        let mut waits: Vec<&mut (Pollable, Wait)> =
            pollables.items.iter_mut().flatten().filter(|(_, wait)| waited(wait)).collect();
        let list: Vec<&Pollable> =
            waits.iter().map(|(pollable, _)| pollable).chain(alarm.as_ref().map(|(_, pollable)| pollable)).collect();
        assert!(!list.is_empty(), "a future waits for nothing that could ever happen");
        for index in poll::poll(&list) {
            match waits.get_mut(index as usize) {
                Some((_, wait)) => wait.fire(),
                None => {
                    let Some((now, _)) = alarm.take() else { continue };
                    let late = timers.items.iter_mut().flatten().filter(|(due, _)| *due <= now);
                    late.for_each(|(_, wait)| wait.fire());
                }
            }
        }
    });
}
