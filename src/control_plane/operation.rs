//! How often an account may ask AWS IoT's control plane for each operation.

/// How often per second an account may ask for `operation` where nobody raised its quota.
///
/// Source: Service Quotas, service `iotcore`, February 2024. Operations that are not listed there are taken to be allowed 10
/// times a second, as most are.
pub(super) fn per_second(operation: &str) -> f64 {
    match operation {
        "DescribeThing" => 350.0,
        "AttachThingPrincipal"
        | "CreateThing"
        | "DeleteThing"
        | "DescribeThingType"
        | "DetachThingPrincipal"
        | "UpdateThing" => 100.0,
        "ListThingPrincipals" => 20.0,
        "AttachPolicy" | "DetachPolicy" | "ListAttachedPolicies" | "ListPrincipalPolicies" => 15.0,
        _ => 10.0,
    }
}
