//! Compares the parameters that a lot sends with those that a template declares, by name only.
//!
//! Reads only the declared names, so that it also works for templates whose other parts are not understood.

use std::collections::HashSet;

use serde_json::Value;

use crate::wording::folded;

/// A parameter that a template declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// Its name.
    pub name: String,
    /// Whether it may be omitted: the template has a default, or the service itself provides the value.
    pub is_optional: bool,
}

/// The parameters that a template's body declares, in its order; `None` if the body is not JSON, or its `Parameters`
/// are not an object.
///
/// Source: AWS IoT Developer Guide, "Provisioning templates", parameters section. The service provides those that begin
/// with `AWS::`.
pub fn declared_parameters(body: &str) -> Option<Vec<Declared>> {
    let body: Value = serde_json::from_str(body.trim_start_matches('\u{feff}')).ok()?;
    let parameters = match body.as_object()?.get("Parameters") {
        Some(parameters) => parameters.as_object()?.clone(),
        None => serde_json::Map::new(),
    };
    let declared = parameters.into_iter().map(|(name, declaration)| Declared {
        is_optional: name.starts_with("AWS::") || declaration.get("Default").is_some(),
        name,
    });
    Some(declared.collect())
}

/// How the names of the sent parameters differ from the declared ones.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fit {
    /// Parameters that are declared without a default and not sent.
    pub missing: Vec<Missing>,
    /// Parameters whose default is used although a sent parameter has nearly the same name.
    pub overlooked: Vec<Missing>,
    /// Names that are sent but not declared, except near misses.
    pub unused: Vec<String>,
}

/// A declared parameter that is not sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Its name.
    pub parameter: String,
    /// A sent name that differs only in case, spaces and punctuation.
    pub nearly: Option<String>,
}

impl Fit {
    /// Whether the names match, ignoring parameters whose defaults are used.
    pub fn is_perfect(&self) -> bool {
        self.missing.is_empty() && self.overlooked.is_empty() && self.unused.is_empty()
    }
}

/// Compares the declared parameters with the names of those that are sent.
pub fn fit<'a>(declared: &[Declared], sent: impl IntoIterator<Item = &'a str>) -> Fit {
    let sent: Vec<&str> = sent.into_iter().collect();
    let names: HashSet<&str> = declared.iter().map(|parameter| parameter.name.as_str()).collect();
    let mut unused: Vec<&str> = sent.iter().copied().filter(|name| !names.contains(name)).collect();
    let mut fit = Fit::default();
    for Declared { name, is_optional } in declared {
        if sent.contains(&name.as_str()) {
            continue;
        }
        let nearly = unused.iter().position(|sent| folded(sent) == folded(name)).map(|at| unused.remove(at));
        let missing = Missing { parameter: name.clone(), nearly: nearly.map(str::to_owned) };
        match (is_optional, nearly) {
            (false, _) => fit.missing.push(missing),
            (true, Some(_)) => fit.overlooked.push(missing),
            (true, None) => {}
        }
    }
    fit.unused = unused.into_iter().map(str::to_owned).collect();
    fit
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = r#"{
        "Parameters": {
            "SerialNumber": {"Type": "String"},
            "Site": {"Type": "String", "Default": "WA"},
            "AWS::IoT::Certificate::Id": {"Type": "String"}
        },
        "Resources": {"anything": {"Type": "AWS::Unknown"}}
    }"#;

    fn said(sent: &[&str]) -> Fit {
        fit(&declared_parameters(BODY).unwrap(), sent.iter().copied())
    }

    fn missing(parameter: &str, nearly: Option<&str>) -> Missing {
        Missing { parameter: parameter.into(), nearly: nearly.map(str::to_owned) }
    }

    #[test]
    fn names_that_are_the_same_fit_and_defaults_may_be_left_out() {
        assert!(said(&["SerialNumber", "Site"]).is_perfect());
        assert!(said(&["SerialNumber"]).is_perfect());
    }

    #[test]
    fn what_is_missing_unused_or_nearly_right_is_told_apart() {
        assert_eq!(
            said(&["serial_number", "site", "Batch"]),
            Fit {
                missing: vec![missing("SerialNumber", Some("serial_number"))],
                overlooked: vec![missing("Site", Some("site"))],
                unused: vec!["Batch".into()],
            }
        );
        assert_eq!(said(&["DeviceId"]).missing, [missing("SerialNumber", None)]);
        // An exact match for one parameter is not a near miss for another.
        let declared = [
            Declared { name: "Site".into(), is_optional: true },
            Declared { name: "site".into(), is_optional: true },
        ];
        assert!(fit(&declared, ["site"]).is_perfect());
    }

    #[test]
    fn what_is_not_a_template_declares_nothing_that_could_be_compared() {
        for body in ["", "[]", "{\"Parameters\": []}", "{"] {
            assert_eq!(declared_parameters(body), None, "{body}");
        }
        assert_eq!(declared_parameters("\u{feff}{}"), Some(vec![]));
    }
}
