//! Errors at the edge: what failed, what to do about it, and the exit code.

use std::{fmt, process::ExitCode};

/// Who has to act on a failure; decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The input is wrong: exit code 1.
    Input,
    /// The call itself is wrong (flags, a busy data folder): exit code 2.
    Usage,
    /// Nothing is wrong, but Git owns what would be changed: exit code 3.
    Repository,
    /// Something that we did not expect: exit code 70, as `sysexits.h` has it for software errors.
    Internal,
    /// Nothing is wrong, and a new start is due: exit code 75, as `sysexits.h` has it for temporary failures.
    Again,
}

impl Kind {
    pub(crate) fn exit_code(self) -> ExitCode {
        ExitCode::from(match self {
            Self::Input => 1,
            Self::Usage => 2,
            Self::Repository => 3,
            Self::Internal => 70,
            Self::Again => 75,
        })
    }
}

/// A failure as it is shown to a person.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Failure {
    pub(crate) fn input(message: impl Into<String>) -> Self {
        Self {
            kind: Kind::Input,
            message: message.into(),
            hint: None,
        }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self {
            kind: Kind::Usage,
            message: message.into(),
            hint: None,
        }
    }

    pub(crate) fn repository(message: impl Into<String>) -> Self {
        Self {
            kind: Kind::Repository,
            message: message.into(),
            hint: None,
        }
    }

    pub(crate) fn again(message: impl Into<String>) -> Self {
        Self {
            kind: Kind::Again,
            message: message.into(),
            hint: None,
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.kind {
            Kind::Repository => "note",
            _ => "error",
        };
        write!(f, "{word}: {}", self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        // The alternate form prints the chain of causes in one line, each once.
        Self {
            kind: Kind::Internal,
            message: format!("{error:#}"),
            hint: None,
        }
    }
}

/// Names the step that failed.
///
/// # Errors
/// The step's own, with what it was.
pub(crate) fn step<T, E>(result: Result<T, E>, what: &str) -> Result<T, Failure>
where
    E: std::error::Error + Send + Sync + 'static,
{
    result.map_err(|error| Failure::from(anyhow::Error::new(error).context(what.to_owned())))
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |e| e.source());
    let words: Vec<String> = causes.map(ToString::to_string).collect();
    words.join(": ")
}
