//! That the oracle objects to what it must object to.

use mqtt::QoS;

use super::book::{Arrival, Book};
use super::letter::{HEADER, LONGEST, Lengths, Letter, Paper, length};
use super::retained::Shelf;
use super::wills::{Fate, Wills};

const Q1: QoS = QoS::AtLeastOnce;
const Q2: QoS = QoS::ExactlyOnce;

fn plain(qos: QoS) -> Arrival {
    Arrival { qos, dup: false, group: None }
}

/// One stream and one reader that has subscribed to it; three messages are sent.
fn three(stream_qos: QoS, durable: bool) -> Book {
    let mut book = Book::default();
    book.add_stream("d/1", stream_qos, Lengths::Small, true);
    book.add_reader(durable, &[("d/+".to_owned(), Q2)]);
    book.subscribed(0);
    for seq in 1..=3 {
        assert_eq!(book.send(0, 7), seq);
    }
    book
}

#[track_caller]
fn get(book: &mut Book, seq: u64, arrival: Arrival) -> Result<(), String> {
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
    assert_eq!((book.incomplete(), book.oldest_awaited()), (None, None));
}

#[test]
fn a_gap_of_a_reader_without_a_session_is_counted() {
    let mut book = three(Q1, false);
    get(&mut book, 2, plain(Q1)).unwrap();
    assert_eq!(book.losses(), [0, 2]);
    assert!(get(&mut book, 1, plain(Q1)).unwrap_err().contains("after a later one"));
}

#[test]
fn what_never_came_is_told_at_the_end() {
    let mut book = three(Q2, true);
    get(&mut book, 1, plain(Q2)).unwrap();
    assert!(book.incomplete().unwrap().contains("waits for 2 of 3"));
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
    assert!(get(&mut book, 1, plain(QoS::AtMostOnce)).unwrap_err().contains("not AtLeastOnce"));
    assert!(get(&mut book, 4, plain(Q1)).unwrap_err().contains("not sent yet"));
}

#[test]
fn messages_without_payload_are_counted() {
    let mut book = Book::default();
    book.add_stream("d/z", Q2, Lengths::Empty, true);
    book.add_reader(true, &[("d/z".to_owned(), Q2)]);
    book.subscribed(0);
    assert_eq!(book.empty_stream("d/z"), Some(0));
    book.send(0, 0);
    assert!(book.incomplete().unwrap().contains("0 of 1"));
    book.received_empty(0, 0, Q2).unwrap();
    assert_eq!((book.incomplete(), book.too_many_empties()), (None, None));
    book.received_empty(0, 0, Q2).unwrap();
    assert!(book.too_many_empties().is_some());
}

#[test]
fn a_group_gets_each_message_once_and_at_all() {
    let mut book = Book::default();
    book.add_stream("g/1", Q1, Lengths::Small, true);
    book.add_reader(true, &[]);
    let group = book.add_group("s", "g/#", true, Q1);
    book.group_subscribed(group);
    book.send(0, 0);
    book.send(0, 0);
    let arrival = Arrival { group: Some(group), ..plain(Q1) };
    let get = |book: &mut Book, seq| book.received(0, (0, seq, 0), "g/1", arrival);
    get(&mut book, 2).unwrap();
    assert!(book.incomplete().unwrap().contains("first 1"));
    assert!(get(&mut book, 2).unwrap_err().contains("two members"));
    book.groups[group].departed();
    get(&mut book, 2).unwrap();
    get(&mut book, 1).unwrap();
    assert_eq!((book.incomplete(), book.losses()), (None, [0, 0]));
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
}

#[test]
fn the_retained_message_is_the_last_one() {
    let mut shelf = Shelf::new(2);
    for seq in 1..=3 {
        assert_eq!(shelf.send(0, false), seq);
    }
    shelf.acknowledged(0, 2);
    let mut view = shelf.view();
    assert!(Shelf::received(&mut view, 0, 1, true).is_err());
    Shelf::received(&mut view, 0, 2, true).unwrap();
    Shelf::received(&mut view, 0, 3, false).unwrap();
    assert!(Shelf::received(&mut view, 0, 3, false).is_err());
    shelf.acknowledged(0, 3);
    shelf.check(&[(0, 3)].into()).unwrap();
    assert!(shelf.check(&[(0, 2)].into()).is_err());
    assert!(shelf.check(&[].into()).is_err());
    shelf.send(0, true);
    shelf.acknowledged(0, 4);
    shelf.check(&[].into()).unwrap();
    assert!(shelf.check(&[(0, 3)].into()).is_err());
}
