"""Builds `argent` for NVIDIA GPUs where no CUDA is installed: `just build-cuda`.

It takes NVIDIA's compiler and headers from the wheels of toolkit.txt (or from CUDA_HOME, where that is set), makes
libraries to link with (lazy.py), and builds a stripped release without SQL. It needs x86-64 Linux, cargo, a C++
compiler, and a Python with pip.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import lazy

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = Path(__file__).with_name("toolkit.txt")
LIMIT_MIB = 60


def main() -> None:
    options = arguments()
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
    toolkit = assemble(target / "cuda-toolkit")
    environment = os.environ | {
        "CARGO_TARGET_DIR": str(target),
        "CARGO_PROFILE_RELEASE_STRIP": "true",
        "CUDA_HOME": str(toolkit),
        "CUDA_PATH": str(toolkit),
        "CUDA_COMPUTE_CAP": options.compute_capability,
        "LIBRARY_PATH": str(toolkit / "lib64"),
        "PATH": f"{toolkit / 'bin'}:{os.environ['PATH']}",
    }
    if options.command:
        sys.exit(subprocess.run(options.command, cwd=ROOT, env=environment).returncode)
    features = ["--no-default-features", "--features", "cuda"]
    subprocess.run(["cargo", "build", "--release", "--locked", *features], cwd=ROOT, env=environment, check=True)
    report(target / "release" / "argent", options.compute_capability)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--compute-capability",
        default="90",
        help="of the GPU, without its dot: 80 runs on it and all later ones, 90 on the H100 and H200 alone",
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, help="run this with the compiler at hand, instead of building argent")
    return parser.parse_args()


def assemble(folder: Path) -> Path:
    """A folder like that of an installed CUDA, whose libraries are those of lazy.py and the static runtime."""
    there = os.environ.get("CUDA_HOME")
    source = Path(there).resolve() if there else install(folder)
    home = folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    for part in ("bin", "include", "nvvm"):
        link(home / part, source / part)
    version = subprocess.run([home / "bin" / "nvcc", "--version"], check=True, stdout=subprocess.PIPE, text=True)
    if "release 13." not in version.stdout:
        raise SystemExit(f"the compiler in {source} is not of CUDA 13, expected that; leave CUDA_HOME unset")
    lazy.make(cudarc(), home / "lib64")
    runtimes = [source / libraries / "libcudart_static.a" for libraries in ("lib", "lib64")]
    link(home / "lib64" / "libcudart.a", next((path for path in runtimes if path.is_file()), runtimes[0]))
    return home


def link(name: Path, target: Path) -> None:
    """Makes `name` a link to `target`, whatever it was a link to."""
    if not target.exists():
        raise SystemExit(f"there is no {target}, expected it in a CUDA toolkit")
    name.unlink(missing_ok=True)
    name.symlink_to(target)


def install(folder: Path) -> Path:
    """The folder with bin, include, lib and nvvm, unpacked from wheels whose hashes toolkit.txt names."""
    toolkit, stamp = folder / "nvidia" / "cu13", folder / "unpacked"
    digest = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text() == digest:
        return toolkit
    wheels = folder / "wheels"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    # The platform of the oldest C library that the wheels are made for, so that pip takes them under any Python.
    platform = ["--only-binary=:all:", "--platform", "manylinux2014_x86_64", "--platform", "manylinux2010_x86_64"]
    hashed = ["--no-deps", "--require-hashes", "--requirement", str(REQUIREMENTS)]
    subprocess.run([*pip, *platform, *hashed, "--dest", str(wheels)], check=True)
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        wheel.unlink()
    for program in [*(toolkit / "bin").iterdir(), *(toolkit / "nvvm" / "bin").iterdir()]:
        if program.is_file():
            program.chmod(0o755)
    stamp.write_text(digest)
    return toolkit


def cudarc() -> Path:
    """Where cargo keeps the sources of the binding whose functions are linked."""
    metadata = ["cargo", "metadata", "--format-version", "1", "--locked", "--features", "cuda"]
    found = json.loads(subprocess.run(metadata, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)
    folders = [Path(package["manifest_path"]).parent for package in found["packages"] if package["name"] == "cudarc"]
    if len(folders) != 1:
        raise SystemExit(f"cargo knows {len(folders)} versions of cudarc, expected one")
    return folders[0]


def report(program: Path, compute_capability: str) -> None:
    """Prints how large the program is and what it needs, and fails above the limit."""
    content = program.read_bytes()
    compressor = zlib.compressobj(6, wbits=31)
    gzipped = (len(compressor.compress(content)) + len(compressor.flush())) / 2**20
    dynamic = subprocess.run(["readelf", "--dynamic", "--wide", program], check=True, stdout=subprocess.PIPE, text=True)
    needed = [line.split("[")[1].rstrip("]") for line in dynamic.stdout.splitlines() if "(NEEDED)" in line]
    print(f"{program}")
    print(f"  {len(content) / 2**20:.1f} MiB, {gzipped:.1f} MiB gzipped (at most {LIMIT_MIB})")
    print(f"  made for compute capability {compute_capability[:-1]}.{compute_capability[-1]}")
    print(f"  needs to start: {', '.join(needed)}")
    print(f"  opens where a GPU is used: {', '.join(soname for _, soname, _ in lazy.LIBRARIES.values())}")
    print("  see docs/gpu.md")
    if gzipped > LIMIT_MIB:
        raise SystemExit(f"the program has {gzipped:.1f} MiB gzipped, expected at most {LIMIT_MIB}")


if __name__ == "__main__":
    main()
