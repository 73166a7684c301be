//! The options that daemons know against those of the cluster.

#[test]
fn daemons_have_one_word_for_changed_levels() {
    assert_eq!(spirula_osd::target::LOG_LEVELS, spirula_mon::LOG_LEVELS);
}

fn acts(option: &spirula_mon::options::Opt, who: &str) -> bool {
    option.acts.split(',').any(|each| each == who)
}

/// The monitor describes what an OSD acts on, with the OSD's own defaults.
#[test]
fn an_osd_s_options_are_the_cluster_s() {
    for option in spirula_osd::options::OPTIONS {
        let known = spirula_mon::options::find(option.name).expect(option.name);
        let log = option.name.starts_with("debug_");
        assert!(acts(known, if log { "log" } else { "osd" }), "{}", option.name);
        assert_eq!(known.default_in_daemons(), option.default, "{}", option.name);
    }
}

/// And what it says that OSDs act on, they know; devices are chosen before there is one.
#[test]
fn what_osds_act_on_they_know() {
    for option in spirula_mon::options::all().iter().filter(|option| acts(option, "osd")) {
        let device = ["bluestore_block_db_path", "bluestore_block_wal_path"].contains(&option.name);
        assert_ne!(device, spirula_osd::options::info(option.name).is_some(), "{}", option.name);
    }
}
