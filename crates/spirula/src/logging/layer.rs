//! From `tracing` events to lines in the file of the daemon they belong to.
//!
//! Invariant: a level that no daemon has enabled is switched off at its call site and costs one
//! comparison there.

use std::fmt;
use std::sync::{Arc, Weak};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::levels::{SUBSYSTEMS, number_of, subsystem_of};
use super::line::line;
use super::{Daemon, Shared, current};
use crate::print::complain;

/// The name of a span's field that says which daemon's work the span is.
const DAEMON_FIELD: &str = "daemon";

pub(crate) struct LogLayer {
    shared: Arc<Shared>,
}

/// Extension of a span that has a `daemon` field. (Weak: spans may outlive what logs.)
struct SpanDaemon(Weak<Daemon>);

impl LogLayer {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Whose line an event is: the innermost span's that says so, else the thread's or task's, else
    /// the only daemon's whose crate the event comes from, else nobody's.
    fn owner<S>(&self, event: &Event<'_>, ctx: &Context<'_, S>) -> Arc<Daemon>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let of_span = || {
            let mut spans = ctx.event_scope(event)?;
            spans.find_map(|span| span.extensions().get::<SpanDaemon>()?.0.upgrade())
        };
        of_span().unwrap_or_else(|| self.shared.owner(event.metadata().target()))
    }

    fn marks_daemon(metadata: &Metadata<'_>) -> bool {
        metadata.is_span() && metadata.fields().field(DAEMON_FIELD).is_some()
    }
}

impl<S> Layer<S> for LogLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if Self::marks_daemon(metadata) {
            return Interest::always();
        }
        let (min, max) = self.shared.filters(subsystem_of(metadata.target()));
        match metadata.level() {
            level if *level > max => Interest::never(),
            level if *level <= min => Interest::always(),
            _ => Interest::sometimes(),
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, ctx: Context<'_, S>) -> bool {
        if Self::marks_daemon(metadata) {
            return true;
        }
        let subsystem = subsystem_of(metadata.target());
        let of_span = || {
            let span = ctx.lookup_current()?;
            span.scope().find_map(|span| span.extensions().get::<SpanDaemon>()?.0.upgrade())
        };
        let daemon = of_span().unwrap_or_else(|| self.shared.owner(metadata.target()));
        *metadata.level() <= daemon.levels.filter(subsystem)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        // Spans that mark a daemon's work are always made; they are at `info` or below.
        Some(self.shared.filter_max().max(LevelFilter::INFO))
    }

    fn on_new_span(&self, attrs: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        if !Self::marks_daemon(attrs.metadata()) {
            return;
        }
        let mut name = DaemonName(None);
        attrs.record(&mut name);
        if let (Some(name), Some(span)) = (name.0, ctx.span(id)) {
            let daemon = self.shared.daemon(&name);
            span.extensions_mut().insert(SpanDaemon(Arc::downgrade(&daemon)));
        }
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        let metadata = event.metadata();
        let daemon = self.owner(event, &ctx);
        let subsystem = SUBSYSTEMS[subsystem_of(metadata.target())].name;
        let text = line(self.shared.offset, number_of(*metadata.level()), subsystem, event);
        if *metadata.level() == Level::ERROR && self.shared.errors_to_stderr {
            complain!("{}", text.trim_end_matches('\n'));
        }
        self.shared.queue.line(daemon.name.clone(), text);
    }
}

impl Shared {
    /// Whose work an event with this target is, apart from spans.
    fn owner(&self, target: &str) -> Arc<Daemon> {
        current().or_else(|| self.only_daemon_of(target)).unwrap_or_else(|| self.fallback.clone())
    }

    /// Monitor and manager share threads but not crates.
    fn only_daemon_of(&self, target: &str) -> Option<Arc<Daemon>> {
        let kind = match SUBSYSTEMS[subsystem_of(target)].name {
            kind @ ("mon" | "mgr") => kind,
            _ => return None,
        };
        let daemons = self.daemons();
        let mut of_kind = daemons.iter().filter(|d| d.name.split('.').next() == Some(kind));
        let only = of_kind.next()?;
        of_kind.next().is_none().then(|| only.clone())
    }
}

struct DaemonName(Option<String>);

impl Visit for DaemonName {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == DAEMON_FIELD {
            self.0 = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == DAEMON_FIELD {
            self.0 = Some(format!("{value:?}"));
        }
    }
}
