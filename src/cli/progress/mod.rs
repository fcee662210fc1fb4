//! Progress: a few lines that stay in place on a terminal, a line from time to time elsewhere. Always on stderr.
//!
//! Owns when something is shown. [`view`] owns the content, [`recent`] the last seconds, and [`canvas`] the drawing
//! on a terminal. Other output appears above the lines, by way of [`speech`](super::speech).

mod canvas;
mod recent;
mod view;

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::manner;
use super::speech::{self, say};
use canvas::{Canvas, Terminal};
use view::{Colours, Rows};

pub(super) use recent::Recent;
pub(super) use view::View;

/// How often the lines in place are updated.
const DRAW_EVERY: Duration = Duration::from_millis(200);

/// A run's progress display.
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
    /// A display for a run. Reads the environment variable TERM.
    pub(super) fn start() -> Self {
        let moves_cursor = std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb");
        let may_draw = moves_cursor && !speech::is_quiet() && !speech::is_json();
        let has_screen = std::io::stderr().is_terminal() && may_draw;
        let colours = if manner::has_colours() { Colours::Ansi } else { Colours::None };
        Self { screen: has_screen.then(|| Screen::start(colours)) }
    }

    /// Shows the progress of a run. Never ends.
    pub(super) async fn follow<S: Clone>(
        self,
        mut snapshots: watch::Receiver<S>,
        mut view: impl FnMut(&S) -> View,
    ) {
        let began = Instant::now();
        let mut ticks = interval_at(began + DRAW_EVERY, DRAW_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next_line = began + line_every(Duration::ZERO);
        loop {
            let now = ticks.tick().await;
            let snapshot = snapshots.borrow_and_update().clone();
            let view = view(&snapshot);
            match &self.screen {
                Some(screen) => screen.show(&view),
                None if now >= next_line => {
                    next_line = now + line_every(now - began);
                    if view.is_for_logs {
                        say(view.line());
                    }
                }
                None => {}
            }
        }
    }

    /// Removes the lines in place.
    pub(super) fn finish(&self) {
        if let Some(screen) = &self.screen {
            speech::speak_plainly();
            screen.bar.finish_and_clear();
        }
    }
}

/// The interval between a log's lines; it grows, so that a day-long run does not fill a disk.
fn line_every(elapsed: Duration) -> Duration {
    Duration::from_secs(match elapsed.as_secs() {
        0..60 => 5,
        60..600 => 15,
        600..3_600 => 60,
        _ => 300,
    })
}

impl Screen {
    fn start(colours: Colours) -> Self {
        // Not rate limited: it is drawn only as often as it is updated.
        let target = ProgressDrawTarget::term_like(Box::new(Canvas::new(Terminal)));
        let bar = ProgressBar::with_draw_target(None, target);
        speech::speak_above(&bar);
        Self { bar, colours }
    }

    fn show(&self, view: &View) {
        draw(&self.bar, view.rows(Terminal.size(), self.colours), self.colours, (view.done, view.total));
    }
}

/// Draws once: the lines are part of the style, since each of the bar's setters would draw the current state.
fn draw(bar: &ProgressBar, rows: Rows, colours: Colours, (done, total): (u64, u64)) {
    bar.set_style(style(rows, colours));
    bar.update(|state| {
        state.set_len(total);
        state.set_pos(done);
    });
}

/// The bar, if there is room for one, and the text behind and below it.
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
}
