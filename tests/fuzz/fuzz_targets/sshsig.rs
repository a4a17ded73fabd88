//! People's signatures, from whoever submits one. Input is armoured, or what goes inside of the armour.
#![no_main]

use std::collections::BTreeSet;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ceremonies::charter::{Charter, Person};
use ceremonies::sshsig::{MAX_SIGNATURE, canonical};
use ceremonies::statement::verify;
use custody_fuzz::recorded::{CHARTER, FILES};
use libfuzzer_sys::fuzz_target;
use ssh_key::{PublicKey, SshSig};

/// Everybody, and the texts they signed.
static PEOPLE: LazyLock<Vec<Person>> =
    LazyLock::new(|| Charter::parse(CHARTER).expect("the recorded charter").people().to_vec());
static TEXTS: LazyLock<Vec<&str>> = LazyLock::new(|| {
    let statements =
        FILES.iter().filter(|(name, _)| name.starts_with("statements/") && name.ends_with(".txt"));
    statements.map(|(_, text)| std::str::from_utf8(text).expect("a statement is text")).collect()
});

fuzz_target!(|data: &[u8]| {
    let armoured = if data.starts_with(b"-") { data.to_vec() } else { armour(data) };
    if let Ok(form) = canonical(&armoured) {
        assert_eq!(canonical(&form).as_ref(), Ok(&form), "the one form has another");
    }
    for person in PEOPLE.iter() {
        for text in TEXTS.iter().filter(|_| is_by(person, &armoured)) {
            if verify(person, text, &armoured).is_ok() {
                assert!(armoured.len() <= MAX_SIGNATURE);
                assert_eq!(canonical(&armoured).as_ref(), Ok(&armoured), "another form is good too");
                assert!(text.contains(&format!("\nperson: {}\n", person.name)), "signed by somebody else");
                let other = format!("{text}\n");
                assert!(verify(person, &other, &armoured).is_err(), "good for two texts");
            }
        }
    }
    // By a key that the input brings along, as if the charter listed it.
    if let Ok(signature) = SshSig::from_pem(&armoured) {
        let keys = vec![PublicKey::from(signature.public_key().clone())];
        let name = "mallory".parse().expect("a name");
        let stranger = Person { name, roles: BTreeSet::new(), keys, verified: true };
        if let Ok(presence) = verify(&stranger, TEXTS[0], &armoured) {
            assert!(presence.hardware && presence.present && presence.verified);
        }
    }
});

fn is_by(person: &Person, armoured: &[u8]) -> bool {
    SshSig::from_pem(armoured)
        .is_ok_and(|signature| person.keys.iter().any(|key| key.key_data() == signature.public_key()))
}

fn armour(bytes: &[u8]) -> Vec<u8> {
    let text = STANDARD.encode(bytes);
    let lines: Vec<&str> =
        text.as_bytes().chunks(70).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----\n", lines.join("\n")).into_bytes()
}
