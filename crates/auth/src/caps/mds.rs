//! MDS capabilities, as far as `ceph auth` has to check them: there is no MDS here to enforce them.

use crate::caps::CapError;
use crate::caps::scan::{self, Scan, Space, stopped};

/// The permissions that the grammar knows; where one begins another, the longer comes first.
const PERMISSIONS: [&str; 11] =
    ["*", "all", "rwfps", "rwps", "rwfp", "rwfs", "rwp", "rws", "rwf", "rw", "r"];

/// Accepts what Ceph's MDS would parse.
pub fn check_mds_caps(text: &str) -> Result<(), CapError> {
    // The spelling of old keyrings.
    if text == "allow" {
        return Ok(());
    }
    let mut s = Scan::new(text, Space::Plain);
    s.skip(Space::Ascii);
    let separated = |s: &mut Scan<'_>| {
        s.skip_blanks(false);
        s.lit(";").or_else(|| s.lit(","))?;
        s.skip_blanks(false);
        Some(())
    };
    let grants = scan::grants(&mut s, separated, grant);
    if grants.is_empty() {
        return Err(stopped("mds", s.rest(), text));
    }
    s.skip(Space::Ascii);
    if s.rest().is_empty() { Ok(()) } else { Err(stopped("mds", s.rest(), text)) }
}

fn grant(s: &mut Scan<'_>) -> Option<()> {
    s.lit("allow")?;
    s.spaces()?;
    PERMISSIONS.into_iter().find_map(|spec| s.lit(spec))?;
    scope(s);
    s.network();
    Some(())
}

/// What a grant is limited to, if anything. A file system goes together with a path and
/// `root_squash`, a user with a path only.
fn scope(s: &mut Scan<'_>) {
    s.attempt(|s| {
        fs_name(s);
        path(s)?;
        root_squash(s)
    })
    .or_else(|| user(s))
    .or_else(|| {
        s.attempt(|s| {
            path(s)?;
            user(s)
        })
    })
    .or_else(|| {
        s.attempt(|s| {
            fs_name(s);
            path(s)
        })
    })
    .or_else(|| {
        s.attempt(|s| {
            fs_name(s);
            root_squash(s)
        })
    })
    .or_else(|| fs_name(s));
}

/// An option and its `=`.
fn option(s: &mut Scan<'_>, name: &str) -> Option<()> {
    s.spaces()?;
    s.lit(name)?;
    s.lit("=")
}

fn path(s: &mut Scan<'_>) -> Option<()> {
    s.attempt(|s| {
        option(s, "path")?;
        s.word_or_empty().map(drop)
    })
}

fn fs_name(s: &mut Scan<'_>) -> Option<()> {
    s.attempt(|s| {
        option(s, "fsname")?;
        s.take_while(|c| c.is_ascii_alphanumeric() || "_.-".contains(c)).map(drop)
    })
}

fn root_squash(s: &mut Scan<'_>) -> Option<()> {
    s.attempt(|s| {
        s.spaces()?;
        s.lit("root_squash")
    })
}

/// A user, and its groups if they matter.
fn user(s: &mut Scan<'_>) -> Option<()> {
    s.attempt(|s| {
        option(s, "uid")?;
        number(s)
    })?;
    s.attempt(|s| {
        option(s, "gids")?;
        number(s)?;
        while s.attempt(|s| s.lit(",").and_then(|()| number(s))).is_some() {}
        Some(())
    });
    Some(())
}

/// An id of 32 bits.
fn number(s: &mut Scan<'_>) -> Option<()> {
    let digits = s.take_while(|c| c.is_ascii_digit())?;
    digits.parse::<u32>().ok().map(drop)
}
