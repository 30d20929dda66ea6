//! Budget keeping: money is reserved before a request is sent and settled by its answer.

use std::collections::HashMap;

/// Keeps a step within its budget: money is reserved before a request is sent and settled when its answer tells
/// what it cost. Estimates of tokens may be wrong by a factor, so under a limit the first request is sent alone,
/// and each later one is taken to cost as much as the dearest one so far, in dollars and as a multiple of its estimate.
pub(super) struct Purse {
    limit_usd: Option<f64>,
    settled_usd: f64,
    /// By number of a request under way: its estimate.
    under_way: HashMap<usize, f64>,
    /// The most that a request has cost, and the most as a multiple of its estimate; none before the first.
    dearest: Option<(f64, f64)>,
}

impl Purse {
    pub(super) fn new(limit_usd: Option<f64>) -> Purse {
        Purse { limit_usd, settled_usd: 0.0, under_way: HashMap::new(), dearest: None }
    }

    fn may_cost(&self, estimate_usd: f64) -> f64 {
        self.dearest.map_or(estimate_usd, |(usd, multiple)| usd.max(estimate_usd * multiple))
    }

    /// Whether a request may be sent now.
    pub(super) fn admits(&self, estimate_usd: f64) -> bool {
        let Some(limit_usd) = self.limit_usd else { return true };
        if self.dearest.is_none() && !self.under_way.is_empty() {
            return false;
        }
        let reserved_usd: f64 = self.under_way.values().map(|estimate| self.may_cost(*estimate)).sum();
        // Room for the rounding of sums.
        self.settled_usd + reserved_usd + self.may_cost(estimate_usd) <= limit_usd * (1.0 + 1e-9)
    }

    /// Whether requests that may cost so much together may be handed over at once.
    pub(super) fn admits_together(&self, usd: f64) -> bool {
        self.limit_usd.is_none_or(|limit_usd| self.settled_usd + usd <= limit_usd * (1.0 + 1e-9))
    }

    pub(super) fn reserve(&mut self, number: usize, estimate_usd: f64) {
        self.under_way.insert(number, estimate_usd);
    }

    /// Takes the true cost in place of what was reserved; where it is not known, the estimate.
    pub(super) fn settle(&mut self, number: usize, usd: Option<f64>) {
        let estimate_usd = self.under_way.remove(&number).unwrap_or(0.0);
        let usd = usd.unwrap_or(self.may_cost(estimate_usd));
        self.settled_usd += usd;
        if usd > 0.0 || estimate_usd == 0.0 {
            let multiple = if estimate_usd > 0.0 { usd / estimate_usd } else { 0.0 };
            let (most_usd, most_multiple) = self.dearest.unwrap_or((0.0, 0.0));
            self.dearest = Some((most_usd.max(usd), most_multiple.max(multiple)));
        }
    }

    /// Takes what something cost that was not reserved, where that is known.
    pub(super) fn spend(&mut self, usd: Option<f64>) {
        self.settled_usd += usd.unwrap_or(0.0);
    }

    /// Why a request is not sent.
    pub(super) fn reason(&self, estimate_usd: f64) -> String {
        format!(
            "${:.6} of the budget of ${:.6} is spent, and the next request may cost ${:.6}",
            self.settled_usd,
            self.limit_usd.unwrap_or(f64::INFINITY),
            self.may_cost(estimate_usd)
        )
    }
}
