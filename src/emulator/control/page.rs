//! Lists, one page at a time.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::reply::ApiError;
use super::request::Call;

/// The most items that a list operation returns at once, and how many it returns by default.
const MAX_RESULTS: usize = 250;

/// The names of a list's parameters: token, page size, and token of the next page.
pub(super) struct Style([&'static str; 3]);

/// The names that newer list operations use.
pub(super) const TOKENS: Style = Style(["nextToken", "maxResults", "nextToken"]);
/// The names that older list operations use.
pub(super) const MARKERS: Style = Style(["marker", "pageSize", "nextMarker"]);

/// A page of a list ordered by key. Its token is the last key of the previous page, so that no item that stays is left
/// out, even if others are added or removed meanwhile.
pub(super) fn page<'a, T>(
    call: &Call<'_>,
    Style([token, size, next]): Style,
    field: &str,
    items: impl Iterator<Item = (&'a str, T)>,
    show: impl Fn(&str, T) -> Value,
) -> Result<Value, ApiError> {
    let (after, size) = (after(call, token)?, size_of(call, size)?);
    let mut rest = items.filter(|(key, _)| after.as_ref().is_none_or(|after| *key > after.as_str()));
    let (mut shown, mut last) = (Vec::new(), "");
    for (key, item) in rest.by_ref().take(size) {
        shown.push(show(key, item));
        last = key;
    }
    let mut reply = json!({ field: shown });
    if rest.next().is_some() {
        reply[next] = URL_SAFE_NO_PAD.encode(last).into();
    }
    Ok(reply)
}

/// A page of a list ordered by creation time, latest first unless `isAscendingOrder` says otherwise.
pub(super) fn page_by_age<T>(
    call: &Call<'_>,
    field: &str,
    items: impl Iterator<Item = (SystemTime, T)>,
    show: impl Fn(T) -> Value,
) -> Result<Value, ApiError>
where
    T: Copy + Ord + ToString,
{
    let Style([token, size, next]) = MARKERS;
    let (after, size) = (after(call, token)?, size_of(call, size)?);
    let ascending = call.query.flag("isAscendingOrder")?;
    // Leading digits make the keys' texts sort in the same order as the keys.
    let key = |(made, item): &(SystemTime, T)| {
        let nanos = made.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        format!("{nanos:030} {}", item.to_string())
    };
    let mut items: Vec<_> = items.collect();
    items.sort_unstable();
    if !ascending {
        items.reverse();
    }
    let is_before = |item: &(SystemTime, T)| {
        after.as_ref().is_some_and(|after| if ascending { key(item) <= *after } else { key(item) >= *after })
    };
    let start = items.partition_point(is_before);
    let page = &items[start..items.len().min(start + size)];
    let mut reply = json!({ field: page.iter().map(|(_, item)| show(*item)).collect::<Vec<_>>() });
    if let Some(last) = page.last().filter(|_| start + size < items.len()) {
        reply[next] = URL_SAFE_NO_PAD.encode(key(last)).into();
    }
    Ok(reply)
}

fn size_of(call: &Call<'_>, name: &str) -> Result<usize, ApiError> {
    match call.query.number(name)? {
        None => Ok(MAX_RESULTS),
        Some(asked) => usize::try_from(asked)
            .ok()
            .filter(|asked| (1..=MAX_RESULTS).contains(asked))
            .ok_or_else(|| ApiError::invalid(format!("{name} must be from 1 to {MAX_RESULTS}."))),
    }
}

fn after(call: &Call<'_>, name: &str) -> Result<Option<String>, ApiError> {
    let read = |token: &str| {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok();
        let key = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        key.ok_or_else(|| ApiError::invalid("The token is not one that this operation returned."))
    };
    call.query.text(name).map(read).transpose()
}

/// A timestamp as rest-json has it: seconds since 1970, with fractions.
pub(super) fn seconds(instant: SystemTime) -> f64 {
    instant.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as f64 / 1000.0
}
