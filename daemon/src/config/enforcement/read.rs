//! Nodes to checked types; see [`mod@crate::config::read`], whose hands these are.

use std::path::PathBuf;
use std::time::Duration;

use headgate_ebpf::{Cidr, RuleMode};
use headgate_quota::Bytes;

use super::{Budget, District, Enforcement, LaunchAudit, Residency, Witness, WitnessPolicy, defaults};
use crate::config::fields::{Fields, shown};
use crate::config::model::CgroupPath;
use crate::config::problem::Problem;
use crate::config::read::{Report, cgroup, checked_name, list, one_of, path, scalar, size};
use crate::config::tree::Node;
use crate::limits::{
    BUDGETS_MAX, CONFIG_DISTRICTS_MAX, GATE_DEVICES_MAX, INTERFACE_BYTES_MAX, INTERFACES_MAX, RANGES_MAX,
    REFILL_PERIOD_MIN,
};

/// `spec.enforcement`.
pub fn enforcement(node: &Node, report: &mut Report) -> Option<Enforcement> {
    let mut fields = Fields::of(node, "spec.enforcement", report)?;
    let pins = fields.optional("pins").and_then(|node| path(node, "pins", report));
    let governed = fields.optional("governed").and_then(|node| governed(node, report)).flatten();
    let devices = fields.optional("devices").and_then(|node| {
        let items = list(node, "devices", GATE_DEVICES_MAX, report)?;
        Some(items.iter().filter_map(|item| path(item, "a device node", report)).collect())
    });
    fields.finish(report);
    Some(Enforcement {
        pins: pins.unwrap_or_else(|| PathBuf::from(defaults::PINS)),
        governed,
        devices: devices.unwrap_or_default(),
    })
}

/// `/` is the whole hierarchy.
fn governed(node: &Node, report: &mut Report) -> Option<Option<CgroupPath>> {
    if scalar(node, "governed", report)? == "/" {
        return Some(None);
    }
    cgroup(node, report).map(Some)
}

/// `spec.districts`.
pub fn districts(node: &Node, report: &mut Report) -> Option<Vec<District>> {
    let items = list(node, "districts", CONFIG_DISTRICTS_MAX, report)?;
    Some(items.iter().filter_map(|item| district(item, report)).collect())
}

fn district(node: &Node, report: &mut Report) -> Option<District> {
    let mut fields = Fields::of(node, "a district", report)?;
    let name = fields.required("name", report).and_then(|node| checked_name(node, "a district", report));
    let ranges = fields.required("cidrs", report).and_then(|node| {
        let items = list(node, "cidrs", RANGES_MAX, report)?;
        Some(items.iter().filter_map(|item| Some((range(item, report)?, item.place))).collect())
    });
    fields.finish(report);
    Some(District { name: name?, ranges: ranges.unwrap_or_default(), place: node.place })
}

fn range(node: &Node, report: &mut Report) -> Option<Cidr> {
    let text = scalar(node, "an address range", report)?;
    match text.parse() {
        Ok(range) => Some(range),
        Err(error) => {
            let text = format!("{error}; write one such as 10.4.0.0/16 or fd00:4::/32");
            report.push(Problem { place: node.place, text });
            None
        }
    }
}

/// `tenants[].residency`.
pub fn residency(node: &Node, report: &mut Report) -> Option<Residency> {
    let mut fields = Fields::of(node, "residency", report)?;
    let mode = fields.required("mode", report).and_then(|node| rule_mode(node, report));
    let channel_port = fields.optional("channelPort").and_then(|node| port(node, report));
    let budgets = fields.optional("budgets").and_then(|node| {
        let items = list(node, "budgets", BUDGETS_MAX, report)?;
        Some(items.iter().filter_map(|item| budget(item, report)).collect())
    });
    let interfaces = fields.optional("interfaces").and_then(|node| {
        let items = list(node, "interfaces", INTERFACES_MAX, report)?;
        Some(items.iter().filter_map(|item| interface(item, report)).collect())
    });
    fields.finish(report);
    Some(Residency {
        mode: mode?,
        channel_port: channel_port.unwrap_or(0),
        budgets: budgets.unwrap_or_default(),
        interfaces: interfaces.unwrap_or_default(),
        place: Some(node.place),
    })
}

/// `tenants[].deviceGate`.
pub fn device_gate(node: &Node, report: &mut Report) -> Option<RuleMode> {
    let mut fields = Fields::of(node, "deviceGate", report)?;
    let mode = fields.required("mode", report).and_then(|node| rule_mode(node, report));
    fields.finish(report);
    mode
}

fn rule_mode(node: &Node, report: &mut Report) -> Option<RuleMode> {
    let words = [RuleMode::Off, RuleMode::Audit, RuleMode::Enforce].map(|mode| (mode.name(), mode));
    one_of(node, "mode", &words, report)
}

fn port(node: &Node, report: &mut Report) -> Option<u16> {
    let text = scalar(node, "channelPort", report)?;
    let port = text.parse().ok().filter(|port| *port != 0);
    if port.is_none() {
        let text = format!("`channelPort` is `{}`; write a port from 1 to 65535", shown(text));
        report.push(Problem { place: node.place, text });
    }
    port
}

fn budget(node: &Node, report: &mut Report) -> Option<Budget> {
    let mut fields = Fields::of(node, "a budget", report)?;
    let district =
        fields.required("district", report).and_then(|node| checked_name(node, "a district", report));
    let grant = grant(&mut fields, report);
    fields.finish(report);
    let (bytes, every) = grant?;
    Some(Budget { district: district?, bytes, every, place: node.place })
}

/// The `bytes` of a budget, and how often they are granted: `every`.
pub fn grant(fields: &mut Fields<'_>, report: &mut Report) -> Option<(Bytes, Duration)> {
    let bytes = fields.required("bytes", report).and_then(|node| size(node, "bytes", report));
    let node = fields.required("every", report)?;
    let every = span(node, "every", report)?;
    if every < REFILL_PERIOD_MIN {
        let text = format!("a budget cannot be granted more often than every {REFILL_PERIOD_MIN:?}");
        report.push(Problem { place: node.place, text });
    }
    Some((bytes?, every))
}

fn interface(node: &Node, report: &mut Report) -> Option<String> {
    let text = scalar(node, "an interface", report)?;
    if text.len() <= INTERFACE_BYTES_MAX && !text.contains(['/', '\0', ' ']) {
        return Some(text.to_owned());
    }
    let text = format!("`{}` is not a network interface; write one as `ip link` names it", shown(text));
    report.push(Problem { place: node.place, text });
    None
}

/// `spec.witness`.
pub fn witness(node: &Node, report: &mut Report) -> Option<Witness> {
    let mut fields = Fields::of(node, "spec.witness", report)?;
    let policies = [WitnessPolicy::Count, WitnessPolicy::Warn, WitnessPolicy::Refuse].map(|p| (p.word(), p));
    let policy = fields.optional("policy").and_then(|node| one_of(node, "policy", &policies, report));
    let launch_audit = fields.optional("launchAudit").and_then(|node| launch_audit(node, report));
    fields.finish(report);
    Some(Witness { policy: policy.unwrap_or_default(), launch_audit })
}

fn launch_audit(node: &Node, report: &mut Report) -> Option<LaunchAudit> {
    let mut fields = Fields::of(node, "launchAudit", report)?;
    let length = fields.required("for", report).and_then(|node| span(node, "for", report));
    let every = fields.required("every", report).and_then(|node| span(node, "every", report));
    fields.finish(report);
    let (length, every) = (length?, every?);
    if length.is_zero() || every < length {
        let text = "an audit needs some time and fits into its period; write for: 1s, every: 60s";
        report.push(Problem { place: node.place, text: text.to_owned() });
        return None;
    }
    Some(LaunchAudit { length, every })
}

/// A span of time: a whole number and `ms`, `s`, `m`, `h` or `d`.
pub(in crate::config) fn span(node: &Node, key: &'static str, report: &mut Report) -> Option<Duration> {
    let text = scalar(node, key, report)?;
    let span = span_of(text);
    if span.is_none() {
        let text =
            format!("`{key}` is `{}`; write a span of time such as 500ms, 30s, 5m, 1h or 1d", shown(text));
        report.push(Problem { place: node.place, text });
    }
    span
}

/// As above, of a text.
#[must_use]
pub fn span_of(text: &str) -> Option<Duration> {
    const UNITS: [(&str, u64); 5] =
        [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    UNITS.iter().find_map(|(suffix, unit)| {
        let number = text.strip_suffix(suffix)?;
        let good = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let millis = good.then(|| number.parse::<u64>().ok()).flatten()?.checked_mul(*unit)?;
        // A year is longer than any window an operator means, and keeps sums of spans in range.
        (millis <= 366 * 86_400_000).then(|| Duration::from_millis(millis))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_exact() {
        assert_eq!(span_of("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(span_of("5m"), Some(Duration::from_secs(300)));
        assert_eq!(span_of("1d"), Some(Duration::from_secs(86_400)));
        for bad in ["", "s", "5", "-1s", "1.5h", "1 h", "367d", "99999999999999999999s"] {
            assert_eq!(span_of(bad), None, "{bad}");
        }
    }
}
