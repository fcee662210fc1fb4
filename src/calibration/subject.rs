//! What a calibration works with: the template, and devices that are made up for it.

use std::collections::BTreeMap;

use crate::certificate::CertificateId;
use crate::identity::{Identity, ParameterPlan};
use crate::provisioning::Topics;
use crate::template::{CertificateFacts, Parameters, Template};

/// The template, and devices that are made up for it.
#[derive(Debug)]
pub struct Subject {
    /// The template's name.
    pub template: String,
    /// Its body.
    pub body: String,
    /// The devices, each with its number in the ledger.
    pub devices: Vec<(i64, Identity)>,
    /// What a row becomes.
    pub parameters: ParameterPlan,
    /// The parameter that is left out of a request, and the device that does without it: its place in the list. Its value
    /// in that row is empty, unless it is the key.
    pub left_out: (String, usize),
}

impl Subject {
    /// The topics of the template, and those of certificates.
    pub(super) fn topics(&self) -> Topics {
        Topics::new(&self.template)
    }

    /// The parameters of a device.
    pub(super) fn parameters(&self, device: &Identity, id: &CertificateId) -> BTreeMap<String, String> {
        let expanded = self.parameters.expand(device, id.as_str());
        expanded.map(|(name, value)| (name.to_owned(), value.into_owned())).collect()
    }

    /// The thing that the template makes of these parameters; `None` if that cannot be told.
    pub(super) fn thing(&self, parameters: &BTreeMap<String, String>, id: &CertificateId) -> Option<String> {
        let template = Template::parse(&self.body).ok()?;
        let parameters: Parameters<'_> =
            parameters.iter().map(|(name, value)| (name.into(), value.into())).collect();
        let facts = CertificateFacts { id: Some(id.as_str()), subject: None };
        Some(template.evaluate(facts, &parameters).ok()?.thing?.name)
    }

    /// `text` without anything that names this account or what it has: the template, its parameters and their values,
    /// account numbers, ids. `detail` is what was to blame, which becomes a scenario's placeholder for it.
    pub(super) fn anonymous(&self, text: &str, detail: &str) -> String {
        let mut text = replaced(text, detail, "{detail}");
        for (_, device) in &self.devices {
            for value in &device.values {
                text = replaced(&text, value, "VALUE");
            }
        }
        text = replaced(&text, &self.template, "TEMPLATE");
        for name in self.parameters.names() {
            text = replaced(&text, name, "PARAMETER");
        }
        without_account(&crate::wording::without_ids(&text))
    }
}

/// Of the parameters without a default, the one that things are named by, and one to leave out that they are not named
/// by; the same one if there is no other.
pub fn roles<'a>(body: &str, parameters: &'a [String]) -> Option<(&'a String, &'a String)> {
    let thing = |changed: Option<&String>| -> Option<String> {
        let value = |name: &String| if Some(name) == changed { "another" } else { "one" };
        let given: Parameters<'_> = parameters.iter().map(|name| (name.into(), value(name).into())).collect();
        let facts = CertificateFacts { id: Some("0"), subject: None };
        Some(Template::parse(body).ok()?.evaluate(facts, &given).ok()?.thing?.name)
    };
    let usual = thing(None);
    let names = |name: &&String| usual.is_some() && thing(Some(name)) != usual;
    let naming = parameters.iter().find(names).or(parameters.first())?;
    let others = || parameters.iter().filter(|name| *name != naming);
    let left_out = others().find(|name| !names(name)).or(others().next()).unwrap_or(naming);
    Some((naming, left_out))
}

/// `text` with every occurrence of the word `name` replaced.
fn replaced(text: &str, name: &str, by: &str) -> String {
    if name.is_empty() {
        return text.to_owned();
    }
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find(name) {
        let (before, after) = (&rest[..at], &rest[at + name.len()..]);
        let is_word = !before.ends_with(is_part) && !after.starts_with(is_part);
        out.push_str(before);
        out.push_str(if is_word { by } else { name });
        rest = after;
    }
    out + rest
}

/// `text` with the account number of AWS's documentation in place of any other.
fn without_account(text: &str) -> String {
    const EXAMPLE: &str = "123456789012";
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let digits = rest[start..].find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |end| start + end);
        out.push_str(&rest[..start]);
        out.push_str(if digits - start == EXAMPLE.len() { EXAMPLE } else { &rest[start..digits] });
        rest = &rest[digits..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::LotShape;

    #[test]
    fn what_names_an_account_is_taken_out() {
        let shape = LotShape { columns: vec![String::from("Serial")], key_column: 0 };
        let subject = Subject {
            template: String::from("Kettles"),
            body: String::new(),
            devices: vec![(
                1,
                Identity { line: 2, key: String::from("C-1"), values: vec![String::from("C-1")] },
            )],
            parameters: ParameterPlan::new(&shape, &[]).unwrap(),
            left_out: (String::from("Serial"), 0),
        };
        let text = "arn:aws:iot:x:998877665544:t/Kettles of C-1: Serial, Serials, 4cfb3c8e-4cfb-3c8e-4cfb-3c8e4cfb3c8e";
        assert_eq!(
            subject.anonymous(text, ""),
            "arn:aws:iot:x:123456789012:t/TEMPLATE of VALUE: PARAMETER, Serials, …"
        );
        assert_eq!(subject.anonymous("no Serial", "Serial"), "no {detail}");
    }
}
