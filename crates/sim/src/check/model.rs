//! What an object is and what a request makes of it: the sequential truth that answers are held against.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::rc::Rc;

use bytes::Bytes;

pub const ENOENT: i32 = -2;
pub const EEXIST: i32 = -17;
pub const ECANCELED: i32 = -125;

type Pairs = BTreeMap<String, Bytes>;

/// One step of a request.
#[derive(Clone, PartialEq, Eq)]
pub enum Step {
    /// All data.
    Read,
    Stat,
    GetXattrs,
    GetOmap,
    /// Goes on only if the attribute has this value; one that is not there is empty.
    Guard(String, Bytes),
    Write(u64, Bytes),
    WriteFull(Bytes),
    Append(Bytes),
    Truncate(u64),
    /// Only if the object is not there.
    Create,
    Delete,
    SetXattr(String, Bytes),
    OmapSet(Pairs),
    OmapRemove(Vec<String>),
    OmapClear,
    Rollback(u64),
}

/// What a request is about, as to snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Snaps {
    /// Reads the object as it is.
    Head,
    /// Reads it as a snapshot shows it.
    At(u64),
    /// Writes while these snapshots are there, newest first.
    Context { seq: u64, snaps: Vec<u64> },
}

impl Default for Snaps {
    fn default() -> Self {
        Self::Context { seq: 0, snaps: Vec::new() }
    }
}

/// Steps of which all are done or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub steps: Vec<Step>,
    pub snaps: Snaps,
}

/// What a step read.
#[derive(Clone, PartialEq, Eq)]
pub enum Output {
    Data(Bytes),
    Size(u64),
    Pairs(Pairs),
}

/// Data, attributes and omap, with the hash of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    pub data: Bytes,
    pub xattrs: Pairs,
    pub omap: Pairs,
}

#[derive(Clone, Debug)]
struct Kept {
    content: Content,
    hash: u64,
}

/// What older snapshots show.
#[derive(Clone, Debug)]
struct Past {
    id: u64,
    snaps: Vec<u64>,
    kept: Rc<Kept>,
}

/// An object with its clones.
#[derive(Clone, Debug, Default)]
pub struct Object {
    head: Option<Rc<Kept>>,
    clones: Vec<Past>,
    /// The newest snapshot it knows of.
    seq: u64,
}

/// What a request comes to.
#[derive(Clone, Debug)]
pub struct Effect {
    pub result: i32,
    pub outputs: Vec<Output>,
    /// Absent: nothing changes.
    pub object: Option<Object>,
}

impl Step {
    pub fn writes(&self) -> bool {
        !matches!(self, Self::Read | Self::Stat | Self::GetXattrs | Self::GetOmap | Self::Guard(..))
    }
}

impl Request {
    pub fn writes(&self) -> bool {
        self.steps.iter().any(Step::writes)
    }
}

impl Object {
    /// Carries out a request; pure.
    pub fn apply(&self, request: &Request) -> Effect {
        let seen = match &request.snaps {
            Snaps::At(snap) => self.at(*snap),
            _ => self.head.as_ref(),
        };
        let mut now: Option<Content> = seen.map(|kept| kept.content.clone());
        let mut outputs = Vec::new();
        for step in &request.steps {
            match self.step(step, &mut now) {
                Ok(output) => outputs.extend(output),
                Err(result) => return Effect { result, outputs: Vec::new(), object: None },
            }
        }
        let object = match &request.snaps {
            Snaps::Context { seq, snaps } => {
                outputs.clear();
                self.written(now, *seq, snaps)
            }
            _ => None,
        };
        Effect { result: 0, outputs, object }
    }

    /// Equal for equal objects.
    pub fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.seq, self.head.as_ref().map(|kept| kept.hash)).hash(&mut hasher);
        for past in &self.clones {
            (past.id, &past.snaps, past.kept.hash).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// For messages.
    pub fn brief(&self) -> String {
        let head = self.head.as_ref().map(|kept| {
            let Content { data, xattrs, omap } = &kept.content;
            format!("{:?} xattrs {xattrs:?} omap {omap:?}", Brief(data))
        });
        let clones: Vec<_> = self
            .clones
            .iter()
            .map(|past| {
                format!("{}{:?}: {:?}", past.id, past.snaps, Brief(&past.kept.content.data))
            })
            .collect();
        format!(
            "{} seq {} clones [{}]",
            head.as_deref().unwrap_or("absent"),
            self.seq,
            clones.join(", ")
        )
    }

    /// The content that a snapshot shows.
    fn at(&self, snap: u64) -> Option<&Rc<Kept>> {
        if snap > self.seq {
            return self.head.as_ref();
        }
        let past = self.clones.iter().find(|past| past.id >= snap)?;
        past.snaps.contains(&snap).then_some(&past.kept)
    }

    fn step(&self, step: &Step, now: &mut Option<Content>) -> Result<Option<Output>, i32> {
        match step {
            Step::Truncate(_) if now.is_none() => {}
            Step::Create if now.is_some() => return Err(EEXIST),
            Step::Delete => drop(now.take().ok_or(ENOENT)?),
            Step::Rollback(snap) => *now = self.at(*snap).map(|kept| kept.content.clone()),
            Step::Create
            | Step::Write(..)
            | Step::WriteFull(_)
            | Step::Append(_)
            | Step::SetXattr(..)
            | Step::OmapSet(_) => change(step, now.get_or_insert_default()),
            Step::OmapRemove(_) | Step::OmapClear | Step::Truncate(_) => {
                change(step, now.as_mut().ok_or(ENOENT)?);
            }
            _ => return read(step, now.as_ref().ok_or(ENOENT)?),
        }
        Ok(None)
    }

    /// After a request that wrote: the content before becomes a clone if there are newer snapshots.
    fn written(&self, now: Option<Content>, seq: u64, snaps: &[u64]) -> Option<Object> {
        if self.head.is_none() && now.is_none() {
            return None;
        }
        let mut object = self.clone();
        if let Some(old) = &self.head
            && snaps.first().is_some_and(|newest| *newest > self.seq)
        {
            let snaps = snaps.iter().copied().filter(|snap| *snap > self.seq).collect();
            object.clones.push(Past { id: seq, snaps, kept: old.clone() });
        }
        object.seq = self.seq.max(seq);
        object.head = now.map(|content| Rc::new(Kept::new(content)));
        if object.head.is_none() && object.clones.is_empty() {
            object.seq = 0;
        }
        Some(object)
    }
}

impl Kept {
    fn new(content: Content) -> Self {
        let mut hasher = DefaultHasher::new();
        (&content.data, &content.xattrs, &content.omap).hash(&mut hasher);
        Self { content, hash: hasher.finish() }
    }
}

/// Steps that change a content that is there.
fn change(step: &Step, now: &mut Content) {
    let put = |data: &Bytes, at: usize, new: &Bytes| {
        let mut all = data.to_vec();
        all.resize(all.len().max(at + new.len()), 0);
        all[at..at + new.len()].copy_from_slice(new);
        Bytes::from(all)
    };
    match step {
        Step::Write(at, new) => now.data = put(&now.data, *at as usize, new),
        Step::Append(new) => now.data = put(&now.data, now.data.len(), new),
        Step::WriteFull(new) => now.data = new.clone(),
        Step::Truncate(size) => {
            let mut all = now.data.to_vec();
            all.resize(*size as usize, 0);
            now.data = all.into();
        }
        Step::SetXattr(name, value) => drop(now.xattrs.insert(name.clone(), value.clone())),
        Step::OmapSet(pairs) => now.omap.extend(pairs.clone()),
        Step::OmapRemove(keys) => now.omap.retain(|key, _| !keys.contains(key)),
        Step::OmapClear => now.omap.clear(),
        _ => {}
    }
}

/// Steps that look at a content.
fn read(step: &Step, now: &Content) -> Result<Option<Output>, i32> {
    Ok(Some(match step {
        Step::Read => Output::Data(now.data.clone()),
        Step::Stat => Output::Size(now.data.len() as u64),
        Step::GetXattrs => Output::Pairs(now.xattrs.clone()),
        Step::GetOmap => Output::Pairs(now.omap.clone()),
        Step::Guard(name, want) => {
            let have = now.xattrs.get(name).cloned().unwrap_or_default();
            return if have == *want { Ok(None) } else { Err(ECANCELED) };
        }
        _ => return Ok(None),
    }))
}

/// Data in messages: what it begins with and how long it is.
fn brief(f: &mut fmt::Formatter<'_>, data: &Bytes) -> fmt::Result {
    let start = String::from_utf8_lossy(&data[..data.len().min(16)]).into_owned();
    let mut hasher = DefaultHasher::new();
    data.hash(&mut hasher);
    write!(f, "{start:?}..({}, #{:x})", data.len(), hasher.finish() as u16)
}

struct Brief<'a>(&'a Bytes);

impl fmt::Debug for Brief<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        brief(f, self.0)
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data(data) => brief(f, data),
            Self::Size(size) => write!(f, "size {size}"),
            Self::Pairs(pairs) => f.debug_map().entries(pairs).finish(),
        }
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read => f.write_str("read"),
            Self::Stat => f.write_str("stat"),
            Self::GetXattrs => f.write_str("getxattrs"),
            Self::GetOmap => f.write_str("omap-get"),
            Self::Guard(name, value) => write!(f, "guard {name}={value:?}"),
            Self::Write(at, data) => write!(f, "write {at} {:?}", Brief(data)),
            Self::WriteFull(data) => write!(f, "writefull {:?}", Brief(data)),
            Self::Append(data) => write!(f, "append {:?}", Brief(data)),
            Self::Truncate(size) => write!(f, "truncate {size}"),
            Self::Create => f.write_str("create"),
            Self::Delete => f.write_str("delete"),
            Self::SetXattr(name, value) => write!(f, "setxattr {name}={value:?}"),
            Self::OmapSet(pairs) => write!(f, "omap-set {pairs:?}"),
            Self::OmapRemove(keys) => write!(f, "omap-rm {keys:?}"),
            Self::OmapClear => f.write_str("omap-clear"),
            Self::Rollback(snap) => write!(f, "rollback {snap}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(steps: Vec<Step>, seq: u64) -> Request {
        Request { steps, snaps: Snaps::Context { seq, snaps: (1..=seq).rev().collect() } }
    }

    fn after(object: &Object, request: &Request) -> Object {
        let effect = object.apply(request);
        assert_eq!(effect.result, 0, "{request:?}");
        effect.object.unwrap_or_else(|| object.clone())
    }

    fn read_at(object: &Object, snaps: Snaps) -> Result<Bytes, i32> {
        let effect = object.apply(&Request { steps: vec![Step::Read], snaps });
        match effect.outputs.as_slice() {
            [Output::Data(data)] => Ok(data.clone()),
            _ => Err(effect.result),
        }
    }

    #[test]
    fn steps_do_what_their_names_say() {
        let object = Object::default();
        let set = Step::OmapSet([("k".into(), "v".into())].into());
        let object = after(&object, &write(vec![Step::Create, set], 0));
        let object = after(&object, &write(vec![Step::Write(2, "ab".into())], 0));
        let object = after(&object, &write(vec![Step::Append("c".into())], 0));
        assert_eq!(read_at(&object, Snaps::Head), Ok("\0\0abc".into()));
        let object = after(&object, &write(vec![Step::Truncate(3)], 0));
        assert_eq!(read_at(&object, Snaps::Head), Ok("\0\0a".into()));
        assert_eq!(object.apply(&write(vec![Step::Create], 0)).result, EEXIST);
        let guarded = vec![Step::Guard("x".into(), "1".into()), Step::Delete];
        assert_eq!(object.apply(&write(guarded.clone(), 0)).result, ECANCELED);
        let object = after(&object, &write(vec![Step::SetXattr("x".into(), "1".into())], 0));
        let object = after(&object, &write(guarded, 0));
        assert_eq!(read_at(&object, Snaps::Head), Err(ENOENT));
        assert_eq!(object.hash(), Object::default().hash());
    }

    #[test]
    fn snapshots_show_what_was() {
        let one = after(&Object::default(), &write(vec![Step::WriteFull("1".into())], 0));
        let two = after(&one, &write(vec![Step::WriteFull("2".into())], 2));
        assert_eq!(read_at(&two, Snaps::At(1)), Ok("1".into()));
        assert_eq!(read_at(&two, Snaps::At(2)), Ok("1".into()));
        assert_eq!(read_at(&two, Snaps::At(3)), Ok("2".into()));
        // Somebody who has not heard of the snapshots.
        let three = after(&two, &write(vec![Step::Append("3".into())], 1));
        assert_eq!(read_at(&three, Snaps::At(2)), Ok("1".into()));
        let gone = after(&three, &write(vec![Step::Delete], 3));
        assert_eq!(read_at(&gone, Snaps::At(3)), Ok("23".into()));
        assert_eq!(read_at(&gone, Snaps::Head), Err(ENOENT));
        let back = after(&gone, &write(vec![Step::Rollback(2)], 3));
        assert_eq!(read_at(&back, Snaps::Head), Ok("1".into()));
        // Made after the newest snapshot, which so does not show it.
        let new = after(&Object::default(), &write(vec![Step::Create], 2));
        assert_eq!(read_at(&new, Snaps::At(2)), Err(ENOENT));
    }
}
