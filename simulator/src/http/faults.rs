//! Faults on request: of answers here, of deliveries in `deliveries`.

use std::time::Duration;

use serde_json::Value;

use crate::ids::Ids;

/// What goes wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 429, and nothing happens.
    RateLimited,
    /// 500, and nothing happens.
    ServerError,
    /// It happens, and the answer is 500.
    ServerErrorAfter,
    /// The connection is cut, and nothing happens.
    CutBefore,
    /// It happens, and the connection is cut within the answer.
    CutAfter,
    /// It happens, and the answer does not come.
    TimeOut,
    /// It happens after a while, during which its idempotency key is in use.
    Slow,
}

impl Kind {
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "rate_limited" => Self::RateLimited,
            "server_error" => Self::ServerError,
            "server_error_after" => Self::ServerErrorAfter,
            "cut_before" => Self::CutBefore,
            "cut_after" => Self::CutAfter,
            "time_out" => Self::TimeOut,
            "slow" => Self::Slow,
            _ => return None,
        })
    }
}

#[derive(Debug, Clone)]
pub struct Fault {
    pub kind: Kind,
    pub delay: Option<Duration>,
    /// Of requests with this method, if one is given.
    method: Option<String>,
    /// Of requests whose path below `/v1/` begins so.
    path: String,
    /// How many are left; without a number there is no end.
    left: Option<u64>,
    /// Of those that fit, the share that is hit.
    probability: f64,
}

impl Fault {
    /// Reads `{"kind": …, "method": …, "path": …, "count": …, "probability": …, "delay_ms": …}`.
    pub fn read(body: &Value) -> Result<Self, String> {
        let kind = body["kind"].as_str().and_then(Kind::parse).ok_or_else(|| {
            "kind must be rate_limited, server_error, server_error_after, cut_before, cut_after, time_out or slow"
                .to_owned()
        })?;
        let probability = body["probability"].as_f64();
        // Without either, once is meant.
        let left = body["count"].as_u64().or_else(|| probability.is_none().then_some(1));
        Ok(Self {
            kind,
            delay: body["delay_ms"].as_u64().map(Duration::from_millis),
            method: body["method"].as_str().map(str::to_uppercase),
            path: body["path"].as_str().unwrap_or_default().trim_start_matches("/v1/").to_owned(),
            left,
            probability: probability.unwrap_or(1.0),
        })
    }
}

#[derive(Debug, Default)]
pub struct Faults {
    planned: Vec<Fault>,
}

impl Faults {
    pub fn plan(&mut self, fault: Fault) {
        self.planned.push(fault);
    }

    pub fn clear(&mut self) {
        self.planned.clear();
    }

    /// The fault that hits a request, if one does.
    pub fn next(&mut self, method: &str, path: &str, chance: &mut Ids) -> Option<Fault> {
        let hit = self.planned.iter_mut().find(|fault| {
            fault.left != Some(0)
                && fault.method.as_deref().is_none_or(|wanted| wanted == method)
                && path.starts_with(&fault.path)
                && chance.chance(fault.probability)
        })?;
        if let Some(left) = &mut hit.left {
            *left -= 1;
        }
        Some(hit.clone())
    }
}
