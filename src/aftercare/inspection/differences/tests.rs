use super::*;

const ID: &str = "c0ffee";
const ARN: &str = "arn:aws:iot:eu-west-1:1:cert/c0ffee";

fn wanted() -> Wanted {
    let known = |text: &str| Expected::Known(text.to_owned());
    Wanted {
        thing: Some(WantedThing {
            name: known("dev-42"),
            type_name: Expected::Known(Some("Meter".into())),
            attributes: Expected::Known(
                [("serial".to_owned(), known("42")), ("note".to_owned(), known(""))].into(),
            ),
            groups: Expected::Known(Some(["all".to_owned()].into())),
            billing_group: Expected::Known(None),
        }),
        status: Expected::Known("ACTIVE"),
        policies: vec![
            Expected::Known(WantedPolicy::Named("Shared".into())),
            Expected::Known(WantedPolicy::Inline(r#"{"Version":"2012-10-17","Statement":[]}"#.into())),
        ],
    }
}

fn seen() -> Seen {
    Seen {
        thing: Some(SeenThing {
            name: "dev-42".into(),
            type_name: Some("Meter".into()),
            attributes: [("serial".into(), "42".into())].into(),
            billing_group: None,
            version: 1,
            groups: Some(vec!["all".into()]),
            principals: vec![ARN.into()],
        }),
        certificates: vec![SeenCertificate {
            id: ID.into(),
            arn: ARN.into(),
            status: "ACTIVE".into(),
            is_as_recorded: true,
            policies: vec![
                SeenPolicy {
                    name: "5e1f".into(),
                    document: Some("{ \"Statement\": [], \"Version\": \"2012-10-17\" }".into()),
                },
                SeenPolicy { name: "Shared".into(), document: None },
            ],
            things: vec!["dev-42".into()],
        }],
    }
}

fn said(change: impl FnOnce(&mut Wanted, &mut Seen)) -> Vec<String> {
    let (mut wanted, mut seen) = (wanted(), seen());
    change(&mut wanted, &mut seen);
    let found = differences(&wanted, Some("dev-42"), ID, &seen);
    found.iter().map(|difference| format!("{}: {difference}", difference.kind())).collect()
}

#[test]
fn a_device_as_it_should_be_differs_in_nothing() {
    assert_eq!(said(|_, _| {}), Vec::<String>::new());
}

#[test]
fn what_another_client_did_to_the_thing_is_found() {
    let thing = |change: fn(&mut SeenThing)| said(|_, seen| change(seen.thing.as_mut().unwrap()));
    assert_eq!(
        thing(|thing| {
            thing.attributes.insert("serial".into(), "43".into());
            thing.attributes.insert("extra".into(), "x".into());
        }),
        [
            "attribute: attribute extra: found x; wanted none",
            "attribute: attribute serial: found 43; wanted 42"
        ]
    );
    assert_eq!(
        thing(|thing| thing.attributes.clear()),
        ["attribute: attribute serial: found none; wanted 42"]
    );
    assert_eq!(thing(|thing| thing.type_name = None), ["thing_type: thing type: found none; wanted Meter"]);
    assert_eq!(
        thing(|thing| thing.groups = Some(vec!["other".into()])),
        [
            "not_in_group: not in the thing group all",
            "in_other_group: in the thing group other, which the template does not name"
        ]
    );
    assert_eq!(
        thing(|thing| thing.billing_group = Some("b".into())),
        ["billing_group: billing group: found b; wanted none"]
    );
    assert_eq!(
        thing(|thing| thing.principals.push("arn:aws:iot:eu-west-1:1:cert/dead".into())),
        ["other_principal: arn:aws:iot:eu-west-1:1:cert/dead is attached to the thing too"]
    );
    assert_eq!(said(|_, seen| seen.thing = None), ["no_thing: there is no thing dev-42"]);
}

#[test]
fn what_happened_to_the_certificate_is_found() {
    let certificate = |change: fn(&mut SeenCertificate)| said(|_, seen| change(&mut seen.certificates[0]));
    assert_eq!(
        certificate(|certificate| certificate.status = "INACTIVE".into()),
        ["certificate_status: certificate: found INACTIVE; wanted ACTIVE"]
    );
    assert_eq!(
        certificate(|certificate| {
            certificate.policies.remove(1);
        }),
        ["no_policy: policy Shared is not attached to the certificate"]
    );
    assert_eq!(
        certificate(|certificate| certificate.policies[0].document = Some("{}".into())),
        [
            "no_policy: the policy whose document the template carries is not attached to the certificate",
            "other_policy: policy 5e1f is attached, which the template does not have"
        ]
    );
    assert_eq!(
        certificate(|certificate| certificate.things.push("other".into())),
        ["other_thing: the certificate is attached to thing other too"]
    );
    assert_eq!(
        certificate(|certificate| certificate.is_as_recorded = false),
        ["other_certificate: the account has another certificate under the id that the ledger has"]
    );
    assert_eq!(
        said(|_, seen| {
            seen.certificates[0].things.clear();
            seen.thing.as_mut().unwrap().principals.clear();
        }),
        ["not_attached: the certificate is not attached to thing dev-42"]
    );
    assert_eq!(
        said(|_, seen| seen.certificates.clear()),
        ["no_certificate: the account does not have its certificate"]
    );
}

#[test]
fn what_a_hook_may_have_changed_is_no_difference() {
    let found = said(|wanted, seen| {
        let thing = wanted.thing.as_mut().unwrap();
        let Expected::Known(attributes) = &mut thing.attributes else { panic!("they are known") };
        attributes.insert("serial".into(), Expected::NotCheckable);
        thing.name = Expected::NotCheckable;
        wanted.policies[1] = Expected::NotCheckable;
        seen.thing.as_mut().unwrap().attributes.insert("serial".into(), "elsewhere".into());
        seen.certificates[0].policies[0].document = Some("{}".into());
    });
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn a_device_without_a_thing_is_judged_by_its_certificate() {
    let (wanted, mut seen) = (Wanted { thing: None, ..wanted() }, seen());
    seen.thing = None;
    seen.certificates[0].things.clear();
    assert_eq!(differences(&wanted, None, ID, &seen), []);
    assert_eq!(
        differences(&wanted, Some("x"), ID, &seen),
        [Difference::ThingUnexpected { recorded: Some("x".into()) }]
    );
}
