//! Numbers as text that Prometheus reads: its own text format, or `OpenMetrics` if a client asks for that.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::metrics::{Counters, DURATIONS_MS, METHODS, Refusal, STATUSES, blobs};
use crate::types::HandshakeFailure;

/// A format of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus's own, version 0.0.4, which every scraper reads.
    Text,
    /// `OpenMetrics` 1.0.
    OpenMetrics,
}

impl Format {
    /// The format that the values of `Accept` prefer: `OpenMetrics` where it is named and not valued less than plain text.
    pub fn asked_for<'a>(accept: impl Iterator<Item = &'a [u8]>) -> Self {
        let quality = |range: &str, wanted: &str| -> Option<f32> {
            let mut parts = range.split(';').map(str::trim);
            let is_it = parts.next().is_some_and(|media| media.eq_ignore_ascii_case(wanted));
            let q = parts.find_map(|part| part.strip_prefix("q=")?.parse().ok());
            is_it.then(|| q.unwrap_or(1.0))
        };
        let (mut open, mut text) = (0.0_f32, 0.0_f32);
        for value in accept.filter_map(|value| str::from_utf8(value).ok()) {
            for range in value.split(',').map(str::trim) {
                open = open.max(quality(range, "application/openmetrics-text").unwrap_or(0.0));
                text = text.max(quality(range, "text/plain").unwrap_or(0.0));
            }
        }
        if open > 0.0 && open >= text { Self::OpenMetrics } else { Self::Text }
    }

    /// Its media type.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

type Labels = Vec<(&'static str, String)>;

/// Numbers of one name.
#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Counter(Vec<(Labels, u64)>),
    /// A counter that is no whole number.
    Seconds(f64),
    Gauge(Vec<(Labels, f64)>),
    /// Sum, and upper ends with their counts.
    Histogram(f64, Vec<(f64, u64)>),
}

/// What the numbers are at one moment.
#[derive(Debug, Default)]
pub struct Snapshot(Vec<Family>);

impl Snapshot {
    /// Adds a counter; its name gets `_total`.
    pub fn counter(&mut self, name: &'static str, help: &'static str, samples: Vec<(Labels, u64)>) {
        self.0.push(Family { name, help, kind: Kind::Counter(samples) });
    }

    /// Adds a gauge.
    pub fn gauge(&mut self, name: &'static str, help: &'static str, samples: Vec<(Labels, f64)>) {
        self.0.push(Family { name, help, kind: Kind::Gauge(samples) });
    }

    /// Adds a counter without labels.
    pub fn count(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.counter(name, help, vec![(Vec::new(), value)]);
    }

    /// Adds a gauge without labels.
    pub fn value(&mut self, name: &'static str, help: &'static str, value: f64) {
        self.gauge(name, help, vec![(Vec::new(), value)]);
    }

    /// Adds a counter of seconds.
    pub fn seconds(&mut self, name: &'static str, help: &'static str, value: f64) {
        self.0.push(Family { name, help, kind: Kind::Seconds(value) });
    }

    /// rest-server's counters.
    pub fn blobs(&mut self, workers: &[blobs::SharedRows]) {
        let rows: Vec<_> =
            blobs::sum(workers).into_iter().map(|(key, sums)| (blobs::labels(&key), sums)).collect();
        for (at, (name, help)) in blobs::NAMES.into_iter().enumerate() {
            let samples = rows.iter().filter_map(|(labels, sums)| Some((labels.to_vec(), *sums.get(at)?)));
            self.counter(name, help, samples.collect());
        }
    }

    /// What the workers count.
    #[expect(clippy::cast_precision_loss, reason = "for people: 2^53 microseconds are 285 years")]
    pub fn workers(&mut self, workers: &[impl AsRef<Counters>]) {
        let sum =
            |pick: &dyn Fn(&Counters) -> u64| workers.iter().map(|worker| pick(worker.as_ref())).sum::<u64>();
        let mut requests = Vec::new();
        for (row, method) in METHODS.iter().enumerate() {
            for (column, status) in STATUSES.iter().enumerate() {
                let cell = |c: &Counters| {
                    c.requests.get(row).and_then(|row| row.get(column)).map_or(0, super::Counter::get)
                };
                let count = sum(&cell);
                let code = if *status == 0 { "other".into() } else { status.to_string() };
                if count > 0 {
                    requests.push((vec![("method", (*method).to_owned()), ("code", code)], count));
                }
            }
        }
        self.counter("packhouse_requests", "Requests answered", requests);
        let classes = DURATIONS_MS.iter().map(|ms| *ms as f64 / 1000.0).chain([f64::INFINITY]);
        let counts = classes
            .enumerate()
            .map(|(at, end)| (end, sum(&|c: &Counters| c.durations.get(at).map_or(0, super::Counter::get))));
        let seconds = sum(&|c| c.duration_us.get()) as f64 / 1e6;
        let histogram = Kind::Histogram(seconds, counts.collect());
        let help = "Seconds from a request's head to the end of its answer";
        self.0.push(Family { name: "packhouse_request_duration_seconds", help, kind: histogram });
        let refusals = Refusal::ALL.iter().enumerate().map(|(at, (_, name))| {
            let count = sum(&|c: &Counters| c.refusals.get(at).map_or(0, super::Counter::get));
            (vec![("reason", (*name).to_owned())], count)
        });
        self.counter("packhouse_refusals", "Requests refused", refusals.collect());
        self.count("packhouse_connections", "Connections accepted", sum(&|c| c.connections.get()));
        let open = sum(&|c| c.connections.get()).saturating_sub(sum(&|c| c.connections_ended.get()));
        self.value("packhouse_connections_open", "Connections open now", open as f64);
        self.count(
            "packhouse_connections_refused",
            "Connections closed for others: their address had too many without a login, or they made room when there was none",
            sum(&|c| c.crowded.get()),
        );
        let handshakes = HandshakeFailure::ALL.iter().enumerate().map(|(at, (_, name))| {
            let count = sum(&|c: &Counters| c.handshakes.get(at).map_or(0, super::Counter::get));
            (vec![("reason", (*name).to_owned())], count)
        });
        let help =
            "TLS handshakes that failed; distrusted_by_client is a client that does not know our authority";
        self.counter("packhouse_handshake_failures", help, handshakes.collect());
        self.count(
            "packhouse_request_waits",
            "Requests that waited for others: the limit on open files lets no more run at once",
            sum(&|c| c.waits.get()),
        );
        self.count(
            "packhouse_verification_failures",
            "Uploads whose bytes do not hash to their name",
            sum(&|c| c.verification_failures.get()),
        );
        self.count("packhouse_panics", "Connections that ended in a panic", sum(&|c| c.panics.get()));
        self.count("packhouse_stalls", "Turns of a worker that took too long", sum(&|c| c.stalls.get()));
    }

    /// The text.
    pub fn text(self, format: Format) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        // Writing to a string can't fail.
        encode(&mut text, &registry).ok();
        match format {
            Format::OpenMetrics => text,
            Format::Text => plain(&text),
        }
    }
}

/// The same numbers in Prometheus's own format. Its comments name a counter as its samples do, with `_total`, and it has no
/// mark at its end.
fn plain(open: &str) -> String {
    let mut out = String::with_capacity(open.len());
    let mut lines = open.lines().filter(|line| *line != "# EOF").peekable();
    let name_of = |line: &str| line.split(' ').nth(2).unwrap_or_default().to_owned();
    while let Some(line) = lines.next() {
        // HELP comes before TYPE, which knows whether it is a counter.
        let is_counter = |line: &&str| line.starts_with("# TYPE ") && line.ends_with(" counter");
        let of_counter = is_counter(&line)
            || line.starts_with("# HELP ")
                && lines.peek().is_some_and(|next| is_counter(next) && name_of(next) == name_of(line));
        let name = name_of(line);
        if of_counter {
            out.push_str(&line.replacen(&name, &format!("{name}_total"), 1));
        } else {
            out.push_str(line);
        }
        out.push('\n');
    }
    out
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for Family { name, help, kind } in &self.0 {
            match kind {
                Kind::Counter(samples) => {
                    let family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
                    encode_all(family, samples.iter().map(|(labels, n)| (labels, ConstCounter::new(*n))))?;
                }
                Kind::Seconds(value) => {
                    let family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
                    ConstCounter::new(*value).encode(family)?;
                }
                Kind::Gauge(samples) => {
                    let family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
                    encode_all(family, samples.iter().map(|(labels, n)| (labels, ConstGauge::new(*n))))?;
                }
                Kind::Histogram(sum, buckets) => {
                    let count = buckets.iter().map(|(_, count)| count).sum();
                    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
                    family.encode_histogram::<NoLabelSet>(*sum, count, buckets, None)?;
                }
            }
        }
        Ok(())
    }
}

fn encode_all<'l, M: EncodeMetric>(
    mut family: MetricEncoder<'_>,
    samples: impl Iterator<Item = (&'l Labels, M)>,
) -> Result<(), fmt::Error> {
    for (labels, metric) in samples {
        if labels.is_empty() {
            // The only one. As one of a family it would have braces around nothing.
            return metric.encode(family);
        }
        metric.encode(family.encode_family(labels)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::metrics::blobs::BlobCounters;
    use crate::types::{BlobType, Principal, RepoPath, UserName};

    #[test]
    fn rest_servers_names_and_ours() {
        let shared = blobs::SharedRows::default();
        let worker = BlobCounters::new(Arc::clone(&shared), blobs::Known::default());
        let repo: RepoPath = "/a/b/".parse().expect("a path");
        for user in ["x\"y", "x\"y", "z"] {
            let row = worker.row(&Principal::User(UserName::new(user)), &repo, BlobType::Data);
            row.write.increment();
            row.write_bytes.add(10);
        }
        let counters = Arc::new(Counters::default());
        counters.note_request("POST", 200, Duration::from_millis(7));
        counters.note_request("BREW", 418, Duration::from_secs(7));
        counters.note_refusal(Refusal::Right);
        let mut snapshot = Snapshot::default();
        snapshot.blobs(&[shared]);
        snapshot.workers(&[counters]);
        let text = snapshot.text(Format::OpenMetrics);
        for line in [
            "# TYPE rest_server_blob_write counter",
            r#"rest_server_blob_write_total{repo="a/b",type="data",user="x\"y"} 2"#,
            r#"rest_server_blob_write_bytes_total{repo="a/b",type="data",user="z"} 10"#,
            r#"packhouse_requests_total{method="POST",code="200"} 1"#,
            r#"packhouse_requests_total{method="other",code="other"} 1"#,
            r#"packhouse_refusals_total{reason="right"} 1"#,
            r#"packhouse_request_duration_seconds_bucket{le="0.01"} 1"#,
            r#"packhouse_request_duration_seconds_bucket{le="+Inf"} 2"#,
            "packhouse_request_duration_seconds_count 2",
            "# EOF",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn the_plain_format_names_counters_as_their_samples() {
        let mut snapshot = Snapshot::default();
        snapshot.count("packhouse_x", "An x", 5);
        snapshot.value("packhouse_y", "A y", 1.0);
        let text = snapshot.text(Format::Text);
        let wanted = "# HELP packhouse_x_total An x\n# TYPE packhouse_x_total counter\npackhouse_x_total 5\n# HELP packhouse_y A y\n# TYPE packhouse_y gauge\npackhouse_y 1.0\n";
        assert_eq!(text, wanted);
        let asked = |accept: &str| Format::asked_for([accept.as_bytes()].into_iter());
        for plain in [
            "",
            "*/*",
            "text/plain",
            "text/html, */*;q=0.1",
            "application/openmetrics-text;q=0.1, text/plain;q=0.5",
            "application/openmetrics-text; q=0",
        ] {
            assert_eq!(asked(plain), Format::Text, "{plain}");
        }
        // As Prometheus 2 and 3 ask.
        for open in [
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text",
        ] {
            assert_eq!(asked(open), Format::OpenMetrics, "{open}");
        }
    }
}
