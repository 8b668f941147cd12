//! What Stripe does: each step as StripeEvents, and as the facts that the reference takes in.

use chrono::Datelike;
use serde_json::{Value, json};

use super::super::prices::{PACKS, PRICES, Price};
use super::super::reference::{Allowance, Dispute, Ledger, months_after};
use super::{Action, Bought, DAY, Play, Script, Subscription};

impl Script {
    /// Stripe tells something, and the reference takes it in.
    pub(super) fn stripe(&mut self, events: Vec<Value>, change: impl FnOnce(&mut Ledger, i64)) -> Vec<Play> {
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
                    "recurring": {"interval": "month", "interval_count": price.months}}}]}})
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

    pub(super) fn subscribe(&mut self, price: usize, seats: i64) -> Vec<Play> {
        self.now += 1;
        let price = &PRICES[price];
        let (id, start) = (format!("sub_{}", self.now), self.now);
        let end = months_after(start, price.months);
        let (anchor, first_month) = (start, 0);
        self.subscription =
            Some(Subscription { id, price, seats, anchor, first_month, start, end, is_upgraded: false });
        self.bill_period("customer.subscription.created", "subscription_create")
    }

    /// The next period is paid, perhaps at another price, perhaps early or late.
    pub(super) fn renew(&mut self, price: Option<usize>, days_late: i64) -> Vec<Play> {
        let now = self.now;
        let Some(subscription) = &mut self.subscription else { return Vec::new() };
        let due = subscription.end + days_late * DAY;
        if due < now && days_late < 0 {
            return Vec::new();
        }
        self.now = now.max(due) + 1;
        let before = subscription.price;
        subscription.price = price.map_or(before, |price| &PRICES[price]);
        subscription.start = subscription.end;
        subscription.first_month += before.months;
        // Another interval is counted from its own beginning.
        if subscription.price.months != before.months {
            (subscription.anchor, subscription.first_month) = (subscription.start, 0);
        }
        subscription.end = months_after(subscription.anchor, subscription.first_month + subscription.price.months);
        subscription.is_upgraded = false;
        self.bill_period("customer.subscription.updated", "subscription_cycle")
    }

    fn bill_period(&mut self, told: &str, reason: &str) -> Vec<Play> {
        let Subscription { id, price, seats, anchor, first_month, start, end, .. } =
            self.subscription.clone().expect("a subscription");
        // A known limit: nothing tells the day of billing where both months are too short for it.
        let day = |second| chrono::DateTime::from_timestamp(second, 0).expect("a time").day();
        let is_hidden = day(start) < day(anchor) && day(end) < day(anchor);
        let (anchor, first_month) = if is_hidden { (start, 0) } else { (anchor, first_month) };
        let paid = price.amount * seats;
        let line = self.line(1, price, paid, (start, end), false);
        let cause = format!("invoice:in_{0}/il_{0}_1", self.now);
        let [payment, invoice] = self.paid_invoice(reason, paid, vec![line]);
        let subscription = self.event(told, 0, self.subscription_now("active"));
        let year_of = (price.months > 1).then(|| id.clone());
        self.bought.push(Bought { intent: format!("pi_in_{}", self.now), year_of });
        self.stripe(vec![subscription, payment, invoice], |ledger, _| {
            ledger.subscribed(&price.plan);
            let purchase = ledger.bought(paid, price.plan.claws_back_debt);
            ledger.invoiced(Allowance {
                cause,
                subscription: id,
                purchase,
                anchor,
                first_month,
                start,
                end,
                credits: price.plan.credits.unwrap_or(0) * seats,
                is_monthly: price.months > 1,
                is_proration: false,
                rollover: price.plan.rollover,
                windows: 0,
            });
        })
    }

    /// To the next dearer monthly price, once in a period: what is left of the old one is given back, what is left of the
    /// period is paid at the new one.
    pub(super) fn upgrade(&mut self, quarters: i64) -> Vec<Play> {
        let now = self.now + 1;
        let Some(subscription) = &mut self.subscription else { return Vec::new() };
        let next = PRICES.iter().skip_while(|price| price.id != subscription.price.id).nth(1);
        let Some(next) = next.filter(|next| next.months == 1 && next.plan.credits.is_some()) else { return Vec::new() };
        if subscription.is_upgraded || now <= subscription.start || subscription.end <= now {
            return Vec::new();
        }
        let old = subscription.price;
        (subscription.price, subscription.is_upgraded) = (next, true);
        self.now = now;
        let Subscription { id, seats, anchor, first_month, end, .. } =
            self.subscription.clone().expect("a subscription");
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
                anchor,
                first_month,
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
    pub(super) fn cancel(&mut self) -> Vec<Play> {
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

    pub(super) fn buy_pack(&mut self, pack: usize) -> Vec<Play> {
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

    pub(super) fn refund(&mut self, nth: usize, quarters: i64) -> Vec<Play> {
        let Some((nth, bought)) = self.purchase(nth) else { return Vec::new() };
        let purchase = &self.ledger.purchases[nth];
        let amount = (purchase.paid * quarters / 4).min(purchase.paid - purchase.refunded());
        if amount == 0 {
            return Vec::new();
        }
        self.now += 1;
        let id = format!("re_{nth}_{}", purchase.refunds.len());
        let refund = refund(&id, &bought.intent, amount, ("succeeded", self.now));
        let told = self.event("refund.created", 0, refund);
        self.stripe(vec![told], |ledger, now| ledger.purchases[nth].refunds.push((amount, Some(now))))
    }

    pub(super) fn fail_refund(&mut self, nth: usize) -> Vec<Play> {
        let Some((nth, bought)) = self.purchase(nth) else { return Vec::new() };
        let refunds = &self.ledger.purchases[nth].refunds;
        let good = |(at, (amount, good)): (usize, &(i64, Option<i64>))| good.map(|taken| (at, *amount, taken));
        let Some((good, amount, taken)) = refunds.iter().enumerate().rev().find_map(good) else { return Vec::new() };
        self.now += 1;
        let id = format!("re_{nth}_{good}");
        let refund = refund(&id, &bought.intent, amount, ("failed", taken));
        let told = self.event("refund.failed", 0, refund);
        self.stripe(vec![told], |ledger, now| {
            ledger.purchases[nth].refunds[good].1 = None;
            ledger.purchases[nth].returned(id, amount, taken, now);
        })
    }

    pub(super) fn dispute(&mut self, nth: usize, from: Dispute, to: Dispute) -> Vec<Play> {
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
        let (id, paid) = (format!("dp_{nth}"), purchase.paid);
        let opened = if to == Dispute::Open { self.now } else { purchase.disputed_at };
        let dispute = json!({"object": "dispute", "id": id, "payment_intent": bought.intent, "created": opened,
            "charge": format!("ch_{nth}"), "currency": "usd", "amount": paid, "status": status});
        let told = self.event(event_type, 0, dispute);
        self.stripe(vec![told], |ledger, now| {
            (ledger.purchases[nth].dispute, ledger.purchases[nth].disputed_at) = (to, opened);
            if to == Dispute::Won {
                ledger.purchases[nth].returned(id, paid, opened, now);
            }
        })
    }
}

fn refund(id: &str, intent: &str, amount: i64, (status, created): (&str, i64)) -> Value {
    json!({"object": "refund", "id": id, "payment_intent": intent, "charge": null, "currency": "usd",
        "amount": amount, "status": status, "created": created, "metadata": {}})
}
