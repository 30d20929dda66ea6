# The commands that a developer types; `just` lists them.

default:
    @just --list

# What must pass before a change lands
ci:
    bash .ci/run

# All tests, or those whose name holds WORD
test WORD="":
    cargo test --workspace -- {{WORD}}

# Random edits, kills and damage at length: ten times what the ordinary tests try, and other ones each time
torture:
    ARGENT_TORTURE=10 cargo test --workspace -- edits torture

# Let the tests rewrite the texts that they expect; look at the difference afterwards
expect WORD="":
    UPDATE_EXPECT=1 cargo test --workspace -- {{WORD}}

# Format and lint
tidy:
    cargo fmt --all
    cargo clippy --workspace --all-targets -- -D warnings

# The quickstart, as a newcomer runs it
quickstart:
    cargo run --release -- run pipelines/quickstart.yaml

# `argent` for GPUs of COMPUTE_CAPABILITY, without SQL; CUDA's compiler comes from PyPI (docs/gpu.md)
build-cuda COMPUTE_CAPABILITY="90":
    python3 -B .cuda/build.py --compute-capability {{COMPUTE_CAPABILITY}}

# On a machine with a GPU: the same operations on it and on the CPU, and a training step beside PyTorch's
gpu COMPUTE_CAPABILITY="90":
    ARGENT_GPU=required python3 -B .cuda/build.py --compute-capability {{COMPUTE_CAPABILITY}} \
        cargo test --release --locked --manifest-path kernels/learn/Cargo.toml --features cuda -- twins --nocapture
    python3 -B .cuda/build.py --compute-capability {{COMPUTE_CAPABILITY}} \
        cargo run --release --locked --manifest-path kernels/learn/Cargo.toml --features cuda --example gpu_training -- 40 8 96 192 192

# Random bytes into every reader of volumes and images, SECONDS each; needs nightly and cargo-fuzz
fuzz SECONDS="60":
    cd kernels/imaging/fuzz && cargo +nightly run --bin seeds
    cd kernels/imaging && for target in nifti npz side_file dicom image; do \
        cargo +nightly fuzz run $target -- -max_total_time={{SECONDS}} -max_len=65536 -malloc_limit_mb=1024 -rss_limit_mb=4096 || exit 1; \
    done

# Licences, advisories and duplicate versions of what is built in
deny:
    cargo deny check
