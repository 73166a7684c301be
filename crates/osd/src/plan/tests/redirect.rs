//! Redirects: what stays with the object, what goes on, and what has to be done elsewhere first.

use spirula_wire::types::ObjectLocator;

use super::*;
use crate::object::Redirect;

fn target() -> HObject {
    HObject { oid: "target".into(), hash: 7, pool: 2, snap: SnapId::HEAD, ..HObject::default() }
}

fn redirect(referenced: bool) -> Model {
    let mut m = Model::of("hello");
    let redirect = Redirect { target: target(), referenced };
    let info = m.info.take().unwrap();
    m.info = Some(ObjectInfo { size: 0, redirect: Some(Box::new(redirect)), ..info });
    m.data.clear();
    m
}

fn set_redirect(version: u64, flags: u32) -> OsdOp {
    let mut input = "target".to_owned().to_bytes(F);
    ObjectLocator { pool: 2, ..ObjectLocator::default() }.encode(&mut input, F);
    let args = OpArgs::CopyFrom {
        snapid: SnapId::HEAD,
        src_version: version,
        flags: 0,
        src_fadvise_flags: 0,
    };
    OsdOp { flags, ..OsdOp::new(OpCode::SET_REDIRECT, args, input.into()) }
}

#[test]
fn requests_go_on_unless_they_are_about_the_redirect() {
    let stat = plain(OpCode::STAT);
    for (ops, ignores, ordered, size, goes_on) in [
        (vec![stat.clone()], false, false, 0, true),
        (vec![write(0, "x")], false, false, 0, true),
        (vec![stat.clone()], true, false, 0, false),
        (vec![stat.clone()], false, false, 5, false),
        (vec![stat.clone()], false, true, 5, true),
        (vec![write(0, "x")], false, false, 5, true),
        (vec![stat, plain(OpCode::UNSET_MANIFEST)], false, false, 0, false),
        (vec![plain(OpCode::TIER_FLUSH)], false, false, 0, false),
    ] {
        let mut m = redirect(false);
        m.info.as_mut().unwrap().size = size;
        let request = Request {
            ops: &ops,
            may_write: OpClass::of(&ops).writes,
            ignores_redirects: ignores,
            ordered,
            ..Request::default()
        };
        let Ok(done) = execute(&request, &m);
        let want = goes_on.then(|| Errand::Forward(target()));
        assert_eq!(done.errand, want, "{ops:?} {ignores} {ordered} {size}");
        assert!(!goes_on || done.change.is_none());
    }
}

#[test]
fn a_redirect_is_set_when_its_target_is_reached() {
    for (flags, referenced) in [(0, false), (op_flag::WITH_REFERENCE, true)] {
        let mut m = Model::of("hello");
        m.run(&[set_xattr("a", "1"), with_input(OpCode::OMAP_SET_HEADER, b"head")]);
        let ops = [set_redirect(9, flags)];
        let first = m.run(&ops);
        let Some(Errand::Reach { op: 0, counted, .. }) = first.errand else {
            panic!("{first:?}");
        };
        assert_eq!((counted, first.change), (referenced, None));
        for (reached, result) in [(Err(-ENOENT), -ENOENT), (Ok(target()), 0)] {
            let reached = [(0, reached)];
            let request =
                Request { ops: &ops, may_write: true, reached: &reached, ..Request::default() };
            let Ok(done) = execute(&request, &m);
            assert_eq!((done.result, done.errand), (result, None));
            let Some(change) = done.change else { continue };
            assert_eq!((change.copied_version, change.user_modify), (Some(9), false));
            assert_eq!(change.effects, [Effect::Truncate(0), Effect::ClearOmap]);
            let info = change.info.unwrap();
            assert_eq!((info.size, info.omap), (0, false));
            assert_eq!(info.redirect, Some(Box::new(Redirect { target: target(), referenced })));
        }
    }
    assert_eq!(redirect(true).run(&[set_redirect(0, 0)]).result, -EINVAL);
}

#[test]
fn a_reference_is_given_back_with_the_redirect() {
    for (op, ignores) in [(OpCode::UNSET_MANIFEST, false), (OpCode::DELETE, true)] {
        for referenced in [false, true] {
            let ops = [plain(op)];
            let request = Request {
                ops: &ops,
                may_write: true,
                ignores_redirects: ignores,
                ..Request::default()
            };
            let Ok(done) = execute(&request, &redirect(referenced));
            let change = done.change.unwrap();
            assert_eq!(change.info.and_then(|info| info.redirect), None);
            assert_eq!(change.released.len(), usize::from(referenced), "{op}");
        }
    }
}

#[test]
fn a_promotion_takes_the_content_and_keeps_xattrs() {
    let ops = [plain(OpCode::TIER_PROMOTE)];
    let source = Source {
        info: ObjectInfo { size: 3, user_version: 9, ..ObjectInfo::default() },
        xattrs: vec![("t".into(), "2".into())],
        omap_header: Bytes::new(),
        omap: Vec::new(),
        data: SourceData::Bytes(vec![(0, "new".into())]),
    };
    let mut m = redirect(true);
    m.xattrs.insert("a".into(), "1".into());
    assert_eq!(m.run(&ops).errand, Some(Errand::Fetch { op: 0, target: target() }));
    for (found, result, exists) in
        [(Err(-EIO), -EIO, false), (Err(-ENOENT), 0, false), (Ok(source), 0, true)]
    {
        let sources = [(0, found)];
        let request =
            Request { ops: &ops, may_write: true, sources: &sources, ..Request::default() };
        let Ok(done) = execute(&request, &m);
        assert_eq!((done.result, done.errand), (result, None));
        let Some(change) = done.change else { continue };
        assert_eq!((change.released.len(), change.info.is_some()), (1, exists));
        if let Some(info) = change.info {
            assert_eq!((info.size, info.redirect, change.copied_version), (3, None, Some(9)));
            change.effects.iter().for_each(|effect| m.apply(effect));
            assert_eq!((&m.data[..], m.xattrs.len()), (&b"new"[..], 2));
        }
    }
}
