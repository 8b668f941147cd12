-- The log: what happened, for ever. Everything in V2 can be dropped and rebuilt from it.

create table ledger (
    singleton boolean primary key default true constraint ledger_has_one_row check (singleton),
    ledger_id uuid not null default gen_random_uuid(),
    partitions smallint not null constraint ledger_partitions_in_range check (partitions between 1 and 1024),
    created_at timestamptz not null default now()
);
comment on table ledger is 'One row: what was fixed when the ledger was made.';
comment on column ledger.partitions is 'Partitions of the log; an account''s is hash(account_id) modulo this, so it never changes.';

create table heads (
    partition_id smallint primary key,
    position bigint not null default 0 constraint heads_position_not_negative check (position >= 0),
    hash bytea not null default '\x0000000000000000000000000000000000000000000000000000000000000000'
        constraint heads_hash_is_sha256 check (length(hash) = 32),
    batch_id uuid
) with (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
comment on table heads is
    'One row a partition: its last position. Locked from the check of an expected position until commit, so positions are gapless and become visible in order. Few and hot: the fillfactor keeps every update on its page.';
comment on column heads.hash is 'Hash of the event at position: the end of the partition''s chain.';
comment on column heads.batch_id is 'The batch that moved it last: tells append_batch which heads it has moved itself.';

create table events (
    partition_id smallint not null,
    position bigint not null constraint events_position_positive check (position > 0),
    account_id text not null,
    version bigint not null constraint events_version_positive check (version > 0),
    previous_position bigint not null,
    type text not null,
    type_version smallint not null,
    at timestamptz not null,
    payload json not null,
    hash bytea not null constraint events_hash_is_sha256 check (length(hash) = 32),
    constraint events_pkey primary key (partition_id, position)
);
-- Each event leads to the one before it, so one in sixteen is enough to find any (account_events, in V2). An index of all
-- would be the dearest part of an append, and the one that grows.
create unique index events_account on events (account_id, version) where version % 16 = 1;
-- The catalogs, all in one partition: each append asks whether there is one that it was not decided under.
create unique index events_catalog on events (position) where type = 'catalog_applied';
-- A receipt names its catalog by the beginning of the digest.
create index events_catalog_digest on events ((payload ->> 'digest') collate "C") where type = 'catalog_applied';
comment on table events is 'Immutable facts. No UPDATE, DELETE or TRUNCATE: see the trigger, the grants, and the hash chain.';
comment on column events.version is 'Place in the account''s stream.';
comment on column events.previous_position is 'Position of the account''s event before this one; 0 before its first.';
comment on column events.payload is 'json, not jsonb: the hash chain covers these very bytes.';
comment on column events.hash is 'SHA-256 of the previous hash in the partition and of this row (src/store/chain.rs).';

create function refuse_change() returns trigger language plpgsql as $$
begin
    raise exception 'the log is append-only: % on % is refused', tg_op, tg_table_name using errcode = 'restrict_violation';
end $$;
comment on function refuse_change() is 'Stops accidents, also those of the owner. What gets around it, verify finds by the hash chain.';

create trigger events_are_append_only before update or delete or truncate on events
    for each statement execute function refuse_change();
alter table events enable always trigger events_are_append_only;
