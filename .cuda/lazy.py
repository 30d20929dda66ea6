"""Link libraries that open the true one at the first call.

CUDA's wheels hold no library to link with, and a program linked with the true ones does not start where they are not.
For each library that the tensor library's binding (cudarc) declares functions of, `make` writes an archive with one
jump per function: at first into lazy.c, which opens the library and finds the function, then straight to it.
"""

import re
import subprocess
from pathlib import Path

HERE = Path(__file__).parent

# By the name to link with: the folder of its declarations in cudarc, the library that is opened, and the status that
# says "not initialised" (for the driver: "a stub library is loaded", which has a text of its own).
LIBRARIES = {
    "cuda": ("driver", "libcuda.so.1", 34),
    "cublas": ("cublas", "libcublas.so.13", 1),
    "cublasLt": ("cublaslt", "libcublasLt.so.13", 1),
    "curand": ("curand", "libcurand.so.10", 101),
    "nvrtc": ("nvrtc", "libnvrtc.so.13", 11),
    "cudnn": ("cudnn", "libcudnn.so.9", 1001),
}

ANSWERS = {"*const ::core::ffi::c_char": "ANSWERS_TEXT", "usize": "ANSWERS_COUNT"}

# Arguments stand in registers and, behind the return address, on the stack: all are kept for the function that is
# found. The stack is a multiple of 16 at the call, as the calling convention of x86-64 asks.
RESOLVE = """
{find}_resolve:
    pushq %rdi; pushq %rsi; pushq %rdx; pushq %rcx; pushq %r8; pushq %r9; pushq %rax; pushq %r10
    subq $128, %rsp
    movups %xmm0, (%rsp); movups %xmm1, 16(%rsp); movups %xmm2, 32(%rsp); movups %xmm3, 48(%rsp)
    movups %xmm4, 64(%rsp); movups %xmm5, 80(%rsp); movups %xmm6, 96(%rsp); movups %xmm7, 112(%rsp)
    movq 192(%rsp), %rdi
    call {find}
    movq %rax, %r11
    movups (%rsp), %xmm0; movups 16(%rsp), %xmm1; movups 32(%rsp), %xmm2; movups 48(%rsp), %xmm3
    movups 64(%rsp), %xmm4; movups 80(%rsp), %xmm5; movups 96(%rsp), %xmm6; movups 112(%rsp), %xmm7
    addq $128, %rsp
    popq %r10; popq %rax; popq %r9; popq %r8; popq %rcx; popq %rdx; popq %rsi; popq %rdi
    addq $8, %rsp
    jmp *%r11
"""


def functions(declarations: str) -> dict[str, str]:
    """What each declared function answers: a name in ANSWERS, or a status."""
    found = re.findall(r"^ {12}fn (\w+)\(.*\) -> (.+);$", declarations, flags=re.MULTILINE)
    return {name: ANSWERS.get(answer, "ANSWERS_STATUS") for name, answer in found}


def assembler(link_name: str, names: dict[str, str]) -> str:
    """A jump per function through a table whose entries lead to the resolver at first."""
    find, slots, table = (f"argent_{link_name}_{part}" for part in ("find", "slots", "names"))
    lines = [".text", RESOLVE.format(find=find)]
    for number, name in enumerate(names):
        lines += [f".globl {name}", f".type {name}, @function", f"{name}:", f"    jmp *{slots}+{8 * number}(%rip)"]
        lines += [f"{find}_{number}:", f"    pushq ${number}", f"    jmp {find}_resolve"]
    lines += [".data", ".balign 8", f".globl {slots}", f".hidden {slots}", f"{slots}:"]
    lines += [f"    .quad {find}_{number}" for number in range(len(names))]
    lines += [f".globl {table}", f".hidden {table}", f"{table}:"]
    answers = ["ANSWERS_STATUS", "ANSWERS_TEXT", "ANSWERS_COUNT"]
    for number, answer in enumerate(names.values()):
        lines += [f"    .quad {find}_name_{number}", f"    .quad {answers.index(answer)}"]
    lines += [".section .rodata"]
    lines += [f'{find}_name_{number}: .asciz "{name}"' for number, name in enumerate(names)]
    return "\n".join(lines + ['.section .note.GNU-stack,"",@progbits', ""])


def make(cudarc: Path, folder: Path) -> None:
    """Writes lib<name>.a for every library into `folder`, from the sources of cudarc."""
    folder.mkdir(parents=True, exist_ok=True)
    for link_name, (module, soname, status) in LIBRARIES.items():
        names = functions((cudarc / "src" / module / "sys" / "mod.rs").read_text())
        if not names:
            raise SystemExit(f"{cudarc} declares no function of {link_name}, expected some; is it another version?")
        source = folder / f"{link_name}.s"
        source.write_text(assembler(link_name, names))
        symbols = {name: f"argent_{link_name}_{name.lower()}" for name in ("FIND", "SLOTS", "NAMES")}
        defines = [f"-D{name}={symbol}" for name, symbol in symbols.items()]
        defines += [f'-DSONAME="{soname}"', f"-DSTATUS={status}"]
        objects = [str(folder / f"{link_name}-{part}.o") for part in ("jumps", "find")]
        compile_ = ["cc", "-c", "-O2", "-fPIC"]
        subprocess.run([*compile_, str(source), "-o", objects[0]], check=True)
        subprocess.run([*compile_, "-Wall", "-Werror", *defines, str(HERE / "lazy.c"), "-o", objects[1]], check=True)
        archive = folder / f"lib{link_name}.a"
        archive.unlink(missing_ok=True)
        subprocess.run(["ar", "rcs", str(archive), *objects], check=True)
        for name in [*objects, str(source)]:
            Path(name).unlink()
