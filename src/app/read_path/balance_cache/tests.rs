use std::time::Instant;

use super::*;

const PARTITIONS: i16 = 2;
const ROOM: usize = 1 << 20;

fn id(n: usize) -> AccountId {
    AccountId::new(&format!("user_{n}")).expect("a plain name")
}

fn account(id: &AccountId, version: i64) -> Account {
    Account { version, billing: None, ..Account::new(id.clone()) }
}

fn cache() -> BalanceCache {
    BalanceCache::new(ROOM, PARTITIONS)
}

/// Reads an account's row and puts it in; something may happen in between.
fn load(cache: &BalanceCache, id: &AccountId, version: i64, meanwhile: impl FnOnce(&BalanceCache)) {
    let ids = [id.clone()];
    let load = cache.begin_load(&ids);
    let read = Arc::new(Balance::new(id, version, &Credits::default(), cache.partition_of(id), version));
    meanwhile(cache);
    load.keep(id, &read);
}

fn version_of(cache: &BalanceCache, id: &AccountId) -> Option<i64> {
    cache.get(id).map(|(balance, _)| balance.version)
}

fn touched(cache: &BalanceCache, id: &AccountId, version: i64) -> Touched {
    Touched { id: id.clone(), partition_id: cache.partition_of(id), version, applies_catalog: false }
}

#[test]
fn a_row_read_before_an_event_is_not_put_in_after_it() {
    let (cache, id) = (cache(), id(1));
    let home = cache.partition_of(&id);
    load(&cache, &id, 5, |cache| cache.renew(&account(&id, 6), home, 6));
    assert_eq!(version_of(&cache, &id), None, "a lane told of version 6");
    load(&cache, &id, 5, |cache| assert!(cache.outdated(&[touched(cache, &id, 6)]).is_empty()));
    assert_eq!(version_of(&cache, &id), None, "the follower told of version 6");
    load(&cache, &id, 5, |cache| {
        load(cache, &id, 6, |_| ());
        cache.renew(&account(&id, 7), home, 7);
        cache.forget(&id);
    });
    assert_eq!(version_of(&cache, &id), None, "the newer one was there, and was dropped again");
    load(&cache, &id, 6, |cache| cache.renew(&account(&id, 6), home, 6));
    assert_eq!(version_of(&cache, &id), Some(6), "a row that shows the event is");
}

#[test]
fn an_older_version_never_replaces_a_newer_one_and_nothing_is_brought_in_by_writing() {
    let (cache, id) = (cache(), id(1));
    let home = cache.partition_of(&id);
    cache.renew(&account(&id, 9), home, 9);
    assert_eq!(version_of(&cache, &id), None);
    load(&cache, &id, 5, |_| ());
    cache.renew(&account(&id, 7), home, 7);
    cache.renew(&account(&id, 6), home, 6);
    load(&cache, &id, 6, |_| ());
    assert_eq!(version_of(&cache, &id), Some(7));
}

#[test]
fn the_cursor_passes_what_lanes_told_of_and_waits_for_the_follower_before_a_gap() {
    let (cache, id) = (cache(), id(1));
    let home = cache.partition_of(&id);
    let stretch = |after, to| Stretch { partition_id: home, after, to };
    let known = account(&id, 1);
    load(&cache, &id, 1, |_| ());
    let position = || cache.get(&id).expect("loaded").1;
    cache.publish(stretch(0, 4), [Some(&known)].into_iter());
    assert_eq!((position(), cache.behind(&[(home, 4)])), (4, vec![]));
    // Another replica wrote 5 and 6.
    cache.publish(stretch(6, 8), [Some(&known)].into_iter());
    cache.publish(stretch(8, 9), std::iter::empty());
    assert_eq!((position(), cache.behind(&[(home, 9)])), (4, vec![stretch(4, 9)]));
    cache.reached(&[stretch(4, 6)]);
    assert_eq!(position(), 9, "from 6 on, lanes told of everything");
    // A lane had no state to tell of.
    cache.publish(stretch(9, 10), [None, Some(&known)].into_iter());
    assert_eq!(cache.behind(&[(home, 10)]), vec![stretch(9, 10)]);
}

#[test]
fn a_restart_forgets_everything_and_what_was_being_read() {
    let cache = cache();
    let (old, new) = (id(1), id(2));
    load(&cache, &old, 1, |_| ());
    load(&cache, &new, 1, |cache| cache.restart(&[(0, 50), (1, 50)]));
    assert_eq!((cache.accounts(), cache.behind(&[(0, 50), (1, 50)])), (0, vec![]));
    load(&cache, &new, 1, |_| ());
    assert_eq!(cache.get(&new).map(|(_, position)| position), Some(50), "the next one is kept");
}

#[test]
fn memory_is_bounded_whatever_is_asked_for() {
    let cache = BalanceCache::new(100_000, PARTITIONS);
    (0..10_000).for_each(|n| load(&cache, &id(n), 1, |_| ()));
    assert!(cache.bytes() <= 100_000 && cache.accounts() > 20, "{cache:?}");
    for bytes in [0, 1, 100] {
        let tiny = BalanceCache::new(bytes, PARTITIONS);
        (0..100).for_each(|n| load(&tiny, &id(n), 1, |_| ()));
        assert!(tiny.bytes() <= bytes as u64, "{tiny:?}");
    }
}

/// Chance, the same every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % sides
    }
}

/// What is committed: each event's account and partition, in the order of commits.
#[derive(Default)]
struct Log(Vec<(AccountId, i16)>);

impl Log {
    fn end(&self, partition_id: i16) -> i64 {
        self.0.iter().filter(|(_, partition)| *partition == partition_id).count() as i64
    }

    fn ends(&self) -> Vec<(i16, i64)> {
        (0..PARTITIONS).map(|partition| (partition, self.end(partition))).collect()
    }

    /// Events of an account up to a position.
    fn version(&self, id: &AccountId, home: i16, upto: i64) -> i64 {
        let events = self.0.iter().filter(|(_, partition)| *partition == home).take(upto as usize);
        events.filter(|(account, _)| account == id).count() as i64
    }

    fn touched(&self, cache: &BalanceCache, stretches: &[Stretch]) -> Vec<Touched> {
        let mut all = Vec::new();
        for Stretch { partition_id, after, to } in stretches {
            let events = self.0.iter().filter(|(_, partition)| partition == partition_id);
            let stretch: Vec<&AccountId> = events.take(*to as usize).skip(*after as usize).map(|(id, _)| id).collect();
            let mut ids = stretch.clone();
            ids.sort();
            ids.dedup();
            all.extend(ids.into_iter().map(|id| touched(cache, id, self.version(id, *partition_id, *to))));
        }
        all
    }
}

/// What a follower, a reader and a lane are in the middle of.
#[derive(Default)]
struct Under<'a> {
    poll: Option<(Vec<(i16, i64)>, Poll)>,
    load: Option<(Load<'a>, Option<Vec<Arc<Balance>>>)>,
    /// Committed, and not told yet.
    written: Option<(Stretch, Account)>,
}

enum Poll {
    Asked,
    Met(Vec<Stretch>, Vec<AccountId>),
    ReadAgain(Vec<Stretch>, Vec<(Account, i64)>),
}

/// Every order in which the steps of lanes, other replicas, readers, the follower and eviction can fall, as far as chance
/// finds them: the cache never shows less than its cursors and its polls say.
#[test]
fn in_whatever_order_things_happen_nothing_is_shown_that_is_older_than_said() {
    const ACCOUNTS: usize = 4;
    let ids: Vec<AccountId> = (0..ACCOUNTS).map(id).collect();
    let mut seen = 0;
    for seed in 1..3_000_u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let (cache, mut log, mut under) = (cache(), Log::default(), Under::default());
        for step in 0..120 {
            let n = dice.roll(ACCOUNTS);
            let (who, home) = (&ids[n], cache.partition_of(&ids[n]));
            match dice.roll(6) {
                0 => log.0.push((who.clone(), home)),
                1 => match under.written.take() {
                    None => {
                        let after = log.end(home);
                        log.0.push((who.clone(), home));
                        let stretch = Stretch { partition_id: home, after, to: after + 1 };
                        under.written = Some((stretch, account(who, log.version(who, home, after + 1))));
                    }
                    Some((stretch, account)) => cache.publish(stretch, [Some(&account)].into_iter()),
                },
                2 => match under.load.take() {
                    None => under.load = Some((cache.begin_load(&ids[n..]), None)),
                    Some((load, None)) => {
                        let read = load.ids.iter().map(|id| {
                            let home = cache.partition_of(id);
                            let version = log.version(id, home, log.end(home));
                            Arc::new(Balance::new(id, version, &Credits::default(), home, log.end(home)))
                        });
                        let read = read.collect();
                        under.load = Some((load, Some(read)));
                    }
                    Some((load, Some(read))) => load.ids.iter().zip(&read).for_each(|(id, read)| load.keep(id, read)),
                },
                3 => cache.forget(who),
                _ => {
                    under.poll = match under.poll.take() {
                        None => Some((log.ends(), Poll::Asked)),
                        Some((ends, Poll::Asked)) => {
                            let behind = cache.behind(&ends);
                            if dice.roll(10) == 0 {
                                cache.restart(&ends);
                                None
                            } else {
                                let touched = log.touched(&cache, &behind);
                                let outdated = cache.outdated(&touched).into_iter().map(|touched| touched.id.clone());
                                let outdated = outdated.collect();
                                Some((ends, Poll::Met(behind, outdated)))
                            }
                        }
                        Some((ends, Poll::Met(behind, outdated))) => {
                            let read = outdated.iter().map(|id| {
                                let home = cache.partition_of(id);
                                (account(id, log.version(id, home, log.end(home))), log.end(home))
                            });
                            let read = read.collect();
                            Some((ends, Poll::ReadAgain(behind, read)))
                        }
                        Some((ends, Poll::ReadAgain(behind, read))) => {
                            for (account, position) in &read {
                                cache.renew(account, cache.partition_of(&account.id), *position);
                            }
                            cache.reached(&behind);
                            cache.polled(Instant::now());
                            for id in &ids {
                                let (_, end) = ends[usize::from(cache.partition_of(id).unsigned_abs())];
                                let shown = cache.get(id).map_or(i64::MAX, |(_, position)| position);
                                assert!(shown >= end, "seed {seed}, step {step}: {id} after a poll");
                            }
                            None
                        }
                    };
                }
            }
            for id in &ids {
                let Some((balance, position)) = cache.get(id) else { continue };
                seen += 1;
                let least = log.version(id, balance.partition_id, position);
                assert!(balance.version >= least, "seed {seed}, step {step}: {id} {balance:?}, the log says {least}");
            }
        }
    }
    assert!(seen > 100_000, "accounts were in memory only {seen} times");
}
