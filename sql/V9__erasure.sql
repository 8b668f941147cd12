-- When an account's personal data were erased, so that Stripe's next delivery does not bring them back.

set local lock_timeout = '2s';

alter table account_profiles add column erased_at timestamptz;
comment on column account_profiles.erased_at is
    'Since then nothing personal is taken from Stripe''s events for this account; what a caller gives anew ends that.';
