"""What a training step of the 18-layer 3D ResNet takes on a GPU: argent beside PyTorch, on the same card.

Both train the network of `train.classifier` (stem 2 x 2 x 2 with stride 2, 33 million parameters) in bf16 with weights
in f32 and AdamW, on volumes that lie in memory, 8 of 96 x 192 x 192 voxels at a time. PyTorch runs in each of its
settings (channels-last or not, `torch.compile` or not, cuDNN choosing by measurement), and the best counts. They run in
turn, once each per round. The share of the time in which the device computes is what `nvidia-smi` samples meanwhile,
over the second half of the steps. Prints Markdown.
"""

import argparse
import datetime
import itertools
import pathlib
import shlex
import statistics
import subprocess
import sys
import threading

SETTINGS = list(itertools.product(["first", "last"], ["eager", "compiled"]))


def main():
    arguments = parse()
    if arguments.peer:
        return train_torch(arguments, *arguments.peer.split("-"))
    sizes = [arguments.steps, arguments.batch, *arguments.shape]
    commands = {"argent": [arguments.argent, *map(str, sizes)]}
    for setting in SETTINGS:
        name = "PyTorch, channels {}, {}".format(*setting)
        options = ["--steps", arguments.steps, "--batch", arguments.batch, "--shape", *arguments.shape]
        commands[name] = [arguments.python, __file__, *map(str, options), "--peer", "-".join(setting)]
    found = {name: [] for name in commands}
    for number in range(arguments.rounds):
        for name, command in commands.items():
            print(f"round {number + 1}: {name}", file=sys.stderr)
            found[name].append(measured(command))
    report(arguments, found)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--argent", help="the program of kernels/learn/examples/gpu_training.rs, a release build")
    parser.add_argument("--python", default=sys.executable, help="a Python with a PyTorch for the card")
    parser.add_argument("--steps", default=60, type=int, help="per round; the first half warms up and is not counted")
    parser.add_argument("--rounds", default=3, type=int)
    parser.add_argument("--batch", default=8, type=int)
    parser.add_argument("--shape", default=[96, 192, 192], type=int, nargs=3, help="voxels along D, H, W")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    return parser.parse_args()


def measured(command):
    """Seconds of each counted step, and the samples of how busy the device was meanwhile, in percent."""
    watch = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--loop-ms=200", "--id=0"]
    watcher = subprocess.Popen(watch, stdout=subprocess.PIPE, text=True)
    busy = []
    threading.Thread(target=lambda: busy.extend(map(float, watcher.stdout)), daemon=True).start()
    steps, seen = [], []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        for line in itertools.islice(program.stdout, 1, None):
            steps.append(float(line.split()[0]))
            seen.append(len(busy))
    watcher.terminate()
    if program.returncode != 0 or not steps:
        raise SystemExit(f"{shlex.join(map(str, command))} failed with code {program.returncode}")
    half = len(steps) // 2
    return steps[half:], busy[seen[half] : seen[-1]]


def report(arguments, found):
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader", "--id=0"]
    card = subprocess.run(query, check=True, capture_output=True, text=True).stdout.strip()
    version = [arguments.python, "-c", "import torch; print(torch.__version__, torch.backends.cudnn.version())"]
    torch = subprocess.run(version, check=True, capture_output=True, text=True).stdout.strip()
    print(f"{datetime.date.today()}, {card}; PyTorch and its cuDNN: {torch}.")
    print(f"`{shlex.join(['python3', *sys.argv])}`\n")
    print("| | volumes per second | seconds per step, median (least, most of the rounds) | device busy |")
    print("| --- | --- | --- | --- |")
    for name, rounds in found.items():
        medians = [statistics.median(steps) for steps, _ in rounds]
        seconds = statistics.median(medians)
        samples = [sample for _, busy in rounds for sample in busy]
        share = f"{statistics.mean(samples):.0f} %" if samples else "no sample"
        spread = f"{seconds:.4f} ({min(medians):.4f}, {max(medians):.4f})"
        print(f"| {name} | {arguments.batch / seconds:.1f} | {spread} | {share} |")
    rates = {name: statistics.median(statistics.median(steps) for steps, _ in found[name]) for name in found}
    best = min((seconds, name) for name, seconds in rates.items() if name != "argent")
    print(f"\nargent's rate is {best[0] / rates['argent']:.2f} times that of the best peer ({best[1]}).")


def train_torch(arguments, channels, form):
    import time

    import torch
    from torch import nn

    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)

    def layer(inputs, outputs, kernel, stride, padding):
        return [nn.Conv3d(inputs, outputs, kernel, stride, padding, bias=False), nn.BatchNorm3d(outputs)]

    class Block(nn.Module):
        def __init__(self, inputs, outputs, stride):
            super().__init__()
            first = [*layer(inputs, outputs, 3, stride, 1), nn.ReLU(inplace=True)]
            self.residual = nn.Sequential(*first, *layer(outputs, outputs, 3, 1, 1))
            same = inputs == outputs and stride == 1
            self.shortcut = nn.Identity() if same else nn.Sequential(*layer(inputs, outputs, 1, stride, 0))

        def forward(self, x):
            return torch.relu(self.residual(x) + self.shortcut(x))

    widths = [64, 64, 128, 256, 512]
    blocks = [
        Block(widths[stage] if block == 0 else widths[stage + 1], widths[stage + 1], 2 if stage > 0 and block == 0 else 1)
        for stage in range(4)
        for block in range(2)
    ]
    stem = [*layer(1, 64, 2, 2, 0), nn.ReLU(inplace=True)]
    network = nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(512, 18)).cuda()
    memory_format = torch.channels_last_3d if channels == "last" else torch.contiguous_format
    network = network.to(memory_format=memory_format)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=1e-4, fused=True)
    volumes = torch.rand((2 * arguments.batch, 1, *arguments.shape)).pin_memory()
    targets = torch.randint(0, 2, (arguments.batch, 18), device="cuda").float()
    compute = torch.compile(network) if form == "compiled" else network
    print("seconds loss", flush=True)
    clock = time.perf_counter()
    for step in range(arguments.steps):
        start = arguments.batch * (step % 2)
        x = volumes[start : start + arguments.batch].cuda(non_blocking=True).to(memory_format=memory_format)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = nn.functional.binary_cross_entropy_with_logits(compute(x).float(), targets)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        value = loss.item()
        now = time.perf_counter()
        print(f"{now - clock:.5f} {value:.5f}", flush=True)
        clock = now


if __name__ == "__main__":
    main()
