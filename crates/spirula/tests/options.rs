//! The options that daemons know against those of the cluster.

#[test]
fn daemons_have_one_word_for_changed_levels() {
    assert_eq!(spirula_osd::target::LOG_LEVELS, spirula_mon::LOG_LEVELS);
}

/// The monitor describes what an OSD acts on, with the OSD's own defaults.
#[test]
fn an_osd_s_options_are_the_cluster_s() {
    for option in spirula_osd::options::OPTIONS {
        let known = spirula_mon::options::find(option.name).expect(option.name);
        assert!(known.acts, "{}", option.name);
        assert_eq!(known.default_in_daemons(), option.default, "{}", option.name);
    }
}
