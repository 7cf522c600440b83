// Copyright (c) PVD-MM contributors. Apache-2.0.
// The kernels for one instruction set. A source file includes this once, hence
// no guard, and says for which:
//     PVD_KERNELS  the function that returns the kernels
//     PVD_TARGET   the compiler's names for the set; without it there is what
//                  the compiler assumes anyway, and with it F16C
//     PVD_VECTOR   bytes of a vector; left out where the compiler knows none
// All but PVD_KERNELS is in a namespace without a name.
//
// Forward and backward passes of `exact` are in exact_forward.h and
// exact_backward.h, those for maps whose channels lie next to each other in
// exact_channels_last.h, those of `factored` in factored_forward.h and
// factored_backward.h. numbers.h, rows.h, vectors.h and exact_blocks.h have what
// they share.
//
// Everything is a gather: a row of the result is summed by one thread. A
// window's column v reaches output column s*j + v - p: of the s column phases
// r = x mod s of the output it is in one, (v - p) mod s, and there, with
// x = s*t + r, it is a plain shift,
//     j = t + d,   d = (r + p - v) / s   (exact).
// So every inner loop runs over t (or j) with unit stride on the input's
// side. Positions outside of a map are never touched, not even times zero:
// they could hold inf or NaN. Rows are converted, and brought together where
// they are strided, a tile of columns at a time; half and bfloat16 are summed
// in float. Tiles are long, for it is along rows that the processor fetches
// ahead by itself: short ones were slower.

// The standard headers come before the target, so that no function of theirs
// is compiled for it and shared with other files.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>

#include "problem.h"

#if !defined(PVD_TARGET) || (defined(__x86_64__) && defined(__GNUC__))

#ifdef PVD_TARGET
#include <immintrin.h>
#define PVD_F16C
#if PVD_VECTOR == 64
#define PVD_AVX512
#endif
#define PVD_PRAGMA(...) PVD_PRAGMA_OF(__VA_ARGS__)  // expands PVD_TARGET
#define PVD_PRAGMA_OF(...) _Pragma(#__VA_ARGS__)
#ifdef __clang__
PVD_PRAGMA(clang attribute push(__attribute__((target(PVD_TARGET))),
                                apply_to = function))
#else
#pragma GCC push_options
PVD_PRAGMA(GCC target(PVD_TARGET))
#endif
#endif

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

// each builds on those before it
#include "numbers.h"
#include "rows.h"
#include "vectors.h"
#include "exact_blocks.h"
#include "exact_forward.h"
#include "exact_backward.h"
#include "factored_forward.h"
#include "factored_backward.h"

#define PVD_TYPES(KERNEL) \
  { KERNEL<float>, KERNEL<double>, KERNEL<Half>, KERNEL<BFloat16> }
#ifdef PVD_VECTOR
#include "exact_channels_last.h"
#define PVD_VECTOR_TYPES(KERNEL) PVD_TYPES(KERNEL)
#else
#define PVD_VECTOR_TYPES(KERNEL) {}
#endif

namespace pvd_mm {

Kernels PVD_KERNELS() {
  return {{PVD_TYPES(forward_exact), PVD_TYPES(forward_factored),
           PVD_VECTOR_TYPES(forward_channels_last)},
          {PVD_TYPES(backward_exact), PVD_TYPES(backward_factored),
           PVD_VECTOR_TYPES(backward_channels_last)}};
}

}  // namespace pvd_mm

#ifdef PVD_TARGET
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

#else

namespace pvd_mm {
Kernels PVD_KERNELS() { return {}; }
}  // namespace pvd_mm

#endif
