//! Scripts: what callers and Stripe do to one account, step by step, and what the reference expects of each step.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::prices::{PACKS, PRICES, Price};
use super::reference::{Allowance, Charge, Dispute, Ledger, Refusal, Used, months_after};

const MINUTE: i64 = 60;
const DAY: i64 = 86_400;

/// One step. Numbers of holds, purchases and the like are taken modulo how many there are; a step that makes no sense
/// where the script stands does nothing.
#[derive(Debug, Clone)]
pub enum Step {
    Wait {
        minutes: i64,
    },
    /// To the moment the clock next changes something, or the second before.
    WaitForChange {
        just_before: bool,
    },
    Grant {
        amount: i64,
        priority: i32,
        begins_in_days: i64,
        days: Option<i64>,
    },
    Debit(Charge),
    Hold {
        charge: Charge,
        minutes: i64,
    },
    Capture {
        hold: usize,
        used: Used,
    },
    Release {
        hold: usize,
    },
    Extend {
        hold: usize,
        minutes: i64,
    },
    Settle,
    Subscribe {
        price: usize,
        seats: i64,
    },
    /// At the end of the period, or as many days later (earlier if negative).
    Renew {
        price: Option<usize>,
        days_late: i64,
    },
    /// Within the period, with so many quarters of it left.
    Upgrade {
        quarters: i64,
    },
    Cancel,
    BuyPack {
        pack: usize,
    },
    Refund {
        purchase: usize,
        quarters: i64,
    },
    FailRefund {
        purchase: usize,
    },
    Dispute {
        purchase: usize,
    },
    CloseDispute {
        purchase: usize,
        won: bool,
    },
    /// Stripe sends something again.
    Redeliver {
        event: usize,
    },
}

pub fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    vec(step(), 1..most)
}

fn charge() -> impl Strategy<Value = Charge> {
    prop_oneof![
        10 => (1i64..260).prop_map(Charge::Amount),
        10 => (select(vec!["call", "render", "work"]), 1i64..60).prop_map(|(feature, units)| Charge::Feature(feature, units)),
        1 => select(vec![Charge::Amount(0), Charge::Feature("call", 0), Charge::Feature("flying", 1)]),
    ]
}

fn used() -> impl Strategy<Value = Used> {
    prop_oneof![
        3 => Just(Used::All),
        4 => (0i64..200).prop_map(Used::Amount),
        4 => (0i64..120).prop_map(Used::Quantity),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let days = proptest::option::of(1i64..60);
    let begins = select(vec![0, 0, 0, 3, 20]);
    let priority = select(vec![1, 10, 50]);
    let hold_minutes =
        || prop_oneof![1i64..90, (1i64..30).prop_map(|days| days * 1_440), Just(0), Just(31 * 1_440 + 1)];
    let price = 0..PRICES.len();
    let late = prop_oneof![4 => Just(0i64), 1 => -3i64..0, 1 => 1i64..80];
    prop_oneof![
        4 => (1i64..180).prop_map(|minutes| Step::Wait { minutes }),
        4 => (1i64..45).prop_map(|days| Step::Wait { minutes: days * 1_440 }),
        6 => any::<bool>().prop_map(|just_before| Step::WaitForChange { just_before }),
        5 => (0i64..200, priority, begins, days).prop_map(|(amount, priority, begins_in_days, days)| Step::Grant {
            amount, priority, begins_in_days, days,
        }),
        14 => charge().prop_map(Step::Debit),
        9 => (charge(), hold_minutes()).prop_map(|(charge, minutes)| Step::Hold { charge, minutes }),
        7 => (any::<usize>(), used()).prop_map(|(hold, used)| Step::Capture { hold, used }),
        4 => any::<usize>().prop_map(|hold| Step::Release { hold }),
        2 => (any::<usize>(), hold_minutes()).prop_map(|(hold, minutes)| Step::Extend { hold, minutes }),
        1 => Just(Step::Settle),
        6 => (price.clone(), 1i64..3).prop_map(|(price, seats)| Step::Subscribe { price, seats }),
        6 => (proptest::option::of(price), late).prop_map(|(price, days_late)| Step::Renew { price, days_late }),
        3 => (1i64..4).prop_map(|quarters| Step::Upgrade { quarters }),
        1 => Just(Step::Cancel),
        3 => (0..PACKS.len()).prop_map(|pack| Step::BuyPack { pack }),
        4 => (any::<usize>(), 1i64..5).prop_map(|(purchase, quarters)| Step::Refund { purchase, quarters }),
        2 => any::<usize>().prop_map(|purchase| Step::FailRefund { purchase }),
        2 => any::<usize>().prop_map(|purchase| Step::Dispute { purchase }),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(purchase, won)| Step::CloseDispute { purchase, won }),
        2 => any::<usize>().prop_map(|event| Step::Redeliver { event }),
    ]
}

/// What a step comes to at a moment.
#[derive(Debug, Clone)]
pub enum Action {
    Grant {
        amount: i64,
        priority: i32,
        begins: i64,
        ends: Option<i64>,
    },
    Debit(Charge),
    Hold {
        charge: Charge,
        ends: i64,
    },
    Capture {
        hold: usize,
        used: Used,
    },
    Release {
        hold: usize,
    },
    Extend {
        hold: usize,
        ends: i64,
    },
    Settle,
    /// StripeEvents, in order.
    Stripe(Vec<Value>),
}

/// An action, when it happens, and what it must come to: what may be spent afterwards, where the answer says so.
#[derive(Debug)]
pub struct Play {
    pub at: i64,
    pub action: Action,
    pub expected: Result<Option<i64>, Refusal>,
}

#[derive(Debug, Clone)]
struct Subscription {
    id: String,
    price: &'static Price,
    seats: i64,
    start: i64,
    end: i64,
    is_upgraded: bool,
}

/// What was paid for, as Stripe names it.
#[derive(Debug, Clone)]
struct Bought {
    intent: String,
    /// The subscription whose year was paid.
    year_of: Option<String>,
}

/// A script as far as it was played: the time, the reference, and what Stripe has said.
#[derive(Debug)]
pub struct Script {
    pub now: i64,
    pub ledger: Ledger,
    subscription: Option<Subscription>,
    bought: Vec<Bought>,
    holds: usize,
    grants: usize,
    told: Vec<Value>,
    /// Where what is granted by hand gets its cause.
    cause_of_grant: fn(usize) -> String,
}

impl Script {
    pub fn new(now: i64, id_of: fn(&str) -> String, cause_of_grant: fn(usize) -> String) -> Self {
        Self {
            now,
            ledger: Ledger::open(now, id_of),
            subscription: None,
            bought: Vec::new(),
            holds: 0,
            grants: 0,
            told: Vec::new(),
            cause_of_grant,
        }
    }

    /// Plays a step on the reference. Answers what is to be played on the code under test.
    pub fn play(&mut self, step: &Step) -> Vec<Play> {
        let now = self.now;
        match *step {
            Step::Wait { minutes } => self.now += minutes * MINUTE,
            Step::WaitForChange { just_before } => {
                let next = self.ledger.next_change(now).unwrap_or(now);
                self.now = if just_before { (next - 1).max(now) } else { next };
            }
            Step::Grant { amount, priority, begins_in_days, days } => {
                return self.grant(amount, priority, begins_in_days, days);
            }
            Step::Debit(charge) => {
                let expected = self.ledger.debit(now, charge);
                return self.one(Action::Debit(charge), expected);
            }
            Step::Hold { charge, minutes } => {
                let ends = now + minutes * MINUTE;
                let expected = self.ledger.hold(now, charge, ends);
                self.holds += usize::from(expected.is_ok());
                return self.one(Action::Hold { charge, ends }, expected);
            }
            Step::Capture { hold, used } if self.holds > 0 => {
                let hold = hold % self.holds;
                let expected = self.ledger.capture(now, hold, used);
                return self.one(Action::Capture { hold, used }, expected);
            }
            Step::Release { hold } if self.holds > 0 => {
                let hold = hold % self.holds;
                let expected = self.ledger.release(now, hold);
                return self.one(Action::Release { hold }, expected);
            }
            Step::Extend { hold, minutes } if self.holds > 0 => {
                let (hold, ends) = (hold % self.holds, now + minutes * MINUTE);
                let expected = self.ledger.extend(now, hold, ends);
                return self.one(Action::Extend { hold, ends }, expected);
            }
            Step::Settle => return vec![self.settle()],
            Step::Subscribe { price, seats } if self.subscription.is_none() => return self.subscribe(price, seats),
            Step::Renew { price, days_late } => return self.renew(price, days_late),
            Step::Upgrade { quarters } => return self.upgrade(quarters),
            Step::Cancel => return self.cancel(),
            Step::BuyPack { pack } => return self.buy_pack(pack),
            Step::Refund { purchase, quarters } => return self.refund(purchase, quarters),
            Step::FailRefund { purchase } => return self.fail_refund(purchase),
            Step::Dispute { purchase } => return self.dispute(purchase, Dispute::None, Dispute::Open),
            Step::CloseDispute { purchase, won } => {
                let end = if won { Dispute::Won } else { Dispute::Lost };
                return self.dispute(purchase, Dispute::Open, end);
            }
            Step::Redeliver { event } if !self.told.is_empty() => {
                let again = self.told[event % self.told.len()].clone();
                return self.stripe(vec![again], |_, _| {});
            }
            _ => {}
        }
        Vec::new()
    }

    fn one(&self, action: Action, expected: Result<i64, Refusal>) -> Vec<Play> {
        vec![Play { at: self.now, action, expected: expected.map(Some) }]
    }

    pub fn settle(&mut self) -> Play {
        self.ledger.settle(self.now);
        Play { at: self.now, action: Action::Settle, expected: Ok(None) }
    }

    /// No two lots begin in the same second: which of them burns first is nobody's business.
    fn grant(&mut self, amount: i64, priority: i32, begins_in_days: i64, days: Option<i64>) -> Vec<Play> {
        self.now += 1;
        let begins = self.now + begins_in_days * DAY;
        let ends = days.map(|days| self.now + days * DAY);
        self.grants += 1;
        let cause = (self.cause_of_grant)(self.grants);
        let expected = self.ledger.grant(self.now, cause, amount, priority, begins, ends);
        let action = Action::Grant { amount, priority, begins, ends };
        vec![Play { at: self.now, action, expected: expected.map(|()| None) }]
    }

    /// Stripe tells something, and the reference takes it in.
    fn stripe(&mut self, events: Vec<Value>, change: impl FnOnce(&mut Ledger, i64)) -> Vec<Play> {
        let now = self.now;
        self.ledger.fact(now, |ledger| change(ledger, now));
        self.told.extend(events.clone());
        vec![Play { at: now, action: Action::Stripe(events), expected: Ok(None) }]
    }

    /// A StripeEvent of this second. Each step's is later than all before it, as things take time.
    fn event(&self, event_type: &str, nth: usize, object: Value) -> Value {
        json!({"id": format!("evt_{}_{nth}", self.now), "object": "event", "api_version": "2024-06-20",
            "created": self.now, "type": event_type, "livemode": false, "pending_webhooks": 1,
            "data": {"object": object}})
    }

    fn subscription_now(&self, status: &str) -> Value {
        let Subscription { id, price, seats, start, end, .. } = self.subscription.as_ref().expect("a subscription");
        let ended_at = (status == "canceled").then_some(self.now);
        json!({"object": "subscription", "id": id, "customer": "cus_1", "status": status, "currency": "usd",
            "created": start, "current_period_start": start, "current_period_end": end, "ended_at": ended_at,
            "cancel_at_period_end": false, "metadata": {},
            "items": {"object": "list", "data": [{"id": "si_1", "object": "subscription_item", "quantity": seats,
                "price": {"id": price.id, "object": "price", "currency": "usd", "unit_amount": price.amount,
                    "recurring": {"interval": if price.yearly { "year" } else { "month" }, "interval_count": 1}}}]}})
    }

    /// A payment that succeeded, and the invoice that it paid.
    fn paid_invoice(&self, reason: &str, amount: i64, lines: Vec<Value>) -> [Value; 2] {
        let id = format!("in_{}", self.now);
        let subscription = self.subscription.as_ref().map(|subscription| &subscription.id);
        let invoice = json!({"object": "invoice", "id": id, "customer": "cus_1", "currency": "usd", "status": "paid",
            "subscription": subscription, "billing_reason": reason, "payment_intent": format!("pi_{id}"),
            "created": self.now, "subtotal": amount, "total": amount, "amount_due": amount, "amount_paid": amount,
            "amount_remaining": 0, "lines": {"object": "list", "data": lines}});
        [self.payment(&format!("pi_{id}"), amount), self.event("invoice.paid", 2, invoice)]
    }

    fn payment(&self, id: &str, amount: i64) -> Value {
        let intent = json!({"object": "payment_intent", "id": id, "customer": "cus_1", "currency": "usd",
            "status": "succeeded", "amount": amount, "amount_received": amount, "created": self.now, "metadata": {}});
        self.event("payment_intent.succeeded", 1, intent)
    }

    fn line(&self, nth: usize, price: &Price, amount: i64, period: (i64, i64), proration: bool) -> Value {
        let subscription = self.subscription.as_ref().expect("a subscription");
        json!({"object": "line_item", "id": format!("il_{}_{nth}", self.now), "amount": amount, "currency": "usd",
            "subscription": subscription.id, "subscription_item": "si_1", "price": {"id": price.id, "object": "price"},
            "quantity": subscription.seats, "proration": proration,
            "period": {"start": period.0, "end": period.1}})
    }

    fn subscribe(&mut self, price: usize, seats: i64) -> Vec<Play> {
        self.now += 1;
        let price = &PRICES[price];
        let (id, start) = (format!("sub_{}", self.now), self.now);
        let end = months_after(start, if price.yearly { 12 } else { 1 });
        self.subscription = Some(Subscription { id, price, seats, start, end, is_upgraded: false });
        self.bill_period("customer.subscription.created", "subscription_create")
    }

    /// The next period is paid, perhaps at another price, perhaps early or late.
    fn renew(&mut self, price: Option<usize>, days_late: i64) -> Vec<Play> {
        let now = self.now;
        let Some(subscription) = &mut self.subscription else { return Vec::new() };
        let due = subscription.end + days_late * DAY;
        if due < now && days_late < 0 {
            return Vec::new();
        }
        self.now = now.max(due) + 1;
        subscription.price = price.map_or(subscription.price, |price| &PRICES[price]);
        subscription.start = subscription.end;
        subscription.end = months_after(subscription.start, if subscription.price.yearly { 12 } else { 1 });
        subscription.is_upgraded = false;
        self.bill_period("customer.subscription.updated", "subscription_cycle")
    }

    fn bill_period(&mut self, told: &str, reason: &str) -> Vec<Play> {
        let Subscription { id, price, seats, start, end, .. } = self.subscription.clone().expect("a subscription");
        let paid = price.amount * seats;
        let line = self.line(1, price, paid, (start, end), false);
        let cause = format!("invoice:in_{0}/il_{0}_1", self.now);
        let [payment, invoice] = self.paid_invoice(reason, paid, vec![line]);
        let subscription = self.event(told, 0, self.subscription_now("active"));
        let year_of = price.yearly.then(|| id.clone());
        self.bought.push(Bought { intent: format!("pi_in_{}", self.now), year_of });
        self.stripe(vec![subscription, payment, invoice], |ledger, _| {
            ledger.subscribed(&price.plan);
            let purchase = ledger.bought(paid, price.plan.claws_back_debt);
            ledger.invoiced(Allowance {
                cause,
                subscription: id,
                purchase,
                start,
                end,
                credits: price.plan.credits.unwrap_or(0) * seats,
                is_monthly: price.yearly,
                is_proration: false,
                rollover: price.plan.rollover,
                windows: 0,
            });
        })
    }

    /// To the next dearer monthly price, once in a period: what is left of the old one is given back, what is left of the
    /// period is paid at the new one.
    fn upgrade(&mut self, quarters: i64) -> Vec<Play> {
        let now = self.now + 1;
        let Some(subscription) = &mut self.subscription else { return Vec::new() };
        let next = PRICES.iter().skip_while(|price| price.id != subscription.price.id).nth(1);
        let Some(next) = next.filter(|next| !next.yearly && next.plan.credits.is_some()) else { return Vec::new() };
        if subscription.is_upgraded || now <= subscription.start || subscription.end <= now {
            return Vec::new();
        }
        let old = subscription.price;
        (subscription.price, subscription.is_upgraded) = (next, true);
        self.now = now;
        let Subscription { id, seats, end, .. } = self.subscription.clone().expect("a subscription");
        let share = |whole: i64| whole * seats * quarters / 4;
        let (back, due) = (share(old.amount), share(next.amount));
        let lines = vec![self.line(1, old, -back, (now, end), true), self.line(2, next, due, (now, end), true)];
        let cause = format!("invoice:in_{now}/prorations/{id}");
        let [payment, invoice] = self.paid_invoice("subscription_update", due - back, lines);
        let subscription = self.event("customer.subscription.updated", 0, self.subscription_now("active"));
        self.bought.push(Bought { intent: format!("pi_in_{now}"), year_of: None });
        let credits = |price: &Price| share(price.plan.credits.unwrap_or(0));
        self.stripe(vec![subscription, payment, invoice], |ledger, _| {
            ledger.subscribed(&next.plan);
            let purchase = ledger.bought(due - back, next.plan.claws_back_debt);
            ledger.invoiced(Allowance {
                cause,
                subscription: id,
                purchase,
                start: now,
                end,
                credits: credits(next) - credits(old),
                is_monthly: false,
                is_proration: true,
                rollover: next.plan.rollover,
                windows: 0,
            });
        })
    }

    /// At once. What the clock had made due is recorded before: whether a month's credits were granted and ended with the
    /// subscription, or were not granted at all, is the same to everybody but a debt.
    fn cancel(&mut self) -> Vec<Play> {
        if self.subscription.is_none() {
            return Vec::new();
        }
        self.now += 1;
        let settled = self.settle();
        let ended = self.event("customer.subscription.deleted", 0, self.subscription_now("canceled"));
        let id = self.subscription.take().expect("a subscription").id;
        let canceled = self.stripe(vec![ended], |ledger, now| ledger.canceled(now, &id));
        std::iter::once(settled).chain(canceled).collect()
    }

    fn buy_pack(&mut self, pack: usize) -> Vec<Play> {
        self.now += 1;
        let (pack, id) = (&PACKS[pack], format!("cs_{}", self.now));
        let session = json!({"object": "checkout.session", "id": id, "customer": "cus_1", "mode": "payment",
            "status": "complete", "payment_status": "paid", "created": self.now, "amount_total": pack.amount,
            "currency": "usd", "payment_intent": format!("pi_{id}"), "client_reference_id": null,
            "metadata": {"kind": "credit_pack", "credit_pack": pack.id}});
        let intent = format!("pi_{id}");
        let events = vec![self.payment(&intent, pack.amount), self.event("checkout.session.completed", 2, session)];
        self.bought.push(Bought { intent, year_of: None });
        self.stripe(events, |ledger, now| {
            // A pack is no plan's, so the default plan's policy holds.
            let purchase = ledger.bought(pack.amount, true);
            ledger.bought_pack(now, format!("checkout_session:{id}"), pack, purchase);
        })
    }

    /// Which purchase is meant. A year that is not over yet is left alone: its later months are granted by the clock, and
    /// what of them is claimed back is told only when Stripe next says something.
    fn purchase(&self, nth: usize) -> Option<(usize, Bought)> {
        let nth = nth.checked_rem(self.bought.len())?;
        let bought = self.bought[nth].clone();
        let runs = |id: &String| self.subscription.as_ref().is_some_and(|subscription| subscription.id == *id);
        (!bought.year_of.as_ref().is_some_and(runs)).then_some((nth, bought))
    }

    fn refund(&mut self, nth: usize, quarters: i64) -> Vec<Play> {
        let Some((nth, bought)) = self.purchase(nth) else { return Vec::new() };
        let purchase = &self.ledger.purchases[nth];
        let amount = (purchase.paid * quarters / 4).min(purchase.paid - purchase.refunded());
        if amount == 0 {
            return Vec::new();
        }
        self.now += 1;
        let id = format!("re_{nth}_{}", purchase.refunds.len());
        let refund = refund(&id, &bought.intent, amount, "succeeded");
        let told = self.event("refund.created", 0, refund);
        self.stripe(vec![told], |ledger, _| ledger.purchases[nth].refunds.push((amount, true)))
    }

    fn fail_refund(&mut self, nth: usize) -> Vec<Play> {
        let Some((nth, bought)) = self.purchase(nth) else { return Vec::new() };
        let refunds = &self.ledger.purchases[nth].refunds;
        let Some(good) = refunds.iter().rposition(|(_, good)| *good) else { return Vec::new() };
        let amount = refunds[good].0;
        self.now += 1;
        let refund = refund(&format!("re_{nth}_{good}"), &bought.intent, amount, "failed");
        let told = self.event("refund.failed", 0, refund);
        self.stripe(vec![told], |ledger, _| ledger.purchases[nth].refunds[good].1 = false)
    }

    fn dispute(&mut self, nth: usize, from: Dispute, to: Dispute) -> Vec<Play> {
        let Some((nth, bought)) = self.purchase(nth) else { return Vec::new() };
        let purchase = &self.ledger.purchases[nth];
        if purchase.dispute != from {
            return Vec::new();
        }
        self.now += 1;
        let (event_type, status) = match to {
            Dispute::Won => ("charge.dispute.closed", "won"),
            Dispute::Lost => ("charge.dispute.closed", "lost"),
            Dispute::Open | Dispute::None => ("charge.dispute.created", "needs_response"),
        };
        let dispute = json!({"object": "dispute", "id": format!("dp_{nth}"), "payment_intent": bought.intent,
            "charge": format!("ch_{nth}"), "currency": "usd", "amount": purchase.paid, "status": status});
        let told = self.event(event_type, 0, dispute);
        self.stripe(vec![told], |ledger, _| ledger.purchases[nth].dispute = to)
    }
}

fn refund(id: &str, intent: &str, amount: i64, status: &str) -> Value {
    json!({"object": "refund", "id": id, "payment_intent": intent, "charge": null, "currency": "usd",
        "amount": amount, "status": status, "metadata": {}})
}
