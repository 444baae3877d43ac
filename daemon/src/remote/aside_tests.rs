//! A loan that ends under a session, and the next one.

use super::*;

/// Both sides, of which the borrower's waits when its loan is called back.
fn sides() -> (Side, Side) {
    let mut borrower = Side::new(Role::Borrower, u64::MAX);
    borrower.owner = Arc::new(Simple { parting: Parting::Aside, ..Simple::new(Role::Borrower, u64::MAX) });
    (borrower, Side::new(Role::Lender, u64::MAX))
}

/// Both daemons' lines that have one of these words, in order.
fn story(side: &Side) -> Vec<String> {
    let text = std::fs::read_to_string(side.log.path()).unwrap();
    let words = ["begun", "aside", "returned"];
    let found = text.lines().filter_map(|line| {
        let (word, rest) =
            words.iter().find_map(|word| Some((word, line.split_once(&format!(" {word} session="))?.1)))?;
        let loan = rest.split_once("loan=")?.1.split(' ').next()?;
        Some(format!("{word} {loan}"))
    });
    found.collect()
}

const STORY: [&str; 3] = ["begun south.node/1/1", "aside south.node/1/1", "returned south.node/1/2"];

#[tokio::test]
async fn a_loan_that_is_taken_back_is_waited_for_and_nothing_passes_meanwhile() {
    let (borrower, lender) = sides();
    let Chain { mut program, worker, ends } = join(&borrower, &lender, 1 << 20);
    program.write_all(&hello(Ticket::default())).await.unwrap();
    let (reads, mut says) = split(worker);
    says.write_all(&welcome()).await.unwrap();
    borrower.owner.drain.notify_one();
    let mut arrived = Frames::new(reads);
    assert!(until(&mut arrived, Kind::Aside).await.is_some(), "the worker is told");
    // The program does not know, and goes on.
    program.write_all(&operations(1, &[write(&[1; 9])])).await.unwrap();
    says.write_all(&data(1, &[5; 9])).await.unwrap();
    says.write_all(&Kind::Aside.alone(&[])).await.unwrap();
    let mut phases = borrower.session.phases().changes();
    phases.wait_for(|phase| *phase == Phase::Aside).await.unwrap();
    assert_eq!(lender.session.phases().now(), Phase::Aside);
    assert!(
        timeout(Duration::from_millis(100), arrived.arrive()).await.is_err(),
        "nothing of the program's has passed"
    );
    borrower.owner.lent.notify_one();
    assert_eq!(until(&mut arrived, Kind::Return).await.unwrap(), b"", "claims are between daemons");
    says.write_all(&Kind::Return.alone(&[])).await.unwrap();
    assert!(until(&mut arrived, Kind::Operations).await.is_some(), "what waited comes");
    assert_eq!(story(&borrower), STORY);
    assert_eq!(story(&lender), STORY);
    // The next loan may be called back as well.
    borrower.owner.drain.notify_one();
    assert!(until(&mut arrived, Kind::Aside).await.is_some());
    borrower.owner.stop.notify_one();
    let [near, far] = ends;
    assert!(matches!(near.await.unwrap(), End::Stopped(_)));
    drop((arrived, says));
    assert!(matches!(far.await.unwrap(), End::Over(_) | End::Left));
    let mut heard = Frames::new(split(program).0);
    assert!(until(&mut heard, Kind::Operations).await.is_some(), "what was under way came first");
    assert!(until(&mut heard, Kind::Over).await.is_some(), "and it hears that it is over");
}

/// Has the worker hear an order, and answer it; the answer is lost with the wire first if `broken`.
async fn obey(mut chain: Chain, sides: (&Side, &Side), order: Kind, broken: bool) -> Chain {
    for lost in [broken, false] {
        let (reads, says) = split(chain.worker);
        let mut arrived = Frames::new(reads);
        assert!(until(&mut arrived, order).await.is_some(), "{order:?}");
        chain.worker = arrived.into_inner().unsplit(says);
        if !lost {
            break;
        }
        for end in chain.ends {
            end.abort();
            let _aborted = end.await;
        }
        chain = join(sides.0, sides.1, 1 << 20);
        chain.program.write_all(&hello(TICKET)).await.unwrap();
    }
    chain.worker.write_all(&order.alone(&[])).await.unwrap();
    chain
}

#[tokio::test]
async fn after_a_break_what_may_not_have_been_heard_is_said_again() {
    for broken in [[true, false], [false, true], [true, true]] {
        let (borrower, lender) = sides();
        let mut chain = join(&borrower, &lender, 1 << 20);
        chain.program.write_all(&hello(Ticket::default())).await.unwrap();
        chain.worker.write_all(&welcome()).await.unwrap();
        let mut phases = borrower.session.phases().changes();
        borrower.owner.drain.notify_one();
        chain = obey(chain, (&borrower, &lender), Kind::Aside, broken[0]).await;
        phases.wait_for(|phase| *phase == Phase::Aside).await.unwrap();
        borrower.owner.lent.notify_one();
        let _chain = obey(chain, (&borrower, &lender), Kind::Return, broken[1]).await;
        phases.wait_for(|phase| *phase == Phase::Going).await.unwrap();
        assert_eq!(story(&borrower), STORY, "{broken:?}");
        assert_eq!(story(&lender), STORY, "{broken:?}");
    }
}

#[tokio::test]
async fn nothing_is_said_before_the_greeting() {
    let (borrower, lender) = sides();
    let Chain { mut program, worker, ends: _ends } = join(&borrower, &lender, 1 << 20);
    borrower.owner.drain.notify_one();
    let mut arrived = Frames::new(split(worker).0);
    assert!(
        timeout(Duration::from_millis(50), arrived.arrive()).await.is_err(),
        "the program has not greeted"
    );
    program.write_all(&hello(Ticket::default())).await.unwrap();
    for kind in [Kind::Hello, Kind::Aside] {
        assert!(arrived.arrive().await.unwrap());
        let seen = arrived.seen(0).unwrap().unwrap();
        assert_eq!(seen.header.kind, kind);
        let bytes = seen.bytes;
        arrived.consume(bytes);
    }
}

#[tokio::test]
async fn a_program_that_ends_while_its_device_is_away_ends_the_session() {
    let (borrower, lender) = sides();
    let Chain { mut program, worker, ends } = join(&borrower, &lender, 1 << 20);
    program.write_all(&hello(Ticket::default())).await.unwrap();
    let (reads, mut says) = split(worker);
    says.write_all(&welcome()).await.unwrap();
    borrower.owner.drain.notify_one();
    let mut arrived = Frames::new(reads);
    assert!(until(&mut arrived, Kind::Aside).await.is_some());
    says.write_all(&Kind::Aside.alone(&[])).await.unwrap();
    borrower.session.phases().changes().wait_for(|phase| *phase == Phase::Aside).await.unwrap();
    borrower.owner.gone.notify_one();
    let [near, far] = ends;
    assert!(matches!(near.await.unwrap(), End::Left));
    drop((arrived, says));
    assert!(matches!(far.await.unwrap(), End::Over(_)));
}

#[tokio::test]
async fn a_lender_that_keeps_nothing_drains_and_one_that_is_claimed_wrongly_ends() {
    for keeps in [false, true] {
        let (borrower, mut lender) = sides();
        lender.owner = Arc::new(Simple { keeps, takes_back: false, ..Simple::new(Role::Lender, u64::MAX) });
        let Chain { mut program, worker, ends } = join(&borrower, &lender, 1 << 20);
        program.write_all(&hello(Ticket::default())).await.unwrap();
        let (reads, mut says) = split(worker);
        says.write_all(&welcome()).await.unwrap();
        borrower.owner.drain.notify_one();
        let mut arrived = Frames::new(reads);
        if keeps {
            assert!(until(&mut arrived, Kind::Aside).await.is_some());
            says.write_all(&Kind::Aside.alone(&[])).await.unwrap();
            borrower.owner.lent.notify_one();
        } else {
            assert!(until(&mut arrived, Kind::Drain).await.is_some(), "as if nobody waited");
            says.write_all(&Kind::Over.alone(b"drained")).await.unwrap();
            drop((arrived, says));
        }
        let [near, far] = ends;
        assert!(matches!(near.await.unwrap(), End::Over(_)));
        assert_eq!(matches!(far.await.unwrap(), End::Stopped(_)), keeps);
        let mut heard = Frames::new(split(program).0);
        assert!(until(&mut heard, Kind::Over).await.is_some(), "the program hears it");
    }
}

#[tokio::test]
async fn answers_to_no_order_end_the_session() {
    for answer in [Kind::Aside, Kind::Return] {
        let (borrower, lender) = (Side::new(Role::Borrower, u64::MAX), Side::new(Role::Lender, u64::MAX));
        let Chain { program, mut worker, ends } = join(&borrower, &lender, 1 << 20);
        worker.write_all(&[welcome(), answer.alone(&[])].concat()).await.unwrap();
        let [near, far] = ends;
        // To go on is what it does.
        let harmless = answer == Kind::Return;
        if harmless {
            drop(worker);
        }
        assert_eq!(matches!(far.await.unwrap(), End::Malformed("the worker", _)), !harmless);
        drop(program);
        assert!(matches!(near.await.unwrap(), End::Over(_) | End::Left));
    }
}
