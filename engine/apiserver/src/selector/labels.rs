//! The language of label selectors: `a=b,c!=d,e in (f,g),!h,i>1`. Faults are worded as Kubernetes words them.

use std::collections::BTreeSet;

use super::Test;
use crate::metadata;

/// A word of a selector. Words that are no symbol are names, or values, or operators, as their place says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word<'a> {
    Symbol(&'a str),
    Name(&'a str),
    End,
}

impl<'a> Word<'a> {
    fn text(self) -> &'a str {
        match self {
            Self::Symbol(text) | Self::Name(text) => text,
            Self::End => "",
        }
    }
}

const SYMBOLS: [&str; 9] = ["==", "!=", "=", "!", "(", ")", ",", ">", "<"];

fn words(mut text: &str) -> Vec<Word<'_>> {
    let mut out = Vec::new();
    loop {
        text = text.trim_start_matches([' ', '\t', '\r', '\n']);
        if text.is_empty() {
            out.push(Word::End);
            return out;
        }
        let symbol = SYMBOLS.into_iter().find(|s| text.starts_with(s));
        let length = symbol.map_or_else(
            || {
                text.find(|c| " \t\r\n=!(),><".contains(c))
                    .unwrap_or(text.len())
            },
            str::len,
        );
        let (word, rest) = text.split_at(length);
        out.push(match symbol {
            Some(_) => Word::Symbol(word),
            None => Word::Name(word),
        });
        text = rest;
    }
}

/// The requirements of a selector: keys, and what is asked of them.
///
/// # Errors
/// What is wrong with it.
pub(super) fn parse(text: &str) -> Result<Vec<(String, Test)>, String> {
    let words = words(text);
    let mut reader = Reader { words: &words };
    let mut out = Vec::new();
    loop {
        match reader.peek() {
            Word::Name(_) | Word::Symbol("!") => {}
            Word::End => return Ok(out),
            other => {
                return Err(format!(
                    "found '{}', expected: !, identifier, or 'end of string'",
                    other.text()
                ));
            }
        }
        let requirement = reader.requirement();
        out.push(requirement.map_err(|why| format!("unable to parse requirement: {why}"))?);
        match reader.next() {
            Word::End => return Ok(out),
            Word::Symbol(",") => match reader.peek() {
                Word::Name(_) | Word::Symbol("!") => {}
                other => {
                    return Err(format!(
                        "found '{}', expected: identifier after ','",
                        other.text()
                    ));
                }
            },
            other => {
                return Err(format!(
                    "found '{}', expected: ',' or 'end of string'",
                    other.text()
                ));
            }
        }
    }
}

struct Reader<'a> {
    words: &'a [Word<'a>],
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Word<'a> {
        self.words.first().copied().unwrap_or(Word::End)
    }

    fn next(&mut self) -> Word<'a> {
        let word = self.peek();
        self.words = self.words.get(1..).unwrap_or_default();
        word
    }

    fn requirement(&mut self) -> Result<(String, Test), String> {
        let missing = self.peek() == Word::Symbol("!");
        if missing {
            self.next();
        }
        let key = match self.next() {
            Word::Name(key) => key,
            other => return Err(format!("found '{}', expected: identifier", other.text())),
        };
        if let [first, rest @ ..] = metadata::label_key(key).as_slice() {
            let why = rest
                .iter()
                .fold(first.clone(), |all, why| format!("{all}; {why}"));
            return Err(format!("<nil>: Invalid value: {key:?}: {why}"));
        }
        let test = if missing {
            Test::Missing
        } else if matches!(self.peek(), Word::End | Word::Symbol(",")) {
            Test::Exists
        } else {
            self.comparison(key)?
        };
        Ok((key.to_owned(), test))
    }

    fn comparison(&mut self, key: &str) -> Result<Test, String> {
        let operator = self.next();
        let values: Vec<String> = match operator {
            Word::Name("in" | "notin") => self.values()?.into_iter().collect(),
            Word::Symbol("=" | "==" | "!=" | ">" | "<") => vec![self.value()?],
            other => {
                return Err(format!(
                    "found '{}', expected: in, notin, =, ==, !=, gt, lt",
                    other.text()
                ));
            }
        };
        let mut faults = Vec::new();
        let ordered = matches!(operator, Word::Symbol(">" | "<"));
        for (i, value) in values.iter().enumerate() {
            if ordered && value.parse::<i64>().is_err() {
                faults.push(format!(
                    "values[{i}]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer"
                ));
            }
            for why in metadata::label_value(value) {
                faults.push(format!(
                    "values[{i}][{key}]: Invalid value: {value:?}: {why}"
                ));
            }
        }
        match faults.as_slice() {
            [] => {}
            [one] => return Err(one.clone()),
            many => return Err(format!("[{}]", many.join(", "))),
        }
        let number = || values.first().and_then(|v| v.parse().ok()).unwrap_or(0);
        Ok(match operator.text() {
            "in" | "=" | "==" => Test::In(values),
            ">" => Test::Above(number()),
            "<" => Test::Below(number()),
            _ => Test::NotIn(values),
        })
    }

    fn value(&mut self) -> Result<String, String> {
        match self.peek() {
            Word::End | Word::Symbol(",") => Ok(String::new()),
            Word::Name(value) => {
                self.next();
                Ok(value.to_owned())
            }
            Word::Symbol(other) => Err(format!("found '{other}', expected: identifier")),
        }
    }

    /// The values in parentheses; between two commas stands an empty one.
    fn values(&mut self) -> Result<BTreeSet<String>, String> {
        match self.next() {
            Word::Symbol("(") => {}
            other => return Err(format!("found '{}' expected: '('", other.text())),
        }
        let mut out = BTreeSet::new();
        match self.peek() {
            Word::Name(_) | Word::Symbol(",") => {}
            Word::Symbol(")") => {
                self.next();
                out.insert(String::new());
                return Ok(out);
            }
            other => {
                return Err(format!(
                    "found '{}', expected: ',', ')' or identifier",
                    other.text()
                ));
            }
        }
        loop {
            match self.next() {
                Word::Name(value) => {
                    out.insert(value.to_owned());
                    match self.peek() {
                        Word::Symbol(",") => {}
                        Word::Symbol(")") => break,
                        other => {
                            return Err(format!("found '{}', expected: ',' or ')'", other.text()));
                        }
                    }
                }
                Word::Symbol(",") => {
                    if out.is_empty() {
                        out.insert(String::new());
                    }
                    match self.peek() {
                        Word::Symbol(")") => {
                            out.insert(String::new());
                            break;
                        }
                        Word::Symbol(",") => {
                            self.next();
                            out.insert(String::new());
                        }
                        _ => {}
                    }
                }
                other => {
                    return Err(format!(
                        "found '{}', expected: ',', or identifier",
                        other.text()
                    ));
                }
            }
        }
        self.next();
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn faults_are_told_as_kubernetes_tells_them() {
        let table = [
            ("x,", "found '', expected: identifier after ','"),
            (
                "(x)",
                "found '(', expected: !, identifier, or 'end of string'",
            ),
            (
                "x in 1",
                "unable to parse requirement: found '1' expected: '('",
            ),
            (
                "x in (1",
                "unable to parse requirement: found '', expected: ',' or ')'",
            ),
            ("x=a b", "found 'b', expected: ',' or 'end of string'"),
            (
                "!",
                "unable to parse requirement: found '', expected: identifier",
            ),
            ("!x=1", "found '=', expected: ',' or 'end of string'"),
            (
                "a b",
                "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt",
            ),
            (
                "x>=1",
                "unable to parse requirement: found '=', expected: identifier",
            ),
            (
                "x>a",
                "unable to parse requirement: values[0]: Invalid value: \"a\": for 'Gt', 'Lt' operators, the value must be an integer",
            ),
        ];
        for (text, fault) in table {
            assert_eq!(super::parse(text).err().as_deref(), Some(fault), "{text}");
        }
        for good in [
            "",
            " a ",
            "!a",
            "a=,b",
            "in in (in)",
            "a notin (,b)",
            "a in ()",
            "x < 3,y>2",
        ] {
            assert!(super::parse(good).is_ok(), "{good}");
        }
    }
}
