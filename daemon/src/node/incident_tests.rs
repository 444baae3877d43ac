//! Incidents in the node: whom they raise, and what cannot be asked for.

use headgate_quota::loan::{District, Incident, IncidentName};
use headgate_quota::units::Micros;
use headgate_quota::{Class, Mode};

use super::tests::{GPU, config, node};
use super::*;
use crate::admin::StartEvent;

const TENANTS: &str = "  tenants:
    - {name: cases, cgroup: /hg/cases, quota: {'*': {sm: 70%}}}
    - {name: review, cgroup: /hg/review, class: batch, quota: {'*': {sm: 20%}}}
";

fn asked(name: &str, tenants: &[&str], class: &str) -> StartEvent {
    StartEvent {
        name: name.to_owned(),
        tenants: tenants.iter().map(|&tenant| tenant.to_owned()).collect(),
        class: class.to_owned(),
        span_ms: 60_000,
        reclaim: false,
    }
}

/// What the admin socket does with what is asked for.
fn start(state: &mut State, seconds: u64, asked: &StartEvent) -> Vec<Effect> {
    let incident = state.incident_of(asked, 1_000 + seconds).unwrap();
    step(state, Event::Incident { now: Micros::from_secs(seconds), incident, ended: false })
}

fn class(state: &State, tenant: &str) -> Class {
    let policy = &state.tenant(state.slot_of(tenant).unwrap()).unwrap().policy;
    let class = state.class_of(policy).0;
    let scheduled = state.compute_on(policy, GPU).unwrap();
    assert_eq!((scheduled.class, scheduled.mode), (class, Mode::Borrow), "the scheduler goes by it");
    class
}

#[test]
fn an_incident_raises_at_once_and_falls_back_by_itself() {
    let mut state = node(TENANTS);
    let effects = start(&mut state, 10, &asked("fire", &["review", "cases"], "express"));
    assert_eq!(effects, [Effect::Regate, Effect::Remember], "gates in the same step, and the disk");
    assert_eq!((class(&state, "review"), class(&state, "cases")), (Class::Express, Class::Express));
    assert_eq!(state.incidents.next_end(), Some(Micros::from_secs(70)));
    assert!(step(&mut state, Event::Late(Micros::from_secs(69))).is_empty());
    let effects = step(&mut state, Event::Late(Micros::from_secs(70)));
    assert_eq!(effects, [Effect::Regate, Effect::Remember]);
    assert_eq!((class(&state, "review"), class(&state, "cases")), (Class::Batch, Class::Standard));
}

#[test]
fn it_lowers_nobody_and_survives_a_new_configuration() {
    let mut state = node(TENANTS);
    start(&mut state, 10, &asked("calm", &["review", "cases"], "batch"));
    assert_eq!((class(&state, "review"), class(&state, "cases")), (Class::Batch, Class::Standard));
    start(&mut state, 11, &asked("fire", &["review"], "standard"));
    step(&mut state, config(TENANTS));
    assert_eq!(class(&state, "review"), Class::Standard);
}

#[test]
fn what_a_peer_says_counts_like_what_is_said_here_and_only_once() {
    let mut state = node(TENANTS);
    let incident = Incident {
        issuer: District::new("south").unwrap(),
        number: 5,
        name: IncidentName::new("flood").unwrap(),
        tenants: vec!["north/review".parse().unwrap(), "south/cases".parse().unwrap()],
        class: Class::Express,
        duration: Micros::from_secs(60),
        reclaim: false,
    };
    let heard = |ended| Event::Incident { now: Micros::from_secs(1), incident: incident.clone(), ended };
    assert_eq!(step(&mut state, heard(false)).len(), 2);
    assert!(step(&mut state, heard(false)).is_empty(), "heard again");
    assert_eq!(class(&state, "review"), Class::Express);
    assert_eq!(class(&state, "cases"), Class::Standard, "a tenant of another district has the same name");
    assert!(state.own_incident("flood").is_none(), "only its own district ends it");
    assert_eq!(step(&mut state, heard(true)).len(), 2);
    assert!(step(&mut state, heard(false)).is_empty(), "what was ended stays so");
    assert_eq!(class(&state, "review"), Class::Batch);
}

#[test]
fn numbers_grow_even_when_the_clock_is_set_back() {
    let mut state = node(TENANTS);
    start(&mut state, 500, &asked("fire", &["review"], "express"));
    let later = state.incident_of(&asked("fire", &["review"], "standard"), 3).unwrap();
    assert_eq!(later.number, 1_501);
    step(&mut state, Event::Incident { now: Micros::from_secs(501), incident: later, ended: false });
    assert_eq!(class(&state, "review"), Class::Standard, "one of the same name gives way");
}

#[test]
fn what_cannot_be_is_refused_with_a_reason() {
    let state = node(TENANTS);
    let short = StartEvent { span_ms: 999, ..asked("fire", &["review"], "express") };
    let long = StartEvent { span_ms: 86_400_001, ..asked("fire", &["review"], "express") };
    for (asked, reason) in [
        (asked("fire", &["reviw"], "express"), "did you mean `review`"),
        (asked("fire", &["review"], "urgent"), "express, standard, batch"),
        (asked("fire!", &["review"], "express"), "is no name"),
        (asked("fire", &[], "express"), "name some"),
        (asked("fire", &["south/review"], "express"), "no spec.loans.peers"),
        (asked("fire", &["north/re view"], "express"), "expected a guest"),
        (short, "at least"),
        (long, "belongs in the configuration"),
    ] {
        let refused = state.incident_of(&asked, 1).unwrap_err();
        assert!(refused.contains(reason), "{asked:?}: {refused}");
    }
    let elsewhere = asked("fire", &["north/elsewhere"], "express");
    assert!(state.incident_of(&elsewhere, 1).is_ok(), "another node of the district may have it");
}
