//! Making and removing placement rules.
//!
//! Invariant: a rule's ruleset number is its id, as since Luminous.

use crate::edit::{EditError, check_name};
use crate::map::{CrushMap, Rule, RuleMask, Step, StepOp};

/// `type` of the rule mask, and of the pools that use it.
pub const RULE_TYPE_REPLICATED: u8 = 1;
pub const RULE_TYPE_ERASURE: u8 = 3;

/// There are ids for this many rules.
const RULES_MAX: usize = 256;

/// How a rule fills the places of its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleMode {
    /// Whoever comes is next (replicated pools).
    Firstn,
    /// Each place is filled by itself (erasure-coded pools).
    Indep,
}

impl CrushMap {
    /// Adds a rule that spreads copies over buckets of `failure_domain` below `root`, one device in
    /// each, of `class` only if that is given. Returns its id.
    pub fn add_simple_rule(
        &mut self,
        name: &str,
        root: &str,
        failure_domain: &str,
        class: Option<&str>,
        mode: RuleMode,
    ) -> Result<u32, EditError> {
        check_name(name)?;
        if self.rule_by_name(name).is_some() {
            return Err(EditError::Exists(name.to_owned()));
        }
        let missing = |what: &str| EditError::NotFound(what.to_owned());
        let mut take = self.item_by_name(root).ok_or_else(|| missing(root))?;
        let type_ = self.type_by_name(failure_domain).ok_or_else(|| missing(failure_domain))?;
        if let Some(class) = class {
            let id = self.class_by_name(class).ok_or_else(|| missing(class))?;
            let shadow = self.class_buckets.get(&take).and_then(|shadows| shadows.get(&id));
            take = *shadow.ok_or_else(|| missing(class))?;
        }
        let mut steps = Vec::new();
        let firstn = mode == RuleMode::Firstn;
        if !firstn {
            steps.push(Step::new(StepOp::SetChooseleafTries, 5, 0));
            steps.push(Step::new(StepOp::SetChooseTries, 100, 0));
        }
        let choose = match (firstn, type_) {
            (true, 0) => StepOp::ChooseFirstn,
            (true, _) => StepOp::ChooseleafFirstn,
            (false, 0) => StepOp::ChooseIndep,
            (false, _) => StepOp::ChooseleafIndep,
        };
        steps.push(Step::new(StepOp::Take, take, 0));
        steps.push(Step::new(choose, 0, type_));
        steps.push(Step::new(StepOp::Emit, 0, 0));
        let (type_, min_size, max_size) =
            if firstn { (RULE_TYPE_REPLICATED, 1, 10) } else { (RULE_TYPE_ERASURE, 3, 20) };
        self.add_rule(name, RuleMask { ruleset: 0, type_, min_size, max_size }, steps)
    }

    /// Adds a rule under the lowest free id, which also becomes its ruleset.
    pub fn add_rule(
        &mut self,
        name: &str,
        mask: RuleMask,
        steps: Vec<Step>,
    ) -> Result<u32, EditError> {
        check_name(name)?;
        let has_ruleset =
            |id: usize| self.rules.iter().flatten().any(|r| usize::from(r.mask.ruleset) == id);
        let is_free =
            |&id: &usize| !matches!(self.rules.get(id), Some(Some(_))) && !has_ruleset(id);
        let id = (0..RULES_MAX).find(is_free).ok_or(EditError::NoSpace)?;
        let mask = RuleMask { ruleset: id as u8, ..mask };
        if id >= self.rules.len() {
            self.rules.resize(id + 1, None);
        }
        self.rules[id] = Some(Rule { mask, steps });
        self.rule_names.insert(id as i32, name.to_owned());
        Ok(id as u32)
    }

    /// Removes a rule; whether a pool uses it is the caller's to know.
    pub fn remove_rule(&mut self, name: &str) -> Result<(), EditError> {
        let id = self.rule_by_name(name).ok_or_else(|| EditError::NotFound(name.to_owned()))?;
        self.rules[id as usize] = None;
        self.rule_names.remove(&(id as i32));
        self.rebuild_classes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edit::Location;

    #[test]
    fn a_class_rule_places_on_that_class_only() {
        let mut map = CrushMap::new();
        map.add_bucket("default", "root").unwrap();
        for osd in 0..6 {
            let at: Location =
                [("host".into(), format!("h{}", osd / 2)), ("root".into(), "default".into())]
                    .into();
            map.insert_item(osd, 0x10000, &format!("osd.{osd}"), &at).unwrap();
            map.set_device_class(osd, ["hdd", "ssd"][osd as usize % 2]).unwrap();
        }
        let rule =
            map.add_simple_rule("fast", "default", "host", Some("ssd"), RuleMode::Firstn).unwrap();
        for x in 0..100 {
            let osds = map.do_rule(rule, x, 3, &[0x10000; 6], None);
            assert_eq!(osds.len(), 3);
            assert!(osds.iter().all(|osd| osd % 2 == 1));
        }
        let shadows = map.class_buckets.clone();
        map.set_item_weight(1, 0x20000);
        map.rebuild_classes().unwrap();
        assert_eq!(map.class_buckets, shadows);
        let ssd_root = map.item_by_name("default~ssd").unwrap();
        assert_eq!(map.bucket(ssd_root).unwrap().weight, 0x40000);
    }
}
