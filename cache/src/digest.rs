//! A BLAKE3 value, and the store's secret that keys it.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::str::FromStr;

use anyhow::{Context, bail};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A keyed BLAKE3 value of 32 bytes; it names a blob, a row, a column or an action.
///
/// It is written as 64 lower-case hexadecimal digits, in text and in JSON.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

/// A map by digest.
pub type DigestMap<V> = HashMap<Digest, V, BuildHasherDefault<DigestHasher>>;

/// A set of digests.
pub type DigestSet = HashSet<Digest, BuildHasherDefault<DigestHasher>>;

/// Hashes a digest to its first eight bytes: it is as good as random already, and it is keyed, so that nobody
/// outside of the store can choose digests that collide.
#[derive(Clone, Copy, Debug, Default)]
pub struct DigestHasher(u64);

/// The 32 random bytes that key every digest of a store, so that a digest of patient text cannot be
/// recognised by hashing guesses.
///
/// It is never printed: its `Debug` form holds no byte of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 32]);

impl Secret {
    /// The secret made of these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Secret {
        Secret(bytes)
    }

    /// The keyed digest of `bytes` in `domain`.
    ///
    /// A domain is a fixed phrase that says what is hashed; equal bytes in two domains have unrelated
    /// digests.
    pub fn digest(&self, domain: &str, bytes: &[u8]) -> Digest {
        Digest::from(self.hasher(domain).update(bytes).finalize())
    }

    /// A hasher for bytes that come in pieces: BLAKE3 keyed with `derive_key(domain, secret)`.
    ///
    /// Source: the BLAKE3 specification, sections 2.3 (keyed hash and key derivation modes).
    pub fn hasher(&self, domain: &str) -> blake3::Hasher {
        blake3::Hasher::new_keyed(&blake3::derive_key(domain, &self.0))
    }

    /// The bytes, for the one file that keeps them.
    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Secret(…)")
    }
}

impl Digest {
    /// The first 8 hexadecimal digits, for people; never a key.
    pub fn short(&self) -> String {
        self.0[..4].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Hash for Digest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        state.write_u64(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
    }
}

impl Hasher for DigestHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Only digests are meant to come here, and they write one number; anything else is still told apart.
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Digest({})", self.short())
    }
}

impl From<blake3::Hash> for Digest {
    fn from(hash: blake3::Hash) -> Digest {
        Digest(*hash.as_bytes())
    }
}

impl FromStr for Digest {
    type Err = anyhow::Error;

    /// Reads 64 lower-case hexadecimal digits; anything else is an error, which does not repeat the text.
    fn from_str(text: &str) -> anyhow::Result<Digest> {
        // One digest has one spelling: it names files, and file names can tell cases apart.
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            bail!("a digest holds upper-case digits, expected 64 lower-case hexadecimal digits");
        }
        let hash = blake3::Hash::from_hex(text).with_context(|| {
            format!("a digest of {} bytes, expected 64 lower-case hexadecimal digits", text.len())
        })?;
        Ok(Digest::from(hash))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(|error: anyhow::Error| de::Error::custom(format!("{error:#}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_survives_text_and_json() {
        let digest = Secret::from_bytes([7; 32]).digest("argent test v1", b"abc");
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        let json = serde_json::to_string(&digest).unwrap();
        assert_eq!(json, format!("\"{digest}\""));
        assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
        assert_eq!(digest.short(), digest.to_string()[..8]);
        assert_eq!(format!("{digest:?}"), format!("Digest({})", digest.short()));
    }

    #[test]
    fn other_spellings_are_refused() {
        let digest = Secret::from_bytes([7; 32]).digest("argent test v1", b"abc").to_string();
        for wrong in
            ["", "ab", &digest.to_uppercase(), &digest[..63], &format!("{digest}0"), &"zz".repeat(32)]
        {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn domains_and_secrets_separate() {
        let (one, two) = (Secret::from_bytes([1; 32]), Secret::from_bytes([2; 32]));
        assert_ne!(one.digest("argent a", b"x"), one.digest("argent b", b"x"));
        assert_ne!(one.digest("argent a", b"x"), two.digest("argent a", b"x"));
        let mut hasher = one.hasher("argent a");
        hasher.update(b"x");
        assert_eq!(Digest::from(hasher.finalize()), one.digest("argent a", b"x"));
        assert_eq!(format!("{one:?}"), "Secret(…)");
    }
}
