-- What revenue is told from beside the read models: how subscriptions went, and how credits flowed, out of the log once and
-- for all; and the last report. Disposable: emptied, with the cursors, it is filled again out of the log.
set local lock_timeout = '2s';

create table revenue_cursors (
    partition_id smallint not null constraint revenue_cursors_pkey primary key,
    position bigint not null default 0 constraint revenue_cursors_position_not_negative check (position >= 0)
);
comment on table revenue_cursors is 'How far into each partition subscription_snapshots and credit_flows have come.';

create table subscription_snapshots (
    stripe_subscription_id text not null,
    partition_id smallint not null,
    position bigint not null,
    observed_at bigint not null,
    snapshot json not null,
    constraint subscription_snapshots_pkey primary key (stripe_subscription_id, partition_id, position)
);
comment on table subscription_snapshots is
    'Each state of a subscription that the log has: the read model keeps the newest alone, and revenue asks for those before it.';
comment on column subscription_snapshots.observed_at is 'Unix second of the StripeEvent that told of it.';
comment on column subscription_snapshots.snapshot is 'src/domain/stripe_object.rs, Subscription.';

create table credit_flows (
    month date not null constraint credit_flows_pkey primary key,
    sold bigint not null,
    granted bigint not null,
    spent bigint not null,
    breakage bigint not null,
    clawed_back bigint not null,
    reinstated bigint not null,
    overage bigint not null
);
comment on table credit_flows is 'Credits that moved in each month (UTC), over all accounts: src/domain/revenue/flows.rs.';

create table revenue_reports (
    singleton boolean not null default true constraint revenue_reports_pkey primary key
        constraint revenue_reports_has_one_row check (singleton),
    as_of timestamptz not null,
    report json not null
);
comment on table revenue_reports is 'The last report, for all replicas.';

do $$
begin
    if exists (select from pg_roles where rolname = 'subledger_service') then
        grant select, insert, update, delete
            on revenue_cursors, subscription_snapshots, credit_flows, revenue_reports to subledger_service;
    end if;
end $$;
