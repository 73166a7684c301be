//! Ceph releases by number, as maps carry them.

use std::fmt;

use spirula_wire::Denc;

/// `ceph_release_t`: one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Denc)]
pub struct Release(pub u8);

impl Release {
    pub const UNKNOWN: Self = Self(0);
    pub const JEWEL: Self = Self(10);
    pub const LUMINOUS: Self = Self(12);
    pub const MIMIC: Self = Self(13);
    pub const NAUTILUS: Self = Self(14);
    pub const OCTOPUS: Self = Self(15);
    pub const PACIFIC: Self = Self(16);
    /// In an incremental: no change.
    pub const UNCHANGED: Self = Self(0xff);

    const NAMES: [&'static str; 18] = [
        "unknown",
        "argonaut",
        "bobtail",
        "cuttlefish",
        "dumpling",
        "emperor",
        "firefly",
        "giant",
        "hammer",
        "infernalis",
        "jewel",
        "kraken",
        "luminous",
        "mimic",
        "nautilus",
        "octopus",
        "pacific",
        "quincy",
    ];

    pub fn name(self) -> &'static str {
        Self::NAMES.get(usize::from(self.0)).copied().unwrap_or("unknown")
    }

    pub fn from_name(name: &str) -> Option<Self> {
        let at = Self::NAMES.iter().position(|&n| n == name).filter(|&at| at > 0)?;
        u8::try_from(at).ok().map(Self)
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
