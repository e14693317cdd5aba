"""Where the packages lie, and the three optional native parts. The metadata is in pyproject.toml."""

import os
import shlex
import shutil
import sys
import sysconfig
from glob import glob
from pathlib import Path

from setuptools import Extension, find_packages, setup

PACKAGE = "high_order_fused"
INSTALLED_INSIDE = ("benchmarks", "triton_kernels")  # top-level folders that become sub-packages
TORCH_TARGET_VERSION = "0x020b000000000000"  # torch 2.11: the oldest release whose stable ABI is used
NATIVE = os.environ.get("HOF_NATIVE", "1") != "0"
SANITIZE = os.environ.get("HOF_SANITIZE", "0") != "0"  # for `make test-sanitize`

sys.path.insert(0, str(Path(__file__).parent / "csrc" / "cuda"))
import nvcc  # noqa: E402

# pip run as `.venv/bin/pip` leaves .venv/bin, where an installed ninja lies, out of PATH
os.environ["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])

try:
    import torch
    from torch.utils.cpp_extension import BuildExtension, CppExtension, get_cxx_compiler, include_paths
except ImportError:
    from setuptools.command.build_ext import build_ext as BuildExtension

    torch = None
    # these two only describe the project; any other must stop before pip fetches a torch of its own choice
    if NATIVE and {"egg_info", "sdist"}.isdisjoint(sys.argv):
        sys.exit(f"{PACKAGE}: install torch first, then pip install --no-build-isolation -e .")

if torch and NATIVE and torch.__version__ < "2.11":
    sys.exit(f"{PACKAGE} needs torch 2.11 or newer, found {torch.__version__}: upgrade torch first")


class BuildNative(BuildExtension):
    """Build the native parts that can be built, and write down why the others are missing."""

    def run(self):
        self.missing = {}
        parts = {ext.name: Path(self.get_ext_fullpath(ext.name)) for ext in self.extensions}
        for name, part in parts.items():  # what an earlier build left would hide a failure of this one
            part.unlink(missing_ok=True)
            Path(self.build_lib, self.get_ext_filename(name)).unlink(missing_ok=True)
        if NATIVE and torch:
            super().run()
        else:
            self.missing = dict.fromkeys(parts, "switched off by HOF_NATIVE=0 at installation")

        note = next(iter(parts.values())).with_name("native_missing.txt")
        note.unlink(missing_ok=True)
        if self.missing:
            lines = (f"{name.rpartition('.')[2]}: {reason}\n" for name, reason in self.missing.items())
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text("".join(lines), encoding="utf-8")
            reasons = "; ".join(dict.fromkeys(self.missing.values()))
            print(f"{PACKAGE}: {' and '.join(self.missing)} left out: {reasons}", file=sys.stderr)

    def build_extensions(self):
        compiler = get_cxx_compiler()
        if os.name != "nt" and not any(map(shutil.which, shlex.split(compiler)[:1])):
            reason = f"no C++ compiler was found at installation (looked for {compiler})"
            self.missing = {ext.name: reason for ext in self.extensions}
            return
        try:
            super().build_extensions()
        except Exception as error:
            self.missing = {ext.name: explained(error) for ext in self.extensions} | self.missing

    def build_extension(self, ext):
        try:
            if ext.name.endswith("._cuda"):
                self.build_cuda(Path(self.get_ext_fullpath(ext.name)))
            else:
                super().build_extension(ext)
        except Exception as error:
            self.missing[ext.name] = explained(error)

    def build_cuda(self, output):
        why = nvcc.missing()
        if why:
            self.missing[f"{PACKAGE}._cuda"] = why
        else:
            nvcc.build(output, TORCH_TARGET_VERSION)


def explained(error):
    """Return one line saying what stopped a build."""
    return f"the build failed, {' '.join(str(error).split())}; pip install -v shows the compiler's messages"


def native_parts():
    """Return the operator libraries (stable ABI, no Python) and the module of build facts (no torch)."""
    optimise, others = "-O3", ["-std=c++20", "-fvisibility=hidden", "-g0"]
    if SANITIZE:
        optimise, others = (
            "-O1",
            [*others, "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g1"],
        )
    if os.name == "nt":
        optimise, others = "/O2", ["/std:c++20"]
    try:
        import pybind11

        pybind11_headers = [pybind11.get_include()]
    except ImportError:
        pybind11_headers = include_paths() if torch else []  # torch ships a copy
    operators = (CppExtension if torch else Extension)(
        f"{PACKAGE}._C",
        ["csrc/ops.cpp", *sorted(glob("csrc/cpu/*.cpp"))],
        define_macros=[("TORCH_TARGET_VERSION", TORCH_TARGET_VERSION)],
        extra_compile_args=[optimise, *others],
        depends=glob("csrc/**/*.h", recursive=True),
        extra_link_args=["-fsanitize=address,undefined"] if SANITIZE else [],
        py_limited_api=True,
        optional=True,
    )
    facts = Extension(
        f"{PACKAGE}._native",
        ["csrc/facts.cpp"],
        include_dirs=pybind11_headers,
        define_macros=[
            ("HOF_FLAGS", f'"{optimise}"'),
            ("HOF_TORCH_VERSION", f'"{torch.__version__ if torch else "none"}"'),
            ("HOF_TORCH_TARGET", f'"{TORCH_TARGET_VERSION}"'),
        ],
        extra_compile_args=[optimise, *others],
        language="c++",
        optional=True,
    )
    sources = glob("csrc/**/*.*", recursive=True)
    cuda = Extension(f"{PACKAGE}._cuda", [], depends=sources, py_limited_api=True, optional=True)
    return [operators, facts] if SANITIZE else [operators, facts, cuda]


packages = find_packages(include=[PACKAGE, f"{PACKAGE}.*"])
for folder in INSTALLED_INSIDE:
    packages += [f"{PACKAGE}.{folder}", *(f"{PACKAGE}.{folder}.{name}" for name in find_packages(folder))]

setup(
    packages=packages,
    package_dir={f"{PACKAGE}.{folder}": folder for folder in INSTALLED_INSIDE},
    ext_modules=native_parts(),
    cmdclass={"build_ext": BuildNative},
)
