//! What can be said on the command line.

use std::path::PathBuf;

use argent_engine::spec::Compared;
use clap::builder::TypedValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

/// What a script reads of a command's end.
const EXIT_CODES: &str = "\
Exit codes:
  0    done; rows that failed do not change it
  1    a step failed, or something that was looked for is wrong or absent
  2    the spec or the command line is wrong
  3    a budget stopped the run
  4    a contract does not hold
  130  interrupted";

/// Runs pipelines of typed steps for radiology AI, does again only what changed, and answers SQL over all of it.
#[derive(Debug, Parser)]
#[command(name = "argent", version, propagate_version = true, after_long_help = EXIT_CODES)]
pub(crate) struct Arguments {
    /// The store's folder; else the nearest `.argent` upward, else beside the nearest `.git`, else beside the spec
    #[arg(long, global = true, env = "ARGENT_STORE", value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a pipeline: make what is missing or stale, reuse the rest
    Run(RunArguments),
    /// Show what a run would do: reasons, rows, tokens, dollars, time
    Plan(PlanArguments),
    /// Find every mistake of a pipeline without running it
    Check(CheckArguments),
    /// Try a step on a few rows: what it asks, what is answered, and its rows beside those that there are
    Try(TryArguments),
    /// Say why a step would run again, and where its last result came from
    Why(WhyArguments),
    /// Show which rows and cells of a step's table differ between two runs
    Diff(DiffArguments),
    /// Draw the volumes and images of a step's table as one picture, or write its plots
    Show(ShowArguments),
    /// Ask SQL over the results of a store
    #[cfg(feature = "sql")]
    Sql(SqlArguments),
    /// List the runs of a store, or the steps of one run
    Runs(RunsArguments),
    /// Show the rows that failed, and why
    Errors(ErrorsArguments),
    /// List the operators, or show one
    Ops(OpsArguments),
    /// Print the JSON Schema of pipelines, for editors
    Schema,
    /// Make a folder with a pipeline that runs, to begin from
    Init(InitArguments),
    /// Say whether everything that a pipeline needs is there: files, servers, keys, programs, disk, GPUs
    Doctor(DoctorArguments),
    /// Print a shell's completion script
    Completions(CompletionsArguments),
    /// Print a manual page
    Man(ManArguments),
    /// Remove what no pipeline, kept run or named run needs
    Gc(GcArguments),
    /// Remove every trace of the rows that a predicate names, in every version, and never take them in again
    Forget(ForgetArguments),
    /// Read everything in a store and say what is damaged or missing
    Verify(VerifyArguments),
}

/// A pipeline and the values of its params.
#[derive(Debug, Clone, Args)]
pub(crate) struct SpecArguments {
    /// The pipeline's YAML file
    #[arg(value_name = "SPEC")]
    pub(crate) spec: PathBuf,
    /// Give a param another value
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = assignment)]
    pub(crate) set: Vec<(String, String)>,
    /// The values of params that `plan --with` compares.
    #[arg(skip)]
    pub(crate) with: Vec<Compared>,
}

#[derive(Debug, Args)]
pub(crate) struct WorkArguments {
    /// Only these steps: STEP, +STEP (and all that it reads), STEP+ (and all that reads it), tag:TAG, or a pattern
    /// such as 'enc*'
    #[arg(long, value_name = "STEPS")]
    pub(crate) select: Vec<String>,
    /// Stop before more than this is spent, in US dollars
    #[arg(long, value_name = "USD")]
    pub(crate) max_usd: Option<f64>,
    /// Run steps whose inputs changed, even where their `rerun` accepts the change
    #[arg(long)]
    pub(crate) strict: bool,
    /// How many processors steps that run at the same time may use together; else all
    #[arg(long, value_name = "N", env = "ARGENT_JOBS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) jobs: Option<u32>,
    /// Try rows again whose failure is remembered
    #[arg(long)]
    pub(crate) retry_errors: bool,
    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    #[command(flatten)]
    pub(crate) spec: SpecArguments,
    #[command(flatten)]
    pub(crate) work: WorkArguments,
    /// Name the run: its results are kept until another run has the name
    #[arg(short = 'm', long, value_name = "NAME")]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PlanArguments {
    #[command(flatten)]
    pub(crate) spec: SpecArguments,
    #[command(flatten)]
    pub(crate) work: WorkArguments,
    /// Try each step that would ask a server on N rows, and compare their labels with those that there are, and with the
    /// truth; a run does not ask them again
    #[arg(long, value_name = "N", value_parser = rows())]
    pub(crate) canary: Option<usize>,
    /// Plan once for each of these values of a param, and compare; several are multiplied out
    #[arg(long = "with", value_name = "params.NAME=A,B", value_parser = assignment)]
    pub(crate) with: Vec<(String, String)>,
}

#[derive(Debug, Args)]
pub(crate) struct TryArguments {
    #[command(flatten)]
    pub(crate) spec: SpecArguments,
    /// The step
    #[arg(value_name = "STEP")]
    pub(crate) step: String,
    /// How many rows: the same each time, and more of them with a higher number
    #[arg(long, value_name = "N", default_value = "5", value_parser = rows(), conflicts_with = "id")]
    pub(crate) rows: usize,
    /// The rows of this id instead
    #[arg(long, value_name = "ID")]
    pub(crate) id: Option<String>,
    /// Stop before more than this is spent, in US dollars
    #[arg(long, value_name = "USD")]
    pub(crate) max_usd: Option<f64>,
    /// Try rows again whose failure is remembered
    #[arg(long)]
    pub(crate) retry_errors: bool,
    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    #[command(flatten)]
    pub(crate) spec: SpecArguments,
    /// Print the columns of every step's tables: type, key, role, whether they may be null, unit
    #[arg(long)]
    pub(crate) types: bool,
    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct WhyArguments {
    #[command(flatten)]
    pub(crate) spec: SpecArguments,
    /// The step
    #[arg(value_name = "STEP")]
    pub(crate) step: String,
    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DiffArguments {
    #[command(flatten)]
    pub(crate) spec: SpecArguments,
    /// The step
    #[arg(value_name = "STEP")]
    pub(crate) step: String,
    /// The run whose result stands before; left out, the last one before with another result
    #[arg(long, value_name = "RUN")]
    pub(crate) from: Option<String>,
    /// The run whose result stands after; left out, the last one
    #[arg(long, value_name = "RUN")]
    pub(crate) to: Option<String>,
    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArguments {
    #[command(flatten)]
    pub(crate) spec: SpecArguments,
    /// The step: it has plots, or its table names voxels, pixels, or the files of a scan
    #[arg(value_name = "STEP")]
    pub(crate) step: String,
    /// The rows of these ids, or the plots of these names; left out, the first rows, or all plots
    #[arg(value_name = "ID", conflicts_with = "rows")]
    pub(crate) ids: Vec<String>,
    /// How many rows are drawn where no id is given
    #[arg(long, value_name = "N", default_value = "6", value_parser = rows())]
    pub(crate) rows: usize,
    /// Which values become black and white, in HU for volumes; left out, volumes are drawn for lung (-600,1500) and soft
    /// tissue (40,400), and images from their first to their 99th percentile
    #[arg(long, value_name = "CENTER,WIDTH", value_parser = window, allow_hyphen_values = true)]
    pub(crate) window: Option<[f64; 2]>,
    /// Where the picture is written, as a PNG file, or the plot as an SVG file; left out, into the current folder, under the
    /// step's name. Pictures show patients and their ids, and `argent forget` does not find them
    #[arg(short = 'o', long = "output", value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// How a table is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned text
    Table,
    /// Comma-separated values
    Csv,
    /// One JSON object per line
    Json,
    /// Parquet, into the file of `-o`
    Parquet,
}

#[derive(Debug, Args)]
pub(crate) struct SqlArguments {
    /// The question
    #[arg(value_name = "QUERY")]
    pub(crate) query: String,
    /// The pipeline whose steps have bare names
    #[arg(short = 'p', long = "pipeline", value_name = "SPEC")]
    pub(crate) pipeline: Option<PathBuf>,
    /// How the answer is printed
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: Format,
    /// Write the answer to a file
    #[arg(short = 'o', long = "output", value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Show columns that hold patient text
    #[arg(long)]
    pub(crate) phi: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RunsArguments {
    /// The run whose steps are shown
    #[arg(value_name = "RUN")]
    pub(crate) run: Option<String>,
    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ErrorsArguments {
    #[command(flatten)]
    pub(crate) spec: SpecArguments,
    /// The step; left out, all steps
    #[arg(value_name = "STEP")]
    pub(crate) step: Option<String>,
    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct OpsArguments {
    /// The operator; left out, all of them
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Print JSON instead of text
    #[arg(long, conflicts_with = "markdown")]
    pub(crate) json: bool,
    /// Print Markdown, as in docs/operators, instead of text
    #[arg(long)]
    pub(crate) markdown: bool,
}

#[derive(Debug, Args)]
pub(crate) struct InitArguments {
    /// The folder: a new one, or one that is empty
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArguments {
    #[command(flatten)]
    pub(crate) spec: SpecArguments,
    /// Also send servers a few requests without a report (about 6,000 tokens), to see whether they hold answers to their
    /// schema and read long prompts whole
    #[arg(long)]
    pub(crate) probe: bool,
    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArguments {
    /// The shell
    #[arg(value_name = "SHELL", value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArguments {
    /// The command; left out, argent itself
    #[arg(value_name = "COMMAND")]
    pub(crate) name: Option<String>,
    /// Print the reference of all commands as Markdown, as in docs/cli.md, instead of a page for man
    #[arg(long, conflicts_with = "name")]
    pub(crate) markdown: bool,
}

#[derive(Debug, Args)]
pub(crate) struct GcArguments {
    /// Show what would be removed, and what making it again would cost; remove nothing
    #[arg(long)]
    pub(crate) plan: bool,
    /// Keep the results of each pipeline's last runs; runs that gave the same count once
    #[arg(long, value_name = "N", default_value = "10")]
    pub(crate) keep_runs: usize,
    /// Remove also what cost money: such results, and a model's answers that no kept result names
    #[arg(long)]
    pub(crate) paid: bool,
    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ForgetArguments {
    /// The rows, by an SQL predicate over id columns, such as "patient = 'x'"
    #[arg(long = "where", value_name = "PREDICATE")]
    pub(crate) predicate: String,
    /// Show what would be removed; remove nothing
    #[arg(long)]
    pub(crate) plan: bool,
    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// How many rows are tried: at least one.
fn rows() -> impl TypedValueParser<Value = usize> {
    clap::value_parser!(u32).range(1..).map(|rows| rows as usize)
}

fn window(text: &str) -> Result<[f64; 2], String> {
    let expected = "expected the middle and the width of the window, such as 40,400";
    let (center, width) = text.split_once(',').ok_or(expected)?;
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
    let (center, width) = number(center).zip(number(width)).ok_or(expected)?;
    if width <= 0.0 {
        return Err("expected a width above 0".to_owned());
    }
    Ok([center, width])
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.trim().to_owned(), value.to_owned()))
}
