// Copyright (c) PVD-MM contributors. Apache-2.0.
// The kernels for AVX512. The standard headers come before the pragma, so that
// no function of theirs is compiled for it and shared with other files.
#include "kernels_std.h"
#include "problem.h"

#define PVD_KERNELS kernels_avx512
#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define PVD_VECTOR 64
#define PVD_AVX512
#define PVD_F16C
#ifdef __clang__
#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")
#endif
#include "kernels.h"
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#else
namespace pvd_mm {
Kernels PVD_KERNELS() { return {}; }
}  // namespace pvd_mm
#endif
