//! Reading TOML tables field by field, with the line of each and all the problems found on the way.

use super::FeatureKind;
use super::errors::{CatalogError, CatalogErrors, Problem, nearest, path, quoted, shortened};
use std::collections::{BTreeMap, BTreeSet};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A table of the file and where it stands.
pub(super) struct Section<'t> {
    pub(super) path: String,
    pub(super) table: &'t DeTable<'t>,
}

/// A value of the file and where it stands.
pub(super) struct Field<'t> {
    pub(super) path: String,
    pub(super) value: &'t DeValue<'t>,
}

/// Reads values and keeps account of what was wrong with them.
#[derive(Default)]
pub(super) struct Reader {
    /// Byte offsets at which lines begin.
    line_starts: Vec<usize>,
    /// Line of every path that was met.
    lines: BTreeMap<String, usize>,
    pub(super) problems: Vec<Problem>,
    /// Paths whose value is a stand-in; rules about them would only repeat the problem in other words.
    pub(super) unreadable: BTreeSet<String>,
    /// Features as far as they are declared, to make sense of what the plans say about them.
    pub(super) feature_kinds: BTreeMap<String, FeatureKind>,
}

impl Reader {
    pub(super) fn new(text: &str) -> Reader {
        let starts = text.match_indices('\n').map(|(index, _)| index + 1);
        Reader { line_starts: std::iter::once(0).chain(starts).collect(), ..Reader::default() }
    }

    pub(super) fn syntax_errors(&self, syntax_errors: &[toml::de::Error]) -> CatalogErrors {
        let mut found: Vec<_> = syntax_errors
            .iter()
            .map(|error| CatalogError {
                line: error.span().map_or(1, |span| self.line_of_offset(span.start)),
                field: String::new(),
                message: format!("not valid TOML: {}", error.message().replace('\n', ", ")),
            })
            .collect();
        found.sort_by_key(|error| error.line);
        found.dedup();
        CatalogErrors(found)
    }

    fn line_of_offset(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset)
    }

    /// The line of a path, or of the nearest table around it: what is missing has no line of its own.
    pub(super) fn line_of_path(&self, field: &str) -> usize {
        let mut field = field;
        loop {
            if let Some(line) = self.lines.get(field) {
                return *line;
            }
            match field.rfind('.') {
                Some(dot) => field = &field[..dot],
                None => return 1,
            }
        }
    }

    pub(super) fn problem(&mut self, field: &str, message: impl Into<String>) {
        self.unreadable.insert(field.to_owned());
        self.problems.push(Problem { field: field.to_owned(), message: message.into() });
    }

    /// Reports names that mean nothing here. The name probably meant counts as met, lest it be reported missing too.
    pub(super) fn refuse_unknown_names(&mut self, section: &Section<'_>, known: &[&'static str]) {
        for (name, field) in self.fields(section) {
            if known.contains(&name.as_str()) {
                continue;
            }
            let cure = match nearest(&name, known.iter().copied()) {
                Some(meant) => {
                    if self.field(section, meant).is_none() {
                        self.unreadable.insert(path(&section.path, meant));
                    }
                    format!("did you mean `{meant}`?")
                }
                None => format!("known here: {}", known.join(", ")),
            };
            self.problem(&field.path, format!("unknown name ({cure})"));
        }
    }

    /// All fields of a table, in the order of the file.
    pub(super) fn fields<'t>(&mut self, section: &Section<'t>) -> Vec<(String, Field<'t>)> {
        let mut entries: Vec<_> = section.table.iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        entries.into_iter().map(|(name, value)| (name.get_ref().to_string(), self.met(section, name, value))).collect()
    }

    pub(super) fn field<'t>(&mut self, section: &Section<'t>, name: &str) -> Option<Field<'t>> {
        let (name, value) = section.table.iter().find(|(key, _)| key.get_ref() == name)?;
        Some(self.met(section, name, value))
    }

    fn met<'t>(
        &mut self,
        section: &Section<'_>,
        name: &Spanned<toml::de::DeString<'_>>,
        value: &'t Spanned<DeValue<'t>>,
    ) -> Field<'t> {
        let path = path(&section.path, name.get_ref());
        self.lines.insert(path.clone(), self.line_of_offset(name.span().start));
        Field { path, value: value.get_ref() }
    }

    pub(super) fn section<'t>(&mut self, parent: &Section<'t>, name: &str) -> Option<Section<'t>> {
        let field = self.field(parent, name)?;
        self.as_section(field)
    }

    /// The tables in the table `name`, by their keys.
    pub(super) fn sections<'t>(&mut self, parent: &Section<'t>, name: &str) -> Vec<(String, Section<'t>)> {
        let Some(outer) = self.section(parent, name) else {
            return Vec::new();
        };
        let fields = self.fields(&outer);
        fields.into_iter().filter_map(|(key, field)| Some((key, self.as_section(field)?))).collect()
    }

    fn as_section<'t>(&mut self, field: Field<'t>) -> Option<Section<'t>> {
        match field.value {
            DeValue::Table(table) => Some(Section { path: field.path, table }),
            other => {
                self.problem(&field.path, format!("is {} (write it as a table: [{}])", shown(other), field.path));
                None
            }
        }
    }

    pub(super) fn required<'t>(&mut self, section: &Section<'t>, name: &str, example: &str) -> Option<Field<'t>> {
        let found = self.field(section, name);
        let path = path(&section.path, name);
        if found.is_none() && !self.unreadable.contains(&path) {
            self.problem(&path, format!("is missing (add {name}, such as {example})"));
        }
        found
    }

    pub(super) fn required_text(&mut self, section: &Section<'_>, name: &str, example: &str) -> String {
        self.required(section, name, example).and_then(|field| self.text(&field)).unwrap_or_default()
    }

    pub(super) fn required_integer<T: Bounded>(
        &mut self,
        section: &Section<'_>,
        name: &str,
        example: &str,
    ) -> Option<T> {
        self.required(section, name, example).and_then(|field| self.integer(&field))
    }

    /// An amount of money in minor units.
    pub(super) fn unit_amount(&mut self, section: &Section<'_>) -> i64 {
        let Some(field) = self.required(section, "unit_amount", "999 for 9.99") else {
            return 0;
        };
        if let DeValue::Float(_) = field.value {
            self.unfit(&field, field.value, "minor units, such as 999 for 9.99");
            return 0;
        }
        self.integer(&field).unwrap_or(0)
    }

    pub(super) fn optional_text(&mut self, section: &Section<'_>, name: &str) -> Option<String> {
        self.field(section, name).and_then(|field| self.text(&field))
    }

    pub(super) fn optional_texts(&mut self, section: &Section<'_>, name: &str) -> Vec<String> {
        self.field(section, name).map(|field| self.texts(&field)).unwrap_or_default()
    }

    pub(super) fn optional_integer<T: Bounded>(&mut self, section: &Section<'_>, name: &str) -> Option<T> {
        self.field(section, name).and_then(|field| self.integer(&field))
    }

    pub(super) fn optional_boolean(&mut self, section: &Section<'_>, name: &str) -> Option<bool> {
        let field = self.field(section, name)?;
        match field.value {
            DeValue::Boolean(value) => Some(*value),
            other => {
                self.unfit(&field, other, "true or false");
                None
            }
        }
    }

    pub(super) fn text(&mut self, field: &Field<'_>) -> Option<String> {
        match field.value {
            DeValue::String(text) => Some(text.to_string()),
            other => {
                self.unfit(field, other, "a text in quotes");
                None
            }
        }
    }

    pub(super) fn texts(&mut self, field: &Field<'_>) -> Vec<String> {
        let DeValue::Array(items) = field.value else {
            self.unfit(field, field.value, "a list such as [\"a\", \"b\"]");
            return Vec::new();
        };
        let items = items.iter().map(|item| Field { path: field.path.clone(), value: item.get_ref() });
        items.filter_map(|item| self.text(&item)).collect()
    }

    pub(super) fn integer<T: Bounded>(&mut self, field: &Field<'_>) -> Option<T> {
        let DeValue::Integer(integer) = field.value else {
            self.unfit(field, field.value, "a whole number");
            return None;
        };
        let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok().and_then(|wide| wide.try_into().ok());
        if number.is_none() {
            self.problem(
                &field.path,
                format!("{} is out of range (write at least {} and at most {})", shown(field.value), T::MIN, T::MAX),
            );
        }
        number
    }

    pub(super) fn one_of<T: Copy>(&mut self, field: &Field<'_>, known: &[(&'static str, T)]) -> Option<T> {
        let word = match field.value {
            DeValue::String(word) => word.as_ref(),
            _ => "",
        };
        let found = known.iter().find(|(name, _)| *name == word).map(|(_, value)| *value);
        if found.is_none() {
            let names: Vec<_> = known.iter().map(|(name, _)| format!("\"{name}\"")).collect();
            self.unfit(field, field.value, &names.join(" or "));
        }
        found
    }

    pub(super) fn unfit(&mut self, field: &Field<'_>, value: &DeValue<'_>, cure: &str) {
        self.problem(&field.path, format!("is {} (write {cure})", shown(value)));
    }
}

/// Integers of the catalog, with their range for messages.
pub(super) trait Bounded: TryFrom<i64> {
    const MIN: i64;
    const MAX: i64;
}

impl Bounded for i64 {
    const MIN: i64 = i64::MIN;
    const MAX: i64 = i64::MAX;
}

impl Bounded for u32 {
    const MIN: i64 = 0;
    const MAX: i64 = u32::MAX as i64;
}

impl Bounded for i32 {
    const MIN: i64 = i32::MIN as i64;
    const MAX: i64 = i32::MAX as i64;
}

/// A value as a message names it.
fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => quoted(text),
        DeValue::Integer(integer) => shortened(&integer.to_string()),
        DeValue::Float(float) => format!("{}, not a whole number", shortened(float.as_str())),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}
