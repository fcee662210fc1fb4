//! What was found, as a report and as a scenario.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Value, json};

use super::facts::{Maps, Row, TABLE};
use super::findings::{Findings, Rejection, Settled, Timed};
use super::law::Law;
use super::throttle::{Throttle, in_common};
use super::{FLOOD_PER_S, FLOOD_TIME};

/// Where a report can be sent.
fn send_to() -> String {
    match env!("CARGO_PKG_REPOSITORY") {
        "" => String::from("the issue tracker of fleetmint"),
        repository => format!("the issue tracker of {repository}"),
    }
}

/// The statuses that a scenario takes for a refusal.
const REFUSALS: RangeInclusive<u16> = 400..=599;

/// What a report is about.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// The region.
    pub region: &'a str,
    /// What cut the calibration short; `None` if nothing did.
    pub cut_short: Option<&'a str>,
}

/// How an answer stands to what is documented.
fn verdict(row: &Row, settled: Option<&Settled>) -> &'static str {
    match (settled, row.expected) {
        (None, _) => "not seen",
        (Some(settled), _) if !settled.is_clear() => "varies",
        (Some(_), None) => "settled",
        (Some(settled), Some(expected)) if settled.answer.said.starts_with(expected) => "as documented",
        (Some(_), Some(_)) => "differs",
    }
}

/// The report for people.
pub fn text(findings: &Findings, about: About<'_>) -> String {
    let mut out = format!("What this account does, in {}:\n", about.region);
    for row in &TABLE {
        let settled = findings.settled(row.fact);
        let documented = match row.documented {
            "" => String::from("nothing"),
            documented => format!("{documented} [{}]", row.tag),
        };
        let (found, seen) = match &settled {
            None => (String::from("-"), String::new()),
            Some(Settled { answer, seen, of }) => (answer.said.clone(), format!(", {seen} of {of} times")),
        };
        // Writing to memory does not fail.
        let _ = write!(
            out,
            "\n{}: {}{seen}\n  asked       {}\n  found       {found}\n  documented  {documented}\n",
            row.name,
            verdict(row, settled.as_ref()),
            row.question
        );
    }
    for (what, took) in [("of what was accepted", &findings.took), ("of refusals", &findings.refused)] {
        let _ = writeln!(out, "\nlatency {what}:");
        for (timed, samples) in took {
            let law = Law::of(samples).map_or_else(|| String::from("too few answers"), |law| law.to_string());
            let _ = writeln!(out, "  {:<28} {law}, of {}", timed.key(), samples.len());
        }
    }
    if !findings.throttles.is_empty() {
        let _ = writeln!(out, "\nthrottles, by requests that are refused anyway and may not count:");
    }
    for (timed, throttle) in &findings.throttles {
        let said = throttle.map_or_else(|| format!("none found at {FLOOD_PER_S}/s for {FLOOD_TIME:?}"), said);
        let _ = writeln!(out, "  {:<28} {said}", timed.key());
    }
    if let Some(why) = about.cut_short {
        let _ = writeln!(out, "\nThe calibration was cut short: {why}");
    }
    let _ = writeln!(
        out,
        "\nSecrets, account numbers, and the names that the template and its parameters have are taken out of this report. It tells \
         others what AWS does: please open an issue with it (--json) in {}",
        send_to()
    );
    out
}

/// The report for programs.
pub fn json(findings: &Findings, about: About<'_>) -> Value {
    let fact = |row: &Row| {
        let settled = findings.settled(row.fact);
        let settled = settled.as_ref();
        json!({
            "name": row.name,
            "question": row.question,
            "documented": (!row.documented.is_empty()).then_some(row.documented),
            "confidence": row.tag,
            "found": settled.map(|settled| settled.answer.said.as_str()),
            "verdict": verdict(row, settled),
            "seen": settled.map_or(0, |settled| settled.seen),
            "of": settled.map_or(0, |settled| settled.of),
        })
    };
    let latency = |(timed, samples): (&Timed, &Vec<Duration>)| {
        let mut ms: Vec<f64> = samples.iter().map(|took| (took.as_secs_f64() * 1e4).round() / 10.0).collect();
        ms.sort_by(f64::total_cmp);
        let law = Law::of(samples).map(|law| law.to_string());
        json!({ "operation": timed.key(), "law": law, "milliseconds": ms })
    };
    let throttle = |(timed, throttle): (&Timed, &Option<Throttle>)| {
        json!({
            "operation": timed.key(),
            "per_second": throttle.map(|throttle| round(throttle.rate)),
            "counting": throttle.map(|throttle| throttle.counting.name()),
            "burst_s": throttle.map(|throttle| round(throttle.burst_s)),
        })
    };
    json!({
        "schema": 1,
        "version": env!("CARGO_PKG_VERSION"),
        "region": about.region,
        "cut_short": about.cut_short,
        "facts": TABLE.iter().map(fact).collect::<Vec<_>>(),
        "throttles": findings.throttles.iter().map(throttle).collect::<Vec<_>>(),
        "latency": findings.took.iter().map(latency).collect::<Vec<_>>(),
        "latency_of_refusals": findings.refused.iter().map(latency).collect::<Vec<_>>(),
        "send_to": send_to(),
    })
}

/// The scenario under which the emulator answers as the account did. What was not clear is left out.
pub fn scenario(findings: &Findings, about: About<'_>) -> String {
    let mut tables: BTreeMap<&str, Vec<(String, String)>> = BTreeMap::new();
    tables.entry("").or_default().push((String::from("region"), quoted(about.region)));
    for row in &TABLE {
        let Some(settled) = findings.settled(row.fact).filter(Settled::is_clear) else { continue };
        let (key, error) = match row.maps {
            Maps::Nothing => (None, None),
            Maps::Key(key, values) => (Some((key, values)), None),
            Maps::Error(name) => (None, Some(name)),
            Maps::KeyAndError(key, values, name) => (Some((key, values)), Some(name)),
        };
        let said = &settled.answer.said;
        if let Some((key, values)) = key
            && let Some((_, value)) = values.iter().find(|(begins, _)| said.starts_with(begins))
        {
            let (table, key) = key.rsplit_once('.').unwrap_or(("", key));
            tables.entry(table).or_default().push((key.to_owned(), String::from(*value)));
        }
        if let (Some(name), Some(rejection)) = (error, &settled.answer.rejection)
            && REFUSALS.contains(&rejection.status)
        {
            let entry = (name.to_owned(), inline(rejection));
            tables.entry("errors").or_default().push(entry);
        }
    }
    for (timed, samples) in &findings.took {
        if let Some(law) = Law::of(samples) {
            tables.entry("latency").or_default().push((timed.key().to_owned(), law.to_string()));
        }
    }
    quotas(findings, tables.entry("quotas").or_default());
    tables.retain(|_, entries| !entries.is_empty());
    let mut out = format!(
        "# What an account did, found out by fleetmint {} calibrate. What is not here was not seen.\n",
        env!("CARGO_PKG_VERSION")
    );
    for (table, entries) in tables {
        if !table.is_empty() {
            let _ = writeln!(out, "\n[{table}]");
        }
        for (key, value) in entries {
            let _ = writeln!(out, "{key} = {value}");
        }
    }
    out
}

/// The keys of `[quotas]`. A scenario has one way of counting for all.
fn quotas(findings: &Findings, entries: &mut Vec<(String, String)>) {
    let found: Vec<_> =
        findings.throttles.iter().filter_map(|(timed, throttle)| Some((timed, (*throttle)?))).collect();
    let throttles: Vec<Throttle> = found.iter().map(|(_, throttle)| *throttle).collect();
    if let Some((counting, burst_s)) = in_common(&throttles) {
        entries.push((String::from("window"), quoted(counting.name())));
        if is_burst(burst_s) {
            entries.push((String::from("burst"), format!("\"{:.0}ms\"", near_whole(burst_s, 0.2) * 1e3)));
        }
    }
    for (timed, throttle) in found {
        let fives = near_whole(throttle.rate / 5.0, 0.05) * 5.0;
        let is_five = fives % 5.0 == 0.0;
        let rate = if is_five { fives } else { near_whole(throttle.rate, 0.1) };
        entries.push((timed.key().to_owned(), format!("\"{rate}/s\"")));
    }
}

fn said(throttle: Throttle) -> String {
    let Throttle { rate, counting, burst_s } = throttle;
    let burst = if is_burst(burst_s) { format!(", {burst_s:.1} s at once") } else { String::new() };
    format!("{rate:.1}/s, counted as {}{burst}", counting.name())
}

/// Whether a computed burst is one: what was measured may come to less than nothing. Scenarios take a burst from a
/// millisecond to an hour; a hundredth of a second is the least that is written.
fn is_burst(burst_s: f64) -> bool {
    (0.01..=3600.0).contains(&burst_s)
}

/// The whole number that a measured one is near, within this share of it; or else two decimals of the measured one.
fn near_whole(value: f64, within: f64) -> f64 {
    let whole = value.round();
    if whole >= 1.0 && (value / whole - 1.0).abs() <= within { whole } else { round(value) }
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn inline(rejection: &Rejection) -> String {
    let Rejection { status, code, message } = rejection;
    format!("{{ status = {status}, code = {}, message = {} }}", quoted(code), quoted(message))
}

/// A TOML string. JSON's escapes are TOML's too; of what JSON does not escape, TOML wants one character escaped.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a text can be written as JSON").replace('\u{7f}', "\\u007f")
}

#[cfg(test)]
mod tests {
    use super::super::facts::Fact;
    use super::super::throttle::Counting;
    use super::*;

    #[test]
    fn a_report_says_what_was_found_and_a_scenario_has_what_was_clear() {
        let mut findings = Findings::default();
        let about = About { region: "eu-central-1", cut_short: None };
        let rejection =
            Rejection { status: 404, code: String::from("X"), message: String::from("no \"{detail}\"") };
        findings.note(Fact::UnknownTemplate, rejection);
        // A scenario takes no such status.
        let odd = Rejection { status: 302, code: String::from("Moved"), message: String::new() };
        findings.note(Fact::EmptyToken, odd);
        findings.note(Fact::CapitalisedParameters, "taken");
        findings.note(Fact::Keys, "P-256");
        for said in ["comes", "does not come"] {
            findings.note(Fact::WithoutSubscription, said);
        }
        for ms in [30, 31, 33] {
            findings.time(Timed::Register, Duration::from_millis(ms));
            findings.time_refusal(Timed::Register, Duration::from_millis(10 * ms));
        }
        let scenario = scenario(&findings, about);
        assert_eq!(
            scenario.split_once('\n').unwrap().1,
            "region = \"eu-central-1\"\nstrict = false\nkeys = \"p256\"\n\n[errors]\n\
             unknown_template = { status = 404, code = \"X\", message = \"no \\\"{detail}\\\"\" }\n\n\
             [latency]\nregister_thing = \"31ms\"\n"
        );
        let report = json(&findings, about);
        let verdict = |name: &str| {
            let facts = report["facts"].as_array().unwrap();
            facts.iter().find(|fact| fact["name"] == name).unwrap()["verdict"].clone()
        };
        assert_eq!(verdict("unknown_template"), "as documented");
        assert_eq!(verdict("keys"), "differs");
        assert_eq!(verdict("capitalised_parameters"), "settled");
        assert_eq!(verdict("answer_without_subscription"), "varies");
        assert_eq!(verdict("used_token"), "not seen");
        let text = text(&findings, about);
        assert!(text.contains("keys: differs, 1 of 1 times"), "{text}");
        assert!(text.contains("in the issue tracker of ") && !text.contains("OWNER"), "{text}");
    }

    #[test]
    fn a_burst_that_a_scenario_does_not_take_is_left_out() {
        for (burst_s, written) in
            [(-0.17, None), (0.0, None), (0.004, None), (4000.0, None), (0.5, Some("500ms"))]
        {
            let throttle = Throttle { rate: 10.0, counting: Counting::Bucket, burst_s };
            let mut findings = Findings::default();
            findings.throttles.insert(Timed::Register, Some(throttle));
            let mut entries = Vec::new();
            quotas(&findings, &mut entries);
            let burst =
                entries.iter().find(|(key, _)| key == "burst").map(|(_, value)| value.trim_matches('"'));
            assert_eq!(burst, written, "{burst_s}");
            assert_eq!(said(throttle).contains("at once"), written.is_some(), "{burst_s}");
        }
    }
}
