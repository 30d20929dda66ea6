"""What a million rows in one row operator cost: the first run, nothing to do, and one row changed.

Writes reports of one short sentence each, labels them with `label.rules`, and prints seconds and peak memory as
Markdown. Each run must say that it made as many rows as it should.
"""

import argparse
import datetime
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

PIPELINE = """argent: 1
name: rows
steps:
  reports: { use: reports.table, with: { path: reports.csv, id: id, text: text } }
  labels: { use: label.rules, from: reports, with: { findings: pack.yaml } }
"""

PACK = """name: two
findings:
  - { id: effusion, name: Pleural effusion, synonyms: [pleural effusion] }
  - { id: nodule, name: Lung nodule, synonyms: [nodule] }
"""

SENTENCES = ["No pleural effusion.", "A nodule of {n} mm.", "Pleural effusion of {n} ml.", "Unremarkable study {n}."]


def main():
    arguments = parse()
    with tempfile.TemporaryDirectory(prefix="rows-") as folder:
        project = pathlib.Path(folder)
        (project / "p.yaml").write_text(PIPELINE)
        (project / "pack.yaml").write_text(PACK)
        write_reports(project, arguments, changed=0)
        print(f"first run of {arguments.rows} rows", file=sys.stderr, flush=True)
        first = [run(arguments.argent, project, made=arguments.rows)]
        size_mib = (project / "reports.csv").stat().st_size / 2**20
        nothing, one = [], []
        for number in range(1, arguments.runs + 1):
            nothing.append(run(arguments.argent, project, made=0))
            write_reports(project, arguments, changed=number)
            one.append(run(arguments.argent, project, made=1))
    version = subprocess.run([arguments.argent, "--version"], check=True, capture_output=True, text=True).stdout.strip()
    print(f"{datetime.date.today()}, {os.cpu_count()} cores, {platform.machine()}; {version}; ", end="")
    print(f"a file of {size_mib:.0f} MiB; ", end="")
    print(f"median of {arguments.runs} runs; load {os.getloadavg()[0]:.1f} at the end")
    print(f"\n    {shlex.join(['python3', *sys.argv])}\n")
    print(f"| {arguments.rows} rows | seconds | CPU seconds | peak memory, MiB |")
    print("|---|---:|---:|---:|")
    for name, runs in [("first run", first), ("nothing to do", nothing), ("one row changed", one)]:
        numbers = [statistics.median(numbers) for numbers in zip(*runs)]
        print(f"| {name} | {numbers[0]:.2f} | {numbers[1]:.2f} | {numbers[2]:.0f} |")


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--argent", required=True, type=pathlib.Path, help="the argent program, a release build")
    parser.add_argument("--rows", default=1_000_000, type=int)
    parser.add_argument("--filler", default=0, type=int, help="bytes of further text in each report")
    parser.add_argument("--runs", default=3, type=int, help="runs with nothing to do, and with one row changed")
    arguments = parser.parse_args()
    arguments.argent = arguments.argent.resolve()
    return arguments


def write_reports(project, arguments, changed):
    """Reports that all differ; the one in the middle says which change it has come to."""
    rows = arguments.rows
    words = "The remainder of the examination is as described before and needs no further comment. "
    filler = " " + (words * (arguments.filler // len(words) + 1))[: arguments.filler].strip() if arguments.filler else ""
    with open(project / "reports.csv", "w") as file:
        file.write("id,text\n")
        for number in range(rows):
            sentence = SENTENCES[number % len(SENTENCES)].format(n=number)
            change = f" Change {changed}." if number == rows // 2 else ""
            file.write(f"r{number:08},Case {number}. {sentence}{change}{filler}\n")


def run(argent, project, made):
    """Wall seconds, CPU seconds and peak memory in MiB of a run; the script ends where it did something else."""
    started = time.perf_counter()
    words = [argent, "run", "p.yaml", "--store", "store", "--json"]
    child = subprocess.Popen(words, cwd=project, stdout=subprocess.PIPE, text=True)
    said = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - started
    # The child has been waited for here, and must not be waited for again.
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        sys.exit(f"the run ended with {child.returncode}:\n{said[-2000:]}")
    labels = json.loads(said.splitlines()[-1])["steps"][1]
    if labels["made"] != made:
        sys.exit(f"the run made {labels['made']} rows of labels, expected {made}")
    # Linux tells the peak in KiB.
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
