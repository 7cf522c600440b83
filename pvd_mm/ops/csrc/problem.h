// Copyright (c) PVD-MM contributors. Apache-2.0.
// What the kernels are told, without a word of torch: they are compiled once
// for each instruction set.
#pragma once

#include <cstdint>

namespace pvd_mm {

// Strides in elements.
struct Strides {
  int64_t n, c, h, w;
};

// One call. (h, w) is the size of input and votes, (out_h, out_w) that of
// output and grad; backward leaves out the gradient whose pointer is null.
struct Problem {
  int64_t channels, groups, h, w, out_h, out_w;
  int64_t kernel_size, stride, padding;
  const void *input, *votes, *grad;
  void *output, *grad_input, *grad_votes;
  Strides input_at, votes_at, grad_at, output_at, grad_input_at, grad_votes_at;
};

// Rows [begin, end) of N x G x H' (forward) or N x G x H (backward); of
// N x H' or N x H for kChannelsLast. Every row is written by one call, and its
// sums do not depend on the range.
using Rows = void (*)(const Problem&, int64_t begin, int64_t end);

enum Type { kFloat, kDouble, kHalf, kBFloat16, kTypes };
enum Variant { kExact, kFactored, kChannelsLast, kVariants };

// kChannelsLast is kExact for maps whose channels lie next to each other, of so
// many that the sums of a pixel and group have these bytes. With fewer its
// backward pass is slower than rows that are strided, and its vectors are not
// filled.
constexpr int64_t kLeastForward = 16, kLeastBackward = 32;

struct Kernels {
  Rows forward[kVariants][kTypes];  // null where the compiler knows no vectors
  Rows backward[kVariants][kTypes];
};

Kernels kernels_baseline();
// Null entries where the compiler or the platform has no such thing.
Kernels kernels_avx2();
Kernels kernels_avx512();

}  // namespace pvd_mm
