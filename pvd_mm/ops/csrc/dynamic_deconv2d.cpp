// Copyright (c) PVD-MM contributors. Apache-2.0.
// pvd_mm_cpp::forward and ::backward, on the CPU. Autograd is registered in
// Python, in front of all backends.
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <array>
#include <tuple>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "problem.h"

namespace pvd_mm {
namespace {

using at::Tensor;

// As torch itself dispatches, so that ATEN_CPU_CAPABILITY holds here too.
const Kernels& kernels() {
  static const Kernels chosen = [] {
    const std::string capability = at::get_cpu_capability();
    Kernels best = {};
    if (capability == "AVX512") best = kernels_avx512();
    if (!best.forward[0][0] && (capability == "AVX512" || capability == "AVX2"))
      best = kernels_avx2();
    return best.forward[0][0] ? best : kernels_baseline();
  }();
  return chosen;
}

Type type_of(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat: return kFloat;
    case at::kDouble: return kDouble;
    case at::kHalf: return kHalf;
    case at::kBFloat16: return kBFloat16;
    default:
      TORCH_CHECK_TYPE(false, "pvd_mm_cpp: no kernel for ",
                       tensor.scalar_type());
  }
}

Strides strides_of(const Tensor& tensor) {
  return {tensor.stride(0), tensor.stride(1), tensor.stride(2),
          tensor.stride(3)};
}

Problem problem_of(const Tensor& input, const Tensor& votes, int64_t k,
                   int64_t s, int64_t p, int64_t out_h, int64_t out_w,
                   int64_t groups) {
  TORCH_CHECK(input.dim() == 4 && votes.dim() == 4 && k > 0 && s > 0 &&
                  p >= 0 && groups > 0 && out_h >= 0 && out_w >= 0,
              "pvd_mm_cpp: bad arguments");
  TORCH_CHECK(input.size(1) % groups == 0 &&
                  votes.size(1) == groups * k * k &&
                  votes.size(0) == input.size(0) &&
                  votes.size(2) == input.size(2) &&
                  votes.size(3) == input.size(3),
              "pvd_mm_cpp: votes ", votes.sizes(), " do not fit input ",
              input.sizes());
  TORCH_CHECK(input.is_cpu() && votes.is_cpu() &&
                  input.scalar_type() == votes.scalar_type(),
              "pvd_mm_cpp: one dtype, and the CPU, are needed");
  Problem q = {};
  q.channels = input.size(1);
  q.groups = groups;
  q.h = input.size(2);
  q.w = input.size(3);
  q.out_h = out_h;
  q.out_w = out_w;
  q.kernel_size = k;
  q.stride = s;
  q.padding = p;
  q.input = input.const_data_ptr();
  q.votes = votes.const_data_ptr();
  q.input_at = strides_of(input);
  q.votes_at = strides_of(votes);
  return q;
}

// first and second are the maps that are read and written most.
Variant variant_of(const Problem& q, Type type, bool factored,
                   const Strides& first, const Strides& second,
                   int64_t least) {
  if (factored) return kFactored;
  const int64_t bytes = q.channels / q.groups * (type == kDouble ? 8 : 4);
  return first.c == 1 && second.c == 1 && bytes >= least &&
                 kernels().forward[kChannelsLast][type]
             ? kChannelsLast
             : kExact;
}

// Rows per task: too little work is not worth waking a thread for.
void run(Rows rows, const Problem& q, int64_t count, double row_work) {
  const int64_t grain = row_work < 65536. ? int64_t(65536. / (row_work + 1.)) + 1 : 1;
  at::parallel_for(0, count, grain, [&](int64_t begin, int64_t end) {
    rows(q, begin, end);
  });
}

// Like a convolution's: channels_last for a channels_last input.
c10::MemoryFormat format_of(const Tensor& input) {
  return input.is_contiguous(c10::MemoryFormat::ChannelsLast) &&
                 !input.is_contiguous()
             ? c10::MemoryFormat::ChannelsLast
             : c10::MemoryFormat::Contiguous;
}

// A tensor to be written. Large ones come as pages that the kernel has yet to
// clear one by one, which can take longer than the op itself; huge pages are
// cleared faster.
Tensor fresh(at::IntArrayRef sizes, const Tensor& like) {
  Tensor tensor = at::empty(sizes, like.options(), format_of(like));
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t kPage = uintptr_t(1) << 21;
  if (tensor.nbytes() >= 4 * kPage) {
    const auto address = reinterpret_cast<uintptr_t>(tensor.mutable_data_ptr());
    const uintptr_t first = (address + kPage - 1) & ~(kPage - 1);
    const uintptr_t last = (address + tensor.nbytes()) & ~(kPage - 1);
    madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
  }
#endif
  return tensor;
}

Tensor forward(const Tensor& input, const Tensor& votes, int64_t k, int64_t s,
               int64_t p, int64_t out_h, int64_t out_w, int64_t groups,
               bool factored) {
  Problem q = problem_of(input, votes, k, s, p, out_h, out_w, groups);
  const std::array<int64_t, 4> size = {input.size(0), q.channels, out_h, out_w};
  Tensor output = fresh(size, input);
  if (output.numel() == 0) return output;
  if (input.numel() == 0) return output.zero_();
  q.output = output.mutable_data_ptr();
  q.output_at = strides_of(output);
  const Type type = type_of(input);
  const Variant variant =
      variant_of(q, type, factored, q.input_at, q.output_at, kLeastForward);
  const int64_t parts = variant == kChannelsLast ? 1 : groups;
  const double windows = factored ? 1. : double(k) / s * k / s;
  run(kernels().forward[variant][type], q, input.size(0) * parts * out_h,
      double(q.channels / parts) * out_w * windows);
  return output;
}

std::tuple<Tensor, Tensor> backward(const Tensor& grad, const Tensor& input,
                                    const Tensor& votes, int64_t k, int64_t s,
                                    int64_t p, int64_t groups, bool factored,
                                    bool for_input, bool for_votes) {
  TORCH_CHECK(grad.dim() == 4 && grad.is_cpu() &&
                  grad.scalar_type() == input.scalar_type() &&
                  input.dim() == 4 && grad.size(0) == input.size(0) &&
                  grad.size(1) == input.size(1),
              "pvd_mm_cpp: grad ", grad.sizes(), " does not fit input ",
              input.sizes());
  Problem q = problem_of(input, votes, k, s, p, grad.size(2), grad.size(3),
                         groups);
  q.grad = grad.const_data_ptr();
  q.grad_at = strides_of(grad);
  Tensor grad_input, grad_votes;
  if (for_input) {
    grad_input = fresh(input.sizes(), input);
    q.grad_input = grad_input.mutable_data_ptr();
    q.grad_input_at = strides_of(grad_input);
  }
  if (for_votes) {
    grad_votes = fresh(votes.sizes(), votes);
    q.grad_votes = grad_votes.mutable_data_ptr();
    q.grad_votes_at = strides_of(grad_votes);
  }
  // of a map without channels q.grad_input may be null: nothing to write
  if ((q.grad_input || q.grad_votes) && votes.numel() > 0) {
    const Type type = type_of(input);
    const Variant variant =
        variant_of(q, type, factored, q.grad_at, q.input_at, kLeastBackward);
    const int64_t parts = variant == kChannelsLast ? 1 : groups;
    run(kernels().backward[variant][type], q, input.size(0) * parts * q.h,
        double(q.channels / parts) * q.w * (factored ? 2. * s * s : 2. * k * k));
  }
  return {grad_input, grad_votes};
}

}  // namespace

TORCH_LIBRARY(pvd_mm_cpp, library) {
  library.def(
      "forward(Tensor input, Tensor votes, int kernel_size, int stride, "
      "int padding, int height, int width, int groups, bool factored) "
      "-> Tensor");
  library.def(
      "backward(Tensor grad, Tensor input, Tensor votes, int kernel_size, "
      "int stride, int padding, int groups, bool factored, bool for_input, "
      "bool for_votes) -> (Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(pvd_mm_cpp, CPU, library) {
  library.impl("forward", forward);
  library.impl("backward", backward);
}

// Nothing is recorded here, so that autograd's own fallback is only a detour.
TORCH_LIBRARY_IMPL(pvd_mm_cpp, Autograd, library) {
  library.impl("forward", torch::CppFunction::makeFallthrough());
  library.impl("backward", torch::CppFunction::makeFallthrough());
}

}  // namespace pvd_mm
