-- Metered usage on its way to Stripe: what is added up, and what is reported.

create table usage_windows (
    account_id text not null,
    meter text not null,
    window_start bigint not null,
    period_start bigint not null,
    quantity bigint not null,
    last_at bigint not null,
    due_at timestamptz not null,
    reports integer not null default 0,
    constraint usage_windows_pkey primary key (account_id, meter, window_start, period_start)
);
create index usage_windows_due on usage_windows (due_at) where quantity <> 0;
comment on table usage_windows is
    'What accounts used within each window, and has not been reported yet. Added up in the transaction that moves the follower''s cursor, so each use counts once.';
comment on column usage_windows.window_start is 'Unix second; windows are those of src/domain/metering.rs.';
comment on column usage_windows.period_start is 'Start of the billing period that the uses count in: a window that a period ends in is two.';
comment on column usage_windows.last_at is 'Unix second of the latest of the uses: the moment they are reported for.';
comment on column usage_windows.reports is 'How often something of it was reported: what comes late is a report of its own.';

create table usage_reports (
    identifier text constraint usage_reports_pkey primary key,
    account_id text not null,
    meter text not null,
    quantity bigint not null,
    at bigint not null,
    status text not null constraint usage_reports_status_known check (status in ('pending', 'reported', 'too_old')),
    attempts integer not null default 0,
    next_attempt_at timestamptz not null,
    problem text,
    created_at timestamptz not null,
    ended_at timestamptz
);
create index usage_reports_pending on usage_reports (next_attempt_at) where status = 'pending';
create index usage_reports_too_old on usage_reports (created_at) where status = 'too_old';
create index usage_reports_ended on usage_reports using brin (ended_at);
comment on table usage_reports is
    'Meter events for Stripe. The identifier makes Stripe count each once, however often it is sent.';
comment on column usage_reports.status is 'too_old: Stripe took it no more (35 days), so somebody has to bill it by hand.';
comment on column usage_reports.problem is 'Why it could not be reported when it was tried last.';

do $$
begin
    if exists (select from pg_roles where rolname = 'subledger_service') then
        grant select, insert, update, delete on usage_windows, usage_reports to subledger_service;
    end if;
end $$;
