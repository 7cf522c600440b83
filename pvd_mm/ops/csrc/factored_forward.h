// Copyright (c) PVD-MM contributors. Apache-2.0.
// `factored`, the forward pass, and where an output pixel has its source.

namespace pvd_mm {
namespace {

// The input column of column t of a phase is t + this, clamped to the map.
PVD_INLINE int64_t own_shift(int64_t phase, const Problem& q) {
  const int64_t centre = (q.kernel_size - 1) / 2 - q.padding;
  return floor_div(phase - centre, q.stride);
}

// The votes that reach the columns of output row y, by phase: (s, length).
template <class T, class A>
void sum_votes(int64_t y, const Problem& q, const T* votes_map,
               int64_t length, A* sums, A* buffer) {
  const int64_t k = q.kernel_size, s = q.stride;
  const Reaching at = reaching(y, q);
  for (int64_t t = 0; t < s * length; ++t) sums[t] = 0;
  for (int64_t a = 0; a < at.count; ++a) {
    for (int64_t v = 0; v < k; ++v) {
      const int64_t d = shift_of(v, q), phase = phase_of(v, q);
      const int64_t from = most(0, -d);
      const int64_t to = least(length_of(phase, q), q.w - d);
      const A* votes = row_of(
          votes_map + ((at.first + s * a) * k + v) * q.votes_at.c +
              (at.input_row - a) * q.votes_at.h,
          q.votes_at.w, from + d, to + d, buffer);
      A* sum = sums + phase * length;
      PVD_IVDEP
      for (int64_t t = from; t < to; ++t) sum[t] += votes[t + d];
    }
  }
}

// Where t + shift needs no clamping: [first, last) within a phase.
struct Inner {
  int64_t first, last;
};
PVD_INLINE Inner inner_of(int64_t phase, const Problem& q) {
  const int64_t length = length_of(phase, q), e = own_shift(phase, q);
  const int64_t first = least(length, most(0, -e));
  return {first, most(first, least(length, q.w - e))};
}

template <class A>
PVD_INLINE void scale_columns(int64_t first, int64_t last, int64_t step,
                              const A* input, const A* sums, A* output) {
  PVD_IVDEP
  for (int64_t t = first; t < last; ++t) output[step * t] = input[t] * sums[t];
}

// output = input of the own source times sums, a row.
template <class A>
void scale_row(const Problem& q, const A* input, const A* sums,
               int64_t length, A* output) {
  const int64_t s = q.stride;
  Inner both = inner_of(0, q);
  if (s == 2) {  // interleaved
    const Inner odd = inner_of(1, q);
    both.first = most(both.first, odd.first);
    both.last = most(both.first, least(both.last, odd.last));
    const A *even_in = input + own_shift(0, q), *even = sums;
    const A *odd_in = input + own_shift(1, q), *odds = sums + length;
    PVD_IVDEP
    for (int64_t t = both.first; t < both.last; ++t) {
      output[2 * t] = even_in[t] * even[t];
      output[2 * t + 1] = odd_in[t] * odds[t];
    }
  }
  for (int64_t phase = 0; phase < s; ++phase) {
    const Inner inner = s == 2 ? both : inner_of(phase, q);
    const int64_t e = own_shift(phase, q), end = length_of(phase, q);
    const A* sum = sums + phase * length;
    A* out = output + phase;
    for (int64_t t = 0; t < inner.first; ++t)
      out[s * t] = input[most(0, least(q.w - 1, t + e))] * sum[t];
    if (s == 1)
      scale_columns(inner.first, inner.last, 1, input + e, sum, out);
    else if (s != 2)
      scale_columns(inner.first, inner.last, s, input + e, sum, out);
    for (int64_t t = inner.last; t < end; ++t)
      out[s * t] = input[most(0, least(q.w - 1, t + e))] * sum[t];
  }
}

template <class T>
void forward_factored(const Problem& q, int64_t begin, int64_t end) {
  using A = typename SumOf<T>::type;
  const int64_t k = q.kernel_size, s = q.stride;
  const int64_t each = q.channels / q.groups;
  const int64_t length = ceil_div(q.out_w, s);
  const int64_t centre = (k - 1) / 2 - q.padding;
  const bool direct = plain<T, A>(q.output_at.w);
  Scratch<A> scratch(s * length + 2 * q.w + q.out_w);
  A* const sums = scratch.take(s * length);
  A* const vote_row = scratch.take(q.w);
  A* const input_row = scratch.take(q.w);
  A* const output_row = scratch.take(q.out_w);

  for (int64_t row = begin; row < end; ++row) {
    const int64_t y = row % q.out_h, g = row / q.out_h % q.groups;
    const int64_t n = row / q.out_h / q.groups;
    const int64_t i = most(0, least(q.h - 1, floor_div(y - centre, s)));
    sum_votes(y, q,
              static_cast<const T*>(q.votes) + n * q.votes_at.n +
                  g * k * k * q.votes_at.c,
              length, sums, vote_row);
    for (int64_t c = g * each; c < (g + 1) * each; ++c) {
      const A* input = row_of(static_cast<const T*>(q.input) +
                                  n * q.input_at.n + c * q.input_at.c +
                                  i * q.input_at.h,
                              q.input_at.w, 0, q.w, input_row);
      T* to = static_cast<T*>(q.output) + n * q.output_at.n +
              c * q.output_at.c + y * q.output_at.h;
      A* output = direct ? reinterpret_cast<A*>(to) : output_row;
      scale_row(q, input, sums, length, output);
      if (!direct) write_row(output, q.out_w, to, q.output_at.w);
    }
  }
}

}  // namespace
}  // namespace pvd_mm
