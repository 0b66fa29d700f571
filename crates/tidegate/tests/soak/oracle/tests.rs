//! That the oracle objects to what it must object to.

use mqtt::QoS;

use super::book::{Arrival, Book, Losses, SECOND, Wish};
use super::floors::{Bounds, Floors};
use super::letter::{HEADER, LONGEST, Lengths, Letter, Paper, length};
use super::retained::{Asked, Shelf};
use super::trimmings;
use super::wills::{Fate, Wills};

const Q1: QoS = QoS::AtLeastOnce;
const Q2: QoS = QoS::ExactlyOnce;

fn plain(qos: QoS) -> Arrival<'static> {
    Arrival { qos, dup: false, group: None, open: false, now: 7, identifiers: &[] }
}

fn dropped(at_qos_0: u64, above: u64) -> Losses {
    Losses { dropped: [at_qos_0, above], ..Losses::default() }
}

/// One stream and one reader that has subscribed to it; three messages are sent.
fn three(stream_qos: QoS, durable: bool) -> Book {
    let mut book = Book::default();
    book.add_stream("d/1", stream_qos, Lengths::Small, true);
    book.add_reader(durable, &[Wish::new("d/+", Q2)]);
    book.subscribed(0);
    for seq in 1..=3 {
        assert_eq!(book.send(0, 7), seq);
    }
    book
}

#[track_caller]
fn get(book: &mut Book, seq: u64, arrival: Arrival<'_>) -> Result<(), String> {
    book.received(0, (0, seq, 7), "d/1", arrival)
}

#[test]
fn a_gap_is_a_loss_for_a_durable_reader_at_once() {
    let mut book = three(Q1, true);
    get(&mut book, 1, plain(Q1)).unwrap();
    assert!(get(&mut book, 3, plain(Q1)).unwrap_err().contains("lost, or in the wrong order"));
}

#[test]
fn a_gap_of_what_was_given_up_is_none() {
    let mut book = three(Q1, true);
    book.give_up(0, 2, 7);
    get(&mut book, 1, plain(Q1)).unwrap();
    get(&mut book, 3, plain(Q1)).unwrap();
    assert_eq!((book.incomplete(7), book.oldest_awaited()), (None, None));
}

#[test]
fn a_gap_of_a_reader_without_a_session_is_counted() {
    let mut book = three(Q1, false);
    get(&mut book, 2, plain(Q1)).unwrap();
    assert_eq!(book.losses(7), dropped(0, 2));
    assert!(get(&mut book, 1, plain(Q1)).unwrap_err().contains("after a later one"));
}

#[test]
fn what_never_came_is_told_at_the_end() {
    let mut book = three(Q2, true);
    get(&mut book, 1, plain(Q2)).unwrap();
    assert!(book.incomplete(7).unwrap().contains("waits for 2 of 3"));
    assert_eq!(book.oldest_awaited(), Some(7));
}

#[test]
fn a_message_comes_twice_only_with_dup_or_if_it_was_sent_twice_and_never_with_qos_2() {
    let dup = |qos| Arrival { dup: true, ..plain(qos) };
    let mut book = three(Q1, true);
    get(&mut book, 1, plain(Q1)).unwrap();
    get(&mut book, 1, dup(Q1)).unwrap();
    assert!(get(&mut book, 1, plain(Q1)).unwrap_err().contains("twice"));
    book.send_again(0, 1);
    get(&mut book, 1, plain(Q1)).unwrap();
    let mut book = three(Q2, true);
    book.send_again(0, 1);
    get(&mut book, 1, plain(Q2)).unwrap();
    assert!(get(&mut book, 1, dup(Q2)).unwrap_err().contains("twice with QoS 2"));
}

#[test]
fn another_topic_another_qos_and_the_future_are_refused() {
    let mut book = three(Q1, true);
    assert!(book.received(0, (0, 1, 7), "d/2", plain(Q1)).unwrap_err().contains("topic d/2"));
    assert!(get(&mut book, 1, plain(Q2)).unwrap_err().contains("granted"));
    assert!(get(&mut book, 1, plain(QoS::AtMostOnce)).unwrap_err().contains("granted AtLeastOnce"));
    assert!(get(&mut book, 4, plain(Q1)).unwrap_err().contains("before it was sent"));
}

#[test]
fn messages_without_payload_are_counted() {
    let mut book = Book::default();
    book.add_stream("d/z", Q2, Lengths::Empty, true);
    book.add_reader(true, &[Wish::new("d/z", Q2)]);
    book.subscribed(0);
    assert_eq!(book.empty_stream("d/z"), Some(0));
    book.send(0, 0);
    assert!(book.incomplete(7).unwrap().contains("0 of 1"));
    book.received_empty(0, 0, Q2).unwrap();
    assert_eq!((book.incomplete(7), book.too_many_empties()), (None, None));
    book.received_empty(0, 0, Q2).unwrap();
    assert!(book.too_many_empties().is_some());
}

#[test]
fn a_group_gets_each_message_once_and_at_all() {
    let mut book = Book::default();
    book.add_stream("g/1", Q1, Lengths::Small, true);
    for _ in 0..3 {
        book.add_reader(true, &[]);
    }
    let group = book.add_group("s", "g/#", true, Q1);
    book.group_subscribed(group);
    book.send(0, 0);
    book.send(0, 0);
    let arrival = Arrival { group: Some(group), ..plain(Q1) };
    let get = |book: &mut Book, reader, seq| book.received(reader, (0, seq, 0), "g/1", arrival);
    get(&mut book, 0, 2).unwrap();
    assert!(book.incomplete(7).unwrap().contains("first 1"));
    assert!(get(&mut book, 1, 2).unwrap_err().contains("another member"));
    get(&mut book, 2, 1).unwrap();
    assert_eq!((book.incomplete(7), book.losses(7)), (None, dropped(0, 0)));
    // only who had it makes room for another by going, and once
    for _ in 0..2 {
        book.send(0, 0);
    }
    get(&mut book, 0, 3).unwrap();
    book.groups[group].departed(2);
    assert!(get(&mut book, 2, 3).unwrap_err().contains("reader 0"));
    book.groups[group].departed(2);
    get(&mut book, 1, 3).unwrap();
    assert!(get(&mut book, 2, 3).unwrap_err().contains("reader 1"));
    book.received(0, (0, 4, 0), "g/1", Arrival { open: true, ..arrival }).unwrap();
    get(&mut book, 1, 4).unwrap();
}

#[test]
fn a_letter_that_was_changed_is_seen() {
    let paper = Paper::new();
    for lengths in [Lengths::Small, Lengths::Mixed, Lengths::Large] {
        for seq in 1..200 {
            let letter = Letter { stream: 3, seq, epoch: 9 };
            let length = length(lengths, 3, seq);
            assert!((HEADER..=LONGEST).contains(&length));
            let mut bytes = paper.write(letter, length);
            assert_eq!(paper.read(&bytes), Ok(letter));
            let at = usize::try_from(seq).unwrap() % length;
            bytes[at] ^= 1;
            assert!(paper.read(&bytes).is_err(), "byte {at} of {length}");
            bytes[at] ^= 1;
            bytes.pop();
            assert!(paper.read(&bytes).is_err());
        }
    }
}

#[test]
fn wills_come_once_and_only_without_good_bye() {
    let mut wills = Wills::default();
    wills.set((1, 1), Fate::Due);
    wills.set((1, 2), Fate::Discarded);
    wills.set((1, 3), Fate::Unknown);
    assert!(wills.missing().unwrap().contains("(1, 1)"));
    wills.received((1, 1)).unwrap();
    assert_eq!(wills.missing(), None);
    assert!(wills.received((1, 1)).is_err());
    assert!(wills.received((1, 2)).is_err());
    assert!(wills.received((1, 4)).is_err());
    wills.set((1, 5), Fate::Alive);
    assert!(wills.received((1, 5)).is_err());
    // an earlier CONNECT took its place, which the watcher knows before the client
    wills.set((1, 6), Fate::Contested);
    wills.received((1, 6)).unwrap();
    assert!(wills.missing().unwrap().contains("while it was connected"));
    wills.set((1, 6), Fate::Due);
    assert_eq!(wills.missing(), None);
    assert!(wills.received((1, 6)).is_err(), "twice");
    wills.set((1, 7), Fate::Contested);
    wills.set((1, 7), Fate::Discarded);
    assert_eq!(wills.missing(), None);
    wills.received((1, 7)).unwrap();
}

#[test]
fn the_retained_message_is_the_last_one() {
    let mut shelf = Shelf::new(2);
    for seq in 1..=3 {
        assert_eq!(shelf.send(0, false), seq);
    }
    shelf.acknowledged(0, 2);
    let mut view = shelf.view();
    assert!(Shelf::received(&mut view.clone(), 0, 1, true, Asked::default()).is_err(), "too old");
    Shelf::received(&mut view, 0, 2, true, Asked::default()).unwrap();
    assert!(Shelf::received(&mut view.clone(), 0, 2, true, Asked::default()).is_err(), "kept once");
    Shelf::received(&mut view, 0, 3, false, Asked::default()).unwrap();
    assert!(Shelf::received(&mut view, 0, 3, false, Asked::default()).is_err());
    assert!(shelf.check(&[(0, 3)].into()).unwrap_err().contains("2 acknowledged"));
    assert!(shelf.check(&[].into()).is_err());
    shelf.acknowledged(0, 3);
    shelf.check(&[(0, 3)].into()).unwrap();
    assert!(shelf.check(&[(0, 2)].into()).is_err());
    assert!(shelf.check(&[].into()).is_err());
    shelf.send(0, true);
    shelf.acknowledged(0, 4);
    shelf.check(&[].into()).unwrap();
    assert!(shelf.check(&[(0, 3)].into()).is_err());
}

#[test]
fn what_expires_may_be_missing_after_its_time_and_not_before() {
    let mut book = Book::default();
    book.add_stream("x/1", Q1, Lengths::Small, true);
    book.streams[0].expires = Some(2);
    book.add_reader(true, &[Wish::new("x/#", Q1)]);
    book.subscribed(0);
    for _ in 1..=3 {
        book.send(0, 100);
    }
    assert_eq!(book.oldest_awaited(), None, "nobody waits for what may never come");
    let late = 100 + 2 * SECOND;
    let at = |now| Arrival { now, ..plain(Q1) };
    let early = |book: &mut Book| book.received(0, (0, 2, 100), "x/1", at(late - SECOND)).unwrap_err();
    assert!(early(&mut book).contains("1 (1 in all) did not"), "a second before its time");
    assert!(book.incomplete(late - SECOND).is_some());
    book.received(0, (0, 3, 100), "x/1", at(late)).unwrap();
    assert_eq!((book.incomplete(late), book.losses(late)), (None, Losses::default()));
    book.send(0, late);
    assert!(book.incomplete(late).is_some());
    assert_eq!(book.losses(late + 2 * SECOND).old, 1);
}

#[test]
fn the_expiry_interval_is_what_is_left_of_it() {
    let mut book = Book::default();
    book.add_stream("x/1", Q1, Lengths::Small, true);
    let check = |book: &Book, waited, interval| book.check_interval((0, 100), 100 + waited, interval);
    check(&book, 0, None).unwrap();
    assert!(check(&book, 0, Some(1)).is_err(), "nobody said that it expires");
    book.streams[0].expires = Some(10);
    check(&book, 0, Some(10)).unwrap();
    check(&book, 3 * SECOND, Some(7)).unwrap();
    check(&book, 3 * SECOND, Some(10)).unwrap();
    assert!(check(&book, 3 * SECOND, Some(5)).is_err(), "it lost more than it waited");
    assert!(check(&book, 3 * SECOND, Some(11)).is_err(), "it gained");
    assert!(check(&book, 0, None).is_err());
}

#[test]
fn only_what_is_too_large_may_be_missing_because_it_is() {
    let mut book = Book::default();
    book.add_stream("d/1", Q1, Lengths::Large, true);
    book.add_reader(true, &[Wish::new("d/#", Q1)]);
    book.takes_at_most(0, 2000);
    book.subscribed(0);
    let large = |seq: &u64| length(Lengths::Large, 0, *seq) > 2000;
    let small = |seq: &u64| length(Lengths::Large, 0, *seq) < 1000;
    let first = (1..).find(|seq| large(seq) && small(&(seq + 1)) && small(&(seq + 2))).unwrap();
    for _ in 1..=first + 2 {
        book.send(0, 7);
    }
    for seq in (1..first).filter(|seq| !large(seq)) {
        get(&mut book, seq, plain(Q1)).unwrap();
    }
    assert!(get(&mut book, first + 2, plain(Q1)).unwrap_err().contains("did not"));
    assert_eq!(book.losses(7).large, (1..=first).filter(large).count() as u64);
}

#[test]
fn identifiers_are_those_of_all_subscriptions_that_match_and_not_local_means_it() {
    let mut book = Book::default();
    book.add_stream("d/1", Q1, Lengths::Small, true);
    let numbered = |filter: &str, number| Wish { identifier: Some(number), ..Wish::new(filter, Q1) };
    book.add_reader(true, &[numbered("d/#", 2), numbered("d/1", 1), Wish::new("d/+", Q1), numbered("e", 3)]);
    let own = Wish { no_local: true, ..Wish::new("d/#", Q1) };
    book.add_reader(true, &[own]);
    book.publishes(1, &[0]);
    book.subscribed(0);
    book.subscribed(1);
    book.send(0, 7);
    for wrong in [&[][..], &[1], &[1, 2, 3]] {
        let arrival = Arrival { identifiers: wrong, ..plain(Q1) };
        assert!(get(&mut book, 1, arrival).unwrap_err().contains("MQTT-3.3.4-3"));
    }
    get(&mut book, 1, Arrival { identifiers: &[1, 2], ..plain(Q1) }).unwrap();
    assert!(book.received(1, (0, 1, 7), "d/1", plain(Q1)).unwrap_err().contains("MQTT-3.8.3-3"));
}

#[test]
fn properties_that_were_changed_are_seen() {
    let rich = |seq: &u64| trimmings::trimmings(3, *seq).user_properties.len() == 3;
    let seq = (1..).find(rich).unwrap();
    let sent = trimmings::trimmings(3, seq);
    trimmings::check(&sent, 3, seq, true).unwrap();
    assert!(trimmings::check(&sent, 3, seq, false).is_err());
    assert!(trimmings::check(&Default::default(), 3, seq, true).is_err());
    let mut other = sent.clone();
    other.user_properties.swap(0, 1);
    assert!(trimmings::check(&other, 3, seq, true).is_err(), "their order counts [MQTT-3.3.2-18]");
    for seq in 1..2000 {
        let mut out = Vec::new();
        let properties = trimmings::trimmings(3, seq);
        mqtt::codec::encode::publish(
            mqtt::Version::V5,
            QoS::AtMostOnce,
            false,
            false,
            None,
            "t",
            &properties,
            &[],
            &mut out,
        )
        .unwrap();
        assert!(out.len() < trimmings::MOST, "{seq}: {} bytes", out.len());
    }
}

#[test]
fn who_asks_for_the_flag_as_published_always_gets_it_and_who_asks_for_nothing_kept_gets_none() {
    let mut shelf = Shelf::new(1);
    shelf.send(0, false);
    shelf.acknowledged(0, 1);
    let as_published = Asked { retain_as_published: true, ..Asked::default() };
    Shelf::received(&mut shelf.view(), 0, 1, true, as_published).unwrap();
    assert!(Shelf::received(&mut shelf.view(), 0, 1, false, as_published).is_err());
    let no_kept = Asked { only_new: true, ..as_published };
    let mut view = shelf.view();
    Shelf::received(&mut view, 0, 1, true, no_kept).unwrap();
    assert!(
        Shelf::received(&mut view, 0, 1, true, no_kept).is_err(),
        "as it was published, and nothing that was kept"
    );
    let only_new = Asked { only_new: true, ..Asked::default() };
    assert!(Shelf::received(&mut shelf.view(), 0, 1, true, only_new).is_err());
    Shelf::received(&mut shelf.view(), 0, 1, false, only_new).unwrap();
}

#[test]
fn floors_that_climb_are_seen_and_one_that_is_odd_is_not() {
    const KIB: usize = 1024;
    let verdict = |floors: &[usize]| {
        let mut all = Floors::new(10 * KIB, Bounds { kept: 90 * KIB, climb: KIB });
        floors.iter().try_for_each(|floor| all.add(floor * KIB))?;
        all.level()
    };
    verdict(&[20, 40, 41, 40, 39, 40]).unwrap();
    verdict(&[20, 40, 41, 80, 39, 40]).unwrap();
    assert!(verdict(&[20, 101]).unwrap_err().contains("bound 100 KiB"));
    assert!(verdict(&[20, 40, 42, 44, 46]).unwrap_err().contains("grows by 2 KiB"));
    assert!(verdict(&[20, 40, 42, 39, 44, 46, 47, 50, 51, 54]).is_err(), "with chance in it");
    // the first one is not level with the others
    verdict(&[20, 40, 40, 40, 40]).unwrap();
    verdict(&[20, 40, 60, 80]).unwrap();
    for odd in 1..5 {
        for by in [-15_isize, 15, 45] {
            // an odd one, wherever it is, is no climb and hides none
            let with = |slope: isize| -> Vec<usize> {
                let floor = |at: isize| 40 + at * slope + if at == odd { by } else { 0 };
                (0..5).map(|at| usize::try_from(floor(at)).unwrap()).collect()
            };
            verdict(&with(0)).unwrap();
            assert!(verdict(&with(2)).is_err(), "{:?}", with(2));
        }
    }
    // what the soak of seed 4002 saw when the caches of threads were counted
    verdict(&[50, 50, 50, 51, 79]).unwrap();
}

/// Whether messages are what a connection gets whose subscription keeps the flag: all in order but one, which is not older than
/// what was acknowledged.
fn is_one_kept_among_live(floor: u64, got: &[u64]) -> bool {
    let climbs = |seqs: &[u64]| seqs.windows(2).all(|pair| pair[0] < pair[1]);
    let without = |at: usize| [&got[..at], &got[at + 1..]].concat();
    climbs(got) || (0..got.len()).any(|at| got[at] >= floor && climbs(&without(at)))
}

#[test]
fn what_is_kept_and_what_is_live_need_not_be_told_apart_to_be_judged() {
    let asked = Asked { retain_as_published: true, ..Asked::default() };
    let mut shelf = Shelf::new(1);
    for _ in 0..5 {
        shelf.send(0, false);
    }
    shelf.acknowledged(0, 3);
    // all that can come of five messages in five steps
    for number in 0..5_u64.pow(5) {
        let got: Vec<u64> = (0..5).map(|digit| number / 5_u64.pow(digit) % 5 + 1).collect();
        let mut view = shelf.view();
        let step = got.iter().position(|seq| Shelf::received(&mut view, 0, *seq, true, asked).is_err());
        let wrong = (1..=5).find(|count| !is_one_kept_among_live(3, &got[..*count]));
        assert_eq!(step.map(|at| at + 1), wrong, "{got:?}");
    }
}

#[test]
fn nothing_is_an_excuse_for_a_strict_reader() {
    for durable in [true, false] {
        let strict = |qos| {
            let mut book = Book::default();
            book.add_stream("d/1", qos, Lengths::Small, true);
            book.add_reader(durable, &[Wish::new("d/#", Q2)]);
            book.is_strict(0);
            book.subscribed(0);
            for _ in 0..4 {
                book.send(0, 7);
            }
            book
        };
        let mut book = strict(Q1);
        get(&mut book, 1, plain(Q1)).unwrap();
        assert!(get(&mut book, 3, plain(Q1)).unwrap_err().contains("did not"), "no room is no excuse");
        assert!(book.unbalanced().unwrap().contains("message 2 of d/1 AtLeastOnce 0 times"));
        let mut book = strict(Q2);
        book.give_up(0, 2, 7);
        for seq in [1, 3] {
            get(&mut book, seq, plain(Q2)).unwrap();
        }
        assert!(book.incomplete(7).unwrap().contains("waits for 4"));
        assert!(book.unbalanced().unwrap().contains("message 4 of d/1 ExactlyOnce 0 times"));
        get(&mut book, 4, plain(Q2)).unwrap();
        assert_eq!((book.incomplete(7), book.unbalanced()), (None, None));
        assert!(get(&mut book, 4, plain(Q2)).is_err());
        assert!(book.unbalanced().unwrap().contains("message 4 of d/1 ExactlyOnce 2 times"));
        // the account knows neither age nor size
        let mut book = strict(Q1);
        book.streams[0].expires = Some(0);
        book.takes_at_most(0, 1);
        assert!(book.unbalanced().unwrap().contains("message 1 "));
    }
    // without a session it stays, and gets QoS 0 as well
    let mut book = Book::default();
    book.add_stream("d/1", QoS::AtMostOnce, Lengths::Small, true);
    book.add_reader(false, &[Wish::new("d/#", Q2)]);
    book.is_strict(0);
    book.subscribed(0);
    book.send(0, 7);
    assert!(book.incomplete(7).is_some());
    assert!(book.unbalanced().unwrap().contains("message 1 of d/1 AtMostOnce 0 times"));
    get(&mut book, 1, plain(QoS::AtMostOnce)).unwrap();
    assert_eq!((book.incomplete(7), book.unbalanced()), (None, None));
}
