"""What a training step of the 18-layer 3D ResNet costs on a CPU: argent's layers beside PyTorch's, in turn.

Both do forward pass, backward pass and AdamW for the same network and a batch of (2, 1, 32, 64, 64) f32: a stem of 2 x 2 x 2
with stride 2, eight blocks, 33.1 million weights. PyTorch runs with its plain layout and with `channels_last_3d`, and with
its fused AdamW. argent's program is `kernels/learn/examples/training_step.rs`. Each program does one step that is not
counted. With one thread processor time counts, with more wall time. Prints Markdown.
"""

import argparse
import datetime
import os
import pathlib
import platform
import shlex
import statistics
import subprocess
import sys
import time

CHANNELS, CLASSES, SHAPE = (64, 128, 256, 512), 18, (2, 1, 32, 64, 64)
PROGRAMS = ("argent", "PyTorch", "PyTorch, channels last")


def main():
    arguments = parse()
    if arguments.peer:
        return peer(arguments.peer, arguments.steps, arguments.peer_threads)
    rows = []
    for threads in arguments.threads:
        results = {program: [] for program in PROGRAMS}
        for turn in range(arguments.runs):
            for program in PROGRAMS:
                print(f"{threads} threads, run {turn + 1}: {program}", file=sys.stderr)
                results[program] += steps_of(arguments, program, threads)
        rows += table(threads, results)
    report(arguments, rows)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step", type=pathlib.Path, help="the program of kernels/learn/examples/training_step.rs, a release build")
    parser.add_argument("--venv", type=pathlib.Path, help="a virtual environment with torch")
    parser.add_argument("--threads", default="1,2", type=lambda text: [int(n) for n in text.split(",")])
    parser.add_argument("--steps", default=3, type=int, help="steps of each program in each run")
    parser.add_argument("--runs", default=5, type=int)
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    parser.add_argument("--peer-threads", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def steps_of(arguments, program, threads):
    """Of each step: seconds of the passes and of the optimiser."""
    if program == "argent":
        command = [arguments.step.resolve(), str(arguments.steps), str(threads)]
    else:
        command = [arguments.venv / "bin/python", __file__, "--peer", program]
        command += ["--steps", str(arguments.steps), "--peer-threads", str(threads)]
    environment = {**os.environ, "RAYON_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    said = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    lines = [[float(number) for number in line.split()[:4]] for line in said.splitlines()[1:]]
    if len(lines) != arguments.steps:
        sys.exit(f"{program} printed {len(lines)} steps, expected {arguments.steps}")
    first = 1 if threads == 1 else 0
    return [(line[first], line[first + 2]) for line in lines]


def peer(program, steps, threads):
    import torch
    from torch import nn

    torch.set_num_threads(threads)

    class ConvNorm(nn.Sequential):
        def __init__(self, inputs, outputs, kernel, stride, padding):
            convolution = nn.Conv3d(inputs, outputs, kernel, stride, padding, bias=False)
            super().__init__(convolution, nn.BatchNorm3d(outputs))

    class Block(nn.Module):
        def __init__(self, inputs, outputs, stride):
            super().__init__()
            self.first, self.second = ConvNorm(inputs, outputs, 3, stride, 1), ConvNorm(outputs, outputs, 3, 1, 1)
            self.shortcut = ConvNorm(inputs, outputs, 1, stride, 0) if stride > 1 else nn.Identity()

        def forward(self, features):
            residual = self.second(torch.relu_(self.first(features)))
            return torch.relu_(residual + self.shortcut(features))

    layers, inputs = [ConvNorm(1, CHANNELS[0], 2, 2, 0), nn.ReLU(inplace=True)], CHANNELS[0]
    for outputs in CHANNELS:
        for block in range(2):
            layers.append(Block(inputs, outputs, 2 if outputs > CHANNELS[0] and block == 0 else 1))
            inputs = outputs
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(inputs, CLASSES))
    volumes = torch.randn(SHAPE)
    if program == "PyTorch, channels last":
        network = network.to(memory_format=torch.channels_last_3d)
        volumes = volumes.to(memory_format=torch.channels_last_3d)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    print("pass_wall pass_cpu optimiser_wall optimiser_cpu")
    for step in range(steps + 1):
        optimiser.zero_grad(set_to_none=True)
        start = time.perf_counter(), time.process_time()
        network(volumes).square().mean().backward()
        passed = time.perf_counter(), time.process_time()
        optimiser.step()
        moved = time.perf_counter(), time.process_time()
        if step > 0:
            spent = [later - earlier for a, b in ((start, passed), (passed, moved)) for earlier, later in zip(a, b)]
            print(*(f"{seconds:.4f}" for seconds in spent))


def table(threads, results):
    """The lines of one number of threads; ratios are to the quicker PyTorch, in each column by itself."""
    columns = {
        program: [[sum(step) for step in steps], [step[0] for step in steps], [step[1] for step in steps]]
        for program, steps in results.items()
    }
    middle = {program: [statistics.median(column) for column in program_columns] for program, program_columns in columns.items()}
    best = [min(middle[program][column] for program in PROGRAMS[1:]) for column in range(3)]
    for program in PROGRAMS:
        whole, passes, optimiser = middle[program]
        steps = columns[program][0]
        yield (
            f"| {threads} | {program} | {whole:.3f} | {whole / best[0]:.2f} | {passes:.3f} | {passes / best[1]:.2f} | "
            f"{optimiser:.4f} | {optimiser / best[2]:.2f} | {min(steps):.3f} | {max(steps):.3f} |"
        )


def report(arguments, rows):
    code = "import importlib.metadata as m; print(m.version('torch'))"
    torch = subprocess.run([arguments.venv / "bin/python", "-c", code], capture_output=True, text=True, check=True)
    print(f"{datetime.date.today()}, {os.cpu_count()} cores, {platform.machine()}; torch {torch.stdout.strip()}; ", end="")
    print(f"median of {arguments.runs * arguments.steps} steps each, in turn; load {os.getloadavg()[0]:.1f} at the end")
    print(f"\n    {shlex.join(['python3', *sys.argv])}\n")
    print("| threads | program | seconds per step | of PyTorch | forward and backward | of PyTorch | AdamW | of PyTorch | fastest | slowest |")
    print("|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
