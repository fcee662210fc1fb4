//! Which operation a method and a path ask for, and the query's parameters.
//!
//! Owns the list of paths. Names come out decoded, whatever they hold.

use std::collections::BTreeMap;

use super::reply::ApiError;
use crate::emulator::verify::unescape;

/// An operation of the control plane, with the names in its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::emulator) enum Operation {
    DescribeThing(String),
    DeleteThing(String),
    ListThingPrincipals(String),
    DetachThingPrincipal(String),
    ListPrincipalThings,
    DescribeCertificate(String),
    UpdateCertificate(String),
    DeleteCertificate(String),
    ListAttachedPolicies(String),
    DetachPolicy(String),
    DescribeEndpoint,
    DescribeProvisioningTemplate(String),
}

/// Why a request asks for no operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::emulator) enum NoOperation {
    /// There is nothing at this path.
    Path,
    /// There is, but not with this method.
    Method,
}

impl Operation {
    /// What `method` on `path` asks for, the path as it was received.
    pub(in crate::emulator) fn of(method: &str, path: &str) -> Result<Self, NoOperation> {
        // Split first: an ARN in a path has a slash, which is escaped there.
        let segments: Option<Vec<String>> = path.split('/').skip(1).map(decode).collect();
        let mut segments = segments.ok_or(NoOperation::Path)?.into_iter();
        let parts: [Option<String>; 4] = std::array::from_fn(|_| segments.next());
        let [Some(first), second, third, None] = parts else { return Err(NoOperation::Path) };
        Ok(match (method, first.as_str(), second, third.as_deref()) {
            ("GET", "things", Some(name), None) => Operation::DescribeThing(name),
            ("DELETE", "things", Some(name), None) => Operation::DeleteThing(name),
            ("GET", "things", Some(name), Some("principals")) => Operation::ListThingPrincipals(name),
            ("DELETE", "things", Some(name), Some("principals")) => Operation::DetachThingPrincipal(name),
            ("GET", "principals", Some(things), None) if things == "things" => Operation::ListPrincipalThings,
            ("GET", "certificates", Some(id), None) => Operation::DescribeCertificate(id),
            ("PUT", "certificates", Some(id), None) => Operation::UpdateCertificate(id),
            ("DELETE", "certificates", Some(id), None) => Operation::DeleteCertificate(id),
            ("POST", "attached-policies", Some(target), None) => Operation::ListAttachedPolicies(target),
            ("POST", "target-policies", Some(name), None) => Operation::DetachPolicy(name),
            ("GET", "endpoint", None, None) => Operation::DescribeEndpoint,
            ("GET", "provisioning-templates", Some(name), None) => {
                Operation::DescribeProvisioningTemplate(name)
            }
            (_, "things", Some(_), None | Some("principals"))
            | (
                _,
                "certificates" | "attached-policies" | "target-policies" | "provisioning-templates",
                Some(_),
                None,
            )
            | (_, "endpoint", None, None) => return Err(NoOperation::Method),
            (_, "principals", Some(things), None) if things == "things" => return Err(NoOperation::Method),
            _ => return Err(NoOperation::Path),
        })
    }

    /// The permission that it needs: each operation the one of its name.
    pub(super) fn action(&self) -> &'static str {
        match self {
            Operation::DescribeThing(_) => "iot:DescribeThing",
            Operation::DeleteThing(_) => "iot:DeleteThing",
            Operation::ListThingPrincipals(_) => "iot:ListThingPrincipals",
            Operation::DetachThingPrincipal(_) => "iot:DetachThingPrincipal",
            Operation::ListPrincipalThings => "iot:ListPrincipalThings",
            Operation::DescribeCertificate(_) => "iot:DescribeCertificate",
            Operation::UpdateCertificate(_) => "iot:UpdateCertificate",
            Operation::DeleteCertificate(_) => "iot:DeleteCertificate",
            Operation::ListAttachedPolicies(_) => "iot:ListAttachedPolicies",
            Operation::DetachPolicy(_) => "iot:DetachPolicy",
            Operation::DescribeEndpoint => "iot:DescribeEndpoint",
            Operation::DescribeProvisioningTemplate(_) => "iot:DescribeProvisioningTemplate",
        }
    }
}

/// A name in a path is not empty.
fn decode(segment: &str) -> Option<String> {
    let bytes = unescape(segment).filter(|bytes| !bytes.is_empty())?;
    String::from_utf8(bytes).ok()
}

/// A query's parameters, decoded.
#[derive(Debug, Default)]
pub(in crate::emulator) struct Query(BTreeMap<String, String>);

impl Query {
    /// The parameters in `target`. Those that are no text are left out; the signature has been checked by then.
    pub(in crate::emulator) fn of(target: &str) -> Self {
        let query = target.split_once('?').map_or("", |(_, query)| query);
        let text = |raw: &str| unescape(raw).and_then(|bytes| String::from_utf8(bytes).ok());
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).filter_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            text(name).zip(text(value))
        });
        Self(pairs.collect())
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, ApiError> {
        let number = self.text(name).map(|text| {
            text.parse().map_err(|_| ApiError::invalid(format!("{name} must be a whole number.")))
        });
        number.transpose()
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.text(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(ApiError::invalid(format!("{name} must be true or false."))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_has_its_operation() {
        let name = || String::from("a:b");
        for (method, path, operation) in [
            ("GET", "/things/a%3Ab", Ok(Operation::DescribeThing(name()))),
            ("GET", "/things/a:b", Ok(Operation::DescribeThing(name()))),
            ("DELETE", "/things/a%3ab", Ok(Operation::DeleteThing(name()))),
            ("GET", "/things/a:b/principals", Ok(Operation::ListThingPrincipals(name()))),
            ("DELETE", "/things/a:b/principals", Ok(Operation::DetachThingPrincipal(name()))),
            ("GET", "/principals/things", Ok(Operation::ListPrincipalThings)),
            ("GET", "/certificates/0f", Ok(Operation::DescribeCertificate("0f".into()))),
            ("PUT", "/certificates/0f", Ok(Operation::UpdateCertificate("0f".into()))),
            ("DELETE", "/certificates/0f", Ok(Operation::DeleteCertificate("0f".into()))),
            ("POST", "/attached-policies/a%2Fb", Ok(Operation::ListAttachedPolicies("a/b".into()))),
            ("POST", "/target-policies/p", Ok(Operation::DetachPolicy("p".into()))),
            ("GET", "/endpoint", Ok(Operation::DescribeEndpoint)),
            ("GET", "/provisioning-templates/T", Ok(Operation::DescribeProvisioningTemplate("T".into()))),
            ("HEAD", "/things/t", Err(NoOperation::Method)),
            ("PUT", "/things/t/principals", Err(NoOperation::Method)),
            ("POST", "/principals/things", Err(NoOperation::Method)),
            ("GET", "/target-policies/p", Err(NoOperation::Method)),
            ("DELETE", "/endpoint", Err(NoOperation::Method)),
            ("GET", "/", Err(NoOperation::Path)),
            ("GET", "*", Err(NoOperation::Path)),
            ("GET", "/things", Err(NoOperation::Path)),
            ("GET", "/things/", Err(NoOperation::Path)),
            ("GET", "/things/a/b", Err(NoOperation::Path)),
            ("GET", "/things/a/principals/b", Err(NoOperation::Path)),
            ("GET", "/things/%GG", Err(NoOperation::Path)),
            ("GET", "/things/%ff", Err(NoOperation::Path)),
            ("GET", "/principals/others", Err(NoOperation::Path)),
            ("GET", "/Things/t", Err(NoOperation::Path)),
        ] {
            assert_eq!(Operation::of(method, path), operation, "{method} {path}");
        }
    }

    #[test]
    fn parameters_are_decoded_and_read() {
        let query = Query::of("/x?a=%2Bb&n=12&bad=x&on=true&off=false&%zz=1&empty");
        assert_eq!((query.text("a"), query.text("empty"), query.text("no")), (Some("+b"), Some(""), None));
        assert_eq!((query.number("n").unwrap(), query.number("no").unwrap()), (Some(12), None));
        assert!(query.number("bad").is_err());
        assert_eq!(
            (query.flag("on").unwrap(), query.flag("off").unwrap(), query.flag("no").unwrap()),
            (true, false, false)
        );
        assert!(query.flag("bad").is_err());
        assert_eq!(Query::of("/x").text(""), None);
    }
}
