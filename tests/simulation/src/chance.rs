//! Everything that is drawn, drawn from the seed.

use fleetwright_api::random::{Random, SeededRandom};

/// A source of chance for one purpose: what one purpose draws does not move what another one gets.
#[derive(Debug)]
pub(crate) struct Chance(SeededRandom);

impl Chance {
    /// The source of `purpose` in the run with this seed.
    pub(crate) fn of(seed: u64, purpose: u64) -> Self {
        Self(Self::source(seed, purpose))
    }

    /// The same as the engine's source of chance.
    pub(crate) fn source(seed: u64, purpose: u64) -> SeededRandom {
        SeededRandom::new(
            seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .wrapping_add(purpose.wrapping_mul(0xd1b5_4a32_d192_ed03)),
        )
    }

    /// A number from `from` up to and without `to`.
    pub(crate) fn within(&self, from: u64, to: u64) -> u64 {
        from + self.0.next_u64() % (to - from).max(1)
    }

    /// An index below `length`.
    pub(crate) fn index(&self, length: usize) -> usize {
        usize::try_from(self.within(0, length as u64)).unwrap_or(0)
    }

    /// One of `all`, which is not empty.
    pub(crate) fn pick<'a, T>(&self, all: &'a [T]) -> &'a T {
        &all[self.index(all.len())]
    }

    /// True in so many of a thousand cases.
    pub(crate) fn permille(&self, of_thousand: u64) -> bool {
        self.within(0, 1000) < of_thousand
    }
}
