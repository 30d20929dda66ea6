//! Attention over a shared prefix and the tokens of a batch.
//!
//! The prefix is the same for all rows, so all queries of a group of heads meet it in one product, and it is never
//! copied per row. Heads come first in every shape: masks then repeat over the leading axis alone.

use candle_core::{D, DType, Device, Tensor};
use candle_nn::ops::softmax_last_dim;

use crate::layout::{Block, Layout};

/// The most values of the scores of one block: more would leave the caches of a processor and fill a GPU.
const BLOCK_SCORES: usize = 1 << 24;

/// Keys and values of a prefix in one layer, both of shape (key-value heads, tokens, head size).
#[derive(Clone, Debug)]
pub(crate) struct KeysValues {
    pub(crate) keys: Tensor,
    pub(crate) values: Tensor,
}

/// The blocks of a batch's queries and what each sees.
pub(crate) struct Masks(Vec<(Block, Option<Tensor>, Tensor)>);

impl Masks {
    /// The masks of all layers with one `window`.
    pub(crate) fn new(
        layout: &Layout,
        heads: usize,
        window: Option<usize>,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Self> {
        let per_query = heads * layout.rows() * (layout.prefix + layout.length());
        let masks = |block: Block| {
            let prefix = layout.prefix_mask(&block, window, dtype, device)?;
            let own = layout.own_mask(&block, window, dtype, device)?;
            Ok((block, prefix, own))
        };
        // Small blocks also skip the keys behind them, half of a body's products.
        let most = (BLOCK_SCORES / per_query.max(1)).clamp(16, 256);
        layout.blocks(most).into_iter().map(masks).collect::<candle_core::Result<_>>().map(Self)
    }
}

/// What each query draws from what it sees: softmax(q kᵀ / √d) v (Vaswani et al., arXiv 1706.03762).
///
/// `queries` have the shape (heads, rows, length, head size), `own` keys and values the same with fewer heads, of
/// which each serves as many neighbouring heads of queries. The result has the shape of the queries.
pub(crate) fn attend(
    queries: &Tensor,
    own: &KeysValues,
    prefix: Option<&KeysValues>,
    masks: &Masks,
) -> candle_core::Result<Tensor> {
    let (heads, rows, _, size) = queries.dims4()?;
    let queries = (queries * (size as f64).powf(-0.5))?;
    let (keys, values) = (repeated(&own.keys, heads)?, repeated(&own.values, heads)?);
    let block = |(block, prefix_mask, own_mask): &(Block, Option<Tensor>, Tensor)| {
        let count = block.queries.len();
        let queries = queries.narrow(2, block.queries.start, count)?.contiguous()?;
        let seen = keys.narrow(2, 0, block.keys)?;
        let scores = queries.matmul(&seen.transpose(2, 3)?)?.broadcast_add(own_mask)?;
        let values = values.narrow(2, 0, block.keys)?;
        let Some(prefix) = prefix else {
            return softmax_last_dim(&scores)?.matmul(&values);
        };
        let (groups, length, _) = prefix.keys.dims3()?;
        let together = queries.reshape((groups, heads / groups * rows * count, size))?;
        let shared = together.matmul(&prefix.keys.t()?)?.reshape((heads, rows, count, length))?;
        let shared = match prefix_mask {
            Some(mask) => shared.broadcast_add(mask)?,
            None => shared,
        };
        let weights = softmax_last_dim(&Tensor::cat(&[&shared, &scores], D::Minus1)?)?;
        let shared = weights.narrow(D::Minus1, 0, length)?.contiguous()?;
        let shared =
            shared.reshape((groups, heads / groups * rows * count, length))?.matmul(&prefix.values)?;
        let drawn = weights.narrow(D::Minus1, length, block.keys)?.contiguous()?.matmul(&values)?;
        shared.reshape((heads, rows, count, size))? + drawn
    };
    let blocks = masks.0.iter().map(block).collect::<candle_core::Result<Vec<Tensor>>>()?;
    Tensor::cat(&blocks, 2)
}

/// Each head as many times as it serves heads of queries: (key-value heads, rows, …) to (heads, rows, …).
fn repeated(tensor: &Tensor, heads: usize) -> candle_core::Result<Tensor> {
    let (own, rows, length, size) = tensor.dims4()?;
    if own == heads {
        return Ok(tensor.clone());
    }
    let repeated = tensor.unsqueeze(1)?.broadcast_as((own, heads / own, rows, length, size))?;
    repeated.contiguous()?.reshape((heads, rows, length, size))
}
