//! Scrub: what the copies of a PG tell of the same objects is compared.
//!
//! The rules and the names of errors are Ceph's (`PGBackend`, v16), but for one: among copies that are whole
//! by themselves and equally new, what most of them say counts, and the primary's word only where there is
//! no majority.
//!
//! Invariant: pure; a copy is good only if it has the object as the chosen one has it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use bytes::Bytes;
use spirula_wire::types::{
    EVersion, HObject, INFO_ATTR, InconsistentObject, InconsistentShard, PgId, SNAPSET_ATTR,
    ScrubObject, SnapId, object_error as object_bit, shard_error as bit,
};

/// What one copy has of a range of objects, heads and clones.
pub type Map = BTreeMap<HObject, ScrubObject>;

/// The errors of a scrub.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Findings {
    pub objects: BTreeMap<HObject, InconsistentObject>,
    /// By their heads.
    pub repairs: BTreeMap<HObject, Repair>,
    pub shallow: u64,
    pub deep: u64,
    /// Objects that some copy lacks, and those that some copy has otherwise.
    pub missing: u64,
    pub inconsistent: u64,
}

/// Which copies of an object, head and clones, are of use.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Repair {
    /// What the good ones have.
    pub need: EVersion,
    pub good: BTreeSet<i32>,
    pub bad: BTreeSet<i32>,
    /// What those have cannot be replaced.
    pub stuck: BTreeSet<i32>,
    /// Errors of it.
    pub errors: u64,
}

impl Repair {
    /// Whether a good copy can replace the bad ones.
    pub fn is_possible(&self) -> bool {
        !self.good.is_empty() && !self.bad.is_empty() && self.stuck.is_empty()
    }
}

/// Compares what all copies have of the same range, and says in Ceph's words what is wrong.
pub fn compare(
    pgid: PgId,
    maps: &BTreeMap<i32, Map>,
    primary: i32,
    found: &mut Findings,
) -> Vec<String> {
    let objects: BTreeSet<&HObject> = maps.values().flat_map(Map::keys).collect();
    let mut lines = Vec::new();
    let mut heads: BTreeMap<HObject, Repair> = BTreeMap::new();
    for object in objects {
        let head = HObject { snap: SnapId::HEAD, ..object.clone() };
        let all = || maps.keys().copied().collect();
        let repair =
            heads.entry(head).or_insert_with(|| Repair { good: all(), ..Repair::default() });
        let copies: BTreeMap<i32, Option<&ScrubObject>> =
            maps.iter().map(|(osd, map)| (*osd, map.get(object))).collect();
        let one = One { pgid, object, copies, primary };
        one.judge(found, repair, &mut lines);
    }
    for (head, mut repair) in heads {
        let good = |osd: &i32| !repair.bad.contains(osd) && !repair.stuck.contains(osd);
        repair.good = repair.good.iter().copied().filter(good).collect();
        if repair.errors > 0 {
            found.repairs.insert(head, repair);
        }
    }
    lines
}

/// An object as the copies have it.
struct One<'a> {
    pgid: PgId,
    object: &'a HObject,
    copies: BTreeMap<i32, Option<&'a ScrubObject>>,
    primary: i32,
}

impl<'a> One<'a> {
    fn judge(&self, found: &mut Findings, repair: &mut Repair, lines: &mut Vec<String>) {
        let mut result = InconsistentObject { object: self.object.clone(), ..Default::default() };
        for (osd, copy) in &self.copies {
            result.shards.insert(*osd, self.alone(*osd, *copy, lines));
        }
        let before = found.shallow + found.deep;
        let chosen = self.choose(&result);
        let (pgid, object) = (self.pgid, self.object);
        match chosen {
            None => {
                lines.push(format!("{pgid} soid {object} : failed to pick suitable object info"));
                for shard in result.shards.values().filter(|shard| shard.errors != 0) {
                    count(shard.errors & bit::DEEP != 0, found);
                }
                repair.good.clear();
            }
            Some((osd, auth)) => {
                result.version = auth.user_version;
                repair.need = repair.need.max(auth.stored);
                self.compare_all(osd, auth, &mut result, repair, (found, lines));
            }
        }
        if result.errors != 0 {
            count(result.errors & object_bit::DEEP != 0, found);
        }
        repair.errors += found.shallow + found.deep - before;
        if result.errors != 0 || result.union() != 0 {
            found.objects.insert(object.clone(), result);
        }
    }

    /// What is wrong with a copy whatever the others have.
    fn alone(
        &self,
        osd: i32,
        copy: Option<&ScrubObject>,
        lines: &mut Vec<String>,
    ) -> InconsistentShard {
        let primary = osd == self.primary;
        let (pgid, object) = (self.pgid, self.object);
        let Some(copy) = copy else {
            lines.push(format!("{pgid} shard {osd} {object} : missing"));
            return InconsistentShard { errors: bit::MISSING, primary, ..Default::default() };
        };
        let mut errors = copy.errors;
        let unknown = bit::STAT | bit::INFO_MISSING | bit::INFO_CORRUPTED;
        if errors & unknown == 0 && copy.size != copy.info_size {
            errors |= bit::OBJ_SIZE_INFO_MISMATCH;
        }
        let sizes = format!("size {} info size {} mismatch", copy.size, copy.info_size);
        let said: Vec<&str> = [
            (bit::READ, "had a read error"),
            (bit::STAT, "had a stat error"),
            (bit::SNAPSET_CORRUPTED, "had a corrupt snapset"),
            (bit::INFO_MISSING, "had a missing info key"),
            (bit::INFO_CORRUPTED, "had a corrupt info"),
            (bit::OBJ_SIZE_INFO_MISMATCH, &sizes),
        ]
        .into_iter()
        .filter(|(is, _)| errors & is != 0)
        .map(|(_, text)| text)
        .collect();
        if !said.is_empty() {
            let said = said.join(", candidate ");
            lines.push(format!("{pgid} shard {osd} soid {object} : candidate {said}"));
        }
        InconsistentShard {
            errors,
            primary,
            selected: false,
            attrs: copy.attrs.clone(),
            size: copy.size,
            omap_digest: copy.omap_digest,
            data_digest: copy.data_digest,
        }
    }

    /// The copy that others are compared with: of those without errors the newest, of these one that most
    /// agree with, the primary's if that is one.
    fn choose(&self, result: &InconsistentObject) -> Option<(i32, &'a ScrubObject)> {
        let sound = |osd: &i32| result.shards.get(osd).is_some_and(|shard| shard.errors == 0);
        let whole: Vec<(i32, &ScrubObject)> = self
            .copies
            .iter()
            .filter(|(osd, _)| sound(osd))
            .filter_map(|(osd, copy)| Some((*osd, (*copy)?)))
            .collect();
        let newest = whole.iter().map(|(_, copy)| copy.version).max()?;
        let newest: Vec<_> = whole.into_iter().filter(|(_, copy)| copy.version == newest).collect();
        let alike = |copy: &ScrubObject| newest.iter().filter(|(_, other)| *other == copy).count();
        newest.iter().copied().max_by_key(|(osd, copy)| (alike(copy), *osd == self.primary, -osd))
    }

    fn compare_all(
        &self,
        chosen: i32,
        auth: &ScrubObject,
        result: &mut InconsistentObject,
        repair: &mut Repair,
        (found, lines): (&mut Findings, &mut Vec<String>),
    ) {
        let (pgid, object) = (self.pgid, self.object);
        let (mut missing, mut inconsistent) = (false, false);
        for (osd, copy) in &self.copies {
            let Some(shard) = result.shards.get_mut(osd) else {
                continue;
            };
            shard.selected = *osd == chosen;
            let Some(copy) = copy else {
                missing = true;
                repair.bad.insert(*osd);
                count(false, found);
                continue;
            };
            let mut differs = Differs { from: chosen, text: String::new() };
            let errors = differs.compare(auth, copy, shard);
            result.errors |= errors;
            let alone = shard.errors;
            if alone != 0 {
                count(alone & bit::DEEP != 0, found);
            }
            if alone != 0 || errors != 0 {
                inconsistent = true;
                let stuck = alone & bit::STAT != 0;
                if stuck {
                    repair.stuck.insert(*osd)
                } else {
                    repair.bad.insert(*osd)
                };
            }
            if !differs.text.is_empty() {
                let shard = if alone != 0 { format!(" shard {osd}") } else { String::new() };
                lines.push(format!("{pgid}{shard} soid {object} : {}", differs.text));
            }
        }
        found.missing += u64::from(missing);
        found.inconsistent += u64::from(inconsistent);
    }
}

fn count(deep: bool, found: &mut Findings) {
    if deep {
        found.deep += 1;
    } else {
        found.shallow += 1;
    }
}

/// What a copy has otherwise than the chosen one, in words.
struct Differs {
    from: i32,
    text: String,
}

impl Differs {
    fn say(&mut self, text: &str) {
        let between = if self.text.is_empty() { "" } else { ", " };
        // A string takes everything.
        let _ = write!(self.text, "{between}{text}");
    }

    /// Differences between the copies; what is the copy's own error is added to `shard`.
    fn compare(
        &mut self,
        auth: &ScrubObject,
        copy: &ScrubObject,
        shard: &mut InconsistentShard,
    ) -> u64 {
        let mut errors = 0;
        for (what, own, theirs, is) in [
            ("data_digest", copy.data_digest, auth.data_digest, object_bit::DATA_DIGEST_MISMATCH),
            ("omap_digest", copy.omap_digest, auth.omap_digest, object_bit::OMAP_DIGEST_MISMATCH),
        ] {
            if let (Some(own), Some(theirs)) = (own, theirs)
                && own != theirs
            {
                let from = self.from;
                self.say(&format!("{what} {own:#x} != {what} {theirs:#x} from shard {from}"));
                errors |= is;
            }
        }
        if copy.errors & bit::STAT != 0 {
            return errors;
        }
        if copy.errors & (bit::INFO_MISSING | bit::INFO_CORRUPTED) == 0
            && (copy.attrs.get(INFO_ATTR) != auth.attrs.get(INFO_ATTR)
                || copy.version != auth.version
                || copy.records != auth.records)
        {
            self.say("object info inconsistent");
            errors |= object_bit::OBJECT_INFO_INCONSISTENCY;
        }
        if copy.errors & bit::SNAPSET_CORRUPTED == 0
            && copy.attrs.get(SNAPSET_ATTR) != auth.attrs.get(SNAPSET_ATTR)
        {
            self.say("snapset inconsistent");
            errors |= object_bit::SNAPSET_INCONSISTENCY;
        }
        if copy.size != auth.info_size {
            self.say(&format!("size {} != size {} from auth oi", copy.size, auth.info_size));
            shard.errors |= bit::SIZE_MISMATCH_INFO;
        }
        if copy.size != auth.size {
            let from = self.from;
            self.say(&format!("size {} != size {} from shard {from}", copy.size, auth.size));
            errors |= object_bit::SIZE_MISMATCH;
        }
        errors | self.compare_attrs(&auth.attrs, &copy.attrs)
    }

    /// Those of users.
    fn compare_attrs(
        &mut self,
        auth: &BTreeMap<Bytes, Bytes>,
        copy: &BTreeMap<Bytes, Bytes>,
    ) -> u64 {
        let names: BTreeSet<&Bytes> = auth.keys().chain(copy.keys()).collect();
        let mut errors = 0;
        for name in names.into_iter().filter(|n| n.starts_with(INFO_ATTR) && n[..] != *INFO_ATTR) {
            let (what, is) = match (auth.get(name), copy.get(name)) {
                (Some(one), Some(other)) if one == other => continue,
                (Some(_), Some(_)) => ("value", object_bit::ATTR_VALUE_MISMATCH),
                _ => ("name", object_bit::ATTR_NAME_MISMATCH),
            };
            self.say(&format!("attr {what} mismatch '{}'", name.escape_ascii()));
            errors |= is;
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object() -> HObject {
        HObject { oid: "o".into(), pool: 1, snap: SnapId::HEAD, ..HObject::default() }
    }

    fn whole() -> ScrubObject {
        let attrs: [(Bytes, Bytes); 3] = [
            ("_".into(), "info".into()),
            ("_a".into(), "1".into()),
            ("snapset".into(), "s".into()),
        ];
        ScrubObject {
            stored: EVersion::new(2, 5),
            version: EVersion::new(2, 5),
            user_version: 9,
            info_size: 10,
            size: 10,
            attrs: attrs.into(),
            records: 1,
            data_digest: Some(1),
            omap_digest: Some(2),
            errors: 0,
        }
    }

    type Change = fn(&mut ScrubObject);

    /// Of three copies osd.0 leads, some are changed; `None`: it lacks the object.
    fn play(changes: &[(i32, Option<Change>)]) -> (Findings, Vec<String>) {
        let mut maps: BTreeMap<i32, Map> =
            (0..3).map(|osd| (osd, [(object(), whole())].into())).collect();
        for (osd, change) in changes {
            let map = maps.get_mut(osd).unwrap();
            match change {
                Some(change) => map.values_mut().for_each(change),
                None => map.clear(),
            }
        }
        let mut found = Findings::default();
        let lines = compare(PgId::new(1, 0), &maps, 0, &mut found);
        (found, lines)
    }

    /// Which errors of the object, of which copies, how many shallow and deep ones, which copies are
    /// replaced.
    type Row<'a> = (&'a str, &'a [(i32, Option<Change>)], u64, [u64; 3], (u64, u64), &'a [i32]);

    #[test]
    fn errors_have_ceph_s_names() {
        use object_bit as o;
        let size: Change = |c| c.size = 7;
        let digest: Change = |c| c.data_digest = Some(7);
        let read: Change = |c| (c.errors, c.data_digest) = (bit::READ, None);
        let sizes = bit::OBJ_SIZE_INFO_MISMATCH | bit::SIZE_MISMATCH_INFO;
        let table: [Row; 14] = [
            ("nothing", &[], 0, [0; 3], (0, 0), &[]),
            ("missing", &[(1, None)], 0, [0, bit::MISSING, 0], (1, 0), &[1]),
            ("missing at the primary", &[(0, None)], 0, [bit::MISSING, 0, 0], (1, 0), &[0]),
            ("read error", &[(2, Some(read))], 0, [0, 0, bit::READ], (0, 1), &[2]),
            ("data", &[(1, Some(digest))], o::DATA_DIGEST_MISMATCH, [0; 3], (0, 1), &[1]),
            (
                "data of the primary",
                &[(0, Some(digest))],
                o::DATA_DIGEST_MISMATCH,
                [0; 3],
                (0, 1),
                &[0],
            ),
            (
                "omap",
                &[(1, Some(|c| c.omap_digest = Some(7)))],
                o::OMAP_DIGEST_MISMATCH,
                [0; 3],
                (0, 1),
                &[1],
            ),
            ("size", &[(1, Some(size))], o::SIZE_MISMATCH, [0, sizes, 0], (2, 0), &[1]),
            (
                "a value",
                &[(1, Some(|c| _ = c.attrs.insert("_a".into(), "2".into())))],
                o::ATTR_VALUE_MISMATCH,
                [0; 3],
                (1, 0),
                &[1],
            ),
            (
                "names",
                &[(1, Some(|c| _ = c.attrs.remove(&b"_a"[..])))],
                o::ATTR_NAME_MISMATCH,
                [0; 3],
                (1, 0),
                &[1],
            ),
            (
                "the snapset",
                &[(1, Some(|c| _ = c.attrs.insert("snapset".into(), "t".into())))],
                o::SNAPSET_INCONSISTENCY,
                [0; 3],
                (1, 0),
                &[1],
            ),
            (
                "what two have otherwise, but older",
                &[
                    (1, Some(|c| (c.version.version, c.records) = (4, 7))),
                    (2, Some(|c| (c.version.version, c.records) = (4, 7))),
                ],
                o::OBJECT_INFO_INCONSISTENCY,
                [0; 3],
                (1, 0),
                &[1, 2],
            ),
            (
                "two errors",
                &[(0, Some(read)), (1, None)],
                0,
                [bit::READ, bit::MISSING, 0],
                (1, 1),
                &[0, 1],
            ),
            (
                "no info",
                &[(1, Some(|c| (c.errors, c.attrs) = (bit::INFO_MISSING, BTreeMap::new())))],
                o::SNAPSET_INCONSISTENCY | o::ATTR_NAME_MISMATCH,
                [0, bit::INFO_MISSING, 0],
                (2, 0),
                &[1],
            ),
        ];
        for (what, changes, errors, shards, counts, bad) in table {
            let (found, lines) = play(changes);
            assert_eq!((found.shallow, found.deep), counts, "{what}");
            assert_eq!(lines.is_empty(), counts == (0, 0), "{what}: {lines:?}");
            let object_found = found.objects.get(&object());
            assert_eq!(object_found.is_some(), counts != (0, 0), "{what}");
            let Some(object_found) = object_found else { continue };
            assert_eq!(object_found.errors, errors, "{what}");
            assert_eq!(object_found.version, 9, "{what}");
            let of_shards: Vec<u64> = object_found.shards.values().map(|s| s.errors).collect();
            assert_eq!(of_shards, shards, "{what}");
            assert_eq!(object_found.shards.values().filter(|s| s.selected).count(), 1, "{what}");
            let repair = &found.repairs[&object()];
            assert!(repair.is_possible(), "{what}");
            assert_eq!(repair.need, EVersion::new(2, 5), "{what}");
            assert_eq!(repair.bad, bad.iter().copied().collect(), "{what}");
            assert_eq!(repair.good.len() + bad.len(), 3, "{what}");
            assert_eq!(repair.errors, counts.0 + counts.1, "{what}");
        }
    }

    #[test]
    fn what_no_copy_has_whole_is_left() {
        let read: Change = |c| c.errors = bit::READ;
        let (found, lines) = play(&[(0, Some(read)), (1, Some(read)), (2, None)]);
        assert_eq!((found.shallow, found.deep), (1, 2));
        assert!(!found.repairs[&object()].is_possible());
        assert!(
            lines.iter().any(|l| l.ends_with("failed to pick suitable object info")),
            "{lines:?}"
        );
        let stat: Change = |c| c.errors = bit::STAT;
        let (found, _) = play(&[(1, Some(stat))]);
        assert_eq!((found.shallow, found.repairs[&object()].is_possible()), (1, false));
    }

    #[test]
    fn a_head_and_its_clones_are_repaired_together() {
        let clone = HObject { snap: SnapId(3), ..object() };
        let both: Map = [(object(), whole()), (clone.clone(), whole())].into();
        let mut maps: BTreeMap<i32, Map> = (0..3).map(|osd| (osd, both.clone())).collect();
        maps.get_mut(&1).unwrap().remove(&clone);
        maps.get_mut(&2).unwrap().get_mut(&object()).unwrap().data_digest = Some(8);
        let mut found = Findings::default();
        compare(PgId::new(1, 0), &maps, 0, &mut found);
        assert_eq!(found.objects.len(), 2);
        let repair = &found.repairs[&object()];
        assert_eq!((repair.good.clone(), repair.bad.clone()), ([0].into(), [1, 2].into()));
    }

    /// Lines of a cluster of 16.2.15.
    #[test]
    fn errors_are_said_in_ceph_s_words() {
        let (_, lines) = play(&[
            (1, Some(|c| c.errors = bit::READ)),
            (2, Some(|c| c.omap_digest = Some(0xabc))),
        ]);
        let name = object().to_string();
        let want = [
            format!("1.0 shard 1 soid {name} : candidate had a read error"),
            format!("1.0 soid {name} : omap_digest 0xabc != omap_digest 0x2 from shard 0"),
        ];
        assert_eq!(lines, want);
    }
}
