//! The superblock: whose device this is, and where its regions lie. Two equal copies, written at format.
//!
//! Invariant: a device whose incompatible feature bits or version we do not know is refused, never
//! touched.

use std::fmt;

/// Granularity of everything on a device.
pub const BLOCK: u64 = 4096;
/// Size of one copy.
pub const SUPERBLOCK_LEN: usize = 4096;
/// Byte offsets of the copies.
pub const SUPERBLOCK_OFFSETS: [u64; 2] = [0, BLOCK];
/// Byte offsets of the two root records.
pub const ROOT_OFFSETS: [u64; 2] = [2 * BLOCK, 3 * BLOCK];
/// Byte offset of the WAL region.
pub const WAL_OFFSET: u64 = 64 << 10;
/// The version this program reads and writes.
pub const VERSION: u32 = 4;
/// Smallest device.
pub const DEVICE_BYTES_MIN: u64 = 16 << 20;
/// Smallest and largest WAL region.
pub const WAL_BYTES: (u64, u64) = (1 << 20, 64 << 20);

const MAGIC: [u8; 8] = *b"SPIRULA\0";
/// The store is on several devices.
const FEATURE_SET: u64 = 1;
/// Feature bits that a reader must know.
const KNOWN_INCOMPATIBLE: u64 = FEATURE_SET;
/// Blocks in the unit in which the allocator takes space: the pages' device begins at a multiple.
const CHUNK_BLOCKS: u64 = 256;
/// Largest device, so that block numbers can be added.
const DEVICE_BYTES_MAX: u64 = 1 << 56;

/// What a device is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Role {
    /// Data, and whatever has no device of its own.
    #[default]
    Main,
    /// The WAL.
    Wal,
    /// Metadata pages.
    Meta,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Main => "data",
            Role::Wal => "WAL",
            Role::Meta => "metadata",
        })
    }
}

/// The devices of a store, as each of their superblocks has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DeviceSet {
    /// Of the set; zero for a single device.
    pub uuid: [u8; 16],
    /// What this device is for.
    pub role: Role,
    /// The WAL is on a device of its own.
    pub wal: bool,
    /// Bytes of the device for pages, 0 if there is none.
    pub meta_bytes: u64,
}

impl DeviceSet {
    /// Whether the set has a device of this role.
    pub fn has(&self, role: Role) -> bool {
        match role {
            Role::Main => true,
            Role::Wal => self.wal,
            Role::Meta => self.meta_bytes > 0,
        }
    }
}

/// Whose device it is, and its regions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Superblock {
    /// Cluster.
    pub fsid: [u8; 16],
    /// OSD.
    pub osd_uuid: [u8; 16],
    /// OSD id; negative while none is assigned.
    pub osd_id: i32,
    /// Features that do not keep an older program from reading.
    pub compatible: u64,
    /// Bytes of the device in use.
    pub device_bytes: u64,
    /// Bytes of the WAL region.
    pub wal_bytes: u64,
    /// The devices of the store.
    pub set: DeviceSet,
}

/// Where the regions lie, in blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Bytes of the WAL.
    pub wal_bytes: u64,
    /// First block for pages and data.
    pub first_block: u64,
    /// The block after the last, that of the pages' device if there is one.
    pub end_block: u64,
    /// With a device for pages: the block after the last for data, and the first on that device.
    pub pages: Option<(u64, u64)>,
}

impl Layout {
    /// The byte at which the pages' device begins.
    pub fn meta_from(&self) -> u64 {
        self.pages.map_or(u64::MAX, |(_, first)| first * BLOCK - WAL_OFFSET)
    }
}

/// Why a block is not a superblock we can use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SuperblockError {
    /// Something else is there.
    #[error("not a Spirula device")]
    NotOurs,
    /// It is one of ours, damaged.
    #[error("the superblock is damaged")]
    Damaged,
    /// Written by a program that is too new or too old.
    #[error("format version {found}, features {features:#x}; this program reads version {VERSION}")]
    Version {
        /// Version found.
        found: u32,
        /// Unknown incompatible feature bits.
        features: u64,
    },
}

impl Superblock {
    /// The block to be written.
    pub fn encode(&self) -> [u8; SUPERBLOCK_LEN] {
        let mut out = [0; SUPERBLOCK_LEN];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&MAGIC);
        put(&VERSION.to_le_bytes());
        put(&self.osd_id.to_le_bytes());
        put(&self.compatible.to_le_bytes());
        let features = if self.set == DeviceSet::default() { 0 } else { FEATURE_SET };
        put(&features.to_le_bytes());
        put(&self.fsid);
        put(&self.osd_uuid);
        put(&self.device_bytes.to_le_bytes());
        put(&self.wal_bytes.to_le_bytes());
        put(&[self.set.role as u8, u8::from(self.set.wal), 0, 0, 0, 0, 0, 0]);
        put(&self.set.uuid);
        put(&self.set.meta_bytes.to_le_bytes());
        let crc = crc32c::crc32c(&out[..SUPERBLOCK_LEN - 4]);
        out[SUPERBLOCK_LEN - 4..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads one copy.
    pub fn decode(bytes: &[u8]) -> Result<Superblock, SuperblockError> {
        if !bytes.starts_with(&MAGIC) {
            return Err(SuperblockError::NotOurs);
        }
        let block = bytes.get(..SUPERBLOCK_LEN).ok_or(SuperblockError::Damaged)?;
        let (body, crc) = block.split_at(SUPERBLOCK_LEN - 4);
        if crc != crc32c::crc32c(body).to_le_bytes() {
            return Err(SuperblockError::Damaged);
        }
        let u32_at = |at| u32::from_le_bytes(array(body, at));
        let u64_at = |at| u64::from_le_bytes(array(body, at));
        let (found, incompatible) = (u32_at(8), u64_at(24));
        let features = incompatible & !KNOWN_INCOMPATIBLE;
        if found != VERSION || features != 0 {
            return Err(SuperblockError::Version { found, features });
        }
        let sb = Superblock {
            osd_id: u32_at(12) as i32,
            compatible: u64_at(16),
            fsid: array(body, 32),
            osd_uuid: array(body, 48),
            device_bytes: u64_at(64),
            wal_bytes: u64_at(72),
            set: DeviceSet {
                role: match body[80] {
                    0 => Role::Main,
                    1 => Role::Wal,
                    2 => Role::Meta,
                    _ => return Err(SuperblockError::Damaged),
                },
                wal: body[81] != 0,
                uuid: array(body, 88),
                meta_bytes: u64_at(104),
            },
        };
        if sb.is_sound() { Ok(sb) } else { Err(SuperblockError::Damaged) }
    }

    fn is_sound(&self) -> bool {
        let wal_max = match (self.set.role, self.set.wal) {
            (Role::Wal, _) => self.device_bytes - WAL_OFFSET.min(self.device_bytes),
            (_, true) => DEVICE_BYTES_MAX,
            (_, false) => self.device_bytes / 2,
        };
        let meta = self.set.meta_bytes;
        (DEVICE_BYTES_MIN..=DEVICE_BYTES_MAX).contains(&self.device_bytes)
            && self.wal_bytes.is_multiple_of(BLOCK)
            && (WAL_BYTES.0..=wal_max).contains(&self.wal_bytes)
            && (meta == 0 || (DEVICE_BYTES_MIN..=DEVICE_BYTES_MAX).contains(&meta))
    }

    /// Where the regions lie.
    pub fn layout(&self) -> Layout {
        let wal_here = if self.set.wal { 0 } else { self.wal_bytes };
        let data_end = self.device_bytes / BLOCK;
        // A chunk between the two belongs to neither: no request crosses.
        let meta_from = (data_end.div_ceil(CHUNK_BLOCKS) + 1) * CHUNK_BLOCKS;
        let meta = self.set.meta_bytes / BLOCK;
        Layout {
            wal_bytes: self.wal_bytes,
            first_block: (WAL_OFFSET + wal_here).div_ceil(2 * BLOCK) * 2,
            end_block: if meta > 0 { meta_from + meta } else { data_end },
            pages: (meta > 0).then_some((data_end, meta_from + WAL_OFFSET / BLOCK)),
        }
    }
}

/// The WAL size for a device, unless the caller has a wish.
pub fn default_wal_bytes(device_bytes: u64) -> u64 {
    (device_bytes / 16).clamp(WAL_BYTES.0, WAL_BYTES.1) / BLOCK * BLOCK
}

/// A cluster or OSD id as people write it.
pub struct UuidText(pub [u8; 16]);

impl fmt::Display for UuidText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            let dash = if matches!(i, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

fn array<const N: usize>(body: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&body[at..at + N]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_refusals() {
        let sb = Superblock {
            fsid: [1; 16],
            osd_uuid: [2; 16],
            osd_id: 7,
            compatible: 0,
            device_bytes: 1 << 30,
            wal_bytes: 8 << 20,
            set: DeviceSet::default(),
        };
        let bytes = sb.encode();
        assert_eq!(Superblock::decode(&bytes), Ok(sb.clone()));
        assert_eq!((sb.layout().pages, bytes[24]), (None, 0), "as before there were sets");
        let set = DeviceSet { uuid: [9; 16], role: Role::Main, wal: true, meta_bytes: 64 << 20 };
        let sb = Superblock { set, wal_bytes: 600 << 20, ..sb };
        assert_eq!(Superblock::decode(&sb.encode()), Ok(sb.clone()));
        let Layout { first_block, end_block, pages, .. } = sb.layout();
        let data_end = (1 << 30) / BLOCK;
        assert_eq!((first_block, pages), (16, Some((data_end, data_end + 256 + 16))));
        assert_eq!(end_block, data_end + 256 + (64 << 20) / BLOCK);
        assert_eq!(sb.layout().meta_from(), (data_end + 256) * BLOCK);
        assert_eq!(Superblock::decode(&[0; 4096]), Err(SuperblockError::NotOurs));
        let mut other = bytes;
        other[40] ^= 1;
        assert_eq!(Superblock::decode(&other), Err(SuperblockError::Damaged));
        let mut newer = bytes;
        newer[8] = 9;
        let crc = crc32c::crc32c(&newer[..SUPERBLOCK_LEN - 4]).to_le_bytes();
        newer[SUPERBLOCK_LEN - 4..].copy_from_slice(&crc);
        let refused = SuperblockError::Version { found: 9, features: 0 };
        assert_eq!(Superblock::decode(&newer), Err(refused));
    }
}
