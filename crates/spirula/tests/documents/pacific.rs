//! What Ceph 16.2.15 knows, as it says itself.

const TEXT: &str = include_str!("pacific.tsv");

/// A command of Ceph's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(crate) name: &'static str,
    /// Another spelling; of a command of daemons: `obsolete`.
    pub(crate) remark: &'static str,
}

/// The commands that `place` takes (`ceph`, `mon`, `osd`, `mgr`, `rbd`, `rados`).
pub(crate) fn commands(place: &str) -> Vec<Known> {
    let lines = TEXT.lines().filter(|line| !line.starts_with('#'));
    let known = lines.filter_map(|line| {
        let mut fields = line.split('\t');
        let here = fields.next()? == place;
        let name = fields.next()?;
        here.then(|| Known { name, remark: fields.next().unwrap_or_default() })
    });
    known.collect()
}

#[test]
fn every_place_has_commands() {
    for (place, count) in
        [("ceph", 566), ("mon", 44), ("osd", 96), ("mgr", 37), ("rbd", 124), ("rados", 60)]
    {
        assert_eq!(commands(place).len(), count, "{place}");
    }
}
