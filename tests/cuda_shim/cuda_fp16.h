// Numbers of 16 bits as CUDA calls them, on a CPU.
#pragma once

struct __half {
  _Float16 number;
};

inline float __half2float(__half h) { return float(h.number); }
inline __half __float2half_rn(float f) { return {_Float16(f)}; }
