-- What leaves the ledger: how far followers have come, webhooks to callers' endpoints, and notifications.

create table cursors (
    name text constraint cursors_pkey primary key,
    positions bigint[] not null,
    holder uuid,
    held_until timestamptz,
    moved_at timestamptz not null default now()
) with (fillfactor = 25);
comment on table cursors is
    'How far each named follower of the log has come. It moves in the transaction of what the follower did, so nothing is done twice or left out.';
comment on column cursors.positions is 'The last position taken in of each partition: that of partition 0 first.';
comment on column cursors.holder is 'The process that follows now. Another one may take over once held_until has passed.';

create table webhook_endpoints (
    endpoint_id text constraint webhook_endpoints_pkey primary key,
    url text not null,
    description text,
    event_types text[] not null,
    status text not null constraint webhook_endpoints_status_known check (status in ('enabled', 'disabled')),
    disabled_reason text constraint webhook_endpoints_reason_known
        check (disabled_reason in ('requested', 'failing', 'gone')),
    disabled_at timestamptz,
    failing_since timestamptz,
    begins bigint[] not null,
    created_at timestamptz not null,
    updated_at timestamptz not null
);
comment on table webhook_endpoints is 'Where callers want to be told of events.';
comment on column webhook_endpoints.event_types is 'Types that are wanted, such as credits_debited or notification.*; none: all.';
comment on column webhook_endpoints.failing_since is 'First failed attempt since the last one that went well.';
comment on column webhook_endpoints.begins is 'Positions after which events are for it: where the log ended when it was created or enabled.';

create table webhook_secrets (
    secret_id bigint generated always as identity constraint webhook_secrets_pkey primary key,
    endpoint_id text not null references webhook_endpoints on delete cascade,
    secret bytea not null,
    created_at timestamptz not null,
    expires_at timestamptz
);
create index webhook_secrets_endpoint on webhook_secrets (endpoint_id);
comment on column webhook_secrets.secret is 'Sealed under a master key, where there is one.';
comment on table webhook_secrets is 'What deliveries are signed with: by all that have not expired, so that a receiver can change over at leisure.';

create table webhook_deliveries (
    endpoint_id text not null references webhook_endpoints on delete cascade,
    message_id text not null,
    account_id text not null,
    partition_id smallint not null,
    position bigint not null,
    part smallint not null,
    type text not null,
    status text not null constraint webhook_deliveries_status_known check (status in ('pending', 'delivered', 'dead')),
    attempts integer not null default 0,
    next_attempt_at timestamptz,
    created_at timestamptz not null,
    ended_at timestamptz,
    constraint webhook_deliveries_pkey primary key (endpoint_id, message_id)
);
create index webhook_deliveries_pending on webhook_deliveries (endpoint_id, account_id, position, part)
    where status = 'pending';
create index webhook_deliveries_dead on webhook_deliveries (endpoint_id, created_at) where status = 'dead';
create index webhook_deliveries_listed on webhook_deliveries (endpoint_id, created_at desc, message_id desc);
create index webhook_deliveries_created on webhook_deliveries using brin (created_at);
comment on table webhook_deliveries is
    'One row for each message and endpoint. The message itself is in the log (part 0) or in notifications.';
comment on column webhook_deliveries.part is '0: the event at position; else a notification that it caused, to be told after it.';
comment on column webhook_deliveries.status is 'dead: the last attempt failed; it stays so until somebody retries it.';

create table webhook_queues (
    endpoint_id text not null references webhook_endpoints on delete cascade,
    account_id text not null,
    due_at timestamptz not null,
    claim uuid,
    constraint webhook_queues_pkey primary key (endpoint_id, account_id)
);
create index webhook_queues_due on webhook_queues (endpoint_id, due_at);
comment on table webhook_queues is
    'One row for each endpoint and account with pending deliveries. They go out one after the other, so one that fails holds back the later ones of its account, and nobody else''s. Locked before its deliveries are touched.';
comment on column webhook_queues.claim is 'Who is at work on it, until due_at; after that somebody else may be.';

create table webhook_attempts (
    attempt_id bigint generated always as identity constraint webhook_attempts_pkey primary key,
    endpoint_id text not null,
    message_id text not null,
    attempted_at timestamptz not null,
    duration_ms integer not null,
    outcome text not null,
    status_code integer,
    problem text,
    response text,
    constraint webhook_attempts_delivery foreign key (endpoint_id, message_id)
        references webhook_deliveries on delete cascade
);
create index webhook_attempts_of_delivery on webhook_attempts (endpoint_id, message_id);
comment on table webhook_attempts is 'Each try to deliver, and what came of it.';
comment on column webhook_attempts.response is 'The beginning of what a receiver answered that did not take the message.';

create table webhook_replays (
    replay_id uuid constraint webhook_replays_pkey primary key,
    endpoint_id text not null references webhook_endpoints on delete cascade,
    positions bigint[] not null,
    upto bigint[] not null,
    queued bigint not null default 0,
    created_at timestamptz not null,
    ended_at timestamptz
);
create index webhook_replays_open on webhook_replays (created_at) where ended_at is null;
comment on table webhook_replays is 'Stretches of the log that an endpoint is sent again; positions says how far each has come.';

create table notifications (
    cause text constraint notifications_pkey primary key,
    message_id text not null constraint notifications_message_unique unique,
    type text not null,
    account_id text not null,
    partition_id smallint not null,
    position bigint not null,
    part smallint not null,
    occurred_at timestamptz not null,
    data json not null,
    mail_status text not null constraint notifications_mail_status_known
        check (mail_status in ('off', 'pending', 'claimed', 'sent', 'no_address', 'failed')),
    mail_attempts integer not null default 0,
    mail_due_at timestamptz not null
);
create index notifications_mail_pending on notifications (mail_due_at) where mail_status = 'pending';
create index notifications_position on notifications (partition_id, position);
comment on table notifications is 'What account holders are told, once for each cause, for ever. No personal data.';
comment on column notifications.mail_status is
    'claimed: about to be sent. It stays so if the process dies then, since nobody knows whether the mail went out, and none is sent twice.';

create table low_balances (
    account_id text constraint low_balances_pkey primary key,
    since timestamptz not null
);
comment on table low_balances is 'Accounts whose credits are below their plan''s low_balance. They were told, and are told again only after it was reached.';

create table trial_reminders (
    stripe_subscription_id text constraint trial_reminders_pkey primary key,
    account_id text not null,
    trial_end timestamptz not null,
    remind_at timestamptz not null
);
create index trial_reminders_due on trial_reminders (remind_at);
comment on table trial_reminders is 'Trials whose end is still to be told of.';

do $$
begin
    if exists (select from pg_roles where rolname = 'subledger_service') then
        grant select, insert, update, delete
            on cursors, webhook_endpoints, webhook_secrets, webhook_deliveries, webhook_queues, webhook_attempts,
            webhook_replays, notifications, low_balances, trial_reminders to subledger_service;
    end if;
end $$;
