-- What the ledger needs at its edges: who asked before, where Stripe's ids lead, what Stripe sent, who may call.

create table idempotency (
    key uuid not null constraint idempotency_pkey primary key,
    request uuid not null,
    partition_id smallint not null,
    position bigint not null,
    outcome json,
    created_at timestamptz not null default now()
);
comment on table idempotency is 'Every Stripe event id and Idempotency-Key that was ever answered, for ever, with its first outcome.';
comment on column idempotency.key is
    'First 16 bytes of SHA-256 over scope and key: nothing is shorter in an index. In place of the first six, the time, where the key begins with it (UUIDs of version 7, Stripe''s event ids): keys of one time share the index''s pages.';
comment on column idempotency.request is 'The same of the request, to tell a retry from another request under the same key.';
comment on column idempotency.position is 'Where the outcome''s event stands; for a refusal, the last position of the partition.';
comment on column idempotency.outcome is 'The reply, when the event at position does not say it all.';

create table stripe_links (
    stripe_id text not null constraint stripe_links_pkey primary key,
    account_id text not null,
    partition_id smallint not null
);
create index stripe_links_account on stripe_links (account_id);
comment on table stripe_links is
    'Which account a Stripe customer, payment, invoice or payment method belongs to. A read model: rebuilt from the log.';

create table inbox (
    stripe_event_id text not null constraint inbox_pkey primary key,
    type text not null,
    status text not null constraint inbox_status_known
        check (status in ('applied', 'superseded', 'ignored', 'parked')),
    reason text,
    account_id text,
    api_version text,
    created_at timestamptz,
    received_at timestamptz not null,
    body bytea not null
);
-- Compressed by LZ4, a body makes less work than writing and logging the rest of it would. Any other compression, and
-- putting bodies into a table of their own, costs more than all else here: MAIN keeps them in the row while it fits a
-- page (the other columns too, or they would be put elsewhere before the body is compressed), and a server that was built
-- without LZ4 keeps them as they are.
do $$ begin
    alter table inbox alter column body set compression lz4, alter column body set storage main,
        alter column stripe_event_id set storage main, alter column type set storage main,
        alter column status set storage main, alter column reason set storage main,
        alter column account_id set storage main, alter column api_version set storage main;
exception when feature_not_supported then
    alter table inbox alter column body set storage external;
    alter table inbox set (toast_tuple_target = 8160);
end $$;
create index inbox_parked on inbox (received_at, stripe_event_id) where status = 'parked';
create index inbox_received on inbox using brin (received_at);
comment on table inbox is 'Raw bodies as Stripe sent them. They hold personal data, so they are kept for a time only; parked ones stay until applied.';

create table account_profiles (
    account_id text not null constraint account_profiles_pkey primary key,
    email text,
    metadata json,
    updated_at timestamptz not null default now()
);
create index account_profiles_email on account_profiles (lower(email)) where email is not null;
comment on table account_profiles is 'The one table with personal data beside the inbox; not part of the log, and erasable.';

create table api_keys (
    key_id text not null constraint api_keys_pkey primary key,
    digest bytea not null constraint api_keys_digest_unique unique
        constraint api_keys_digest_is_sha256 check (length(digest) = 32),
    scope text not null constraint api_keys_scope_known check (scope in ('read', 'spend', 'bill', 'admin')),
    name text,
    created_at timestamptz not null default now(),
    revoked_at timestamptz
);
comment on table api_keys is 'Callers'' keys, as digests only.';
