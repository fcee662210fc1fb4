//! Patterns of actions and resources, with `*`, `?` and policy variables.

/// A pattern with its variables replaced. Characters that came from a variable or were escaped are not wildcards.
pub(super) type Expanded = Vec<Piece>;

/// A piece of an expanded pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// `*`: any characters, or none.
    Any,
    /// `?`: one character.
    One,
    /// This character.
    Is(char),
}

/// Replaces each `${variable}` by its value; `${*}`, `${?}` and `${$}` stand for these characters. `None` if a variable
/// has no value: then the pattern matches nothing.
pub(super) fn expand(pattern: &str, variable: &dyn Fn(&str) -> Option<String>) -> Option<Expanded> {
    let mut pieces = Vec::new();
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once("${") {
        pieces.extend(wild(before));
        let (name, after) = after.split_once('}')?;
        match name {
            "*" | "?" | "$" => pieces.extend(name.chars().map(Piece::Is)),
            _ => pieces.extend(variable(name)?.chars().map(Piece::Is)),
        }
        rest = after;
    }
    pieces.extend(wild(rest));
    Some(pieces)
}

/// Whether a pattern without variables matches `text`.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    matches_expanded(&wild(pattern).collect::<Vec<_>>(), text)
}

/// Whether a pattern matches `text`. Takes at most time proportional to the product of their lengths.
pub(super) fn matches_expanded(pattern: &[Piece], text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut read) = (0, 0);
    // The last `*`, and how much of the text it matches so far.
    let mut star = None;
    while read < text.len() {
        match pattern.get(at) {
            Some(Piece::Any) => {
                star = Some((at, read));
                at += 1;
            }
            Some(piece) if *piece == Piece::One || *piece == Piece::Is(text[read]) => {
                at += 1;
                read += 1;
            }
            _ => {
                let Some((back, taken)) = star else { return false };
                star = Some((back, taken + 1));
                at = back + 1;
                read = taken + 1;
            }
        }
    }
    pattern[at..].iter().all(|piece| *piece == Piece::Any)
}

/// The text of an expanded pattern, with wildcards as they were written.
pub(super) fn literal(pattern: &[Piece]) -> String {
    let character = |piece: &Piece| match piece {
        Piece::Any => '*',
        Piece::One => '?',
        Piece::Is(character) => *character,
    };
    pattern.iter().map(character).collect()
}

fn wild(text: &str) -> impl Iterator<Item = Piece> {
    text.chars().map(|character| match character {
        '*' => Piece::Any,
        '?' => Piece::One,
        other => Piece::Is(other),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_for_characters() {
        for (pattern, text, expected) in [
            ("a*c", "abbbc", true),
            ("a*c", "ac", true),
            ("a*c", "acb", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
        let slow = format!("{}b", "*a".repeat(200));
        assert!(!matches(&slow, &"a".repeat(2_000)));
    }

    #[test]
    fn a_variables_value_is_not_a_wildcard() {
        let variable = |name: &str| (name == "iot:ClientId").then(|| String::from("*"));
        let expanded = expand("topic/${iot:ClientId}/?", &variable).unwrap();
        assert!(matches_expanded(&expanded, "topic/*/1") && !matches_expanded(&expanded, "topic/a/1"));
        let escaped = expand("${*}${?}${$}", &variable).unwrap();
        assert!(matches_expanded(&escaped, "*?$") && !matches_expanded(&escaped, "ab$"));
        assert_eq!(expand("${iot:Unknown}", &variable), None);
        assert_eq!(expand("${iot:ClientId", &variable), None);
    }
}
