//! The lab's people: generated names by role, each with an SSH key of their own.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use age::secrecy::ExposeSecret as _;
use anyhow::{Context as _, Result};
use ceremonies::charter::{BackupRules, Custodian, Keeper, Person, Role};
use ceremonies::ids::{NodeIndex, PersonName};
use ssh_key::{Algorithm, LineEnding, PrivateKey};

/// A person of the lab and where their key is.
#[derive(Debug, Clone)]
pub struct LabPerson {
    /// Named by role and number, such as `operator-2`.
    pub name: PersonName,
    /// The one role the person fills.
    pub role: Role,
    /// The private key's file, in OpenSSH's format, without a passphrase.
    pub key: PathBuf,
}

/// How many people the lab has in a role: one operator per node, and one person for each other role.
fn headcount(role: Role, nodes: u8) -> u8 {
    match role {
        Role::Operator => nodes,
        // One for each node, as with any threshold, and the escrow trustee.
        Role::Custodian => nodes + 1,
        Role::Administrator | Role::Witness | Role::Auditor => 1,
    }
}

/// Everyone in the lab, with a folder of keys.
///
/// # Errors
/// Only if a generated name were malformed.
pub fn roll(folder: &Path, nodes: u8) -> Result<Vec<LabPerson>> {
    let mut people = Vec::new();
    for role in Role::ALL {
        for number in 1..=headcount(role, nodes) {
            let name = format!("{role}-{number}");
            people.push(LabPerson { key: folder.join(&name), name: name.parse()?, role });
        }
    }
    Ok(people)
}

/// Makes everyone's key and returns the people as the charter lists them.
///
/// # Errors
/// When a key cannot be made or written.
pub fn generate(people: &[LabPerson]) -> Result<Vec<Person>> {
    people.iter().map(generate_one).collect()
}

fn generate_one(person: &LabPerson) -> Result<Person> {
    let mut key = PrivateKey::random(&mut ssh_key::rand_core::OsRng, Algorithm::Ed25519)?;
    key.set_comment(person.name.as_str());
    key.write_openssh_file(&person.key, LineEnding::LF)
        .with_context(|| format!("writing the key of {} to {}", person.name, person.key.display()))?;
    let public = key.public_key().clone();
    public.write_openssh_file(&person.key.with_extension("pub"))?;
    Ok(Person {
        name: person.name.clone(),
        roles: BTreeSet::from([person.role]),
        keys: vec![public],
        verified: false,
    })
}

/// The file of a person's age identity.
#[must_use]
pub fn identity(person: &LabPerson) -> PathBuf {
    person.key.with_extension("identity")
}

/// Makes the custodians' age identities, and says who keeps what: each node has a custodian of its own, and the last is
/// the escrow trustee.
///
/// # Errors
/// When an identity cannot be written.
pub fn keepers(people: &[LabPerson], nodes: &[NodeIndex]) -> Result<BackupRules> {
    let custodians = people.iter().filter(|person| person.role == Role::Custodian);
    let mut keepers = custodians.map(keeper).collect::<Result<Vec<Keeper>>>()?;
    let escrow = keepers.pop().context("the lab has no custodian")?;
    let of_node = |(keeper, node): (Keeper, &NodeIndex)| Custodian {
        person: keeper.person,
        recipient: keeper.recipient,
        nodes: vec![*node],
    };
    let custodians = keepers.into_iter().zip(nodes).map(of_node).collect();
    Ok(BackupRules { lock_days: 100, refresh_days: 90, escrow, custodians })
}

fn keeper(person: &LabPerson) -> Result<Keeper> {
    let identity = age::x25519::Identity::generate();
    let recipient = identity.to_public().to_string();
    crate::write_private(&self::identity(person), identity.to_string().expose_secret().as_bytes())?;
    Ok(Keeper { person: person.name.clone(), recipient })
}
