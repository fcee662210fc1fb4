//! What a topic is for.
//!
//! Owns the list of fleet provisioning topics, in JSON and in CBOR. Source: AWS IoT Developer Guide, "Reserved topics".

use super::super::scenario::is_template_name;

/// What a topic is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route<'a> {
    /// `$aws/certificates/create/json` or `…/cbor`: publish only.
    CreateKeys,
    /// `$aws/certificates/create-from-csr/json` or `…/cbor`: publish only.
    CreateFromCsr,
    /// `$aws/provisioning-templates/<template>/provision/json` or `…/cbor`: publish only.
    Register {
        /// The template's name. The template need not exist.
        template: &'a str,
    },
    /// The `…/accepted` or `…/rejected` of a request topic: subscribe only.
    ResponseTopic,
    /// Anything else under `$`.
    Reserved,
    /// An ordinary topic.
    Other,
}

/// What `topic` is for. Topics are case-sensitive.
pub fn route(topic: &str) -> Route<'_> {
    if !topic.starts_with('$') {
        return Route::Other;
    }
    if let Some(route) = request(topic) {
        return route;
    }
    let answered = topic.strip_suffix("/accepted").or_else(|| topic.strip_suffix("/rejected"));
    match answered.and_then(request) {
        Some(_) => Route::ResponseTopic,
        None => Route::Reserved,
    }
}

fn request(topic: &str) -> Option<Route<'_>> {
    let operation = topic.strip_suffix("/json").or_else(|| topic.strip_suffix("/cbor"))?;
    match operation {
        "$aws/certificates/create" => Some(Route::CreateKeys),
        "$aws/certificates/create-from-csr" => Some(Route::CreateFromCsr),
        _ => {
            let template =
                operation.strip_prefix("$aws/provisioning-templates/")?.strip_suffix("/provision")?;
            is_template_name(template).then_some(Route::Register { template })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_has_its_route() {
        let long = format!("$aws/provisioning-templates/{}/provision/json", "a".repeat(37));
        for (topic, expected) in [
            ("$aws/certificates/create/json", Route::CreateKeys),
            ("$aws/certificates/create-from-csr/json", Route::CreateFromCsr),
            (
                "$aws/provisioning-templates/TEMP_DEVICE/provision/json",
                Route::Register { template: "TEMP_DEVICE" },
            ),
            ("$aws/certificates/create/json/accepted", Route::ResponseTopic),
            ("$aws/certificates/create-from-csr/json/rejected", Route::ResponseTopic),
            ("$aws/provisioning-templates/T/provision/json/rejected", Route::ResponseTopic),
            ("$aws/certificates/create", Route::Reserved),
            ("$aws/certificates/create/json/other", Route::Reserved),
            ("$aws/certificates/create/json/accepted/rejected", Route::Reserved),
            ("$aws/certificates/create/cbor", Route::CreateKeys),
            ("$aws/certificates/create-from-csr/cbor/rejected", Route::ResponseTopic),
            ("$aws/provisioning-templates/T/provision/cbor", Route::Register { template: "T" }),
            ("$aws/certificates/create/json/cbor", Route::Reserved),
            ("$aws/certificates/create/JSON", Route::Reserved),
            ("$aws/provisioning-templates//provision/json", Route::Reserved),
            ("$aws/provisioning-templates/a/b/provision/json", Route::Reserved),
            ("$aws/provisioning-templates/+/provision/json", Route::Reserved),
            (&long, Route::Reserved),
            ("$aws/things/x/shadow/get", Route::Reserved),
            ("$SYS/x", Route::Reserved),
            ("aws/certificates/create/json", Route::Other),
            ("", Route::Other),
        ] {
            assert_eq!(route(topic), expected, "{topic}");
        }
    }
}
