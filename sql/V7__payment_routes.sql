-- What the routes that call Stripe need: how often an account called them, and what was about to be sent.

set local lock_timeout = '2s';

-- Unlogged: after a crash an account may call a few times more within the minute, and nobody minds.
create unlogged table payment_route_calls (
    account_id text not null constraint payment_route_calls_pkey primary key,
    window_started_at timestamptz not null,
    calls integer not null
) with (fillfactor = 60);
comment on table payment_route_calls is
    'How often each account called payment routes within the minute that began at window_started_at, over all replicas.';

create table stripe_writes (
    key uuid not null,
    operation text not null,
    request uuid not null,
    method text not null,
    path text not null,
    body text,
    created_at timestamptz not null default now(),
    constraint stripe_writes_pkey primary key (key, operation)
);
create index stripe_writes_created_at on stripe_writes (created_at);
comment on table stripe_writes is
    'Requests that change something at Stripe, kept before they are sent: whoever repeats a key after a crash sends the very same again, and Stripe, by its own key, does it once.';
comment on column stripe_writes.key is 'Digest of the caller''s Idempotency-Key.';
comment on column stripe_writes.operation is 'Which of the writes that the caller''s request needs.';
comment on column stripe_writes.request is 'Digest of the caller''s request.';

do $$
begin
    if exists (select from pg_roles where rolname = 'subledger_service') then
        grant select, insert, update, delete on payment_route_calls, stripe_writes to subledger_service;
    end if;
end $$;
