//! Which names look like those of secrets. Secrets should not become attributes: everyone who may describe things reads
//! those.

/// Words that suggest a secret, in lower case.
const WORDS: [&str; 30] = [
    "key",
    "keys",
    "apikey",
    "secret",
    "secrets",
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "pass",
    "pwd",
    "psk",
    "pin",
    "puk",
    "token",
    "tokens",
    "credential",
    "credentials",
    "private",
    "otp",
    "seed",
    "salt",
    "wpa",
    "passwort",
    "kennwort",
    "geheim",
    "schluessel",
    "motdepasse",
    "clave",
    "senha",
];

/// Beginnings and ends of names that are written as one word, such as `devicekey`.
const PARTS: [&str; 17] = [
    "apikey",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "privatekey",
    "devicekey",
    "sharedkey",
    "token",
    "credential",
    "passwort",
    "motdepasse",
    "schlüssel",
    "contraseña",
    "密码",
    "密钥",
    "パスワード",
];

/// Harmless words that end in a secret one.
const HARMLESS_ENDS: [&str; 5] = ["monkey", "turkey", "donkey", "whiskey", "hockey"];

/// Whether a column, parameter or attribute of this name is likely to hold a secret, such as `DeviceKey`,
/// `wifi_password` or `PSK`. A guess from the name alone, which errs on the side of caution.
pub fn looks_secret(name: &str) -> bool {
    let words = words(name);
    let joined = words.concat();
    words.iter().any(|word| WORDS.contains(&word.as_str()) || is_key(word))
        || PARTS.iter().any(|part| joined.contains(part))
}

fn is_key(word: &str) -> bool {
    word.ends_with("key") && !HARMLESS_ENDS.iter().any(|harmless| word.ends_with(harmless))
}

/// The words of a name in lower case: `DeviceKey`, `device_key` and `DEVICE-KEY` all have the same two.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = None;
    let mut characters = name.chars().peekable();
    while let Some(c) = characters.next() {
        if !c.is_alphanumeric() {
            words.push(String::new());
            before = None;
            continue;
        }
        let begins = match before {
            None => false,
            // `deviceKey` and `APIKey`: the last capital letter begins the next word.
            Some(before) => {
                let before: char = before;
                c.is_uppercase()
                    && (before.is_lowercase()
                        || before.is_numeric()
                        || characters.peek().is_some_and(|next| next.is_lowercase()))
            }
        };
        if begins {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.extend(c.to_lowercase());
        }
        before = Some(c);
    }
    // `key2` counts as `key`.
    let bare = words.iter().map(|word| word.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned());
    bare.filter(|word| !word.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_are_known_however_they_are_written() {
        for name in [
            "DeviceKey",
            "device_key",
            "DEVICE-KEY",
            "devicekey",
            "APIKey",
            "apiKey",
            "api key",
            "WiFiPassword",
            "wifi_pwd",
            "PSK",
            "WPA2 PSK",
            "pin",
            "PIN",
            "Pairing.Token",
            "clientSecret",
            "mqttPassphrase",
            "private_key_pem",
            "aesKey128",
            "Kennwort",
            "Geheimschlüssel",
            "mot_de_passe",
            "パスワード",
            "HmacSeed",
        ] {
            assert!(looks_secret(name), "{name}");
        }
    }

    #[test]
    fn other_names_are_left_alone() {
        for name in [
            "DeviceId",
            "SerialNumber",
            "MacAddress",
            "Version",
            "Keyboard",
            "Monkey",
            "spinSpeed",
            "Pinion",
            "Passenger",
            "Compass",
            "Environment",
            "Site",
            "Tokyo",
            "Donkey",
            "Salty",
            "",
            "型番",
        ] {
            assert!(!looks_secret(name), "{name}");
        }
    }
}
