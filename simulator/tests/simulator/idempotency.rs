//! Idempotency keys, errors and lists.

use subledger_simulator::World;

use crate::support::{advance_days, ask, get, id, kinds, post, recorded, refusal, request, world};

fn keyed(world: &mut World, key: &str, path: &str, form: &str) -> subledger_simulator::Answer {
    let mut asked = request("POST", path, form);
    asked.idempotency_key = Some(key.to_owned());
    world.handle(&asked)
}

#[test]
fn a_key_has_one_answer() {
    let mut world = world();
    let first = keyed(&mut world, "k1", "customers", "email=a@example.com&metadata[a]=1&metadata[b]=2");
    let before = recorded(&world);
    // The order of parameters is no difference.
    let again = keyed(&mut world, "k1", "customers", "metadata[b]=2&metadata[a]=1&email=a@example.com");
    assert!(again.replayed && !first.replayed);
    assert_eq!((first.status, &first.body, &first.request_id), (again.status, &again.body, &again.request_id));
    assert_eq!(recorded(&world), before, "nothing happens again");

    let other = keyed(&mut world, "k1", "customers", "email=b@example.com");
    assert_eq!((other.status, other.body["error"]["type"].as_str()), (400, Some("idempotency_error")));
    let elsewhere = keyed(&mut world, "k1", "products", "name=x");
    assert_eq!(elsewhere.body["error"]["type"], "idempotency_error");
    keyed(&mut world, "k2", "customers", "name=x");
    let elsewhere = keyed(&mut world, "k2", "products", "name=x");
    assert_eq!(elsewhere.body["error"]["type"], "idempotency_error", "the same parameters of another call");

    advance_days(&mut world, 2);
    let later = keyed(&mut world, "k1", "customers", "email=a@example.com&metadata[a]=1&metadata[b]=2");
    assert!(!later.replayed, "keys are forgotten after a day");
    assert_ne!(later.body["id"], first.body["id"]);
}

#[test]
fn a_key_in_use_is_refused() {
    let mut world = world();
    assert!(world.hold_key("k1"));
    let refused = keyed(&mut world, "k1", "customers", "");
    assert_eq!((refused.status, refused.body["error"]["code"].as_str()), (409, Some("idempotency_key_in_use")));
    world.release_key("k1");
    assert_eq!(keyed(&mut world, "k1", "customers", "").status, 200);
}

#[test]
fn what_never_began_leaves_its_key_free_and_what_began_keeps_it() {
    let mut world = world();
    assert_eq!(keyed(&mut world, "k1", "customers", "nonsense=1").status, 400);
    assert_eq!(keyed(&mut world, "k1", "customers", "email=a@example.com").status, 200);

    let refused = keyed(&mut world, "k2", "refunds", "charge=ch_none");
    assert_eq!(refused.status, 400);
    assert!(keyed(&mut world, "k2", "refunds", "charge=ch_none").replayed);
}

#[test]
fn errors_name_the_parameter() {
    let mut world = world();
    for (path, form, status, code, param) in [
        ("customers", "emial=a", 400, "parameter_unknown", "emial"),
        ("customers", "email=nobody", 400, "email_invalid", "email"),
        ("prices", "currency=usd&unit_amount=1", 400, "parameter_missing", "product"),
        ("prices", "currency=usd&product=prod_x&unit_amount=1", 400, "resource_missing", "product"),
        ("prices", "currency=usd&product=prod_pro&unit_amount=1.5", 400, "parameter_invalid_integer", "unit_amount"),
        ("subscriptions", "customer=cus_x&items[0][price]=price_pro", 400, "resource_missing", "customer"),
        ("customers/cus_x", "", 404, "resource_missing", "id"),
    ] {
        let (answered, error) = refusal(&mut world, "POST", path, form);
        assert_eq!(answered, status, "{path} {form}: {error}");
        assert_eq!((error["code"].as_str(), error["param"].as_str()), (Some(code), Some(param)), "{path} {form}");
        assert!(error["request_log_url"].is_string() && error["message"].is_string());
    }
    assert_eq!(refusal(&mut world, "GET", "nonsense", "").0, 404);
    let customer = id(&post(&mut world, "customers", ""));
    let (_, error) =
        refusal(&mut world, "POST", "subscriptions", &format!("customer={customer}&items[0][price]=price_none"));
    assert_eq!(error["param"], "items[0][price]");
}

#[test]
fn lists_page_both_ways() {
    let mut world = world();
    let made: Vec<String> =
        (0..25).map(|n| id(&post(&mut world, "customers", &format!("email=c{n}@example.com")))).collect();
    let mut seen = Vec::new();
    let mut form = "limit=10".to_owned();
    loop {
        let page = ask(&mut world, "GET", "customers", &form).body;
        seen.extend(page["data"].as_array().expect("data").iter().map(id));
        if page["has_more"] == false {
            break;
        }
        form = format!("limit=10&starting_after={}", seen.last().expect("one"));
    }
    assert_eq!(seen, made.iter().rev().cloned().collect::<Vec<_>>());
    let before = ask(&mut world, "GET", "customers", &format!("limit=5&ending_before={}", seen[10])).body;
    let ids: Vec<String> = before["data"].as_array().expect("data").iter().map(id).collect();
    assert_eq!((ids, &before["has_more"]), (seen[5..10].to_vec(), &true.into()));
    assert_eq!(refusal(&mut world, "GET", "customers", "limit=0").0, 400);
    assert_eq!(refusal(&mut world, "GET", "customers", "starting_after=cus_none").0, 400);
}

#[test]
fn lists_are_ten_long_unless_asked_and_narrowed_by_time() {
    let mut world = world();
    for _ in 0..6 {
        post(&mut world, "customers", "");
    }
    let first = world.now();
    advance_days(&mut world, 1);
    for _ in 0..6 {
        post(&mut world, "customers", "");
    }
    let second = world.now();
    let mut count = |form: &str| {
        let page = ask(&mut world, "GET", "customers", form).body;
        page["data"].as_array().expect("data").len()
    };
    assert_eq!(count(""), 10);
    for (form, expected) in [
        (format!("created[gte]={second}"), 6),
        (format!("created[gt]={second}"), 0),
        (format!("created[lt]={second}"), 6),
        (format!("created[lte]={second}"), 12),
        (format!("created={first}"), 6),
        (format!("created[gte]={first}&created[lte]={first}"), 6),
    ] {
        assert_eq!(count(&format!("limit=100&{form}")), expected, "{form}");
    }
}

#[test]
fn customers_are_found_by_email_and_metadata() {
    let mut world = world();
    let ada = id(&post(&mut world, "customers", "email=ada@example.com&metadata[account_id]=user_1"));
    post(&mut world, "customers", "email=bob@example.com&metadata[account_id]=user_2");
    let listed = ask(&mut world, "GET", "customers", "email=ada@example.com").body;
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(1));
    for query in [
        "metadata['account_id']:'user_1'",
        "email:'ada@example.com' AND metadata[\"account_id\"]:\"user_1\"",
        "email~'ada'",
    ] {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let found = ask(&mut world, "GET", "customers/search", &format!("query={encoded}")).body;
        assert_eq!(found["object"], "search_result", "{found}");
        assert_eq!(
            found["data"].as_array().expect("data").iter().map(id).collect::<Vec<_>>(),
            std::slice::from_ref(&ada),
            "{query}"
        );
    }
    call_delete(&mut world, &ada);
    assert_eq!(get(&mut world, &format!("customers/{ada}"))["deleted"], true);
    assert_eq!(refusal(&mut world, "POST", &format!("customers/{ada}"), "name=x").0, 404);
}

fn call_delete(world: &mut World, customer: &str) {
    let from = recorded(world);
    assert_eq!(ask(world, "DELETE", &format!("customers/{customer}"), "").status, 200);
    assert_eq!(kinds(world, from), ["customer.deleted"]);
}

#[test]
fn amounts_of_prices_never_change_and_lookup_keys_move() {
    let mut world = world();
    let old = id(&post(
        &mut world,
        "prices",
        "currency=usd&product=prod_pro&unit_amount=500&lookup_key=pro&recurring[interval]=month",
    ));
    assert_eq!(refusal(&mut world, "POST", &format!("prices/{old}"), "unit_amount=600").0, 400);
    let new = "currency=usd&product=prod_pro&unit_amount=600&lookup_key=pro&recurring[interval]=month";
    assert_eq!(refusal(&mut world, "POST", "prices", new).1["param"], "lookup_key");
    let new = id(&post(&mut world, "prices", &format!("{new}&transfer_lookup_key=true")));
    assert!(get(&mut world, &format!("prices/{old}"))["lookup_key"].is_null());
    let found = ask(&mut world, "GET", "prices", "lookup_keys[]=pro").body;
    assert_eq!(found["data"][0]["id"], new.as_str());
    post(&mut world, &format!("prices/{old}"), "active=false");
    let customer = crate::support::customer_with(&mut world, "pm_card_visa");
    let (status, error) =
        refusal(&mut world, "POST", "subscriptions", &format!("customer={customer}&items[0][price]={old}"));
    assert_eq!((status, error["param"].as_str()), (400, Some("items[0][price]")), "{error}");
}

#[test]
fn the_same_seed_gives_the_same_ids() {
    let run = || {
        let mut world = world();
        id(&crate::support::subscribe(&mut world, "price_pro", ""))
    };
    assert_eq!(run(), run());
}
