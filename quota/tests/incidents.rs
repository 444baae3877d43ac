//! Laws of incidents: two nodes that heard the same agree, in whatever order and however often they heard it.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use headgate_quota::Class;
use headgate_quota::loan::incident::IncidentRefused;
use headgate_quota::loan::limits::{INCIDENTS_MAX, INCIDENTS_OVER_MAX};
use headgate_quota::loan::{District, Guest, Incident, IncidentName, Incidents};
use headgate_quota::units::Micros;
use proptest::prelude::*;

fn district(number: u8) -> District {
    District::new(&format!("d{number}")).unwrap()
}

fn tenant(number: u8) -> Guest {
    format!("d0/t{number}").parse().unwrap()
}

fn incident(issuer: u8, number: u64, name: u8, class: Class) -> Incident {
    Incident {
        issuer: district(issuer),
        number,
        name: IncidentName::new(&format!("n{name}")).unwrap(),
        tenants: vec![tenant(name % 3), tenant(3)],
        class,
        duration: Micros::from_secs(60),
        reclaim: number.is_multiple_of(2),
    }
}

fn classes() -> impl Strategy<Value = Class> {
    prop::sample::select(vec![Class::Batch, Class::Standard, Class::Express])
}

/// What is said of one incident: that it was declared, and perhaps that it was ended.
fn told() -> impl Strategy<Value = Vec<(Incident, bool)>> {
    let one = (0u8..3, 0u8..4, classes(), any::<bool>());
    prop::collection::vec(one, 1..12).prop_map(|all| {
        let numbered = all.into_iter().zip(1u64..);
        numbered.map(|((issuer, name, class, ended), n)| (incident(issuer, n, name, class), ended)).collect()
    })
}

fn hear(book: &mut Incidents, now: Micros, incident: &Incident, ended: bool) {
    let known = book.declare(now, incident.clone());
    assert!(matches!(known, Ok(()) | Err(IncidentRefused::Replayed)), "{known:?}");
    if ended {
        book.end(&incident.issuer, incident.number);
    }
}

proptest! {
    #[test]
    fn who_heard_the_same_agrees(
        all in told(),
        orders in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..20), 2..4),
    ) {
        let now = Micros::from_secs(1_000);
        let mut views = Vec::new();
        for order in orders {
            let mut book = Incidents::new();
            // In any order, some more than once; in the end everyone has heard everything.
            for index in order {
                let (incident, ended) = index.get(&all);
                hear(&mut book, now, incident, *ended);
            }
            for (incident, ended) in &all {
                hear(&mut book, now, incident, *ended);
            }
            let mut holding: Vec<(District, u64)> =
                book.holding().map(|incident| (incident.issuer.clone(), incident.number)).collect();
            holding.sort();
            let classes: Vec<Class> = (0..4).map(|n| book.class_of(&tenant(n), Class::Batch).0).collect();
            for issuer in 0..3 {
                for name in 0..4 {
                    let of_name = book.holding().filter(|incident| {
                        incident.issuer == district(issuer) && incident.name.as_str() == format!("n{name}")
                    });
                    prop_assert!(of_name.count() <= 1, "one of a name");
                }
            }
            book.expire(now.saturating_add(Micros::from_secs(60)));
            prop_assert_eq!(book.holding().count() + book.told(now).count(), 0, "it is over by itself");
            for (incident, _) in &all {
                let late = book.declare(now.saturating_add(Micros::from_secs(61)), incident.clone());
                prop_assert_eq!(late, Err(IncidentRefused::Replayed), "and nobody is raised again");
            }
            views.push((holding, classes));
        }
        prop_assert!(views.windows(2).all(|pair| pair[0] == pair[1]), "{views:?}");
    }
}

#[test]
fn an_incident_lifts_and_never_lowers_and_of_several_the_highest_counts() {
    let mut book = Incidents::new();
    let now = Micros::from_secs(1);
    book.declare(now, incident(1, 1, 0, Class::Standard)).unwrap();
    assert_eq!(book.class_of(&tenant(0), Class::Express), (Class::Express, None));
    assert_eq!(book.class_of(&tenant(0), Class::Batch).0, Class::Standard);
    book.declare(now, incident(2, 1, 3, Class::Express)).unwrap();
    let (class, by) = book.class_of(&tenant(0), Class::Batch);
    assert_eq!((class, by.unwrap().issuer.clone()), (Class::Express, district(2)));
    assert!(book.end(&district(2), 1) && !book.end(&district(2), 1));
    assert_eq!(book.class_of(&tenant(0), Class::Batch).0, Class::Standard);
}

#[test]
fn a_later_one_of_the_name_takes_the_place_whichever_comes_first() {
    let now = Micros::from_secs(1);
    let (early, late) = (incident(1, 5, 0, Class::Express), incident(1, 9, 0, Class::Standard));
    for order in [[&early, &late], [&late, &early]] {
        let mut book = Incidents::new();
        order.into_iter().for_each(|incident| book.declare(now, incident.clone()).unwrap());
        assert_eq!(book.class_of(&tenant(0), Class::Batch).0, Class::Standard);
        assert_eq!(
            book.told(now).filter(|(_, ended)| *ended).count(),
            1,
            "and others hear that the first is over"
        );
    }
}

#[test]
fn everything_kept_is_bounded() {
    let mut book = Incidents::new();
    let now = Micros::from_secs(1);
    let many = |n: u64| Incident {
        name: IncidentName::new(&format!("n{n}")).unwrap(),
        ..incident(1, n, 0, Class::Express)
    };
    for number in 1..=INCIDENTS_MAX as u64 {
        book.declare(now, many(number)).unwrap();
    }
    let next = INCIDENTS_MAX as u64 + 1;
    assert_eq!(book.declare(now, many(next)), Err(IncidentRefused::TooMany));
    for number in next..next + 2 * INCIDENTS_OVER_MAX as u64 {
        assert!(book.end(&district(1), number - INCIDENTS_MAX as u64));
        book.declare(now, many(number)).unwrap();
    }
    assert_eq!(book.told(now).count(), 2 * INCIDENTS_MAX);
    let told = format!("{book:?}").matches("District").count();
    assert!(told <= 2 * INCIDENTS_MAX * 3 + INCIDENTS_OVER_MAX, "{told} names of districts are kept");
}

#[test]
fn what_cannot_be_declared_is_refused_with_a_reason() {
    let book = Incidents::new();
    let good = incident(1, 1, 0, Class::Express);
    let day = Micros::from_secs(24 * 3_600);
    let cases = [
        (Incident { duration: day.saturating_add(Micros(1)), ..good.clone() }, IncidentRefused::TooLong),
        (Incident { tenants: Vec::new(), ..good.clone() }, IncidentRefused::NoTenants),
        (Incident { tenants: vec![tenant(0); 257], ..good.clone() }, IncidentRefused::TooManyTenants),
    ];
    for (incident, refused) in cases {
        assert_eq!(book.admits(&incident), Err(refused));
    }
    assert_eq!(book.admits(&Incident { duration: day, ..good }), Ok(()));
}
