//! Versions of EKS, against fakecloud. It allows to leave out minors, which AWS does not: the controllers never ask for that.

#[cfg(test)]
mod versions;
