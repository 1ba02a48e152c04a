//! Pull requests over HTTP: pages are read to the end, what was read before is not read again, and comments are found.

use std::collections::{BTreeMap, VecDeque};

use async_trait::async_trait;
use fleetwright_api::{fleet::ForgeType, random::hex};
use http::{HeaderMap, Method, StatusCode, header};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use url::Url;

use super::{
    Author, Comment, Found, OpenPullRequests, PullRequest, PullRequests, Remark, StoredComment,
    comment, gitea, github, gitlab,
};
use crate::forge::{Credentials, Forges, PostError, Remote, http::Call};

/// Pages of a list that are read: 2,000 pull requests, or 4,000 comments.
const MAX_PAGES: usize = 40;
/// Longest remark that is told, in characters.
const MAX_REMARK: usize = 200;
/// Pages that are remembered by their ETag.
const REMEMBERED: usize = 256;

/// What need not be read again.
#[derive(Default)]
pub(crate) struct Remembered {
    pages: Mutex<Pages>,
    /// Our own user, by lane.
    users: Mutex<BTreeMap<String, u64>>,
}

/// Pages by lane and URL; the oldest is forgotten first.
#[derive(Default)]
struct Pages {
    by_key: BTreeMap<String, Page>,
    order: VecDeque<String>,
}

#[derive(Clone, Default)]
struct Page {
    etag: String,
    pull_requests: Vec<PullRequest>,
    /// Some of it could not be read.
    torn: bool,
    more: bool,
}

impl Pages {
    fn keep(&mut self, key: String, page: Page) {
        if self.by_key.insert(key.clone(), page).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.by_key.remove(&oldest);
            }
        }
    }
}

#[async_trait]
impl PullRequests for Forges {
    async fn list_open(
        &self,
        remote: &Remote,
        now: Timestamp,
    ) -> Result<OpenPullRequests, PostError> {
        let mut found = BTreeMap::new();
        let mut complete = true;
        for number in 1..=MAX_PAGES {
            let page = self.page(remote, number, now).await?;
            complete &= !page.torn;
            found.extend(page.pull_requests.into_iter().map(|p| (p.number, p)));
            if !page.more {
                break;
            }
            complete &= number < MAX_PAGES;
        }
        Ok(OpenPullRequests {
            pull_requests: found.into_values().collect(),
            complete,
        })
    }

    async fn get(
        &self,
        remote: &Remote,
        number: u64,
        now: Timestamp,
    ) -> Result<Option<PullRequest>, PostError> {
        let number = number.to_string();
        let url = match remote.kind {
            ForgeType::Github | ForgeType::Gitea => github::one(remote, &number),
            ForgeType::Gitlab => gitlab::one(remote, &number),
        };
        let reply = self.send(remote, Call::get(url), now).await?;
        if reply.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let value = reply.judged()?.json()?;
        let unreadable =
            || PostError::Passing(format!("the forge's pull request {number} lacks fields"));
        read(remote.kind, &value).map(Some).ok_or_else(unreadable)
    }

    async fn upsert_comment(
        &self,
        remote: &Remote,
        number: u64,
        wanted: &Comment<'_>,
        now: Timestamp,
    ) -> Result<Option<StoredComment>, PostError> {
        let number = number.to_string();
        let most = match remote.kind {
            ForgeType::Github => github::MAX_COMMENT,
            ForgeType::Gitlab => gitlab::MAX_COMMENT,
            ForgeType::Gitea => gitea::MAX_COMMENT,
        };
        let body = comment::render(wanted.context, wanted.body, most);
        let digest = hex(&Sha256::digest(&body));
        let stored = |id| StoredComment {
            id,
            digest: digest.clone(),
        };
        if let Some(known) = wanted.known
            && (known.digest == digest || self.edit(remote, &number, known.id, &body, now).await?)
        {
            return Ok(Some(stored(known.id)));
        }
        if let Some(found) = self.find(remote, &number, wanted.context, now).await?
            && (found.body == body || self.edit(remote, &number, found.id, &body, now).await?)
        {
            return Ok(Some(stored(found.id)));
        }
        if !wanted.make {
            return Ok(None);
        }
        let call = Call::write(
            Method::POST,
            comments(remote, &number),
            json!({"body": body}),
        );
        let value = self.send(remote, call, now).await?.judged()?.json()?;
        let id = value["id"].as_u64();
        let nameless = || PostError::Passing("the forge's new comment has no id".into());
        id.map(stored).map(Some).ok_or_else(nameless)
    }

    async fn remarks(
        &self,
        remote: &Remote,
        number: u64,
        now: Timestamp,
    ) -> Result<Vec<Remark>, PostError> {
        let us = self.us(remote, now).await?;
        let mut remarks = Vec::new();
        let take = |found: Found| {
            if found.body.chars().count() <= MAX_REMARK {
                remarks.push(Remark {
                    id: found.id,
                    by_program: found.program || us.wrote(&found),
                    author: found
                        .author
                        .zip(found.name)
                        .map(|(id, name)| Author { id, name }),
                    edited: found.edited,
                    text: found.body,
                });
            }
        };
        if !self
            .each_comment(remote, &number.to_string(), now, take)
            .await?
        {
            return Err(PostError::Configuration(format!(
                "pull request {number} has more comments than are read"
            )));
        }
        remarks.sort_by_key(|remark| remark.id);
        Ok(remarks)
    }

    async fn may_write(
        &self,
        remote: &Remote,
        author: &Author,
        now: Timestamp,
    ) -> Result<bool, PostError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let is_name = author.name.chars().all(fits) && author.name.chars().any(|c| c != '.');
        let url = match remote.kind {
            ForgeType::Gitlab => gitlab::member(remote, &author.id.to_string()),
            _ if !is_name => return Ok(false),
            ForgeType::Github | ForgeType::Gitea => github::permission(remote, &author.name),
        };
        let reply = self.send(remote, Call::get(url), now).await?;
        if reply.status == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        let value = reply.judged()?.json()?;
        Ok(match remote.kind {
            ForgeType::Gitlab => gitlab::may_write(&value, author),
            ForgeType::Github | ForgeType::Gitea => github::may_write(&value, author),
        })
    }
}

impl Forges {
    async fn page(
        &self,
        remote: &Remote,
        number: usize,
        now: Timestamp,
    ) -> Result<Page, PostError> {
        let url = match remote.kind {
            ForgeType::Github => github::list(remote, number),
            ForgeType::Gitlab => gitlab::list(remote, number),
            ForgeType::Gitea => gitea::list(remote, number),
        };
        let key = format!("{} {url}", remote.lane());
        let before = self.remembered.pages.lock().by_key.get(&key).cloned();
        let mut call = Call::get(url);
        call.etag = before.as_ref().map(|page| page.etag.clone());
        let reply = self.send(remote, call, now).await?.judged()?;
        if let (StatusCode::NOT_MODIFIED, Some(before)) = (reply.status, before) {
            return Ok(before);
        }
        let value = reply.json()?;
        let all = items(&value)?;
        let pull_requests: Vec<_> = all.iter().filter_map(|v| read(remote.kind, v)).collect();
        let etag = reply
            .headers
            .get(header::ETAG)
            .and_then(|v| v.to_str().ok());
        let page = Page {
            etag: etag.unwrap_or_default().to_owned(),
            torn: pull_requests.len() < all.len(),
            pull_requests,
            more: has_more(&reply.headers),
        };
        if !page.etag.is_empty() {
            self.remembered.pages.lock().keep(key, page.clone());
        }
        Ok(page)
    }

    /// Whether the comment was there to be changed, and ours: after a change of token it may be somebody else's.
    async fn edit(
        &self,
        remote: &Remote,
        number: &str,
        id: u64,
        body: &str,
        now: Timestamp,
    ) -> Result<bool, PostError> {
        let id = id.to_string();
        let (method, url) = match remote.kind {
            ForgeType::Github | ForgeType::Gitea => (Method::PATCH, github::comment(remote, &id)),
            ForgeType::Gitlab => (Method::PUT, gitlab::comment(remote, number, &id)),
        };
        let call = Call::write(method, url, json!({"body": body}));
        let reply = self.send(remote, call, now).await?;
        if matches!(reply.status, StatusCode::NOT_FOUND | StatusCode::FORBIDDEN) {
            return Ok(false);
        }
        reply.judged()?;
        Ok(true)
    }

    /// Our own oldest comment with the marker, on all pages: anybody can write our marker.
    async fn find(
        &self,
        remote: &Remote,
        number: &str,
        context: &str,
        now: Timestamp,
    ) -> Result<Option<Found>, PostError> {
        let marker = comment::marker(context);
        let us = self.us(remote, now).await?;
        let mut ours: Option<Found> = None;
        let take = |found: Found| {
            let marked = us.wrote(&found) && comment::is_marked(&found.body, &marker);
            if marked && ours.as_ref().is_none_or(|ours| found.id < ours.id) {
                ours = Some(found);
            }
        };
        let whole = self.each_comment(remote, number, now, take).await?;
        // Another comment each time would be worse than none.
        match ours {
            None if !whole => Err(PostError::Configuration(format!(
                "pull request {number} has more comments than are searched for ours"
            ))),
            ours => Ok(ours),
        }
    }

    /// Gives the comments on a pull request to `take`, page by page, the oldest first; tells whether they were all.
    async fn each_comment(
        &self,
        remote: &Remote,
        number: &str,
        now: Timestamp,
        mut take: impl FnMut(Found) + Send,
    ) -> Result<bool, PostError> {
        for page in 1..=MAX_PAGES {
            let mut url = comments(remote, number);
            let order = match remote.kind {
                ForgeType::Gitlab => "&sort=asc&order_by=created_at",
                ForgeType::Github | ForgeType::Gitea => "",
            };
            url.set_query(Some(&format!("per_page=100&page={page}{order}")));
            let reply = self.send(remote, Call::get(url), now).await?.judged()?;
            let value = reply.json()?;
            let found = items(&value)?.iter().filter_map(|v| match remote.kind {
                ForgeType::Github | ForgeType::Gitea => github::read_comment(v),
                ForgeType::Gitlab => gitlab::read_comment(v),
            });
            found.for_each(&mut take);
            if !has_more(&reply.headers) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn us(&self, remote: &Remote, now: Timestamp) -> Result<Us, PostError> {
        if let Credentials::App(app) = &remote.credentials {
            return Ok(Us::App(app.app));
        }
        let lane = remote.lane();
        let known = self.remembered.users.lock().get(&lane).copied();
        if let Some(id) = known {
            return Ok(Us::User(id));
        }
        let reply = self
            .send(remote, Call::get(remote.url(["user"])), now)
            .await?;
        let value = reply.judged()?.json()?;
        let unknown = || PostError::Passing("the forge does not tell whose token this is".into());
        let id = value["id"].as_u64().ok_or_else(unknown)?;
        self.remembered.users.lock().insert(lane, id);
        Ok(Us::User(id))
    }
}

/// Who we are at the forge.
#[derive(Clone, Copy, Debug)]
enum Us {
    User(u64),
    App(u64),
}

impl Us {
    fn wrote(self, comment: &Found) -> bool {
        match self {
            Self::User(id) => comment.author == Some(id),
            Self::App(id) => comment.app == Some(id),
        }
    }
}

fn read(kind: ForgeType, value: &Value) -> Option<PullRequest> {
    match kind {
        ForgeType::Github | ForgeType::Gitea => github::read(kind, value),
        ForgeType::Gitlab => gitlab::read(value),
    }
}

fn comments(remote: &Remote, number: &str) -> Url {
    match remote.kind {
        ForgeType::Github | ForgeType::Gitea => github::comments(remote, number),
        ForgeType::Gitlab => gitlab::comments(remote, number),
    }
}

fn items(value: &Value) -> Result<&Vec<Value>, PostError> {
    let wrong = || PostError::Passing("the forge's answer is no list".into());
    value.as_array().ok_or_else(wrong)
}

/// Whether a page follows. All three say so in `Link`; that it leads where it says is not believed.
fn has_more(headers: &HeaderMap) -> bool {
    let links = headers.get_all(header::LINK).iter();
    links
        .filter_map(|v| v.to_str().ok())
        .any(|text| text.contains("rel=\"next\""))
}
