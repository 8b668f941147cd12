//! Read models beside the live ones, for a rebuild: made like them, filled, and put in their place.
//!
//! They live in a schema of their own under their own names. So the statements of the live ones serve them too, by the
//! search path, and constraints and indexes keep their names through the swap.

use std::time::Duration;

use tokio_postgres::{Client, GenericClient};

use super::connect::Database;
use super::error::StoreError;
use super::snapshot::UNLIMITED;

/// What can be rebuilt.
const READ_MODELS: [&str; 3] = ["balances", "billing_objects", "stripe_links"];

/// Held by a rebuild; any fixed number, unlikely to be somebody else's.
const REBUILD_LOCK: i64 = 0x7375_626c_6564_6262;

/// How long the swap waits for the writers of the moment.
const HEADS_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it waits for the readers of the moment. Others queue up behind it meanwhile, and a pool gives up on them
/// after 100 ms.
const TABLES_TIMEOUT: Duration = Duration::from_millis(40);

/// The tables under construction, and the connection that makes them.
#[derive(Debug)]
pub struct Shadow {
    owner: Client,
    /// Where the live tables are, and the ones under construction; quoted.
    home: String,
    schema: String,
}

impl Shadow {
    /// Makes empty tables like the live ones; what an earlier attempt left behind goes. One rebuild at a time.
    pub async fn create(database: &Database) -> Result<Self, StoreError> {
        let owner = database.connect_as_owner().await?;
        owner.batch_execute(UNLIMITED).await?;
        let row = owner
            .query_one(
                "/* create_shadow */ select pg_try_advisory_lock($1), quote_ident(current_schema()),
                     quote_ident(current_schema() || '_rebuild')",
                &[&REBUILD_LOCK],
            )
            .await?;
        if !row.get::<_, bool>(0) {
            return Err(StoreError::Refused("another rebuild is under way".to_owned()));
        }
        let shadow = Self { owner, home: row.get(1), schema: row.get(2) };
        match shadow.make_tables().await {
            Ok(()) => Ok(shadow),
            Err(error) => {
                shadow.finish().await;
                Err(error)
            }
        }
    }

    async fn make_tables(&self) -> Result<(), StoreError> {
        self.refuse_materialized_views().await?;
        let Self { owner, home, schema } = self;
        let tables = self
            .statements(
                "/* statements */ select format('create table %s.%I (like %s.%I including all excluding indexes)%s',
                     place.shadow, c.relname, place.live, c.relname, ' with (' || array_to_string(c.reloptions, ', ') || ')')
                 from place, pg_class c where c.oid = any (place.tables)",
            )
            .await?;
        let script = format!(
            "/* create_shadow */ drop schema if exists {schema} cascade; create schema {schema}; {tables};
             create table {schema}.link_claims as
                 select stripe_id, account_id, partition_id, null::timestamptz as at from {home}.stripe_links limit 0"
        );
        Ok(owner.batch_execute(&script).await?)
    }

    /// Lets the next rebuild begin at once. The server would, too, but only when it notices that the connection is gone.
    pub async fn finish(self) {
        // Whatever goes wrong here, the connection ends with `self`.
        let _ = self.owner.query("/* finish */ select pg_advisory_unlock($1)", &[&REBUILD_LOCK]).await;
    }

    /// Another connection to which the tables under construction are the read models.
    pub async fn writer(&self, database: &Database) -> Result<Client, StoreError> {
        let client = database.connect_as_owner().await?;
        client.batch_execute(UNLIMITED).await?;
        client.batch_execute(&format!("set search_path = {}, {}", self.schema, self.home)).await?;
        Ok(client)
    }

    /// One that fills them. Its commits need not wait for the disk: that of the swap, which comes after them, does.
    pub async fn filler(&self, database: &Database) -> Result<Client, StoreError> {
        let client = self.writer(database).await?;
        client.batch_execute("/* filler */ set synchronous_commit = off").await?;
        Ok(client)
    }

    /// Makes of the filled tables what the live ones are: links, constraints, indexes, comments, grants, owners.
    pub async fn complete(&self) -> Result<(), StoreError> {
        let Self { owner, schema, .. } = self;
        // Rows first, indexes after: that is how they are made fastest.
        owner
            .batch_execute(&format!(
                "/* complete_shadow */ set maintenance_work_mem = '256MB';
                 insert into {schema}.stripe_links (stripe_id, account_id, partition_id)
                     select distinct on (stripe_id) stripe_id, account_id, partition_id from {schema}.link_claims
                     order by stripe_id, at, partition_id;
                 truncate {schema}.link_claims"
            ))
            .await?;
        const CONSTRAINTS: &str = "
            select format('alter table %s.%I add constraint %I %s', place.shadow, c.relname, k.conname,
                pg_get_constraintdef(k.oid))
            from place, pg_constraint k join pg_class c on c.oid = k.conrelid
            where c.oid = any (place.tables) and k.contype in ('p', 'u', 'x')";
        const INDEXES: &str = "
            select replace(pg_get_indexdef(i.indexrelid), format(' ON %s.%I USING ', place.live, c.relname),
                format(' ON %s.%I USING ', place.shadow, c.relname))
            from place, pg_index i join pg_class c on c.oid = i.indrelid
            where c.oid = any (place.tables) and not exists (select from pg_constraint k where k.conindid = i.indexrelid)";
        const COMMENTS: &str = "
            select format('comment on table %s.%I is %L', place.shadow, c.relname,
                obj_description(c.oid, 'pg_class'))
            from place, pg_class c where c.oid = any (place.tables)";
        const STATISTICS: &str = "
            select format('analyze %s.%I', place.shadow, c.relname)
            from place, pg_class c where c.oid = any (place.tables)";
        const GRANTS: &str = "
            select format('grant %s on %s.%I to %s%s', a.privilege_type, place.shadow, c.relname,
                case when a.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end,
                case when a.is_grantable then ' with grant option' else '' end)
            from place, pg_class c, aclexplode(c.relacl) a
            where c.oid = any (place.tables) and a.grantee <> c.relowner";
        const OWNERS: &str = "
            select format('alter table %s.%I owner to %I', place.shadow, c.relname,
                pg_get_userbyid(c.relowner))
            from place, pg_class c where c.oid = any (place.tables) and pg_get_userbyid(c.relowner) <> current_user";
        for query in [CONSTRAINTS, INDEXES, COMMENTS, STATISTICS, GRANTS, OWNERS] {
            let script = self.statements(query).await?;
            owner.batch_execute(&script).await?;
        }
        Ok(())
    }

    /// Stops all writers until the transaction ends.
    pub async fn stop_writers(&self, tx: &impl GenericClient) -> Result<(), StoreError> {
        let timeout = HEADS_TIMEOUT.as_millis();
        tx.batch_execute(&format!(
            "/* stop_writers */ set local lock_timeout = {timeout};
             do $$ begin perform from heads order by partition_id for update; end $$"
        ))
        .await?;
        Ok(())
    }

    /// Puts the new tables in the place of the live ones, in a transaction that has stopped the writers.
    ///
    /// Views hold on to tables, not to names, so they are made anew. Functions and prepared statements hold on to names.
    pub async fn swap(&self, tx: &impl GenericClient) -> Result<(), StoreError> {
        let Self { home, schema, .. } = self;
        let timeout = TABLES_TIMEOUT.as_millis();
        tx.batch_execute(&format!("/* swap */ set local lock_timeout = {timeout}; set local search_path = {home}"))
            .await?;
        // With the live tables on the search path, the definitions name them without their schema: read again with the
        // new ones before them, they name those.
        let views = tx
            .query(
                "/* swap */ select distinct format('create or replace view %s.%I%s as %s', v.relnamespace::regnamespace, v.relname,
                     ' with (' || array_to_string(v.reloptions, ', ') || ')', pg_get_viewdef(v.oid))
                 from pg_depend d
                 join pg_rewrite r on r.oid = d.objid
                 join pg_class v on v.oid = r.ev_class
                 where d.classid = 'pg_rewrite'::regclass and d.refclassid = 'pg_class'::regclass
                     and d.refobjid = any (select to_regclass(name) from unnest($1::text[]) name)
                     and v.relkind = 'v'",
                &[&READ_MODELS.as_slice()],
            )
            .await?;
        let mut script = format!("/* swap */ set local search_path = {schema}, {home};\n");
        for view in &views {
            script.push_str(view.get(0));
            script.push('\n');
        }
        for table in READ_MODELS {
            script.push_str(&format!("drop table {home}.{table}; alter table {schema}.{table} set schema {home};\n"));
        }
        script.push_str(&format!("drop table {schema}.link_claims; drop schema {schema}"));
        Ok(tx.batch_execute(&script).await?)
    }

    /// Removes what was made.
    pub async fn discard(&self) -> Result<(), StoreError> {
        let schema = &self.schema;
        Ok(self.owner.batch_execute(&format!("/* discard */ drop schema if exists {schema} cascade")).await?)
    }

    /// Runs a query that writes statements about the live `tables`; `place` has their schema and the new one.
    async fn statements(&self, query: &str) -> Result<String, StoreError> {
        let tables: Vec<u32> = self
            .owner
            .query(
                "/* read_models */ select to_regclass(name)::oid from unnest($1::text[]) name",
                &[&READ_MODELS.as_slice()],
            )
            .await?
            .iter()
            .map(|row| row.get(0))
            .collect();
        let query = format!(
            "/* statements */ with place as (select $1::text as shadow, $2::text as live, $3::oid[] as tables) {query}"
        );
        let rows = self.owner.query(&query, &[&self.schema, &self.home, &tables]).await?;
        let statements: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        Ok(statements.join(";\n"))
    }

    /// They could not be made anew without reading everything while nobody may.
    async fn refuse_materialized_views(&self) -> Result<(), StoreError> {
        let row = self
            .owner
            .query_opt(
                "/* refuse_materialized_views */ select v.oid::regclass::text
                 from pg_depend d
                 join pg_rewrite r on r.oid = d.objid
                 join pg_class v on v.oid = r.ev_class
                 where d.classid = 'pg_rewrite'::regclass and d.refclassid = 'pg_class'::regclass
                     and d.refobjid = any (select to_regclass(name) from unnest($1::text[]) name)
                     and v.relkind = 'm' limit 1",
                &[&READ_MODELS.as_slice()],
            )
            .await?;
        match row {
            None => Ok(()),
            Some(row) => {
                let view: String = row.get(0);
                Err(StoreError::Refused(format!("the materialized view {view} reads a read model; drop it first")))
            }
        }
    }
}
