// Copyright (c) PVD-MM contributors. Apache-2.0.
// The standard headers of kernels.h.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>

#if defined(__clang__)
#define PVD_IVDEP _Pragma("clang loop vectorize(assume_safety)")
#define PVD_UNROLL _Pragma("unroll")
#elif defined(__GNUC__)
#define PVD_IVDEP _Pragma("GCC ivdep")
#define PVD_UNROLL _Pragma("GCC unroll 4")
#else
#define PVD_IVDEP
#define PVD_UNROLL
#endif

#if defined(__GNUC__)
#define PVD_INLINE inline __attribute__((always_inline))
#define PVD_PREFETCH(at) __builtin_prefetch(at)
#else
#define PVD_INLINE inline
#define PVD_PREFETCH(at) (void)(at)
#endif
