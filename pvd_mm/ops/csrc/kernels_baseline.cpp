// Copyright (c) PVD-MM contributors. Apache-2.0.
// The kernels for the instruction set that the compiler assumes anyway.
#define PVD_KERNELS kernels_baseline
#ifdef __GNUC__
#define PVD_VECTOR 16
#endif
#include "kernels.h"
