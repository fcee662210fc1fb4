//! Progress: a few lines that stay in place on a terminal, a line every few seconds elsewhere. On stderr, always.
//!
//! Owns when something is shown. What it says is [`view`]'s, the last seconds are [`recent`]'s, and how it gets on a
//! terminal is [`canvas`]'s. What else is said meanwhile appears above it: [`speech`](super::speech) sees to that.

mod canvas;
mod recent;
mod view;

use std::ffi::OsStr;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::speech::{self, say};
use crate::engine::find::FindSnapshot;
use crate::engine::load::LoadSnapshot;
use crate::engine::{Rates, Snapshot};
use crate::report::step_line;
use canvas::{Canvas, Terminal};
use recent::Recent;
use view::{Colours, Rows, View};

/// How often a log gets a line.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// How often the lines in place are looked at.
const DRAW_EVERY: Duration = Duration::from_millis(200);

/// What people see while a run goes on.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    screen: Option<Screen>,
}

/// A terminal that can move its cursor.
#[derive(Debug, Clone)]
struct Screen {
    bar: ProgressBar,
    colours: Colours,
}

impl Progress {
    /// Ready to follow a run. Reads the environment: TERM, NO_COLOR.
    pub(super) fn start() -> Self {
        let moves_cursor = std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb");
        let has_screen = std::io::stderr().is_terminal() && moves_cursor;
        let colours = || Colours::wanted(std::env::var_os("NO_COLOR").as_deref());
        Self { screen: has_screen.then(|| Screen::start(colours())) }
    }

    /// Shows where a provisioning run under these limits stands. Never ends.
    pub(super) async fn follow(self, snapshots: watch::Receiver<Snapshot>, rates: Rates) {
        let mut recent = Recent::default();
        recent.see(Instant::now(), &snapshots.borrow());
        let view = move |snapshot: &Snapshot| {
            recent.see(Instant::now(), snapshot);
            View::of_provision(snapshot, &recent, &rates)
        };
        self.follow_with(snapshots, view).await;
    }

    /// Shows where a load test stands. Never ends.
    pub(super) async fn follow_load(self, snapshots: watch::Receiver<LoadSnapshot>) {
        self.follow_with(snapshots, View::of_load).await;
    }

    /// Shows where a search stands, and says what came of each step. Never ends.
    pub(super) async fn follow_search(self, mut snapshots: watch::Receiver<FindSnapshot>) {
        let mut ticks = interval_at(Instant::now() + DRAW_EVERY, DRAW_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut said = 0;
        loop {
            ticks.tick().await;
            let snapshot = snapshots.borrow_and_update().clone();
            for step in &snapshot.steps[said..] {
                say(step_line(step));
            }
            said = snapshot.steps.len();
            // A log has the steps; where one of them stands would not be worth a line.
            if let Some(screen) = &self.screen {
                screen.show(&View::of_search(&snapshot));
            }
        }
    }

    async fn follow_with<S: Clone>(
        self,
        mut snapshots: watch::Receiver<S>,
        mut view: impl FnMut(&S) -> View,
    ) {
        let every = if self.screen.is_some() { DRAW_EVERY } else { LINE_EVERY };
        let mut ticks = interval_at(Instant::now() + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let snapshot = snapshots.borrow_and_update().clone();
            let view = view(&snapshot);
            match &self.screen {
                Some(screen) => screen.show(&view),
                None => say(view.line()),
            }
        }
    }

    /// Takes the lines in place away.
    pub(super) fn finish(&self) {
        if let Some(screen) = &self.screen {
            speech::speak_plainly();
            screen.bar.finish_and_clear();
        }
    }
}

impl Screen {
    fn start(colours: Colours) -> Self {
        // Not rate limited: it is drawn to as seldom as it is looked at.
        let target = ProgressDrawTarget::term_like(Box::new(Canvas::new(Terminal)));
        let bar = ProgressBar::with_draw_target(None, target);
        speech::speak_above(&bar);
        Self { bar, colours }
    }

    fn show(&self, view: &View) {
        draw(&self.bar, view.rows(Terminal.size(), self.colours), self.colours, (view.done, view.total));
    }
}

/// Draws once: the lines come with the style, since each of the bar's setters would draw what it has so far.
fn draw(bar: &ProgressBar, rows: Rows, colours: Colours, (done, total): (u64, u64)) {
    bar.set_style(style(rows, colours));
    bar.update(|state| {
        state.set_len(total);
        state.set_pos(done);
    });
}

/// The bar, if there is room for one, and everything else behind and below it.
fn style(Rows { bar_width, text }: Rows, colours: Colours) -> ProgressStyle {
    let template = match (bar_width, colours) {
        (0, _) => String::from("{rows}"),
        (width, Colours::None) => format!("{{bar:{width}}} {{rows}}"),
        (width, Colours::Ansi) => format!("\x1b[36m{{bar:{width}}}\x1b[0m {{rows}}"),
    };
    let style = ProgressStyle::with_template(&template)
        .expect("every width makes a template: a test has parsed them");
    // What cannot be written is drawn again soon.
    let rows = move |_: &ProgressState, out: &mut dyn std::fmt::Write| {
        let _ = out.write_str(&text);
    };
    style.with_key("rows", rows).progress_chars("=> ")
}

impl Colours {
    /// As <https://no-color.org> has it: any text but the empty one means none.
    fn wanted(no_color: Option<&OsStr>) -> Self {
        match no_color {
            Some(value) if !value.is_empty() => Colours::None,
            _ => Colours::Ansi,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_makes_a_template() {
        for width in 0..200 {
            for colours in [Colours::None, Colours::Ansi] {
                style(Rows { bar_width: width, text: String::new() }, colours);
            }
        }
    }

    #[test]
    fn no_color_takes_any_text() {
        let wanted = |value: Option<&str>| Colours::wanted(value.map(OsStr::new));
        assert_eq!(
            [wanted(None), wanted(Some("")), wanted(Some("1"))],
            [Colours::Ansi, Colours::Ansi, Colours::None]
        );
    }
}
