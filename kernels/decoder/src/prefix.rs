//! What all prompts begin with: read once, kept as keys and values.

use candle_core::Tensor;

use crate::attention::KeysValues;
use crate::error::Error;
use crate::layout::Layout;
use crate::network::Network;

/// How many tokens of a prefix are read at a time: its attention grows with the product of both.
const CHUNK: usize = 512;

/// Tokens that were read, with their keys and values of each layer.
#[derive(Default)]
pub(crate) struct Prefix {
    tokens: Vec<u32>,
    layers: Vec<KeysValues>,
}

impl Prefix {
    /// Becomes `tokens`: what it has in common with them stays, the rest is read. Prompts of one kind have long
    /// beginnings in common, so that a call takes over what the one before it read.
    ///
    /// # Errors
    /// If the network fails; the prefix is then empty.
    pub(crate) fn become_tokens(&mut self, tokens: &[u32], network: &Network) -> Result<(), Error> {
        let kept = common(&[self.tokens.as_slice(), tokens]);
        let mut prefix = std::mem::take(self).cut(kept)?;
        while prefix.tokens.len() < tokens.len() {
            let read = prefix.tokens.len();
            let chunk = &tokens[read..(read + CHUNK).min(tokens.len())];
            prefix = prefix.and(chunk, network)?;
        }
        *self = prefix;
        Ok(())
    }

    pub(crate) fn length(&self) -> usize {
        self.tokens.len()
    }

    /// The keys and values by layer; none for an empty prefix.
    pub(crate) fn layers(&self) -> &[KeysValues] {
        &self.layers
    }

    /// The first `length` tokens.
    fn cut(mut self, length: usize) -> Result<Self, Error> {
        if length == self.tokens.len() {
            return Ok(self);
        }
        if length == 0 {
            return Ok(Self::default());
        }
        self.tokens.truncate(length);
        for layer in &mut self.layers {
            layer.keys = layer.keys.narrow(1, 0, length)?.contiguous()?;
            layer.values = layer.values.narrow(1, 0, length)?.contiguous()?;
        }
        Ok(self)
    }

    /// Itself with more tokens behind it.
    fn and(mut self, tokens: &[u32], network: &Network) -> Result<Self, Error> {
        let layout = Layout { prefix: self.tokens.len(), bodies: vec![tokens.len()], questions: Vec::new() };
        let mut more = Vec::new();
        network.forward(tokens, &layout, &self.layers, |own| more.push(own))?;
        self.layers = match self.layers.is_empty() {
            true => more.into_iter().map(|own| own.one_row()).collect::<Result<_, Error>>()?,
            false => {
                let layers = self.layers.iter().zip(more);
                layers.map(|(layer, own)| layer.followed_by(&own.one_row()?)).collect::<Result<_, Error>>()?
            }
        };
        self.tokens.extend_from_slice(tokens);
        Ok(self)
    }
}

impl KeysValues {
    /// Those of the only row, (key-value heads, 1, length, head size), without the axis of rows.
    fn one_row(&self) -> Result<Self, Error> {
        Ok(Self { keys: self.keys.squeeze(1)?, values: self.values.squeeze(1)? })
    }

    fn followed_by(&self, more: &Self) -> Result<Self, Error> {
        let keys = Tensor::cat(&[&self.keys, &more.keys], 1)?;
        let values = Tensor::cat(&[&self.values, &more.values], 1)?;
        Ok(Self { keys, values })
    }
}

/// How many tokens all of `sequences` begin with in common.
pub(crate) fn common<T: AsRef<[u32]>>(sequences: &[T]) -> usize {
    let Some((first, others)) = sequences.split_first() else {
        return 0;
    };
    let first = first.as_ref();
    let with_first =
        |other: &T| first.iter().zip(other.as_ref()).take_while(|(one, other)| one == other).count();
    others.iter().map(with_first).fold(first.len(), usize::min)
}
