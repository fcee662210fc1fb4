use std::sync::Arc;

use indicatif::{ProgressBar, ProgressDrawTarget};

use super::*;
use crate::cli::progress::draw;
use crate::cli::progress::view::{Colours, Rows};

/// A terminal that breaks and joins its lines when its width changes, as most do.
#[derive(Debug, Default)]
struct Screen {
    /// Lines as they were ended by a line feed, however many rows they take.
    lines: Vec<Vec<char>>,
    row: usize,
    column: usize,
    columns: usize,
    writes: usize,
}

#[derive(Debug, Clone)]
struct Shared(Arc<Mutex<Screen>>);

impl Shared {
    fn new(columns: usize) -> Self {
        Self(Arc::new(Mutex::new(Screen { lines: vec![vec![]], columns, ..Screen::default() })))
    }

    fn resize(&self, columns: usize) {
        self.0.lock().unwrap().resize(columns);
    }

    fn shows(&self) -> Vec<String> {
        let screen = self.0.lock().unwrap();
        screen.lines.iter().map(|line| line.iter().collect::<String>().trim_end().to_owned()).collect()
    }
}

impl Surface for Shared {
    fn size(&self) -> Size {
        Size { columns: self.0.lock().unwrap().columns, rows: 24 }
    }

    fn put(&self, text: &str) -> io::Result<()> {
        self.0.lock().unwrap().put(text);
        Ok(())
    }
}

impl Screen {
    /// Each line is a row; those that are longer are cut into several.
    fn resize(&mut self, columns: usize) {
        self.columns = columns;
        let above =
            self.lines[..self.row].iter().map(|line| line.len().div_ceil(columns).max(1)).sum::<usize>();
        self.row = above + self.column.saturating_sub(1) / columns;
        self.column %= columns;
        self.lines = self
            .lines
            .iter()
            .flat_map(|line| match line.len() {
                0 => vec![vec![]],
                _ => line.chunks(columns).map(<[char]>::to_vec).collect(),
            })
            .collect();
    }

    fn put(&mut self, text: &str) {
        self.writes += 1;
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            match c {
                '\r' => self.column = 0,
                '\n' => {
                    self.row += 1;
                    if self.row == self.lines.len() {
                        self.lines.push(vec![]);
                    }
                }
                '\x1b' => {
                    assert_eq!(rest.next(), Some('['), "{text:?}");
                    let mut number = String::new();
                    let end = loop {
                        match rest.next().unwrap() {
                            digit @ '0'..='9' => number.push(digit),
                            end => break end,
                        }
                    };
                    self.control(end, number.parse().unwrap_or(0));
                }
                c => self.write(c),
            }
        }
    }

    fn control(&mut self, kind: char, number: usize) {
        match kind {
            'A' => self.row = self.row.saturating_sub(number),
            'K' => self.lines[self.row].truncate(self.column),
            'J' => {
                self.lines[self.row].truncate(self.column);
                self.lines.truncate(self.row + 1);
            }
            'm' => {}
            other => panic!("{other} is not known here"),
        }
    }

    fn write(&mut self, c: char) {
        assert!(self.column < self.columns, "a line is wider than the terminal: {:?}", self.lines[self.row]);
        let line = &mut self.lines[self.row];
        line.resize(line.len().max(self.column + 1), ' ');
        line[self.column] = c;
        self.column += 1;
    }
}

fn bar(on: &Shared) -> ProgressBar {
    let target = ProgressDrawTarget::term_like(Box::new(Canvas::new(on.clone())));
    ProgressBar::with_draw_target(None, target)
}

fn show(bar: &ProgressBar, done: u64, text: &str) {
    draw(bar, Rows { bar_width: 5, text: text.to_owned() }, Colours::Ansi, (done, 10));
}

#[test]
fn lines_stay_in_place_whether_they_become_more_or_fewer() {
    let screen = Shared::new(40);
    screen.put("said before\r\n").unwrap();
    let bar = bar(&screen);
    show(&bar, 0, "first\nsecond");
    assert_eq!(screen.shows(), ["said before", "      first", "second"]);
    show(&bar, 10, "one\ntwo\nthree");
    assert_eq!(screen.shows(), ["said before", "===== one", "two", "three"]);
    show(&bar, 10, "alone");
    assert_eq!(screen.shows(), ["said before", "===== alone"]);
    bar.finish_and_clear();
    assert_eq!(screen.shows(), ["said before", ""]);
}

#[test]
fn what_is_said_meanwhile_stands_above() {
    let screen = Shared::new(40);
    let bar = bar(&screen);
    show(&bar, 10, "one\ntwo");
    bar.suspend(|| screen.put("listen\r\n").unwrap());
    assert_eq!(screen.shows(), ["listen", "===== one", "two"]);
    show(&bar, 10, "one\nthree");
    assert_eq!(screen.shows(), ["listen", "===== one", "three"]);
}

#[test]
fn a_terminal_of_another_width_keeps_nothing_of_the_old_lines() {
    let screen = Shared::new(40);
    screen.put("said before\r\n").unwrap();
    let bar = bar(&screen);
    for (columns, message) in [
        (40, "twenty characters..\nand thirty-three characters here."),
        (12, "small\nlines"),
        (7, "s"),
        (30, "larger again\nwith two lines"),
        (9, "ab\ncd\nef"),
    ] {
        screen.resize(columns);
        show(&bar, 10, message);
        let shown = screen.shows().concat().replace("said before", "");
        assert_eq!(shown, format!("===== {}", message.replace('\n', "")), "{columns} columns");
    }
}

#[test]
fn a_line_that_stays_the_same_is_not_written_again() {
    let screen = Shared::new(40);
    let bar = bar(&screen);
    show(&bar, 10, "same");
    let writes = screen.0.lock().unwrap().writes;
    show(&bar, 10, "same");
    bar.tick();
    assert_eq!(screen.0.lock().unwrap().writes, writes);
}
