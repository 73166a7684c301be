//! MDS capabilities, as far as `ceph auth` has to check them: there is no MDS here to enforce them.

use crate::caps::CapError;
use crate::caps::scan::{self, Scan, Space, stopped};

/// Accepts what Ceph's MDS would parse.
pub fn check_mds_caps(text: &str) -> Result<(), CapError> {
    let mut s = Scan::new(text, Space::Ascii);
    s.skip_spaces();
    let separated = |s: &mut Scan<'_>| {
        s.skip_blanks(true);
        s.lit(";").or_else(|| s.lit(","))?;
        s.skip_blanks(true);
        Some(())
    };
    let grants = scan::grants(&mut s, separated, grant);
    s.skip_spaces();
    if grants.is_empty() || !s.rest().is_empty() {
        return Err(stopped("mds", s.rest(), text));
    }
    Ok(())
}

fn grant(s: &mut Scan<'_>) -> Option<()> {
    s.lit("allow")?;
    let spec = s.attempt(|s| {
        s.spaces()?;
        if s.lit("*").or_else(|| s.lit("all")).is_some() {
            return Some(());
        }
        s.lit("r")?;
        for letter in ["w", "f", "p", "s"] {
            s.lit(letter);
        }
        Some(())
    });
    if spec.is_none() && !s.rest().is_empty() && !s.rest().trim_start().starts_with([',', ';']) {
        return None;
    }
    for option in ["path", "fsname", "uid", "gids"] {
        s.attempt(|s| {
            s.spaces()?;
            s.lit(option)?;
            s.lit("=")?;
            s.take_while(|c| !c.is_whitespace() && c != ',' && c != ';').map(drop)
        });
    }
    s.attempt(|s| {
        s.spaces()?;
        s.lit("root_squash")
    });
    s.network();
    Some(())
}
