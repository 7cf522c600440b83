// Copyright (c) PVD-MM contributors. Apache-2.0.
// The kernels for the instruction set that the compiler assumes anyway.
#include "kernels_std.h"
#include "problem.h"

#define PVD_KERNELS kernels_baseline
#include "kernels.h"
