//! The operations of the store as the pair table sees them, on a naive versioned map.

use std::collections::{BTreeMap, BTreeSet};

use crate::timestamp::{Level, TxId};

use Act::{Clear, Set};
use Level::{Akey, Container, Dkey, Object};
use Look::{Edge, Exists, Keys, Nothing, Value};
use Must::{Be, NotBe};

/// One operation: a condition, a read and a write, each on all that is below its level.
pub(super) struct Op {
    pub(super) name: &'static str,
    pub(super) must: Option<(Level, Must)>,
    pub(super) look: Option<(Level, Look)>,
    pub(super) act: Option<(Level, Act)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Must {
    Be,
    NotBe,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Look {
    /// Which value an akey has.
    Value,
    /// Whether there is anything.
    Exists,
    /// Which keys there are directly below.
    Keys,
    /// The first or last of what is below, down to a level, and with its value if that is beyond
    /// akeys.
    Edge { last: bool, depth: usize },
    /// Only the mark is wanted.
    Nothing,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Act {
    /// The akey has a new value.
    Set,
    /// All that was there is gone.
    Clear,
}

const fn op(
    name: &'static str,
    must: Option<(Level, Must)>,
    look: Option<(Level, Look)>,
    act: Option<(Level, Act)>,
) -> Op {
    Op { name, must, look, act }
}

const fn look(name: &'static str, level: Level, what: Look) -> Op {
    op(name, None, Some((level, what)), None)
}

const fn edge(name: &'static str, level: Level, last: bool, depth: usize) -> Op {
    look(name, level, Edge { last, depth })
}

const fn act(name: &'static str, level: Level, what: Act) -> Op {
    op(name, None, None, Some((level, what)))
}

const fn cond(name: &'static str, must: (Level, Must), level: Level, what: Act) -> Op {
    op(name, Some(must), None, Some((level, what)))
}

/// Every operation. In the names `de`, `dne` and the like are conditions: the dkey is empty, is not
/// empty.
pub(super) const OPS: &[Op] = &[
    look("fetch", Akey, Value),
    op("fetch_one", Some((Object, Be)), Some((Akey, Value)), None),
    op("fetch_dne", Some((Dkey, Be)), Some((Akey, Value)), None),
    op("fetch_ane", Some((Akey, Be)), Some((Akey, Value)), None),
    look("array_size", Akey, Value),
    look("list_objects", Container, Keys),
    look("list_dkeys", Object, Keys),
    look("list_akeys", Dkey, Keys),
    look("list_extents", Akey, Value),
    look("object_exists", Object, Exists),
    look("dkey_exists", Dkey, Exists),
    look("akey_exists", Akey, Exists),
    edge("query_max_d", Object, true, 3),
    edge("query_max_a", Dkey, true, 4),
    edge("query_max_r", Akey, true, 5),
    edge("query_max_da", Object, true, 4),
    edge("query_max_dr", Object, true, 5),
    edge("query_max_ar", Dkey, true, 5),
    edge("query_max_dar", Object, true, 5),
    edge("query_min_d", Object, false, 3),
    edge("query_min_a", Dkey, false, 4),
    edge("query_min_r", Akey, false, 5),
    edge("query_min_da", Object, false, 4),
    edge("query_min_dr", Object, false, 5),
    edge("query_min_ar", Dkey, false, 5),
    edge("query_min_dar", Object, false, 5),
    look("retain_container", Container, Nothing),
    look("mark_o", Object, Nothing),
    look("mark_d", Dkey, Nothing),
    look("mark_a", Akey, Nothing),
    cond("update_oe", (Object, NotBe), Akey, Set),
    cond("update_one", (Object, Be), Akey, Set),
    cond("update_de", (Dkey, NotBe), Akey, Set),
    cond("update_dne", (Dkey, Be), Akey, Set),
    cond("update_ae", (Akey, NotBe), Akey, Set),
    cond("update_ane", (Akey, Be), Akey, Set),
    cond("write_ane", (Akey, Be), Akey, Set),
    cond("punch_object_one", (Object, Be), Object, Clear),
    cond("punch_dkey_dne", (Dkey, Be), Dkey, Clear),
    cond("punch_akey_ane", (Akey, Be), Akey, Clear),
    act("update", Akey, Set),
    act("write", Akey, Set),
    act("truncate", Akey, Set),
    act("punch_range", Akey, Set),
    act("punch_object", Object, Clear),
    act("punch_dkey", Dkey, Clear),
    act("punch_akeys", Dkey, Clear),
    act("punch_akey", Akey, Clear),
];

impl Op {
    pub(super) fn reads(&self) -> impl Iterator<Item = Level> + use<> {
        self.must.map(|m| m.0).into_iter().chain(self.look.map(|l| l.0))
    }

    pub(super) fn is_mark(&self) -> bool {
        matches!(self.look, Some((_, Nothing)))
    }
}

/// A write of the map; the values of akeys are the numbers of the writes that set them.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub(super) place: String,
    pub(super) act: Act,
    pub(super) epoch: u64,
    pub(super) id: TxId,
    pub(super) value: usize,
    pub(super) committed: bool,
}

/// Writes in the order they came.
#[derive(Clone, Default, Debug)]
pub(super) struct Map {
    pub(super) writes: Vec<Write>,
    /// An object without akeys exists until it is punched itself.
    pub(super) objects_stay: bool,
}

/// Akeys with their values.
type State = BTreeMap<String, usize>;

impl Map {
    /// What `id` sees at `epoch`.
    fn state(&self, epoch: u64, id: TxId) -> State {
        let seen = |w: &&Write| w.epoch <= epoch && (w.committed || w.id == id);
        let mut writes: Vec<&Write> = self.writes.iter().filter(seen).collect();
        writes.sort_by_key(|w| w.epoch);
        let mut state = State::new();
        for write in writes {
            match write.act {
                Set => drop(state.insert(write.place.clone(), write.value)),
                Clear => state.retain(|akey, _| !akey.starts_with(&write.place)),
            }
        }
        state
    }

    /// Everything of `place` that `id` sees at `epoch`.
    fn below(&self, place: &str, epoch: u64, id: TxId) -> State {
        let mut state = self.state(epoch, id);
        state.retain(|akey, _| akey.starts_with(place));
        state
    }

    pub(super) fn exists(&self, place: &str, epoch: u64, id: TxId) -> bool {
        if self.objects_stay && place.len() == 2 {
            return self.objects(epoch, id).contains(place);
        }
        !self.below(place, epoch, id).is_empty()
    }

    /// The objects that were written since they were last punched.
    fn objects(&self, epoch: u64, id: TxId) -> BTreeSet<String> {
        let seen = |w: &&Write| w.epoch <= epoch && (w.committed || w.id == id);
        let mut writes: Vec<&Write> = self.writes.iter().filter(seen).collect();
        writes.sort_by_key(|w| w.epoch);
        let mut objects = BTreeSet::new();
        for write in writes {
            match write.act {
                Set => drop(objects.insert(write.place[..2].to_owned())),
                Clear if write.place.len() == 2 => drop(objects.remove(&write.place)),
                Clear => {}
            }
        }
        objects
    }

    /// The answer to `look`, printed.
    pub(super) fn answer(&self, look: Look, place: &str, epoch: u64, id: TxId) -> String {
        let state = self.below(place, epoch, id);
        let prefix = |akey: &str, depth: usize| akey[..depth.min(akey.len())].to_owned();
        match look {
            Nothing => String::new(),
            Exists => self.exists(place, epoch, id).to_string(),
            Value => format!("{:?}", state.get(place)),
            Keys if self.objects_stay && place.len() == 1 => {
                format!("{:?}", self.objects(epoch, id))
            }
            Keys => {
                let keys = state.keys().map(|akey| prefix(akey, place.len() + 1));
                format!("{:?}", keys.collect::<BTreeSet<String>>())
            }
            Edge { last, depth } => {
                let found = if last { state.last_key_value() } else { state.first_key_value() };
                let value = found.filter(|_| depth > 4).map(|(_, value)| value);
                format!("{:?} {value:?}", found.map(|(akey, _)| prefix(akey, depth)))
            }
        }
    }
}
