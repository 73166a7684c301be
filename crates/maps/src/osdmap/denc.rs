//! Encoding of a full map: a client section, an OSD section and a checksum.
//!
//! Source of the format: Ceph's `osd/OSDMap.cc`, struct version 8 with sections 9 and 9 (10 in
//! stretch mode). Layouts of peers before Nautilus have no place here: they cannot speak msgr2.

use std::collections::BTreeMap;
use std::sync::Arc;

use spirula_crush::CrushMap;
use spirula_wire::denc::encode_versioned;
use spirula_wire::types::{EntityAddr, EntityAddrVec, UTime, Uuid};
use spirula_wire::{Decode, DecodeError, Encode, Features, Reader};

use crate::osdmap::{OSDS_MAX, Osd, OsdInfo, OsdMap, OsdXInfo, crc};

impl OsdMap {
    /// The encoding together with its checksum. What an incremental's `full_crc` must say.
    pub fn encode_with_crc(&self, features: Features) -> (Vec<u8>, u32) {
        let mut out = Vec::new();
        encode_versioned(&mut out, 8, 7, |out| {
            encode_versioned(out, 9, 1, |out| self.encode_client(out, features));
            let version = match (self.range_blocklist.is_empty(), self.stretch_mode.enabled) {
                (false, _) => 11,
                (true, true) => 10,
                (true, false) => 9,
            };
            encode_versioned(out, version, 1, |out| self.encode_osd(out, version, features));
            out.extend_from_slice(&[0; 4]);
        });
        let hole = out.len() - 4;
        let crc = crc::fill(&mut out, hole);
        (out, crc)
    }

    /// Decodes without looking at the checksum.
    #[doc(hidden)]
    pub fn from_bytes_unchecked(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode_map(&mut Reader::new(bytes)).map(|(map, _)| map)
    }

    fn encode_client(&self, out: &mut Vec<u8>, f: Features) {
        self.fsid.encode(out, f);
        self.epoch.encode(out, f);
        self.created.encode(out, f);
        self.modified.encode(out, f);
        self.pools.encode(out, f);
        self.pool_names.encode(out, f);
        self.pool_max.encode(out, f);
        self.flags.encode(out, f);
        self.max_osd().encode(out, f);
        self.each_osd(out, f, |osd| &osd.state);
        self.each_osd(out, f, |osd| &osd.weight);
        self.each_osd(out, f, |osd| &osd.client_addrs);
        self.pg_temp.encode(out, f);
        self.primary_temp.encode(out, f);
        self.primary_affinity.encode(out, f);
        self.crush.to_bytes(f).encode(out, f);
        self.erasure_code_profiles.encode(out, f);
        self.pg_upmap.encode(out, f);
        self.pg_upmap_items.encode(out, f);
        self.crush_version.encode(out, f);
        self.new_removed_snaps.encode(out, f);
        self.new_purged_snaps.encode(out, f);
        self.last_up_change.encode(out, f);
        self.last_in_change.encode(out, f);
    }

    fn encode_osd(&self, out: &mut Vec<u8>, version: u8, f: Features) {
        self.each_osd(out, f, |osd| &osd.hb_back_addrs);
        self.each_osd(out, f, |osd| &osd.info);
        encode_blocklist(&self.blocklist, out, f);
        self.each_osd(out, f, |osd| &osd.cluster_addrs);
        self.cluster_snapshot_epoch.encode(out, f);
        self.cluster_snapshot.encode(out, f);
        self.each_osd(out, f, |osd| &osd.uuid);
        self.each_osd(out, f, |osd| &osd.xinfo);
        self.each_osd(out, f, |osd| &osd.hb_front_addrs);
        for ratio in [self.nearfull_ratio, self.full_ratio, self.backfillfull_ratio] {
            ratio.to_bits().encode(out, f);
        }
        self.require_min_compat_client.encode(out, f);
        self.require_osd_release.encode(out, f);
        self.removed_snaps_queue.encode(out, f);
        self.crush_node_flags.encode(out, f);
        self.device_class_flags.encode(out, f);
        if version >= 10 {
            self.stretch_mode.encode(out, f);
        }
        if version >= 11 {
            encode_blocklist(&self.range_blocklist, out, f);
        }
    }

    /// One field of every OSD, as a vector.
    fn each_osd<T: Encode>(&self, out: &mut Vec<u8>, f: Features, field: impl Fn(&Osd) -> &T) {
        (self.osds.len() as u32).encode(out, f);
        self.osds.iter().for_each(|osd| field(osd).encode(out, f));
    }

    fn decode_client(&mut self, r: &mut Reader<'_>) -> Result<(), DecodeError> {
        self.fsid = Decode::decode(r)?;
        self.epoch = r.u32()?;
        self.created = Decode::decode(r)?;
        self.modified = Decode::decode(r)?;
        self.pools = Decode::decode(r)?;
        self.pool_names = Decode::decode(r)?;
        self.pool_max = r.i32()?;
        self.flags = r.u32()?;
        let max_osd = r.u32()? as usize;
        let states = Vec::<u32>::decode(r)?;
        if states.len() != max_osd || max_osd > OSDS_MAX {
            return Err(DecodeError::Invalid { what: "max_osd", value: max_osd as u64 });
        }
        self.osds = states.into_iter().map(|state| Osd { state, ..Osd::default() }).collect();
        self.set_each(r, |osd, weight: u32| osd.weight = weight)?;
        self.set_each(r, |osd, addrs: EntityAddrVec| osd.client_addrs = addrs)?;
        self.pg_temp = Decode::decode(r)?;
        self.primary_temp = Decode::decode(r)?;
        self.primary_affinity = Decode::decode(r)?;
        self.crush = Arc::new(CrushMap::from_bytes(r.blob("crush map")?)?);
        self.erasure_code_profiles = Decode::decode(r)?;
        self.pg_upmap = Decode::decode(r)?;
        self.pg_upmap_items = Decode::decode(r)?;
        self.crush_version = r.u32()?;
        self.new_removed_snaps = Decode::decode(r)?;
        self.new_purged_snaps = Decode::decode(r)?;
        self.last_up_change = Decode::decode(r)?;
        self.last_in_change = Decode::decode(r)?;
        Ok(())
    }

    fn decode_osd(&mut self, version: u8, r: &mut Reader<'_>) -> Result<(), DecodeError> {
        self.set_each(r, |osd, addrs: EntityAddrVec| osd.hb_back_addrs = addrs)?;
        self.set_each(r, |osd, info: OsdInfo| osd.info = info)?;
        self.blocklist = Decode::decode(r)?;
        self.set_each(r, |osd, addrs: EntityAddrVec| osd.cluster_addrs = addrs)?;
        self.cluster_snapshot_epoch = r.u32()?;
        self.cluster_snapshot = Decode::decode(r)?;
        self.set_each(r, |osd, uuid: Uuid| osd.uuid = uuid)?;
        self.set_each(r, |osd, xinfo: OsdXInfo| osd.xinfo = xinfo)?;
        self.set_each(r, |osd, addrs: EntityAddrVec| osd.hb_front_addrs = addrs)?;
        self.nearfull_ratio = f32::from_bits(r.u32()?);
        self.full_ratio = f32::from_bits(r.u32()?);
        self.backfillfull_ratio = f32::from_bits(r.u32()?);
        self.require_min_compat_client = Decode::decode(r)?;
        self.require_osd_release = Decode::decode(r)?;
        self.removed_snaps_queue = Decode::decode(r)?;
        self.crush_node_flags = Decode::decode(r)?;
        self.device_class_flags = Decode::decode(r)?;
        if version >= 10 {
            self.stretch_mode = Decode::decode(r)?;
        }
        if version >= 11 {
            self.range_blocklist = Decode::decode(r)?;
        }
        Ok(())
    }

    /// Reads a vector of one field of every OSD.
    fn set_each<T: Decode>(
        &mut self,
        r: &mut Reader<'_>,
        set: impl Fn(&mut Osd, T),
    ) -> Result<(), DecodeError> {
        let count = r.count(T::MIN_SIZE, "osd fields")?;
        if count != self.osds.len() {
            return Err(DecodeError::Invalid { what: "osd fields", value: count as u64 });
        }
        self.osds.iter_mut().try_for_each(|osd| {
            set(osd, T::decode(r)?);
            Ok(())
        })
    }
}

impl Encode for OsdMap {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        out.extend_from_slice(&self.encode_with_crc(f).0);
    }
}

impl Decode for OsdMap {
    const MIN_SIZE: usize = 6;

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let start = r.peek();
        let (map, hole) = decode_map(r)?;
        crc::check(&start[..start.len() - r.remaining()], hole, "osdmap checksum")?;
        Ok(map)
    }
}

/// Decodes a map; returns also where its checksum is.
fn decode_map(r: &mut Reader<'_>) -> Result<(OsdMap, usize), DecodeError> {
    let (mut map, hole) = r.versioned("osdmap", 8, |version, r| {
        oldest("osdmap", version, 8)?;
        // The envelope's own six bytes are in front of what `r` sees.
        let length = r.remaining() + 6;
        let mut map = OsdMap::default();
        r.versioned("osdmap client section", 9, |version, r| {
            oldest("osdmap client section", version, 9)?;
            map.decode_client(r)
        })?;
        r.versioned("osdmap osd section", 11, |version, r| {
            oldest("osdmap osd section", version, 9)?;
            map.decode_osd(version, r)
        })?;
        let hole = length - r.remaining();
        map.crc = Some(r.u32()?);
        Ok((map, hole))
    })?;
    if !map.stretch_mode.enabled {
        map.stretch_mode = super::StretchMode::default();
    }
    Ok((map, hole))
}

pub(crate) fn oldest(what: &'static str, version: u8, oldest: u8) -> Result<(), DecodeError> {
    if version < oldest {
        return Err(DecodeError::TooOld { what, version, oldest });
    }
    Ok(())
}

/// In the order of Ceph's map, which compares addresses by their bytes in memory.
pub(crate) fn encode_blocklist(
    blocklist: &BTreeMap<EntityAddr, UTime>,
    out: &mut Vec<u8>,
    f: Features,
) {
    let mut entries: Vec<_> = blocklist.iter().collect();
    entries.sort_by_key(|(addr, _)| addr.memory_order());
    (entries.len() as u32).encode(out, f);
    for (addr, until) in entries {
        addr.encode(out, f);
        until.encode(out, f);
    }
}
