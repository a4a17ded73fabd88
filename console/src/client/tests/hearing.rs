//! Which messages are heard: those that a node of the charter signed, for this purpose, once.

use ceremonies::deploy::allowance::Limit;
use ceremonies::wire::record;
use futures_util::{StreamExt as _, stream};

use super::*;
use crate::client::listening::Listening;
use crate::client::{Ear, News, verified};

fn said(topic: Topic, by: u8, key: u8, body: &impl Message) -> Vec<u8> {
    said::say(KEYS.charter.cluster(), topic, node(by), body.encode_to_vec(), |bytes| sign(key, bytes))
        .unwrap()
}

fn hears(ear: &mut Ear, subject: &str, payload: &[u8]) -> bool {
    ear.hear(&voices(), subject, payload).is_some()
}

#[test]
fn heartbeat_is_heard_once_and_never_again() {
    let mut ear = Ear::default();
    let beat = |time| said(Topic::Heartbeat, 3, 3, &heartbeat(3, time));
    assert!(hears(&mut ear, "health.3", &beat(1_000)));
    assert!(!hears(&mut ear, "health.3", &beat(1_000)), "the same again");
    assert!(hears(&mut ear, "health.3", &beat(2_000)));
    let older = ear.hear(&voices(), "health.3", &beat(1_500));
    assert!(
        matches!(older, Some(News::Backdated(of)) if of == node(3)),
        "an older one is only said to have come"
    );
    assert!(!hears(&mut ear, "health.3", &beat(2_000)), "it does not make what was heard new again");
    assert!(hears(&mut ear, "health.1", &said(Topic::Heartbeat, 1, 1, &heartbeat(1, 1_000))));
}

#[test]
fn subject_says_nothing_of_who_spoke() {
    let mut ear = Ear::default();
    let beat = said(Topic::Heartbeat, 3, 3, &heartbeat(3, 1_000));
    let Some(News::Health(heard)) = ear.hear(&voices(), "health.1", &beat) else { panic!("not heard") };
    assert_eq!(heard.node, 3);
}

#[test]
fn words_that_their_node_has_not_signed_for_this_are_dropped() {
    let mut ear = Ear::default();
    let beat = heartbeat(3, 1_000);
    for (why, payload) in [
        ("unsigned", beat.encode_to_vec()),
        ("another's key", said(Topic::Heartbeat, 3, 2, &beat)),
        ("about another node", said(Topic::Heartbeat, 2, 2, &beat)),
        ("another topic", said(Topic::Progress, 3, 3, &beat)),
        ("nothing", Vec::new()),
        ("noise", vec![0xff; 40]),
    ] {
        assert!(!hears(&mut ear, "health.3", &payload), "{why}");
    }
    let progress = bus::Progress { version: VERSION, node: 4, ..Default::default() };
    assert!(!hears(&mut ear, "progress.dkg-w-1.4", &said(Topic::Heartbeat, 4, 4, &progress)));
    assert!(!hears(&mut ear, "progress.dkg-w-1.3", &said(Topic::Progress, 3, 3, &progress)));
    assert!(hears(&mut ear, "progress.dkg-w-1.4", &said(Topic::Progress, 4, 4, &progress)));
    assert!(!hears(&mut ear, "ceremony.log.dkg-w-1", &said(Topic::Heartbeat, 3, 3, &beat)));
}

#[test]
fn one_heartbeat_costs_no_more_than_honest_ones() {
    let mut ear = Ear::default();
    let with = |shares: usize, time| bus::Heartbeat {
        shares: vec![bus::HeldShare::default(); shares],
        forked: vec![String::new(); shares],
        ..heartbeat(3, time)
    };
    let beat = said(Topic::Heartbeat, 3, 3, &with(10_000, 1_000));
    let Some(News::Health(heard)) = ear.hear(&voices(), "health.3", &beat) else { panic!("not heard") };
    assert!(heard.shares.len() == 100 && heard.forked.len() <= 100);
    assert!(!hears(&mut ear, "health.3", &said(Topic::Heartbeat, 3, 3, &with(100_000, 2_000))));
    assert!(hears(&mut ear, "health.3", &said(Topic::Heartbeat, 3, 3, &with(10, 2_000))));
}

#[test]
fn head_is_a_hint_only_when_a_node_signed_it() {
    let log = log_of(2);
    let news = |heads| record::News { heads }.encode_to_vec();
    let mut ear = Ear::default();
    assert!(
        matches!(ear.hear(&voices(), "head.2", &news(vec![head(2, &log, &log)])), Some(News::Log(heard)) if heard == id())
    );
    let mut forged = head(2, &log, &log);
    forged.head.as_mut().unwrap().signature[0] ^= 1;
    assert!(!hears(&mut ear, "head.2", &news(vec![forged.clone()])));
    assert!(!hears(&mut ear, "head.2", &news(Vec::new())));
    assert!(hears(&mut ear, "head.2", &news(vec![forged, head(1, &log, &log)])));
}

#[test]
fn news_with_more_heads_than_nodes_send_is_dropped_unread() {
    let log = log_of(2);
    let news = |heads| record::News { heads: vec![head(2, &log, &log); heads] }.encode_to_vec();
    let mut ear = Ear::default();
    assert!(hears(&mut ear, "head.2", &news(64)));
    assert!(!hears(&mut ear, "head.2", &news(65)));
    assert!(!hears(&mut ear, "head.2", &news(2_000)));
}

#[test]
fn no_more_forged_heads_are_checked_than_an_amendment_can_explain() {
    let log = log_of(2);
    let mut forged = head(2, &log, &log);
    forged.head.as_mut().unwrap().signature[0] ^= 1;
    let behind = |forgeries| {
        let heads = [vec![forged.clone(); forgeries], vec![head(1, &log, &log)]].concat();
        record::News { heads }.encode_to_vec()
    };
    let mut ear = Ear::default();
    assert!(hears(&mut ear, "head.2", &behind(15)));
    assert!(!hears(&mut ear, "head.2", &behind(16)));
}

/// A message as it comes from the bus.
fn message(subject: &str, payload: Vec<u8>) -> async_nats::Message {
    let length = payload.len();
    async_nats::Message {
        subject: subject.into(),
        reply: None,
        payload: payload.into(),
        headers: None,
        status: None,
        description: None,
        length,
    }
}

/// All that a console takes as news of these messages, of nodes 1, 2 and so on, which are there at once.
async fn news_of(messages: Vec<Vec<async_nats::Message>>) -> Vec<News> {
    let mut listening = Listening::default();
    for (index, said) in (1..).zip(messages) {
        let limit = Limit { per_second: 1, at_once: 64 * 1024 };
        listening.to(node(index), limit, stream::iter(said));
    }
    listening.news(Fake::default().nodes()).collect().await
}

#[tokio::test]
async fn node_that_floods_is_named_and_what_others_say_is_heard() {
    let beat =
        |by, time| message(&format!("health.{by}"), said(Topic::Heartbeat, by, by, &heartbeat(by, time)));
    let junk = |_| message("health.3", vec![7; 4_096]);
    let flood = (0..1_000).map(junk).collect();
    let news = news_of(vec![vec![beat(1, 1_000)], vec![beat(2, 1_000), beat(2, 2_000)], flood]).await;
    let heard = |by| news.iter().filter(|news| matches!(news, News::Health(beat) if beat.node == by)).count();
    assert_eq!((heard(1), heard(2), heard(3)), (1, 2, 0));
    let named: Vec<_> = news.iter().filter(|news| matches!(news, News::Surplus(_))).collect();
    assert!(matches!(named.as_slice(), [News::Surplus(by)] if *by == node(3)), "{named:?}");
}

#[test]
fn answer_belongs_to_its_node_and_its_question() {
    let (subject, request) = ("ceremony.read.dkg-w-1.2", b"question".as_slice());
    let topic = Topic::answer_to(subject, request);
    let body = heartbeat(2, 0);
    let by_two = said(topic, 2, 2, &body);
    assert!(verified(&voices(), node(2), (subject, request), &by_two).is_ok());
    for (asked, subject, request, answer) in [
        (2, subject, b"another question".as_slice(), by_two.clone()),
        (2, "ceremony.read.dkg-w-1.3", request, by_two.clone()),
        (2, subject, request, said(topic, 2, 3, &body)),
        (2, subject, request, body.encode_to_vec()),
        (2, subject, request, vec![0; ceremonies::deploy::subject::MAX_PAYLOAD + 1]),
    ] {
        assert!(verified(&voices(), node(asked), (subject, request), &answer).is_err());
    }
    let another = verified(&voices(), node(3), (subject, request), &by_two);
    assert!(matches!(another, Err(Trouble::Another(by)) if by == node(2)));
}

#[test]
fn words_of_an_excluded_node_are_dropped() {
    let without = KEYS.charter.excluding(node(3)).unwrap();
    let voices = Voices::new(Arc::new(without), None);
    let beat = said(Topic::Heartbeat, 3, 3, &heartbeat(3, 1_000));
    assert!(Ear::default().hear(&voices, "health.3", &beat).is_none());
    assert!(!voices.nodes().contains(&node(3)));
    // Its amendment may bring it back; then its words on that ceremony count.
    let back = Voices::new(Arc::clone(voices.in_force()), Some(Arc::clone(&KEYS.charter)));
    assert!(back.hear(Topic::Heartbeat, &beat).is_ok());
    assert!(!back.members().contains(&node(3)));
}
