"""Drives every call of the simulator with Stripe's own library, and verifies what it delivers with it.

Arguments: the simulator's address. Prints one line at the end if all is well; anything else is a failure.
"""

import http.server
import json
import sys
import threading
import urllib.request

import stripe

BASE = sys.argv[1]
SECRET = "whsec_python"
client = stripe.StripeClient("sk_test_python", base_addresses={"api": BASE}, max_network_retries=2)
v1 = client.v1


def control(path, body=None):
    request = urllib.request.Request(f"{BASE}/_simulator/{path}", data=json.dumps(body or {}).encode(), method="POST")
    with urllib.request.urlopen(request) as response:
        return json.load(response)


received = []


class Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        # Raises unless the signature is right.
        received.append(stripe.Webhook.construct_event(body, self.headers["Stripe-Signature"], SECRET))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments):
        pass


hook = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook)
threading.Thread(target=hook.serve_forever, daemon=True).start()
control("webhook_endpoints", {"url": f"http://127.0.0.1:{hook.server_port}/", "secret": SECRET})


def refused(call, kind, code=None, param=None):
    try:
        call()
    except kind as error:
        assert code is None or error.code == code, (error.code, code)
        assert param is None or error.param == param, (error.param, param)
        assert error.request_id, error
        return error
    raise AssertionError("not refused")


# Customers.
ada = v1.customers.create({"email": "ada@example.com", "name": "Ada", "metadata": {"account_id": "user_1"}})
assert v1.customers.retrieve(ada.id).metadata["account_id"] == "user_1"
assert v1.customers.update(ada.id, {"description": "first"}).description == "first"
assert [found.id for found in v1.customers.list({"email": "ada@example.com"}).data] == [ada.id]
assert v1.customers.search({"query": "metadata['account_id']:'user_1'"}).data[0].id == ada.id
for number in range(25):
    v1.customers.create({"email": f"c{number}@example.com"})
assert len(list(v1.customers.list({"limit": 10}).auto_paging_iter())) == 26
refused(lambda: v1.customers.retrieve("cus_none"), stripe.InvalidRequestError, "resource_missing")
gone = v1.customers.create({})
assert v1.customers.delete(gone.id).deleted

# Idempotency.
twice = [v1.customers.create({"email": "k@example.com"}, {"idempotency_key": "once"}).id for _ in range(2)]
assert twice[0] == twice[1]
refused(
    lambda: v1.customers.create({"email": "other@example.com"}, {"idempotency_key": "once"}), stripe.IdempotencyError
)
control("faults", {"kind": "rate_limited", "path": "customers"})
refused(lambda: v1.customers.create({}), stripe.RateLimitError)
for kind in ["server_error", "server_error_after", "cut_after"]:
    before = len(list(v1.customers.list({"limit": 100}).auto_paging_iter()))
    control("faults", {"kind": kind, "method": "POST", "path": "customers"})
    v1.customers.create({"email": f"{kind}@example.com"})
    assert len(list(v1.customers.list({"limit": 100}).auto_paging_iter())) == before + 1, kind

# Products and prices.
product = v1.products.create({"name": "Pro", "metadata": {"plan": "pro"}})
assert v1.products.update(product.id, {"name": "Professional"}).name == "Professional"
assert v1.products.retrieve(product.id).id in [each.id for each in v1.products.list({"active": True}).data]
monthly = v1.prices.create(
    {"product": product.id, "currency": "usd", "unit_amount": 2900, "recurring": {"interval": "month"}, "lookup_key": "pro"}
)
yearly = v1.prices.create(
    {"product": product.id, "currency": "usd", "unit_amount": 29000, "recurring": {"interval": "year"}}
)
small = v1.prices.create({"product": product.id, "currency": "usd", "unit_amount": 900, "recurring": {"interval": "month"}})
pack = v1.prices.create({"product_data": {"name": "Pack"}, "currency": "usd", "unit_amount": 1000})
assert v1.prices.list({"lookup_keys": ["pro"], "expand": ["data.product"]}).data[0].product.name == "Professional"
assert v1.prices.update(monthly.id, {"nickname": "a month"}).nickname == "a month"
assert v1.prices.retrieve(monthly.id).unit_amount == 2900

# Payment methods.
card = v1.payment_methods.attach("pm_card_visa", {"customer": ada.id})
made = v1.payment_methods.create({"type": "card", "card": {"token": "tok_mastercard"}})
v1.payment_methods.attach(made.id, {"customer": ada.id})
assert v1.payment_methods.retrieve(made.id).customer == ada.id
v1.customers.update(ada.id, {"invoice_settings": {"default_payment_method": card.id}})
assert {one.id for one in v1.customers.payment_methods.list(ada.id).data} == {card.id, made.id}
assert len(v1.payment_methods.list({"customer": ada.id, "type": "card"}).data) == 2
assert v1.payment_methods.detach(made.id).customer is None
refused(
    lambda: v1.payment_methods.attach("pm_card_chargeDeclined", {"customer": ada.id}), stripe.CardError, "card_declined"
)

# Coupons and promotion codes.
coupon = v1.coupons.create({"percent_off": 50, "duration": "once"})
assert v1.coupons.retrieve(coupon.id).percent_off == 50
code = v1.promotion_codes.create({"promotion": {"type": "coupon", "coupon": coupon.id}, "code": "HALF"})
assert v1.promotion_codes.list({"code": "HALF"}).data[0].id == code.id
assert v1.promotion_codes.retrieve(code.id).promotion.coupon == coupon.id
assert v1.promotion_codes.update(code.id, {"metadata": {"a": "b"}}).metadata["a"] == "b"
assert coupon.id in [one.id for one in v1.coupons.list().data]

# Checkout.
urls = {"success_url": "https://app.example.com/done?id={CHECKOUT_SESSION_ID}", "cancel_url": "https://app.example.com"}
session = v1.checkout.sessions.create(
    {
        "mode": "subscription",
        "line_items": [{"price": monthly.id, "quantity": 1}],
        "client_reference_id": "user_2",
        "subscription_data": {"trial_period_days": 7, "metadata": {"plan": "pro"}},
        **urls,
    }
)
assert session.url.startswith(BASE)
assert control(f"checkout/sessions/{session.id}/complete", {"email": "bob@example.com"})["completed"]
session = v1.checkout.sessions.retrieve(session.id, {"expand": ["subscription", "customer"]})
assert session.status == "complete" and session.subscription.status == "trialing"
assert session.customer.email == "bob@example.com"
once = v1.checkout.sessions.create(
    {"mode": "payment", "customer": ada.id, "line_items": [{"price": pack.id, "quantity": 2}], "metadata": {"a": "b"}, **urls}
)
assert not control(f"checkout/sessions/{once.id}/complete", {"card": "declines"})["completed"]
assert control(f"checkout/sessions/{once.id}/complete")["completed"]
once = v1.checkout.sessions.retrieve(once.id)
assert (once.amount_total, once.payment_status) == (2000, "paid")
assert v1.checkout.sessions.line_items.list(once.id).data[0].quantity == 2
assert v1.checkout.sessions.list({"customer": ada.id}).data[0].id == once.id
open_session = v1.checkout.sessions.create({"mode": "payment", "line_items": [{"price": pack.id, "quantity": 1}], **urls})
assert v1.checkout.sessions.update(open_session.id, {"metadata": {"c": "d"}}).metadata["c"] == "d"
assert v1.checkout.sessions.expire(open_session.id).status == "expired"
portal = v1.billing_portal.sessions.create({"customer": ada.id, "return_url": "https://app.example.com"})
assert portal.url.startswith(BASE)
assert v1.billing_portal.configurations.list({"is_default": True}).data

# Subscriptions.
subscription = v1.subscriptions.create(
    {"customer": ada.id, "items": [{"price": small.id}], "expand": ["latest_invoice.payments"], "metadata": {"x": "y"}}
)
assert subscription.status == "active" and subscription.latest_invoice.payments.data[0].status == "paid"
item = subscription["items"].data[0]
change = [{"id": item.id, "price": monthly.id}]
preview = v1.invoices.create_preview(
    {
        "subscription": subscription.id,
        "subscription_details": {"items": change, "proration_behavior": "always_invoice"},
    }
)
control("clock", {"by": {"days": 10}})
changed = v1.subscriptions.update(
    subscription.id, {"items": change, "proration_behavior": "always_invoice", "expand": ["latest_invoice"]}
)
assert 0 < changed.latest_invoice.total < preview.total
assert v1.subscriptions.update(subscription.id, {"cancel_at_period_end": True}).cancel_at
assert v1.subscriptions.update(subscription.id, {"cancel_at_period_end": False}).cancel_at is None
assert v1.subscriptions.update(subscription.id, {"pause_collection": {"behavior": "void"}}).pause_collection.behavior == "void"
assert v1.subscriptions.update(subscription.id, {"pause_collection": ""}).pause_collection is None
assert v1.subscriptions.update(subscription.id, {"discounts": [{"promotion_code": code.id}]}).discounts
assert v1.subscriptions.retrieve(subscription.id, {"expand": ["discounts"]}).discounts[0].source.coupon == coupon.id
assert v1.subscriptions.list({"customer": ada.id, "status": "all"}).data[0].id == subscription.id
assert v1.subscriptions.search({"query": "metadata['x']:'y'"}).data[0].id == subscription.id

assert v1.subscription_items.list({"subscription": subscription.id}).data[0].id == item.id
assert v1.subscription_items.update(item.id, {"quantity": 2, "proration_behavior": "none"}).quantity == 2
extra = v1.subscription_items.create({"subscription": subscription.id, "price": small.id})
assert v1.subscription_items.retrieve(extra.id).price.id == small.id
assert v1.subscription_items.delete(extra.id, {"proration_behavior": "none"}).deleted
v1.subscription_items.update(item.id, {"quantity": 1, "proration_behavior": "none"})

# Schedules.
schedule = v1.subscription_schedules.create({"from_subscription": subscription.id})
now = schedule.phases[0]
schedule = v1.subscription_schedules.update(
    schedule.id,
    {
        "end_behavior": "release",
        "phases": [
            {"items": [{"price": monthly.id, "quantity": 1}], "start_date": now.start_date, "end_date": now.end_date},
            {"items": [{"price": small.id, "quantity": 1}], "duration": {"interval": "month", "interval_count": 1}},
        ],
    },
)
assert len(schedule.phases) == 2
assert v1.subscription_schedules.retrieve(schedule.id).status == "active"
assert v1.subscription_schedules.list({"customer": ada.id}).data[0].id == schedule.id
assert v1.subscription_schedules.release(schedule.id).status == "released"
schedule = v1.subscription_schedules.create({"from_subscription": subscription.id})
assert v1.subscription_schedules.cancel(schedule.id).status == "canceled"
assert v1.subscriptions.retrieve(subscription.id).status == "canceled"
refused(lambda: v1.subscriptions.cancel(subscription.id), stripe.InvalidRequestError, "resource_missing")

# A declined change, and invoices.
subscription = v1.subscriptions.create({"customer": ada.id, "items": [{"price": small.id}]})
control(f"customers/{ada.id}/card", {"card": "declines"})
refused(
    lambda: v1.subscriptions.update(
        subscription.id,
        {
            "items": [{"id": subscription["items"].data[0].id, "price": yearly.id}],
            "payment_behavior": "error_if_incomplete",
        },
    ),
    stripe.CardError,
    "card_declined",
)
control("clock", {"by": {"months": 1, "hours": 2}, "settle": True})
owed = v1.invoices.list({"customer": ada.id, "status": "open"}).data[0]
assert v1.subscriptions.retrieve(subscription.id).status == "past_due"
refused(lambda: v1.invoices.pay(owed.id), stripe.CardError, "card_declined")
control(f"customers/{ada.id}/card", {"card": "good"})
paid = v1.invoices.pay(owed.id)
assert paid.status == "paid" and paid.hosted_invoice_url and paid.invoice_pdf
assert v1.invoices.retrieve(owed.id).parent.subscription_details.subscription == subscription.id
assert v1.invoices.line_items.list(owed.id).data[0].amount == 900
assert v1.invoices.list({"subscription": subscription.id}).data[0].id == owed.id
payment = v1.invoice_payments.list({"invoice": owed.id}).data[0]
assert v1.invoice_payments.retrieve(payment.id).payment.payment_intent == payment.payment.payment_intent

# Payments, refunds, credit notes.
intent = v1.payment_intents.retrieve(payment.payment.payment_intent, {"expand": ["latest_charge"]})
assert intent.latest_charge.paid
assert intent.id in [one.id for one in v1.payment_intents.list({"customer": ada.id, "limit": 100}).data]
assert v1.charges.retrieve(intent.latest_charge.id).amount == 900
assert v1.charges.list({"payment_intent": intent.id}).data
refund = v1.refunds.create({"payment_intent": intent.id, "amount": 300, "reason": "requested_by_customer"})
assert v1.refunds.retrieve(refund.id).amount == 300
assert v1.refunds.update(refund.id, {"metadata": {"why": "x"}}).metadata["why"] == "x"
assert v1.refunds.list({"payment_intent": intent.id}).data[0].id == refund.id
refused(lambda: v1.refunds.create({"payment_intent": intent.id, "amount": 700}), stripe.InvalidRequestError, None, "amount")
note = v1.credit_notes.create({"invoice": owed.id, "amount": 100, "credit_amount": 100})
assert v1.credit_notes.retrieve(note.id).amount == 100
assert v1.credit_notes.list({"invoice": owed.id}).data
dispute = control(f"charges/{intent.latest_charge.id}/dispute")["id"]
assert v1.disputes.retrieve(dispute).status == "needs_response"

# The other ends of invoices.
incomplete = v1.subscriptions.create(
    {"customer": ada.id, "items": [{"price": yearly.id}], "payment_behavior": "default_incomplete"}
)
assert v1.invoices.void_invoice(incomplete.latest_invoice).status == "void"
another = v1.subscriptions.create(
    {"customer": ada.id, "items": [{"price": monthly.id}], "payment_behavior": "default_incomplete"}
)
assert v1.invoices.mark_uncollectible(another.latest_invoice).status == "uncollectible"
sent = v1.subscriptions.create(
    {"customer": ada.id, "items": [{"price": monthly.id}], "collection_method": "send_invoice", "days_until_due": 7}
)
assert v1.invoices.pay(sent.latest_invoice, {"paid_out_of_band": True}).status == "paid"
assert v1.subscriptions.cancel(sent.id, {"prorate": True, "invoice_now": True}).status == "canceled"
draft = v1.invoices.list({"customer": ada.id, "status": "draft"}).data[0]
assert v1.invoices.finalize_invoice(draft.id).status == "paid"

# A trial without a card, taken up again.
carl = v1.customers.create({})
trial = v1.subscriptions.create(
    {
        "customer": carl.id,
        "items": [{"price": monthly.id}],
        "trial_period_days": 1,
        "trial_settings": {"end_behavior": {"missing_payment_method": "pause"}},
    }
)
control("clock", {"by": {"days": 2}})
assert v1.subscriptions.retrieve(trial.id).status == "paused"
method = v1.payment_methods.attach("pm_card_visa", {"customer": carl.id})
v1.customers.update(carl.id, {"invoice_settings": {"default_payment_method": method.id}})
assert v1.subscriptions.resume(trial.id, {"billing_cycle_anchor": "now"}).status == "active"
assert v1.setup_intents is not None

# Meters.
meter = v1.billing.meters.create(
    {"display_name": "Calls", "event_name": "calls", "default_aggregation": {"formula": "sum"}}
)
event = {"event_name": "calls", "payload": {"stripe_customer_id": carl.id, "value": "25"}, "identifier": "a"}
assert v1.billing.meter_events.create(event).identifier == "a"
refused(lambda: v1.billing.meter_events.create(event), stripe.InvalidRequestError, "duplicate_meter_event")
now = control("clock", {"by": {"hours": 1}})["now"]
minute = now // 60 * 60
summaries = v1.billing.meters.event_summaries.list(
    meter.id, {"customer": carl.id, "start_time": minute - 7200, "end_time": minute}
)
assert summaries.data[0].aggregated_value == 25
metered = v1.prices.create(
    {
        "product": product.id,
        "currency": "usd",
        "unit_amount": 3,
        "recurring": {"interval": "month", "usage_type": "metered", "meter": meter.id},
    }
)
assert metered.recurring.meter == meter.id
assert v1.billing.meter_event_adjustments.create(
    {"event_name": "calls", "type": "cancel", "cancel": {"identifier": "a"}}
).type == "cancel"
assert v1.billing.meters.update(meter.id, {"display_name": "API calls"}).display_name == "API calls"
assert v1.billing.meters.deactivate(meter.id).status == "inactive"
assert v1.billing.meters.reactivate(meter.id).status == "active"
assert v1.billing.meters.list({"status": "active"}).data[0].id == v1.billing.meters.retrieve(meter.id).id

# Webhook endpoints, events, and what was delivered.
endpoint = v1.webhook_endpoints.create({"url": "http://127.0.0.1:9/", "enabled_events": ["charge.succeeded"]})
assert endpoint.secret.startswith("whsec_")
assert v1.webhook_endpoints.update(endpoint.id, {"disabled": True}).status == "disabled"
assert endpoint.id in [one.id for one in v1.webhook_endpoints.list().data]
assert v1.webhook_endpoints.retrieve(endpoint.id).url == "http://127.0.0.1:9/"
assert v1.webhook_endpoints.delete(endpoint.id).deleted
v1.coupons.delete(coupon.id)
v1.prices.update(pack.id, {"active": False})
empty = v1.products.create({"name": "Nothing"})
assert v1.products.delete(empty.id).deleted
control("deliveries/settle")
listed = list(v1.events.list({"limit": 100}).auto_paging_iter())
by_type = list(v1.events.list({"types": ["invoice.paid", "invoice.created"], "limit": 100}).auto_paging_iter())
assert {event.type for event in by_type} == {"invoice.paid", "invoice.created"}
assert v1.events.retrieve(listed[0].id).type == listed[0].type
delivered = [event.id for event in received]
assert len(delivered) == len(set(delivered))
assert [event.id for event in reversed(listed)] == delivered[-len(listed):]
assert {event.api_version for event in received} == {listed[0].api_version}
print(f"stripe {stripe.VERSION}: every call, {len(delivered)} signed events")
