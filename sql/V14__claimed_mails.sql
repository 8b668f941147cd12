-- Mails whose process died: they are counted as failed, so that somebody hears of them.
set local lock_timeout = '2s';

create index notifications_mail_claimed on notifications (mail_due_at) where mail_status = 'claimed';
comment on column notifications.mail_status is
    'claimed: about to be sent, since mail_due_at. Once nobody can be at it any more, it has failed: the process died, nobody knows whether the mail went out, and none is sent twice.';
