//! Lists, and what they are narrowed by.

use std::sync::Arc;

use serde_json::{Value, json};

use super::World;
use super::read::Read;
use crate::error::{Result, StripeError};
use crate::params::Params;

pub const PAGE_PARAMS: [&str; 3] = ["limit", "starting_after", "ending_before"];

/// Which part of a list is asked for.
#[derive(Debug)]
pub struct Page<'a> {
    limit: usize,
    starting_after: Option<&'a str>,
    ending_before: Option<&'a str>,
}

impl<'a> Page<'a> {
    pub fn read(params: &Params<'a>) -> Result<Self> {
        let limit = match params.int("limit")? {
            None => 10,
            Some(limit @ 1..=100) => usize::try_from(limit).unwrap_or(10),
            Some(_) => return Err(StripeError::malformed("limit", "Invalid limit: must be from 1 to 100")),
        };
        let (starting_after, ending_before) = (params.text("starting_after")?, params.text("ending_before")?);
        if starting_after.is_some() && ending_before.is_some() {
            let message = "You may only specify one of starting_after and ending_before.";
            return Err(StripeError::malformed("ending_before", message));
        }
        Ok(Self { limit, starting_after, ending_before })
    }

    /// The page of a list that is ordered from the newest to the oldest.
    pub fn of<'o, T: 'o>(
        &self,
        newest_first: impl Iterator<Item = &'o T>,
        id: impl Fn(&T) -> &str,
        render: impl Fn(&T) -> Value,
        url: &str,
    ) -> Result<Value> {
        let (data, has_more): (Vec<&T>, bool) = match self.ending_before {
            None => {
                let mut rest = newest_first;
                if let Some(after) = self.starting_after {
                    rest.by_ref()
                        .find(|each| id(each) == after)
                        .ok_or_else(|| StripeError::no_such("object", after, "starting_after"))?;
                }
                let data = rest.by_ref().take(self.limit).collect();
                (data, rest.next().is_some())
            }
            Some(before) => {
                let mut found = false;
                let newer: Vec<&T> = newest_first
                    .take_while(|each| {
                        found = id(each) == before;
                        !found
                    })
                    .collect();
                if !found {
                    return Err(StripeError::no_such("object", before, "ending_before"));
                }
                let from = newer.len().saturating_sub(self.limit);
                (newer[from..].to_vec(), from > 0)
            }
        };
        let data: Vec<Value> = data.into_iter().map(render).collect();
        Ok(json!({ "object": "list", "data": data, "has_more": has_more, "url": url }))
    }
}

/// `created[gte]=…` or `created=…`.
#[derive(Debug, Default)]
pub struct Range {
    from: Option<i64>,
    below: Option<i64>,
}

impl Range {
    pub fn read(params: &Params<'_>, key: &str) -> Result<Self> {
        if let Ok(Some(exactly)) = params.int(key) {
            return Ok(Self { from: Some(exactly), below: Some(exactly + 1) });
        }
        let bounds = params.map(key)?;
        bounds.only(&["gt", "gte", "lt", "lte"])?;
        let from = bounds.int("gte")?.or(bounds.int("gt")?.map(|after| after + 1));
        let below = bounds.int("lt")?.or(bounds.int("lte")?.map(|until| until + 1));
        Ok(Self { from, below })
    }

    pub fn contains(&self, moment: i64) -> bool {
        self.from.is_none_or(|from| moment >= from) && self.below.is_none_or(|below| moment < below)
    }
}

impl World {
    /// A page of the objects of a kind whose fields have the values that the filters of the same name ask for.
    pub(crate) fn list(
        &self,
        params: &Params<'_>,
        kind: &str,
        url: &str,
        filters: &[&str],
        also: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        self.list_where(params, kind, url, filters, filters, also)
    }

    /// The same, where some known filters are applied by `also`.
    pub(crate) fn list_where(
        &self,
        params: &Params<'_>,
        kind: &str,
        url: &str,
        known: &[&str],
        filters: &[&str],
        also: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let known: Vec<&str> = known.iter().copied().chain(PAGE_PARAMS).chain(["created"]).collect();
        params.only(&known)?;
        let created = Range::read(params, "created")?;
        let mut wanted = Vec::new();
        for filter in filters {
            if let Some(value) = params.text(filter)? {
                wanted.push((*filter, value));
            }
        }
        let fits = |object: &&Arc<Value>| {
            wanted.iter().all(|(key, value)| field_is(object, key, value))
                && created.contains(object.int("created"))
                && also(object)
        };
        let newest_first = self.objects.all(kind).rev().filter(|object| !object.is("deleted")).filter(fits);
        Page::read(params)?.of(newest_first, |object| object.text("id"), |object| Value::clone(object), url)
    }
}

fn field_is(object: &Value, key: &str, wanted: &str) -> bool {
    match &object[key] {
        Value::String(text) => text == wanted,
        Value::Bool(flag) => flag.to_string() == wanted,
        Value::Number(number) => number.to_string() == wanted,
        _ => false,
    }
}
