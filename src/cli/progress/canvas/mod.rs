//! Lines that stay in place on a terminal.
//!
//! indicatif fills its lines to the terminal's width. When a terminal gets narrower it breaks such lines in two, and
//! only one part would be cleared. So the canvas takes indicatif's lines, paints them without the filling, and
//! computes how many rows the old ones now take. Everything is written at once, to avoid flicker.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::Mutex;

use indicatif::TermLike;

/// The size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) columns: usize,
    pub(super) rows: usize,
}

/// Where a canvas is painted.
pub(super) trait Surface: std::fmt::Debug + Send + Sync {
    /// The current size.
    fn size(&self) -> Size;
    /// Writes text and control sequences.
    fn put(&self, text: &str) -> io::Result<()>;
}

/// The terminal on stderr.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terminal;

impl Terminal {
    pub(super) fn size(self) -> Size {
        match rustix::termios::tcgetwinsize(io::stderr()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
                Size { columns: size.ws_col.into(), rows: size.ws_row.into() }
            }
            _ => Size { columns: 80, rows: 24 },
        }
    }
}

impl Surface for Terminal {
    fn size(&self) -> Size {
        Terminal::size(*self)
    }

    fn put(&self, text: &str) -> io::Result<()> {
        io::stderr().write_all(text.as_bytes())
    }
}

/// The terminal that indicatif draws on.
#[derive(Debug)]
pub(super) struct Canvas<S> {
    surface: S,
    painted: Mutex<Painted>,
}

#[derive(Debug, Default)]
struct Painted {
    /// The lines on the terminal, from the first to the one that the cursor is at the end of.
    rows: Vec<String>,
    /// The terminal's columns when these lines were painted.
    columns: usize,
    /// The lines that replace them.
    next: Vec<String>,
}

impl<S: Surface> Canvas<S> {
    pub(super) fn new(surface: S) -> Self {
        Self { surface, painted: Mutex::default() }
    }

    fn painted(&self) -> std::sync::MutexGuard<'_, Painted> {
        self.painted.lock().expect("no code panics while it holds this lock")
    }
}

impl Painted {
    /// The text that turns the old lines into the next; `None` if they are the same.
    fn repaint(&mut self, columns: usize) -> Option<String> {
        let next = std::mem::take(&mut self.next);
        if next == self.rows && columns == self.columns {
            return None;
        }
        let mut text = String::from("\r");
        let above = self.rows.iter().map(|row| broken_into(row, columns)).sum::<usize>().saturating_sub(1);
        if above > 0 {
            write!(text, "\x1b[{above}A").expect("a String takes any text");
        }
        if columns != self.columns {
            text += "\x1b[J";
        }
        for (n, row) in next.iter().enumerate() {
            text += if n > 0 { "\r\n" } else { "" };
            text += row;
            text += "\x1b[K";
        }
        // Clears surplus old lines.
        text += if next.is_empty() { "\x1b[J" } else { "" };
        if (1..self.rows.len()).contains(&next.len()) {
            text += "\x1b[J";
        }
        (self.rows, self.columns) = (next, columns);
        Some(text)
    }
}

/// How many rows a line takes on a terminal with this many columns.
fn broken_into(line: &str, columns: usize) -> usize {
    width(line).div_ceil(columns.max(1)).max(1)
}

/// The width of a text in columns, without colour sequences.
pub(super) fn width(text: &str) -> usize {
    let mut columns = 0;
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            // Colours are the only control sequences here.
            '\x1b' => characters.by_ref().take_while(|c| *c != 'm').for_each(drop),
            _ => columns += 1,
        }
    }
    columns
}

impl<S: Surface> TermLike for Canvas<S> {
    fn width(&self) -> u16 {
        self.surface.size().columns.try_into().unwrap_or(u16::MAX)
    }

    fn height(&self) -> u16 {
        self.surface.size().rows.try_into().unwrap_or(u16::MAX)
    }

    // The canvas moves the cursor itself.
    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_down(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        Ok(())
    }

    fn write_line(&self, line: &str) -> io::Result<()> {
        self.write_str(line)
    }

    /// Takes a line; drops the blanks that indicatif fills it with.
    fn write_str(&self, text: &str) -> io::Result<()> {
        if !text.trim_ascii().is_empty() {
            self.painted().next.push(text.to_owned());
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let columns = self.surface.size().columns;
        let text = self.painted().repaint(columns);
        text.map_or(Ok(()), |text| self.surface.put(&text))
    }
}

#[cfg(test)]
mod tests;
