//! What is claimed back of the credits that a payment bought: by refunds and disputes, and by other changes of the plan
//! within the same period, which made some of them superfluous. A function of what is known, as all settling is: a claim
//! that was too high is given back.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::billing::Billing;
use super::catalog::{Catalog, ClawbackPolicy, PriceKey};
use super::credit::{Credits, Lot, LotSource};
use super::draft::{Context, Draft};
use super::event::{CreditsClawedBack, CreditsReinstated, Event};
use super::invoice_record::InvoiceRecord;
use super::payment::{Payment, Returned};
use super::plan_change::Dues;

/// How much of a payment went back, by refunds and disputes, in minor units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefundedShare {
    back: i64,
    /// More than zero.
    paid: i64,
}

impl RefundedShare {
    /// `None` if nothing went back.
    pub fn new(back: i64, paid: i64) -> Option<Self> {
        (paid > 0 && back > 0).then(|| Self { back: back.min(paid), paid })
    }

    /// Pro rata, rounded down until all has gone back.
    pub fn of_credits(self, credits: i64) -> i64 {
        let share = i128::from(credits) * i128::from(self.back) / i128::from(self.paid.max(1));
        i64::try_from(share).unwrap_or(credits)
    }
}

/// Takes back what refunds, disputes and plan changes ask, and returns what failed refunds, won disputes and late news of
/// plan changes give back.
pub fn settle_claims(draft: &mut Draft<'_>, context: Context<'_>, dues: &Dues) {
    let Some(billing) = &draft.account.billing else {
        return;
    };
    let mut due: Vec<Event> = Vec::new();
    for lot in draft.account.all_lots().filter(|lot| lot.bought_by.is_some()) {
        let claim = Claim::on(lot, billing, dues);
        let total = claim.excess + claim.refunded;
        let is_debt =
            |lot: &Lot| clawback_of(lot, billing, &draft.account.credits, context.catalog) == ClawbackPolicy::Debt;
        if total > lot.claimed_back {
            due.push(claw_back(lot, &claim, is_debt(lot), context.now));
        } else if total < lot.claimed_back || lot.owed > claim.refunded {
            due.push(reinstate(lot, &claim));
        }
    }
    for event in due {
        draft.emit(event);
    }
}

/// What is asked back of a lot.
struct Claim {
    /// What other changes of the plan made superfluous. Of this nothing is ever owed.
    excess: i64,
    /// What went back with the money, of the rest.
    refunded: i64,
    cause: String,
}

impl Claim {
    fn on(lot: &Lot, billing: &Billing, dues: &Dues) -> Self {
        let excess = dues.excess(&lot.cause, lot.granted);
        let purchase = purchase_of(lot, billing);
        let share = purchase.as_ref().and_then(Purchase::refunded);
        let refunded = share.map_or(0, |share| share.of_credits(lot.granted - excess));
        let cause = match purchase.filter(|_| refunded > 0 || lot.owed > 0 || excess == 0) {
            Some(purchase) => format!("payment:{}", purchase.payment_id()),
            None => format!("plan_change:{}", lot.subscription.as_deref().unwrap_or_default()),
        };
        Self { excess, refunded, cause }
    }
}

/// The policy of the plan that granted the lot, not of the one in force now: whether the subscription's end was heard of
/// before its refund must not matter. A pack is no plan's, so the default plan's policy holds.
fn clawback_of(lot: &Lot, billing: &Billing, credits: &Credits, catalog: &Catalog) -> ClawbackPolicy {
    let invoice = lot.bought_by.as_deref().and_then(|id| billing.invoices.get(id)).and_then(InvoiceRecord::current);
    let Some(invoice) = invoice else {
        return catalog.default_plan().clawback;
    };
    let lines = invoice.lines.iter().filter(|line| line.subscription.as_deref() == lot.subscription.as_deref());
    let plans = lines.filter_map(|line| {
        let price = line.price.as_ref()?;
        let lookup_key = credits.lookup_keys.get(price).map(String::as_str);
        catalog.plan_of_price(PriceKey { stripe_price_id: price, lookup_key }).map(|(plan, _)| plan)
    });
    plans.max_by_key(|plan| plan.rank).map_or(ClawbackPolicy::WriteOff, |plan| plan.clawback)
}

/// What bought a lot.
#[derive(Debug)]
pub struct Purchase<'a> {
    /// Those that are known, by their ids; never none.
    payments: Vec<(&'a str, &'a Payment)>,
    /// The price in minor units, of which a refund or dispute may take a share.
    paid: i64,
}

impl Purchase<'_> {
    /// What a refund or dispute may take a share of, in minor units.
    pub fn paid(&self) -> i64 {
        self.paid
    }

    /// What came back of refunds that failed and disputes that were won, in the order in which it was taken.
    pub fn returned(&self) -> Vec<Returned<'_>> {
        let mut returned: Vec<_> = self.payments.iter().flat_map(|(_, payment)| payment.returned()).collect();
        returned.sort_unstable_by_key(|returned| (returned.taken_at, returned.id));
        returned
    }

    /// The first of its payments of which something went back, else the first.
    fn payment_id(&self) -> &str {
        let went_back = self.payments.iter().find(|(_, payment)| back(payment) > 0);
        went_back.or(self.payments.first()).map_or("", |(id, _)| id)
    }

    fn refunded(&self) -> Option<RefundedShare> {
        RefundedShare::new(self.payments.iter().map(|(_, payment)| back(payment)).sum(), self.paid)
    }
}

/// What went back of a payment, or is withheld.
fn back(payment: &Payment) -> i64 {
    payment.amount_refunded() + payment.amount_lost_in_dispute() + payment.amount_in_dispute()
}

/// What of an invoice's price went back.
pub fn refunded_of_invoice(invoice: &str, billing: &Billing) -> Option<RefundedShare> {
    invoice_purchase(invoice, billing)?.refunded()
}

/// An invoice may be paid by several payments, and in part from the customer's balance. The credits were bought by that part,
/// too; what a credit note returns to the balance takes none back.
fn invoice_purchase<'a>(invoice: &str, billing: &'a Billing) -> Option<Purchase<'a>> {
    let record = billing.invoices.get(invoice)?;
    let payments: Vec<_> =
        record.payment_intents().filter_map(|id| billing.payments.get_key_value(id)).map(known).collect();
    let price = record.current().map_or(0, |invoice| invoice.total - invoice.pre_payment_credit_notes_amount);
    let received = payments.iter().map(|(_, payment)| match payment.amount_received() {
        0 if back(payment) > 0 => payment.amount(),
        received => received,
    });
    let paid = received.sum::<i64>().max(price);
    (!payments.is_empty()).then_some(Purchase { payments, paid })
}

/// What a Checkout session's payment bought.
fn session_purchase<'a>(session: &str, billing: &'a Billing) -> Option<Purchase<'a>> {
    let session = &billing.checkout_sessions.get(session)?.session.current;
    let (id, payment) = billing.payments.get_key_value(session.payment_intent.as_deref()?).map(known)?;
    // A refund or dispute may be all that is heard of a payment: not every endpoint is sent the payments themselves.
    let paid = match payment.amount_received().max(payment.amount()) {
        0 => session.amount_total.unwrap_or(0),
        paid => paid,
    };
    Some(Purchase { payments: vec![(id, payment)], paid })
}

fn known<'a>((id, payment): (&'a String, &'a Payment)) -> (&'a str, &'a Payment) {
    (id, payment)
}

/// What bought a lot, once its payment is known.
pub fn purchase_of<'a>(lot: &Lot, billing: &'a Billing) -> Option<Purchase<'a>> {
    let bought_by = lot.bought_by.as_deref()?;
    match lot.source {
        LotSource::Pack => session_purchase(bought_by, billing),
        LotSource::Plan => invoice_purchase(bought_by, billing),
        LotSource::FreePlan | LotSource::Promotion | LotSource::Manual | LotSource::Reinstatement => None,
    }
}

fn claw_back(lot: &Lot, claim: &Claim, is_debt: bool, now: DateTime<Utc>) -> Event {
    let claimed = claim.excess + claim.refunded - lot.claimed_back;
    // Of what expired nothing can be taken, but nothing is owed for it either: it was never used. Counting it as taken
    // back, and first, makes the end the same whether the refund or the expiry was heard of first.
    let from_expired = claimed.min(lot.expired);
    // What is held counts as spent for now; if it returns, it is taken then (see `hold`).
    let clawed_back = (claimed - from_expired).min(lot.spendable());
    let gone = claimed - clawed_back - from_expired;
    let debt = if is_debt { gone.min((claim.refunded - lot.owed).max(0)) } else { 0 };
    Event::CreditsClawedBack(CreditsClawedBack {
        lot: lot.id,
        claimed,
        clawed_back,
        from_expired,
        debt,
        debt_since: (debt > 0).then_some(now),
        cause: claim.cause.clone(),
    })
}

fn reinstate(lot: &Lot, claim: &Claim) -> Event {
    let total = claim.excess + claim.refunded;
    let claimed = (lot.claimed_back - total).max(0);
    let reinstated = (lot.clawed_back - total).clamp(0, claimed);
    let forgiven = (claimed - reinstated).max(lot.owed - claim.refunded);
    Event::CreditsReinstated(CreditsReinstated {
        lot: lot.id,
        claimed,
        reinstated,
        debt: lot.owed.min(forgiven),
        cause: claim.cause.clone(),
    })
}
