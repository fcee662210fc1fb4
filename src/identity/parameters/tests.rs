//! What constants expand to, and what is said of bad ones.

use super::*;

fn shape() -> LotShape {
    LotShape { columns: ["DeviceId", "Site é", "a{b"].map(String::from).to_vec(), key_column: 0 }
}

fn device() -> Identity {
    Identity {
        line: 5,
        key: String::from("D1"),
        values: ["D1", "Zürich {certificate_id}", ""].map(String::from).to_vec(),
    }
}

fn plan(constants: &[(&str, &str)]) -> Result<ParameterPlan, ParameterError> {
    let constants: Vec<_> =
        constants.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    ParameterPlan::new(&shape(), &constants)
}

#[test]
fn columns_come_first_then_constants_expanded() {
    let plan = plan(&[("CertificateId", "{certificate_id}"), ("Name", "x-{DeviceId}-{{{Site é}}}")]).unwrap();
    let device = device();
    let parameters: Vec<_> = plan.expand(&device, "c0ffee").collect();
    let wanted = [
        ("DeviceId", "D1"),
        ("Site é", "Zürich {certificate_id}"),
        ("a{b", ""),
        ("CertificateId", "c0ffee"),
        ("Name", "x-D1-{Zürich {certificate_id}}"),
    ];
    assert_eq!(parameters, wanted.map(|(name, value)| (name, Cow::Borrowed(value))));
    assert!(plan.names().eq(wanted.map(|(name, _)| name)));
}

#[test]
fn texts_expand() {
    for (text, wanted) in [
        ("", ""),
        ("plain", "plain"),
        ("{{}}", "{}"),
        ("{{{{", "{{"),
        ("}}{{", "}{"),
        ("{{certificate_id}}", "{certificate_id}"),
        ("{DeviceId}{DeviceId}", "D1D1"),
        ("<{certificate_id}>", "<c0ffee>"),
        ("{a{b}", ""),
        ("é{DeviceId}é", "éD1é"),
        ("a=b=c", "a=b=c"),
    ] {
        let plan = plan(&[("P", text)]).unwrap();
        let device = device();
        let (name, value) = plan.expand(&device, "c0ffee").last().unwrap();
        assert_eq!((name, value.as_ref()), ("P", wanted), "{text:?}");
    }
}

#[test]
fn a_single_piece_is_borrowed() {
    let plan = plan(&[("A", "{certificate_id}"), ("B", "{DeviceId}"), ("C", "plain")]).unwrap();
    let device = device();
    assert!(plan.expand(&device, "c0ffee").all(|(_, value)| matches!(value, Cow::Borrowed(_))));
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn bad_constants_say_what_to_do() {
    let long = "n".repeat(2049);
    let full = "v".repeat(4033);
    let cases: [(&[(&str, &str)], &str); 15] = [
        (&[("", "x")], "found a parameter without a name; wanted NAME=VALUE"),
        (&[(" ", "x")], "found a parameter without a name; wanted NAME=VALUE"),
        (
            &[(&long, "x")],
            "found a name of 2049 characters in the parameter nnnnnnnnnnnnnnnnnnnnnnnn…nnnnnnnnnnnn (2049 characters); wanted at \
             most 2048, the service's limit",
        ),
        (
            &[("DeviceId", "x")],
            "found the parameter DeviceId, which is also a column of the lot; give it another name or leave it out",
        ),
        (&[("P", "x"), ("Q", "x"), ("P", "y")], "found the parameter P twice; give it once"),
        (
            &[("P", "hunter2{")],
            "found an open brace without its end in the value of the parameter P; wanted {Name}, or {{ for the brace \
             itself",
        ),
        (
            &[("P", "{DeviceId")],
            "found an open brace without its end in the value of the parameter P; wanted {Name}, or {{ for the brace \
             itself",
        ),
        (
            &[("P", "hunter2}")],
            "found a closing brace without its beginning in the value of the parameter P; wanted {Name}, or }} for \
             the brace itself",
        ),
        (
            &[("P", "{DeviceId}}")],
            "found a closing brace without its beginning in the value of the parameter P; wanted {Name}, or }} for \
             the brace itself",
        ),
        (
            &[("P", "{}")],
            "found {} in the value of the parameter P; wanted one of {certificate_id}, {DeviceId}, {Site é}, {a{b}, \
             or {{ and }} for the braces themselves",
        ),
        (
            &[("P", "{deviceid}")],
            "found {deviceid} in the value of the parameter P; wanted one of {certificate_id}, {DeviceId}, {Site é}, \
             {a{b}, or {{ and }} for the braces themselves",
        ),
        (
            &[("P", "{Q}"), ("Q", "x")],
            "found {Q} in the value of the parameter P; wanted one of {certificate_id}, {DeviceId}, {Site é}, {a{b}, \
             or {{ and }} for the braces themselves",
        ),
        (
            &[("P", "{ DeviceId }")],
            "found {\\u{20}DeviceId\\u{20}} in the value of the parameter P; wanted one of {certificate_id}, {DeviceId}, {Site é}, \
             {a{b}, or {{ and }} for the braces themselves",
        ),
        (
            &[("P", &format!("{full}{{certificate_id}}"))],
            "found at least 4097 characters in the value of the parameter P; wanted at most 4096, the service's limit",
        ),
        (
            &[("P\n\u{1b}", "{")],
            "found an open brace without its end in the value of the parameter P\\n\\u{1b}; wanted {Name}, or {{ for \
             the brace itself",
        ),
    ];
    for (constants, wanted) in cases {
        assert_eq!(plan(constants).unwrap_err().to_string(), wanted);
    }
    assert!(plan(&[(&long[1..], &format!("{}{{certificate_id}}", &full[1..]))]).is_ok());
}

#[test]
fn many_columns_are_not_all_listed() {
    let shape = LotShape { columns: (0..30).map(|n| format!("C{n}")).collect(), key_column: 0 };
    let error =
        ParameterPlan::new(&shape, &[(String::from("P"), String::from("{x}"))]).unwrap_err().to_string();
    assert!(error.contains("{C18} and 11 more") && !error.contains("{C19}"), "{error}");
}

#[test]
fn constants_are_taken_apart_at_the_first_equals_sign() {
    for (text, name, value) in
        [("A=b", "A", "b"), ("A=", "A", ""), ("A==b=c", "A", "=b=c"), (" A= b", " A", " b")]
    {
        assert_eq!(parse_constant(text), Ok((name.to_owned(), value.to_owned())));
    }
    assert_eq!(parse_constant("=b"), Err(ParameterError::EmptyName));
    assert_eq!(parse_constant("  =b"), Err(ParameterError::EmptyName));
    let error = parse_constant(&"A".repeat(1000)).unwrap_err().to_string();
    assert_eq!(
        error,
        "found no = in the parameter AAAAAAAAAAAAAAAAAAAAAAAA…AAAAAAAAAAAA (1000 characters); wanted NAME=VALUE"
    );
}

#[test]
fn what_grows_too_long_in_a_row_is_found_before_it_is_sent() {
    let plan = plan(&[("P", "{DeviceId}{DeviceId}{certificate_id}"), ("Q", "{DeviceId}!")]).unwrap();
    let mut device = device();
    device.values[0] = "é".repeat(2016);
    assert_eq!(plan.check(&device), Ok(()));
    device.values[0] = "é".repeat(4096);
    let errors: Vec<_> = plan.check(&device).unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "line 5: found 8256 characters in the parameter P after expansion; wanted at most 4096 characters, the \
             service's limit for a parameter's value",
            "line 5: found 4097 characters in the parameter Q after expansion; wanted at most 4096 characters, the \
             service's limit for a parameter's value",
        ]
    );
}

#[test]
fn constants_that_make_the_message_too_large_are_found() {
    // 33 parameters of 4096 bytes each are over 128 KiB, 31 are not.
    let check = |count: usize| {
        let constants: Vec<_> = (0..count).map(|n| (format!("P{n}"), "v".repeat(4096))).collect();
        ParameterPlan::new(&shape(), &constants).unwrap().check(&device())
    };
    assert_eq!(check(31), Ok(()));
    let errors = check(33).unwrap_err();
    assert_eq!(errors.len(), 1);
    assert!(errors[0].to_string().starts_with("line 5: found parameters that make"), "{}", errors[0]);
}

#[test]
fn a_plan_does_not_show_its_constants() {
    let plan = plan(&[("ApiKey", "hunter2")]).unwrap();
    assert!(!format!("{plan:?}").contains("hunter2"));
}

#[test]
fn an_identity_of_another_shape_is_no_panic() {
    let plan = plan(&[("P", "<{Site é}>")]).unwrap();
    let device = Identity { values: vec![String::from("D1")], ..device() };
    let parameters: Vec<_> = plan.expand(&device, "c0ffee").collect();
    assert_eq!(parameters, [("DeviceId", Cow::Borrowed("D1")), ("P", Cow::Borrowed("<>"))]);
}

fn sending(sent: &SentColumns, constants: &[(&str, &str)]) -> Result<Vec<(String, String)>, ParameterError> {
    let constants: Vec<_> =
        constants.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let plan = ParameterPlan::sending(&shape(), sent, &constants)?;
    let device = device();
    let parameters = plan.expand(&device, "c0ffee");
    Ok(parameters.map(|(name, value)| (name.to_owned(), value.into_owned())).collect())
}

#[test]
fn only_the_columns_that_are_named_are_sent_in_their_order() {
    let only = |names: &[&str]| SentColumns {
        only: Some(names.iter().map(ToString::to_string).collect()),
        ..SentColumns::default()
    };
    let sent = |names: &[&str], constants: &[(&str, &str)]| -> Vec<String> {
        sending(&only(names), constants)
            .unwrap()
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    };
    assert_eq!(sent(&["a{b", "DeviceId"], &[]), ["a{b=", "DeviceId=D1"]);
    // A column that is not sent may lend a constant its name and its value.
    assert_eq!(sent(&["a{b"], &[("DeviceId", "{DeviceId}-x")]), ["a{b=", "DeviceId=D1-x"]);
    assert_eq!(sent(&[], &[]), Vec::<String>::new());
    let said = sending(&only(&["deviceid"]), &[]).unwrap_err().to_string();
    assert_eq!(
        said,
        "found the column deviceid, which the lot does not have; wanted some of DeviceId, Site é, a{b"
    );
    assert!(sending(&only(&["a{b", "a{b"]), &[]).unwrap_err().to_string().contains("twice"));
}

#[test]
fn the_column_of_requests_is_never_sent() {
    let requests = SentColumns { requests: Some("Site é".into()), ..SentColumns::default() };
    let names: Vec<_> = sending(&requests, &[]).unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["DeviceId", "a{b"]);
    let plan = ParameterPlan::sending(&shape(), &requests, &[]).unwrap();
    assert_eq!(plan.request(&device()), Some("Zürich {certificate_id}"));
    let said = sending(&requests, &[("P", "{Site é}")]).unwrap_err().to_string();
    assert!(said.contains("wanted one of {certificate_id}, {DeviceId}, {a{b}, "), "{said}");
    let named = SentColumns { only: Some(vec!["Site é".into()]), ..requests };
    assert!(sending(&named, &[]).unwrap_err().to_string().contains("does not have"));
}

#[test]
fn empty_cells_are_sent_or_left_out() {
    let constants = [("Empty", ""), ("Copy", "{a{b}"), ("Both", "{a{b}{DeviceId}")];
    let names = |empty_cells| -> Vec<String> {
        let sent = SentColumns { empty_cells, ..SentColumns::default() };
        sending(&sent, &constants).unwrap().into_iter().map(|(name, _)| name).collect()
    };
    assert_eq!(names(EmptyCells::Sent), ["DeviceId", "Site é", "a{b", "Empty", "Copy", "Both"]);
    assert_eq!(names(EmptyCells::LeftOut), ["DeviceId", "Site é", "Empty", "Both"]);
}
