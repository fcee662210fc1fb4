//! What a spreadsheet does to identifiers: it takes them for numbers, dates and formulas, and writes errors in their place.
//!
//! Judges by the look of a text alone; whether it is damage, only people can say.

/// What a spreadsheet seems to have made of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Damage {
    /// An error in place of the value, such as `#N/A`. It never identifies anything.
    Error,
    /// A number in scientific notation: digits are lost.
    Scientific,
    /// A number that ends in `.0`, as statistics tools write whole numbers: leading zeros are lost.
    Fraction,
    /// A date that was made of something like `1-3` or `MAR1`.
    Date,
    /// A formula, such as `="0420005"`.
    Formula,
    /// The apostrophe that makes a spreadsheet leave a text alone, which then is part of the text.
    Apostrophe,
}

impl Damage {
    /// What a key looks like, if it looks like one of these.
    pub(super) fn of_key(text: &str) -> Option<Self> {
        Self::of_value(text).or_else(|| {
            if text.starts_with('\'') {
                Some(Self::Apostrophe)
            } else if is_fraction(text) {
                Some(Self::Fraction)
            } else if is_date(text) {
                Some(Self::Date)
            } else {
                None
            }
        })
    }

    /// What any value looks like, if it looks like one of these. Dates, fractions and apostrophes may well be intended where
    /// they identify nothing.
    pub(super) fn of_value(text: &str) -> Option<Self> {
        if is_error(text) {
            Some(Self::Error)
        } else if is_scientific(text) {
            Some(Self::Scientific)
        } else if text.starts_with("=\"") {
            Some(Self::Formula)
        } else {
            None
        }
    }

    /// What it looks like, in words.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Error => "a spreadsheet's error",
            Self::Scientific => "a number that a spreadsheet has rounded",
            Self::Fraction => "a whole number that was written as a fraction",
            Self::Date => "a date that a spreadsheet has made of it",
            Self::Formula => "a spreadsheet's formula",
            Self::Apostrophe => "a spreadsheet's mark for text",
        }
    }
}

/// `#N/A`, `#REF!`, `#NAME?` and their translations, `Err:502`, and the number signs of a column that is too narrow.
fn is_error(text: &str) -> bool {
    if let Some(number) = text.strip_prefix("Err:") {
        return number.len() == 3 && number.bytes().all(|byte| byte.is_ascii_digit());
    }
    let Some(word) = text.strip_prefix('#') else { return false };
    let word = word.strip_prefix(['¡', '¿']).unwrap_or(word);
    let is_word = |word: &str| {
        word.chars().any(char::is_alphabetic)
            && word.chars().all(|c| c.is_uppercase() || c.is_ascii_digit() || matches!(c, '/' | '_'))
    };
    let is_not_available = |word: &str| {
        let mut parts = word.split('/');
        let is_letter =
            |part: Option<&str>| part.is_some_and(|part| part.chars().count() == 1 && is_word(part));
        is_letter(parts.next()) && is_letter(parts.next()) && parts.next().is_none()
    };
    let is_narrow = text.len() >= 3 && text.bytes().all(|byte| byte == b'#');
    is_narrow
        || word.strip_suffix(['!', '?']).is_some_and(is_word)
        || is_not_available(word)
        || ["NV", "GETTING_DATA", "YOK"].contains(&word)
}

/// `4.2E+14`, also with a decimal comma. Spreadsheets always write the exponent's sign; a serial number like `12E4` has none.
fn is_scientific(text: &str) -> bool {
    let Some((mantissa, exponent)) = text.split_once(['E', 'e']) else { return false };
    let mantissa = mantissa.strip_prefix(['-', '+']).unwrap_or(mantissa);
    let (whole, fraction) = mantissa.split_once(['.', ',']).unwrap_or((mantissa, "0"));
    let exponent = exponent.strip_prefix(['+', '-']);
    whole.len() == 1 && is_number(whole) && is_number(fraction) && exponent.is_some_and(is_number)
}

/// `420005.0`: at least five digits, since `1.0` may be a version.
fn is_fraction(text: &str) -> bool {
    text.strip_suffix(".0").is_some_and(|whole| whole.len() >= 5 && is_number(whole))
}

/// `1-Mar`, `Mar-01`, `01-Mar-24`, `3/1/2024`, `01.03.2024`, and any of them with a time of day.
fn is_date(text: &str) -> bool {
    let (date, time) = text.split_once(' ').unwrap_or((text, ""));
    let is_time = time.is_empty() || (time.contains(':') && time.starts_with(|c: char| c.is_ascii_digit()));
    let is_midnight = time.starts_with("00:00");
    let parts = |separator: char| date.split(separator).collect::<Vec<_>>();
    let is_day = |part: &str| is_number(part) && part.len() <= 2;
    let is_year = |part: &str| is_number(part) && matches!(part.len(), 2 | 4);
    is_time
        && match (parts('-')[..].as_ref(), parts('/')[..].as_ref(), parts('.')[..].as_ref()) {
            ([day, month], ..) if is_month(month) => is_day(day),
            ([month, year], ..) if is_month(month) => is_year(year),
            ([day, month, year], ..) if is_month(month) => is_day(day) && is_year(year),
            ([year, month, day], ..) => is_midnight && is_year(year) && is_day(month) && is_day(day),
            (_, [a, b, year], _) | (_, _, [a, b, year]) => {
                is_day(a) && is_day(b) && is_number(year) && year.len() == 4
            }
            _ => false,
        }
}

fn is_month(text: &str) -> bool {
    const MONTHS: [&str; 12] =
        ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    MONTHS.iter().any(|month| text.eq_ignore_ascii_case(month))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::Damage::{Apostrophe, Date, Error, Formula, Fraction, Scientific};
    use super::*;

    #[test]
    fn damage_is_told_by_its_look() {
        for (text, damage) in [
            ("#N/A", Error),
            ("#REF!", Error),
            ("#DIV/0!", Error),
            ("#NAME?", Error),
            ("#¿NOMBRE?", Error),
            ("#BEZUG!", Error),
            ("#NV", Error),
            ("#Н/Д", Error),
            ("########", Error),
            ("Err:502", Error),
            ("4.2E+14", Scientific),
            ("8,94412E+19", Scientific),
            ("1E-05", Scientific),
            ("420005.0", Fraction),
            ("1-Mar", Date),
            ("Mar-01", Date),
            ("01-MAR-24", Date),
            ("3/1/2024", Date),
            ("01.03.2024", Date),
            ("2024-03-01 00:00:00", Date),
            ("=\"0420005\"", Formula),
            ("'0420006", Apostrophe),
        ] {
            assert_eq!(Damage::of_key(text), Some(damage), "{text}");
        }
    }

    #[test]
    fn ordinary_keys_are_left_alone() {
        for text in [
            "",
            "0420001",
            "KTL_0001",
            "AA:BB:CC:00:00:01",
            "12E4",
            "1E10",
            "E+1",
            "12E+5x",
            "#1",
            "#A",
            "##",
            "1.0",
            "1.0.1",
            "1-Marx",
            "2024-03-01",
            "12-34",
            "1/2",
            "192.168.0.1",
            "10.0.0.2024",
            "a'b",
            "=x",
            "Err:5",
            "MAR1",
            "550e8400-e29b-41d4-a716-446655440000",
            "unit-7-A",
            "1-2-3",
            "sn 1",
            "00:00",
        ] {
            assert_eq!(Damage::of_key(text), None, "{text}");
        }
    }
}
