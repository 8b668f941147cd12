-- Read models: disposable rows, written in the transaction of the events they derive from.

create table balances (
    account_id text not null constraint balances_pkey primary key,
    partition_id smallint not null,
    version bigint not null,
    position bigint not null,
    available bigint not null,
    state json not null
) with (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.02);
comment on table balances is
    'One row an account: its lots, allowances and access. What every debit reads and writes, so nothing that changes is indexed and updates stay on their page.';
comment on column balances.version is 'Events of the account that the row reflects.';
comment on column balances.position is 'Position of the last of them.';
comment on column balances.available is
    'Credits that could be spent when the row was written. Expiry and refills that came due since are evaluated when the account is read.';
comment on column balances.state is 'src/domain/credit.rs, Credits.';

create table billing_objects (
    account_id text not null,
    kind text not null,
    object_id text not null,
    partition_id smallint not null,
    sort_at timestamptz not null,
    state json not null,
    constraint billing_objects_pkey primary key (account_id, kind, object_id)
);
-- Callers name a hold alone. Other objects are asked for by account.
create index billing_objects_hold on billing_objects (object_id) where kind = 'hold';
comment on table billing_objects is
    'One row for each Stripe object an account has, for each lot that is used up or expired, for each hold, and for each day of usage that is over. The views below give them names and columns.';
comment on column billing_objects.state is 'src/domain/billing.rs; what webhooks are folded into.';

create view subscriptions as
select account_id, object_id as stripe_subscription_id,
       state #>> '{current,status}' as status,
       state #>> '{current,items,0,price,id}' as price,
       (state #>> '{current,items,0,quantity}')::bigint as quantity,
       state #>> '{current,currency}' as currency,
       to_timestamp((state #>> '{current,current_period_start}')::bigint) as current_period_start,
       to_timestamp((state #>> '{current,current_period_end}')::bigint) as current_period_end,
       (state #>> '{current,cancel_at_period_end}')::boolean as cancel_at_period_end,
       to_timestamp((state #>> '{current,canceled_at}')::bigint) as canceled_at,
       to_timestamp((state #>> '{current,ended_at}')::bigint) as ended_at,
       to_timestamp((state #>> '{current,trial_end}')::bigint) as trial_end,
       state #>> '{current,pause_collection,behavior}' as pause_behavior,
       sort_at as created_at
from billing_objects where kind = 'subscription';

create view invoices as
select account_id, object_id as stripe_invoice_id,
       state #>> '{invoice,current,subscription}' as stripe_subscription_id,
       state #>> '{invoice,current,billing_reason}' as billing_reason,
       state #>> '{invoice,current,status}' as status,
       state #>> '{invoice,current,currency}' as currency,
       (state #>> '{invoice,current,total}')::bigint as total,
       (state #>> '{invoice,current,tax}')::bigint as tax,
       (state #>> '{invoice,current,amount_due}')::bigint as amount_due,
       (state #>> '{invoice,current,amount_paid}')::bigint as amount_paid,
       (state #>> '{invoice,current,amount_remaining}')::bigint as amount_remaining,
       state ->> 'payment_intent' as stripe_payment_intent_id,
       sort_at as created_at
from billing_objects where kind = 'invoice';

create view payments as
select account_id, object_id as stripe_payment_intent_id,
       state ->> 'stripe_invoice_id' as stripe_invoice_id,
       state ->> 'stripe_checkout_session_id' as stripe_checkout_session_id,
       state #>> '{intent,current,status}' as stripe_status,
       state #>> '{intent,current,currency}' as currency,
       (state #>> '{intent,current,amount}')::bigint as amount,
       (state #>> '{intent,current,amount_received}')::bigint as amount_received,
       sort_at as created_at
from billing_objects where kind = 'payment';

create view credit_purchases as
select account_id, object_id as stripe_checkout_session_id,
       state #>> '{session,current,payment_intent}' as stripe_payment_intent_id,
       (state ->> 'credits')::bigint as credits,
       state #>> '{session,current,currency}' as currency,
       (state #>> '{session,current,amount_total}')::bigint as amount,
       state #>> '{session,current,payment_status}' as payment_status,
       (state ->> 'amount_refunded')::bigint as amount_refunded,
       sort_at as created_at
from billing_objects where kind = 'checkout_session' and (state #> '{session,current,order}') is not null
    and state #>> '{session,current,order}' is not null;

create view credit_lots as
select account_id, lot ->> 'id' as lot_id, lot ->> 'source' as source, lot ->> 'cause' as cause,
       (lot ->> 'granted')::bigint as granted, (lot ->> 'remaining')::bigint as remaining,
       (lot ->> 'effective_at')::timestamptz as effective_at, (lot ->> 'expires_at')::timestamptz as expires_at
from (
    select account_id, json_array_elements(state -> 'lots') as lot from balances where state -> 'lots' is not null
    union all
    select account_id, state as lot from billing_objects where kind = 'closed_lot'
) lots;

create view holds as
select account_id, object_id as hold_id, state ->> 'status' as status, (state ->> 'amount')::bigint as amount,
       (state ->> 'captured')::bigint as captured, state ->> 'feature' as feature,
       (state ->> 'expires_at')::timestamptz as expires_at, sort_at as created_at
from billing_objects where kind = 'hold';
create view usage_days as
select account_id, object_id as day, uses.key as feature,
       (uses.value ->> 'used')::bigint as used, (uses.value ->> 'credits')::bigint as credits
from billing_objects cross join lateral json_each(state) as uses where kind = 'usage_day';

comment on view subscriptions is 'Stripe subscriptions, as last heard of.';
comment on view invoices is 'Stripe invoices, as last heard of.';
comment on view payments is 'PaymentIntents with what became of them; refunds and disputes are in billing_objects.state.';
comment on view credit_purchases is 'Checkout sessions that sell credit packs.';
comment on view usage_days is
    'What was used of features on each day (UTC) that is over, with the credits that debits took; an account''s last day is in balances.state.';
comment on view credit_lots is 'All lots, spendable and closed.';
comment on view holds is 'All holds. One whose expires_at has passed is expired, whether or not the row says so yet.';

create function account_events(account text, after_version bigint default 0, most bigint default null)
returns setof events language sql stable as $$
    with recursive stream as (
        select events.* from balances
        join events on events.partition_id = balances.partition_id and events.position = coalesce(
            (select beyond.position from events beyond
             where beyond.account_id = account and beyond.version % 16 = 1 and beyond.version > after_version + most
             order by beyond.version limit 1),
            balances.position)
        where balances.account_id = account
        union all
        select events.* from stream
        join events on events.partition_id = stream.partition_id and events.position = stream.previous_position
        where stream.version > after_version + 1
    )
    select * from stream where version > after_version order by version limit most
$$;
comment on function account_events is
    'An account''s events after a version, oldest first. Starts at the first indexed event past them, and walks back.';
