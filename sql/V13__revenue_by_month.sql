-- What tells of revenue by month: which lots are credit packs, and how their credits left them; and which of a
-- subscription's states within a second came after which.
set local lock_timeout = '2s';

create table pack_lots (
    lot_id uuid not null constraint pack_lots_pkey primary key
);
comment on table pack_lots is 'Lots of credit packs that the log has.';

create table pack_uses (
    lot_id uuid not null,
    month date not null,
    used bigint not null,
    constraint pack_uses_pkey primary key (lot_id, month)
);
comment on table pack_uses is
    'Credits that left packs for good in each month (UTC): spent, expired, taken back, less what was given back. src/domain/revenue/flows.rs.';

alter table subscription_snapshots add column change json not null default '{"after": 0}';
comment on column subscription_snapshots.change is 'Digests of the state and the one before: src/domain/tracked.rs, Change.';

-- All that is collected for revenue is filled again out of the log, so that it tells of packs from the beginning.
delete from revenue_cursors;
delete from subscription_snapshots;
delete from credit_flows;

do $$
begin
    if exists (select from pg_roles where rolname = 'subledger_service') then
        grant select, insert, update, delete on pack_lots, pack_uses to subledger_service;
    end if;
end $$;
