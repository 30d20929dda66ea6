//! Compiles the kernels of `cuda/` where the crate is built for a GPU.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "cuda")]
    compile_kernels();
}

/// PTX for compute capability 8.0, the first with bf16: the driver translates it for the GPU that is there.
#[cfg(feature = "cuda")]
fn compile_kernels() {
    let compiled = cudaforge::KernelBuilder::new()
        .compute_cap_arch("80")
        .source_files(["cuda/kernels.cu"])
        .args(["-std=c++17", "-O3"])
        .build_ptx();
    if let Err(error) = compiled {
        println!("cargo::error=the kernels for a GPU could not be compiled: {error}");
    }
}
