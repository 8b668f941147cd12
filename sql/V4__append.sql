-- The one way events get into the log, and read models beside it: one statement, one round trip, one transaction.

create function append_batch(
    batch uuid, catalog_position bigint,
    head_partition smallint[], head_expected bigint[], head_position bigint[], head_hash bytea[],
    event_partition smallint[], event_position bigint[], event_account text[], event_version bigint[],
    event_previous_position bigint[],
    event_type text[], event_type_version smallint, event_at timestamptz[], event_payload text[], event_hash bytea[],
    key_partition smallint[], key_digest uuid[], key_request uuid[], key_position bigint[], key_outcome text[],
    balance_partition smallint[], balance_account text[], balance_version bigint[], balance_position bigint[],
    balance_available bigint[], balance_state text[],
    object_partition smallint[], object_account text[], object_kind text[], object_stripe_id text[],
    object_sort_at timestamptz[], object_state text[],
    link_partition smallint[], link_stripe_id text[], link_account text[], link_moved_from text[],
    inbox_partition smallint[], inbox_event text[], inbox_type text[], inbox_status text[], inbox_reason text[],
    inbox_account text[], inbox_api_version text[], inbox_created_at timestamptz[], inbox_received_at timestamptz[],
    inbox_body bytea[]
) returns table (refused_partition smallint, reason text) language plpgsql volatile
-- Every step goes from a batch of a few hundred rows to rows found by their key, whatever the statistics say: a plan made
-- while a table was empty would read all of it, for every batch, until somebody analyzes it.
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
-- Nor is anything planned anew: for a few rows a plan of their own looks cheaper each time, and making it costs more than
-- they do.
set plan_cache_mode = force_generic_plan
as $$
declare
    refused smallint[] := '{}';
    stale smallint[] := '{}';
    taken smallint[] := '{}';
    elsewhere smallint[] := '{}';
    written bigint;
begin
    for attempt in 1..2 loop
        begin
            -- Locks, compares and moves in one: what another writer commits while this waits for a lock is what is compared.
            -- They come ascending, so that writers cannot deadlock. Nothing is decided under a catalog that another was put
            -- on record after, through whatever replica, before this began.
            update heads set position = h.position, hash = h.hash, batch_id = batch
            from unnest(head_partition, head_expected, head_position, head_hash)
                as h (partition_id, expected, position, hash)
            where heads.partition_id = h.partition_id and heads.position = h.expected
                and h.partition_id <> all (refused)
                and not exists (
                    select from events where type = 'catalog_applied' and events.position > catalog_position);
            get diagnostics written = row_count;
            if written < cardinality(head_partition) - cardinality(refused) then
                if written = 0 and exists (
                    select from events where type = 'catalog_applied' and events.position > catalog_position
                ) then
                    return query select h.partition_id, 'catalog'::text from unnest(head_partition) as h (partition_id);
                    return;
                end if;
                stale := stale || array(
                    select h.partition_id from unnest(head_partition) as h (partition_id)
                    left join heads on heads.partition_id = h.partition_id
                    where heads.batch_id is distinct from batch and h.partition_id <> all (refused));
                refused := refused || stale;
            end if;

            -- Keys, links and StripeEvents are claimed without asking first: there is hardly ever anybody in the way. If
            -- there is, this block is undone, whoever is in the way is found, and the others are written. In one order, so
            -- that writers cannot deadlock; whoever has the key of a StripeEvent has its row in the inbox to himself.
            insert into idempotency (key, request, partition_id, position, outcome)
            select k.digest, k.request, k.partition_id, k.position, k.outcome::json
            from unnest(key_partition, key_digest, key_request, key_position, key_outcome)
                as k (partition_id, digest, request, position, outcome)
            where k.partition_id <> all (refused)
            order by k.digest;

            if cardinality(link_stripe_id) > 0 then
                if cardinality(array_remove(link_moved_from, null)) > 0 then
                    update stripe_links set account_id = l.account, partition_id = l.partition_id
                    from unnest(link_partition, link_stripe_id, link_account, link_moved_from)
                        as l (partition_id, stripe_id, account, moved_from)
                    where stripe_links.stripe_id = l.stripe_id and stripe_links.account_id = l.moved_from
                        and l.partition_id <> all (refused);
                end if;
                insert into stripe_links (stripe_id, account_id, partition_id)
                select l.stripe_id, l.account, l.partition_id
                from unnest(link_partition, link_stripe_id, link_account) as l (partition_id, stripe_id, account)
                where l.partition_id <> all (refused)
                order by l.stripe_id
                on conflict (stripe_id) do nothing;
                get diagnostics written = row_count;
                -- Some were there already, or were linked by another writer while this one waited. The first link stands.
                if written < cardinality(link_stripe_id) and exists (
                    select from unnest(link_partition, link_stripe_id, link_account) as l (partition_id, stripe_id, account)
                    join stripe_links on stripe_links.stripe_id = l.stripe_id
                    where stripe_links.account_id <> l.account and l.partition_id <> all (refused)
                ) then
                    raise exception 'a Stripe id leads to another account' using errcode = 'unique_violation';
                end if;
            end if;

            if cardinality(inbox_event) > 0 then
                if attempt = 2 then
                    -- One that was parked makes room for what became of it.
                    delete from inbox using unnest(inbox_partition, inbox_event) as i (partition_id, event)
                    where inbox.stripe_event_id = i.event and i.partition_id <> all (refused);
                end if;
                insert into inbox (stripe_event_id, type, status, reason, account_id, api_version, created_at,
                                   received_at, body)
                select i.event, i.type, i.status, i.reason, i.account, i.api_version, i.created_at, i.received_at, i.body
                from unnest(inbox_partition, inbox_event, inbox_type, inbox_status, inbox_reason, inbox_account,
                            inbox_api_version, inbox_created_at, inbox_received_at, inbox_body)
                    as i (partition_id, event, type, status, reason, account, api_version, created_at, received_at, body)
                where i.partition_id <> all (refused);
            end if;
            exit;
        exception when unique_violation then
            if attempt = 2 then
                raise;
            end if;
            taken := array(
                select distinct k.partition_id from unnest(key_partition, key_digest) as k (partition_id, digest)
                join idempotency on idempotency.key = k.digest
                where k.partition_id <> all (refused));
            elsewhere := array(
                select distinct l.partition_id
                from unnest(link_partition, link_stripe_id, link_account, link_moved_from)
                    as l (partition_id, stripe_id, account, moved_from)
                join stripe_links on stripe_links.stripe_id = l.stripe_id
                where stripe_links.account_id <> l.account and stripe_links.account_id is distinct from l.moved_from
                    and l.partition_id <> all (refused || taken));
            refused := refused || taken || elsewhere;
        end;
    end loop;

    if cardinality(event_position) > 0 then
        insert into events (partition_id, position, account_id, version, previous_position, type, type_version, at,
                            payload, hash)
        select e.partition_id, e.position, e.account, e.version, e.previous_position, e.type, event_type_version, e.at,
               e.payload::json, e.hash
        from unnest(event_partition, event_position, event_account, event_version, event_previous_position, event_type,
                    event_at, event_payload, event_hash)
            as e (partition_id, position, account, version, previous_position, type, at, payload, hash)
        where e.partition_id <> all (refused);
    end if;

    if cardinality(balance_account) > 0 then
        -- Nearly all are there. An upsert would lock each row, and log that, before it updates it.
        update balances
        set version = b.version, position = b.position, available = b.available, state = b.state::json
        from unnest(balance_partition, balance_account, balance_version, balance_position, balance_available,
                    balance_state) as b (partition_id, account, version, position, available, state)
        where balances.account_id = b.account and b.partition_id <> all (refused);
        get diagnostics written = row_count;
        if written < cardinality(balance_account) then
            insert into balances (account_id, partition_id, version, position, available, state)
            select b.account, b.partition_id, b.version, b.position, b.available, b.state::json
            from unnest(balance_partition, balance_account, balance_version, balance_position, balance_available,
                        balance_state) as b (partition_id, account, version, position, available, state)
            where b.partition_id <> all (refused)
            on conflict (account_id) do nothing;
        end if;
    end if;

    if cardinality(object_stripe_id) > 0 then
        if array_position(object_state, null) is not null then
            delete from billing_objects using unnest(object_partition, object_account, object_kind, object_stripe_id,
                                                     object_state)
                as o (partition_id, account, kind, id, state)
            where o.state is null and o.partition_id <> all (refused)
                and billing_objects.account_id = o.account and billing_objects.kind = o.kind
                and billing_objects.object_id = o.id;
        end if;
        insert into billing_objects (account_id, kind, object_id, partition_id, sort_at, state)
        select o.account, o.kind, o.id, o.partition_id, o.sort_at, o.state::json
        from unnest(object_partition, object_account, object_kind, object_stripe_id, object_sort_at, object_state)
            as o (partition_id, account, kind, id, sort_at, state)
        where o.state is not null and o.partition_id <> all (refused)
        on conflict (account_id, kind, object_id) do update set state = excluded.state, sort_at = excluded.sort_at;
    end if;

    if cardinality(refused) > 0 then
        return query select r.partition_id, 'stale'::text from unnest(stale) as r (partition_id)
            union all select r.partition_id, 'key' from unnest(taken) as r (partition_id)
            union all select r.partition_id, 'link' from unnest(elsewhere) as r (partition_id);
    end if;
end $$;
comment on function append_batch is
    'Appends a batch of decided commands. All are refused when a catalog was put on record after the one they were decided under. A partition is refused, whole, when its head has moved, a key of it was used before, or a Stripe id of it leads elsewhere; the others go through. The caller reloads and decides again.';
