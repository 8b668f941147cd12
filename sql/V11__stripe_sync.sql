-- What is kept of the exchange with Stripe that no StripeEvent causes: how far an import of a whole account has come.

create table stripe_imports (
    kind text constraint stripe_imports_pkey primary key,
    starting_after text,
    objects bigint not null default 0,
    changed bigint not null default 0,
    started_at timestamptz not null,
    finished_at timestamptz
);
comment on table stripe_imports is
    'How far the import of each kind of Stripe object has come, so that one that was cut goes on where it was.';
comment on column stripe_imports.starting_after is 'The last object of the last page that is durable; Stripe lists the newest first.';
comment on column stripe_imports.changed is 'Of the objects that were read, those that the ledger did not know, or not like that.';

do $$
begin
    if exists (select from pg_roles where rolname = 'subledger_service') then
        grant select, insert, update, delete on stripe_imports to subledger_service;
    end if;
end $$;
