//! The matrix: one step per combination of values, and which combinations a step reads.
//!
//! A step has the axes that it declares and those of the steps that it reads; it reads the combination that
//! agrees with its own. With `gather`, the axes that it does not declare itself are not inherited: the step reads
//! all of their combinations as one table.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::interpolate::{Origin, Scope, Trace, Value, plain};
use super::step::explained;
use super::{From, Source, entries, is_name, text_of};
use crate::axes::{self, Combination};
use crate::diagnostic::{Diagnostic, Span};
use crate::operator::nearest;
use crate::yaml::{Entry, Kind, Node};

/// Most combinations of one step.
const MAX_COMBINATIONS: usize = 1000;
/// Most steps of a pipeline, combinations counted.
const MAX_STEPS: usize = 10_000;

/// By axis: the values of one combination.
type Values = BTreeMap<String, Option<Value>>;

/// One axis of a matrix.
#[derive(Debug, Clone)]
struct Axis {
    name: String,
    values: Vec<Value>,
}

impl Axis {
    fn texts(&self) -> impl Iterator<Item = String> + '_ {
        self.values.iter().map(|value| plain(&value.node.kind).unwrap_or_default())
    }

    fn has(&self, text: &str) -> bool {
        self.texts().any(|value| value == text)
    }
}

/// One step to be made of a step as written.
pub(super) struct Expanded {
    /// Its name, with the combination.
    pub(super) name: String,
    /// The combination.
    pub(super) combination: Combination,
    /// The step with its values put in.
    pub(super) node: Node,
    /// Where these came from.
    pub(super) trace: Trace,
    /// The tables that it reads.
    pub(super) from: Vec<From>,
}

/// The steps of a spec as written, with what is known of their axes.
pub(super) struct Matrix<'a> {
    steps: &'a [Entry],
    params: &'a BTreeMap<String, Option<Value>>,
    used: &'a RefCell<BTreeSet<String>>,
    places: BTreeMap<&'a str, usize>,
    /// By step: the axes that it declares.
    own: Vec<Vec<Axis>>,
    /// By step: the names of axes that are wrong, which has been told.
    broken: Vec<Values>,
    /// Steps whose combinations cannot be told, which has been told.
    undecided: BTreeSet<usize>,
    /// By step: all axes, once they are known.
    axes: Vec<Option<Vec<Axis>>>,
    /// The steps whose axes are being found out.
    open: Vec<usize>,
    /// Steps that read each other in a circle, which have no axes.
    circular: BTreeSet<usize>,
    /// Combinations so far.
    count: usize,
}

impl<'a> Matrix<'a> {
    /// Finds the axes of all steps.
    pub(super) fn new(
        steps: &'a [Entry],
        params: &'a BTreeMap<String, Option<Value>>,
        used: &'a RefCell<BTreeSet<String>>,
        out: &mut Vec<Diagnostic>,
    ) -> Matrix<'a> {
        let mut matrix = Matrix {
            steps,
            params,
            used,
            places: steps.iter().enumerate().map(|(place, step)| (step.key.as_str(), place)).collect(),
            own: Vec::new(),
            broken: vec![Values::new(); steps.len()],
            undecided: BTreeSet::new(),
            axes: vec![None; steps.len()],
            open: Vec::new(),
            circular: BTreeSet::new(),
            count: 0,
        };
        for (place, step) in steps.iter().enumerate() {
            let (own, broken) = matrix.declared(step, out);
            matrix.own.push(own);
            matrix.broken[place] = broken;
        }
        if matrix.own.iter().all(Vec::is_empty) {
            matrix.axes = vec![Some(Vec::new()); steps.len()];
            return matrix;
        }
        for place in 0..steps.len() {
            matrix.find_axes(place, out);
        }
        for place in matrix.circular.clone() {
            matrix.axes[place] = Some(Vec::new());
        }
        matrix
    }

    fn scope<'s>(&'s self, values: &'s Values) -> Scope<'s> {
        Scope { params: self.params, matrix: values, used: self.used }
    }

    /// The axes that a step declares, and the names of those that are wrong.
    fn declared(&self, step: &Entry, out: &mut Vec<Diagnostic>) -> (Vec<Axis>, Values) {
        let mut axes = Vec::new();
        let mut broken = Values::new();
        let written = entries(step.value.get("matrix"));
        for entry in written {
            if !is_name(&entry.key) {
                let message = format!("`{}` does not name an axis", entry.key);
                let help = "a name begins with a letter and has letters, digits, hyphens and underscores";
                out.push(Diagnostic::error(entry.key_span, message).help(help));
                broken.insert(entry.key.clone(), None);
                continue;
            }
            let mut trace = Trace::default();
            let node = self.scope(&BTreeMap::new()).fill(&entry.value, &mut trace, out);
            let sound = trace.unresolved.is_empty();
            match Some(node).filter(|_| sound).and_then(|node| axis(entry, &node, trace.origins, out)) {
                Some(axis) => axes.push(axis),
                None => drop(broken.insert(entry.key.clone(), None)),
            }
        }
        (axes, broken)
    }

    /// Works out all axes of a step: those of the steps that it reads, then its own.
    fn find_axes(&mut self, place: usize, out: &mut Vec<Diagnostic>) {
        if self.axes[place].is_some() {
            return;
        }
        if let Some(first) = self.open.iter().position(|open| *open == place) {
            self.circular.extend(&self.open[first..]);
            return;
        }
        self.open.push(place);
        let gathers = self.gathers(place);
        let mut inherited: Vec<Axis> = Vec::new();
        let references = references(self.steps[place].value.get("from"));
        loop {
            let known = inherited.len();
            let axes: Vec<Axis> = inherited.iter().chain(&self.own[place]).cloned().collect();
            for reference in &references {
                for text in self.possible(reference, &axes) {
                    let (name, _) = axes::split_output(&text);
                    let Some((base, fixed)) = axes::parse(name) else { continue };
                    let Some(target) = self.places.get(base).copied() else { continue };
                    self.find_axes(target, out);
                    let theirs = self.axes[target].clone().unwrap_or_default();
                    for axis in
                        theirs.into_iter().filter(|a| !gathers && !fixed.iter().any(|(f, _)| *f == a.name))
                    {
                        self.inherit(place, axis, reference.span, &mut inherited, out);
                    }
                }
            }
            if inherited.len() == known {
                break;
            }
        }
        self.open.pop();
        inherited.extend(self.own[place].iter().cloned());
        self.axes[place] = Some(inherited);
    }

    fn inherit(
        &mut self,
        place: usize,
        axis: Axis,
        span: Span,
        inherited: &mut Vec<Axis>,
        out: &mut Vec<Diagnostic>,
    ) {
        if self.own[place].iter().any(|own| own.name == axis.name) {
            return;
        }
        let Some(known) = inherited.iter().find(|known| known.name == axis.name) else {
            inherited.push(axis);
            return;
        };
        let same: BTreeSet<String> = known.texts().collect();
        if !axis.texts().eq(known.texts()) && axis.texts().collect::<BTreeSet<_>>() != same {
            let list = |axis: &Axis| axis.texts().collect::<Vec<_>>().join(", ");
            let message = format!(
                "the steps that `{}` reads have different values of `{}`: {}, and {}",
                self.steps[place].key,
                axis.name,
                list(known),
                list(&axis)
            );
            let help = format!("say which to use: add `matrix: {{ {}: [...] }}` to the step", axis.name);
            out.push(Diagnostic::error(span, message).help(help));
            self.undecided.insert(place);
        }
    }

    /// The texts that a reference may stand for, over the values of the axes that it names.
    fn possible(&self, reference: &Node, axes: &[Axis]) -> Vec<String> {
        let Some(text) = text_of(reference) else { return Vec::new() };
        let named: Vec<Axis> =
            axes.iter().filter(|axis| text.contains(&format!("matrix.{}", axis.name))).cloned().collect();
        if size(&named).is_none() {
            return Vec::new();
        }
        let of = |values: Values| {
            let (mut trace, mut mistakes) = (Trace::default(), Vec::new());
            let filled = self.scope(&values).fill(reference, &mut trace, &mut mistakes);
            text_of(&filled).filter(|_| trace.unresolved.is_empty()).map(str::to_owned)
        };
        combinations(&named).into_iter().filter_map(of).collect()
    }

    fn gathers(&self, place: usize) -> bool {
        self.steps[place].value.get("gather").is_some_and(|gather| gather.kind == Kind::Bool(true))
    }

    /// The steps that a step as written stands for.
    pub(super) fn expand(&mut self, place: usize, out: &mut Vec<Diagnostic>) -> Vec<Expanded> {
        let step = &self.steps[place];
        if self.undecided.contains(&place) {
            return Vec::new();
        }
        let mut axes = self.axes[place].clone().unwrap_or_default();
        let circular = self.circular.contains(&place);
        if circular {
            // Told of as a circle: its values are those of one combination, its name is its own.
            axes = self.own[place].clone();
            axes.iter_mut().for_each(|axis| axis.values.truncate(1));
        }
        let span = step.value.get("matrix").map_or(step.key_span, |matrix| matrix.span);
        let Some(size) = size(&axes) else {
            let counts: Vec<String> =
                axes.iter().map(|a| format!("{} of `{}`", a.values.len(), a.name)).collect();
            let message = format!(
                "`{}` has more than {MAX_COMBINATIONS} combinations: {}",
                step.key,
                counts.join(" times ")
            );
            out.push(Diagnostic::error(span, message).help("take values or an axis away"));
            return Vec::new();
        };
        let before = self.count;
        self.count += size;
        if self.count > MAX_STEPS {
            if before <= MAX_STEPS {
                let message = format!("the pipeline has more than {MAX_STEPS} steps, combinations counted");
                out.push(Diagnostic::error(span, message).help("split it, or take values of an axis away"));
            }
            return Vec::new();
        }
        // The values of the matrix are no values of the step.
        let (bare, matrix) = split(&step.value, "matrix");
        let mut steps = Vec::with_capacity(size);
        for mut values in combinations(&axes) {
            values.extend(self.broken[place].clone());
            let mut trace = Trace::default();
            let mut node = self.scope(&values).fill(&bare, &mut trace, out);
            if let Kind::Map(entries) = &mut node.kind {
                entries.extend(matrix.clone());
            }
            let combination: Combination = match circular {
                true => Vec::new(),
                false => axes.iter().map(|axis| (axis.name.clone(), shown(&values, &axis.name))).collect(),
            };
            let mut mistakes = Vec::new();
            let from = self.from(place, &node, &combination, &mut mistakes);
            out.extend(mistakes.into_iter().filter_map(|mistake| explained(mistake, &trace)));
            let name = axes::name(&step.key, &combination);
            steps.push(Expanded { name, combination, node, trace, from });
        }
        self.check_gather(place, &steps, out);
        steps
    }

    /// A `gather` that gathers nothing is told of.
    fn check_gather(&self, place: usize, steps: &[Expanded], out: &mut Vec<Diagnostic>) {
        let step = &self.steps[place];
        let Some(gather) = step.value.get("gather").filter(|_| self.gathers(place)) else { return };
        let gathered = steps.iter().flat_map(|s| &s.from).any(From::is_gathered);
        if !gathered && !self.circular.contains(&place) && !steps.is_empty() {
            let message = format!("`{}` gathers, but reads no step that has a matrix", step.key);
            out.push(
                Diagnostic::error(gather.span, message)
                    .help("take `gather` away, or read a step with a matrix"),
            );
        }
    }

    /// The tables that one combination of a step reads.
    fn from(
        &self,
        place: usize,
        node: &Node,
        combination: &[(String, String)],
        out: &mut Vec<Diagnostic>,
    ) -> Vec<From> {
        let Some(from) = node.get("from") else { return Vec::new() };
        let mut all = Vec::new();
        match &from.kind {
            Kind::Text(table) => all.push(self.reference(place, None, table, from.span, combination, out)),
            Kind::Map(ports) => {
                for port in ports {
                    match text_of(&port.value) {
                        Some(table) => all.push(self.reference(
                            place,
                            Some(port.key.clone()),
                            table,
                            port.value.span,
                            combination,
                            out,
                        )),
                        None => {
                            out.push(super::expected(&port.value, "the name of a step"));
                            all.push(nothing(Some(port.key.clone()), port.value.span));
                        }
                    }
                }
            }
            _ => {
                let mistake = super::expected(from, "the name of a step, or a mapping from port to step");
                out.push(
                    mistake.help("one table is `from: step`; several are `from: { port: step, port: step }`"),
                );
                all.push(nothing(None, from.span));
            }
        }
        all
    }

    /// What a name under `from` stands for; no sources where that is wrong, which is told of.
    fn reference(
        &self,
        place: usize,
        port: Option<String>,
        table: &str,
        span: Span,
        combination: &[(String, String)],
        out: &mut Vec<Diagnostic>,
    ) -> From {
        let (name, output) = axes::split_output(table);
        let Some((base, fixed)) = axes::parse(name) else {
            let message = format!("`{name}` does not name a combination");
            out.push(Diagnostic::error(span, message).help("expected step[axis=value,axis=value]"));
            let step = name.split('[').next().unwrap_or_default().to_owned();
            return From { port, step, output: output.to_owned(), sources: Vec::new(), span };
        };
        let mut from =
            From { port, step: base.to_owned(), output: output.to_owned(), sources: Vec::new(), span };
        let target = self.places.get(base).copied();
        // Whether there is such a step is told later, of all steps at once.
        let theirs = target.and_then(|target| self.axes[target].clone()).unwrap_or_default();
        if let Some((axis, _)) = fixed.iter().find(|(axis, _)| !theirs.iter().any(|a| a.name == *axis)) {
            if target.is_some() && !self.circular.contains(&place) {
                out.push(no_axis(base, axis, &theirs, span));
                return from;
            }
            from.sources = vec![Source { step: base.to_owned(), axes: Vec::new() }];
            return from;
        }
        let wanted = |axis: &Axis| {
            let of = |from: &[(String, String)]| {
                from.iter().find(|(a, _)| *a == axis.name).map(|(_, v)| v.clone())
            };
            of(&fixed).or_else(|| of(combination))
        };
        let mut members: Vec<(Combination, Combination)> = vec![(Vec::new(), Vec::new())];
        for axis in &theirs {
            let values: Vec<String> = match wanted(axis) {
                Some(value) if axis.has(&value) => vec![value],
                Some(value) => {
                    out.push(no_value(base, axis, &value, span));
                    return from;
                }
                None => axis.texts().collect(),
            };
            let is_gathered = wanted(axis).is_none();
            members = members
                .into_iter()
                .flat_map(|(all, gathered)| {
                    values.iter().map(move |value| {
                        let pair = (axis.name.clone(), value.clone());
                        let (mut all, mut gathered) = (all.clone(), gathered.clone());
                        all.push(pair.clone());
                        gathered.extend(is_gathered.then_some(pair));
                        (all, gathered)
                    })
                })
                .collect();
        }
        // In the order of the table that they make, which the order of the values does not change.
        members.sort_by(|(_, a), (_, b)| {
            let pairs = a.iter().zip(b).map(|((_, one), (_, other))| axes::compare(one, other));
            pairs.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
        });
        let source = |(all, gathered): (Combination, Combination)| Source {
            step: axes::name(base, &all),
            axes: gathered,
        };
        from.sources = members.into_iter().map(source).collect();
        from
    }
}

/// One axis as it is written, its values checked.
fn axis(entry: &Entry, node: &Node, origins: Vec<Origin>, out: &mut Vec<Diagnostic>) -> Option<Axis> {
    let Kind::List(items) = &node.kind else {
        let message =
            format!("expected a list of values for the axis `{}`, found {}", entry.key, node.describe());
        out.push(Diagnostic::error(node.span, message).help("write it as a list, in `[ ]`"));
        return None;
    };
    if items.is_empty() {
        let message = format!("the axis `{}` has no values", entry.key);
        out.push(Diagnostic::error(node.span, message).help("give it a value, or take the axis away"));
        return None;
    }
    let mut values: Vec<Value> = Vec::new();
    let mut seen: BTreeMap<String, Span> = BTreeMap::new();
    for item in items {
        let Some(text) = plain(&item.kind) else {
            let message = format!(
                "expected one word or number for a value of `{}`, found {}",
                entry.key,
                item.describe()
            );
            let help = "a value names a combination; let other values depend on it with `${matrix.…}`";
            out.push(Diagnostic::error(item.span, message).help(help));
            return None;
        };
        if !axes::is_value(&text) {
            let message =
                format!("the value `{text}` of `{}` cannot stand in a combination's name", entry.key);
            let help = "expected text without `[`, `]`, `,`, `=`, quotes, line breaks, and space at its ends";
            out.push(Diagnostic::error(item.span, message).help(help));
            return None;
        }
        // SQL finds tables without regard to case, and knows no hyphens.
        if let Some(first) = seen.insert(text.to_lowercase().replace('-', "_"), item.span) {
            let message = format!("the axis `{}` has the value `{text}` twice", entry.key);
            out.push(
                Diagnostic::error(item.span, message)
                    .label(first, "first here")
                    .help("remove one; upper case and hyphens do not tell values apart"),
            );
            return None;
        }
        values.push(Value { node: item.clone(), origins: origins.clone() });
    }
    Some(Axis { name: entry.key.clone(), values })
}

fn no_axis(base: &str, axis: &str, theirs: &[Axis], span: Span) -> Diagnostic {
    let names: Vec<&str> = theirs.iter().map(|axis| axis.name.as_str()).collect();
    match names.is_empty() {
        true => {
            Diagnostic::error(span, format!("`{base}` has no matrix")).help(format!("read it as `{base}`"))
        }
        false => Diagnostic::error(span, format!("`{base}` has no axis `{axis}`"))
            .help(nearest(axis, &names, "axes")),
    }
}

fn no_value(base: &str, axis: &Axis, value: &str, span: Span) -> Diagnostic {
    let values: Vec<String> = axis.texts().collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    let message = format!("`{base}` has no combination in which `{}` is `{value}`", axis.name);
    Diagnostic::error(span, message).help(nearest(value, &values, "values"))
}

/// An entry under `from` that names no step, which has been told.
fn nothing(port: Option<String>, span: Span) -> From {
    From { port, step: String::new(), output: String::new(), sources: Vec::new(), span }
}

/// The texts under `from`.
fn references(from: Option<&Node>) -> Vec<Node> {
    match from {
        Some(Node { kind: Kind::Map(_), .. }) => {
            entries(from).iter().map(|port| port.value.clone()).collect()
        }
        Some(one) => vec![one.clone()],
        None => Vec::new(),
    }
}

/// A mapping without one of its keys, and that key's entry.
fn split(node: &Node, key: &str) -> (Node, Option<Entry>) {
    let Kind::Map(entries) = &node.kind else { return (node.clone(), None) };
    let (taken, kept): (Vec<Entry>, Vec<Entry>) = entries.iter().cloned().partition(|entry| entry.key == key);
    (Node { kind: Kind::Map(kept), span: node.span }, taken.into_iter().next())
}

/// How many combinations there are; none where they are too many.
fn size(axes: &[Axis]) -> Option<usize> {
    let product = axes.iter().try_fold(1_usize, |all, axis| all.checked_mul(axis.values.len()));
    product.filter(|size| *size <= MAX_COMBINATIONS)
}

/// All combinations, the last axis changing first.
fn combinations(axes: &[Axis]) -> Vec<Values> {
    let mut all = vec![BTreeMap::new()];
    for axis in axes {
        let with = |one: &Values, value: &Value| {
            let mut one = one.clone();
            one.insert(axis.name.clone(), Some(value.clone()));
            one
        };
        all = all.iter().flat_map(|one| axis.values.iter().map(move |value| with(one, value))).collect();
    }
    all
}

fn shown(values: &Values, axis: &str) -> String {
    values.get(axis).and_then(Option::as_ref).and_then(|value| plain(&value.node.kind)).unwrap_or_default()
}
