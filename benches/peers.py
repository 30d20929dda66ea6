"""What a run costs when there is nothing to do: argent beside DVC and Snakemake, on the same graph of steps.

Each tool gets the same graph over a tiny CSV file, runs it once, and is then timed with nothing to do, the tools in
turn so that all see the same machine. Every timed run must say that it had nothing to do. Prints Markdown.
"""

import argparse
import datetime
import hashlib
import json
import os
import pathlib
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time

SOURCE = "id,text\n" + "".join(f"r{n},Case {n}.\n" for n in range(10))

# DVC writes its whole lock file after each stage; above this many stages the first run takes longer than all else
# here, so the script does the stages' work itself and writes the lock file that DVC would.
DVC_STAGES_IT_RUNS_ITSELF = 100


def main():
    arguments = parse()
    tools = [Argent(arguments.argent), Dvc(arguments.venv), Snakemake(arguments.venv)]
    versions = [f"{tool.name} {tool.version()}" for tool in tools]
    rows = []
    with tempfile.TemporaryDirectory(prefix="peers-") as folder:
        for steps in arguments.steps:
            projects = [(tool, pathlib.Path(folder, f"{tool.name}-{steps}")) for tool in tools]
            for tool, project in projects:
                project.mkdir()
                (project / "source.csv").write_text(SOURCE)
                say(f"{tool.name}: first run of {steps} steps")
                tool.prepare(project, steps)
                timed(tool, project)
            times = {tool.name: [] for tool in tools}
            for _ in range(arguments.runs):
                for tool, project in projects:
                    times[tool.name].append(timed(tool, project))
            rows += [line(steps, tool.name, times[tool.name], times["argent"]) for tool in tools]
    print(f"{datetime.date.today()}, {os.cpu_count()} cores, {platform.machine()}; {'; '.join(versions)}; ", end="")
    print(f"median of {arguments.runs} runs each, in turn; load {os.getloadavg()[0]:.1f} at the end")
    print(f"\n    {shlex.join(['python3', *sys.argv])}\n")
    print("| steps | tool | seconds | times argent | CPU seconds | fastest | slowest |")
    print("|---:|---|---:|---:|---:|---:|---:|")
    print("\n".join(rows))


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--argent", required=True, type=pathlib.Path, help="the argent program, a release build")
    parser.add_argument("--venv", required=True, type=pathlib.Path, help="a virtual environment with dvc and snakemake")
    parser.add_argument("--steps", default="10,1000", type=lambda text: [int(n) for n in text.split(",")])
    parser.add_argument("--runs", default=7, type=int, help="timed runs of each tool")
    arguments = parser.parse_args()
    arguments.argent = arguments.argent.resolve()
    arguments.venv = arguments.venv.absolute()
    return arguments


def parents(step):
    """The earlier steps that a step reads: one, or for every third step two; the first step reads the file."""
    if step == 0:
        return []
    return sorted({step // 2, step - 1}) if step % 3 == 0 else [step // 2]


class Argent:
    """A step is an `sql` step; the first one reads the file."""

    name = "argent"
    nothing_to_do = "nothing to do"

    def __init__(self, program):
        self.program = program

    def version(self):
        return output([self.program, "--version"]).split()[-1]

    def prepare(self, project, steps):
        lines = ["argent: 1", "name: peers", "steps:"]
        lines.append("  s0: { use: reports.table, with: { path: source.csv, id: id, text: text } }")
        for step in range(1, steps):
            first, *rest = parents(step)
            join = "".join(f" join s{other} b on a.id = b.id" for other in rest)
            tables = ", ".join(f"s{parent}: s{parent}" for parent in parents(step))
            query = f"select a.id, a.text from s{first} a{join}"
            lines.append(f"  s{step}: {{ use: sql, from: {{ {tables} }}, with: {{ keys: [id], query: {query!r} }} }}")
        (project / "peers.yaml").write_text("\n".join(lines) + "\n")
        output(self.command(), cwd=project)

    def command(self):
        return [self.program, "run", "peers.yaml", "--store", "store"]


class Dvc:
    """A step is a stage that sorts its inputs' lines."""

    name = "DVC"
    nothing_to_do = "Data and pipelines are up to date."

    def __init__(self, venv):
        self.program = venv / "bin" / "dvc"

    def version(self):
        return output([self.program, "--version"]).strip()

    def prepare(self, project, steps):
        output([self.program, "init", "--no-scm", "--quiet"], cwd=project)
        for setting in ["core.analytics", "core.check_update"]:
            output([self.program, "config", setting, "false"], cwd=project)
        stages = {}
        for step in range(steps):
            inputs = files(step)
            stages[f"s{step}"] = {"cmd": sort(inputs, step), "deps": inputs, "outs": [f"s{step}.csv"]}
        # JSON is YAML, and DVC reads it as such.
        (project / "dvc.yaml").write_text(json.dumps({"stages": stages}, indent=1))
        if steps > DVC_STAGES_IT_RUNS_ITSELF:
            write_lock(project, stages)
        output(self.command(), cwd=project)

    def command(self):
        return [self.program, "repro"]


class Snakemake:
    """A step is a job of one rule with a wildcard, which is quicker than a rule for each."""

    name = "Snakemake"
    nothing_to_do = "Nothing to be done"

    def __init__(self, venv):
        self.program = venv / "bin" / "snakemake"

    def version(self):
        return output([self.program, "--version"]).strip()

    def prepare(self, project, steps):
        inputs = {step: files(step) for step in range(steps)}
        (project / "Snakefile").write_text(
            f"INPUTS = {inputs!r}\n"
            "rule all:\n"
            f"    input: expand('s{{step}}.csv', step=range({steps}))\n"
            "rule step:\n"
            "    input: lambda wildcards: INPUTS[int(wildcards.step)]\n"
            "    output: 's{step}.csv'\n"
            "    wildcard_constraints: step='[0-9]+'\n"
            "    shell: 'sort -u {input} > {output}'\n"
        )
        output(self.command(), cwd=project)

    def command(self):
        return [self.program, "--cores", str(os.cpu_count())]


def files(step):
    """The files that a step reads."""
    return [f"s{parent}.csv" for parent in parents(step)] or ["source.csv"]


def sort(inputs, step):
    return f"sort -u {' '.join(inputs)} > s{step}.csv"


def write_lock(project, stages):
    """Does the stages' work and writes the lock file that DVC would."""
    locked = {}
    for name, stage in stages.items():
        subprocess.run(stage["cmd"], shell=True, check=True, cwd=project)
        ends = {end: [tracked(project, path) for path in stage[end]] for end in ["deps", "outs"]}
        locked[name] = {"cmd": stage["cmd"], **ends}
    (project / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": locked}, indent=1))


def tracked(project, path):
    """A file as DVC's lock file has it."""
    content = (project / path).read_bytes()
    return {"path": path, "hash": "md5", "md5": hashlib.md5(content).hexdigest(), "size": len(content)}


def timed(tool, project):
    """Wall and CPU seconds of a run that had nothing to do."""
    before = os.times()
    started = time.perf_counter()
    said = output(tool.command(), cwd=project)
    seconds = time.perf_counter() - started
    after = os.times()
    if tool.nothing_to_do not in said:
        sys.exit(f"{tool.name} did not say `{tool.nothing_to_do}`:\n{said[-2000:]}")
    cpu = after.children_user - before.children_user + after.children_system - before.children_system
    return seconds, cpu


def output(command, cwd=None):
    """What a command says; the script ends where the command fails."""
    words = [str(word) for word in command]
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1", "NO_COLOR": "1"}
    done = subprocess.run(words, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        sys.exit(f"{shlex.join(words)} ended with {done.returncode}:\n{done.stdout[-2000:]}")
    return done.stdout


def line(steps, name, times, argent):
    wall = [seconds for seconds, _ in times]
    median = statistics.median(wall)
    ratio = median / statistics.median(seconds for seconds, _ in argent)
    cpu = statistics.median(cpu for _, cpu in times)
    numbers = f"{median:.3f} | {ratio:.0f} | {cpu:.3f} | {min(wall):.3f} | {max(wall):.3f}"
    return f"| {steps} | {name} | {numbers} |"


def say(text):
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
