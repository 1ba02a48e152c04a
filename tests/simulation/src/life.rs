//! The life of one engine: it ends at a certain poll of what the engine is doing outside itself.
//!
//! An engine acts on the world through its clients and its provider alone. From the poll on at which it is to end, none of their
//! calls goes a step further, so that whatever else its tasks still do is seen by nobody; then its tasks are dropped.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use futures::Stream;
use tokio::sync::Notify;

/// One life.
#[derive(Debug)]
pub(crate) struct Life {
    /// Polls that are left.
    left: AtomicU64,
    /// Polls that there were.
    polls: AtomicU64,
    dead: AtomicBool,
    /// Told once it is dead.
    pub(crate) died: Notify,
}

impl Life {
    /// A life of so many polls.
    pub(crate) fn new(polls: u64) -> Arc<Self> {
        Arc::new(Self {
            left: AtomicU64::new(polls),
            polls: AtomicU64::new(0),
            dead: AtomicBool::new(false),
            died: Notify::new(),
        })
    }

    /// Whether there is another poll in it.
    fn goes_on(&self) -> bool {
        if self.dead.load(Ordering::Relaxed) {
            return false;
        }
        self.polls.fetch_add(1, Ordering::Relaxed);
        let left = self.left.load(Ordering::Relaxed);
        if left == u64::MAX {
            return true;
        }
        if left == 0 {
            self.dead.store(true, Ordering::Relaxed);
            self.died.notify_one();
            return false;
        }
        self.left.store(left - 1, Ordering::Relaxed);
        true
    }

    /// Polls so far: two runs that differ in anything differ in these.
    pub(crate) fn polls(&self) -> u64 {
        self.polls.load(Ordering::Relaxed)
    }

    /// The next poll after so many is its last.
    pub(crate) fn end_after(&self, polls: u64) {
        self.left.store(polls, Ordering::Relaxed);
    }

    /// A call that goes on as long as this life does.
    pub(crate) fn guard<F: Future>(self: &Arc<Self>, call: F) -> Guarded<F> {
        Guarded {
            call: Box::pin(call),
            life: Arc::clone(self),
        }
    }

    /// A stream that goes on as long as this life does.
    pub(crate) fn guard_stream<S: Stream>(self: &Arc<Self>, stream: S) -> Guarded<S> {
        Guarded {
            call: Box::pin(stream),
            life: Arc::clone(self),
        }
    }
}

/// See [`Life::guard`].
pub(crate) struct Guarded<T> {
    call: Pin<Box<T>>,
    life: Arc<Life>,
}

impl<F: Future> Future for Guarded<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if !self.life.goes_on() {
            return Poll::Pending;
        }
        self.call.as_mut().poll(context)
    }
}

impl<S: Stream> Stream for Guarded<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if !self.life.goes_on() {
            return Poll::Pending;
        }
        self.call.as_mut().poll_next(context)
    }
}
