// Drives the simulator with Stripe's own library, and verifies what it delivers with it.
// Argument: the simulator's address. Prints one line at the end if all is well; anything else is a failure.

import assert from "node:assert/strict";
import http from "node:http";
import Stripe from "stripe";

const base = new URL(process.argv[2]);
const secret = "whsec_node";
const stripe = new Stripe("sk_test_node", { host: base.hostname, port: base.port, protocol: "http", maxNetworkRetries: 2 });

async function control(path, body = {}) {
  const response = await fetch(new URL(`/_simulator/${path}`, base), { method: "POST", body: JSON.stringify(body) });
  assert.ok(response.ok, `${path}: ${response.status}`);
  return response.json();
}

const received = [];
const hook = http.createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    received.push(stripe.webhooks.constructEvent(Buffer.concat(parts), request.headers["stripe-signature"], secret));
    response.end();
  });
});
await new Promise((resolve) => hook.listen(0, "127.0.0.1", resolve));
await control("webhook_endpoints", { url: `http://127.0.0.1:${hook.address().port}/`, secret });

async function refused(call, type, code) {
  await assert.rejects(call, (error) => error.type === type && (!code || error.code === code) && Boolean(error.requestId));
}

const customer = await stripe.customers.create({ email: "ada@example.com", metadata: { account_id: "user_1" } });
assert.equal((await stripe.customers.search({ query: "metadata['account_id']:'user_1'" })).data[0].id, customer.id);
const keys = { idempotencyKey: "once" };
const one = await stripe.customers.create({ name: "x" }, keys);
assert.equal((await stripe.customers.create({ name: "x" }, keys)).id, one.id);
await refused(() => stripe.customers.create({ name: "y" }, keys), "StripeIdempotencyError");
await refused(() => stripe.customers.retrieve("cus_none"), "StripeInvalidRequestError", "resource_missing");

const product = await stripe.products.create({ name: "Pro" });
const recurring = { interval: "month" };
const pro = await stripe.prices.create({ product: product.id, currency: "usd", unit_amount: 2900, recurring });
const basic = await stripe.prices.create({ product: product.id, currency: "usd", unit_amount: 900, recurring });
const pack = await stripe.prices.create({ product: product.id, currency: "usd", unit_amount: 1000 });

const urls = { success_url: "https://app.example.com/done", cancel_url: "https://app.example.com" };
const session = await stripe.checkout.sessions.create({
  mode: "subscription", customer: customer.id, client_reference_id: "user_1",
  line_items: [{ price: basic.id, quantity: 1 }], ...urls,
});
assert.equal((await control(`checkout/sessions/${session.id}/complete`)).completed, true);
const done = await stripe.checkout.sessions.retrieve(session.id, { expand: ["subscription.latest_invoice", "line_items"] });
assert.equal(done.subscription.status, "active");
assert.equal(done.subscription.latest_invoice.amount_paid, 900);
assert.equal(done.line_items.data[0].price.id, basic.id);
const once = await stripe.checkout.sessions.create({ mode: "payment", line_items: [{ price: pack.id, quantity: 1 }], ...urls });
await control(`checkout/sessions/${once.id}/complete`, { email: "guest@example.com" });
assert.equal((await stripe.checkout.sessions.retrieve(once.id)).payment_status, "paid");
assert.equal((await stripe.checkout.sessions.listLineItems(once.id)).data.length, 1);
assert.ok((await stripe.billingPortal.sessions.create({ customer: customer.id })).url);

const items = [{ id: done.subscription.items.data[0].id, price: pro.id }];
const preview = await stripe.invoices.createPreview({
  subscription: done.subscription.id, subscription_details: { items, proration_behavior: "always_invoice" },
});
assert.equal(preview.total, 2000);
const changed = await stripe.subscriptions.update(done.subscription.id, {
  items, proration_behavior: "always_invoice", expand: ["latest_invoice"],
});
assert.equal(changed.latest_invoice.total, 2000);
const schedule = await stripe.subscriptionSchedules.create({ from_subscription: changed.id });
await stripe.subscriptionSchedules.update(schedule.id, {
  phases: [
    { items: [{ price: pro.id, quantity: 1 }], start_date: schedule.phases[0].start_date, end_date: schedule.phases[0].end_date },
    { items: [{ price: basic.id, quantity: 1 }], duration: { interval: "month", interval_count: 1 } },
  ],
});
await control("clock", { by: { months: 1, hours: 2 }, settle: true });
const renewed = await stripe.subscriptions.retrieve(changed.id, { expand: ["latest_invoice.payments"] });
assert.equal(renewed.items.data[0].price.id, basic.id);
assert.equal(renewed.latest_invoice.amount_paid, 900);
const intent = renewed.latest_invoice.payments.data[0].payment.payment_intent;
assert.equal((await stripe.refunds.create({ payment_intent: intent, amount: 100 })).status, "succeeded");
await refused(() => stripe.refunds.create({ payment_intent: intent, amount: 900 }), "StripeInvalidRequestError");
assert.equal((await stripe.subscriptions.cancel(changed.id)).status, "canceled");

const meter = await stripe.billing.meters.create({
  display_name: "Calls", event_name: "calls", default_aggregation: { formula: "sum" },
});
const usage = { event_name: "calls", payload: { stripe_customer_id: customer.id, value: "2" }, identifier: "a" };
await stripe.billing.meterEvents.create(usage);
await refused(() => stripe.billing.meterEvents.create(usage), "StripeInvalidRequestError", "duplicate_meter_event");
assert.equal((await stripe.billing.meters.retrieve(meter.id)).status, "active");

await control("faults", { kind: "rate_limited", path: "customers" });
await refused(() => stripe.customers.create({}), "StripeRateLimitError");
for (const kind of ["server_error", "server_error_after", "cut_after"]) {
  const count = async () => (await stripe.customers.list({ limit: 100 })).data.length;
  const before = await count();
  await control("faults", { kind, method: "POST", path: "customers" });
  await stripe.customers.create({ name: kind });
  assert.equal(await count(), before + 1, kind);
}

await control("deliveries/settle");
const listed = [];
for await (const event of stripe.events.list({ limit: 100 })) listed.push(event.id);
const delivered = received.map((event) => event.id);
assert.deepEqual(delivered.slice(-listed.length), listed.reverse());
console.log(`stripe ${Stripe.PACKAGE_VERSION}: ${delivered.length} signed events`);
process.exit(0);
