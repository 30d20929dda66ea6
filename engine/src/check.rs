//! From a spec to a pipeline that can run: operators decoded, edges joined, columns checked. Every mistake
//! that needs no data is found here, all of them at once.

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::{Schema, SchemaRef};
use serde_json::{Value, json};

use crate::column;
use crate::diagnostic::{Diagnostic, Span};
use crate::drift::misplaced;
use crate::io::fault_schema;
use crate::operator::{
    ConfigFiles, Entry, FILES, Input, Inputs, Kind, Operator, Port, Problem, Registry, Signature,
    missing_column, nearest,
};
use crate::pipeline::{ContractOf, Node, NodeInput, Pipeline, TableShape};
use crate::pools::check_needs;
use crate::rows::{full_schema, planned_error_schema};
use crate::shape;
use crate::spec::{From, Spec, Step, has_errors};
use crate::statics::StaticAnswers;
use crate::table::{files_schema, matching_paths};
use crate::yaml;

/// Checks a spec against the operators that there are, with the static answers that a store remembers. The
/// pipeline is there only when nothing is wrong.
pub fn check(
    spec: &Spec,
    registry: &Registry,
    statics: StaticAnswers,
) -> (Option<Pipeline>, Vec<Diagnostic>) {
    let mut out = Vec::new();
    let decoded = decode_all(spec, registry, &mut out);
    unknown_steps(spec, &mut out);
    let order = order(spec, &mut out);
    let mut checker = Checker { spec, registry, statics, nodes: Vec::new(), places: BTreeMap::new(), out };
    let mut decoded: Vec<Option<Decoded>> = decoded.into_iter().map(Some).collect();
    for place in order {
        let step = &spec.steps[place];
        if let Some(decoded) = decoded[place].take() {
            checker.add(step, decoded);
        }
    }
    let Checker { nodes, statics, out, .. } = checker;
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
fn decode_all<'a>(spec: &Spec, registry: &'a Registry, out: &mut Vec<Diagnostic>) -> Vec<Decoded<'a>> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let share = spec.steps.len().div_ceil(cores).max(FEW_STEPS);
    let some = |steps: &[Step]| -> (Vec<Decoded<'a>>, Vec<Diagnostic>) {
        let mut out = Vec::new();
        (steps.iter().map(|step| decode(spec, step, registry, &mut out)).collect(), out)
    };
    let mut all = Vec::new();
    std::thread::scope(|scope| {
        let mut shares = spec.steps.chunks(share);
        let first = shares.next().unwrap_or_default();
        let others: Vec<_> = shares.map(|steps| scope.spawn(move || some(steps))).collect();
        let (decoded, wrong) = some(first);
        all.extend(decoded);
        out.extend(wrong);
        for other in others {
            let (decoded, wrong) = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            all.extend(decoded);
            out.extend(wrong);
        }
    });
    all
}

/// A step whose parameters are read; the operator is absent where they are wrong.
struct Decoded<'a> {
    entry: Option<&'a Entry>,
    operator: Option<Box<dyn Operator>>,
    params: Value,
    files: ConfigFiles,
}

fn decode<'a>(spec: &Spec, step: &Step, registry: &'a Registry, out: &mut Vec<Diagnostic>) -> Decoded<'a> {
    let files = ConfigFiles::new(&spec.folder);
    let nothing = Decoded { entry: None, operator: None, params: Value::Null, files };
    let Some(entry) = registry.get(&step.operator) else {
        let names: Vec<&str> = registry.entries().iter().map(|e| e.name).collect();
        let message = format!("there is no operator `{}`", step.operator);
        out.push(
            Diagnostic::error(step.operator_span, message)
                .label(step.operator_span, "not an operator")
                .help(nearest(&step.operator, &names, "operators")),
        );
        return nothing;
    };
    let mistakes = shape::check(&step.with, entry.schema(), entry.name);
    if !mistakes.is_empty() {
        out.extend(mistakes);
        return Decoded { entry: Some(entry), ..nothing };
    }
    match entry.decode(step.with.to_json()) {
        Err(error) => {
            let message = format!("the parameters of `{}` do not read: {error}", step.name);
            out.push(Diagnostic::error(step.with.span, message).label(step.with.span, entry.name));
            Decoded { entry: Some(entry), ..nothing }
        }
        Ok((mut operator, params)) => {
            let mut files = nothing.files;
            let loaded = operator.load(&mut files);
            let broken = loaded.is_err();
            out.extend(loaded.err().into_iter().flatten().map(|p| problem(step, &p)));
            let operator = Some(operator).filter(|_| !broken);
            Decoded { entry: Some(entry), operator, params, files }
        }
    }
}

fn unknown_steps(spec: &Spec, out: &mut Vec<Diagnostic>) {
    let names: BTreeSet<&str> = spec.steps.iter().map(|s| s.name.as_str()).collect();
    for step in &spec.steps {
        for from in step.from.iter().filter(|f| !names.contains(f.step())) {
            let others: Vec<&str> = names.iter().copied().filter(|n| *n != step.name).collect();
            let message = format!("there is no step `{}`", from.step());
            let help = nearest(from.step(), &others, "steps");
            out.push(Diagnostic::error(from.span, message).label(from.span, "not a step").help(help));
        }
    }
}

/// The places of the steps, each after those that it reads; steps on a cycle are left out and shown.
fn order(spec: &Spec, out: &mut Vec<Diagnostic>) -> Vec<usize> {
    let place: BTreeMap<&str, usize> =
        spec.steps.iter().enumerate().map(|(i, s)| (s.name.as_str(), i)).collect();
    let reads =
        |i: usize| spec.steps[i].from.iter().filter_map(|f| place.get(f.step()).copied()).collect::<Vec<_>>();
    let mut order: Vec<usize> = Vec::new();
    let mut left: BTreeSet<usize> = (0..spec.steps.len()).collect();
    while let Some(next) = left.iter().copied().find(|i| reads(*i).iter().all(|r| order.contains(r))) {
        left.remove(&next);
        order.push(next);
    }
    let mut shown: BTreeSet<usize> = BTreeSet::new();
    for start in left.iter().copied() {
        if shown.contains(&start) {
            continue;
        }
        let cycle = cycle_through(start, &left, &reads);
        if !cycle.is_empty() && cycle.iter().all(|i| !shown.contains(i)) {
            out.push(cycle_diagnostic(spec, &cycle));
        }
        shown.extend(cycle);
        shown.insert(start);
    }
    order
}

/// The steps of a cycle that is reached from `start`, along what they read.
fn cycle_through(start: usize, left: &BTreeSet<usize>, reads: &dyn Fn(usize) -> Vec<usize>) -> Vec<usize> {
    let mut path = vec![start];
    loop {
        let here = path[path.len() - 1];
        let Some(next) = reads(here).into_iter().find(|r| left.contains(r)) else { return Vec::new() };
        if let Some(from) = path.iter().position(|p| *p == next) {
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
        spec.steps[cycle[at]].from.iter().find(|f| f.step() == read)
    };
    let span = edge(0).map_or(spec.steps[cycle[0]].span, |f| f.span);
    let message = format!("steps read each other in a circle: {}", path.join(" -> "));
    let mut diagnostic = Diagnostic::error(span, message);
    for (at, place) in cycle.iter().enumerate() {
        if let Some(from) = edge(at) {
            diagnostic = diagnostic.label(from.span, format!("`{}` reads `{}`", name(*place), from.step()));
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
    places: BTreeMap<String, usize>,
    out: Vec<Diagnostic>,
}

impl Checker<'_> {
    /// Adds a step whose inputs have been added, unless something is wrong with it.
    fn add(&mut self, step: &Step, decoded: Decoded) {
        let (Some(entry), Some(operator)) = (decoded.entry, decoded.operator) else { return };
        let ports = operator.ports();
        let Some(inputs) = self.inputs(step, &ports) else { return };
        self.files_are_there(step, &*operator, &inputs);
        let Some(schemas) = self.schemas(step, &ports, &inputs, entry) else { return };
        let all = step.with.to_json();
        let signature = self.signature(entry, &*operator, &all, &decoded.files, &schemas);
        let signature = match signature {
            Ok(signature) => signature,
            Err(problems) => {
                self.out.extend(problems.iter().map(|p| problem(step, p)));
                return;
            }
        };
        self.out.extend(check_needs(step));
        self.check_rerun(step, entry.kind);
        let outputs = output_shapes(entry.kind, &signature, &schemas);
        let place = self.nodes.len();
        let ConfigFiles { used: files, paths: file_paths, .. } = decoded.files;
        self.places.insert(step.name.clone(), place);
        self.nodes.push(Node {
            name: step.name.clone(),
            operator_name: entry.name,
            revision: entry.revision,
            kind: entry.kind,
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
        self.contracts(step, place);
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
    fn check_rerun(&mut self, step: &Step, kind: Kind) {
        let Some(reason) = step.rerun.and_then(|_| misplaced(kind)) else { return };
        let span = step.node.get("rerun").map_or(step.span, |rerun| rerun.span);
        let message = format!("`rerun` has no effect on `{}`", step.name);
        self.out.push(Diagnostic::warning(span, message).label(span, reason).help("take `rerun` away"));
    }

    /// The nodes that fill the step's ports; none where one of them is wrong or missing.
    fn inputs(&mut self, step: &Step, ports: &[Port]) -> Option<Vec<NodeInput>> {
        let mut sound = true;
        let mut inputs: Vec<NodeInput> = Vec::new();
        for from in &step.from {
            match self.input(step, from, ports) {
                Some(input) => inputs.push(input),
                None => sound = false,
            }
        }
        let absent = ports
            .iter()
            .filter(|p| !p.optional && !step.from.iter().any(|f| self.port_of(f, ports) == Some(p.name)));
        let absent: Vec<&Port> = absent.collect();
        for port in absent {
            sound = false;
            let message = format!("`{}` has no input `{}`", step.name, port.name);
            let help = format!("{}: add `from: {{ {}: <step> }}`", port.doc.trim_end_matches('.'), port.name);
            self.out.push(
                Diagnostic::error(step.operator_span, message)
                    .label(step.operator_span, format!("reads a table `{}`", port.name))
                    .help(help),
            );
        }
        for (port, column, span) in &step.matches {
            match inputs.iter_mut().find(|i| i.port == *port) {
                Some(input) => input.on.clone_from(column),
                None => {
                    let names: Vec<&str> = inputs.iter().map(|i| i.port.as_str()).collect();
                    let message = format!("`match` names `{port}`, which is not an input of the step");
                    self.out.push(
                        Diagnostic::error(*span, message)
                            .label(*span, "not an input")
                            .help(nearest(port, &names, "inputs")),
                    );
                    sound = false;
                }
            }
        }
        sound.then_some(inputs)
    }

    fn input(&mut self, step: &Step, from: &From, ports: &[Port]) -> Option<NodeInput> {
        let Some(port) = self.port_of(from, ports).map(str::to_owned) else {
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
            self.out.push(Diagnostic::error(from.span, message).label(from.span, "not an input").help(help));
            return None;
        };
        let node = *self.places.get(from.step())?;
        let output = from.output();
        if !self.nodes[node].outputs.contains_key(output) {
            let outputs: Vec<&str> =
                self.nodes[node].outputs.keys().map(String::as_str).filter(|n| !n.is_empty()).collect();
            let message = format!("the step `{}` has no output `{output}`", from.step());
            let help = nearest(output, &outputs, "outputs");
            self.out.push(Diagnostic::error(from.span, message).label(from.span, "not an output").help(help));
            return None;
        }
        Some(NodeInput { port, node, output: output.to_owned(), on: "id".to_owned() })
    }

    /// The port that a `from` entry fills: by name, or the only one; a port without a name takes any.
    fn port_of<'p>(&self, from: &'p From, ports: &'p [Port]) -> Option<&'p str> {
        let any = ports.iter().any(|p| p.name.is_empty());
        match &from.port {
            Some(name) => {
                ports.iter().find(|p| p.name == name).map(|p| p.name).or(any.then_some(name.as_str()))
            }
            None if any => Some(from.step()),
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

    fn files_are_there(&mut self, step: &Step, operator: &dyn Operator, inputs: &[NodeInput]) {
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
        self.out.push(problem(step, &problem_of));
    }

    /// The schemas of the step's inputs; none where a needed column is missing.
    fn schemas(
        &mut self,
        step: &Step,
        ports: &[Port],
        inputs: &[NodeInput],
        entry: &Entry,
    ) -> Option<Inputs> {
        let mut schemas = Inputs { folder: self.spec.folder.clone(), ..Inputs::default() };
        let mut problems = Vec::new();
        for input in inputs {
            let table = self.nodes[input.node].outputs[&input.output].clone();
            let needed = ports.iter().find(|p| p.name == input.port).map_or(&[][..], |p| p.columns);
            for column in needed.iter().filter(|c| table.schema.field_with_name(c).is_err()) {
                // A table that is joined on another id column needs no `id`.
                if *column != "id" || input.on == "id" {
                    problems.push(missing_column(&input.port, column, &table.schema));
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
            let files = Input { schema: files_schema(), keys: vec!["path".into()], on: "id".into() };
            schemas.files_on_disk = schemas.ports.insert(FILES.to_owned(), files).is_none();
        }
        if let Kind::Row(port) = entry.kind
            && !schemas.ports.contains_key(port)
        {
            return None;
        }
        let sound = problems.is_empty();
        self.out.extend(problems.iter().map(|p| problem(step, p)));
        sound.then_some(schemas)
    }

    /// Adds a node for each contract, right behind the step that it watches.
    fn contracts(&mut self, step: &Step, watched: usize) {
        for (number, contract) in step.expect.iter().enumerate() {
            let Some(entry) = self.registry.get("sql") else {
                let message = "contracts need SQL, and this argent was built without it";
                self.out.push(Diagnostic::error(contract.span, message).help("build with the feature `sql`"));
                return;
            };
            let query = format!("select ({}) as holds from result", contract.sql);
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
            match signature {
                Err(problems) => self.out.extend(problems.iter().map(|p| {
                    let message = format!("the contract does not read: {}", p.message);
                    let diagnostic = Diagnostic::error(contract.span, message);
                    match &p.help {
                        Some(help) => diagnostic.help(help.clone()),
                        None => diagnostic,
                    }
                })),
                Ok(signature) => {
                    let outputs = output_shapes(entry.kind, &signature, &inputs);
                    let input = NodeInput {
                        port: "result".into(),
                        node: watched,
                        output: String::new(),
                        on: "id".into(),
                    };
                    self.nodes.push(Node {
                        name: format!("{}.expect.{number}", step.name),
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
                        contract: Some(ContractOf {
                            node: watched,
                            sql: contract.sql.clone(),
                            warn: contract.warn,
                        }),
                    });
                }
            }
        }
    }
}

/// The tables of a step as other steps see them: with carried columns, and `errors`.
fn output_shapes(kind: Kind, signature: &Signature, inputs: &Inputs) -> BTreeMap<String, TableShape> {
    let shape = |schema: SchemaRef, keys: &[String]| TableShape { schema, keys: keys.to_vec() };
    let mut shapes: BTreeMap<String, TableShape> =
        signature.outputs.iter().map(|(name, o)| (name.clone(), shape(o.schema.clone(), &o.keys))).collect();
    let errors = match kind {
        Kind::Row(port) => {
            let input: &Schema = &inputs.port(port).schema;
            let main = signature.main();
            let full = full_schema(&signature.carries, input, &main.schema);
            shapes.insert(String::new(), shape(full, &main.keys));
            planned_error_schema(&signature.carries, input)
        }
        Kind::Table => fault_schema(),
    };
    shapes.insert("errors".to_owned(), shape(errors, &[]));
    shapes
}

/// A problem of a step, put to the deepest place of its path that the text has.
fn problem(step: &Step, problem: &Problem) -> Diagnostic {
    let span = place(step, &problem.path);
    let diagnostic = Diagnostic::error(span, problem.message.clone()).label(span, String::new());
    match &problem.help {
        Some(help) => diagnostic.help(help.clone()),
        None => diagnostic,
    }
}

fn place(step: &Step, path: &[String]) -> Span {
    let mut node: &yaml::Node = &step.node;
    let mut span = step.operator_span;
    for key in path {
        let next = match &node.kind {
            yaml::Kind::Map(_) => node.get(key),
            yaml::Kind::List(items) => key.parse::<usize>().ok().and_then(|i| items.get(i)),
            _ => None,
        };
        let Some(next) = next else { break };
        (node, span) = (next, next.span);
    }
    span
}

/// The columns with a role among those that a port asks for, in words: for pages and messages.
pub fn describe(schema: &Schema) -> Vec<String> {
    schema.fields().iter().map(|f| format!("{}: {}", f.name(), column::type_name(f.data_type()))).collect()
}
