//! The page of a search for a limit.

use maud::{Markup, html};

use super::super::limit::{FindingReport, LimitReport, StepReport, per_second};
use super::super::wording::{count, length, percent};
use super::axis::Scale;
use super::chart::{Chart, Mark, Notes, Path, XTick, line};
use super::plots::count_tick;
use super::{n, number, page, shell, tables, us};

/// The page of a search for a limit.
pub fn render_limit_html(report: &LimitReport) -> String {
    shell(&title(report), &body(report))
}

fn title(report: &LimitReport) -> String {
    format!("Limit of {}", report.operation.replace('_', " "))
}

fn body(report: &LimitReport) -> Markup {
    html! {
        a.skip href="#main" { "To the report" }
        header {
            p.over { "fleetmint find-limit" }
            h1 { (title(report)) }
            p.verdict {
                @let (class, word) = badge(&report.finding);
                span.badge.(class) { (word) }
                @if report.context.as_ref().is_some_and(|context| context.site.is_emulator) { " " span.badge.emulator { "EMULATOR" } }
                " " (report.sentence())
            }
            (figures(report))
            (context(report))
        }
        main id="main" {
            section aria-labelledby="search" {
                h2 id="search" { "The search" }
                p.note { "Each dot is a rate that was tried, for some seconds. On the dashed line everything offered was accepted." }
                @if report.steps.len() > 1 { (picture(report).render()) }
                (tables::scrolling("Steps of the search", &steps(report)))
            }
            section aria-labelledby="reading" {
                h2 id="reading" { "How to read this" }
                dl.settings {
                    dt { "sustainable" } dd { "The highest rate at which nothing was throttled, refused, lost or slowed down, held for the longest step." }
                    dt { "burst spent" } dd { "A token bucket lets more through for a while. Its burst is used up at a higher rate before each measurement." }
                    dt { "p50, p99" } dd { "Service times: from sending a request to its reply, of those accepted." }
                }
            }
        }
        footer { div { "Schema " (report.schema) ". This page holds all it shows: it loads nothing and sends nothing." } }
    }
}

fn badge(finding: &FindingReport) -> (&'static str, &'static str) {
    match finding {
        FindingReport::Limit { confirmed: true, .. } => ("pass", "LIMIT FOUND"),
        FindingReport::Limit { confirmed: false, .. } => ("incomplete", "NOT CONFIRMED"),
        FindingReport::NoLimit { .. } => ("incomplete", "NO LIMIT REACHED"),
        FindingReport::Nothing { .. } => ("fail", "NOTHING FOUND"),
    }
}

/// The highest rate that was sustained, and the lowest that was not, each with its place in the JSON.
fn rates(finding: &FindingReport) -> [Option<(&'static str, f64)>; 2] {
    match *finding {
        FindingReport::Limit { sustainable_per_s, breaks_at_per_s, .. } => [
            Some(("/finding/sustainable_per_s", sustainable_per_s)),
            Some(("/finding/breaks_at_per_s", breaks_at_per_s)),
        ],
        FindingReport::NoLimit { held_per_s, .. } => [Some(("/finding/held_per_s", held_per_s)), None],
        FindingReport::Nothing { broke_at_per_s, .. } => {
            [None, broke_at_per_s.map(|per_s| ("/finding/broke_at_per_s", per_s))]
        }
    }
}

fn figures(report: &LimitReport) -> Markup {
    let [held, broke] = rates(&report.finding);
    let accepted: u64 = report.steps.iter().map(|step| step.accepted).sum();
    let rate = |found: Option<(&'static str, f64)>| {
        html! { dd.big { @match found { Some((place, per_s)) => (number(place, per_s, &per_second(per_s))), None => "–" } } }
    };
    html! {
        dl.figures {
            div { dt { "Sustainable" } (rate(held)) }
            div { dt { "Breaks at" } (rate(broke)) }
            div {
                dt { "The account's quota" }
                @match &report.quota {
                    Some(quota) => {
                        dd.big { (number("/quota/per_s", quota.per_s, &per_second(quota.per_s))) }
                        dd.small { (quota.source) }
                    }
                    None => { dd.big { "–" } dd.small { "not known" } }
                }
            }
            div { dt { "Accepted while measuring" } dd.big { (count(accepted)) } dd.small { "in " (report.steps.len()) " steps" } }
            div { dt { "Took" } dd.big { (number("/elapsed_s", report.elapsed_s, &length(report.elapsed_s))) } }
        }
    }
}

fn context(report: &LimitReport) -> Markup {
    let Some(context) = &report.context else { return html! {} };
    let site = &context.site;
    html! {
        dl.context {
            div { dt { "when" } dd { (page::date(&context.started_at)) } }
            div { dt { "endpoint" } dd { (site.endpoint) } }
            div { dt { "region" } dd { (site.region) } }
            @if let Some(host) = &site.host { div { dt { "from" } dd { (host) } } }
            div { dt { "version" } dd { (context.tool) } }
            div.wide { dt { "command" } dd { code { (context.command) } } }
        }
    }
}

/// The classes of the dots, what they stand for, and the verdicts that they are for; the last one is for all others.
const DOTS: [(&str, &str, Option<&str>); 4] = [
    ("dot held", "held", Some("held")),
    ("dot throttled", "throttled", Some("throttled")),
    ("dot short", "not offered by this machine", Some("not_offered")),
    ("dot broke", "broke otherwise", None),
];

fn dot(step: &StepReport) -> usize {
    DOTS.iter().position(|(.., verdict)| *verdict == Some(step.verdict)).unwrap_or(DOTS.len() - 1)
}

/// What was tried against what was accepted, each step coloured by its verdict.
fn picture(report: &LimitReport) -> Chart {
    let fastest = report.steps.iter().map(|step| step.rate_per_s).fold(0.0, f64::max);
    let across = Scale::counts([fastest].into_iter());
    let scale = Scale::counts(report.steps.iter().map(|step| step.accepted_per_s).chain([fastest]));
    let place = |step: &StepReport| (across.place(step.rate_per_s), scale.place(step.accepted_per_s));
    let of = |n: usize| report.steps.iter().filter(move |step| dot(step) == n);
    let diagonal = line([Some((0.0, 0.0)), Some((across.place(fastest), scale.place(fastest)))]);
    let dots = (0..DOTS.len())
        .map(|n| Path { class: DOTS[n].0, d: of(n).map(|step| line([Some(place(step))])).collect() });
    let used = (0..DOTS.len()).filter(|n| of(*n).next().is_some()).map(|n| (DOTS[n].0, DOTS[n].1.to_owned()));
    let [held, _] = rates(&report.finding);
    let held = held.map(|(_, per_s)| ("found", per_s, format!("sustainable: {}", per_second(per_s))));
    let quota = report.quota.as_ref().filter(|quota| quota.per_s <= scale.max());
    let quota = quota.map(|quota| ("demand", quota.per_s, format!("quota: {}", per_second(quota.per_s))));
    Chart {
        id: String::from("search-picture"),
        title: String::from("Accepted against tried"),
        unit: String::from("accepted per second"),
        summary: format!(
            "Accepted per second against the rate that was tried, in {} steps.",
            report.steps.len()
        ),
        legend: used.chain([("offered", String::from("all accepted"))]).collect(),
        scale,
        tick: count_tick,
        x_ticks: across
            .ticks()
            .into_iter()
            .enumerate()
            .map(|(n, tick)| XTick {
                at: across.place(tick),
                label: format!("{}/s", count_tick(tick)),
                is_minor: n % 2 == 1,
            })
            .collect(),
        paths: [Path { class: "offered", d: diagonal }].into_iter().chain(dots).collect(),
        notes: Notes { levels: held.into_iter().chain(quota).collect(), ..Notes::default() },
        marks: marks(report, across),
        is_tall: true,
    }
}

/// A strip for each step, in the order of the rates.
fn marks(report: &LimitReport, across: Scale) -> Vec<Mark> {
    let mut steps: Vec<&StepReport> = report.steps.iter().collect();
    steps.sort_by(|one, other| one.rate_per_s.total_cmp(&other.rate_per_s));
    let place = |at: usize| steps.get(at).map(|step| across.place(step.rate_per_s));
    let middle = |one: Option<f64>, other: Option<f64>| Some((one? + other?) / 2.0);
    let mark = |(at, step): (usize, &&StepReport)| Mark {
        from: at.checked_sub(1).and_then(|before| middle(place(before), place(at))).unwrap_or(0.0),
        to: middle(place(at), place(at + 1)).unwrap_or(1.0),
        words: format!(
            "{} tried: {} accepted, {}",
            per_second(step.rate_per_s),
            per_second(step.accepted_per_s),
            step.verdict.replace('_', " ")
        ),
    };
    steps.iter().enumerate().map(mark).collect()
}

fn steps(report: &LimitReport) -> Markup {
    let heads = ["Rate", "For", "Burst spent", "Due", "Accepted", "Throttled", "Failed", "p50", "p99"];
    html! {
        table {
            thead { tr {
                th scope="col" { "Step" }
                @for head in heads { th scope="col" { (head) } }
                th.text scope="col" { "Result" }
            } }
            tbody { @for (at, step) in report.steps.iter().enumerate() { (row(at, step)) } }
        }
    }
}

fn row(at: usize, step: &StepReport) -> Markup {
    let place = |field: &str| format!("/steps/{at}/{field}");
    let failed = step.refused + step.silent + step.hung_up;
    let class = match step.verdict {
        "held" => "text good",
        // Says nothing of the service.
        "not_offered" => "text",
        _ => "text bad",
    };
    let throttled = step.throttled as f64 / step.due.max(1) as f64;
    html! {
        tr {
            th scope="row" { (at + 1) }
            td { (number(&place("rate_per_s"), step.rate_per_s, &per_second(step.rate_per_s))) }
            td { (length(step.measured_s)) }
            td { @match (step.drain_s, step.drain_per_s) {
                (Some(time), Some(per_s)) => { (length(time)) " at " (per_second(per_s)) }
                _ => "–",
            } }
            td { (n(&place("due"), step.due)) }
            td { (n(&place("accepted"), step.accepted)) }
            td { (n(&place("throttled"), step.throttled)) @if step.throttled > 0 { " (" (percent(throttled)) ")" } }
            td { (count(failed)) }
            @for (field, value) in [("p50_us", step.p50_us), ("p99_us", step.p99_us)] {
                td { @if step.accepted > 0 { (us(&place(field), value)) } @else { "–" } }
            }
            td class=(class) { (step.verdict.replace('_', " ")) @if step.looked_twice { "; once more" } }
        }
    }
}
