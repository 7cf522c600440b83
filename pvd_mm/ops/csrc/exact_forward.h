// Copyright (c) PVD-MM contributors. Apache-2.0.
// `exact`, the forward pass.

namespace pvd_mm {
namespace {

// k = 3, padding 1: an output row of CB channels. The window's rows are summed
// first, for each of its columns v and where the input is, so that everything
// is loaded from the same columns j and once. Only these sums are shifted then:
// column v reaches S*j + v - 1.
// With stride 1 what is read next, ahead elements further, is fetched
// meanwhile; with stride 2 that brings nothing.
template <class A, int S, int CB>
void window3(const Problem& q, int64_t first, int64_t last, int64_t rows,
             Block<const A> in, int64_t ahead, const A* votes, int64_t pitch,
             Block<A> out) {
  using V = Vector<A>;
  const int64_t w = q.w, out_w = q.out_w;
  constexpr int64_t n = kLanes<A>;
  V left[CB] = {}, mid[CB] = {}, right[CB] = {};  // of the n columns before j
  for (int64_t j = first - n;; j += n) {
    V sum[3][CB] = {};
    const auto add_rows = [&](auto edge) {
      const A *row = in.data, *vote_row = votes + j;
      for (int64_t a = 0; a < rows; ++a, row += in.row, vote_row += 3 * pitch) {
        const V vote[3] = {load(vote_row), load(vote_row + pitch),
                           load(vote_row + 2 * pitch)};
        PVD_UNROLL
        for (int c = 0; c < CB; ++c) {
          const V value =
              load<decltype(edge)::value>(row + c * in.channel, j, w);
          PVD_UNROLL
          for (int v = 0; v < 3; ++v) sum[v][c] += value * vote[v];
          if (S == 1 && a == 0) PVD_PREFETCH(row + c * in.channel + j + ahead);
        }
      }
    };
    if (j >= 0 && j + n <= w)
      add_rows(std::false_type());
    else if (j >= 0 && j < w)
      add_rows(std::true_type());
    const int64_t x = S * (j - n);
    const auto finish = [&](auto edge) {
      constexpr bool E = decltype(edge)::value;
      PVD_UNROLL
      for (int c = 0; c < CB; ++c) {
        A* to = out.data + c * out.channel;
        const V next = later<A>(left[c], sum[0][c]);
        if (S == 1) {
          store<E>(mid[c] + next, to, x, out_w);
        } else {
          const V odd = right[c] + next;
          store<E>(mixed_low<A>(mid[c], odd), to, x, out_w);
          store<E>(mixed_high<A>(mid[c], odd), to, x + n, out_w);
        }
      }
    };
    if (j > first) {
      if (S * j <= out_w)
        finish(std::false_type());
      else
        finish(std::true_type());
    }
    if (j >= last) return;
    PVD_UNROLL
    for (int c = 0; c < CB; ++c) {
      mid[c] = S == 1 ? sum[1][c] + earlier<A>(right[c], sum[2][c]) : sum[1][c];
      left[c] = sum[0][c];
      right[c] = sum[2][c];
    }
  }
}

// Any k and stride: a pass over the tile per position, clipped to the map.
template <class A>
void window_any(int64_t first, int64_t last, const Problem& q, int64_t rows,
                const A* input, int64_t step, const A* votes, int64_t pitch,
                A* sums, A* output) {
  const int64_t k = q.kernel_size, s = q.stride;
  for (int64_t phase = 0; phase < s; ++phase) {
    const int64_t end = least(last, length_of(phase, q));
    for (int64_t t = first; t < end; ++t) sums[t - first] = 0;
    for (int64_t a = 0; a < rows; ++a) {
      for (int64_t v = (phase + q.padding) % s; v < k; v += s) {
        const int64_t d = (phase + q.padding - v) / s;
        const int64_t from = most(first, -d), to = least(end, q.w - d);
        const A* at = votes + (a * k + v) * pitch + d;
        const A* in = input + a * step + d;
        PVD_IVDEP
        for (int64_t t = from; t < to; ++t) sums[t - first] += in[t] * at[t];
      }
    }
    for (int64_t t = first; t < end; ++t)
      output[s * t + phase] = sums[t - first];
  }
}

template <class T>
void forward_exact(const Problem& q, int64_t begin, int64_t end) {
  using A = typename SumOf<T>::type;
  constexpr int kChannels = Tiling<A>::kChannels;
  const Tiling<A> tiling(q);
  const bool fast = tiling.fast;
  const int64_t tile = tiling.tile, beyond = tiling.beyond;
  const int64_t pitch = tiling.pitch;
  const int64_t k = q.kernel_size, s = q.stride;
  const int64_t each = q.channels / q.groups;
  const int64_t length = ceil_div(q.out_w, s);
  const int64_t max_rows = ceil_div(k, s);
  Scratch<A> scratch((k + kChannels) * max_rows * pitch +
                     (kChannels * s + 1) * tile);
  A* const vote_rows = scratch.take(k * max_rows * pitch);
  A* const input_rows = scratch.take(kChannels * max_rows * pitch);
  A* const output_rows = scratch.take(kChannels * s * tile);
  A* const sums = scratch.take(tile);

  for (int64_t row = begin; row < end; ++row) {
    const int64_t y = row % q.out_h, g = row / q.out_h % q.groups;
    const int64_t n = row / q.out_h / q.groups;
    const Reaching at = reaching(y, q);
    const T* input_map = static_cast<const T*>(q.input) + n * q.input_at.n +
                         g * each * q.input_at.c + at.input_row * q.input_at.h;
    const T* votes_map = static_cast<const T*>(q.votes) + n * q.votes_at.n +
                         (g * k + at.first) * k * q.votes_at.c +
                         at.input_row * q.votes_at.h;
    T* out_map = static_cast<T*>(q.output) + n * q.output_at.n +
                 g * each * q.output_at.c + y * q.output_at.h;

    for (int64_t first = 0; first < length; first += tile) {
      const int64_t last = least(length, first + tile);
      const int64_t j_first = most(0, first - beyond);
      const int64_t j_last = most(j_first, least(q.w, last + beyond));
      const int64_t x_first = s * first, x_last = least(q.out_w, s * last);
      A* const votes = vote_rows + beyond - first;
      for (int64_t a = 0; a < at.count; ++a) {
        for (int64_t v = 0; v < k; ++v) {
          A* to = votes + (a * k + v) * pitch;
          read_row(votes_map + (s * a * k + v) * q.votes_at.c -
                       a * q.votes_at.h + j_first * q.votes_at.w,
                   q.votes_at.w, j_last - j_first, to + j_first);
          store(Vector<A>{}, to + j_last);
        }
      }
      for (int64_t c = 0; c < each; c += kChannels) {
        const int64_t block = least(kChannels, each - c);
        const Block<const A> in =
            block_of(input_map + c * q.input_at.c, q.input_at, -q.input_at.h,
                     block, at.count, j_first, j_last, input_rows, pitch);
        T* const to = out_map + c * q.output_at.c;
        const Block<A> out =
            target_of(to, q.output_at, x_first, output_rows, s * tile);
        if (fast)
          with_constant<kChannels>(block, [&](auto size) {
            constexpr int CB = decltype(size)::value;
            (s == 1 ? window3<A, 1, CB> : window3<A, 2, CB>)(
                q, first, last, at.count, in,
                tiling.ahead(c, each, q.input_at, q.input_at.h), votes, pitch,
                out);
          });
        else
          for (int64_t b = 0; b < block; ++b)
            window_any(first, last, q, at.count, in.data + b * in.channel,
                       in.row, votes, pitch, sums, out.data + b * out.channel);
        write_block(out, block, x_first, x_last, to, q.output_at);
      }
    }
  }
}

}  // namespace
}  // namespace pvd_mm
