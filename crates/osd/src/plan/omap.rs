//! Operations on an object's omap: its header and its ordered key/value pairs.

use bytes::Bytes;
use spirula_wire::msg::osd_op::OsdOpResult;
use spirula_wire::{Encode, Features};

use super::cut::Cut;
use super::{Effect, Run, Step, err, kib, ok};
use crate::errno::*;
use crate::view::{ObjectView, Viewed};

const F: Features = Features::PACIFIC;
/// Entries fetched at a time while a listing runs.
const BATCH: usize = 256;

impl<V: ObjectView> Run<'_, V> {
    pub(super) fn omap_get_keys(
        &mut self,
        input: &Bytes,
        out: &mut OsdOpResult,
    ) -> Step<V::Missing> {
        let mut input = Cut::new(input);
        let (after, max) = (input.blob()?, input.u64()?);
        self.list(&after, &Bytes::new(), max, out, |key, _, raw| key.encode(raw, F))
    }

    pub(super) fn omap_get_vals(
        &mut self,
        input: &Bytes,
        out: &mut OsdOpResult,
    ) -> Step<V::Missing> {
        let mut input = Cut::new(input);
        let (after, max, prefix) = (input.blob()?, input.u64()?, input.blob()?);
        self.list(&after, &prefix, max, out, |key, value, raw| {
            key.encode(raw, F);
            value.encode(raw, F);
        })
    }

    /// Count, entries after `after` that start with `prefix`, and whether there are more.
    fn list(
        &mut self,
        after: &Bytes,
        prefix: &Bytes,
        max: u64,
        out: &mut OsdOpResult,
        encode: impl Fn(&Bytes, &Bytes, &mut Vec<u8>),
    ) -> Step<V::Missing> {
        let mut raw = 0u32.to_bytes(F);
        let mut num = 0u32;
        let more = self.walk(after, prefix, max, |key, value| {
            let before = raw.len();
            encode(key, value, &mut raw);
            num += 1;
            raw.len() - before
        })?;
        raw[..4].copy_from_slice(&num.to_le_bytes());
        more.encode(&mut raw, F);
        self.count_read(raw.len() as u64);
        out.outdata = vec![raw.into()];
        Ok(None)
    }

    /// Hands entries after `after` that start with `prefix` to `take`, which tells their bytes, and
    /// returns whether there are more than one answer may hold.
    pub(super) fn walk(
        &mut self,
        after: &Bytes,
        prefix: &Bytes,
        max: u64,
        mut take: impl FnMut(&Bytes, &Bytes) -> usize,
    ) -> Viewed<bool, V::Missing> {
        let max = max.min(self.limits.max_omap_entries_per_request) as usize;
        let max_bytes = self.limits.max_omap_bytes_per_request as usize;
        let (mut num, mut bytes) = (0, 0);
        let (mut from, mut exclusive) =
            if prefix > after { (prefix.clone(), false) } else { (after.clone(), true) };
        while self.has_omap()? {
            let batch = self.view.omap_range(&from, exclusive, BATCH.min(max - num + 1))?;
            let Some((last, _)) = batch.last() else { break };
            (from, exclusive) = (last.clone(), true);
            for (key, value) in &batch {
                if !key.starts_with(prefix) {
                    return Ok(false);
                }
                if num >= max || bytes >= max_bytes {
                    return Ok(true);
                }
                bytes += take(key, value);
                num += 1;
            }
        }
        Ok(false)
    }

    pub(super) fn omap_get_header(&mut self, out: &mut OsdOpResult) -> Step<V::Missing> {
        if !self.has_omap()? {
            return Ok(None);
        }
        let header = self.view.omap_header()?;
        self.count_read(header.len() as u64);
        out.outdata = vec![header];
        Ok(None)
    }

    pub(super) fn omap_get_vals_by_keys(
        &mut self,
        input: &Bytes,
        out: &mut OsdOpResult,
    ) -> Step<V::Missing> {
        let mut keys = strings(input)?;
        keys.sort_unstable();
        keys.dedup();
        let mut found = Vec::new();
        if self.has_omap()? {
            for key in keys {
                if let Some(value) = self.view.omap_value(&key)? {
                    found.push((key, value));
                }
            }
        }
        let raw = found.to_bytes(F);
        self.count_read(raw.len() as u64);
        out.outdata = vec![raw.into()];
        Ok(None)
    }

    /// An absent key compares as an empty value.
    pub(super) fn omap_cmp(&mut self, input: &Bytes) -> Step<V::Missing> {
        if !self.exists {
            return err(ENOENT);
        }
        let mut input = Cut::new(input);
        let mut assertions = Vec::new();
        for _ in 0..input.count(12)? {
            assertions.push((input.blob()?, input.blob()?, input.u32()?));
        }
        assertions.sort_unstable();
        self.delta.num_rd += 1;
        let stored = self.has_omap()?;
        for (key, want, cmp) in assertions {
            let have = if stored { self.view.omap_value(&key)? } else { None }.unwrap_or_default();
            let holds = match cmp {
                1 => have == want,
                3 => have > want,
                5 => have < want,
                _ => return err(EINVAL),
            };
            if !holds {
                return err(ECANCELED);
            }
        }
        Ok(None)
    }

    pub(super) fn omap_set_vals(&mut self, input: &Bytes) -> Step<V::Missing> {
        let mut rest = Cut::new(input);
        let mut pairs = Vec::new();
        for _ in 0..rest.count(8)? {
            pairs.push((rest.blob()?, rest.blob()?));
        }
        self.set_omap_pairs(pairs, input.len());
        ok()
    }

    /// `bytes`: what they take in an operation's input.
    pub(super) fn set_omap_pairs(&mut self, pairs: Vec<(Bytes, Bytes)>, bytes: usize) {
        self.ensure_exists();
        self.info.omap = true;
        self.effect(Effect::SetOmap(pairs));
        self.delta.num_wr += 1;
        self.delta.num_wr_kb += kib(bytes as u64);
    }

    pub(super) fn omap_set_header(&mut self, input: &Bytes) -> Step<V::Missing> {
        self.ensure_exists();
        self.info.omap = true;
        self.effect(Effect::SetOmapHeader(input.clone()));
        self.delta.num_wr += 1;
        ok()
    }

    pub(super) fn omap_clear(&mut self) -> Step<V::Missing> {
        if !self.exists {
            return err(ENOENT);
        }
        if self.info.omap {
            self.info.omap = false;
            self.effect(Effect::ClearOmap);
            self.delta.num_wr += 1;
        }
        ok()
    }

    pub(super) fn omap_rm_keys(&mut self, input: &Bytes) -> Step<V::Missing> {
        if !self.exists {
            return err(ENOENT);
        }
        let keys = strings(input)?;
        self.remove_omap_keys(keys)
    }

    pub(super) fn remove_omap_keys(&mut self, keys: Vec<Bytes>) -> Step<V::Missing> {
        if !self.exists {
            return err(ENOENT);
        }
        self.effect(Effect::RemoveOmapKeys(keys));
        self.delta.num_wr += 1;
        ok()
    }

    pub(super) fn omap_rm_key_range(&mut self, input: &Bytes) -> Step<V::Missing> {
        if !self.exists {
            return err(ENOENT);
        }
        let mut input = Cut::new(input);
        let (from, to) = (input.blob()?, input.blob()?);
        self.effect(Effect::RemoveOmapRange { from, to });
        self.delta.num_wr += 1;
        ok()
    }

    /// Whether the stored object has an omap to look at: one made by this request is not there yet.
    pub(super) fn has_omap(&self) -> Viewed<bool, V::Missing> {
        Ok(self.info.omap && self.view.info()?.is_some_and(|i| i.omap))
    }
}

/// A counted list of byte strings.
fn strings<M>(input: &Bytes) -> Viewed<Vec<Bytes>, M> {
    let mut input = Cut::new(input);
    let n = input.count(4)?;
    (0..n).map(|_| input.blob()).collect()
}
