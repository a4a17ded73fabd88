//! Ceremony scripts: the steps, their order, the words to read aloud and who signs each.
//!
//! A script is a model of the room. It is checked before it is used, so that a script with an impossible,
//! unreachable or missing step never reaches a ceremony.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use crate::act::Act;
use crate::charter::{CeremonyKind, Quorum, Role};
use crate::ids::{Hash, InvalidId, Line, StepId};
use crate::text::{Encoding, utf8};

/// Largest accepted script, in bytes.
pub const MAX_SCRIPT: usize = 64 * 1024;

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Named in statements and commands.
    pub id: StepId,
    /// For the list on the left of the screen.
    pub title: Line,
    /// What happens.
    pub act: Act,
    /// Read aloud when the step begins.
    pub words: String,
    /// How many people of which role sign. Empty where enclaves act, and for the approval, whose quorum the charter
    /// sets.
    #[serde(default)]
    pub signers: Quorum,
    /// The steps that must be done first.
    #[serde(default)]
    pub needs: Vec<StepId>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScriptFile {
    name: Line,
    version: u32,
    kind: CeremonyKind,
    title: Line,
    #[serde(rename = "step")]
    steps: Vec<Step>,
}

/// A checked script, named by the hash of its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    hash: Hash,
    text: String,
    file: ScriptFile,
}

/// Why a script is refused.
#[derive(Debug, Error)]
pub enum ScriptError {
    /// Larger than [`MAX_SCRIPT`].
    #[error("script has {0} bytes; at most {MAX_SCRIPT} are read")]
    TooLarge(usize),
    /// Not UTF-8.
    #[error("script is {0}: save it as UTF-8")]
    Encoding(Encoding),
    /// Not the script's TOML.
    #[error("script cannot be read")]
    Syntax(#[source] toml::de::Error),
    /// A name is malformed.
    #[error("script contains a malformed name")]
    Id(#[from] InvalidId),
    /// A rule is broken.
    #[error("script {script}: {problem}")]
    Rule {
        /// The script's name.
        script: String,
        /// What is wrong and what to do.
        problem: String,
    },
}

impl Script {
    /// Reads and checks a script.
    ///
    /// # Errors
    /// [`ScriptError`] with the first problem.
    pub fn parse(bytes: &[u8]) -> Result<Self, ScriptError> {
        if bytes.len() > MAX_SCRIPT {
            return Err(ScriptError::TooLarge(bytes.len()));
        }
        let text = utf8(bytes).map_err(ScriptError::Encoding)?;
        let file: ScriptFile = toml::from_str(text).map_err(ScriptError::Syntax)?;
        file.check()?;
        Ok(Self { hash: Hash::of_bytes(bytes), text: text.to_owned(), file })
    }

    /// The script that this build uses for a kind of ceremony.
    ///
    /// # Errors
    /// Never for the built-in scripts, which a test checks; the type keeps callers from panicking.
    pub fn builtin(kind: CeremonyKind) -> Result<Self, ScriptError> {
        Self::parse(kind.rules().script)
    }

    /// SHA-256 of the file's bytes.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// The file as it was read.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The script's name.
    #[must_use]
    pub fn name(&self) -> &Line {
        &self.file.name
    }

    /// What it is for, as a title.
    #[must_use]
    pub fn title(&self) -> &Line {
        &self.file.title
    }

    /// The kind of ceremony it leads through.
    #[must_use]
    pub fn kind(&self) -> CeremonyKind {
        self.file.kind
    }

    /// The steps in order.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.file.steps
    }

    /// The step of an act, where the script has one.
    #[must_use]
    pub fn step_for(&self, act: Act) -> Option<&Step> {
        self.file.steps.iter().find(|step| step.act == act)
    }

    /// The step of this id.
    #[must_use]
    pub fn step(&self, id: &StepId) -> Option<&Step> {
        self.file.steps.iter().find(|step| step.id == *id)
    }

    /// Whether `step` needs a step of this act, directly or through others.
    #[must_use]
    pub fn follows(&self, step: &Step, act: Act) -> bool {
        self.file.ancestors(step).into_iter().filter_map(|id| self.step(id)).any(|needed| needed.act == act)
    }
}

impl ScriptFile {
    fn check(&self) -> Result<(), ScriptError> {
        let fail = |problem: String| Err(ScriptError::Rule { script: self.name.to_string(), problem });
        if self.version != 1 {
            return fail(format!("version is {}; this build reads version 1", self.version));
        }
        let mut before: BTreeMap<&StepId, &Step> = BTreeMap::new();
        for step in &self.steps {
            for needed in &step.needs {
                if !before.contains_key(needed) {
                    return fail(format!(
                        "step `{}` needs `{needed}`, which does not come before it",
                        step.id
                    ));
                }
            }
            if step.act != Act::Open && step.needs.is_empty() {
                return fail(format!(
                    "step `{}` needs no other step: it could be taken before the opening",
                    step.id
                ));
            }
            if step.act.has_signers() == step.signers.values().all(|count| *count == 0) {
                return fail(format!(
                    "step `{}`: people {}sign this step, so `signers` must {}be given",
                    step.id,
                    if step.act.has_signers() { "" } else { "do not " },
                    if step.act.has_signers() { "" } else { "not " }
                ));
            }
            if step.words.trim().is_empty() {
                return fail(format!("step `{}` has no words to read aloud", step.id));
            }
            if before.insert(&step.id, step).is_some() {
                return fail(format!("two steps are called `{}`", step.id));
            }
        }
        self.check_acts().map_or(Ok(()), fail)
    }

    /// The acts that a kind requires, each exactly once and in this order along the `needs`.
    fn check_acts(&self) -> Option<String> {
        let required = self.kind.rules().acts;
        let of = |act: Act| self.steps.iter().filter(move |step| step.act == act);
        for act in required {
            let count = of(*act).count();
            if count != 1 {
                return Some(format!(
                    "a {} needs exactly one step with act {act:?}; it has {count}",
                    self.kind
                ));
            }
        }
        for pair in required.windows(2) {
            let (earlier, later) = (of(pair[0]).next()?, of(pair[1]).next()?);
            if !self.ancestors(later).contains(&earlier.id) {
                return Some(format!(
                    "step `{}` must need `{}`, directly or through others",
                    later.id, earlier.id
                ));
            }
        }
        if let Some(extra) =
            self.steps.iter().find(|step| step.act != Act::Confirm && !required.contains(&step.act))
        {
            return Some(format!(
                "step `{}` has act {:?}, which is not part of a {}",
                extra.id, extra.act, self.kind
            ));
        }
        let close = of(Act::Close).next()?;
        let reached = self.ancestors(close);
        let loose = self.steps.iter().find(|step| step.id != close.id && !reached.contains(&step.id));
        if let Some(loose) = loose {
            return Some(format!("the ceremony could be closed without step `{}`", loose.id));
        }
        for (act, role) in [(Act::Open, Role::Administrator), (Act::Close, Role::Administrator)] {
            let step = of(act).next()?;
            if step.signers != Quorum::from([(role, 1)]) {
                return Some(format!("step `{}` must be signed by one {role}", step.id));
            }
        }
        None
    }

    fn ancestors<'a>(&'a self, step: &'a Step) -> BTreeSet<&'a StepId> {
        let mut found = BTreeSet::new();
        let mut open: Vec<&StepId> = step.needs.iter().collect();
        while let Some(id) = open.pop() {
            if found.insert(id) {
                open.extend(self.steps.iter().filter(|step| step.id == *id).flat_map(|step| &step.needs));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
    use super::*;

    #[test]
    fn every_builtin_script_passes_its_check() {
        for kind in CeremonyKind::ALL {
            assert_eq!(Script::builtin(kind).unwrap().kind(), kind);
        }
    }

    fn without(id: &str) -> Result<Script, ScriptError> {
        let script = Script::builtin(CeremonyKind::Dkg).unwrap();
        let mut file = script.file;
        let needs = file.steps.iter().find(|step| step.id.as_str() == id).unwrap().needs.clone();
        file.steps.retain(|step| step.id.as_str() != id);
        for step in &mut file.steps {
            if let Some(place) = step.needs.iter().position(|need| need.as_str() == id) {
                step.needs.splice(place..=place, needs.clone());
            }
        }
        Script::parse(toml::to_string(&file).unwrap().as_bytes())
    }

    #[test]
    fn a_script_fails_its_check_when_a_needed_step_is_missing() {
        for id in ["open", "attest", "approve", "generate", "read-back", "test-sign", "agree", "close"] {
            assert!(without(id).is_err(), "{id}");
        }
        assert!(without("identities").is_ok(), "a confirmation more or less is the script's own matter");
    }

    #[test]
    fn a_script_fails_its_check_when_steps_are_out_of_order() {
        let script = Script::builtin(CeremonyKind::Dkg).unwrap();
        let mut file = script.file.clone();
        let generate = file.steps.iter().position(|step| step.act == Act::Generate).unwrap();
        let attest = file.steps.iter().find(|step| step.act == Act::Attest).unwrap().id.clone();
        file.steps[generate].needs = vec![attest];
        let error = Script::parse(toml::to_string(&file).unwrap().as_bytes()).unwrap_err();
        assert!(error.to_string().contains("must need `approve`"), "{error}");
        let mut file = script.file;
        file.steps.swap(1, 2);
        assert!(Script::parse(toml::to_string(&file).unwrap().as_bytes()).is_err());
    }

    #[test]
    fn a_script_whose_steps_share_their_needs_is_looked_through_once() {
        // As many paths through the confirmations as Fibonacci's 64th number.
        let lattice = include_bytes!("../../tests/fuzz/corpus/script/lattice.toml");
        let script = Script::parse(lattice).unwrap();
        let approve = script.step_for(Act::Approve).unwrap();
        assert!(script.follows(approve, Act::Attest));
        assert!(!script.follows(approve, Act::Agree));
    }
}
