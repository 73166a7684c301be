//! What clients asked and what they were told, in the order in which it happened.

use std::collections::BTreeMap;

use super::model::{Output, Request, Snaps};

/// What a client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 0 or a negative error number.
    pub result: i32,
    /// Of the steps that read; none of requests that write.
    pub outputs: Vec<Output>,
    /// Of the object, counted by its changes; 0 if unknown.
    pub version: u64,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Call {
    /// Who asked.
    pub client: u64,
    pub request: Request,
    /// Places in the order of all events of the history.
    pub invoked: u64,
    /// Absent: nobody heard the outcome; it may happen at any later time, or never.
    pub returned: Option<(u64, Answer)>,
}

impl Call {
    /// Its answer, if it succeeded.
    pub fn succeeded(&self) -> Option<(u64, &Answer)> {
        let (at, answer) = self.returned.as_ref()?;
        (answer.result == 0).then_some((*at, answer))
    }
}

/// All requests of a run.
#[derive(Clone, Debug, Default)]
pub struct History {
    calls: Vec<(String, Call)>,
    events: u64,
    answered: u64,
}

impl History {
    /// A request is about to be sent. Returns its number.
    pub fn invoke(&mut self, client: u64, object: &str, request: Request) -> usize {
        self.events += 1;
        let call = Call { client, request, invoked: self.events, returned: None };
        self.calls.push((object.to_owned(), call));
        self.calls.len() - 1
    }

    /// The answer to a request arrived.
    pub fn answer(&mut self, number: usize, answer: Answer) {
        self.events += 1;
        self.answered += 1;
        self.calls[number].1.returned = Some((self.events, answer));
    }

    /// How many requests were answered.
    pub fn answered(&self) -> u64 {
        self.answered
    }

    /// How many objects there are, and their bytes, as they were last read.
    pub fn last_seen(&self) -> (u64, u64) {
        let mut seen: BTreeMap<&str, Option<usize>> = BTreeMap::new();
        for (object, call) in &self.calls {
            let Some((_, answer)) = &call.returned else { continue };
            match (&call.request.snaps, answer.outputs.first()) {
                (Snaps::Head, Some(Output::Data(data))) => seen.insert(object, Some(data.len())),
                (Snaps::Head, None) => seen.insert(object, None),
                _ => continue,
            };
        }
        let sizes = seen.values().flatten();
        (sizes.clone().count() as u64, sizes.map(|size| *size as u64).sum())
    }

    /// The requests without an answer, for messages.
    pub fn open(&self) -> Vec<String> {
        let open = self.calls.iter().filter(|(_, call)| call.returned.is_none());
        open.map(|(object, call)| format!("{object}: {call:?}")).collect()
    }

    /// How many requests there were.
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// The requests of each object, in the order of their beginning.
    pub fn by_object(&self) -> BTreeMap<String, Vec<Call>> {
        let mut out: BTreeMap<String, Vec<Call>> = BTreeMap::new();
        for (object, call) in &self.calls {
            out.entry(object.clone()).or_default().push(call.clone());
        }
        out
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::check::model::Step;

    /// A request of one step with its times and answer.
    pub(crate) fn call(step: Step, invoked: u64, returned: Option<(u64, Answer)>) -> Call {
        let snaps = if step.writes() { Snaps::default() } else { Snaps::Head };
        Call { client: 1, request: Request { steps: vec![step], snaps }, invoked, returned }
    }

    pub(crate) fn done(version: u64) -> Answer {
        Answer { result: 0, outputs: Vec::new(), version }
    }

    pub(crate) fn data(bytes: &'static [u8], version: u64) -> Answer {
        Answer { result: 0, outputs: vec![Output::Data(bytes.into())], version }
    }

    #[test]
    fn events_have_one_order() {
        let mut history = History::default();
        let request = || Request { steps: vec![Step::Read], snaps: Snaps::Head };
        let (a, b) = (history.invoke(1, "o", request()), history.invoke(2, "p", request()));
        history.answer(b, done(1));
        history.answer(a, done(1));
        let calls = history.by_object();
        assert_eq!((calls["o"][0].invoked, calls["p"][0].invoked), (1, 2));
        let returned = |object: &str| calls[object][0].succeeded().map(|(at, _)| at);
        assert_eq!((returned("p"), returned("o")), (Some(3), Some(4)));
        assert_eq!((history.len(), history.answered()), (2, 2));
    }
}
