//! Instances that were made a moment ago: EC2 may not know them yet when it is asked for their ids.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use fleetwright_providers::ProviderError;
use parking_lot::Mutex;

/// Accounts and ids of instances, with when they were made.
#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<BTreeMap<(String, String), Instant>>);

impl Recent {
    /// Takes in that this instance was made.
    pub(crate) fn made(&self, account: &str, id: &str, now: Instant, within: Duration) {
        let mut all = self.0.lock();
        all.retain(|_, at| now.duration_since(*at) < within);
        all.insert((account.to_owned(), id.to_owned()), now);
    }

    /// Refuses to believe that there is no instance of this id while it may only not show yet.
    ///
    /// # Errors
    /// [`ProviderError::Unavailable`]: to be asked again.
    pub(crate) fn check_absent(
        &self,
        account: &str,
        id: &str,
        now: Instant,
        within: Duration,
    ) -> Result<(), ProviderError> {
        let key = (account.to_owned(), id.to_owned());
        let made = self.0.lock().get(&key).copied();
        match made {
            Some(at) if now.duration_since(at) < within => Err(ProviderError::Unavailable {
                message: format!("EC2 does not show instance {id} yet, which was just made"),
            }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_just_made_is_not_believed_to_be_gone() {
        let (recent, within) = (Recent::default(), Duration::from_secs(300));
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        recent.made("a", "i-1", at(0), within);
        recent.made("a", "i-2", at(200), within);
        assert_eq!(
            recent
                .check_absent("a", "i-1", at(299), within)
                .unwrap_err()
                .word(),
            "Unavailable"
        );
        assert!(recent.check_absent("a", "i-1", at(300), within).is_ok());
        assert!(recent.check_absent("a", "i-3", at(0), within).is_ok());
        assert!(recent.check_absent("b", "i-1", at(1), within).is_ok());
        recent.made("a", "i-4", at(400), within);
        assert_eq!(recent.0.lock().len(), 2);
    }
}
