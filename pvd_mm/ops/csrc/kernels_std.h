// Copyright (c) PVD-MM contributors. Apache-2.0.
// The standard headers of kernels.h.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <type_traits>

#if defined(__clang__)
#define PVD_IVDEP _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define PVD_IVDEP _Pragma("GCC ivdep")
#else
#define PVD_IVDEP
#endif

#if defined(__GNUC__)
#define PVD_INLINE inline __attribute__((always_inline))
#else
#define PVD_INLINE inline
#endif
