"""What a request costs the client: `argent run` with `label.llm` beside a bare loop of reqwest, openai and litellm.

All ask the same server on loopback, which answers every request after a fixed time, the same bodies at the same
concurrency, and read the labels out of each answer; argent also keys each request, keeps each answer on disk before it
is used, and writes the table. Then argent makes labels of the answers that it has, without a request. Prints Markdown.
"""

import argparse
import asyncio
import csv
import datetime
import json
import os
import pathlib
import platform
import random
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent


def main():
    arguments = parse()
    if arguments.peer:
        return asyncio.run(PEERS[arguments.peer](arguments))
    loopback = built_loopback()
    with tempfile.TemporaryDirectory(prefix="labelling-") as folder:
        folder = pathlib.Path(folder)
        server, port = started(loopback, folder, arguments.milliseconds)
        try:
            report(arguments, measured(arguments, loopback, folder, port), replayed(arguments, folder, port))
        finally:
            server.kill()


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--argent", type=pathlib.Path, help="the argent program, a release build")
    parser.add_argument("--venv", type=pathlib.Path, help="a virtual environment with openai and litellm")
    parser.add_argument("--reports", default=4000, type=int)
    parser.add_argument("--peer-reports", default=1000, type=int, help="peers are slower, and get fewer")
    parser.add_argument("--replay", default=50000, type=int, help="reports whose answers are there already")
    parser.add_argument("--concurrency", default=64, type=int)
    parser.add_argument("--milliseconds", default=5, type=int, help="what the server takes for an answer")
    parser.add_argument("--runs", default=5, type=int)
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--bodies", type=pathlib.Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def built_loopback():
    command = ["cargo", "bench", "--workspace", "--locked", "--bench", "loopback", "--no-run"]
    said = subprocess.run(
        [*command, "--message-format", "json"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    for line in said.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == "loopback":
            return message["executable"]
    sys.exit("cargo built no loopback")


def started(loopback, folder, milliseconds):
    findings = finding_ids()
    answer = {
        "id": "1",
        "object": "chat.completion",
        "model": "m",
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": json.dumps({finding: "absent" for finding in findings})},
            "finish_reason": "stop",
        }],
        "usage": {"prompt_tokens": 1400, "completion_tokens": 150, "total_tokens": 1550},
    }
    path = folder / "answer.json"
    path.write_text(json.dumps(answer))
    server = subprocess.Popen(
        [loopback, "serve", str(path), str(milliseconds)], stdout=subprocess.PIPE, text=True
    )
    return server, int(server.stdout.readline())


def finding_ids():
    lines = (ROOT / "pipelines/findings/ct-rate-18.yaml").read_text().splitlines()
    return [line.split("id:")[1].strip() for line in lines if line.strip().startswith("- id:")]


def project(folder, name, count, port, concurrency, more=""):
    """A pipeline over so many different reports of 1,700 characters, as long as those of CT-RATE."""
    path = folder / name
    path.mkdir()
    choose = random.Random(7)
    words = "the lungs are clear without nodule effusion heart size normal aorta vertebrae seen no pathologic".split()
    with open(path / "reports.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "text"])
        for number in range(count):
            rows.writerow([f"r{number}", f"Case {number}. " + " ".join(choose.choices(words, k=270))])
    (path / "prompt.md").write_text(
        "{% for f in findings %}- {{ f.id }}: {{ f.name }}\n{% endfor %}\nReport:\n{{ report.findings }}\n"
    )
    write_spec(path, port, concurrency, more)
    return path


def write_spec(path, port, concurrency, more):
    (path / "pipeline.yaml").write_text(f"""argent: 1
name: labelling
steps:
  reports:
    use: reports.table
    with: {{ path: reports.csv, id: id, sections: {{ findings: text }} }}
  labels:
    use: label.llm
    from: reports
    with:
      findings: {ROOT}/pipelines/findings/ct-rate-18.yaml
      prompt: prompt.md
      endpoint: {{ base_url: "http://127.0.0.1:{port}/v1", model: m }}
      concurrency: {concurrency}
{more}""")


def run(argent, path):
    """Runs the pipeline; tells the step of labels as the program tells it, and its own processor time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = subprocess.run(
        [argent.resolve(), "run", "pipeline.yaml", "--json"], cwd=path, check=True, capture_output=True, text=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    last = json.loads(said.stdout.splitlines()[-1])
    step = next(step for step in last["steps"] if step["step"] == "labels")
    assert step["failed"] == 0, step
    return step, cpu


def measured(arguments, loopback, folder, port):
    """Seconds per request of each client, in turn."""
    url = f"http://127.0.0.1:{port}/v1"
    seconds = {"reqwest": [], "argent": [], **{peer: [] for peer in PEERS}}
    bodies = None
    for turn in range(arguments.runs):
        path = project(folder, f"run{turn}", arguments.reports, port, arguments.concurrency)
        step, _ = run(arguments.argent, path)
        assert step["made"] == arguments.reports, step
        seconds["argent"].append(step["seconds"] / arguments.reports)
        bodies = bodies or written_bodies(arguments, path, folder)
        said = subprocess.run(
            [loopback, "ask", f"{url}/chat/completions", str(bodies["all"]), str(arguments.concurrency)],
            check=True, capture_output=True, text=True,
        )
        seconds["reqwest"].append(float(said.stdout) / arguments.reports)
        for peer in PEERS:
            said = subprocess.run(
                [arguments.venv / "bin/python", __file__, "--peer", peer, "--url", url, "--bodies",
                 str(bodies["few"]), "--concurrency", str(arguments.concurrency)],
                check=True, capture_output=True, text=True,
            )
            seconds[peer].append(float(said.stdout.splitlines()[-1]) / arguments.peer_reports)
    return seconds


def written_bodies(arguments, path, folder):
    """The bodies that argent sent, as it keeps what it asked."""
    said = subprocess.run(
        [arguments.argent.resolve(), "sql", "-p", "pipeline.yaml", "select request from labels.calls",
         "--format", "csv", "--phi"],
        cwd=path, check=True, capture_output=True, text=True,
    )
    csv.field_size_limit(1 << 24)
    bodies = []
    for row in csv.DictReader(said.stdout.splitlines(keepends=True)):
        asked = json.loads(row["request"])
        schema = {"name": "answer", "strict": True, "schema": asked["schema"]}
        bodies.append(json.dumps({
            "model": asked["model"],
            "messages": asked["messages"],
            "response_format": {"type": "json_schema", "json_schema": schema},
            "max_tokens": asked["decoding"]["max_tokens"],
            "temperature": asked["decoding"]["temperature"],
        }))
    files = {"all": folder / "bodies", "few": folder / "few"}
    files["all"].write_text("\n".join(bodies))
    files["few"].write_text("\n".join(bodies[: arguments.peer_reports]))
    return files


def replayed(arguments, folder, port):
    """Seconds of labels that are made of answers that are there: the first run asks, each later one parses anew."""
    path = project(folder, "replay", arguments.replay, port, arguments.concurrency)
    run(arguments.argent, path)
    seconds = []
    for repairs in range(2, 2 + arguments.runs):
        # Another count of repairs is another recipe of the labels, and the same questions.
        write_spec(path, port, arguments.concurrency, f"      repairs: {repairs}\n")
        step, cpu = run(arguments.argent, path)
        assert step["made"] == arguments.replay, step
        seconds.append((step["seconds"], cpu))
    return seconds


async def ask_openai(arguments):
    import openai

    client = openai.AsyncOpenAI(base_url=arguments.url, api_key="k", max_retries=0)
    await ask_with(arguments, lambda body: client.chat.completions.create(**body))


async def ask_litellm(arguments):
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm

    litellm.suppress_debug_info = True
    await ask_with(
        arguments,
        lambda body: litellm.acompletion(
            **{**body, "model": "openai/" + body["model"]}, api_base=arguments.url, api_key="k"
        ),
    )


PEERS = {"openai": ask_openai, "litellm": ask_litellm}


async def ask_with(arguments, ask):
    bodies = [json.loads(line) for line in arguments.bodies.read_text().splitlines()]
    left = iter(bodies)

    async def worker():
        for body in left:
            answer = await ask(body)
            assert isinstance(json.loads(answer.choices[0].message.content), dict)

    await ask(bodies[0])
    start = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(arguments.concurrency)))
    print(time.perf_counter() - start)


def report(arguments, seconds, replay):
    def version(package):
        code = f"import importlib.metadata as m; print(m.version('{package}'))"
        said = subprocess.run([arguments.venv / "bin/python", "-c", code], capture_output=True, text=True, check=True)
        return f"{package} {said.stdout.strip()}"

    argent = subprocess.run([arguments.argent, "--version"], capture_output=True, text=True, check=True)
    versions = [argent.stdout.strip(), *map(version, PEERS)]
    print(f"{datetime.date.today()}, {os.cpu_count()} cores, {platform.machine()}; {'; '.join(versions)}; ", end="")
    print(f"median of {arguments.runs} runs each, in turn; load {os.getloadavg()[0]:.1f} at the end")
    print(f"\n    {shlex.join(['python3', *sys.argv])}\n")
    print("| client | requests per second | of the bare loop | fastest | slowest |")
    print("|---|---:|---:|---:|---:|")
    bare = statistics.median(seconds["reqwest"])
    for client, each in seconds.items():
        middle = statistics.median(each)
        print(f"| {client} | {1 / middle:.0f} | {bare / middle:.2f} | {1 / min(each):.0f} | {1 / max(each):.0f} |")
    wall, cpu = (statistics.median(column) for column in zip(*replay))
    print(f"\nLabels of {arguments.replay} reports from answers that are there: {wall:.2f} s ", end="")
    print(f"(fastest {min(replay)[0]:.2f}, slowest {max(replay)[0]:.2f}; {cpu:.2f} s of processor time for the run).")


if __name__ == "__main__":
    main()
