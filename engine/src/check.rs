//! From a spec to a pipeline that can run: operators decoded, edges joined, columns checked. Every mistake
//! that needs no data is found here, all of them at once.

mod mistakes;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde_json::{Value, json};

use crate::axes;
use crate::column;
use crate::diagnostic::{Diagnostic, Sources, Span};
use crate::drift::misplaced;
use crate::io::fault_schema;
use crate::operator::{
    ConfigFiles, Entry, FILES, Input, Inputs, Kind, Operator, Port, Problem, Registry, Signature,
    missing_column, mistyped_column, nearest, one_of,
};
use crate::pipeline::{AxisCell, ContractOf, Node, NodeInput, Pipeline, TableShape};
use crate::pools::check_needs;
use crate::rows::{full_schema, planned_error_schema};
use crate::shape;
use crate::spec::{From, Source, Spec, Step, has_errors};
use crate::statics::StaticAnswers;
use crate::table::{files_schema, files_schema_of, matching_paths};
use crate::yaml;
use mistakes::{Finding, Mistakes};

/// Checks a spec against the operators that there are, with the static answers that a store remembers. The
/// pipeline is there only when nothing is wrong.
pub fn check(
    spec: &Spec,
    registry: &Registry,
    statics: StaticAnswers,
    sources: &mut Sources,
) -> (Option<Pipeline>, Vec<Diagnostic>) {
    let mut out = Mistakes::new(spec, sources);
    let decoded = decode_all(spec, registry, &mut out);
    unknown_steps(spec, &mut out);
    let order = order(spec, &mut out);
    let mut checker = Checker { spec, registry, statics, nodes: Vec::new(), places: HashMap::new(), out };
    let mut decoded: Vec<Option<Decoded>> = decoded.into_iter().map(Some).collect();
    for place in order {
        if let Some(decoded) = decoded[place].take() {
            checker.add(place, decoded);
        }
    }
    let Checker { nodes, statics, out, .. } = checker;
    let out = out.told();
    if has_errors(&out) || nodes.is_empty() {
        return (None, out);
    }
    let (name, path, folder) = (spec.name.clone(), spec.path.clone(), spec.folder.clone());
    let pipeline = Pipeline { name, spec: path, folder, nodes, statics };
    (Some(pipeline), out)
}

/// So many steps are decoded by one thread.
const FEW_STEPS: usize = 64;

/// Decodes all steps, on as many threads as there are cores if there are many.
fn decode_all<'a>(spec: &Spec, registry: &'a Registry, out: &mut Mistakes) -> Vec<Decoded<'a>> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let share = spec.steps.len().div_ceil(cores).max(FEW_STEPS);
    let some = |steps: &[Step]| -> Vec<(Decoded<'a>, Vec<Finding>)> {
        steps.iter().map(|step| decode(spec, step, registry)).collect()
    };
    let mut all = Vec::new();
    std::thread::scope(|scope| {
        let mut shares = spec.steps.chunks(share);
        let first = shares.next().unwrap_or_default();
        let others: Vec<_> = shares.map(|steps| scope.spawn(move || some(steps))).collect();
        all.extend(some(first));
        for other in others {
            all.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
    });
    let mut decoded = Vec::with_capacity(all.len());
    for (place, (step, findings)) in all.into_iter().enumerate() {
        findings.into_iter().for_each(|finding| out.find(place, finding));
        decoded.push(step);
    }
    decoded
}

/// A step whose parameters are read; the operator is absent where they are wrong.
struct Decoded<'a> {
    entry: Option<&'a Entry>,
    operator: Option<Box<dyn Operator>>,
    params: Value,
    files: ConfigFiles,
}

fn decode<'a>(spec: &Spec, step: &Step, registry: &'a Registry) -> (Decoded<'a>, Vec<Finding>) {
    let files = ConfigFiles::new(&spec.folder);
    let nothing = Decoded { entry: None, operator: None, params: Value::Null, files };
    let Some(entry) = registry.get(&step.operator) else {
        let names: Vec<&str> = registry.entries().iter().map(|e| e.name).collect();
        let message = format!("there is no operator `{}`", step.operator);
        let diagnostic = Diagnostic::error(step.operator_span, message)
            .label(step.operator_span, "not an operator")
            .help(nearest(&step.operator, &names, "operators"));
        return (nothing, vec![diagnostic.into()]);
    };
    let mistakes = shape::check(&step.with, entry.schema(), entry.name);
    if !mistakes.is_empty() {
        let findings = mistakes.into_iter().map(Finding::Diagnostic).collect();
        return (Decoded { entry: Some(entry), ..nothing }, findings);
    }
    match entry.decode(step.with.to_json()) {
        Err(error) => {
            let message = format!("the parameters of `{}` do not read: {error}", step.written);
            let diagnostic = Diagnostic::error(step.with.span, message).label(step.with.span, entry.name);
            (Decoded { entry: Some(entry), ..nothing }, vec![diagnostic.into()])
        }
        Ok((mut operator, params)) => {
            let mut files = nothing.files;
            let loaded = operator.load(&mut files);
            let operator = Some(operator).filter(|_| loaded.is_ok());
            let problems = loaded.err().into_iter().flatten().map(Finding::Problem).collect();
            (Decoded { entry: Some(entry), operator, params, files }, problems)
        }
    }
}

fn unknown_steps(spec: &Spec, out: &mut Mistakes) {
    let names: HashSet<&str> = spec.steps.iter().map(|s| s.name.as_str()).collect();
    for (place, step) in spec.steps.iter().enumerate() {
        // A step that is there, but wrong, has been told of.
        let unknown = |from: &&From| {
            let absent = from.sources.iter().any(|source| !names.contains(source.step.as_str()));
            absent && !spec.written.contains(&from.step)
        };
        for from in step.from.iter().filter(unknown) {
            let others: Vec<&str> =
                spec.written.iter().map(String::as_str).filter(|n| *n != step.written).collect();
            let message = format!("there is no step `{}`", from.step);
            let help = nearest(&from.step, &others, "steps");
            out.say(place, Diagnostic::error(from.span, message).label(from.span, "not a step").help(help));
        }
    }
}

/// The places of the steps, each after those that it reads, otherwise as they stand in the text; steps on a
/// cycle, and those that read them, are left out, and the cycle is shown.
fn order(spec: &Spec, out: &mut Mistakes) -> Vec<usize> {
    let place: HashMap<&str, usize> =
        spec.steps.iter().enumerate().map(|(i, s)| (s.name.as_str(), i)).collect();
    let reads: Vec<Vec<usize>> = spec
        .steps
        .iter()
        .map(|step| {
            let sources = step.from.iter().flat_map(|from| &from.sources);
            let places: BTreeSet<usize> =
                sources.filter_map(|source| place.get(source.step.as_str()).copied()).collect();
            places.into_iter().collect()
        })
        .collect();
    let mut waits: Vec<usize> = reads.iter().map(Vec::len).collect();
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); reads.len()];
    for (step, read) in reads.iter().enumerate() {
        read.iter().for_each(|other| readers[*other].push(step));
    }
    let mut ready: BTreeSet<usize> = (0..waits.len()).filter(|step| waits[*step] == 0).collect();
    let mut order: Vec<usize> = Vec::with_capacity(waits.len());
    while let Some(next) = ready.pop_first() {
        order.push(next);
        for reader in &readers[next] {
            waits[*reader] -= 1;
            if waits[*reader] == 0 {
                ready.insert(*reader);
            }
        }
    }
    let left: BTreeSet<usize> = (0..waits.len()).filter(|step| waits[*step] > 0).collect();
    let mut shown: BTreeSet<usize> = BTreeSet::new();
    for start in left.iter().copied() {
        if shown.contains(&start) {
            continue;
        }
        let cycle = cycle_through(start, &left, &reads);
        if !cycle.is_empty() && cycle.iter().all(|i| !shown.contains(i)) {
            out.say(cycle[0], cycle_diagnostic(spec, &cycle));
        }
        shown.extend(cycle);
        shown.insert(start);
    }
    order
}

/// The steps of a cycle that is reached from `start`, along what they read.
fn cycle_through(start: usize, left: &BTreeSet<usize>, reads: &[Vec<usize>]) -> Vec<usize> {
    let mut path = vec![start];
    let mut at: HashMap<usize, usize> = HashMap::from([(start, 0)]);
    loop {
        let here = path[path.len() - 1];
        let Some(next) = reads[here].iter().copied().find(|r| left.contains(r)) else { return Vec::new() };
        if let Some(from) = at.insert(next, path.len()) {
            return path.split_off(from);
        }
        path.push(next);
    }
}

fn cycle_diagnostic(spec: &Spec, cycle: &[usize]) -> Diagnostic {
    let name = |i: usize| spec.steps[i].name.as_str();
    let mut path: Vec<&str> = cycle.iter().map(|i| name(*i)).collect();
    path.push(name(cycle[0]));
    let edge = |at: usize| {
        let read = name(cycle[(at + 1) % cycle.len()]);
        spec.steps[cycle[at]].from.iter().find(|f| f.sources.iter().any(|source| source.step == read))
    };
    let span = edge(0).map_or(spec.steps[cycle[0]].span, |f| f.span);
    let message = format!("steps read each other in a circle: {}", path.join(" -> "));
    let mut diagnostic = Diagnostic::error(span, message);
    for (at, place) in cycle.iter().enumerate() {
        if let Some(from) = edge(at) {
            diagnostic = diagnostic.label(from.span, format!("`{}` reads `{}`", name(*place), from.step));
        }
    }
    diagnostic.help("take one of these inputs away")
}

struct Checker<'a> {
    spec: &'a Spec,
    registry: &'a Registry,
    statics: StaticAnswers,
    nodes: Vec<Node>,
    /// By step name: its place among the nodes, where it is sound.
    places: HashMap<String, usize>,
    out: Mistakes<'a>,
}

impl Checker<'_> {
    /// Adds the step at a place of the spec, whose inputs have been added, unless something is wrong with it.
    fn add(&mut self, at: usize, decoded: Decoded) {
        let step = &self.spec.steps[at];
        let (Some(entry), Some(operator)) = (decoded.entry, decoded.operator) else { return };
        let ports = operator.ports();
        let Some(inputs) = self.inputs(at, &ports) else { return };
        self.files_are_there(at, &*operator, &inputs);
        let Some(schemas) = self.schemas(at, (&*operator, &ports), &inputs, entry) else { return };
        let Some(kind) = self.kind(at, entry.kind, &schemas) else { return };
        let all = step.with.to_json();
        let signature = self.signature(entry, &*operator, &all, &decoded.files, &schemas);
        let signature = match signature {
            Ok(signature) => gathered_signature(kind, signature, &inputs),
            Err(problems) => {
                problems.into_iter().for_each(|p| self.out.find(at, Finding::Problem(p)));
                return;
            }
        };
        check_needs(step).into_iter().for_each(|mistake| self.out.say(at, mistake));
        self.check_rerun(at, kind);
        let shared = operator.shared_keys().map(|(column, _)| column);
        let outputs = output_shapes(kind, &signature, &schemas, shared);
        let place = self.nodes.len();
        let ConfigFiles { used: files, paths: file_paths, .. } = decoded.files;
        self.places.insert(step.name.clone(), place);
        self.nodes.push(Node {
            name: step.name.clone(),
            written: step.written.clone(),
            combination: step.combination.clone(),
            tags: step.tags.clone(),
            operator_name: entry.name,
            revision: entry.revision,
            kind,
            quick: entry.quick,
            operator,
            params: decoded.params,
            files,
            file_paths,
            inputs,
            signature,
            outputs,
            needs: step.needs.clone(),
            rerun: step.rerun,
            contract: None,
        });
        self.contracts(at, place);
    }

    /// What the operator reads and makes: remembered, or worked out now.
    fn signature(
        &self,
        entry: &Entry,
        operator: &dyn Operator,
        params: &Value,
        files: &ConfigFiles,
        inputs: &Inputs,
    ) -> Result<Signature, Vec<Problem>> {
        if !entry.remembered {
            return operator.signature(inputs);
        }
        self.statics.signature((entry.name, operator), params, &files.used, inputs)
    }

    /// A condition that can never accept anything is told of.
    fn check_rerun(&mut self, at: usize, kind: Kind) {
        let step = &self.spec.steps[at];
        let Some(reason) = step.rerun.and_then(|_| misplaced(kind)) else { return };
        let span = step.node.get("rerun").map_or(step.span, |rerun| rerun.span);
        let message = format!("`rerun` has no effect on `{}`", step.written);
        self.out.say(at, Diagnostic::warning(span, message).label(span, reason).help("take `rerun` away"));
    }

    /// The nodes that fill the step's ports; none where one of them is wrong or missing.
    fn inputs(&mut self, at: usize, ports: &[Port]) -> Option<Vec<NodeInput>> {
        let step = &self.spec.steps[at];
        let mut sound = true;
        let mut inputs: Vec<NodeInput> = Vec::new();
        let mut filled: BTreeMap<&str, Span> = BTreeMap::new();
        for from in &step.from {
            if let Some(port) = port_of(from, ports)
                && let Some(first) = filled.insert(port, from.span)
            {
                let message = format!("`{}` fills its input `{port}` twice", step.written);
                let help = "name the inputs: `from: { port: step }`";
                self.out.say(at, Diagnostic::error(from.span, message).label(first, "first here").help(help));
                sound = false;
                continue;
            }
            match self.input(at, from, ports) {
                Some(more) => inputs.extend(more),
                None => sound = false,
            }
        }
        let absent = ports
            .iter()
            .filter(|p| !p.optional && !step.from.iter().any(|f| port_of(f, ports) == Some(p.name)));
        for port in absent {
            // An input of another name has been told of, and is probably this one.
            let keys = if let yaml::Kind::Map(entries) = &step.node.kind { entries.as_slice() } else { &[] };
            let misspelt = |key: &str| key != "from" && shape::closest(key, ["from"]).is_some();
            let misnamed = step.from.iter().any(|from| port_of(from, ports).is_none())
                || (step.from.is_empty() && keys.iter().any(|entry| misspelt(&entry.key)));
            sound = false;
            if misnamed {
                continue;
            }
            let message = format!("`{}` has no input `{}`", step.written, port.name);
            let help = format!("{}: add `from: {{ {}: <step> }}`", port.doc.trim_end_matches('.'), port.name);
            self.out.say(
                at,
                Diagnostic::error(step.operator_span, message)
                    .label(step.operator_span, format!("reads a table `{}`", port.name))
                    .help(help),
            );
        }
        for (port, column, span) in &step.matches {
            if inputs.iter().any(|i| i.port == *port) {
                inputs.iter_mut().filter(|i| i.port == *port).for_each(|input| input.on.clone_from(column));
                continue;
            }
            let names: BTreeSet<&str> = step.from.iter().filter_map(|from| port_of(from, ports)).collect();
            if names.contains(port.as_str()) {
                continue;
            }
            let names: Vec<&str> = names.into_iter().collect();
            let message = format!("`match` names `{port}`, which is not an input of the step");
            let help = nearest(port, &names, "inputs");
            self.out.say(at, Diagnostic::error(*span, message).label(*span, "not an input").help(help));
            sound = false;
        }
        sound.then_some(inputs)
    }

    /// The nodes that one entry under `from` stands for: one, or the combinations that are gathered.
    fn input(&mut self, at: usize, from: &From, ports: &[Port]) -> Option<Vec<NodeInput>> {
        let step = &self.spec.steps[at];
        // Of a name that means nothing it has been told.
        if from.sources.is_empty() {
            return None;
        }
        let Some(port) = port_of(from, ports).map(str::to_owned) else {
            let names: Vec<&str> = ports.iter().map(|p| p.name).collect();
            let (message, help) = match &from.port {
                Some(port) => {
                    (format!("`{}` has no input `{port}`", step.operator), nearest(port, &names, "inputs"))
                }
                None if ports.is_empty() => {
                    (format!("`{}` reads no table", step.operator), "take `from` away".into())
                }
                None => (
                    format!("`{}` reads more than one table", step.operator),
                    format!("name them: from: {{ {} }}", names.join(": …, ") + ": …"),
                ),
            };
            let mistake = Diagnostic::error(from.span, message).label(from.span, "not an input").help(help);
            self.out.say(at, mistake);
            return None;
        };
        let places: Option<Vec<usize>> =
            from.sources.iter().map(|source| self.places.get(&source.step).copied()).collect();
        let places = places?;
        for node in &places {
            let outputs = &self.nodes[*node].outputs;
            if !outputs.contains_key(&from.output) {
                let outputs: Vec<&str> =
                    outputs.keys().map(String::as_str).filter(|n| !n.is_empty()).collect();
                let message = format!("the step `{}` has no output `{}`", from.step, from.output);
                let help = nearest(&from.output, &outputs, "outputs");
                let mistake =
                    Diagnostic::error(from.span, message).label(from.span, "not an output").help(help);
                self.out.say(at, mistake);
                return None;
            }
        }
        let fields = axis_fields(&from.sources);
        let inputs = from.sources.iter().zip(places).map(|(source, node)| NodeInput {
            port: port.clone(),
            node,
            output: from.output.clone(),
            on: "id".to_owned(),
            axes: source
                .axes
                .iter()
                .zip(&fields)
                .map(|((_, value), field)| AxisCell { field: field.clone(), value: value.clone() })
                .collect(),
        });
        Some(inputs.collect())
    }

    /// The kind of the step; none where it does not fill exactly one of the ports that its rows may come from.
    fn kind(&mut self, at: usize, kind: Kind, schemas: &Inputs) -> Option<Kind> {
        let found = kind.filled(|port| schemas.ports.contains_key(port));
        if let (None, Kind::OneOf(ports)) = (found, kind) {
            self.out.find(at, Finding::Problem(one_of(ports, schemas)));
        }
        found
    }

    fn files_are_there(&mut self, at: usize, operator: &dyn Operator, inputs: &[NodeInput]) {
        let patterns = operator.patterns();
        if patterns.is_empty() || inputs.iter().any(|i| i.port == FILES) {
            return;
        }
        let problem_of = match matching_paths(&self.spec.folder, &patterns) {
            Ok(paths) if !paths.is_empty() => return,
            Ok(_) => Problem::at(["with", "path"], format!("no file matches {}", patterns.join(", ")))
                .help(format!("paths are relative to the spec, here {}", self.spec.folder.display())),
            Err(error) => Problem::at(["with", "path"], format!("{error:#}")),
        };
        self.out.find(at, Finding::Problem(problem_of));
    }

    /// The schemas of the step's inputs; none where a needed column is missing or holds something else.
    fn schemas(
        &mut self,
        at: usize,
        (operator, ports): (&dyn Operator, &[Port]),
        inputs: &[NodeInput],
        entry: &Entry,
    ) -> Option<Inputs> {
        let mut schemas = Inputs { folder: self.spec.folder.clone(), ..Inputs::default() };
        let mut problems = Vec::new();
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        for input in inputs {
            // Of several that are gathered, the first stands for all.
            if !seen.insert(&input.port) {
                continue;
            }
            let table = match self.table(input, inputs) {
                Ok(table) => table,
                Err(problem) => {
                    problems.push(problem);
                    continue;
                }
            };
            let needed = ports.iter().find(|p| p.name == input.port).map_or(&[][..], |p| &p.columns);
            for column in needed {
                match table.schema.field_with_name(column.name) {
                    // A table that is joined on another id column needs no `id`.
                    Err(_) if column.name == "id" && input.on != "id" => {}
                    Err(_) => problems.push(missing_column(&input.port, column.name, &table.schema)),
                    Ok(field) if !column.fits(field) => {
                        problems.push(mistyped_column(&input.port, *column, field));
                    }
                    Ok(_) => {}
                }
            }
            if input.on != "id" && table.schema.field_with_name(&input.on).is_err() {
                let mut problem = missing_column(&input.port, &input.on, &table.schema);
                problem.path = vec!["match".into(), input.port.clone()];
                problems.push(problem);
            }
            let input_schema = Input { schema: table.schema, keys: table.keys, on: input.on.clone() };
            schemas.ports.insert(input.port.clone(), input_schema);
        }
        let reads_files = ports.iter().any(|p| p.name == FILES);
        if reads_files {
            let table = schemas.ports.get(FILES).map(|input| files_schema_of(&input.schema));
            schemas.files_on_disk = table.is_none();
            let files = RecordBatch::new_empty(table.unwrap_or_else(files_schema));
            let schema = match operator.annotate(files) {
                Ok(files) => files.schema(),
                Err(error) => {
                    problems.push(Problem::at(["with"], format!("{error:#}")));
                    files_schema()
                }
            };
            let files = Input { schema, keys: vec!["path".into()], on: "id".into() };
            schemas.ports.insert(FILES.to_owned(), files);
        }
        let sound = problems.is_empty();
        problems.into_iter().for_each(|problem| self.out.find(at, Finding::Problem(problem)));
        if let Kind::Row(port) = entry.kind
            && !schemas.ports.contains_key(port)
        {
            return None;
        }
        sound.then_some(schemas)
    }

    /// The table that fills the port of `input`: one step's, or that of all which are gathered into the port.
    fn table(&self, input: &NodeInput, inputs: &[NodeInput]) -> Result<TableShape, Problem> {
        let own = |input: &NodeInput| &self.nodes[input.node].outputs[&input.output];
        let first = own(input);
        if input.axes.is_empty() {
            return Ok(first.clone());
        }
        let at = |message: String| Problem::at(["from", input.port.as_str()], message);
        let name = |input: &NodeInput| self.nodes[input.node].name.as_str();
        for other in inputs.iter().filter(|other| other.port == input.port) {
            let shape = own(other);
            if let Some(difference) = difference(&first.schema, &shape.schema) {
                let message =
                    format!("`{}` and `{}` are no one table: {difference}", name(input), name(other));
                return Err(at(message).help("steps that are gathered have the same columns"));
            }
        }
        let taken = input.axes.iter().find(|cell| first.schema.field_with_name(cell.field.name()).is_ok());
        if let Some(cell) = taken {
            let message =
                format!("the axis `{0}` and a column `{0}` would stand in one table", cell.field.name());
            return Err(at(message).help("give the axis another name"));
        }
        let axes = input.axes.iter().map(|cell| cell.field.clone());
        let schema = column::schema(axes.chain(first.schema.fields().iter().map(|f| f.as_ref().clone())));
        let names = input.axes.iter().map(|cell| cell.field.name().clone());
        // Where a table has no keys, all of its columns are the key.
        let keys = match first.keys.is_empty() {
            true => Vec::new(),
            false => names.chain(first.keys.iter().cloned()).collect(),
        };
        Ok(TableShape { schema, keys })
    }

    /// Adds a node for each contract, right behind the step that it watches.
    fn contracts(&mut self, at: usize, watched: usize) {
        let step = &self.spec.steps[at];
        for (number, contract) in step.expect.iter().enumerate() {
            let Some(entry) = self.registry.get("sql") else {
                let message = "contracts need SQL, and this argent was built without it";
                self.out
                    .say(at, Diagnostic::error(contract.span, message).help("build with the feature `sql`"));
                return;
            };
            const HEAD: &str = "select (";
            let query = format!("{HEAD}{}) as holds from result", contract.sql);
            let Ok((mut operator, params)) = entry.decode(json!({ "query": query })) else { continue };
            // Loading gives the query's syntax tree, which is what tells one contract's key from another's.
            let mut files = ConfigFiles::new(&self.spec.folder);
            let shape = &self.nodes[watched].outputs[""];
            let table = Input { schema: shape.schema.clone(), keys: shape.keys.clone(), on: "id".into() };
            let inputs = Inputs {
                ports: BTreeMap::from([("result".to_owned(), table)]),
                folder: self.spec.folder.clone(),
                files_on_disk: false,
            };
            let loaded = operator.load(&mut files);
            let signature = loaded.and_then(|()| self.signature(entry, &*operator, &params, &files, &inputs));
            let signature =
                signature.and_then(|signature| match signature.main().schema.field(0).data_type() {
                    DataType::Boolean => Ok(signature),
                    other => {
                        let found = column::type_name(other);
                        let message = format!("expected a predicate, which is true or false, found {found}");
                        Err(vec![Problem::at(["expect"], message).help("compare it with a value: `… > 0`")])
                    }
                });
            let signature = match signature {
                Ok(signature) => signature,
                Err(problems) => {
                    for p in problems {
                        // Places in the query are places in the predicate behind its head.
                        let part = p.part.filter(|part| part.start >= HEAD.len());
                        let part = part.map(|part| part.start - HEAD.len()..part.end - HEAD.len());
                        let inside = part.filter(|part| part.end <= contract.sql.len());
                        let message = format!("the contract does not read: {}", p.message);
                        let span =
                            inside.and_then(|part| self.out.within(contract.span, &contract.sql, &part));
                        let mistake = Diagnostic::error(span.unwrap_or(contract.span), message);
                        self.out
                            .say(at, p.help.iter().fold(mistake, |mistake, help| mistake.help(help.clone())));
                    }
                    continue;
                }
            };
            let shared = operator.shared_keys().map(|(column, _)| column);
            let outputs = output_shapes(entry.kind, &signature, &inputs, shared);
            let input = NodeInput {
                port: "result".into(),
                node: watched,
                output: String::new(),
                on: "id".into(),
                axes: Vec::new(),
            };
            self.nodes.push(Node {
                name: format!("{}.expect.{number}", step.name),
                written: step.written.clone(),
                combination: step.combination.clone(),
                tags: Vec::new(),
                operator_name: entry.name,
                revision: entry.revision,
                kind: entry.kind,
                quick: entry.quick,
                operator,
                params,
                files: files.used,
                file_paths: BTreeMap::new(),
                inputs: vec![input],
                signature,
                outputs,
                needs: BTreeMap::new(),
                rerun: None,
                contract: Some(ContractOf { node: watched, sql: contract.sql.clone(), warn: contract.warn }),
            });
        }
    }
}

/// The port that a `from` entry fills: by name, or the only one; a port without a name takes any.
fn port_of<'p>(from: &'p From, ports: &'p [Port]) -> Option<&'p str> {
    let any = ports.iter().any(|p| p.name.is_empty());
    match &from.port {
        Some(name) => ports.iter().find(|p| p.name == name).map(|p| p.name).or(any.then_some(name.as_str())),
        None if any => Some(&from.step),
        None => {
            let needed: Vec<&Port> = ports.iter().filter(|p| !p.optional).collect();
            match (needed.as_slice(), ports) {
                ([only], _) => Some(only.name),
                ([], [first, ..]) => Some(first.name),
                _ => None,
            }
        }
    }
}

/// What a row operator makes of gathered rows: they keep the axes that tell them apart.
fn gathered_signature(kind: Kind, mut signature: Signature, inputs: &[NodeInput]) -> Signature {
    let Kind::Row(port) = kind else { return signature };
    let Some(input) = inputs.iter().find(|input| input.port == port) else { return signature };
    let axes: Vec<String> = input.axes.iter().map(|cell| cell.field.name().clone()).collect();
    let in_front = |names: &mut Vec<String>| {
        names.retain(|name| !axes.contains(name));
        names.splice(0..0, axes.iter().cloned());
    };
    in_front(&mut signature.carries);
    if let Some(main) = signature.outputs.get_mut("").filter(|main| !main.keys.is_empty()) {
        in_front(&mut main.keys);
    }
    signature
}

/// The columns of the axes by which gathered steps differ.
fn axis_fields(sources: &[Source]) -> Vec<Field> {
    let Some(first) = sources.first() else { return Vec::new() };
    let field = |place: usize, axis: &str| {
        let values = sources.iter().filter_map(|source| source.axes.get(place)).map(|(_, v)| v.as_str());
        axes::field(axis, values)
    };
    first.axes.iter().enumerate().map(|(place, (axis, _))| field(place, axis)).collect()
}

/// What keeps two tables from being one; none where their columns have the same names and types.
fn difference(one: &Schema, other: &Schema) -> Option<String> {
    for field in one.fields() {
        match other.field_with_name(field.name()) {
            Err(_) => return Some(format!("only the first has a column `{}`", field.name())),
            Ok(found) if found.data_type() != field.data_type() => {
                let (one, other) =
                    (column::type_name(field.data_type()), column::type_name(found.data_type()));
                return Some(format!("the column `{}` holds {one} and {other}", field.name()));
            }
            Ok(_) => {}
        }
    }
    let more = other.fields().iter().find(|field| one.field_with_name(field.name()).is_err());
    more.map(|field| format!("only the second has a column `{}`", field.name()))
}

/// The tables of a step as other steps see them: with carried columns, and `errors`. `shared` is the column of keys in a
/// shared memo.
fn output_shapes(
    kind: Kind,
    signature: &Signature,
    inputs: &Inputs,
    shared: Option<&str>,
) -> BTreeMap<String, TableShape> {
    let shape = |schema: SchemaRef, keys: &[String]| TableShape { schema, keys: keys.to_vec() };
    let mut shapes: BTreeMap<String, TableShape> =
        signature.outputs.iter().map(|(name, o)| (name.clone(), shape(o.schema.clone(), &o.keys))).collect();
    let errors = match kind {
        Kind::Row(port) => {
            let input: &Schema = &inputs.port(port).schema;
            let main = signature.main();
            let full = full_schema(&signature.carries, input, &main.schema);
            shapes.insert(String::new(), shape(full, &main.keys));
            planned_error_schema(&signature.carries, input, shared)
        }
        Kind::Table | Kind::OneOf(_) => fault_schema(),
    };
    shapes.insert("errors".to_owned(), shape(errors, &[]));
    shapes
}
