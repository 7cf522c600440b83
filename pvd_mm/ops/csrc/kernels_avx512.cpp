// Copyright (c) PVD-MM contributors. Apache-2.0.
// The kernels for AVX512.
#define PVD_KERNELS kernels_avx512
#define PVD_TARGET "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"
#define PVD_VECTOR 64
#include "kernels.h"
