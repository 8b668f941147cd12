//! Money as Stripe counts it: a whole number of minor units beside a currency.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// Currencies whose smallest unit in Stripe's API is the whole unit (¥1, not ¥0.01).
///
/// Stripe's list, not ISO 4217's: ISK and UGX have no minor unit in ISO 4217, yet Stripe counts them in hundredths.
const ZERO_DECIMAL: [&str; 15] =
    ["bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf"];

/// Currencies counted in thousandths.
const THREE_DECIMAL: [&str; 7] = ["bhd", "iqd", "jod", "kwd", "lyd", "omr", "tnd"];

/// Everything else that circulates. Codes are only ever added: the log may name a retired currency for ever
/// (`ang`, `bgn`, `hrk`, `sll`, `std`, `zwl` and the like).
const TWO_DECIMAL: [&str; 144] = [
    "aed", "afn", "all", "amd", "ang", "aoa", "ars", "aud", "awg", "azn", "bam", "bbd", "bdt", "bgn", "bmd", "bnd",
    "bob", "brl", "bsd", "btn", "bwp", "byn", "byr", "bzd", "cad", "cdf", "chf", "cny", "cop", "crc", "cuc", "cup",
    "cve", "czk", "dkk", "dop", "dzd", "eek", "egp", "ern", "etb", "eur", "fjd", "fkp", "gbp", "gel", "ghs", "gip",
    "gmd", "gtq", "gyd", "hkd", "hnl", "hrk", "htg", "huf", "idr", "ils", "inr", "irr", "isk", "jmd", "kes", "kgs",
    "khr", "kpw", "kyd", "kzt", "lak", "lbp", "lkr", "lrd", "lsl", "ltl", "lvl", "mad", "mdl", "mkd", "mmk", "mnt",
    "mop", "mro", "mru", "mur", "mvr", "mwk", "mxn", "myr", "mzn", "nad", "ngn", "nio", "nok", "npr", "nzd", "pab",
    "pen", "pgk", "php", "pkr", "pln", "qar", "ron", "rsd", "rub", "sar", "sbd", "scr", "sdg", "sek", "sgd", "shp",
    "sle", "sll", "sos", "srd", "ssp", "std", "stn", "svc", "syp", "szl", "thb", "tjs", "tmt", "top", "try", "ttd",
    "twd", "tzs", "uah", "ugx", "usd", "uyu", "uzs", "vef", "ves", "wst", "xcd", "xcg", "yer", "zar", "zmw", "zwl",
];

/// A currency by its ISO 4217 alphabetic code, lower case as Stripe writes it.
///
/// It can only hold a code we know, so a misspelt one is refused where it enters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency(&'static str);

/// A text that is no currency code we know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is not an ISO 4217 currency code (write one such as \"usd\" or \"eur\")")]
pub struct UnknownCurrency;

impl Currency {
    /// United States dollar.
    pub const USD: Currency = Currency("usd");
    /// Euro.
    pub const EUR: Currency = Currency("eur");

    /// Reads a code in either case.
    ///
    /// # Errors
    /// When it is not the code of a currency in circulation, now or when the log named it.
    pub fn parse(code: &str) -> Result<Currency, UnknownCurrency> {
        [&TWO_DECIMAL[..], &ZERO_DECIMAL, &THREE_DECIMAL]
            .into_iter()
            .flatten()
            .find(|known| known.eq_ignore_ascii_case(code))
            .map(|known| Currency(known))
            .ok_or(UnknownCurrency)
    }

    /// The code, lower case.
    pub fn as_str(&self) -> &'static str {
        self.0
    }

    /// How many decimal digits Stripe's minor unit stands for: 2 for `usd` (cents), 0 for `jpy`, 3 for `kwd`.
    pub fn minor_unit_digits(&self) -> u32 {
        if ZERO_DECIMAL.contains(&self.0) {
            0
        } else if THREE_DECIMAL.contains(&self.0) {
            3
        } else {
            2
        }
    }

    /// The smallest step in which Stripe charges this currency, in minor units: three-decimal amounts must end in 0,
    /// and `isk` and `ugx` are counted in hundredths that must be 00.
    pub fn charge_step(&self) -> i64 {
        match self.0 {
            "isk" | "ugx" => 100,
            code if THREE_DECIMAL.contains(&code) => 10,
            _ => 1,
        }
    }
}

// By hand, because the derived reader would demand input that lives as long as the codes in here.
impl Serialize for Currency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0)
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let code = Cow::<'de, str>::deserialize(deserializer)?;
        Currency::parse(&code).map_err(|unknown| D::Error::custom(format!("{code:?} {unknown}")))
    }
}

impl FromStr for Currency {
    type Err = UnknownCurrency;

    fn from_str(code: &str) -> Result<Self, Self::Err> {
        Currency::parse(code)
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0)
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0)
    }
}

/// An amount of one currency. Negative amounts are owed the other way (refunds, credit notes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Money {
    /// Minor units of `currency`, as Stripe counts them.
    pub amount: i64,
    pub currency: Currency,
}

/// Why two amounts have no sum or difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    #[error("amounts of {left} and {right} cannot be added or subtracted")]
    CurrencyMismatch { left: Currency, right: Currency },
    #[error("the amount does not fit into 64 bits")]
    Overflow,
}

impl Money {
    pub fn new(amount: i64, currency: Currency) -> Money {
        Money { amount, currency }
    }

    /// # Errors
    /// When the currencies differ or the sum does not fit.
    pub fn checked_add(self, other: Money) -> Result<Money, MoneyError> {
        self.combine(other, i64::checked_add)
    }

    /// # Errors
    /// When the currencies differ or the difference does not fit.
    pub fn checked_sub(self, other: Money) -> Result<Money, MoneyError> {
        self.combine(other, i64::checked_sub)
    }

    fn combine(self, other: Money, operation: fn(i64, i64) -> Option<i64>) -> Result<Money, MoneyError> {
        if self.currency != other.currency {
            return Err(MoneyError::CurrencyMismatch { left: self.currency, right: other.currency });
        }
        let amount = operation(self.amount, other.amount).ok_or(MoneyError::Overflow)?;
        Ok(Money::new(amount, self.currency))
    }
}

impl fmt::Display for Money {
    /// Major units, such as `-9.99 usd` or `500 jpy`; for people, never to be parsed.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.amount < 0 { "-" } else { "" };
        let absolute = self.amount.unsigned_abs();
        let digits = self.currency.minor_unit_digits();
        let unit = 10_u64.pow(digits);
        match digits {
            0 => write!(formatter, "{sign}{absolute} {}", self.currency),
            _ => write!(
                formatter,
                "{sign}{}.{:0width$} {}",
                absolute / unit,
                absolute % unit,
                self.currency,
                width = digits as usize
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_in_either_case_and_kept_in_lower_case() {
        assert_eq!(Currency::parse("EUR"), Ok(Currency::EUR));
        assert_eq!(Currency::parse("eUr").unwrap().as_str(), "eur");
    }

    #[test]
    fn what_is_no_currency_is_refused() {
        for code in ["", "us", "usdd", "xyz", "xau", "u\u{0}d", "€"] {
            assert_eq!(Currency::parse(code), Err(UnknownCurrency), "{code:?}");
        }
    }

    #[test]
    fn minor_units_are_stripes_own() {
        for (code, digits, step) in
            [("usd", 2, 1), ("jpy", 0, 1), ("kwd", 3, 10), ("isk", 2, 100), ("ugx", 2, 100), ("mga", 0, 1)]
        {
            let currency = Currency::parse(code).unwrap();
            assert_eq!((currency.minor_unit_digits(), currency.charge_step()), (digits, step), "{code}");
        }
    }

    #[test]
    fn every_listed_code_is_three_letters_and_listed_once() {
        let mut codes: Vec<_> = [&TWO_DECIMAL[..], &ZERO_DECIMAL, &THREE_DECIMAL].concat();
        assert!(codes.iter().all(|code| code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_lowercase())));
        let listed = codes.len();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), listed);
    }

    #[test]
    fn json_is_the_bare_code() {
        assert_eq!(serde_json::to_string(&Currency::USD).unwrap(), "\"usd\"");
        assert_eq!(serde_json::from_str::<Currency>("\"JPY\"").unwrap().as_str(), "jpy");
        assert!(serde_json::from_str::<Currency>("\"nope\"").is_err());
    }

    #[test]
    fn sums_are_checked() {
        let dollars = |amount| Money::new(amount, Currency::USD);
        assert_eq!(dollars(999).checked_add(dollars(1)), Ok(dollars(1000)));
        assert_eq!(dollars(1).checked_sub(dollars(999)), Ok(dollars(-998)));
        assert_eq!(dollars(i64::MAX).checked_add(dollars(1)), Err(MoneyError::Overflow));
        assert_eq!(dollars(i64::MIN).checked_sub(dollars(1)), Err(MoneyError::Overflow));
        let mismatch = MoneyError::CurrencyMismatch { left: Currency::USD, right: Currency::EUR };
        assert_eq!(dollars(1).checked_add(Money::new(1, Currency::EUR)), Err(mismatch));
    }

    #[test]
    fn money_is_shown_in_major_units() {
        let shown = |amount, code| Money::new(amount, Currency::parse(code).unwrap()).to_string();
        assert_eq!(shown(999, "usd"), "9.99 usd");
        assert_eq!(shown(-5, "usd"), "-0.05 usd");
        assert_eq!(shown(500, "jpy"), "500 jpy");
        assert_eq!(shown(1230, "kwd"), "1.230 kwd");
        assert_eq!(shown(i64::MIN, "jpy"), "-9223372036854775808 jpy");
    }
}
