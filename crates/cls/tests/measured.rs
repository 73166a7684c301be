//! Methods against what Ceph 16.2 answered and stored, call by call.
//!
//! Each file of `measured/` is a list of steps, measured on a cluster of one OSD through librados; a
//! value is hexadecimal or `-` (see `unhex`), a name that is not plain text is `0x` and its bytes:
//!
//! ```text
//! object TITLE              the steps that follow are on a new object
//! client NUMBER ADDRESS     who calls from here on
//! compat RELEASE            `require-min-compat-client` of the cluster, from here on in the object
//! watch NUMBER ADDRESS      this client watches the object, until it is said to `unwatch`
//! now SECONDS.NANOSECONDS   the OSD's time from here on
//! set data VALUE            also `set xattr NAME VALUE`, `set omap NAME VALUE`: by plain operations
//! remove                    likewise
//! call CLASS METHOD INPUT
//!   = RESULT OUTPUT         what the client got: a length instead of 0 where there is output
//!   data VALUE              what the call changed in the object, in the words of `set`,
//!   gone xattr NAME         what it removed,
//!   absent                  or that it removed the object
//! ```
//!
//! `play.py` plays the files on a cluster, through librados.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::SplitWhitespace;

use bytes::Bytes;
use spirula_cls::context::Watcher;
use spirula_cls::memory::MemoryObject;
use spirula_cls::{Halt, class};
use spirula_wire::types::{AddrType, EntityAddr, EntityName, UTime};

const ENOENT: i32 = 2;
const EIO: i32 = 5;

#[test]
fn every_call_answers_and_stores_as_in_ceph() {
    assert!(replay_all(|_, _, _| {}) > 0);
}

/// Every measured call once more with bytes of its input and of its object changed or cut off: what
/// comes of it does not matter, but that it ends and does not panic.
#[test]
fn damaged_inputs_and_objects_harm_no_method() {
    replay_all(|object, run, input| {
        let mut dice = Dice(input.len() as u64);
        for _ in 0..16 {
            let (mut object, mut input) = (object.clone(), input.to_vec());
            dice.damage(&mut input);
            if dice.roll(2) == 0 {
                dice.damage(&mut object.data);
                let parts = object.xattrs.values_mut().chain(object.omap.values_mut());
                parts.for_each(|value| {
                    let mut damaged = value.to_vec();
                    dice.damage(&mut damaged);
                    *value = damaged.into();
                });
            }
            let _ = run(&mut object, &input.into(), &mut Vec::new());
        }
    });
}

/// Plays every file back; `visit` sees each call before it is made. Returns the number of calls.
fn replay_all(visit: fn(&MemoryObject, spirula_cls::Run, &Bytes)) -> u64 {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/measured");
    let mut calls = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let mut replay = Replay { object: MemoryObject::default(), call: None, calls: 0, visit };
        for (number, line) in text.lines().enumerate() {
            replay.line(&format!("{file}:{}", number + 1), line);
        }
        replay.finish();
        calls += replay.calls;
    }
    calls
}

/// Numbers that are the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) as usize % sides
    }

    /// Cuts some off, or changes one byte to an extreme or by one bit.
    fn damage(&mut self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let at = self.roll(bytes.len());
        match self.roll(4) {
            0 => bytes.truncate(at),
            1 => bytes[at] = 0xff,
            2 => bytes[at] = 0,
            _ => bytes[at] ^= 1 << self.roll(8),
        }
    }
}

struct Replay {
    object: MemoryObject,
    call: Option<Call>,
    calls: u64,
    visit: fn(&MemoryObject, spirula_cls::Run, &Bytes),
}

/// One call, checked when its last line was read.
struct Call {
    at: String,
    reads_only: bool,
    result: Result<(), i32>,
    out: Vec<u8>,
    /// The object's parts after it, by the file.
    expected: BTreeMap<String, Vec<u8>>,
}

impl Replay {
    fn line(&mut self, at: &str, line: &str) {
        let mut words = line.split_whitespace();
        let Some(verb) = words.next().filter(|w| !w.starts_with('#')) else { return };
        if let (true, Some(call)) = (line.starts_with(' '), &mut self.call) {
            match verb {
                "=" => call.check_answer(&mut words),
                "absent" => call.expected.clear(),
                "gone" => {
                    let kind = words.next().unwrap();
                    let removed = call.expected.remove(&part(kind, words.next().unwrap()));
                    assert!(removed.is_some(), "{at}");
                }
                _ => call.expected.extend([entry(verb, &mut words)]),
            }
            return;
        }
        self.finish();
        match verb {
            "object" => self.object = MemoryObject::default(),
            "client" => self.client(&mut words),
            "compat" => self.object.min_compat_client = words.next().unwrap().parse().unwrap(),
            "watch" => self.object.watchers.push(watcher(&mut words)),
            "unwatch" => {
                let gone = watcher(&mut words);
                self.object.watchers.retain(|watcher| *watcher != gone);
            }
            "now" => self.object.now = time(words.next().unwrap()),
            "set" => self.set(&mut words),
            "remove" => self.remove(),
            "call" => self.call(at, &mut words),
            other => panic!("{at}: {other}"),
        }
    }

    fn client(&mut self, words: &mut SplitWhitespace<'_>) {
        self.object.origin.name = EntityName::client(words.next().unwrap().parse().unwrap());
        let addr: EntityAddr = words.next().unwrap().parse().unwrap();
        self.object.origin.addr = addr.with_type(AddrType::ANY);
    }

    fn set(&mut self, words: &mut SplitWhitespace<'_>) {
        let (what, value) = entry(words.next().unwrap(), words);
        self.object.exists = true;
        match what.split_once(' ') {
            Some(("xattr", name)) => self.object.xattrs.insert(unhex(name).into(), value.into()),
            Some((_, key)) => self.object.omap.insert(unhex(key).into(), value.into()),
            None => {
                self.object.data = value;
                None
            }
        };
    }

    fn remove(&mut self) {
        let MemoryObject { origin, now, .. } = std::mem::take(&mut self.object);
        (self.object.origin, self.object.now) = (origin, now);
    }

    /// As an OSD does: a request that only reads finds an object or fails, a failed one changes
    /// nothing, and a method that only reads fails when it writes.
    fn call(&mut self, at: &str, words: &mut SplitWhitespace<'_>) {
        let mut word = || words.next().unwrap();
        let (class_name, method_name) = (word(), word());
        let at = format!("{at}: {class_name}.{method_name}");
        let input = Bytes::from(unhex(word()));
        let class = class(class_name.as_bytes()).expect(&at);
        let method = class.method(method_name.as_bytes()).expect(&at);
        (self.visit)(&self.object, method.run, &input);
        let (before, mut out) = (self.object.clone(), Vec::new());
        let reads_only = !method.access.writes();
        let mut result = if reads_only && !before.exists {
            Err(ENOENT)
        } else {
            (method.run)(&mut self.object, &input, &mut out).map_err(|halt| match halt {
                Halt::Errno(errno) => errno,
                Halt::Missing => panic!("{at}: missing"),
            })
        };
        if reads_only && entries(&before) != entries(&self.object) {
            result = Err(EIO);
        }
        if result.is_err() {
            self.object = before.clone();
        }
        self.calls += 1;
        self.call = Some(Call { at, reads_only, result, out, expected: entries(&before) });
    }

    fn finish(&mut self) {
        let Some(call) = self.call.take() else { return };
        let stored = entries(&self.object);
        let (here, ceph) = (show(&stored), show(&call.expected));
        assert!(stored == call.expected, "{}\nhere {here}\nCeph {ceph}", call.at);
    }
}

impl Call {
    fn check_answer(&self, words: &mut SplitWhitespace<'_>) {
        let (result, out) = (words.next().unwrap(), unhex(words.next().unwrap()));
        let result = result.parse::<i32>().unwrap();
        let expected = if result < 0 { Err(-result) } else { Ok(()) };
        assert_eq!(self.result, expected, "{}", self.at);
        if result >= 0 && self.reads_only {
            assert_eq!(hex(&self.out), hex(&out), "{}", self.at);
        }
    }
}

/// With another type of address than callers have here, as a client can have it.
fn watcher(words: &mut SplitWhitespace<'_>) -> Watcher {
    let name = EntityName::client(words.next().unwrap().parse().unwrap());
    let addr: EntityAddr = words.next().unwrap().parse().unwrap();
    Watcher { name, cookie: 1, timeout_seconds: 30, addr: addr.with_type(AddrType::MSGR2) }
}

/// An object's parts, as lines of the file name them.
fn entries(object: &MemoryObject) -> BTreeMap<String, Vec<u8>> {
    if !object.exists {
        return BTreeMap::new();
    }
    let named = |kind: &'static str| {
        move |(name, value): (&Bytes, &Bytes)| (format!("{kind} {}", hex(name)), value.to_vec())
    };
    let mut entries: BTreeMap<_, _> = object.xattrs.iter().map(named("xattr")).collect();
    entries.extend(object.omap.iter().map(named("omap")));
    entries.insert("data".to_owned(), object.data.clone());
    entries
}

/// `data VALUE` or `xattr NAME VALUE`.
fn entry(verb: &str, words: &mut SplitWhitespace<'_>) -> (String, Vec<u8>) {
    let mut word = || words.next().unwrap();
    let name = if verb == "data" { verb.to_owned() } else { part(verb, word()) };
    (name, unhex(word()))
}

/// The name of a part, with its own name in hexadecimal.
fn part(kind: &str, name: &str) -> String {
    let name = name.strip_prefix("0x").map_or_else(|| name.as_bytes().to_vec(), unhex);
    format!("{kind} {}", hex(&name))
}

fn show(entries: &BTreeMap<String, Vec<u8>>) -> String {
    entries.iter().map(|(name, value)| format!("\n  {name} {}", hex(value))).collect()
}

fn time(text: &str) -> UTime {
    let (sec, nsec) = text.split_once('.').unwrap();
    UTime { sec: sec.parse().unwrap(), nsec: nsec.parse().unwrap() }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Parts joined by `+`: digits, or a byte and how often it is there as in `00*4096`.
fn unhex(text: &str) -> Vec<u8> {
    let byte = |pair: &str| u8::from_str_radix(pair, 16).unwrap();
    let part = |part: &str| match part.split_once('*') {
        Some((pair, count)) => vec![byte(pair); count.parse().unwrap()],
        None => (0..part.len()).step_by(2).map(|at| byte(&part[at..at + 2])).collect(),
    };
    text.strip_prefix('-').unwrap_or(text).split('+').flat_map(part).collect()
}
