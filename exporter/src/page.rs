//! Snapshot to `OpenMetrics` text.

use std::fmt;

use headgate_quota::Micros;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::families::{FAMILIES, Family, Kind, PREFIX, SCRAPE_DURATION, Value, scrape_duration};
use crate::snapshot::Snapshot;

/// Content type of the page.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The whole page. `previous` is how long the last one took to make.
pub fn page(snapshot: Snapshot, previous: Micros) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(Page { snapshot, previous }));
    let mut page = String::new();
    text::encode(&mut page, &registry)?;
    Ok(page)
}

#[derive(Debug)]
struct Page {
    snapshot: Snapshot,
    previous: Micros,
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in FAMILIES {
            encode_family(family, &mut encoder, |sink| (family.samples)(&self.snapshot, sink))?;
        }
        encode_family(&SCRAPE_DURATION, &mut encoder, |sink| sink(&[], scrape_duration(self.previous)))
    }
}

fn encode_family(
    family: &Family,
    encoder: &mut DescriptorEncoder<'_>,
    samples: impl FnOnce(&mut crate::families::Sink<'_>),
) -> fmt::Result {
    let unit = family.unit.map(|unit| Unit::Other(unit.to_owned()));
    let kind = match family.kind {
        Kind::Gauge => MetricType::Gauge,
        Kind::Counter => MetricType::Counter,
        Kind::Histogram => MetricType::Histogram,
        Kind::Info => MetricType::Info,
    };
    let mut metric = encoder.encode_descriptor(family.name, family.help, unit.as_ref(), kind)?;
    let mut outcome = Ok(());
    samples(&mut |values, value| {
        if outcome.is_ok() {
            outcome = encode_sample(family, &mut metric, values, value);
        }
    });
    outcome
}

fn encode_sample(
    family: &Family,
    metric: &mut MetricEncoder<'_>,
    values: &[&str],
    value: Value<'_>,
) -> fmt::Result {
    let labels: Vec<(&str, &str)> = family.labels.iter().copied().zip(values.iter().copied()).collect();
    if matches!(value, Value::Info) {
        return metric.encode_info(&labels);
    }
    if labels.is_empty() {
        return encode_value(family.kind, metric, value);
    }
    encode_value(family.kind, &mut metric.encode_family(&labels)?, value)
}

fn encode_value(kind: Kind, metric: &mut MetricEncoder<'_>, value: Value<'_>) -> fmt::Result {
    match (kind, value) {
        (Kind::Counter, Value::Whole(value)) => metric.encode_counter::<NoLabelSet, _, f64>(&value, None),
        (Kind::Counter, Value::Real(value)) => metric.encode_counter::<NoLabelSet, _, f64>(&value, None),
        (Kind::Gauge, Value::Whole(value)) => metric.encode_gauge(&value),
        (Kind::Gauge, Value::Real(value)) => metric.encode_gauge(&value),
        (Kind::Histogram, Value::Histogram(histogram)) => {
            let mut buckets = histogram.buckets.clone();
            buckets.push((f64::INFINITY, histogram.above));
            metric.encode_histogram::<NoLabelSet>(histogram.sum_seconds, histogram.count(), &buckets, None)
        }
        // A row of the table whose samples do not fit its type; the golden test makes every row.
        _ => Err(fmt::Error),
    }
}
