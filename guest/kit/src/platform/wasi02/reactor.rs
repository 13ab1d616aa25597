//! Futures over `wasi:io/poll`, for as long as the instance lives.
//!
//! A library reactor that is made anew for each call would do for calls that are complete in themselves. Here output streams
//! stay open between calls, so that following an output costs no further requests; their pollables must therefore belong
//! to something that outlives the call. That is the one thread-local below: a table of pollables with the waker of
//! the future that waits for them, and the tasks that run beside the call (the request bodies being sent).
//!
//! A future holds its pollable by table key ([`Readiness`]), never directly, so dropping the future drops the pollable
//! before the stream that it belongs to.
//!
//! Every call to the host costs more than what is done here in between, so there are as few as will do: a pollable is made
//! once for all the waiting on its object, and all timers share one, that of the next to be due.

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

/// What a future waits for. One without a waker is not waited for.
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

/// Places that are used again.
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

/// Something that runs beside the call.
struct Task {
    future: LocalFuture<'static, ()>,
    woken: Arc<Flag>,
}

#[derive(Default)]
struct Reactor {
    pollables: Slots<(Pollable, Wait)>,
    /// By when they are due, in nanoseconds of the monotonic clock.
    timers: Slots<(u64, Wait)>,
    /// The pollable of the timer that is due next, and when.
    alarm: Option<(u64, Pollable)>,
    tasks: Vec<Task>,
}

thread_local! {
    static REACTOR: RefCell<Reactor> = RefCell::default();
}

/// Works on the reactor, unless the instance ends and it is gone: with it went what was to be done.
fn at_end(work: impl FnOnce(&mut Reactor)) {
    let _ = REACTOR.try_with(|reactor| reactor.try_borrow_mut().map(|mut reactor| work(&mut reactor)));
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

/// Waits for an object of the host, as often as needed; its pollable is made when first needed. Belongs to one object, and
/// must go before that.
#[derive(Default)]
pub struct Readiness(Option<usize>);

impl Readiness {
    /// Ready once the pollable that `make` gives has fired since it was last said to be. The first time it looks at once
    /// if told to `look`: for what was not just found not to be there.
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

/// Blocks until something happens that a future waits for, and wakes that future.
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
