//! Where Gitea's and Forgejo's API differs from GitHub's.

use url::Url;

use crate::forge::Remote;

/// None is documented: GitHub's holds.
pub(super) const MAX_COMMENT: usize = super::github::MAX_COMMENT;

pub(super) fn list(remote: &Remote, page: usize) -> Url {
    let mut url = remote.repository_url(["pulls"]);
    url.set_query(Some(&format!("state=open&limit=50&page={page}")));
    url
}
