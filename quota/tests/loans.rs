//! Laws of lending, and the ledger's text: whatever the numbers are.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::sync::Arc;

use headgate_quota::Class;
use headgate_quota::loan::ledger::{Ledger, Loan, Owner, Standing};
use headgate_quota::loan::policy::lend::{OwnerView, lendable};
use headgate_quota::loan::policy::rank::{Request, portion, rank};
use headgate_quota::loan::policy::reclaim::{Candidate, victims};
use headgate_quota::loan::{
    Allowance, Allowances, Amount, DataClass, DevicePoint, District, Guest, Lending, LoanId, Node, Place,
    Revision, Tenant, Terms, Usage, Why, allowances::Refused, flaw::Flaws, point::Stale,
};
use headgate_quota::units::{Bytes, Micros, Share};
use proptest::prelude::*;

fn amounts() -> impl Strategy<Value = Amount> {
    (0u64..=1_000_000, 0u64..=80).prop_map(|(sm, gib)| Amount { sm: Share(sm), memory: Bytes(gib << 30) })
}

fn classes() -> impl Strategy<Value = Class> {
    prop::sample::select(vec![Class::Batch, Class::Standard, Class::Express])
}

fn names() -> impl Strategy<Value = String> {
    "[A-Za-z0-9_.-]{1,63}"
}

fn loans() -> impl Strategy<Value = Loan> {
    let who = (names(), names(), names(), names());
    let rest = (amounts(), classes(), 0usize..4, any::<[u64; 4]>(), any::<bool>());
    (who, rest).prop_map(|((node, owner, district, tenant), (amount, class, data, numbers, cut))| Loan {
        id: LoanId { node: Node::new(&node).unwrap(), incarnation: numbers[0], number: numbers[1] },
        owner: Tenant::new(&owner).unwrap(),
        guest: Guest { district: District::new(&district).unwrap(), tenant: Tenant::new(&tenant).unwrap() },
        data: DataClass::ALL[data],
        class,
        amount,
        terms: Terms::default(),
        holder: numbers[2],
        age: Micros(numbers[3]),
        standing: if cut { Standing::Cut } else { Standing::Active },
    })
}

fn ledgers() -> impl Strategy<Value = Ledger> {
    (any::<u64>(), prop::collection::vec(loans(), 0..6)).prop_map(|(epoch, mut loans)| {
        loans.dedup_by(|a, b| a.id == b.id);
        Ledger { epoch, loans }
    })
}

#[test]
fn a_ledger_reads_as_it_always_did() {
    let loan = Loan {
        id: LoanId { node: Node::new("south.n2").unwrap(), incarnation: 12, number: 3 },
        owner: Tenant::new("cases").unwrap(),
        guest: Guest { district: District::new("south").unwrap(), tenant: Tenant::new("alerts").unwrap() },
        data: DataClass::Derived,
        class: Class::Express,
        amount: Amount { sm: Share(300_000), memory: Bytes(1 << 30) },
        terms: Terms::default(),
        holder: 12,
        age: Micros(5),
        standing: Standing::Active,
    };
    let text = "headgate-ledger 1 epoch=7\n\
                loan=south.n2/12/3 owner=cases guest=south/alerts data=derived class=express sm=300000 \
                memory=1073741824 holder=12 age=5 standing=active ttl=15000000 renew=5000000 margin=2000000 skew=1500 \
                min=30000000 max=3600000000 notice=5000000\n";
    let ledger = Ledger { epoch: 7, loans: vec![loan] };
    assert_eq!(ledger.to_string(), text);
    assert_eq!(text.parse(), Ok(ledger));
}

/// A device on which nobody holds memory.
struct Empty;

impl Usage for Empty {
    fn owner_memory(&self, _tenant: &Tenant) -> Bytes {
        Bytes::ZERO
    }

    fn guest_memory(&self, _loan: &LoanId) -> Bytes {
        Bytes::ZERO
    }
}

#[test]
fn a_device_takes_no_order_that_is_older_than_the_last() {
    let (owner, now) = (Tenant::new("cases").unwrap(), Micros(5));
    let loan = LoanId { node: Node::new("south.n2").unwrap(), incarnation: 1, number: 1 };
    let capacity = Amount { sm: Share::WHOLE, memory: Bytes(80 << 30) };
    let mut point = DevicePoint::new(capacity, Vec::new(), now, Micros::from_secs(20)).unwrap();
    point.install(now, Revision(5), &[], &Empty).unwrap();
    for token in [5, 4, 0].map(Revision) {
        assert_eq!(point.install(now, token, &[], &Empty), Err(Stale { token, last: Revision(5) }));
    }
    let (token, last) = (Revision(4), Revision(5));
    assert_eq!(point.settle(token, &loan, now), Err(Stale { token, last }));
    assert_eq!(point.take_all(token, &owner), Err(Stale { token, last }));
    assert_eq!(point.stale(), 5);
    assert!(point.install(now, Revision(6), &[], &Empty).is_ok());
}

#[test]
fn a_node_takes_no_promise_that_is_older_than_the_last_nor_an_order_of_an_earlier_start() {
    let allowance = |token| Allowance {
        loan: LoanId { node: Node::new("south.n2").unwrap(), incarnation: 7, number: 1 },
        tenant: Tenant::new("alerts").unwrap(),
        place: "north/n1/GPU-1".parse().unwrap(),
        amount: Amount::compute(Share(100_000)),
        token: Revision(token),
        until: Micros(100),
    };
    let mut allowances = Allowances::new();
    allowances.adopt(7);
    allowances.raise(7, allowance(5)).unwrap();
    for token in [5, 4] {
        let stale = Refused::StaleToken { token: Revision(token), last: Revision(5) };
        assert_eq!(allowances.raise(7, allowance(token)), Err(stale));
    }
    let old = Refused::OldIncarnation { by: 6, newest: 7 };
    assert_eq!(allowances.raise(6, allowance(9)), Err(old));
    assert_eq!(allowances.shorten(6, &allowance(5).loan, Micros::ZERO), Err(old));
    assert_eq!(allowances.drop(6, &allowance(5).loan), Err(old));
    assert_eq!(allowances.stale(), 5);
    assert_eq!(allowances.held(Micros(99)).collect::<Vec<_>>(), [&allowance(5)], "nothing of that counted");
    assert_eq!(allowances.held(Micros(100)).count(), 0);
    allowances.raise(8, allowance(6)).unwrap();
}

/// Terms that fit together, at their limits now and then.
fn terms() -> impl Strategy<Value = Terms> {
    let spans = (1_000u64..60_000, 1_000u64..600_000, 0u64..1_000_000, 0u64..1_000_000);
    (spans, 1_000u32..=4_000, 0u64..=1_000).prop_map(
        |((margin, renew, longer, rest), skew_permille, part)| {
            // The longest drain that the skew allows, or a part of it.
            let drain = (margin * 1_000)
                .checked_div(u64::from(skew_permille) - 1_000)
                .unwrap_or(600_000)
                .min(600_000);
            let notice = margin + (drain * part / 1_000).max(1);
            Terms {
                ttl: Micros::from_millis(margin + 2 * renew + longer),
                renew: Micros::from_millis(renew),
                margin: Micros::from_millis(margin),
                skew_permille,
                min_duration: Micros::from_millis(notice + longer),
                max_duration: Micros::from_millis(notice + longer + rest),
                notice: Micros::from_millis(notice),
            }
        },
    )
}

#[test]
fn a_number_has_one_text() {
    let text = "headgate-ledger 1 epoch=7\n\
                loan=south.n2/12/3 owner=cases guest=south/alerts data=derived class=express sm=300000 \
                memory=1073741824 holder=12 age=5 standing=active ttl=15000000 renew=5000000 margin=2000000 skew=1500 \
                min=30000000 max=3600000000 notice=5000000\n";
    assert!(text.parse::<Ledger>().is_ok());
    for (right, wrong) in [("/12/3", "/012/3"), ("/12/3", "/12/03"), ("/12/3", "/+12/3"), ("age=5", "age=05")]
    {
        assert!(text.replace(right, wrong).parse::<Ledger>().is_err(), "{wrong}");
    }
}

proptest! {
    #[test]
    fn a_ledger_survives_its_text(ledger in ledgers()) {
        prop_assert_eq!(ledger.to_string().parse::<Ledger>(), Ok(ledger));
    }

    /// A text that was changed is refused, or means what it says: never half of it.
    #[test]
    fn a_changed_text_is_refused_or_says_itself(ledger in ledgers(), place in any::<prop::sample::Index>(), byte in 0u8..128) {
        let mut text = ledger.to_string().into_bytes();
        let place = place.index(text.len());
        text[place] = byte;
        let Ok(text) = String::from_utf8(text) else { return Ok(()) };
        if let Ok(read) = text.parse::<Ledger>() {
            prop_assert_eq!(read.to_string(), text);
        }
    }

    #[test]
    fn a_text_that_was_cut_off_is_refused(ledger in ledgers(), length in any::<prop::sample::Index>()) {
        let text = ledger.to_string();
        let cut = &text[..length.index(text.len())];
        if let Ok(read) = cut.parse::<Ledger>() {
            // Only a whole line can be missing, which the store's own checks would show.
            prop_assert_eq!(read.to_string(), cut);
        }
    }

    /// Work that is under way when the time is over runs on, and no clock sees it. So between the slowest borrower's end
    /// and the fastest lender's reuse lies a margin by each one's clock; and an acknowledged notice keeps its order.
    #[test]
    fn each_end_keeps_a_margin_whatever_the_clocks(terms in terms()) {
        prop_assert_eq!(terms.check(), Ok(()), "{:?}", terms);
        let Terms { renew, margin, skew_permille, notice, .. } = terms;
        let slowest = |span: Micros| Micros((span.0 * u64::from(skew_permille)).div_ceil(1_000));
        let stopped = slowest(terms.stop_after().saturating_add(margin));
        prop_assert!(stopped.saturating_add(margin) <= terms.reuse_after(), "{:?}", terms);
        prop_assert!(slowest(terms.drain()) <= notice && terms.drain() < notice, "{:?}", terms);
        prop_assert!(renew.0 * 2 <= terms.stop_after().0, "a lost renewal ends nothing: {:?}", terms);
    }

    #[test]
    fn a_place_survives_its_text(district in names(), node in names(), device in names()) {
        let text = format!("{district}/{node}/{device}");
        let place: Place = text.parse().unwrap();
        prop_assert_eq!(place.to_string(), text);
    }

    /// Lent is never more than the limit, than what is idle above the peak, or than what nobody else uses.
    #[test]
    fn what_may_be_lent_leaves_the_owner_its_own(
        nominal in amounts(), limit in amounts(), peak in amounts(), wants in amounts(), lent in amounts(),
        spare in 0u64..=1_000_000, class in classes(), rests in 0u64..10, borrows in any::<bool>(),
    ) {
        let owner = Owner { tenant: Tenant::new("cases").unwrap(), class, nominal, lending_limit: limit };
        let view = OwnerView {
            owner: &owner, peak: Some(peak), wants, lent, rests_until: Micros(rests), borrows, called_back_by: None,
        };
        let (lending, now) = (Lending::default(), Micros(5));
        match lendable(&view, Share(spare), &lending, now, Flaws::NONE) {
            Ok(amount) => {
                prop_assert!(!borrows && rests <= 5);
                prop_assert!(amount.sm <= Share(spare) && amount.sm.0.is_multiple_of(lending.quantum.0));
                if !amount.is_zero() {
                    let out = lent.saturating_add(amount);
                    prop_assert!(amount.sm == Share::ZERO || out.sm <= limit.sm.min(nominal.sm));
                    prop_assert!(amount.memory == Bytes::ZERO || out.memory <= limit.memory.min(nominal.memory));
                    let kept = nominal.saturating_sub(out);
                    let used = peak.max(wants);
                    prop_assert!(amount.sm == Share::ZERO || used.sm <= kept.sm);
                    prop_assert!(amount.memory == Bytes::ZERO || used.memory <= kept.memory);
                }
            }
            Err(Why::OwnerBorrows { .. }) => prop_assert!(borrows),
            Err(Why::Resting { left, .. }) => prop_assert!(!borrows && left == Micros(rests - 5)),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    /// Nobody waits behind a lower class; within one, nobody who has less waits behind one who has more.
    #[test]
    fn higher_classes_go_first_and_then_who_has_least(
        asked in prop::collection::vec((classes(), 0u32..4, 0u64..500_000, 0u32..9, 0u64..99), 0..12)
    ) {
        let requests = asked.iter().enumerate().map(|(number, (class, weight, has, distance, since))| Request {
            loan: LoanId { node: Node::new("n").unwrap(), incarnation: 1, number: number as u64 },
            class: *class, weight: *weight, has: Share(*has), distance: *distance, since: Micros(*since),
        });
        let mut ranked: Vec<Request> = requests.collect();
        rank(&mut ranked);
        for pair in ranked.windows(2) {
            prop_assert!(pair[1].class <= pair[0].class);
            if pair[0].class == pair[1].class {
                prop_assert!(pair[0].weighted_share() <= pair[1].weighted_share());
            }
        }
    }

    /// A portion is what was asked for at most, what is there at most, and worth a loan at least.
    #[test]
    fn a_portion_is_within_what_was_asked_and_what_is_there(
        asked in amounts(), there in amounts(), weight in 0u32..10, others in 0u64..30
    ) {
        let lending = Lending::default();
        if let Some(part) = portion(asked, there, weight, others + u64::from(weight), &lending) {
            prop_assert!(part.sm <= asked.sm && part.sm <= there.sm && lending.least <= part.sm);
            prop_assert!(part.memory == asked.memory && part.memory <= there.memory);
        }
    }

    /// What is taken back suffices if anything does, and nothing of it could have stayed.
    #[test]
    fn no_more_is_taken_back_than_is_needed(
        held in prop::collection::vec((classes(), 0u64..1_000, amounts()), 0..10), short in amounts()
    ) {
        let candidates: Vec<Candidate> = held.iter().enumerate().map(|(index, (class, age, amount))| Candidate {
            index, class: *class, age: Micros(*age), amount: *amount,
        }).collect();
        let all: Amount = held.iter().map(|(.., amount)| *amount).sum();
        let chosen = victims(candidates, short);
        let sum = |of: &[usize]| -> Amount { of.iter().map(|&index| held[index].2).sum() };
        let needed = short.min(all);
        prop_assert!(needed.fits(sum(&chosen)), "{:?} of {:?}", sum(&chosen), needed);
        for left_out in 0..chosen.len() {
            let mut fewer = chosen.clone();
            fewer.remove(left_out);
            prop_assert!(!needed.fits(sum(&fewer)), "{:?} would have done", fewer);
        }
    }

    /// Every reason is one sentence that fits a line.
    #[test]
    fn reasons_are_sentences(text in "[ -~]{0,80}") {
        let told = Why::Told(Arc::from(text.as_str())).to_string();
        prop_assert!(!told.contains('\n'));
    }
}
