//! Evidence bundles: an unaltered one verifies, and one that was changed anywhere does not.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Cursor, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use ceremonies::attestation::TrustRoot;
use ceremonies::charter::{ClusterKind, Role};
use ceremonies::evidence::{
    Check, EvidenceError, Expected, MAX_BUNDLE, Material, Report, VerifyError, verify,
};
use ceremonies::manifest::Way;
use ceremonies::statement::NAMESPACE;
use ceremonies::text::chain;
use ceremonies::words;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::keys::OTHER_SHARING;
use crate::kit::Paper;
use crate::machine::MACHINE;
use crate::refused;

static PAPER: LazyLock<Paper> = LazyLock::new(|| {
    let mut paper = Paper::dkg();
    paper.attest_all();
    paper.confirm();
    // A hardware key's signature as well, which stock tools must also find good.
    paper.approve("hanna", Role::Operator).unwrap();
    for (person, role) in crate::cluster::QUORUM {
        paper.approve(person, role).unwrap();
    }
    paper.prepare_all();
    paper.adopt_all();
    paper.read_words_back();
    paper.finish();
    paper
});
static SIGNING: LazyLock<Paper> = LazyLock::new(|| {
    let mut paper = PAPER.test_signing();
    paper.attest_all();
    paper.approve_all();
    paper.finish();
    paper
});
static BUNDLE: LazyLock<Vec<u8>> = LazyLock::new(|| PAPER.material().bundle().unwrap());

fn paper_words(paper: &Paper) -> String {
    words::spoken(&paper.ceremony.head().hash)
}

fn lab() -> Expected {
    Expected { kind: Some(ClusterKind::Lab), ..Expected::default() }
}

pub(crate) fn unpack(bundle: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut archive = ZipArchive::new(Cursor::new(bundle)).unwrap();
    (0..archive.len())
        .map(|index| {
            let mut file = archive.by_index(index).unwrap();
            let mut content = Vec::new();
            file.read_to_end(&mut content).unwrap();
            (file.name().to_owned(), content)
        })
        .collect()
}

fn pack_with(files: &BTreeMap<String, Vec<u8>>, options: SimpleFileOptions) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        writer.start_file(name.as_str(), options).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// Packs as a bundle is packed.
pub(crate) fn pack(files: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(zip::DateTime::default())
        .unix_permissions(0o644);
    pack_with(files, options)
}

/// The verdict on the bundle after its files were changed and packed again.
fn changed(change: impl FnOnce(&mut BTreeMap<String, Vec<u8>>)) -> Result<(), VerifyError> {
    let mut files = unpack(&BUNDLE);
    change(&mut files);
    verify(&pack(&files), &lab()).map(drop)
}

#[test]
fn readme_of_a_bundle_says_who_disputes_it_before_anything_is_checked() {
    let readme = String::from_utf8(unpack(&BUNDLE)["README.txt"].clone()).unwrap();
    let dispute = "DISPUTED: arthur as auditor says: disagree: I could not see the third screen.";
    assert_eq!(readme.lines().nth(2), Some(dispute), "{readme}");
}

#[test]
fn bundle_of_a_whole_ceremony_verifies() {
    let expected = Expected { head: Some(paper_words(&PAPER)), root: Some(MACHINE.root.clone()), ..lab() };
    let report = verify(&BUNDLE, &expected).unwrap();
    assert!(report.complete);
    assert_eq!(report.head, PAPER.ceremony.head().hash);
    assert_eq!(report.head_words, paper_words(&PAPER));
    assert_eq!(report.disagreements, ["arthur: I could not see the third screen"]);
    let verdict = report.to_string().lines().last().map(str::to_owned).unwrap();
    assert_eq!(
        verdict,
        "VERIFIED, BUT: a lab's record proves nothing; 1 disagreed; the bundle does not show that the log was recorded; \
         not compared: charter"
    );
    assert!(report.checks.iter().any(|check| check.found.starts_with("10 subsets interpolate")));
}

#[test]
fn bundle_of_a_test_signing_verifies_with_the_log_of_its_origin() {
    let bundle = SIGNING.material().bundle().unwrap();
    assert!(verify(&bundle, &lab()).unwrap().complete);
    let mut files = unpack(&bundle);
    files.remove("origins/001.binpb").unwrap();
    refused!(verify(&pack(&files), &lab()), VerifyError::Record(_));
}

/// A refresh of the wallet, closed, and a test signing after it.
static RENEWED: LazyLock<[Paper; 2]> = LazyLock::new(|| {
    let mut refresh = PAPER.refresh().authorise();
    refresh.stage_all();
    refresh.read_words_back();
    refresh.finish();
    let mut signing = refresh.test_signing().authorise();
    signing.finish();
    [refresh, signing]
});

#[test]
fn bundles_of_a_refresh_and_of_a_test_signing_after_it_verify_with_all_they_rest_on() {
    let [refresh, signing] = &*RENEWED;
    for (paper, origins) in
        [(refresh, &["origins/001.binpb"][..]), (signing, &["origins/001.binpb", "origins/002.binpb"])]
    {
        let bundle = paper.material().bundle().unwrap();
        let expected = Expected { head: Some(paper_words(paper)), ..lab() };
        assert!(verify(&bundle, &expected).unwrap().complete);
        let files = unpack(&bundle);
        let carried: Vec<_> = files.keys().filter(|name| name.starts_with("origins/")).collect();
        assert_eq!(carried, origins);
        assert!(pack(&files) == bundle);
    }
    let record = signing.ceremony.record().unwrap();
    assert_eq!(record.generation.0, 2);
    assert_eq!(signing.material().fold().unwrap().record(), Some(record));
}

#[test]
fn bundle_of_a_renewed_wallet_fails_when_anything_it_rests_on_is_left_out() {
    for paper in &*RENEWED {
        let bundle = paper.material().bundle().unwrap();
        let names = unpack(&bundle).into_keys().filter(|name| name.starts_with("origins/"));
        for name in names {
            let mut files = unpack(&bundle);
            files.remove(&name).unwrap();
            refused!(verify(&pack(&files), &lab()), VerifyError::Record(_));
            let mut files = unpack(&bundle);
            files.get_mut(&name).unwrap().clear();
            refused!(verify(&pack(&files), &lab()), VerifyError::Record(_));
        }
    }
    let whole = RENEWED[1].material();
    for origins in [
        vec![],
        vec![whole.origins[0].clone()],
        vec![whole.origins[1].clone()],
        vec![whole.origins[1].clone(), whole.origins[0].clone()],
    ] {
        refused!(Material { origins, ..whole.clone() }.bundle(), EvidenceError::Rejected { .. });
    }
}

#[test]
fn bundle_of_a_renewed_wallet_fails_with_a_log_that_it_does_not_rest_on() {
    let [refresh, signing] = &*RENEWED;
    let foreign = [Paper::dkg_with(9).log, SIGNING.log.clone(), signing.log.clone()];
    for (paper, log) in RENEWED.iter().flat_map(|paper| foreign.iter().map(move |log| (paper, log))) {
        let whole = paper.material();
        for at in 0..=whole.origins.len() {
            let mut origins = whole.origins.clone();
            origins.insert(at, log.clone());
            refused!(
                Material { origins, ..whole.clone() }.bundle(),
                EvidenceError::Origins | EvidenceError::Rejected { .. }
            );
        }
    }
    let twice = Material { origins: [PAPER.log.clone(), PAPER.log.clone()].into(), ..refresh.material() };
    refused!(twice.bundle(), EvidenceError::Origins);
    let own = Material { origins: [PAPER.log.clone(), refresh.log.clone()].into(), ..refresh.material() };
    refused!(own.bundle(), EvidenceError::Origins);
    let of_a_first = Material { origins: vec![Paper::dkg_with(9).log], ..PAPER.material() };
    refused!(of_a_first.bundle(), EvidenceError::Origins);

    let mut files = unpack(&refresh.material().bundle().unwrap());
    files.insert("origins/003.binpb".into(), files["origins/001.binpb"].clone());
    refused!(verify(&pack(&files), &lab()), VerifyError::FileUnknown(name) if name == "origins/003.binpb");
}

#[test]
fn bundle_with_releases_and_proofs_of_backups_verifies() {
    let mut dkg = Paper::dkg_under(crate::cluster::context_of(&crate::cluster::BACKED)).authorise();
    dkg.prepare_all();
    dkg.adopt_all();
    dkg.read_words_back();
    dkg.finish();
    let mut recovery = dkg.recover(&[(3, Way::Backup), (5, Way::Repair)]).authorise();
    let object = dkg.written(3);
    recovery.release("recover", "carl", 3, object).unwrap();
    recovery.get_back(3).unwrap();
    recovery.get_back(5).unwrap();
    recovery.stage_all();
    recovery.read_words_back();
    recovery.finish();
    for paper in [&dkg, &recovery] {
        assert!(verify(&paper.material().bundle().unwrap(), &lab()).unwrap().complete);
    }
    stock_tools_agree("evidence-recover", &recovery.material().bundle().unwrap(), 18);
}

#[test]
fn bundle_of_an_unfinished_ceremony_verifies_as_not_complete() {
    let (mut withdrawn, mut faulted, mut differing) =
        (Paper::committed(), Paper::authorised(), Paper::authorised());
    withdrawn.withdraw("ada", Role::Administrator).unwrap();
    faulted.fault(1).unwrap();
    differing.prepare(1).unwrap();
    differing.prepare_with(2, &differing.record(&OTHER_SHARING)).unwrap();
    let open = [Paper::dkg(), Paper::authorised(), Paper::committed()];
    for paper in open.into_iter().chain([withdrawn, faulted, differing]) {
        let report = verify(&paper.material().bundle().unwrap(), &lab()).unwrap();
        assert!(!report.complete);
        assert!(report.to_string().contains("NOT COMPLETE"));
        assert!(report.verdict().contains("the ceremony is not complete; "));
    }
}

#[test]
fn verdict_without_a_but_needs_everything_shown_and_compared() {
    let whole = || {
        let mut report = verify(&BUNDLE, &lab()).unwrap();
        report.kind = ClusterKind::Production;
        report.recorded = true;
        report.disagreements.clear();
        report.not_compared.clear();
        report
    };
    assert_eq!(whole().verdict(), "VERIFIED: everything in the bundle follows from the signed log");
    let spoil: [fn(&mut Report); 6] = [
        |report| report.kind = ClusterKind::Lab,
        |report| report.recorded = false,
        |report| report.complete = false,
        |report| report.disagreements.push("arthur: no".to_owned()),
        |report| report.branches.push("from entry 3 on".to_owned()),
        |report| report.not_compared.push(Check { name: "head", found: String::new() }),
    ];
    for spoil in spoil {
        let mut report = whole();
        spoil(&mut report);
        assert!(report.verdict().starts_with("VERIFIED, BUT: "), "{}", report.verdict());
    }
}

#[test]
fn same_log_makes_the_same_bytes() {
    assert!(PAPER.material().bundle().unwrap() == *BUNDLE);
    assert!(pack(&unpack(&BUNDLE)) == *BUNDLE, "the tests below would otherwise test the packing");
}

#[test]
fn bundle_fails_when_any_byte_is_flipped() {
    let mut bytes = BUNDLE.clone();
    let length = bytes.len();
    let places = (0..64).chain((64..length - 64).step_by(97)).chain(length - 64..length);
    for place in places {
        bytes[place] ^= 1 << (place % 8);
        assert!(verify(&bytes, &lab()).is_err(), "byte {place} of {length}");
        bytes[place] ^= 1 << (place % 8);
    }
    assert!(verify(&bytes, &lab()).is_ok());
}

#[test]
fn bundle_fails_when_cut_short_continued_or_garbage() {
    let length = BUNDLE.len();
    for kept in (0..length).step_by(length / 50).chain([length - 1, length - 22]) {
        assert!(verify(&BUNDLE[..kept], &lab()).is_err(), "{kept} bytes");
    }
    for (before, after) in [(&b"x"[..], &b""[..]), (b"", b"x"), (b"", &[0; 70])] {
        let wrapped = [before, &BUNDLE, after].concat();
        assert!(verify(&wrapped, &lab()).is_err(), "{} before, {} after", before.len(), after.len());
    }
    for garbage in [&b""[..], b"PK", b"PK\x05\x06", &[0; 22], &[0xff; 4096]] {
        refused!(verify(garbage, &lab()), VerifyError::Archive(_));
    }
    refused!(verify(&vec![0; MAX_BUNDLE + 1], &lab()), VerifyError::Archive(_));
}

#[test]
fn bundle_fails_when_packed_again_in_another_way() {
    let files = unpack(&BUNDLE);
    let deflated = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    refused!(verify(&pack_with(&files, deflated), &lab()), VerifyError::Repacked);
    let other_rights = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(zip::DateTime::default())
        .unix_permissions(0o755);
    refused!(verify(&pack_with(&files, other_rights), &lab()), VerifyError::Repacked);
}

#[test]
fn dropped_last_entry_fails_against_the_words_on_paper() {
    let material = PAPER.material();
    let shorter = Material { log: material.log[..material.log.len() - 1].to_vec(), ..material };
    let bundle = shorter.bundle().unwrap();
    assert!(!verify(&bundle, &lab()).unwrap().complete);
    let expected = Expected { head: Some(paper_words(&PAPER)), ..lab() };
    refused!(verify(&bundle, &expected), VerifyError::Head { .. });
}

#[test]
fn words_on_paper_match_whatever_their_case_and_spacing() {
    let typed = paper_words(&PAPER).to_uppercase().replace(' ', ",  ");
    assert!(verify(&BUNDLE, &Expected { head: Some(typed), ..lab() }).is_ok());
    let expected = |words: &str| Expected { head: Some(words.to_owned()), ..lab() };
    refused!(verify(&BUNDLE, &expected(&paper_words(&SIGNING))), VerifyError::Head { .. });
    let own = paper_words(&PAPER);
    let some = own.split(' ').take(2).collect::<Vec<_>>().join(" ");
    for (words, given) in [("", 0), (some.as_str(), 2), (&format!("{own} aardvark"), 9)] {
        refused!(verify(&BUNDLE, &expected(words)), VerifyError::Words(count) if count == given);
    }
}

#[test]
fn lab_bundle_fails_as_production_or_rehearsal() {
    for kind in [ClusterKind::Production, ClusterKind::Rehearsal] {
        let expected = Expected { kind: Some(kind), ..Expected::default() };
        refused!(verify(&BUNDLE, &expected), VerifyError::Kind { .. });
    }
    let aws = Expected { root: Some(TrustRoot::aws_nitro_g1()), ..lab() };
    refused!(verify(&BUNDLE, &aws), VerifyError::Root { .. });
}

#[test]
fn file_is_named_when_removed() {
    let names: Vec<String> = unpack(&BUNDLE).into_keys().collect();
    for name in names {
        let error = changed(|files| drop(files.remove(&name))).unwrap_err();
        assert!(error.to_string().contains(&name) || name == "SHA256SUMS", "{name}: {error}");
    }
}

#[test]
fn derived_file_is_named_when_changed() {
    let sources = ["charter.toml", "root.pem", "log.binpb"];
    let all = unpack(&BUNDLE);
    let derived: Vec<_> = all.into_keys().filter(|name| !sources.contains(&name.as_str())).collect();
    assert!(derived.iter().any(|name| name == "wallet.json"));
    for name in derived {
        let error = changed(|files| files.get_mut(&name).unwrap()[0] ^= 1).unwrap_err();
        assert!(matches!(&error, VerifyError::FileDiffers(named) if *named == name), "{name}: {error}");
    }
}

#[test]
fn file_is_named_when_no_bundle_has_it() {
    for name in ["zzz", "statements/999-approve-operator-eve.txt", "../outside", "wallet.json.bak"] {
        let error = changed(|files| drop(files.insert(name.to_owned(), b"x".to_vec()))).unwrap_err();
        assert!(matches!(&error, VerifyError::FileUnknown(named) if named == name), "{name}: {error}");
    }
}

#[test]
fn source_that_holds_something_else_is_named() {
    let utf16: Vec<u8> = "kind = 1\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let other = crate::machine::Machine::new().root.to_pem().unwrap().into_bytes();
    let twice = MACHINE.root.to_pem().unwrap().repeat(2).into_bytes();
    for (name, bytes) in [
        ("root.pem", Vec::new()),
        ("root.pem", b"hello".to_vec()),
        ("root.pem", other),
        ("root.pem", twice),
        ("root.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec()),
        ("charter.toml", Vec::new()),
        ("charter.toml", utf16),
        ("log.binpb", b"hello".to_vec()),
        ("log.binpb", vec![1, 0xff]),
    ] {
        let refused = changed(|files| drop(files.insert(name.to_owned(), bytes))).unwrap_err();
        assert!(chain(&refused).contains(name), "{name}: {}", chain(&refused));
    }
}

#[test]
fn changed_charter_root_or_log_fails() {
    let other = crate::machine::Machine::new().root.to_pem().unwrap();
    refused!(
        changed(|files| drop(files.insert("root.pem".into(), other.into_bytes()))),
        VerifyError::Record(EvidenceError::Foreign(_))
    );
    refused!(
        changed(|files| {
            let charter = String::from_utf8(files["charter.toml"].clone()).unwrap();
            let production = charter.replace("kind = \"lab\"", "kind = \"production\"");
            assert_ne!(production, charter);
            files.insert("charter.toml".into(), production.into_bytes());
        }),
        VerifyError::Record(EvidenceError::Charter(_))
    );
    refused!(
        changed(|files| files.get_mut("charter.toml").unwrap().extend(b"# a comment\n")),
        VerifyError::Record(EvidenceError::Rejected { seq: 1, .. })
    );
    refused!(
        changed(|files| assert!(files.get_mut("log.binpb").unwrap().pop().is_some())),
        VerifyError::Record(EvidenceError::Delimiters(_))
    );
    refused!(
        changed(|files| *files.get_mut("log.binpb").unwrap().last_mut().unwrap() ^= 1),
        VerifyError::Record(EvidenceError::Rejected { .. })
    );
    refused!(
        changed(|files| files.get_mut("log.binpb").unwrap().clear()),
        VerifyError::Record(EvidenceError::Rejected { seq: 1, .. })
    );
}

#[test]
fn log_with_a_refused_entry_makes_no_bundle() {
    let mut material = PAPER.material();
    material.log.swap(3, 4);
    refused!(material.bundle(), EvidenceError::Rejected { seq: 4, .. });
    let without_origin = Material { origins: Vec::new(), ..SIGNING.material() };
    refused!(without_origin.bundle(), EvidenceError::Rejected { seq: 1, .. });
}

/// A fresh folder with the bundle's files.
fn folder(name: &str, bundle: &[u8]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder).unwrap();
    }
    for (name, content) in unpack(bundle) {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    folder
}

/// Whether the command succeeds; `None` if the tool is not installed.
fn runs(command: &mut Command) -> Option<bool> {
    let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().ok().map(|status| status.success())
}

fn stock_tools_agree(name: &str, bundle: &[u8], least: usize) {
    let folder = folder(name, bundle);
    let sums = || runs(Command::new("sha256sum").args(["-c", "SHA256SUMS"]).current_dir(&folder));
    assert_ne!(sums(), Some(false));
    let verifies = |statement: &Path, person: &str, text: &Path| {
        runs(
            Command::new("ssh-keygen")
                .args(["-Y", "verify", "-f", "allowed_signers", "-n", NAMESPACE, "-I", person, "-s"])
                .arg(statement)
                .stdin(File::open(text).unwrap())
                .current_dir(&folder),
        )
    };
    let mut texts = Vec::new();
    for file in fs::read_dir(folder.join("statements")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            texts.push(path);
        }
    }
    assert!(texts.len() >= least, "{} statements", texts.len());
    for text in &texts {
        let signature = text.with_extension("sig");
        let said = fs::read_to_string(text).unwrap();
        let person = said.lines().find_map(|line| line.strip_prefix("person: ")).unwrap();
        assert_ne!(verifies(&signature, person, text), Some(false), "{}", text.display());
        assert_ne!(verifies(&signature, "adam", text), Some(true), "{}", text.display());
    }
    fs::write(&texts[0], "something else").unwrap();
    assert_ne!(sums(), Some(true));
}

#[test]
fn stock_tools_find_every_statement_and_sum_good() {
    stock_tools_agree("evidence-dkg", &BUNDLE, 15);
    stock_tools_agree("evidence-test-sign", &SIGNING.material().bundle().unwrap(), 12);
}
