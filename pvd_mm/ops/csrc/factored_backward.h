// Copyright (c) PVD-MM contributors. Apache-2.0.
// `factored`, the backward pass.

namespace pvd_mm {
namespace {

// visit(x, j, t) for every output column x: j is its source, and t its place
// in a row of sums, which go by phase.
template <class Visit>
PVD_INLINE void for_sources(const Problem& q, int64_t length,
                            const Visit& visit) {
  const int64_t s = q.stride;
  for (int64_t phase = 0; phase < s; ++phase) {
    const Inner inner = inner_of(phase, q);
    const int64_t e = own_shift(phase, q), end = length_of(phase, q);
    const int64_t sum = phase * length;
    const auto clamped = [&](int64_t t) {
      visit(s * t + phase, most(0, least(q.w - 1, t + e)), sum + t);
    };
    for (int64_t t = 0; t < inner.first; ++t) clamped(t);
    if (s == 1) {  // a constant stride is vectorised
      PVD_IVDEP
      for (int64_t t = inner.first; t < inner.last; ++t) visit(t, t + e, t);
    } else if (s == 2) {
      PVD_IVDEP
      for (int64_t t = inner.first; t < inner.last; ++t)
        visit(2 * t + phase, t + e, sum + t);
    } else {
      for (int64_t t = inner.first; t < inner.last; ++t)
        visit(s * t + phase, t + e, sum + t);
    }
    for (int64_t t = inner.last; t < end; ++t) clamped(t);
  }
}

// Every output row belongs to one input row, its source. The gradient by
// input is a sum over a row's own output rows; that by the votes sums, over
// the channels, the output rows of its window, which the last few rows of a
// ring hold. A range of rows computes the sums of its neighbours' rows again.
template <class T>
void backward_factored(const Problem& q, int64_t begin, int64_t end) {
  using A = typename SumOf<T>::type;
  const int64_t k = q.kernel_size, s = q.stride, p = q.padding;
  const int64_t each = q.channels / q.groups;
  const int64_t length = ceil_div(q.out_w, s);
  const int64_t centre = (k - 1) / 2 - p;
  const bool for_input = q.grad_input, for_votes = q.grad_votes;
  const bool direct = plain<T, A>(q.grad_input_at.w);
  const auto clip = [&](int64_t y) { return most(0, least(q.out_h, y)); };
  const auto own_first = [&](int64_t i) {
    return i == 0 ? 0 : clip(s * i + centre);
  };
  const auto own_last = [&](int64_t i) {
    return i == q.h - 1 ? q.out_h : clip(s * (i + 1) + centre);
  };
  const auto source = [&](int64_t y) {
    return most(0, least(q.h - 1, floor_div(y - centre, s)));
  };
  // most rows that a source owns
  const int64_t block =
      most(s, most(own_last(0) - own_first(0),
                   own_last(q.h - 1) - own_first(q.h - 1)));
  const int64_t ring = block + k;
  Scratch<A> scratch((block + ring) * s * length + 3 * q.w + q.out_w);
  A* const vote_sums = scratch.take(block * s * length);
  A* const sum_grads = scratch.take(ring * s * length);
  A* const vote_row = scratch.take(q.w);
  A* const input_row = scratch.take(q.w);
  A* const output_row = scratch.take(q.w);
  A* const grad_row = scratch.take(q.out_w);

  for (int64_t row = begin; row < end;) {
    const int64_t i_first = row % q.h, g = row / q.h % q.groups;
    const int64_t n = row / q.h / q.groups;
    const int64_t i_last = least(q.h, i_first + end - row);
    row += i_last - i_first;
    const T* input_map = static_cast<const T*>(q.input) + n * q.input_at.n +
                         g * each * q.input_at.c;
    const T* votes_map = static_cast<const T*>(q.votes) + n * q.votes_at.n +
                         g * k * k * q.votes_at.c;
    const T* grad_map = static_cast<const T*>(q.grad) + n * q.grad_at.n +
                        g * each * q.grad_at.c;
    T* out_map = part_of<T>(q.grad_input, n, g * each, 0, q.grad_input_at);
    T* out_votes = part_of<T>(q.grad_votes, n, g * k * k, 0, q.grad_votes_at);
    // the output rows in these rows' windows
    const int64_t y_first = clip(s * i_first - p);
    const int64_t y_last = for_votes ? clip(s * (i_last - 1) - p + k) : 0;
    int64_t b_first = i_first, b_last = i_last, next = i_first;
    if (y_first < y_last) {
      b_first = least(b_first, source(y_first));
      b_last = most(b_last, source(y_last - 1) + 1);
    }
    for (int64_t i = b_first; i < b_last; ++i) {
      const int64_t own = own_first(i), own_end = own_last(i);
      const bool mine = for_input && i >= i_first && i < i_last;
      for (int64_t y = own; y < own_end; ++y) {
        if (mine)
          sum_votes(y, q, votes_map, length,
                    vote_sums + (y - own) * s * length, vote_row);
        A* sums = sum_grads + y % ring * s * length;
        for (int64_t t = 0; t < s * length; ++t) sums[t] = 0;
      }
      for (int64_t c = 0; c < each; ++c) {
        const A* input =
            for_votes ? row_of(input_map + c * q.input_at.c + i * q.input_at.h,
                               q.input_at.w, 0, q.w, input_row)
                      : nullptr;
        T* to = for_input ? out_map + c * q.grad_input_at.c +
                                i * q.grad_input_at.h
                          : nullptr;
        A* output = direct ? reinterpret_cast<A*>(to) : output_row;
        if (mine)
          for (int64_t j = 0; j < q.w; ++j) output[j] = 0;
        for (int64_t y = own; y < own_end; ++y) {
          const bool reached = y >= y_first && y < y_last;
          if (!mine && !reached) continue;
          const A* grad =
              row_of(grad_map + c * q.grad_at.c + y * q.grad_at.h,
                     q.grad_at.w, 0, q.out_w, grad_row);
          // the adjoints of scale_row, by the input and by the sums
          if (mine) {
            const A* sums = vote_sums + (y - own) * s * length;
            for_sources(q, length, [=](int64_t x, int64_t j, int64_t t) {
              output[j] += grad[x] * sums[t];
            });
          }
          if (reached) {
            A* sums = sum_grads + y % ring * s * length;
            for_sources(q, length, [=](int64_t x, int64_t j, int64_t t) {
              sums[t] += grad[x] * input[j];
            });
          }
        }
        if (mine && !direct) write_row(output, q.w, to, q.grad_input_at.w);
      }
      if (!for_votes) continue;
      // the windows that are complete by now
      for (; next < i_last && clip(s * next - p + k) <= own_end; ++next) {
        for (int64_t at = 0; at < k * k; ++at) {
          const int64_t y = s * next - p + at / k, v = at % k;
          const int64_t d = shift_of(v, q), phase = phase_of(v, q);
          const A* sums = sum_grads + (most(0, y) % ring * s + phase) * length;
          const int64_t out = length_of(phase, q);
          // column j of the votes reaches t = j - d
          int64_t from = 0, to = 0;
          if (y >= 0 && y < q.out_h) {
            from = least(q.w, most(0, d));
            to = most(from, least(q.w, out + d));
          }
          T* target = out_votes + at * q.grad_votes_at.c +
                      next * q.grad_votes_at.h;
          const int64_t step = q.grad_votes_at.w;
          for (int64_t j = 0; j < from; ++j) narrow(A(0), target[j * step]);
          write_row(sums + from - d, to - from, target + from * step, step);
          for (int64_t j = to; j < q.w; ++j) narrow(A(0), target[j * step]);
        }
      }
    }
  }
}

}  // namespace
}  // namespace pvd_mm
