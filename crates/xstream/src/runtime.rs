//! One xstream: its tasks, its timers, its operations in flight, and the loop that turns them.
//!
//! A turn: take what other threads left, run tasks (at most [`TURN_POLLS_MAX`]), hand everything
//! they submitted to the kernel in one call that also waits if there is nothing left to run, wake
//! whoever waited for what completed, fire timers. No `RefCell` here is borrowed while code of a
//! task runs, drops included.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use slab::Slab;

use crate::config::{Backend, Class, Config, Shares, StartError};
use crate::driver::{Driver, Key, Output, Wait};
use crate::epoll::Epoll;
use crate::limits::{DRAIN_TIME_MAX, POLL_COST_MAX, TURN_POLLS_MAX};
use crate::sched::{RunQueue, TaskId};
use crate::sys::{self, EventFd};
use crate::task::{Finish, JoinHandle, JoinState, Task, TaskWake, joined};
use crate::timer::Timers;
use crate::uring::Uring;

mod ops;
mod shared;

use ops::OpSlot;

pub(crate) use ops::{Keep, OpFuture};
pub use shared::Handle;
pub(crate) use shared::{Shared, push_ready};

/// Runs `main` on the calling thread until it ends; tasks it leaves behind are cancelled, and I/O
/// in flight is finished or cancelled before this returns.
pub fn run<T: 'static>(
    config: Config,
    main: impl Future<Output = T> + 'static,
) -> Result<T, StartError> {
    if let Backend::Sim(host) = &config.backend {
        return host.run(&config.shares, main);
    }
    if try_current().is_some() {
        return Err(StartError::Nested);
    }
    if let Some(cpu) = config.pin {
        sys::pin_thread(cpu).map_err(|source| StartError::Pin { cpu, source })?;
    }
    let event = EventFd::new().map_err(|source| StartError::EventFd { source })?;
    let shared = Arc::new(Shared::new(Some(event)));
    let driver = open_driver(&config, &shared)?;
    let runtime = Runtime::new(shared, driver, &config.shares, Pace::Measured);
    let _entered = enter(runtime.clone());
    let _end = ShutDown(runtime.clone());
    let main = runtime.spawn(Class::Client, main);
    loop {
        runtime.run_tasks();
        if let Some(Ok(value)) = main.try_take() {
            return Ok(value);
        }
        runtime.wait_for_events();
    }
}

/// Starts a task on this xstream.
pub fn spawn<T: 'static>(class: Class, future: impl Future<Output = T> + 'static) -> JoinHandle<T> {
    current().spawn(class, future)
}

/// Monotonic time, comparable between the xstreams of one process (or simulated world).
pub fn now() -> Duration {
    current().now()
}

/// Time since the Unix epoch.
pub fn wall_now() -> Duration {
    current().driver.borrow().wall_now()
}

/// Fills `out` with randomness fit for secrets; simulated, it comes from the world's seed.
pub fn fill_random(out: &mut [u8]) {
    current().driver.borrow_mut().fill_random(out);
}

/// A random number, as [`fill_random`].
pub fn random_u64() -> u64 {
    let mut bytes = [0; 8];
    fill_random(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// Lets other tasks that can run go first.
pub fn yield_now() -> impl Future<Output = ()> {
    let mut yielded = false;
    std::future::poll_fn(move |cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
}

/// Waits until every task that can run has run and what they submitted is about to enter the
/// kernel (or the turn's budget of polls is spent): the moment to gather what a turn produced,
/// such as replies to one connection.
pub fn settle() -> impl Future<Output = ()> {
    let runtime = current();
    let mut waiting = false;
    std::future::poll_fn(move |cx| {
        if waiting {
            return Poll::Ready(());
        }
        waiting = true;
        runtime.settling.borrow_mut().push(cx.waker().clone());
        Poll::Pending
    })
}

/// Reaches this xstream from other threads.
pub fn handle() -> Handle {
    Handle { shared: current().shared.clone() }
}

/// Waits until [`Handle::stop`] is called.
pub fn stopping() -> impl Future<Output = ()> {
    let runtime = current();
    std::future::poll_fn(move |cx| {
        if runtime.stopping.get() {
            return Poll::Ready(());
        }
        runtime.stop_waiters.borrow_mut().push(cx.waker().clone());
        Poll::Pending
    })
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<Runtime>>> = const { RefCell::new(None) };
}

/// Puts a task into the run queue if its xstream runs on this thread.
fn push_local(shared: &Arc<Shared>, class: Class, id: TaskId) -> bool {
    let local = CURRENT.try_with(|current| match &*current.borrow() {
        Some(runtime) if Arc::ptr_eq(&runtime.shared, shared) => {
            runtime.queue.borrow_mut().push(class, id);
            true
        }
        _ => false,
    });
    local == Ok(true)
}

fn try_current() -> Option<Rc<Runtime>> {
    CURRENT.with(|current| current.borrow().clone())
}

/// The xstream that runs on this thread. Its absence is a mistake of the caller.
pub(crate) fn current() -> Rc<Runtime> {
    match try_current() {
        Some(runtime) => runtime,
        None => panic!("called outside of an xstream: start one with spirula_xstream::run"),
    }
}

/// Whether `runtime` is the one that runs on this thread now.
pub(crate) fn is_current(runtime: &Rc<Runtime>) -> bool {
    CURRENT.with(|current| current.borrow().as_ref().is_some_and(|own| Rc::ptr_eq(own, runtime)))
}

/// Makes `runtime` the current one until the guard is dropped.
pub(crate) fn enter(runtime: Rc<Runtime>) -> Entered {
    Entered(CURRENT.with(|current| current.borrow_mut().replace(runtime)))
}

pub(crate) struct Entered(Option<Rc<Runtime>>);

impl Drop for Entered {
    fn drop(&mut self) {
        let before = self.0.take();
        let ended = CURRENT.with(|current| std::mem::replace(&mut *current.borrow_mut(), before));
        drop(ended);
    }
}

/// How tasks are charged and chosen.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// By the clock; in order of arrival.
    Measured,
    /// One unit each; in an order the driver's randomness chooses.
    Simulated,
}

/// The unit a simulated poll is charged with.
const SIMULATED_POLL_COST: u64 = 1000;

/// One xstream.
pub(crate) struct Runtime {
    pub(crate) shared: Arc<Shared>,
    pub(crate) timers: RefCell<Timers>,
    pub(crate) driver: RefCell<Box<dyn Driver>>,
    pace: Pace,
    tasks: RefCell<Slab<TaskSlot>>,
    generation: Cell<u32>,
    queue: RefCell<RunQueue>,
    ops: RefCell<Slab<OpSlot>>,
    in_flight: Cell<usize>,
    done: RefCell<Vec<(Key, Output)>>,
    settling: RefCell<Vec<Waker>>,
    stopping: Cell<bool>,
    stop_waiters: RefCell<Vec<Waker>>,
}

struct TaskSlot {
    generation: u32,
    /// Absent while the task runs.
    task: Option<Task>,
    aborted: bool,
}

impl Runtime {
    pub(crate) fn new(
        shared: Arc<Shared>,
        driver: Box<dyn Driver>,
        shares: &Shares,
        pace: Pace,
    ) -> Rc<Runtime> {
        Rc::new(Runtime {
            shared,
            timers: RefCell::default(),
            driver: RefCell::new(driver),
            pace,
            tasks: RefCell::default(),
            generation: Cell::new(0),
            queue: RefCell::new(RunQueue::new(shares)),
            ops: RefCell::default(),
            in_flight: Cell::new(0),
            done: RefCell::default(),
            settling: RefCell::default(),
            stopping: Cell::new(false),
            stop_waiters: RefCell::default(),
        })
    }

    pub(crate) fn now(&self) -> Duration {
        self.driver.borrow().now()
    }

    pub(crate) fn spawn<T: 'static>(
        self: &Rc<Self>,
        class: Class,
        future: impl Future<Output = T> + 'static,
    ) -> JoinHandle<T> {
        let state = JoinState::new();
        let future = Box::pin(joined(Finish(state.clone()), future));
        let generation = self.generation.get();
        self.generation.set(generation.wrapping_add(1));
        let mut tasks = self.tasks.borrow_mut();
        let entry = tasks.vacant_entry();
        let slot = u32::try_from(entry.key()).unwrap_or_else(|_| unreachable!("4 billion tasks"));
        let id = TaskId { slot, generation };
        let shared = self.shared.clone();
        let wake = Arc::new(TaskWake { id, class, shared, queued: AtomicBool::new(true) });
        let task = Task { future, waker: Waker::from(wake.clone()), wake };
        entry.insert(TaskSlot { generation, task: Some(task), aborted: false });
        self.queue.borrow_mut().push(class, id);
        JoinHandle::new(state, Rc::downgrade(self), id)
    }

    pub(crate) fn abort(&self, id: TaskId) {
        let mut tasks = self.tasks.borrow_mut();
        let Some(slot) = tasks.get_mut(id.slot as usize) else {
            return;
        };
        if slot.generation != id.generation {
            return;
        }
        if slot.task.is_none() {
            slot.aborted = true;
            return;
        }
        let slot = tasks.remove(id.slot as usize);
        drop(tasks);
        drop(slot);
    }

    /// The first half of a turn on a real machine: everything that can run, within bounds.
    fn run_tasks(&self) {
        self.take_inbox();
        let mut polls = 0;
        while polls < TURN_POLLS_MAX {
            if self.run_next() {
                polls += 1;
            } else if !self.wake_settling() {
                break;
            }
        }
        self.wake_settling();
    }

    /// The second half: submissions go out, completions and timers come in.
    fn wait_for_events(&self) {
        let mut wait = self.wait();
        if wait != Wait::No && !self.shared.park() {
            wait = Wait::No;
        }
        self.poll_driver(wait);
        self.shared.unpark();
        self.fire_timers();
    }

    /// Whether a task could run without anything happening outside.
    pub(crate) fn is_runnable(&self) -> bool {
        self.queue.borrow().len() > 0
            || self.shared.is_pending()
            || !self.settling.borrow().is_empty()
    }

    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.timers.borrow().next_deadline()
    }

    /// One step of a simulated xstream: one task, or the settling ones when no other can run.
    pub(crate) fn step(&self) {
        self.take_inbox();
        if !self.run_next() {
            self.wake_settling();
        }
    }

    fn wait(&self) -> Wait {
        if self.queue.borrow().len() > 0 {
            return Wait::No;
        }
        let Some(deadline) = self.timers.borrow().next_deadline() else {
            return Wait::Forever;
        };
        match deadline.checked_sub(self.now()) {
            None | Some(Duration::ZERO) => Wait::No,
            Some(left) => Wait::AtMost(left),
        }
    }

    fn take_inbox(&self) {
        let Some(inbox) = self.shared.take_inbox() else {
            return;
        };
        for (class, id) in inbox.ready {
            self.queue.borrow_mut().push(class, id);
        }
        for start in inbox.starts {
            start();
        }
        if inbox.stop && !self.stopping.replace(true) {
            wake_all(&self.stop_waiters);
        }
    }

    fn wake_settling(&self) -> bool {
        wake_all(&self.settling)
    }

    /// Runs one task; false if none can run.
    fn run_next(&self) -> bool {
        let mut queue = self.queue.borrow_mut();
        let contended = queue.is_contended();
        let next = match self.pace {
            Pace::Measured => queue.pop(|_| 0),
            Pace::Simulated => queue.pop(|count| self.random_below(count)),
        };
        drop(queue);
        let Some((class, id)) = next else {
            return false;
        };
        let begin = match self.pace {
            Pace::Measured if contended => Some(sys::monotonic()),
            _ => None,
        };
        self.run_task(id);
        let cost = match (self.pace, begin) {
            (Pace::Simulated, _) => SIMULATED_POLL_COST,
            (Pace::Measured, None) => return true,
            (Pace::Measured, Some(begin)) => {
                let took = sys::monotonic().saturating_sub(begin);
                took.min(POLL_COST_MAX).as_nanos() as u64
            }
        };
        self.queue.borrow_mut().charge(class, cost);
        true
    }

    fn random_below(&self, count: usize) -> usize {
        let mut bytes = [0; 8];
        self.driver.borrow_mut().fill_random(&mut bytes);
        (u64::from_le_bytes(bytes) % count as u64) as usize
    }

    fn run_task(&self, id: TaskId) {
        let index = id.slot as usize;
        let taken = match self.tasks.borrow_mut().get_mut(index) {
            Some(slot) if slot.generation == id.generation => slot.task.take(),
            _ => None,
        };
        let Some(mut task) = taken else { return };
        task.wake.queued.swap(false, Ordering::AcqRel);
        let poll = task.future.as_mut().poll(&mut Context::from_waker(&task.waker));
        let mut tasks = self.tasks.borrow_mut();
        let slot = &mut tasks[index];
        if poll.is_pending() && !slot.aborted {
            slot.task = Some(task);
            return;
        }
        tasks.remove(index);
        drop(tasks);
        drop(task);
    }

    /// Hands submissions to the driver, waits, and wakes whom completions concern.
    pub(crate) fn poll_driver(&self, wait: Wait) {
        let mut done = self.done.take();
        self.driver.borrow_mut().poll(wait, &mut done);
        for (key, output) in done.drain(..) {
            self.complete(key, output);
        }
        self.done.replace(done);
    }

    pub(crate) fn fire_timers(&self) {
        let Some(deadline) = self.timers.borrow().next_deadline() else {
            return;
        };
        let now = self.now();
        if deadline > now {
            return;
        }
        loop {
            let due = self.timers.borrow_mut().pop_due(now);
            match due {
                Some(waker) => waker.wake(),
                None => return,
            }
        }
    }

    /// Ends all tasks, then waits for all I/O in flight.
    pub(crate) fn shut_down(&self) {
        self.drop_tasks();
        let keys: Vec<Key> = self.ops.borrow().iter().map(|(key, _)| key).collect();
        for key in keys {
            let waits = self.ops.borrow().get(key).is_some_and(|slot| slot.output.is_none());
            if waits {
                self.driver.borrow_mut().cancel(key);
            }
        }
        let deadline = sys::monotonic() + DRAIN_TIME_MAX;
        while self.in_flight.get() > 0 && sys::monotonic() < deadline {
            self.poll_driver(Wait::AtMost(Duration::from_millis(10)));
        }
        if self.in_flight.get() > 0 {
            tracing::error!(count = self.in_flight.get(), "I/O still in flight at the end");
        }
    }

    /// Drops every task, also those that destructors start.
    pub(crate) fn drop_tasks(&self) {
        loop {
            let tasks = self.tasks.take();
            if tasks.is_empty() {
                break;
            }
            drop(tasks);
        }
        drop(self.settling.take());
        drop(self.stop_waiters.take());
    }
}

fn wake_all(wakers: &RefCell<Vec<Waker>>) -> bool {
    let wakers = wakers.take();
    let any = !wakers.is_empty();
    for waker in wakers {
        waker.wake();
    }
    any
}

/// Shuts the xstream down, also when a task panicked.
struct ShutDown(Rc<Runtime>);

impl Drop for ShutDown {
    fn drop(&mut self) {
        self.0.shut_down();
    }
}

fn open_driver(config: &Config, shared: &Arc<Shared>) -> Result<Box<dyn Driver>, StartError> {
    let wanted = match config.backend {
        Backend::Auto => match std::env::var("SPIRULA_IO") {
            Err(_) => Backend::Auto,
            Ok(value) => match value.as_str() {
                "" => Backend::Auto,
                "uring" => Backend::Uring,
                "epoll" => Backend::Epoll,
                _ => return Err(StartError::UnknownIo { value }),
            },
        },
        ref other => other.clone(),
    };
    match wanted {
        Backend::Epoll => Ok(Box::new(Epoll::new(shared.clone())?)),
        Backend::Uring => Ok(Box::new(Uring::new(shared.clone(), config.pin)?)),
        Backend::Auto | Backend::Sim(_) => match Uring::new(shared.clone(), config.pin) {
            Ok(driver) => Ok(Box::new(driver)),
            Err(error) => {
                warn_once(&config.name, &error);
                Ok(Box::new(Epoll::new(shared.clone())?))
            }
        },
    }
}

/// One line per process, however many xstreams it has.
fn warn_once(name: &str, error: &StartError) {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if !WARNED.swap(true, Ordering::Relaxed) {
        tracing::warn!(xstream = name, "falling back to epoll, which is slower: {error}");
    }
}
