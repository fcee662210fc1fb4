//! As much of JSON Schema (2020-12) as our schemas use. A keyword that it does not know is an error of the schema.

use serde_json::Value;

/// All places of `value` that `schema` does not allow.
pub fn errors(schema: &Value, value: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    check(schema, schema, value, "", &mut errors);
    errors
}

fn check(root: &Value, schema: &Value, value: &Value, place: &str, errors: &mut Vec<String>) {
    let mut wrong = |what: String| errors.push(format!("{place}: {what}"));
    for (keyword, wanted) in schema.as_object().expect("a schema is an object") {
        match keyword.as_str() {
            "$schema" | "$id" | "$defs" | "title" | "description" => {}
            "$ref" => {
                let pointer = wanted.as_str().and_then(|reference| reference.strip_prefix('#')).unwrap();
                let referred = root.pointer(pointer).unwrap_or_else(|| panic!("there is no {pointer}"));
                let mut inner = Vec::new();
                check(root, referred, value, place, &mut inner);
                inner.into_iter().for_each(&mut wrong);
            }
            "type" => {
                let names = wanted.as_array().cloned().unwrap_or_else(|| vec![wanted.clone()]);
                if !names.iter().any(|name| is_of_type(value, name.as_str().unwrap())) {
                    wrong(format!("{value} is not of type {wanted}"));
                }
            }
            "const" if value != wanted => wrong(format!("{value} is not {wanted}")),
            "enum" if !wanted.as_array().unwrap().contains(value) => {
                wrong(format!("{value} is none of {wanted}"))
            }
            "minimum" if value.as_f64().is_some_and(|value| value < wanted.as_f64().unwrap()) => {
                wrong(format!("{value} is less than {wanted}"));
            }
            "maximum" if value.as_f64().is_some_and(|value| value > wanted.as_f64().unwrap()) => {
                wrong(format!("{value} is more than {wanted}"));
            }
            "required" if value.is_object() => {
                for name in wanted.as_array().unwrap() {
                    if value.get(name.as_str().unwrap()).is_none() {
                        wrong(format!("{name} is missing"));
                    }
                }
            }
            "const" | "enum" | "minimum" | "maximum" | "required" => {}
            "properties" | "additionalProperties" | "items" => {}
            unknown => panic!("the schema has a keyword that this check does not know: {unknown}"),
        }
    }
    if let (Value::Array(values), Some(items)) = (value, schema.get("items")) {
        for (at, value) in values.iter().enumerate() {
            check(root, items, value, &format!("{place}/{at}"), errors);
        }
    }
    if let Value::Object(fields) = value {
        for (name, value) in fields {
            let place = format!("{place}/{name}");
            match (schema.get("properties").and_then(|all| all.get(name)), schema.get("additionalProperties"))
            {
                (Some(property), _) => check(root, property, value, &place, errors),
                (None, Some(other @ Value::Object(_))) => check(root, other, value, &place, errors),
                (None, _) if schema.get("$ref").is_some() => {}
                (None, _) => errors.push(format!("{place}: is not described")),
            }
        }
    }
}

fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("there is no type {other}"),
    }
}
