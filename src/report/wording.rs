//! Numbers as text: the same in a terminal and on a page.

pub(super) use super::terminal::human_latency as latency;

/// A count with thousands separators: `12,345`.
pub(super) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A rate with about three digits: `49.8/s`.
pub(super) fn rate(per_s: f64) -> String {
    match per_s {
        _ if per_s <= 0.0 => String::from("0/s"),
        ..1.0 => format!("{per_s:.2}/s"),
        ..100.0 => format!("{per_s:.1}/s"),
        _ => format!("{}/s", count(per_s.round() as u64)),
    }
}

/// A share from 0 to 1 as a percentage: `0.12 %`. Never 0 % for more than zero, nor 100 % for less than all.
pub(super) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent {
        _ if percent <= 0.0 => String::from("0 %"),
        ..0.01 => String::from("< 0.01 %"),
        ..1.0 => format!("{percent:.2} %"),
        ..99.9 => format!("{percent:.1} %"),
        ..100.0 => String::from("> 99.9 %"),
        _ => String::from("100 %"),
    }
}

/// A change as a signed percentage without its unit: `+8.3`, `-0.42`, `+1,200`.
pub(super) fn signed_percent(change: f64) -> String {
    let percent = change.abs() * 100.0;
    let sign = if change < 0.0 { "-" } else { "+" };
    match percent {
        ..0.005 => String::from("0"),
        ..1.0 => format!("{sign}{percent:.2}"),
        ..1000.0 => format!("{sign}{percent:.1}"),
        _ => format!("{sign}{}", count(percent.round() as u64)),
    }
}

/// A time since the start: `45 s`, `2:05`, `1:02:05`.
pub(super) fn clock(seconds: u64) -> String {
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest} s"),
        (0, _) => format!("{minutes}:{rest:02}"),
        _ => format!("{hours}:{minutes:02}:{rest:02}"),
    }
}

/// A duration: `0.4 s`, `45.2 s`, `2 min 5 s`, `1 h 2 min`.
pub(super) fn length(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..100 => format!("{seconds:.1} s"),
        100..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 999, 1_000, 12_345_678].map(count), ["0", "999", "1,000", "12,345,678"]);
        assert_eq!([0.0, 0.25, 49.84, 1234.5].map(rate), ["0/s", "0.25/s", "49.8/s", "1,235/s"]);
        let shares = [0.0, 0.000_01, 0.001_2, 0.5, 0.999_9, 1.0].map(percent);
        assert_eq!(shares, ["0 %", "< 0.01 %", "0.12 %", "50.0 %", "> 99.9 %", "100 %"]);
        assert_eq!([0.0, 0.083, -0.004_2, 12.0].map(signed_percent), ["0", "+8.3", "-0.42", "+1,200"]);
        assert_eq!([45, 125, 3_725].map(clock), ["45 s", "2:05", "1:02:05"]);
        assert_eq!([0.42, 125.0, 3_725.0].map(length), ["0.4 s", "2 min 5 s", "1 h 2 min"]);
    }
}
