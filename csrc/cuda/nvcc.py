"""Build the CUDA library by nvcc alone: `python csrc/cuda/nvcc.py high_order_fused/_cuda.abi3.so`.

HOF_CUDA_TARGETS names what to compile for (sm_XX: machine code; compute_XX: PTX, for later devices); nothing
is built if it is empty. nvcc is looked for in CUDA_HOME, in PATH, in /usr/local/cuda and among the packages
nvidia-cuda-nvcc, nvidia-cuda-crt, nvidia-cuda-runtime, nvidia-cuda-cccl and nvidia-nvvm of PyPI.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

TARGETS = "sm_80 sm_90a sm_100 compute_100"
HERE = Path(__file__).parent


def targets() -> list[str]:
    """What to compile for."""
    return re.findall(r"[^\s,;]+", os.environ.get("HOF_CUDA_TARGETS", TARGETS))


def find() -> Path | None:
    """nvcc, or None."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")]
    found = [Path(home, "bin", "nvcc") for home in homes if home]
    on_path = shutil.which("nvcc")
    found += [Path(on_path)] if on_path else []
    found.append(Path("/usr/local/cuda/bin/nvcc"))
    found += sorted(Path(sysconfig.get_path("purelib"), "nvidia").glob("cu*/bin/nvcc"), reverse=True)
    return next((path for path in found if path.is_file()), None)


def missing() -> str | None:
    """Why the library cannot be built, in one line, or None."""
    if not targets():
        return "switched off by HOF_CUDA_TARGETS at installation"
    if os.name == "nt":
        return "the CUDA kernels are not built on Windows"
    return None if find() else "no nvcc was found at installation (CUDA_HOME, PATH, nvidia-cuda-nvcc of PyPI)"


def build(output: Path, torch_target: str) -> None:
    """Compile and link; RuntimeError if nvcc fails."""
    import torch

    nvcc, torch_home = find(), Path(torch.__file__).parent
    assert nvcc is not None
    output.parent.mkdir(parents=True, exist_ok=True)
    command = [str(nvcc), "-shared", "-o", str(output), "-std=c++20", "-O3", "--threads", "0"]
    command += ["-cudart", "static", "-Xcompiler", "-fPIC,-fvisibility=hidden,-w"]
    for target in targets():
        virtual = "compute_" + target.partition("_")[2]
        command += ["-gencode", f"arch={virtual},code={target}"]
    home = nvcc.resolve().parent.parent  # of packages from PyPI nvcc does not know all folders
    command += [f"-L{folder}" for folder in (home / "lib64", home / "lib") if folder.is_dir()]
    lowest = min(int(re.findall(r"\d+", target)[0]) for target in targets())
    command += [f"-DHOF_LOWEST={lowest}", f"-DTORCH_TARGET_VERSION={torch_target}"]
    command += [f"-I{torch_home / 'include'}"]
    command += [f"-L{torch_home / 'lib'}", "-ltorch_cpu", "-lrt", "-ldl", "-lpthread"]
    command += [str(path) for path in (*sorted(HERE.glob("*.cu")), HERE / "ops.cpp")]
    status = subprocess.run(command).returncode
    if status:
        raise RuntimeError(f"nvcc returned {status}")


if __name__ == "__main__":
    if why := missing():
        sys.exit(why)
    build(Path(sys.argv[1]), "0x020b000000000000")
