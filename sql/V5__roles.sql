-- The service works as a role that can add to the log and read it, and nothing else. Roles belong to the whole cluster,
-- so it may be there already; where the migrating role may not create roles, the trigger on events still stands guard.

do $$
begin
    begin
        create role subledger_service nologin;
    exception
        when duplicate_object or unique_violation then null;
        when insufficient_privilege then
            raise notice 'may not create the role subledger_service; the service will work as %', current_user;
            return;
    end;
    execute format('grant subledger_service to %I', current_user);
exception
    when insufficient_privilege or invalid_grant_operation then null;
end $$;

do $$
begin
    if exists (select from pg_roles where rolname = 'subledger_service') then
        execute format('grant usage on schema %I to subledger_service', current_schema());
        grant select, insert on events to subledger_service;
        grant select, update on heads to subledger_service;
        grant select on ledger to subledger_service;
        grant select, insert, update, delete
            on balances, billing_objects, stripe_links, inbox, account_profiles, api_keys to subledger_service;
        grant select, insert on idempotency to subledger_service;
        grant select on subscriptions, invoices, payments, credit_purchases, credit_lots, usage_days to subledger_service;
    end if;
end $$;
