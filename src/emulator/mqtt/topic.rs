//! Topics and filters: which are valid, and which filter selects which topic.
//!
//! Owns the rules of MQTT 3.1.1 section 4.7, and the service's limits on both. What a topic is for is the account's
//! concern.

use super::Limits;

/// Whether the service allows publishing to `topic`: it has no wildcards and is within the limits (MQTT 3.1.1 section
/// 4.7).
pub(in super::super) fn valid_topic(topic: &str, limits: &Limits) -> bool {
    within_limits(topic, limits) && !topic.contains(['+', '#'])
}

/// Whether the service allows subscribing to `filter`: wildcards take up whole levels, and `#` only the last (MQTT
/// 3.1.1 section 4.7.1).
pub(in super::super) fn valid_filter(filter: &str, limits: &Limits) -> bool {
    let mut levels = filter.split('/').rev();
    let last = levels.next().unwrap_or_default();
    let whole = |level: &str| level == "+" || !level.contains(['+', '#']);
    within_limits(filter, limits) && (last == "#" || whole(last)) && levels.all(whole)
}

fn within_limits(text: &str, limits: &Limits) -> bool {
    !text.is_empty()
        && text.len() <= limits.topic_bytes as usize
        && !text.contains('\0')
        && text.split('/').count() <= limits.topic_levels as usize
}

/// Whether `filter` selects `topic`; both must be valid. A filter that starts with a wildcard does not select topics
/// that start with `$` (MQTT 3.1.1 section 4.7.2). Unlike in the standard, the service's `par/#` does not select `par`
/// (AWS IoT Developer Guide, "MQTT", differences from the specification).
///
/// The library's function is not used because it panics on topics that start with a non-ASCII character.
pub(in super::super) fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        match (wanted, levels.next()) {
            ("#", level) => return level.is_some(),
            ("+", Some(_)) => {}
            (wanted, Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn filters_select_as_the_standard_says() {
        for (filter, topic, selects) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", false),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", false),
            ("sport/#", "sport/", true),
            ("#", "a/b", true),
            ("#", "$aws/a", false),
            ("+/monitor", "$SYS/monitor", false),
            ("$SYS/#", "$SYS/monitor", true),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+", "/finance", false),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("a/b", "a/b/c", false),
            ("a/b/c", "a/b", false),
            ("ü/+", "ü/ß", true),
        ] {
            assert_eq!(matches(filter, topic), selects, "{filter} {topic}");
        }
    }

    #[test]
    fn filters_and_topics_keep_to_the_rules() {
        for filter in ["#", "+", "a/+/b", "a/#", "/", "+/#", "a//b", "1/2/3/4/5/6/7/8"] {
            assert!(valid_filter(filter, &Limits::default()), "{filter}");
        }
        for filter in ["", "a#", "#/a", "a+", "a/b+/c", "1/2/3/4/5/6/7/8/9", "a\0", &"a".repeat(257)] {
            assert!(!valid_filter(filter, &Limits::default()), "{filter}");
        }
        assert!(valid_topic("a/b", &Limits::default()));
        assert!(!valid_topic("a/+", &Limits::default()));
        assert!(!valid_topic("a/#", &Limits::default()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn matching_agrees_with_a_plain_definition(filter in "[ab+]?(/[ab+]){0,3}(/#)?", topic in "[ab]?(/[ab]){0,4}") {
            prop_assume!(valid_filter(&filter, &Limits::default()) && valid_topic(&topic, &Limits::default()));
            fn plain(filter: &[&str], topic: &[&str]) -> bool {
                match (filter, topic) {
                    (["#"], [_, ..]) | ([], []) => true,
                    ([f, filter @ ..], [t, topic @ ..]) => (*f == "+" || f == t) && plain(filter, topic),
                    _ => false,
                }
            }
            let (f, t): (Vec<_>, Vec<_>) = (filter.split('/').collect(), topic.split('/').collect());
            prop_assert_eq!(matches(&filter, &topic), plain(&f, &t));
        }
    }
}
