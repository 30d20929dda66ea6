"""What resampling a chest CT costs: `argent run` with `volumes.resample` beside SimpleITK and MONAI, one thread each.

Every tool gets the same .nii.gz files of 512 x 512 x 300 int16 voxels (drawn by this script: lungs with vessels in a body,
correlated noise, padding outside the field of view) and makes of each a volume of 1.5 x 1.5 x 3 mm in RAS, clipped to
-1024 to 3071 HU, as 16-bit numbers on disk; argent also verifies the file, names the result by its digest and publishes
a table. Counted is processor time per volume, the tools in turn. Prints Markdown.
"""

import argparse
import datetime
import os
import pathlib
import platform
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
        return print(PEERS[arguments.peer](arguments.files, arguments.out))
    with tempfile.TemporaryDirectory(prefix="volumes-", dir=arguments.folder) as folder:
        folder = pathlib.Path(folder)
        files = [folder / f"v{number}.nii.gz" for number in range(arguments.volumes)]
        for number, file in enumerate(files):
            say(f"drawing {file.name}")
            draw_file(arguments, file, number)
        report(arguments, measured(arguments, folder, files))


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--argent", type=pathlib.Path, help="the argent program, a release build")
    parser.add_argument("--cost", type=pathlib.Path, help="the program of kernels/imaging/examples/read_cost.rs, a release build")
    parser.add_argument("--venv", type=pathlib.Path, help="a virtual environment with numpy, scipy, nibabel, SimpleITK and monai")
    parser.add_argument("--volumes", default=4, type=int)
    parser.add_argument("--runs", default=5, type=int)
    parser.add_argument("--folder", help="where the volumes lie meanwhile, about 70 MB each")
    parser.add_argument("--without", default="", help="peers to leave out, comma-separated")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("files", nargs="*", help=argparse.SUPPRESS)
    return parser.parse_args()


def say(text):
    print(text, file=sys.stderr)


def draw_file(arguments, file, number):
    command = [python(arguments), __file__, "--peer", "draw", "--out", file, str(number)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def python(arguments):
    return arguments.venv / "bin/python"


def one_thread():
    names = ["RAYON_NUM_THREADS", "OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "MKL_NUM_THREADS"]
    return {**os.environ, **{name: "1" for name in names}}


def measured(arguments, folder, files):
    """By tool: processor seconds per volume, and the most memory in MB, of each run."""
    peers = [peer for peer in ("SimpleITK", "monai") if peer not in arguments.without.split(",")]
    jobs = {
        "argent": lambda: argent(arguments, folder, files, "never"),
        "argent, antialiased": lambda: argent(arguments, folder, files, "auto"),
        "argent, antialiased, slice by slice": lambda: argent(arguments, folder, files, "auto", memory_mb=1),
        "inflate alone": lambda: inflate_alone(arguments, files[0]),
        **{peer: lambda peer=peer: peer_job(arguments, folder, files, peer) for peer in peers},
    }
    results = {name: [] for name in jobs}
    for turn in range(arguments.runs):
        for name, job in jobs.items():
            say(f"run {turn + 1}: {name}")
            results[name].append(job())
    return results


def argent(arguments, folder, files, antialias, memory_mb=8192):
    """The step of resampling by itself: files are listed and looked at by a run before."""
    project = pathlib.Path(tempfile.mkdtemp(dir=folder))
    (project / "p.yaml").write_text(f"""argent: 1
name: volumes
steps:
  volumes: {{ use: volumes.scan, with: {{ path: ../*.nii.gz }} }}
  grid:
    use: volumes.resample
    from: volumes
    with: {{ spacing_mm: [1.5, 1.5, 3.0], antialias: {antialias}, memory_mb: {memory_mb} }}
""")
    command = [arguments.argent.resolve(), "run", "p.yaml", "--select"]
    subprocess.run([*command, "volumes"], cwd=project, check=True, capture_output=True)
    seconds, mb = used([*command, "grid"], project)
    return seconds / len(files), mb


def used(command, folder):
    """Processor seconds and memory of a command, from the operating system."""
    said = subprocess.run(
        ["/usr/bin/time", "-f", "%U %S %M", *command], cwd=folder, check=True, capture_output=True, text=True, env=one_thread()
    )
    user, system, kb = said.stderr.splitlines()[-1].split()
    return float(user) + float(system), float(kb) / 1024


def inflate_alone(arguments, file):
    said = subprocess.run(
        [arguments.cost, file, "1.5", "1.5", "3.0"], check=True, capture_output=True, text=True, env=one_thread()
    )
    line = next(line for line in said.stdout.splitlines() if line.startswith("inflate alone"))
    return float(line.split(":")[1].split()[0]), 0.0


def peer_job(arguments, folder, files, peer):
    command = [python(arguments), __file__, "--peer", peer, "--out", folder / "out.npy", *files]
    said = subprocess.run(command, check=True, capture_output=True, text=True, env=one_thread())
    seconds, kb = said.stdout.splitlines()[-1].split()
    return float(seconds) / len(files), float(kb) / 1024


def counted(job, files):
    """Processor seconds of a job over files, its imports left out, and the process's memory in KB."""
    job(files[0])
    start = time.process_time()
    for file in files:
        job(file)
    return f"{time.process_time() - start} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}"


def simple_itk(files, out):
    import numpy
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)

    def job(file):
        image = sitk.DICOMOrient(sitk.ReadImage(str(file)), "RAS")
        old, size = image.GetSpacing(), image.GetSize()
        spacing = (1.5, 1.5, 3.0)
        shape = [max(1, round(n * s / t)) for n, s, t in zip(size, old, spacing)]
        first = image.TransformContinuousIndexToPhysicalPoint([(t / s - 1) / 2 for s, t in zip(old, spacing)])
        image = sitk.Resample(
            image, shape, sitk.Transform(), sitk.sitkLinear, first, spacing, image.GetDirection(), 0.0, sitk.sitkInt16, True
        )
        clamped = sitk.Clamp(image, sitk.sitkInt16, -1024, 3071)
        numpy.save(out, sitk.GetArrayViewFromImage(clamped))

    return counted(job, files)


def monai(files, out):
    import numpy
    import torch
    from monai.transforms import Compose, LoadImage, Orientation, ScaleIntensityRange, Spacing, EnsureChannelFirst

    torch.set_num_threads(1)
    steps = Compose([
        LoadImage(image_only=True),
        EnsureChannelFirst(),
        Orientation(axcodes="RAS"),
        Spacing(pixdim=(1.5, 1.5, 3.0), mode="bilinear"),
        ScaleIntensityRange(a_min=-1024, a_max=3071, b_min=-1024, b_max=3071, clip=True),
    ])
    return counted(lambda file: numpy.save(out, steps(str(file)).numpy().astype(numpy.int16)), files)


def draw(seed, out):
    import nibabel
    import numpy as np
    from scipy import ndimage

    random = np.random.default_rng(int(seed[0]))
    y, x = np.mgrid[-1:1:512j, -1:1:512j]
    body = (x / 0.85) ** 2 + (y / 0.65) ** 2 < 1
    lungs = body & (((np.abs(x) - 0.4) / 0.3) ** 2 + (y / 0.5) ** 2 < 1)
    vessels = ndimage.gaussian_filter(random.standard_normal((300, 128, 128)).astype(np.float32), (2, 1.5, 1.5))
    voxels = np.empty((300, 512, 512), np.int16)
    for z, plane in enumerate(voxels):
        hounsfield = np.where(body, np.where(lungs, -850, 40), -1000).astype(np.float32)
        hounsfield[lungs & (ndimage.zoom(vessels[z], 4, order=1) > 0.18)] = 60
        noise = ndimage.gaussian_filter(random.standard_normal((512, 512)).astype(np.float32), 0.8)
        hounsfield += noise / noise.std() * np.where(lungs, 22, 12)
        hounsfield[x**2 + y**2 > 1] = -1024
        plane[:] = np.clip(np.round(hounsfield), -1024, 3071)
    image = nibabel.Nifti1Image(voxels.transpose(2, 1, 0), np.diag([-0.75, -0.75, 1.0, 1.0]))
    image.header.set_xyzt_units("mm")
    nibabel.openers.Opener.default_compresslevel = 6
    nibabel.save(image, out)


PEERS = {"SimpleITK": simple_itk, "monai": monai, "draw": draw}


def report(arguments, results):
    def version(package):
        code = f"import importlib.metadata as m; print(m.version('{package}'))"
        said = subprocess.run([python(arguments), "-c", code], capture_output=True, text=True, check=True)
        return f"{package} {said.stdout.strip()}"

    argent_version = subprocess.run([arguments.argent, "--version"], capture_output=True, text=True, check=True)
    peers = [name for name in results if name in PEERS]
    versions = [argent_version.stdout.strip(), *map(version, peers)]
    print(f"{datetime.date.today()}, {os.cpu_count()} cores, {platform.machine()}; {'; '.join(versions)}; ", end="")
    print(f"median of {arguments.runs} runs each, in turn; load {os.getloadavg()[0]:.1f} at the end")
    print(f"\n    {shlex.join(['python3', *sys.argv])}\n")
    print("| tool | CPU seconds per volume | times argent | of inflating alone | fastest | slowest | memory |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    middle = {name: statistics.median(seconds for seconds, _ in runs) for name, runs in results.items()}
    for name, runs in results.items():
        seconds = [seconds for seconds, _ in runs]
        memory = max(mb for _, mb in runs)
        print(
            f"| {name} | {middle[name]:.3f} | {middle[name] / middle['argent']:.2f} | "
            f"{middle[name] / middle['inflate alone']:.2f} | {min(seconds):.3f} | {max(seconds):.3f} | "
            + (f"{memory:.0f} MB |" if memory else "|")
        )


if __name__ == "__main__":
    main()
