//! Values and errors against what the monitor of 16.2.15 answered to `config set`.

use crate::options::find;

const MEASURED: &str = include_str!("measured.tsv");

#[test]
fn values_are_taken_and_refused_as_by_ceph() {
    let mut wrong = Vec::new();
    for line in MEASURED.lines().filter(|line| !line.starts_with('#')) {
        let [name, given, errno, text] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line:?}");
        };
        let got = match find(name).unwrap().normalize(given) {
            Ok(stored) => (0, stored.trim().to_owned()),
            Err(invalid) => (invalid.errno, invalid.text),
        };
        if got != (errno.parse().unwrap(), text.to_owned()) {
            wrong.push(format!("{line:?}: {got:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Where text as lax as Ceph takes it would only hide a mistake, or become one.
#[test]
fn what_is_stored_is_well_formed() {
    for (name, given, want) in [
        ("debug_ms", "1/2x", Some("1/2")),
        ("debug_ms", "01/05", Some("1/5")),
        ("public_addr", "1.2.3.4:5/x", None),
        ("public_addrv", "1.2.3.4,1.2.3.5", None),
        ("client_mount_timeout", "9223372036854775807y", None),
    ] {
        let got = find(name).unwrap().normalize(given).ok();
        assert_eq!(got.as_deref(), want, "{name} = {given}");
    }
}
