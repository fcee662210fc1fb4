//! What the rows of a lot will become in the account, according to the template, evaluated here.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use crate::identity::{Identity, ParameterPlan};
use crate::template::{
    CertificateFacts, EvaluationError, Parameters, Plan, PolicyPlan, Reason, Template, TemplateError,
};
use crate::wording::Excerpt;

/// How many examples of a kind are kept.
const EXAMPLES: usize = 3;
/// How many names of groups, types or policies are kept unless all things are: few enough to query before a run.
const MOST_NAMES: usize = 50;

/// Whether a row's device was registered before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Still to be registered.
    Open,
    /// Done according to its ledger: it is not sent again, and its thing is its own.
    Done,
}

/// Evaluates a lot's rows one by one. Needs a few bytes of memory per row, and room for the names if all are kept.
#[derive(Debug)]
pub struct Rows<'a> {
    template: &'a Template,
    parameters: &'a ParameterPlan,
    keep: Keep,
    /// Every `stride`-th open row adds to the sample.
    stride: u64,
    /// Whether the thing's name may depend on the certificate's id, which is not known in advance.
    is_named_by_certificate: bool,
    /// Fingerprints of the thing names, with the first row of each.
    names: HashMap<u128, (u64, Standing)>,
    hashers: [RandomState; 2],
    found: Expected,
}

/// Which thing names are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    All,
    /// This many, spread over the lot.
    Some(usize),
}

/// The result of evaluating rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expected {
    /// Rows that were evaluated.
    pub rows: u64,
    /// Rows that are still to be registered.
    pub open: u64,
    /// Rows with the same thing as an earlier row.
    pub clashes: u64,
    /// The first such rows.
    pub clash_examples: Vec<Clash>,
    /// Open rows that the service would refuse, by reason.
    pub refused: BTreeMap<String, Refused>,
    /// Why the thing names cannot be known; `None` if they can.
    pub unknown_names: Option<String>,
    /// Keys and thing names of open rows: all of them, or a sample.
    pub things: Vec<(String, String)>,
    /// The thing types that open rows need.
    pub types: Names,
    /// The groups that open rows need.
    pub groups: Names,
    /// The billing groups that open rows need.
    pub billing_groups: Names,
    /// The policies that open rows need and the template does not define.
    pub policies: Names,
    /// Different policy documents that the template produces for open rows, as hashes; at most 50 are kept.
    pub documents: BTreeSet<u64>,
}

/// The different names of resources of a kind: 50 of them, unless all things are kept, and how many there are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Names {
    kept: BTreeSet<String>,
    /// Fingerprints of those that were not kept.
    others: HashSet<u64>,
}

/// Two rows that become one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clash {
    /// The thing.
    pub thing: String,
    /// The line of the earlier row.
    pub first: u64,
    /// The line of the later row.
    pub second: u64,
}

/// Rows that the service would refuse for the same reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// How many rows.
    pub rows: u64,
    /// The first of these rows: its line, and what is wrong there.
    pub first: (u64, TemplateError),
    /// Whether a parameter is missing that is sent for no row.
    pub is_unsent: bool,
}

/// Two possible ids of a certificate that does not exist yet.
const ANY_IDS: [&str; 2] = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
];

impl Names {
    /// The names that were kept.
    pub fn kept(&self) -> &BTreeSet<String> {
        &self.kept
    }

    /// How many further names there are.
    pub fn left_out(&self) -> usize {
        self.others.len()
    }

    fn note(&mut self, name: &str, keep: Keep, hasher: &RandomState) {
        if self.kept.contains(name) {
        } else if keep == Keep::All || self.kept.len() < MOST_NAMES {
            self.kept.insert(name.to_owned());
        } else {
            self.others.insert(hasher.hash_one(name));
        }
    }
}

impl<'a> Rows<'a> {
    /// Evaluates rows with `template` and the parameters of `parameters`. Keeps `most_things` thing names, spread
    /// over the lot, and 50 names of each other kind; `None` keeps all.
    pub fn new(template: &'a Template, parameters: &'a ParameterPlan, most_things: Option<usize>) -> Self {
        let unknown_names = template.reads_subject().then(|| {
            String::from(
                "it refers to the certificate's subject, which is not known before there is a certificate",
            )
        });
        Self {
            template,
            parameters,
            keep: most_things.map_or(Keep::All, Keep::Some),
            stride: 1,
            is_named_by_certificate: template
                .may_name_by_certificate(|name| parameters.has_certificate_id(name)),
            names: HashMap::new(),
            hashers: [RandomState::new(), RandomState::new()],
            found: Expected { unknown_names, ..Expected::default() },
        }
    }

    /// Evaluates a row.
    pub fn look(&mut self, identity: &Identity, standing: Standing) {
        self.found.rows += 1;
        self.found.open += u64::from(standing == Standing::Open);
        if self.template.reads_subject() {
            return;
        }
        let plan = match self.plan(identity, ANY_IDS[0]) {
            Ok(plan) => plan,
            Err(error) if standing == Standing::Open => {
                let is_unsent = match &error.reason {
                    Reason::MissingParameter(name) => !self.parameters.names().any(|sent| sent == name),
                    Reason::Failed(_) => false,
                };
                return self.refuse(identity.line, vec![of(error)], is_unsent);
            }
            Err(_) => return,
        };
        if self.is_named_by_certificate && self.found.unknown_names.is_none() {
            self.see_whether_name_is_known(identity, &plan);
        }
        if standing == Standing::Open {
            self.refuse(identity.line, plan.refused(), false);
            self.note_needed(&plan);
        }
        if let Some(thing) = &plan.thing
            && self.found.unknown_names.is_none()
        {
            self.note_name(identity, &thing.name, standing);
        }
    }

    /// The result.
    pub fn finish(self) -> Expected {
        self.found
    }

    fn plan(&self, identity: &Identity, certificate_id: &str) -> Result<Plan, EvaluationError> {
        let given: Parameters<'_> = self
            .parameters
            .expand(identity, certificate_id)
            .map(|(name, value)| (name.into(), value))
            .collect();
        self.template.evaluate(CertificateFacts { id: Some(certificate_id), subject: None }, &given)
    }

    /// Checks that this row's thing has the same name whatever the certificate's id. One that has not makes all names
    /// unknown: nothing could be promised about them.
    fn see_whether_name_is_known(&mut self, identity: &Identity, plan: &Plan) {
        let name = |plan: &Plan| plan.thing.as_ref().map(|thing| thing.name.clone());
        let other = self.plan(identity, ANY_IDS[1]).ok();
        if other.is_none_or(|other| name(&other) != name(plan)) {
            self.found.unknown_names = Some(format!(
                "that of line {} has the certificate's id in it, which is not known before there is a certificate",
                identity.line
            ));
            self.found.things.clear();
        }
    }

    fn refuse(&mut self, line: u64, refused: Vec<TemplateError>, is_unsent: bool) {
        for error in refused {
            // The same fault of the same property is one reason, whatever the value.
            let kind = format!("{}: wanted {}", error.at, error.wanted);
            let kind = self.found.refused.entry(kind);
            kind.or_insert(Refused { rows: 0, first: (line, error), is_unsent }).rows += 1;
        }
    }

    fn note_needed(&mut self, plan: &Plan) {
        let (keep, hasher) = (self.keep, &self.hashers[0]);
        let note = |names: &mut Names, name: &String| names.note(name, keep, hasher);
        let found = &mut self.found;
        if let Some(thing) = &plan.thing {
            thing.type_name.iter().for_each(|name| note(&mut found.types, name));
            thing.groups.iter().flatten().for_each(|name| note(&mut found.groups, name));
            thing.billing_group.iter().for_each(|name| note(&mut found.billing_groups, name));
        }
        for policy in &plan.policies {
            match policy {
                PolicyPlan::Named(name) => note(&mut found.policies, name),
                PolicyPlan::Inline(document) if found.documents.len() < MOST_NAMES => {
                    found.documents.insert(hasher.hash_one(document));
                }
                PolicyPlan::Inline(_) => {}
            }
        }
    }

    fn note_name(&mut self, identity: &Identity, name: &str, standing: Standing) {
        let [high, low] =
            [&self.hashers[0], &self.hashers[1]].map(|hasher| u128::from(hasher.hash_one(name)));
        let (first, its_standing) = *self.names.entry(high << 64 | low).or_insert((identity.line, standing));
        if first != identity.line && [standing, its_standing].contains(&Standing::Open) {
            self.found.clashes += 1;
            if self.found.clash_examples.len() < EXAMPLES {
                self.found.clash_examples.push(Clash {
                    thing: name.to_owned(),
                    first,
                    second: identity.line,
                });
            }
        }
        if standing == Standing::Open {
            self.keep(identity, name);
        }
    }

    /// Keeps a name, or a sample of the names: whenever the sample is full, every second name is dropped, and the
    /// interval between sampled open rows doubles.
    fn keep(&mut self, identity: &Identity, name: &str) {
        let Keep::Some(most) = self.keep else {
            self.found.things.push((identity.key.clone(), name.to_owned()));
            return;
        };
        if most == 0 || !(self.found.open - 1).is_multiple_of(self.stride) {
            return;
        }
        if self.found.things.len() == most {
            let mut at = 0;
            self.found.things.retain(|_| {
                at += 1;
                at % 2 == 1
            });
            self.stride *= 2;
            if !(self.found.open - 1).is_multiple_of(self.stride) {
                return;
            }
        }
        self.found.things.push((identity.key.clone(), name.to_owned()));
    }
}

fn of(error: EvaluationError) -> TemplateError {
    let wanted = match &error.reason {
        Reason::MissingParameter(_) => "a value for it",
        Reason::Failed(_) => "parameters that the template has a result for",
    };
    TemplateError { at: error.at, found: error.reason.to_string(), wanted: wanted.to_owned() }
}

impl std::fmt::Display for Clash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "lines {} and {} both become \"{}\"", self.first, self.second, Excerpt(&self.thing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::LotShape;

    /// Things are named by `name`, JSON; the type is `T`, the attribute `note` the column Note.
    fn template(name: &str) -> Template {
        Template::parse(&format!(
            r#"{{"Parameters": {{"Id": {{"Type": "String"}}, "Note": {{"Type": "String", "Default": ""}}}},
                "Resources": {{
                  "t": {{"Type": "AWS::IoT::Thing", "Properties": {{
                    "ThingName": {name}, "ThingTypeName": "T", "ThingGroups": [{{"Ref": "Note"}}],
                    "AttributePayload": {{"note": {{"Ref": "Note"}}}}}}}},
                  "p": {{"Type": "AWS::IoT::Policy", "Properties": {{"PolicyName": "P"}}}},
                  "c": {{"Type": "AWS::IoT::Certificate", "Properties": {{}}}}}}}}"#
        ))
        .unwrap()
    }

    fn found(name: &str, rows: &[(&str, &str, Standing)], most: Option<usize>) -> Expected {
        let template = template(name);
        let shape = LotShape { columns: vec!["Id".into(), "Note".into()], key_column: 0 };
        let parameters = ParameterPlan::new(&shape, &[]).unwrap();
        let mut judge = Rows::new(&template, &parameters, most);
        for (line, (id, note, standing)) in (2..).zip(rows) {
            let values = vec![(*id).to_owned(), (*note).to_owned()];
            judge.look(&Identity { line, key: (*id).to_owned(), values }, *standing);
        }
        judge.finish()
    }

    const BY_ID: &str = r#"{"Ref": "Id"}"#;
    use Standing::{Done, Open};

    #[test]
    fn rows_that_become_one_thing_clash_unless_both_are_done() {
        let upper = r#"{"Fn::Select": ["0", {"Fn::Split": [".", {"Ref": "Id"}]}]}"#;
        let expected = found(
            upper,
            &[("a.1", "g", Open), ("b.1", "g", Done), ("a.2", "g", Open), ("b.2", "g", Open)],
            None,
        );
        let clash = |thing: &str, first, second| Clash { thing: thing.into(), first, second };
        assert_eq!(
            (expected.clashes, &expected.clash_examples[..]),
            (2, &[clash("a", 2, 4), clash("b", 3, 5)][..])
        );
        assert_eq!(expected.clash_examples[0].to_string(), "lines 2 and 4 both become \"a\"");
        assert_eq!(found(upper, &[("a.1", "g", Done), ("a.2", "g", Done)], None).clashes, 0);
    }

    #[test]
    fn what_the_service_would_refuse_is_told_by_kind_and_done_rows_are_past_that() {
        let rows = [("a b", "g", Open), ("c d", "x y", Open), ("e f", "g", Done), ("g", "g", Open)];
        let expected = found(BY_ID, &rows, None);
        let kinds: Vec<_> = expected
            .refused
            .values()
            .map(|kind| (kind.first.1.at.as_str(), kind.rows, kind.first.0))
            .collect();
        assert_eq!(kinds, [("AttributePayload.note", 1, 3), ("ThingGroups", 1, 3), ("ThingName", 2, 2)]);
        assert_eq!((expected.rows, expected.open), (4, 3));
        let missing = found(r#"{"Fn::FindInMap": ["M", "a", "b"]}"#, &[("a", "g", Open)], None);
        assert_eq!(missing.refused.values().next().unwrap().first.1.at, "Resources.t.Properties.ThingName");
    }

    #[test]
    fn what_rows_need_is_collected() {
        let expected = found(BY_ID, &[("a", "g", Open), ("b", "h", Open), ("c", "i", Done)], None);
        let names = |names: &Names| names.kept().iter().cloned().collect::<Vec<_>>().join(",");
        assert_eq!(
            [&expected.types, &expected.groups, &expected.billing_groups, &expected.policies].map(names),
            ["T", "g,h", "", "P"]
        );
        assert_eq!(expected.things.iter().map(|(_, thing)| thing.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn a_name_with_the_certificates_id_in_it_is_not_known() {
        let name = r#"{"Fn::Join": ["-", [{"Ref": "Id"}, {"Ref": "AWS::IoT::Certificate::Id"}]]}"#;
        let expected = found(name, &[("a", "g", Open), ("a", "g", Open)], None);
        assert_eq!(
            expected.unknown_names.unwrap(),
            "that of line 2 has the certificate's id in it, which is not known before there is a certificate"
        );
        assert_eq!((expected.clashes, expected.things.len()), (0, 0));
        // Some rows' names alone have the id in them, and the first is not one of these.
        let name = r#"{"Fn::Select": [{"Ref": "Note"}, ["fixed", {"Ref": "AWS::IoT::Certificate::Id"}]]}"#;
        let expected = found(name, &[("a", "0", Open), ("b", "1", Open), ("c", "0", Open)], None);
        assert_eq!(
            expected.unknown_names.unwrap(),
            "that of line 3 has the certificate's id in it, which is not known before there is a certificate"
        );
        assert_eq!(expected.things.len(), 0);
        assert_eq!(found(name, &[("a", "0", Open)], None).unknown_names, None);
    }

    #[test]
    fn names_that_are_too_many_to_ask_for_are_counted() {
        let rows: Vec<_> = (0..70).map(|n| (format!("d{n}"), format!("g{}", n % 60))).collect();
        let rows: Vec<_> = rows.iter().map(|(id, group)| (id.as_str(), group.as_str(), Open)).collect();
        let sampled = found(BY_ID, &rows, Some(5)).groups;
        assert_eq!((sampled.kept().len(), sampled.left_out()), (50, 10));
        let all = found(BY_ID, &rows, None).groups;
        assert_eq!((all.kept().len(), all.left_out()), (60, 0));
    }

    #[test]
    fn a_sample_is_spread_over_the_lot() {
        let ids: Vec<String> = (0..10_000).map(|n| n.to_string()).collect();
        let rows: Vec<_> = ids.iter().map(|id| (id.as_str(), "g", Open)).collect();
        let sample: Vec<u64> =
            found(BY_ID, &rows, Some(50)).things.iter().map(|(_, name)| name.parse().unwrap()).collect();
        assert!((25..=50).contains(&sample.len()), "{}", sample.len());
        let steps: BTreeSet<u64> = sample.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(steps.len(), 1, "{sample:?}");
        assert!(*sample.last().unwrap() > 9_000 && sample[0] == 0, "{sample:?}");
        assert_eq!(found(BY_ID, &rows[..7], Some(50)).things.len(), 7);
        assert_eq!(found(BY_ID, &rows[..7], Some(0)).things.len(), 0);
    }
}
