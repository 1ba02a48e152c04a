//! What is wrong with a text that is no JSON, in the words of Go's parser, which Kubernetes' messages quote.

/// The first fault; `None` when the text is JSON after all.
pub(super) fn of(text: &[u8]) -> Option<String> {
    let mut reader = Reader { rest: text };
    let outcome = reader
        .space()
        .value(0)
        .and_then(|()| match reader.space().rest {
            [] => Ok(()),
            [next, ..] => Err(unexpected(*next, "after top-level value")),
        });
    outcome.err()
}

/// How deep arrays and objects may stand in each other: as deep as our own parser goes.
const DEPTH: usize = 128;

struct Reader<'a> {
    rest: &'a [u8],
}

type Outcome = Result<(), String>;

fn unexpected(byte: u8, place: &str) -> String {
    let shown = match byte {
        b'\'' => r"'\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        b' '..=b'~' => format!("'{}'", char::from(byte)),
        b'\n' => r"'\n'".to_owned(),
        b'\r' => r"'\r'".to_owned(),
        b'\t' => r"'\t'".to_owned(),
        // Go shows a byte as the character of that number.
        0xa1.. => format!("'{}'", char::from(byte)),
        _ => format!(r"'\x{byte:02x}'"),
    };
    format!("invalid character {shown} {place}")
}

impl Reader<'_> {
    fn space(&mut self) -> &mut Self {
        while let [b' ' | b'\t' | b'\r' | b'\n', rest @ ..] = self.rest {
            self.rest = rest;
        }
        self
    }

    fn next(&mut self) -> Result<u8, String> {
        let (first, rest) = self
            .rest
            .split_first()
            .ok_or_else(|| "unexpected end of JSON input".to_owned())?;
        self.rest = rest;
        Ok(*first)
    }

    fn value(&mut self, depth: usize) -> Outcome {
        if depth > DEPTH {
            return Err("exceeded max depth".to_owned());
        }
        match self.next()? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => self.string(),
            b'-' => match self.next()? {
                digit @ b'0'..=b'9' => self.number(digit),
                other => Err(unexpected(other, "in numeric literal")),
            },
            digit @ b'0'..=b'9' => self.number(digit),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            other => Err(unexpected(other, "looking for beginning of value")),
        }
    }

    fn literal(&mut self, word: &str) -> Outcome {
        for wanted in word.bytes().skip(1) {
            let got = self.next()?;
            if got != wanted {
                let place = format!("in literal {word} (expecting '{}')", char::from(wanted));
                return Err(unexpected(got, &place));
            }
        }
        Ok(())
    }

    fn digits(&mut self) {
        while let [b'0'..=b'9', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    fn number(&mut self, first: u8) -> Outcome {
        if first != b'0' {
            self.digits();
        }
        if let [b'.', rest @ ..] = self.rest {
            self.rest = rest;
            match self.next()? {
                b'0'..=b'9' => self.digits(),
                other => return Err(unexpected(other, "after decimal point in numeric literal")),
            }
        }
        if let [b'e' | b'E', rest @ ..] = self.rest {
            self.rest = rest;
            let mut byte = self.next()?;
            if matches!(byte, b'+' | b'-') {
                byte = self.next()?;
            }
            if !byte.is_ascii_digit() {
                return Err(unexpected(byte, "in exponent of numeric literal"));
            }
            self.digits();
        }
        Ok(())
    }

    fn string(&mut self) -> Outcome {
        loop {
            match self.next()? {
                b'"' => return Ok(()),
                b'\\' => match self.next()? {
                    b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => {}
                    b'u' => {
                        for _ in 0..4 {
                            let byte = self.next()?;
                            if !byte.is_ascii_hexdigit() {
                                let place = r"in \u hexadecimal character escape";
                                return Err(unexpected(byte, place));
                            }
                        }
                    }
                    other => return Err(unexpected(other, "in string escape code")),
                },
                control @ 0..0x20 => return Err(unexpected(control, "in string literal")),
                _ => {}
            }
        }
    }

    fn object(&mut self, depth: usize) -> Outcome {
        let mut first = true;
        loop {
            match self.space().next()? {
                b'}' if first => return Ok(()),
                b'"' => self.string()?,
                other => {
                    return Err(unexpected(
                        other,
                        "looking for beginning of object key string",
                    ));
                }
            }
            first = false;
            match self.space().next()? {
                b':' => self.space().value(depth + 1)?,
                other => return Err(unexpected(other, "after object key")),
            }
            match self.space().next()? {
                b',' => {}
                b'}' => return Ok(()),
                other => return Err(unexpected(other, "after object key:value pair")),
            }
        }
    }

    fn array(&mut self, depth: usize) -> Outcome {
        if let [b']', rest @ ..] = self.space().rest {
            self.rest = rest;
            return Ok(());
        }
        loop {
            self.space().value(depth + 1)?;
            match self.space().next()? {
                b',' => {}
                b']' => return Ok(()),
                other => return Err(unexpected(other, "after array element")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn faults_are_told_as_go_tells_them() {
        let told = [
            ("", "unexpected end of JSON input"),
            ("{", "unexpected end of JSON input"),
            (
                "{not",
                "invalid character 'n' looking for beginning of object key string",
            ),
            (
                "{\"a\":1,}",
                "invalid character '}' looking for beginning of object key string",
            ),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            (
                "{\"a\":1 2}",
                "invalid character '2' after object key:value pair",
            ),
            ("[1 2]", "invalid character '2' after array element"),
            (
                "[1,]",
                "invalid character ']' looking for beginning of value",
            ),
            ("{} x", "invalid character 'x' after top-level value"),
            (
                "trux",
                "invalid character 'x' in literal true (expecting 'e')",
            ),
            ("-x", "invalid character 'x' in numeric literal"),
            (
                "1.x",
                "invalid character 'x' after decimal point in numeric literal",
            ),
            ("01", "invalid character '1' after top-level value"),
            ("\"\\q\"", "invalid character 'q' in string escape code"),
            ("\"a\nb\"", "invalid character '\\n' in string literal"),
        ];
        for (text, fault) in told {
            assert_eq!(super::of(text.as_bytes()).as_deref(), Some(fault), "{text}");
        }
        for good in ["{}", " [1, -2.5e+3, \"\\u00e9\", null] ", "0"] {
            assert_eq!(super::of(good.as_bytes()), None, "{good}");
        }
    }
}
