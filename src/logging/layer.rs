//! Between `tracing` and the log: which events are wanted, what text they have, in which session they happened.

use std::fmt::{self, Write};
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::{Log, Speaker};

pub(super) struct LogLayer(pub(super) Arc<Log>);

impl LogLayer {
    /// Libraries have things to say as well, with words that no reader of our log expects.
    fn is_wanted(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().split("::").next() == Some(env!("CARGO_CRATE_NAME"))
            && (metadata.is_span() || self.0.is_wanted(level(*metadata.level())))
    }
}

impl<S: Subscriber + for<'span> LookupSpan<'span>> Layer<S> for LogLayer {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.is_wanted(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.is_wanted(metadata)
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut session = TextOf { field: "session", text: None };
        attributes.record(&mut session);
        if let (Some(id), Some(span)) = (session.text, context.span(id)) {
            span.extensions_mut().insert(Arc::new(self.0.session(id)));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut message = TextOf { field: "message", text: None };
        event.record(&mut message);
        let mut spans = context.event_scope(event).into_iter().flatten();
        // A span with a field `session` has a speaker of its own.
        let session = spans.find_map(|span| span.extensions().get::<Arc<Speaker>>().cloned());
        let speaker = session.as_deref().unwrap_or(&self.0.process);
        self.0.message(level(*event.metadata().level()), speaker, &message.text.unwrap_or_default());
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        let session = span.extensions().get::<Arc<Speaker>>().cloned();
        if let Some(session) = session {
            self.0.end(&session);
        }
    }
}

/// How many `-v` it takes to see an event.
fn level(level: Level) -> u8 {
    match level {
        Level::ERROR | Level::WARN => 0,
        Level::INFO => 1,
        Level::DEBUG => 2,
        Level::TRACE => 3,
    }
}

/// Reads one field of an event or span.
struct TextOf {
    field: &'static str,
    text: Option<String>,
}

impl Visit for TextOf {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == self.field {
            self.text = Some(value.to_owned());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == self.field {
            let _ = write!(self.text.insert(String::new()), "{value:?}");
        }
    }
}
