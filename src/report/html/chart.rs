//! The frame of all charts: axes, legend, lines, values under the pointer.
//!
//! Lines are drawn in a square of 1000 that is stretched to the plot, while texts and strokes keep their size: the
//! same drawing serves a phone and a printed page. Nothing is styled by attributes, so the page's policy can forbid
//! them.

use std::fmt::Write as _;

use maud::{Markup, html};

use super::axis::Scale;

/// A chart.
pub(super) struct Chart {
    /// A word, unique on the page.
    pub(super) id: String,
    pub(super) title: String,
    /// The unit of the vertical axis.
    pub(super) unit: String,
    /// A description for users who cannot see the chart.
    pub(super) summary: String,
    /// Class and label of each line.
    pub(super) legend: Vec<(&'static str, String)>,
    pub(super) scale: Scale,
    /// Formats a value of the vertical axis.
    pub(super) tick: fn(f64) -> String,
    /// Position, from 0 to 1, and label along the lower axis; minor ticks are omitted on a narrow screen.
    pub(super) x_ticks: Vec<XTick>,
    pub(super) paths: Vec<Path>,
    pub(super) notes: Notes,
    pub(super) marks: Vec<Mark>,
    pub(super) is_tall: bool,
}

/// What is written into a plot besides its lines.
#[derive(Default)]
pub(super) struct Notes {
    /// Level lines, such as thresholds: class, value on the vertical axis, label.
    pub(super) levels: Vec<(&'static str, f64, String)>,
    /// A shaded part from the left edge: where it ends, from 0 to 1, and its label.
    pub(super) shade: Option<(f64, String)>,
    /// Instants, such as a change of the rate: position from 0 to 1, and label.
    pub(super) instants: Vec<(f64, String)>,
}

pub(super) struct XTick {
    pub(super) at: f64,
    pub(super) label: String,
    pub(super) is_minor: bool,
}

/// A line or an area; its class says which.
pub(super) struct Path {
    pub(super) class: &'static str,
    pub(super) d: String,
}

/// A strip of the plot and the values in it.
pub(super) struct Mark {
    /// Its left edge, from 0 to 1.
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) words: String,
}

impl Chart {
    pub(super) fn render(&self) -> Markup {
        let title = format!("{}-title", self.id);
        html! {
            figure.chart.tall[self.is_tall] {
                figcaption {
                    h3 id=(title) { (self.title) }
                    ul.legend {
                        @for (class, label) in &self.legend {
                            li { (swatch(class)) (label) }
                        }
                    }
                }
                span.unit { (self.unit) @if self.scale.is_log() { ", logarithmic" } }
                div.frame {
                    (self.y_labels())
                    svg.plot role="img" aria-labelledby=(title) aria-label=(self.summary) {
                        (self.notes.behind())
                        (self.grid())
                        svg viewBox="0 0 1000 1000" preserveAspectRatio="none" width="100%" height="100%" {
                            @for path in &self.paths {
                                path class=(path.class) d=(path.d) vector-effect="non-scaling-stroke" {}
                            }
                        }
                        (self.notes.before(self.scale))
                        (self.marks())
                    }
                    (self.x_labels())
                }
                input type="range" min="0" value="0" step="1" hidden aria-label={ "Values of " (self.title) };
                output aria-live="off" {}
            }
        }
    }

    fn y_labels(&self) -> Markup {
        html! {
            svg.y aria-hidden="true" {
                @for tick in self.scale.ticks() {
                    text x="100%" y=(percent(1.0 - self.scale.place(tick))) dx="-8" dy="4" text-anchor="end" {
                        ((self.tick)(tick))
                    }
                }
            }
        }
    }

    fn grid(&self) -> Markup {
        html! {
            g.grid aria-hidden="true" {
                @for (n, tick) in self.scale.ticks().into_iter().enumerate() {
                    @let y = percent(1.0 - self.scale.place(tick));
                    line.base[n == 0 && !self.scale.is_log()] x1="0" x2="100%" y1=(y) y2=(y) {}
                }
                @if self.scale.is_log() { line.base x1="0" x2="100%" y1="100%" y2="100%" {} }
            }
        }
    }

    fn x_labels(&self) -> Markup {
        html! {
            svg.x aria-hidden="true" {
                @for XTick { at, label, is_minor } in &self.x_ticks {
                    @let anchor = if *at < 0.04 { "start" } else if *at > 0.96 { "end" } else { "middle" };
                    text.minor[*is_minor] x=(percent(*at)) y="18" text-anchor=(anchor) { (label) }
                }
            }
        }
    }

    fn marks(&self) -> Markup {
        html! {
            g.marks {
                @for Mark { from, to, words } in &self.marks {
                    rect x=(percent(*from)) width=(percent(to - from)) height="100%" { title { (words) } }
                }
            }
        }
    }
}

/// The least distance between two instants with labels, of the width.
const APART: f64 = 0.09;
/// The distance of two levels whose labels would lie on each other, of the height.
const NEAR: f64 = 0.08;

impl Notes {
    fn behind(&self) -> Markup {
        html! {
            @if let Some((to, label)) = &self.shade {
                g.notes aria-hidden="true" {
                    rect.shade x="0" y="0" width=(percent(*to)) height="100%" {}
                    @if *to > APART { text x="0" dx="4" y="12" { (label) } }
                }
            }
        }
    }

    fn before(&self, scale: Scale) -> Markup {
        let mut labelled = self.shade.as_ref().map_or(-1.0, |(to, _)| *to - APART / 2.0);
        let mut is_labelled = |at: f64| {
            let is_apart = at - labelled >= APART && at < 0.94;
            if is_apart {
                labelled = at;
            }
            is_apart
        };
        html! {
            g.notes aria-hidden="true" {
                @for (at, label) in &self.instants {
                    line.instant x1=(percent(*at)) x2=(percent(*at)) y1="0" y2="100%" {}
                    @if is_labelled(*at) { text.minor x=(percent(*at)) dx="4" y="12" { (label) } }
                }
                @for (at, (class, value, label)) in self.levels.iter().enumerate() {
                    @let y = percent(1.0 - scale.place(*value));
                    // Two labels at about the same height are at different ends.
                    @let is_near = self.levels[..at].iter().any(|(_, other, _)| (scale.place(*other) - scale.place(*value)).abs() < NEAR);
                    @let (x, dx, anchor) = if is_near { ("0", "4", "start") } else { ("100%", "-4", "end") };
                    // A label is above its line, unless another line would go through it there.
                    @let is_under = self.levels.iter().any(|(_, other, _)| (0.0..NEAR).contains(&(scale.place(*other) - scale.place(*value))) && other > value);
                    @let dy = if is_under || scale.place(*value) > 0.93 { "13" } else { "-4" };
                    line class=(class) x1="0" x2="100%" y1=(y) y2=(y) {}
                    text class=(class) x=(x) y=(y) dx=(dx) dy=(dy) text-anchor=(anchor) { (label) }
                }
            }
        }
    }
}

fn swatch(class: &str) -> Markup {
    html! {
        svg aria-hidden="true" {
            @if let Some(area) = class.strip_prefix("area ") {
                path class={ "area " (area) } d="M2 0h18v10h-18z" {}
            } @else if class.starts_with("dot ") {
                path class=(class) d="M11 5h0" {}
            } @else {
                path class=(class) d="M0 5h22" {}
            }
        }
    }
}

fn percent(place: f64) -> String {
    format!("{}%", (place * 10_000.0).round() / 100.0)
}

/// A line through points, both coordinates from 0 to 1 and upwards; `None` interrupts it.
pub(super) fn line(points: impl IntoIterator<Item = Option<(f64, f64)>>) -> String {
    let mut d = String::new();
    let mut is_begun = false;
    for point in points {
        let Some((x, y)) = point else {
            is_begun = false;
            continue;
        };
        // A single point is drawn as a dot: a line of zero length with round ends.
        let (letter, end) = if is_begun { ('L', "") } else { ('M', "h0") };
        write!(d, "{letter}{} {}{end}", thousand(x), thousand(1.0 - y)).expect("a String takes any text");
        is_begun = true;
    }
    d
}

/// A step line: each `(from, to, height)` is level, and joined to the next one if that begins where it ends.
pub(super) fn steps(levels: impl IntoIterator<Item = Option<(f64, f64, f64)>>) -> String {
    line(levels.into_iter().flat_map(|level| match level {
        Some((from, to, y)) => [Some((from, y)), Some((to, y))],
        None => [None, None],
    }))
}

/// Boxes, each `(from, to, bottom, top)`.
pub(super) fn boxes(boxes: impl IntoIterator<Item = (f64, f64, f64, f64)>) -> String {
    let mut d = String::new();
    for (from, to, bottom, top) in boxes {
        if top > bottom {
            let [left, right, low, high] = [from, to, 1.0 - bottom, 1.0 - top].map(thousand);
            write!(d, "M{left} {low}V{high}H{right}V{low}z").expect("a String takes any text");
        }
    }
    d
}

fn thousand(place: f64) -> f64 {
    (place * 10_000.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_broken_where_there_is_no_value_and_a_lone_one_is_a_dot() {
        let points = [Some((0.0, 0.0)), Some((0.5, 1.0)), None, Some((1.0, 0.25))];
        assert_eq!(line(points), "M0 1000h0L500 0M1000 750h0");
    }

    #[test]
    fn no_line_goes_through_the_label_of_another() {
        let level = |value: f64, label: &str| ("base", value, label.to_owned());
        let notes = Notes {
            levels: vec![level(47.0, "quota"), level(46.3, "found"), level(20.0, "low")],
            ..Notes::default()
        };
        let drawn = notes.before(Scale::counts([80.0].into_iter())).into_string();
        let offset = |label: &str| {
            let before = drawn.split_once(&format!(">{label}<")).unwrap().0;
            before.rsplit_once("dy=\"").unwrap().1.split('"').next().unwrap().to_owned()
        };
        assert_eq!(["quota", "found", "low"].map(offset), ["-4", "13", "-4"]);
    }

    #[test]
    fn steps_are_level_and_boxes_stand_on_each_other() {
        assert_eq!(steps([Some((0.0, 0.5, 0.5)), Some((0.5, 1.0, 1.0))]), "M0 500h0L500 500L500 0L1000 0");
        assert_eq!(boxes([(0.0, 0.5, 0.0, 0.5), (0.5, 1.0, 0.5, 0.5)]), "M0 1000V500H500V1000z");
    }
}
