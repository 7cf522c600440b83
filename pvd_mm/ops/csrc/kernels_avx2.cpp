// Copyright (c) PVD-MM contributors. Apache-2.0.
// The kernels for AVX2, FMA and F16C; torch's own for AVX2 need all three, so
// where torch reports AVX2 they are there.
#define PVD_KERNELS kernels_avx2
#define PVD_TARGET "avx2,fma,f16c"
#define PVD_VECTOR 32
#include "kernels.h"
