// What the native parts were built with, and what the processor they run on offers.
#include <pybind11/pybind11.h>

#include <string>
#include <thread>

#if defined(__unix__) || defined(__APPLE__)
#include <dlfcn.h>
#endif

#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
#define HOF_X86_DISPATCH 1
#endif

namespace {

std::string compiler() {
#if defined(__clang__)
  return "clang " __clang_version__;
#elif defined(__GNUC__)
  return "gcc " __VERSION__;
#elif defined(_MSC_VER)
  return "msvc " + std::to_string(_MSC_VER);
#else
  return "unknown";
#endif
}

std::string cpp_standard() {
#if defined(_MSVC_LANG)
  return "C++" + std::to_string(_MSVC_LANG / 100 % 100);
#else
  return "C++" + std::to_string(__cplusplus / 100 % 100);
#endif
}

std::string architecture() {
#if defined(__x86_64__) || defined(_M_X64)
  return "x86_64";
#elif defined(__aarch64__) || defined(_M_ARM64)
  return "aarch64";
#elif defined(__i386__) || defined(_M_IX86)
  return "i386";
#else
  return "unknown";
#endif
}

// The levels are the ones kernels are cloned for: x86-64-v4, x86-64-v3, and what every processor has.
std::string instruction_set() {
#if defined(HOF_X86_DISPATCH)
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return v4 ? "avx512" : v3 ? "avx2" : "baseline";
#else
  return "baseline";
#endif
}

// Kernels share torch's thread pool, so what counts is the OpenMP run time that is loaded, not one we link.
std::string threads_library() {
#if defined(__unix__) || defined(__APPLE__)
  Dl_info info;
  void* symbol = dlsym(RTLD_DEFAULT, "omp_get_max_threads");
  if (symbol != nullptr && dladdr(symbol, &info) != 0 && info.dli_fname != nullptr) {
    const std::string path = info.dli_fname;
    return path.substr(path.find_last_of('/') + 1);
  }
#endif
  return "no OpenMP run time loaded";
}

pybind11::dict facts() {
  using namespace pybind11::literals;
  return pybind11::dict(
      "compiler"_a = compiler(),
      "cpp_standard"_a = cpp_standard(),
      "flags"_a = HOF_FLAGS,
      "torch_built_against"_a = HOF_TORCH_VERSION,
      "torch_abi_target"_a = HOF_TORCH_TARGET,
      "pybind11"_a = PYBIND11_TOSTRING(PYBIND11_VERSION_MAJOR) "." PYBIND11_TOSTRING(PYBIND11_VERSION_MINOR),
      "python"_a = PY_VERSION,
      "architecture"_a = architecture(),
      "instruction_set"_a = instruction_set(),
      "processors"_a = std::to_string(std::thread::hardware_concurrency()),
      "threads"_a = threads_library());
}

}  // namespace

PYBIND11_MODULE(_native, module) {
  module.def("facts", &facts, "Return what the native parts were built with and what this processor offers.");
}
