//! Laws of lending, and the ledger's text: whatever the numbers are.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::sync::Arc;

use headgate_quota::Class;
use headgate_quota::loan::ledger::{Ledger, Loan, Owner, Standing};
use headgate_quota::loan::policy::lend::{OwnerView, lendable};
use headgate_quota::loan::policy::rank::{Request, portion, rank};
use headgate_quota::loan::policy::reclaim::{Candidate, victims};
use headgate_quota::loan::{
    Amount, DataClass, District, Guest, Lending, LoanId, Node, Place, Tenant, Terms, Why, flaw::Flaws,
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
