//! Amounts as people read them.

/// Currencies whose amounts are not in hundredths (<https://docs.stripe.com/currencies>).
const WHOLE: [&str; 15] =
    ["bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf"];
const THOUSANDTHS: [&str; 5] = ["bhd", "jod", "kwd", "omr", "tnd"];

/// Such as `29.99 USD`.
pub fn shown(amount: i64, currency: &str) -> String {
    let currency = currency.to_lowercase();
    let digits = match currency.as_str() {
        whole if WHOLE.contains(&whole) => 0,
        other if THOUSANDTHS.contains(&other) => 3,
        _ => 2,
    };
    let sign = if amount < 0 { "-" } else { "" };
    let unit = 10_u64.pow(digits);
    let (whole, rest) = (amount.unsigned_abs() / unit, amount.unsigned_abs() % unit);
    let fraction = if digits == 0 { String::new() } else { format!(".{rest:0width$}", width = digits as usize) };
    format!("{sign}{whole}{fraction} {}", currency.to_uppercase())
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn each_currency_has_its_own_digits() {
        assert_eq!(shown(2_999, "usd"), "29.99 USD");
        assert_eq!(shown(-5, "eur"), "-0.05 EUR");
        assert_eq!(shown(1_200, "jpy"), "1200 JPY");
        assert_eq!(shown(1_234_567, "kwd"), "1234.567 KWD");
    }
}
