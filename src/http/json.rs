//! JSON written by hand, for the one answer that is asked for before every unit of work: serializing it in the usual way,
//! which looks over each byte of names and texts, cost more than finding and deciding it.

use chrono::{DateTime, Datelike, Timelike, Utc};
use serde::Serialize;

/// The text of an object, about as long as `bytes`.
pub fn object(bytes: usize, fill: impl FnOnce(&mut JsonObject<'_>)) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes);
    write_object(&mut text, fill);
    text
}

fn write_object(text: &mut Vec<u8>, fill: impl FnOnce(&mut JsonObject<'_>)) {
    text.push(b'{');
    fill(&mut JsonObject { text, has_fields: false });
    text.push(b'}');
}

/// An object in the making.
#[derive(Debug)]
pub struct JsonObject<'a> {
    text: &'a mut Vec<u8>,
    has_fields: bool,
}

// Where they are called, names and their lengths are known, and copying one takes an instruction or two.
impl JsonObject<'_> {
    /// Begins a field. Names are our own, and need no escaping.
    #[inline(always)]
    fn field(&mut self, name: &'static str) {
        self.text.extend_from_slice(if self.has_fields { b",\"" } else { b"\"" });
        self.has_fields = true;
        self.text.extend_from_slice(name.as_bytes());
        self.text.extend_from_slice(b"\":");
    }

    #[inline(always)]
    pub fn boolean(&mut self, name: &'static str, value: bool) {
        self.field(name);
        self.text.extend_from_slice(if value { b"true" } else { b"false" });
    }

    #[inline(always)]
    pub fn number(&mut self, name: &'static str, value: i64) {
        self.field(name);
        self.text.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    #[inline(always)]
    pub fn text(&mut self, name: &'static str, value: &str) {
        if !value.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\') {
            return self.value(name, value);
        }
        self.written(name, |text| text.extend_from_slice(value.as_bytes()));
    }

    /// A text that has no need of escaping, written by whoever knows it.
    #[inline(always)]
    pub fn written(&mut self, name: &'static str, write: impl FnOnce(&mut Vec<u8>)) {
        self.field(name);
        self.text.push(b'"');
        write(self.text);
        self.text.push(b'"');
    }

    /// RFC 3339, with as many digits as it takes: none, three, six or nine.
    pub fn time(&mut self, name: &'static str, at: DateTime<Utc>) {
        // Asked for a part, a DateTime works out its offset each time.
        let utc = at.naive_utc();
        let (Ok(year), nanos) = (u32::try_from(utc.year()), utc.nanosecond()) else { return self.value(name, &at) };
        if year > 9_999 || nanos > 999_999_999 {
            return self.value(name, &at);
        }
        self.written(name, |text| {
            digits(text, year, 4);
            for (mark, number) in
                [(b'-', utc.month()), (b'-', utc.day()), (b'T', utc.hour()), (b':', utc.minute()), (b':', utc.second())]
            {
                text.push(mark);
                digits(text, number, 2);
            }
            let fraction = match nanos {
                0 => None,
                _ if nanos % 1_000_000 == 0 => Some((nanos / 1_000_000, 3)),
                _ if nanos % 1_000 == 0 => Some((nanos / 1_000, 6)),
                _ => Some((nanos, 9)),
            };
            if let Some((number, count)) = fraction {
                text.push(b'.');
                digits(text, number, count);
            }
            text.push(b'Z');
        });
    }

    #[inline(always)]
    pub fn object(&mut self, name: &'static str, fill: impl FnOnce(&mut JsonObject<'_>)) {
        self.field(name);
        write_object(self.text, fill);
    }

    #[inline(always)]
    pub fn number_or_null(&mut self, name: &'static str, value: Option<i64>) {
        match value {
            Some(value) => self.number(name, value),
            None => self.null(name),
        }
    }

    #[inline(always)]
    pub fn text_or_null(&mut self, name: &'static str, value: Option<&str>) {
        match value {
            Some(value) => self.text(name, value),
            None => self.null(name),
        }
    }

    #[inline(always)]
    pub fn value_or_null(&mut self, name: &'static str, value: Option<&impl Serialize>) {
        match value {
            Some(value) => self.value(name, value),
            None => self.null(name),
        }
    }

    #[inline(always)]
    fn null(&mut self, name: &'static str) {
        self.field(name);
        self.text.extend_from_slice(b"null");
    }

    /// Whatever else, in the usual way.
    pub fn value(&mut self, name: &'static str, value: &(impl Serialize + ?Sized)) {
        self.field(name);
        // Values of ours have texts for keys and finite numbers, and memory takes what is written.
        let _ = serde_json::to_writer(&mut *self.text, value);
    }
}

fn digits(text: &mut Vec<u8>, number: u32, count: u32) {
    const ZEROS: &[u8] = b"000000000";
    let mut buffer = itoa::Buffer::new();
    let number = buffer.format(number).as_bytes();
    text.extend_from_slice(&ZEROS[..(count as usize).saturating_sub(number.len()).min(ZEROS.len())]);
    text.extend_from_slice(number);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_serde_writes() {
        let texts = ["", "plain", "one \" quote", "one \\ backslash", "line\nfeed\u{1f}", "\u{7f}", "é €"];
        for (number, value) in [0, 1, -1, i64::MAX, i64::MIN].into_iter().cycle().zip(texts) {
            let text = object(64, |object| {
                object.number("number", number);
                object.text("text", value);
                object.boolean("boolean", number > 0);
                object.object("empty", |_| ());
                object.object("inner", |inner| inner.value("value", &[value]));
            });
            let expected = format!(
                r#"{{"number":{number},"text":{0},"boolean":{1},"empty":{{}},"inner":{{"value":[{0}]}}}}"#,
                serde_json::to_string(value).expect("JSON"),
                number > 0
            );
            assert_eq!(String::from_utf8_lossy(&text), expected);
        }
    }

    #[test]
    fn times_are_written_as_serde_writes_them() {
        let seconds =
            [0, 1_768_478_400, 951_782_399, 253_402_300_799, 253_402_300_800, -1, -62_167_219_200, -62_167_219_201];
        for second in seconds {
            for nanos in [0, 1, 500_000_000, 123_456_000, 1_000, 999_999_999, 1_500_000_000] {
                let Some(at) = DateTime::from_timestamp(second, nanos) else { continue };
                let expected = format!(r#"{{"at":{}}}"#, serde_json::to_string(&at).expect("JSON"));
                assert_eq!(String::from_utf8_lossy(&object(64, |object| object.time("at", at))), expected);
            }
        }
    }
}
