//! The settings file: TOML, read into values with the place where each stands.

use std::fmt;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::settings::keys::{self, Key, Kind, similar};
use crate::settings::resolve::Draft;
use crate::settings::tables;

/// Largest settings file, in bytes: rules for a hundred thousand users.
const MAX_BYTES: u64 = 16 << 20;
/// The tables that only the file has.
const TABLES: [&str; 2] = ["users", "repos"];

/// Something is wrong with a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where the setting comes from: a place in a file, a variable, a flag.
    pub place: String,
    /// What is wrong, and what to do.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}

/// A value of the file: its setting, the texts it consists of, and where it stands.
pub struct Value {
    /// The setting.
    pub key: &'static Key,
    /// One text, or those of a list.
    pub texts: Vec<String>,
    /// `FILE:LINE:COLUMN`.
    pub place: String,
}

/// Tells lines and columns of one file.
pub struct Places<'f> {
    name: String,
    text: &'f str,
    /// What is wrong so far.
    pub problems: Vec<Problem>,
    /// Notes on settings that are right, for the operator.
    pub notes: Vec<Problem>,
}

impl Places<'_> {
    fn place(&self, offset: usize) -> String {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        format!("{}:{line}:{column}", self.name)
    }

    /// Notes what is wrong with a value.
    pub fn wrong<T>(&mut self, value: &Spanned<T>, text: impl Into<String>) {
        let place = self.place(value.span().start);
        self.problems.push(Problem { place, text: text.into() });
    }

    /// Tells how a value was understood, if there is something to tell.
    pub fn note<T>(&mut self, value: &Spanned<T>, text: Option<String>) {
        let place = self.place(value.span().start);
        self.notes.extend(text.map(|text| Problem { place, text }));
    }

    /// Notes a table that does not exist, or a setting that is none.
    fn not_a_table(&mut self, name: &Spanned<impl AsRef<str>>, value: &Spanned<DeValue<'_>>) {
        let text = name.get_ref().as_ref();
        let meant = match similar(text, TABLES.into_iter()) {
            Some("repos") => ": did you mean [repos.\"/PATH/\"]?".to_owned(),
            Some(table) => {
                let sub = value
                    .get_ref()
                    .as_table()
                    .and_then(|table| table.keys().next().map(|key| key.get_ref().to_string()));
                format!(": did you mean [{table}.{}]?", sub.unwrap_or_else(|| "NAME".into()).escape_debug())
            }
            None => String::new(),
        };
        self.wrong(name, format!("there is no table `{}`{meant}", text.escape_debug()));
    }

    /// Notes a key that does not exist.
    pub fn unknown<'n>(&mut self, key: &Spanned<impl AsRef<str>>, known: impl Iterator<Item = &'n str>) {
        let name = key.get_ref().as_ref();
        let hint = similar(name, known).map(|known| format!(": did you mean `{known}`?")).unwrap_or_default();
        self.wrong(key, format!("there is no setting `{}`{hint}", name.escape_debug()));
    }
}

/// What was read of a settings file.
#[derive(Default)]
pub struct Read {
    /// The values.
    pub values: Vec<Value>,
    /// Mistakes.
    pub problems: Vec<Problem>,
    /// Notes on settings that are right, for the operator.
    pub notes: Vec<Problem>,
}

/// The text of a file. A pipe is read if a shell has made it (`<(...)`): any other would hold up a reload for ever.
///
/// # Errors
/// Also of what is neither, and of more than 16 MiB.
pub fn text_of(path: &Path) -> std::io::Result<String> {
    let meta = std::fs::metadata(path)?;
    if !meta.is_file() && !path.starts_with("/dev/fd") {
        return Err(std::io::Error::other("it is no regular file"));
    }
    if meta.len() > MAX_BYTES {
        return Err(std::io::Error::other("the file is larger than 16 MiB"));
    }
    std::fs::read_to_string(path)
}

/// Reads a settings file. Tables of users and repositories go straight into `draft`.
///
/// # Errors
/// The file can't be read at all; everything else is among the problems.
pub fn read(path: &Path, draft: &mut Draft) -> Result<Read, Problem> {
    let name = path.display().to_string();
    let text = text_of(path).map_err(|e| Problem {
        place: name.clone(),
        text: format!("the settings file can't be read: {e}"),
    })?;
    Ok(parse(name, &text, draft))
}

/// The same of a text.
pub fn parse(name: String, text: &str, draft: &mut Draft) -> Read {
    let mut places = Places { name, text, problems: Vec::new(), notes: Vec::new() };
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let place = places.place(error.span().map_or(0, |span| span.start));
        places.problems.push(Problem { place, text: error.message().to_owned() });
    }
    let mut values = Vec::new();
    for (name, value) in table.get_ref() {
        match (name.get_ref().as_ref(), value.get_ref()) {
            ("users", DeValue::Table(users)) => tables::users(users, draft, &mut places),
            ("repos", DeValue::Table(repos)) => tables::repos(repos, draft, &mut places),
            (known, _) if TABLES.contains(&known) => places.wrong(value, format!("`{known}` is a table")),
            (known, _) => match keys::find(known) {
                _ if value.get_ref().is_table() => places.not_a_table(name, value),
                None => places.unknown(name, keys::all().map(|key| key.name).chain(TABLES)),
                Some(key) => match texts(key.kind, value) {
                    Ok(texts) => {
                        let place = places.place(value.span().start);
                        values.push(Value { key, texts, place });
                    }
                    Err(text) => places.wrong(value, text),
                },
            },
        }
    }
    Read { values, problems: places.problems, notes: places.notes }
}

/// A value as the text that its flag would have.
fn texts(kind: Kind, value: &Spanned<DeValue<'_>>) -> Result<Vec<String>, String> {
    match (kind, value.get_ref()) {
        (Kind::List, DeValue::Array(items)) => {
            items.iter().map(|item| scalar(Kind::Text, item.get_ref())).collect()
        }
        (kind, value) => scalar(kind, value).map(|text| vec![text]),
    }
}

/// A single value as text.
pub(super) fn scalar(kind: Kind, value: &DeValue<'_>) -> Result<String, String> {
    let wanted = match kind {
        Kind::Switch => "true or false",
        Kind::Number => "a whole number",
        Kind::Size => "a number of bytes, or text such as \"500MiB\"",
        Kind::Time => "text such as \"10s\"",
        Kind::Text => "text in quotes",
        Kind::List => "text in quotes, or a list of them",
    };
    match (kind, value) {
        (Kind::Switch, DeValue::Boolean(on)) => Ok(on.to_string()),
        (Kind::Number | Kind::Size, DeValue::Integer(number)) if number.radix() == 10 => {
            Ok(number.as_str().replace('_', ""))
        }
        (Kind::Size | Kind::Time | Kind::Text | Kind::List, DeValue::String(text)) => Ok(text.to_string()),
        (_, DeValue::String(text)) => Err(format!("`{}`: write {wanted}", text.escape_debug())),
        _ => Err(format!("write {wanted}")),
    }
}
