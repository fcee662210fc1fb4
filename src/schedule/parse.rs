//! Profiles as people write them: `ramp 1..200/s 60s; hold 200/s 5m; step 200..500/s by 50 every 30s; pause 10s`.

use std::str::FromStr;
use std::time::Duration;

use super::{MAX_TIME, Profile};
use crate::rate::Rate;

/// The most pieces that a profile may have.
const MAX_PIECES: usize = 10_000;

/// Text that is not a load profile: where, what was found there, and what was wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: found {found:?}; wanted {wanted}")]
pub struct NotAProfile {
    /// The column of the text, in characters from 1.
    pub column: usize,
    /// The text there; empty at the end.
    pub found: String,
    /// What should be there.
    pub wanted: &'static str,
}

impl FromStr for Profile {
    type Err = NotAProfile;

    fn from_str(text: &str) -> Result<Self, NotAProfile> {
        let mut pieces = Vec::new();
        for phase in phases(text) {
            let mut words = Words { text, rest: phase };
            if words.rest.trim().is_empty() && text.trim_end().ends_with(';') && !pieces.is_empty() {
                // A semicolon may end the last phase as well as separate it.
                continue;
            }
            read_phase(&mut words, &mut pieces)?;
            words.end()?;
        }
        let whole = |wanted| NotAProfile { column: 1, found: text.trim().to_owned(), wanted };
        let time: Duration =
            pieces.iter().map(|(_, _, time)| *time).fold(Duration::ZERO, Duration::saturating_add);
        if time > MAX_TIME {
            return Err(whole("at most 366 days in all"));
        }
        let profile = Profile::of(pieces, text.split_whitespace().collect::<Vec<_>>().join(" "));
        if profile.arrivals() > 0.0 { Ok(profile) } else { Err(whole("a phase with a rate above 0")) }
    }
}

/// The parts between semicolons: slices of `text`.
fn phases(text: &str) -> impl Iterator<Item = &str> {
    text.split(';')
}

type Pieces = Vec<(f64, f64, Duration)>;

fn read_phase(words: &mut Words<'_>, pieces: &mut Pieces) -> Result<(), NotAProfile> {
    const KINDS: &str =
        "ramp FROM..TO/s TIME, hold RATE/s TIME, step FROM..TO/s by N every TIME, or pause TIME";
    let kind = words.next();
    match kind {
        "hold" => {
            let rate = words.rate()?;
            pieces.push((rate, rate, words.time()?));
        }
        "ramp" => {
            let (from, to, _) = words.range()?;
            pieces.push((from, to, words.time()?));
        }
        "step" => read_steps(words, pieces)?,
        "pause" => pieces.push((0.0, 0.0, words.time()?)),
        _ => return Err(words.wrong(kind, KINDS)),
    }
    Ok(())
}

fn read_steps(words: &mut Words<'_>, pieces: &mut Pieces) -> Result<(), NotAProfile> {
    let (from, to, per_second) = words.range()?;
    words.literally("by", "`by` and how much each step changes the rate, as in `by 50`")?;
    let word = words.next();
    let by = number(word)
        .filter(|by| *by > 0.0)
        .ok_or_else(|| words.wrong(word, "a number above 0, such as 50"))?;
    let by = by * per_second;
    words.literally("every", "`every` and how long each step lasts, as in `every 30s`")?;
    let time = words.time()?;
    // With a little tolerance: 0.1 + 0.2 must still reach 0.3.
    let steps = ((to - from).abs() / by + 1e-9).floor();
    if steps >= (MAX_PIECES - pieces.len().min(MAX_PIECES)) as f64 {
        return Err(words.wrong(word, "fewer and larger steps: at most 10000 pieces in all"));
    }
    let direction = if to < from { -by } else { by };
    pieces.extend((0..=steps as u32).map(|step| {
        let rate = (from + direction * f64::from(step)).max(0.0);
        (rate, rate, time)
    }));
    Ok(())
}

/// The words of one phase, each a slice of the whole text, so that its column is known.
struct Words<'a> {
    text: &'a str,
    rest: &'a str,
}

impl<'a> Words<'a> {
    /// The next word; empty at the end of the phase.
    fn next(&mut self) -> &'a str {
        let rest = self.rest.trim_start();
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let (word, rest) = rest.split_at(end);
        self.rest = rest;
        word
    }

    fn wrong(&self, word: &'a str, wanted: &'static str) -> NotAProfile {
        let at = word.as_ptr() as usize - self.text.as_ptr() as usize;
        let found = word.chars().take(40).collect();
        NotAProfile { column: self.text[..at].chars().count() + 1, found, wanted }
    }

    fn literally(&mut self, wanted: &str, explained: &'static str) -> Result<(), NotAProfile> {
        let word = self.next();
        if word == wanted { Ok(()) } else { Err(self.wrong(word, explained)) }
    }

    fn rate(&mut self) -> Result<f64, NotAProfile> {
        let word = self.next();
        let rate: Result<Rate, _> = word.parse();
        rate.map(Rate::as_per_second).map_err(|_| {
            self.wrong(word, "a rate such as 200/s or 300/min, more than 0 and at most 1000000/s")
        })
    }

    /// `FROM..TO/UNIT`: both rates per second, and one of the unit as a rate per second.
    fn range(&mut self) -> Result<(f64, f64, f64), NotAProfile> {
        const WANTED: &str = "two rates such as 1..200/s, of 0 to 1000000/s";
        let word = self.next();
        let read = || {
            let (range, unit) = word.split_once('/')?;
            let (from, to) = range.split_once("..")?;
            let unit = format!("1/{unit}").parse().map(Rate::as_per_second).ok()?;
            let (from, to) = (number(from)? * unit, number(to)? * unit);
            let is_sound = from.max(to) > 0.0 && from.max(to) <= 1e6;
            is_sound.then_some((from, to, unit))
        };
        read().ok_or_else(|| self.wrong(word, WANTED))
    }

    fn time(&mut self) -> Result<Duration, NotAProfile> {
        let word = self.next();
        let time = humantime::parse_duration(word).ok();
        time.filter(|time| !time.is_zero() && *time <= MAX_TIME)
            .ok_or_else(|| self.wrong(word, "a time such as 30s, 5m or 1h30m, above 0"))
    }

    fn end(&mut self) -> Result<(), NotAProfile> {
        let word = self.next();
        if word.is_empty() { Ok(()) } else { Err(self.wrong(word, "a semicolon, or the end")) }
    }
}

/// A number of at least 0, in plain digits.
fn number(text: &str) -> Option<f64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.parse().ok().filter(|number: &f64| is_plain && number.is_finite())
}
