//! One enclave under `nitro-cli`: what is started, what is refused, and what is left alone.

use ceremonies::attestation::{Measurement, Pcr};
use node::host::{EnclaveHost as _, HostError, NitroHost};
use serde_json::{Value, json};

use crate::tool::{ID, Tool, allowed, described, described_with, image_described, registers};

fn other() -> Pcr {
    Pcr::from([7; 48])
}

/// The charter's image with one register of another.
fn changed(pcr: u8) -> Measurement {
    let image = allowed();
    match pcr {
        0 => Measurement { pcr0: other(), ..image },
        1 => Measurement { pcr1: other(), ..image },
        2 => Measurement { pcr2: other(), ..image },
        8 => Measurement { pcr8: Some(other()), ..image },
        _ => panic!("no register of an image"),
    }
}

async fn refusal(host: &NitroHost) -> HostError {
    host.start().await.expect_err("the enclave was started")
}

#[tokio::test]
async fn enclave_is_started_as_configured_and_never_in_debug_mode() {
    let tool = Tool::new();
    let running = tool.host().start().await.unwrap();
    assert_eq!((running.id.as_str(), running.cid, running.measurement), (ID, 16, allowed()));
    let image = tool.settings().image.display().to_string();
    let run = tool.calls().into_iter().find(|call| call[0] == "run-enclave").unwrap();
    assert_eq!(
        run[1..],
        [
            ["--enclave-name", "custody"],
            ["--eif-path", &image],
            ["--memory", "512"],
            ["--cpu-count", "2"],
            ["--enclave-cid", "16"],
        ]
        .concat()
    );
}

#[tokio::test]
async fn enclave_that_runs_is_left_alone() {
    let tool = Tool::new();
    tool.shows(&[described()]);
    assert_eq!(tool.host().start().await.unwrap().id, ID);
    assert_eq!(tool.calls(), [["describe-enclaves"]]);
}

#[tokio::test]
async fn image_that_differs_in_one_register_is_not_started_and_the_register_is_named() {
    for pcr in [0, 1, 2] {
        let tool = Tool::new();
        tool.answers("describe-eif", &image_described(&changed(pcr)));
        let refused = refusal(&tool.host()).await;
        let HostError::Measurement { pcr: named, found, .. } = &refused else { panic!("{refused}") };
        assert_eq!((*named, *found), (pcr, other()));
        assert!(refused.to_string().contains("custody.eif"), "{refused}");
        assert_eq!(tool.called("run-enclave"), 0);
    }
}

#[tokio::test]
async fn register_is_named_against_the_nearest_of_several_allowed_images() {
    let tool = Tool::new();
    tool.answers("describe-eif", &image_described(&changed(2)));
    let far = Measurement { pcr0: other(), pcr1: other(), pcr2: allowed().pcr0, pcr8: None, until: None };
    let refused = refusal(&tool.host_allowing(&[far, allowed()])).await;
    assert!(matches!(refused, HostError::Measurement { pcr: 2, .. }), "{refused}");
}

#[tokio::test]
async fn nothing_is_started_where_nothing_is_allowed() {
    let tool = Tool::new();
    let refused = refusal(&tool.host_allowing(&[])).await;
    assert!(matches!(refused, HostError::NothingAllowed), "{refused}");
}

#[tokio::test]
async fn signature_that_the_charter_asks_for_must_be_there_and_be_the_same() {
    let signed = changed(8);
    let unsigned = Tool::new();
    let refused = refusal(&unsigned.host_allowing(&[signed])).await;
    assert!(matches!(refused, HostError::Unsigned { .. }), "{refused}");

    let another = Tool::new();
    let certificate = Some(Pcr::from([8; 48]));
    another.answers("describe-eif", &image_described(&Measurement { pcr8: certificate, ..allowed() }));
    let refused = refusal(&another.host_allowing(&[signed])).await;
    assert!(matches!(refused, HostError::Measurement { pcr: 8, .. }), "{refused}");
    assert_eq!(unsigned.called("run-enclave") + another.called("run-enclave"), 0);

    let same = Tool::new();
    same.answers("describe-eif", &image_described(&signed));
    same.shows_after("run-enclave", &[described_with("Measurements", registers(&signed))]);
    assert_eq!(same.host_allowing(&[signed]).start().await.unwrap().measurement, signed);
}

/// The ways in which an enclave may turn out to be one that must not run, each with the beginning of its message.
fn unfit() -> [(Value, &'static str); 4] {
    [
        (
            described_with("Flags", "DEBUG_MODE"),
            "enclave i-0f00baa0000000001-enc19a2b3c4d5e6f70 runs in debug",
        ),
        (described_with("Measurements", registers(&changed(0))), "PCR0 of enclave"),
        (described_with("EnclaveCID", 17), "enclave i-0f00baa0000000001-enc19a2b3c4d5e6f70 has cid 17"),
        (
            described_with("EnclaveCID", 4_294_967_312_u64),
            "enclave i-0f00baa0000000001-enc19a2b3c4d5e6f70 has",
        ),
    ]
}

#[tokio::test]
async fn enclave_that_was_started_unfit_is_ended_at_once() {
    for (enclave, word) in unfit() {
        let tool = Tool::new();
        tool.shows_after("run-enclave", &[enclave]);
        let refused = refusal(&tool.host()).await.to_string();
        assert!(refused.starts_with(word), "{refused}");
        assert!(tool.calls().contains(&["terminate-enclave", "--enclave-id", ID].map(str::to_owned).into()));
    }
}

#[tokio::test]
async fn unfit_enclave_that_was_there_before_is_reported_and_not_touched() {
    for (enclave, word) in unfit() {
        let tool = Tool::new();
        tool.shows(&[enclave]);
        for refused in [refusal(&tool.host()).await, tool.host().running().await.unwrap_err()] {
            assert!(refused.to_string().starts_with(word), "{refused}");
        }
        assert_eq!(tool.calls(), [["describe-enclaves"], ["describe-enclaves"]]);
    }
}

#[tokio::test]
async fn enclave_that_is_being_ended_is_waited_for() {
    for state in ["TERMINATING", "EMPTY"] {
        let tool = Tool::new();
        tool.shows(&[described_with("State", state)]);
        assert!(matches!(refusal(&tool.host()).await, HostError::Ending { .. }));
        assert_eq!(tool.called("run-enclave"), 0);
    }
}

#[tokio::test]
async fn enclaves_of_other_names_do_not_count_whatever_they_are() {
    let tool = Tool::new();
    let others = [described_with("EnclaveName", "custody_1"), json!({ "EnclaveID": 5 }), json!(null)];
    tool.shows(&others);
    assert_eq!(tool.host().running().await.unwrap(), None);
    assert_eq!(tool.host().terminate().await.unwrap(), None);
    assert_eq!(tool.called("terminate-enclave"), 0);
    assert_eq!(tool.host().start().await.unwrap().id, ID);
}

#[tokio::test]
async fn two_enclaves_of_the_name_are_refused() {
    let tool = Tool::new();
    tool.shows(&[described(), described_with("EnclaveID", "i-0f00baa0000000001-enc2")]);
    for refused in [refusal(&tool.host()).await, tool.host().terminate().await.unwrap_err()] {
        assert!(matches!(refused, HostError::Several { count: 2, .. }), "{refused}");
    }
    assert_eq!(tool.called("run-enclave") + tool.called("terminate-enclave"), 0);
}

#[tokio::test]
async fn second_enclave_that_got_a_number_behind_its_name_is_ended() {
    let tool = Tool::new();
    tool.answers("run-enclave", &json!({ "EnclaveName": "custody_1", "EnclaveID": ID }));
    let refused = refusal(&tool.host()).await;
    assert!(refused.to_string().contains("custody_1"), "{refused}");
    assert_eq!(tool.called("terminate-enclave"), 1);
}

#[tokio::test]
async fn enclave_that_does_not_survive_its_start_is_reported() {
    let tool = Tool::new();
    tool.shows_after("run-enclave", &[]);
    assert!(matches!(refusal(&tool.host()).await, HostError::Vanished { .. }));
}

#[tokio::test]
async fn refusal_of_the_tool_is_shown_in_its_own_words() {
    for (verb, message) in [
        (
            "run-enclave",
            "Start allocating memory...\n[ E29 ] Ioctl failure. Such error is used as a general one",
        ),
        ("run-enclave", "[ E27 ] Insufficient memory available. User provided `memory` is 512 MB"),
        ("run-enclave", "[ E22 ] Insufficient CPUs available in the pool."),
        (
            "run-enclave",
            "[ E19 ] File operation failure.\nFile: '/sys/module/nitro_enclaves/parameters/ne_cpus', failing \
             operation: 'Open'.\nFailed connections: 1\n[ E39 ] Enclave process connection failure.",
        ),
        ("describe-enclaves", "Failed connections: 1\n[ E39 ] Enclave process connection failure."),
        ("describe-eif", "[ E35 ] EIF file parsing error."),
    ] {
        let tool = Tool::new();
        tool.fails(verb, message);
        let refused = refusal(&tool.host()).await.to_string();
        assert!(refused.contains(&message.replace('\n', " ")), "{refused}");
        assert!(refused.contains(verb), "{refused}");
        assert_eq!(tool.called("run-enclave"), usize::from(verb == "run-enclave"));
    }
}

#[tokio::test]
async fn answer_of_unknown_form_is_refused() {
    let without = |mut answer: Value, field: &str| {
        answer.as_object_mut().unwrap().remove(field);
        json!([answer]).to_string()
    };
    let short = json!({ "Measurements": { "PCR0": "00", "PCR1": "00", "PCR2": "00" } });
    for (verb, answer) in [
        ("describe-eif", String::new()),
        ("describe-eif", "{}".to_owned()),
        ("describe-eif", short.to_string()),
        ("describe-enclaves", String::new()),
        ("describe-enclaves", "{}".to_owned()),
        ("describe-enclaves", "[".to_owned()),
        ("describe-enclaves", without(described(), "Flags")),
        ("describe-enclaves", without(described(), "Measurements")),
        ("describe-enclaves", without(described(), "State")),
        ("describe-enclaves", json!([described_with("Flags", "DEBUG_MODE_2")]).to_string()),
        ("describe-enclaves", json!([described_with("EnclaveCID", "16")]).to_string()),
        ("run-enclave", "Started enclave".to_owned()),
        ("run-enclave", json!({ "EnclaveID": ID }).to_string()),
    ] {
        let tool = Tool::new();
        tool.says(verb, &answer);
        tool.shows_after("run-enclave", &[]);
        let refused = refusal(&tool.host()).await;
        assert!(
            matches!(refused, HostError::Answer { verb: named, .. } if named == verb),
            "{answer}: {refused}"
        );
        assert_eq!(tool.called("run-enclave"), usize::from(verb == "run-enclave"));
    }
}

#[tokio::test]
async fn missing_tool_is_named() {
    let tool = Tool::new();
    let host = NitroHost::new("/nowhere/nitro-cli".into(), tool.settings(), vec![allowed()]);
    for refused in [refusal(&host).await, host.terminate().await.unwrap_err()] {
        assert!(matches!(refused, HostError::Tool { .. }), "{refused}");
        assert!(refused.to_string().contains("/nowhere/nitro-cli"), "{refused}");
    }
}

#[tokio::test]
async fn start_that_came_second_takes_the_enclave_of_the_first() {
    let tool = Tool::new();
    tool.fails("run-enclave", "[ E22 ] Insufficient CPUs available in the pool.");
    tool.shows_after("run-enclave", &[described()]);
    assert_eq!(tool.host().start().await.unwrap().id, ID);
}

#[tokio::test]
async fn stop_ends_the_enclave_by_its_id_even_one_that_must_not_run() {
    let unfit = unfit().map(|(enclave, _)| enclave);
    for enclave in [described()].into_iter().chain(unfit) {
        let tool = Tool::new();
        tool.shows(&[described_with("EnclaveName", "payroll"), enclave]);
        assert_eq!(tool.host().terminate().await.unwrap().as_deref(), Some(ID));
        assert_eq!(tool.calls()[1], ["terminate-enclave", "--enclave-id", ID]);
    }
}

#[tokio::test]
async fn stop_believes_only_a_confirmation_about_this_enclave() {
    for answer in
        [json!({ "EnclaveID": ID, "Terminated": false }), json!({ "EnclaveID": "i-1", "Terminated": true })]
    {
        let tool = Tool::new();
        tool.shows(&[described()]);
        tool.answers("terminate-enclave", &answer);
        let refused = tool.host().terminate().await.unwrap_err();
        assert!(matches!(refused, HostError::NotEnded { .. }), "{refused}");
    }
}

#[tokio::test]
async fn restart_does_not_start_before_the_old_enclave_is_ended() {
    let tool = Tool::new();
    tool.shows(&[described()]);
    tool.host().restart().await.unwrap();
    let verbs: Vec<String> = tool.calls().into_iter().map(|mut call| call.remove(0)).collect();
    let place = |verb: &str| verbs.iter().position(|called| called == verb).unwrap();
    assert!(place("terminate-enclave") < place("run-enclave"), "{verbs:?}");

    let stuck = Tool::new();
    stuck.shows(&[described()]);
    stuck.fails("terminate-enclave", "[ E39 ] Enclave process connection failure.");
    stuck.host().restart().await.unwrap_err();
    assert_eq!(stuck.called("run-enclave"), 0);
}

#[tokio::test]
async fn console_of_a_production_enclave_says_that_only_debug_mode_has_one() {
    let tool = Tool::new();
    let refused = tool.host().console().await.unwrap_err();
    assert!(matches!(refused, HostError::NotRunning { .. }), "{refused}");
    tool.shows(&[described()]);
    let words = "[ E44 ] Enclave console connection failure.";
    tool.fails("console", words);
    let refused = tool.host().console().await.unwrap_err().to_string();
    assert!(refused.contains("only in debug mode") && refused.contains(words), "{refused}");
}
