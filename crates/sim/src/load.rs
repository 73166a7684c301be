//! Clients that do random operations and record what they asked and were told.
//!
//! Several workers of several clients share a few objects. *Registers* see every kind of request;
//! *logs* are only appended to and read. Snapshots are numbers that the clients agree on.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use spirula_xstream::sim::SimHost;
use spirula_xstream::{Class, JoinHandle, random_u64, sleep};

use crate::check::{Answer, History, Request, Snaps, Step};
use crate::{Client, Cluster};

mod choose;
mod ops;

pub use choose::SNAPS_MAX;

const EIO: i32 = -5;

/// Objects of each kind.
const REGISTERS: u64 = 6;
const LOGS: u64 = 2;
const WORKERS_PER_CLIENT: u64 = 3;
/// Between two requests of a worker.
const PAUSE_MAX: Duration = Duration::from_millis(300);

/// What the clients do and know; clones reach the same one.
#[derive(Clone, Default)]
pub struct Load(Rc<Inner>);

#[derive(Default)]
struct Inner {
    history: RefCell<History>,
    /// The newest snapshot.
    snap: Cell<u64>,
    /// Makes marks unique.
    marks: Cell<u64>,
    clients: Cell<u64>,
    stopping: Cell<bool>,
    /// A copy that cannot be read has no other one.
    alone: Cell<bool>,
    /// Any copy may answer reads.
    anywhere: Cell<bool>,
}

/// Whether an object is only appended to.
pub fn is_log(object: &str) -> bool {
    object.starts_with("log")
}

/// The names of all objects.
pub fn objects() -> impl Iterator<Item = String> {
    let registers = (0..REGISTERS).map(|n| format!("register.{n}"));
    registers.chain((0..LOGS).map(|n| format!("log.{n}")))
}

impl Load {
    /// How many requests were answered.
    pub fn answered(&self) -> u64 {
        self.0.history.borrow().answered()
    }

    /// There is one copy of each object: while its disk is broken, `EIO` is a right answer, of which
    /// nothing follows.
    pub fn expect_errors(&self) {
        self.0.alone.set(true);
    }

    /// Clients that are started from now on have any copy answer their reads.
    pub fn read_anywhere(&self) {
        self.0.anywhere.set(true);
    }

    /// Workers end after their present request.
    pub fn stop(&self) {
        self.0.stopping.set(true);
    }

    pub fn history(&self) -> History {
        self.0.history.borrow().clone()
    }

    /// A new client on a host, with its workers.
    pub fn start(&self, cluster: &Cluster, host: &SimHost) -> Vec<JoinHandle<()>> {
        let made = Rc::new(RefCell::new(None));
        let (connector, out) = (cluster.connector(), made.clone());
        let ready = host.block_on(async move { *out.borrow_mut() = Some(connector()) });
        assert!(ready.is_ok());
        let client: Option<Client> = made.take();
        if self.0.anywhere.get() {
            client.iter().for_each(Client::read_anywhere);
        }
        let number = self.0.clients.get();
        self.0.clients.set(number + 1);
        let workers = (0..WORKERS_PER_CLIENT).filter_map(|_| {
            let (load, client) = (self.clone(), client.clone()?);
            let work = async move { load.work(&client, number).await };
            Some(host.spawn(Class::Client, work))
        });
        workers.collect()
    }

    /// A client of its own looks at everything, as it is and, if wanted, at all snapshots.
    pub fn look(&self, cluster: &Cluster, host: &SimHost, at_snaps: bool) -> JoinHandle<()> {
        let (load, connector) = (self.clone(), cluster.connector());
        host.spawn(Class::Client, async move {
            let client = connector();
            let newest = if at_snaps { load.0.snap.get() } else { 0 };
            for object in objects() {
                let snaps = (1..=newest).map(Snaps::At);
                for snaps in std::iter::once(Snaps::Head).chain(snaps) {
                    let steps = match is_log(&object) {
                        true => vec![Step::Read],
                        false => vec![Step::Read, Step::Stat, Step::GetXattrs, Step::GetOmap],
                    };
                    if !is_log(&object) || snaps == Snaps::Head {
                        load.ask(&client, 0, &object, Request { steps, snaps }).await;
                    }
                }
            }
        })
    }

    async fn work(&self, client: &Client, number: u64) {
        while !self.0.stopping.get() {
            // Now one after the other, now many at once.
            sleep(PAUSE_MAX.mul_f64((random_u64() % 100) as f64 / 100.0)).await;
            let (object, request) = self.choose(random_u64());
            self.ask(client, number, &object, request).await;
        }
    }

    async fn ask(&self, client: &Client, number: u64, object: &str, request: Request) {
        let call = self.0.history.borrow_mut().invoke(number, object, request.clone());
        // Without an answer nobody knows what became of it.
        let answer = ops::carry_out(client, object, &request).await;
        let told = |answer: &Answer| !(self.0.alone.get() && answer.result == EIO);
        if let Some(answer) = answer.filter(told) {
            self.0.history.borrow_mut().answer(call, answer);
        }
    }
}
