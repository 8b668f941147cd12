-- Settings that are kept in the database, for all replicas: the service reads them when it starts.

set local lock_timeout = '2s';

create sequence setting_versions;
create table settings (
    name text not null constraint settings_pkey primary key,
    version bigint not null default nextval('setting_versions') constraint settings_version_unique unique,
    value text,
    sealed text,
    set_at timestamptz not null default now(),
    constraint settings_are_plain_or_sealed check ((value is null) <> (sealed is null))
);
alter sequence setting_versions owned by settings.version;
comment on table settings is
    'Settings that neither the environment nor a configuration file gives. Written and read by the login alone: subledger_service gets nothing here.';
comment on column settings.version is
    'Of all settings there ever were, so no two values share one. A sealed value opens only beside the name and version that it was sealed for.';
comment on column settings.sealed is 'A secret, encrypted (src/sealing.rs).';
