//! Devices, each undone or left as it is.

use super::super::wanted::WantedThing;
use super::*;

const DOCUMENT: &str = r#"{"Version":"2012-10-17","Statement":[]}"#;

fn arn(id: &str) -> String {
    format!("arn:aws:iot:eu-west-1:1:cert/{id}")
}

fn wanted() -> Wanted {
    Wanted {
        thing: Some(WantedThing {
            name: Expected::Known("dev-42".into()),
            type_name: Expected::Known(None),
            attributes: Expected::Known([("serial".to_owned(), Expected::Known("42".to_owned()))].into()),
            groups: Expected::Known(None),
            billing_group: Expected::Known(None),
        }),
        status: Expected::Known("ACTIVE"),
        policies: vec![
            Expected::Known(WantedPolicy::Named("Shared".into())),
            Expected::Known(WantedPolicy::Inline(DOCUMENT.into())),
        ],
    }
}

fn seen() -> Seen {
    let policy = |name: &str, document: Option<&str>| SeenPolicy {
        name: name.into(),
        document: document.map(String::from),
    };
    Seen {
        thing: Some(SeenThing {
            name: "dev-42".into(),
            attributes: [("serial".into(), "42".into())].into(),
            version: 1,
            principals: vec![arn("c0ffee")],
            ..SeenThing::default()
        }),
        certificates: vec![SeenCertificate {
            id: "c0ffee".into(),
            arn: arn("c0ffee"),
            status: "ACTIVE".into(),
            is_as_recorded: true,
            policies: vec![policy("Shared", None), policy("5e1f", Some(DOCUMENT))],
            things: vec!["dev-42".into()],
        }],
    }
}

const MADE: Made<'_> = Made {
    thing: Some("dev-42"),
    registered: Some("c0ffee"),
    certificates: &["c0ffee", "b0b"],
    begun: Begun::No,
    is_made_up: false,
};

fn short(undoing: &Undoing) -> Vec<String> {
    let words = |step: &Step| match step {
        Step::DetachPolicy { policy, arn } => format!("detach policy {policy} from {}", &arn[29..]),
        Step::DetachPrincipal { thing, arn } => format!("detach {} from {thing}", &arn[29..]),
        Step::Deactivate { certificate } => format!("deactivate {certificate}"),
        Step::DeleteCertificate { certificate } => format!("delete {certificate}"),
        Step::DeleteThing { thing, version } => format!("delete {thing} at {version}"),
    };
    undoing.steps.iter().map(words).collect()
}

#[test]
fn what_was_made_is_undone_from_the_outside_in() {
    let undoing = undo(MADE, Some(&wanted()), &seen()).unwrap();
    assert_eq!(
        short(&undoing),
        [
            "detach policy Shared from c0ffee",
            "detach policy 5e1f from c0ffee",
            "detach c0ffee from dev-42",
            "deactivate c0ffee",
            "delete c0ffee",
            "delete dev-42 at 1"
        ]
    );
    assert_eq!(undoing.policies, ["5e1f"]);
    assert_eq!(undoing.kept, []);
}

#[test]
fn a_thing_that_may_not_be_of_this_ledger_is_detached_and_kept() {
    let kept = |change: fn(&mut SeenThing)| {
        let mut seen = seen();
        change(seen.thing.as_mut().unwrap());
        let undoing = undo(MADE, Some(&wanted()), &seen).unwrap();
        assert_eq!(short(&undoing).last().unwrap(), "delete c0ffee");
        assert_eq!(short(&undoing)[2], "detach c0ffee from dev-42");
        undoing.kept.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        kept(|thing| thing.version = 2),
        ["thing dev-42: it has version 2: it was there before, or another client has changed it"]
    );
    assert_eq!(
        kept(|thing| thing.principals.push(arn("dead"))),
        [
            "thing dev-42: arn:aws:iot:eu-west-1:1:cert/dead is attached to it, which this ledger does not have"
        ]
    );
    assert_eq!(
        kept(|thing| {
            thing.attributes.clear();
        }),
        ["thing dev-42: its attributes are not what the template and the row make: it was there before"]
    );
}

#[test]
fn a_certificate_that_another_client_has_changed_is_left_alone_unless_this_has_begun() {
    let untouched = |change: fn(&mut SeenCertificate), begun| {
        let mut seen = seen();
        change(&mut seen.certificates[0]);
        let made = Made { begun, ..MADE };
        undo(made, Some(&wanted()), &seen).map(|undoing| short(&undoing)).map_err(|it| it.to_string())
    };
    let inactive = |certificate: &mut SeenCertificate| certificate.status = "INACTIVE".into();
    assert_eq!(
        untouched(inactive, Begun::No).unwrap_err(),
        "its certificate is INACTIVE, and was ACTIVE: another client has changed it"
    );
    let as_a_run_leaves_it = |certificate: &mut SeenCertificate| {
        certificate.status = "INACTIVE".into();
        certificate.policies.clear();
    };
    let rest = ["detach c0ffee from dev-42", "delete c0ffee", "delete dev-42 at 1"];
    assert_eq!(untouched(as_a_run_leaves_it, Begun::Yes).unwrap(), rest);
    assert_eq!(untouched(inactive, Begun::Whatever).unwrap()[2..], rest);
    let bare = |certificate: &mut SeenCertificate| certificate.policies.truncate(1);
    assert_eq!(
        untouched(bare, Begun::No).unwrap_err(),
        "another client has detached the policy whose document the template carries from its certificate"
    );
    assert_eq!(untouched(bare, Begun::Yes).unwrap().len(), 5);
    // Its policies would have been detached first.
    let deactivated = untouched(inactive, Begun::Yes).unwrap_err();
    assert_eq!(deactivated, "its certificate is INACTIVE, and was ACTIVE: another client has changed it");
    let loose = |certificate: &mut SeenCertificate| certificate.things.clear();
    assert_eq!(
        untouched(loose, Begun::No).unwrap_err(),
        "another client has detached its certificate from thing dev-42"
    );
    let other = |certificate: &mut SeenCertificate| certificate.is_as_recorded = false;
    for begun in [Begun::No, Begun::Yes] {
        assert!(untouched(other, begun).unwrap_err().contains("another certificate"));
    }
}

#[test]
fn what_others_have_attached_is_detached_and_kept() {
    let mut seen = seen();
    seen.certificates[0].things.push("other".into());
    seen.certificates[0].policies.push(SeenPolicy { name: "Theirs".into(), document: None });
    let undoing = undo(MADE, Some(&wanted()), &seen).unwrap();
    let kept: Vec<_> = undoing.kept.iter().map(ToString::to_string).collect();
    assert_eq!(
        kept,
        [
            "policy Theirs: the template does not have it",
            "thing other: this ledger does not have it; its certificate was attached to it"
        ]
    );
    let steps = short(&undoing);
    assert_eq!(
        steps[2..5],
        ["detach policy Theirs from c0ffee", "detach c0ffee from dev-42", "detach c0ffee from other"]
    );
    assert_eq!(undoing.policies, ["5e1f"]);
}

#[test]
fn a_thing_that_was_made_up_to_calibrate_is_new_by_its_name() {
    let made = Made { is_made_up: true, ..MADE };
    let kept = |change: fn(&mut SeenThing)| {
        let mut seen = seen();
        change(seen.thing.as_mut().unwrap());
        undo(made, Some(&wanted()), &seen).unwrap().kept.len()
    };
    assert_eq!(kept(|thing| thing.version = 2), 0);
    assert_eq!(kept(|thing| thing.attributes.clear()), 0);
    assert_eq!(kept(|thing| thing.principals.push(arn("dead"))), 1);
    // Under a name that nobody has looked for, a later version may be another client's.
    let named = |version| {
        let mut seen = seen();
        let thing = seen.thing.as_mut().unwrap();
        (thing.name, thing.version) = ("dev-".into(), version);
        undo(made, Some(&wanted()), &seen).unwrap().kept.iter().any(|keep| keep.what == "thing dev-")
    };
    assert_eq!((named(1), named(2)), (false, true));
}

#[test]
fn of_two_policies_with_the_templates_document_none_is_deleted() {
    let mut seen = seen();
    let theirs = SeenPolicy { name: "Theirs".into(), document: Some(DOCUMENT.into()) };
    seen.certificates[0].policies.push(theirs);
    let undoing = undo(MADE, Some(&wanted()), &seen).unwrap();
    assert!(undoing.policies.is_empty(), "{undoing:?}");
    let why = "more policies with its document are attached than the template has";
    let kept: Vec<_> = undoing.kept.iter().map(ToString::to_string).collect();
    assert_eq!(kept, [format!("policy 5e1f: {why}"), format!("policy Theirs: {why}")]);
    let mut wanted = wanted();
    wanted.policies.push(Expected::Known(WantedPolicy::Inline(DOCUMENT.into())));
    assert_eq!(undo(MADE, Some(&wanted), &seen).unwrap().policies, ["5e1f", "Theirs"]);
}

#[test]
fn an_earlier_certificate_of_a_device_goes_with_it_and_one_that_is_gone_needs_nothing() {
    let mut seen = seen();
    let earlier = SeenCertificate {
        id: "b0b".into(),
        arn: arn("b0b"),
        status: "INACTIVE".into(),
        policies: vec![],
        ..seen.certificates[0].clone()
    };
    seen.certificates.insert(0, earlier);
    seen.thing.as_mut().unwrap().principals.push(arn("b0b"));
    let undoing = undo(MADE, Some(&wanted()), &seen).unwrap();
    assert_eq!(
        short(&undoing)[..3],
        ["detach b0b from dev-42", "delete b0b", "detach policy Shared from c0ffee"]
    );
    assert_eq!(short(&undoing).last().unwrap(), "delete dev-42 at 1");
    assert_eq!(undo(MADE, Some(&wanted()), &Seen::default()), Ok(Undoing::default()));
}

#[test]
fn what_the_account_still_lists_of_a_certificate_that_is_gone_keeps_no_thing() {
    for begun in [Begun::No, Begun::Yes] {
        let seen = Seen { certificates: vec![], ..seen() };
        let undoing = undo(Made { begun, ..MADE }, Some(&wanted()), &seen).unwrap();
        assert_eq!(short(&undoing), ["detach c0ffee from dev-42", "delete dev-42 at 1"]);
        assert_eq!(undoing.kept, []);
    }
}

#[test]
fn without_a_template_a_certificate_that_is_not_as_it_was_made_is_left_alone_too() {
    let untouched = |change: fn(&mut SeenCertificate)| {
        let mut seen = seen();
        change(&mut seen.certificates[0]);
        undo(MADE, None, &seen).unwrap_err().to_string()
    };
    assert_eq!(
        untouched(|certificate| certificate.status = "INACTIVE".into()),
        "its certificate is INACTIVE; without its template it is not known whether it was registered so"
    );
    assert_eq!(
        untouched(|certificate| certificate.things.clear()),
        "another client has detached its certificate from thing dev-42"
    );
}

#[test]
fn without_a_template_policies_are_kept_and_an_orphan_needs_no_deactivation() {
    let undoing = undo(MADE, None, &seen()).unwrap();
    assert!(undoing.policies.is_empty());
    assert_eq!(undoing.kept.len(), 2);
    let orphan = SeenCertificate {
        id: "c0ffee".into(),
        arn: arn("c0ffee"),
        status: "PENDING_ACTIVATION".into(),
        is_as_recorded: true,
        ..SeenCertificate::default()
    };
    let made = Made { thing: None, registered: None, ..MADE };
    let seen = Seen { thing: None, certificates: vec![orphan] };
    assert_eq!(short(&undo(made, Some(&wanted()), &seen).unwrap()), ["delete c0ffee"]);
}
