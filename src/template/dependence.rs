//! Which parts of a plan a pre-provisioning hook can change: those that refer to a caller's parameter.
//!
//! Source: AWS IoT Developer Guide, "Pre-provisioning hooks": `parameterOverrides` are merged into the parameters. The
//! service's own parameters, such as `AWS::IoT::Certificate::Id`, are not among them.

use std::collections::BTreeSet;

use super::expression::{Document, List, OF_CERTIFICATE, Text};
use super::{NamedOrInline, Template};

/// Which parts of a plan depend on parameters that a caller or a hook provides.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dependence {
    /// The thing's name.
    pub thing_name: bool,
    /// Its type.
    pub type_name: bool,
    /// The names of its attributes that depend on them.
    pub attributes: BTreeSet<String>,
    /// Its groups.
    pub groups: bool,
    /// Its billing group.
    pub billing_group: bool,
    /// The certificate's status.
    pub status: bool,
    /// For each policy, in the order of the plan: whether its name or its document depends on them.
    pub policies: Vec<bool>,
}

/// Chooses parameters by name.
type Which<'a> = &'a dyn Fn(&str) -> bool;

impl Template {
    /// Which parts depend on parameters that a caller provides.
    pub fn dependence(&self) -> Dependence {
        let of_caller: Which<'_> = &|name| !name.starts_with(OF_CERTIFICATE);
        let optional = |text: &Option<Text>| text.as_ref().is_some_and(|text| text.reads(of_caller));
        let mut found = Dependence {
            status: optional(&self.certificate.status),
            policies: self.policies.iter().map(|policy| policy.policy.reads(of_caller)).collect(),
            ..Dependence::default()
        };
        if let Some(thing) = &self.thing {
            let attributes = thing.attributes.iter().flatten().filter(|(_, text)| text.reads(of_caller));
            found.thing_name = thing.name.reads(of_caller);
            found.type_name = optional(&thing.type_name);
            found.attributes = attributes.map(|(name, _)| name.clone()).collect();
            found.groups = thing.groups.as_ref().is_some_and(|groups| groups.reads(of_caller));
            found.billing_group = optional(&thing.billing_group);
        }
        found
    }

    /// Whether the thing's name may depend on the certificate's id: directly, or by a parameter that `has_id`.
    pub fn may_name_by_certificate(&self, has_id: impl Fn(&str) -> bool) -> bool {
        let is_id = |name: &str| name.starts_with(OF_CERTIFICATE) || has_id(name);
        self.thing.as_ref().is_some_and(|thing| thing.name.reads(&is_id))
    }
}

impl NamedOrInline {
    fn reads(&self, which: Which<'_>) -> bool {
        match self {
            Self::Named(name) => name.reads(which),
            Self::Inline(document) => document.reads(which),
        }
    }
}

impl Text {
    fn reads(&self, which: Which<'_>) -> bool {
        match self {
            Self::Literal(_) => false,
            Self::Ref(name) => which(name),
            Self::Join { parts, .. } => parts.reads(which),
            Self::Select { index, list } => index.reads(which) || list.reads(which),
            Self::FindInMap(keys) => keys.iter().any(|key| key.reads(which)),
        }
    }
}

impl List {
    fn reads(&self, which: Which<'_>) -> bool {
        match self {
            Self::Items(items) => items.iter().any(|item| item.reads(which)),
            Self::Split { source, .. } => source.reads(which),
        }
    }
}

impl Document {
    fn reads(&self, which: Which<'_>) -> bool {
        match self {
            Self::Text(text) => text.reads(which),
            Self::Plain(_) => false,
            Self::Array(items) => items.iter().any(|item| item.reads(which)),
            Self::Object(members) => members.iter().any(|(_, member)| member.reads(which)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_refers_to_a_parameter_depends_on_it_however_deep_it_stands() {
        let template = Template::parse(
            r#"{"Parameters": {"Serial": {"Type": "String"}, "AWS::IoT::Certificate::Id": {"Type": "String"}},
                "Mappings": {"M": {"a": {"b": "c"}}},
                "Resources": {
                  "t": {"Type": "AWS::IoT::Thing", "Properties": {
                    "ThingName": {"Ref": "AWS::IoT::Certificate::Id"},
                    "ThingTypeName": {"Fn::FindInMap": ["M", {"Ref": "Serial"}, "b"]},
                    "AttributePayload": {"fixed": "x", "serial": {"Fn::Join": ["-", ["a", {"Ref": "Serial"}]]},
                                         "first": {"Fn::Select": ["0", {"Fn::Split": ["-", {"Ref": "Serial"}]}]},
                                         "mapped": {"Fn::FindInMap": ["M", "a", "b"]}},
                    "ThingGroups": ["all"], "BillingGroup": {"Fn::Sub": "lot-${Serial}"}}},
                  "c": {"Type": "AWS::IoT::Certificate", "Properties": {"Status": "ACTIVE"}},
                  "p": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "shared"}},
                  "q": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyDocument": {
                    "Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:Connect",
                      "Resource": [{"Fn::Sub": "arn:aws:iot:r:a:client/${Serial}"}]}]}}}}}"#,
        )
        .unwrap();
        assert_eq!(
            template.dependence(),
            Dependence {
                thing_name: false,
                type_name: true,
                attributes: ["first", "serial"].map(String::from).into(),
                groups: false,
                billing_group: true,
                status: false,
                policies: vec![false, true],
            }
        );
    }
}
