//! `/v1/events` for those who wait: long polls and server-sent events.

use std::time::{Duration, Instant};

use reqwest::Response;
use serde_json::{Value, json};

use crate::support::*;

/// Nothing here takes as long; who waits longer waits in vain.
const PATIENCE: Duration = Duration::from_secs(30);

/// Opens a stream; answers it with its frames so far unread.
async fn open(app: &TestApp, query: &str, last_id: Option<&str>) -> Response {
    let mut request = reqwest::Client::new()
        .get(format!("http://{}/v1/events{query}", app.address))
        .bearer_auth(ADMIN_KEY)
        .header("accept", "text/event-stream");
    if let Some(id) = last_id {
        request = request.header("last-event-id", id);
    }
    request.send().await.expect("an answer")
}

/// Frames of a stream until one fits.
async fn frames_until(response: &mut Response, fits: impl Fn(&str) -> bool) -> Vec<String> {
    let (mut text, mut frames) = (String::new(), Vec::new());
    let deadline = Instant::now() + PATIENCE;
    loop {
        let chunk = tokio::time::timeout_at(deadline.into(), response.chunk()).await;
        let chunk = chunk.unwrap_or_else(|_| panic!("it never came: {frames:?}"));
        let chunk = chunk.expect("no error").expect("the stream goes on");
        text.push_str(std::str::from_utf8(&chunk).expect("text"));
        while let Some((frame, rest)) = text.split_once("\n\n") {
            frames.push(frame.to_owned());
            text = rest.to_owned();
        }
        if frames.iter().any(|frame| fits(frame)) {
            return frames;
        }
    }
}

fn ids(frames: &[String]) -> Vec<String> {
    let id = |frame: &String| frame.lines().find_map(|line| line.strip_prefix("id: ")).map(str::to_owned);
    frames.iter().filter_map(id).collect()
}

fn data(frames: &[String]) -> Vec<Value> {
    let data = |frame: &String| frame.lines().find_map(|line| line.strip_prefix("data: ")).map(str::to_owned);
    frames.iter().filter_map(data).map(|text| serde_json::from_str(&text).expect("JSON")).collect()
}

#[tokio::test]
async fn a_long_poll_is_answered_by_the_event_it_waited_for() {
    on_both(async |app: TestApp| {
        app.put_account("user_1", json!({})).await.expect(201);
        // The first to ask for credits is given the free plan's month as well.
        app.grant("user_1", 1).await.expect(201);
        for query in ["", "&account=user_1", "&type=credits_granted"] {
            let end = app.get(&format!("/v1/events?limit=1000{query}")).await.expect(200);
            let path = format!("/v1/events?wait_seconds=60{query}&after={}", end["next_cursor"].as_str().expect("one"));
            let begun = Instant::now();
            let (page, granted) = futures_util::join!(app.get(&path), app.grant("user_1", 5));
            let (page, granted) = (page.expect(200), granted.expect(201));
            assert_eq!(page["data"][0]["type"], "credits_granted", "{query}: {page}");
            assert_eq!(page["data"][0]["position"], granted["position"]);
            assert!(begun.elapsed() < Duration::from_secs(30), "it waited on");
        }
    })
    .await;
}

#[tokio::test]
async fn a_long_poll_that_waits_in_vain_says_where_it_was_and_what_it_searched() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({})).await.expect(201);
    let page = app.get("/v1/events?type=moon_landed&wait_seconds=1").await.expect(200);
    assert_eq!((&page["data"], &page["has_more"]), (&json!([]), &json!(false)));
    // What was searched in vain is not searched again.
    let all = app.get("/v1/events?limit=1000").await.expect(200);
    assert_eq!(page["next_cursor"], all["next_cursor"]);
    for wait in ["-1", "61", "x"] {
        app.get(&format!("/v1/events?wait_seconds={wait}")).await.problem(400, "invalid_parameter");
    }
}

#[tokio::test]
async fn a_stream_goes_on_where_its_last_id_says() {
    on_both(async |app: TestApp| {
        for n in 0..4 {
            app.put_account(&format!("user_{n}"), json!({})).await.expect(201);
        }
        let is_last = |frame: &str| frame.contains("\"user_3\"");
        let frames = frames_until(&mut open(&app, "?type=account_opened", None).await, is_last).await;
        let (told, ids) = (data(&frames), ids(&frames));
        assert_eq!(told.len(), 4, "{frames:?}");
        assert!(frames[0].starts_with("retry: "));
        for (at, id) in ids.iter().enumerate().take(3) {
            // The query says where the page began; the browser knows better.
            let mut again = open(&app, "?type=account_opened&after=junk", Some(id)).await;
            let rest = data(&frames_until(&mut again, is_last).await);
            assert_eq!(rest, told[at + 1..], "after {id}");
        }
        let mut open = open(&app, "?account=user_1&type=credits_granted", None).await;
        app.grant("user_1", 5).await.expect(201);
        let frames = frames_until(&mut open, |frame| frame.contains("\"granted\":5")).await;
        assert!(data(&frames).iter().all(|event| event["type"] == "credits_granted"), "{frames:?}");
    })
    .await;
}

#[tokio::test]
async fn what_is_wrong_with_a_stream_is_said_before_it_begins() {
    let app = TestApp::start().await;
    for (query, id, status) in [("", Some("1.2"), 400), ("?limit=0", None, 400), ("?account=nobody", None, 404)] {
        let answer = open(&app, query, id).await;
        assert_eq!(answer.status(), status, "{query}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
    }
}
