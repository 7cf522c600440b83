// Copyright (c) PVD-MM contributors. Apache-2.0.
// `exact`, the backward pass.

namespace pvd_mm {
namespace {

// k = 3, padding 1: a row of the gradients of CB channels' input, and on top of
// the sums so far that of the votes. Votes for what is not in the output must
// be zero; their sums are worth nothing.
template <class A, int S, int CB, bool INPUT, bool VOTES>
void adjoint3(const Problem& q, int64_t first, int64_t last, int64_t rows,
              Block<const A> grad, int64_t grad_ahead,
              Block<const A> in, int64_t in_ahead, const A* votes, A* sums,
              int64_t pitch, Block<A> out) {
  using V = Vector<A>;
  const int64_t w = q.w, out_w = q.out_w;
  constexpr int64_t n = kLanes<A>;
  const auto columns = [&](int64_t j, auto edge) {
    constexpr bool E = decltype(edge)::value;
    V pixel[CB], sum[CB] = {};
    PVD_UNROLL
    for (int c = 0; c < CB; ++c) {
      const A* row = in.data + c * in.channel;
      if (VOTES) pixel[c] = load<E>(row, j, w);
      if (VOTES && S == 1) PVD_PREFETCH(row + j + in_ahead);
    }
    for (int64_t a = 0; a < rows; ++a) {
      const int64_t at = a * 3 * pitch + j;
      V vote[3], total[3];
      PVD_UNROLL
      for (int v = 0; v < 3; ++v) {
        if (INPUT) vote[v] = load(votes + at + v * pitch);
        if (VOTES) total[v] = load(sums + at + v * pitch);
      }
      PVD_UNROLL
      for (int c = 0; c < CB; ++c) {
        const A* of = grad.data + c * grad.channel + a * grad.row;
        if (S == 1 && a == rows - 1) PVD_PREFETCH(of + j + grad_ahead);
        const int64_t x = S * j;
        const V before = load<E>(of, x - n, out_w);
        const V low = load<E>(of, x, out_w);
        const V high = load<E>(of, x + n, out_w);
        V g[3];
        if (S == 1) {
          g[0] = earlier<A>(before, low);
          g[1] = low;
          g[2] = later<A>(low, high);
        } else {
          g[1] = evens<A>(low, high);
          g[2] = odds<A>(low, high);
          g[0] = earlier<A>(before, g[2]);
        }
        PVD_UNROLL
        for (int v = 0; v < 3; ++v) {
          if (INPUT) sum[c] += g[v] * vote[v];
          if (VOTES) total[v] += g[v] * pixel[c];
        }
      }
      PVD_UNROLL
      for (int v = 0; v < 3; ++v)
        if (VOTES) store(total[v], sums + at + v * pitch);
    }
    PVD_UNROLL
    for (int c = 0; c < CB; ++c)
      if (INPUT) store<E>(sum[c], out.data + c * out.channel, j, w);
  };
  for (int64_t j = first; j < last; j += n) {
    if (j > 0 && S * j + 2 * n <= out_w)
      columns(j, std::false_type());
    else
      columns(j, std::true_type());
  }
}

// Any k and stride: a pass over columns [first, last) per position, clipped to
// the output. Adds to both gradients.
template <class A>
void adjoint_any(int64_t first, int64_t last, const Problem& q, int64_t rows,
                 const A* grad, int64_t step, const A* input, const A* votes,
                 int64_t pitch, A* grad_input, A* grad_votes) {
  const int64_t k = q.kernel_size, s = q.stride;
  for (int64_t a = 0; a < rows; ++a) {
    for (int64_t v = 0; v < k; ++v) {
      const int64_t x = v - q.padding;  // + s*j
      const int64_t from = most(first, ceil_div(-x, s));
      const int64_t to = least(last, ceil_div(q.out_w - x, s));
      if (from >= to) continue;
      const A* of = grad + a * step + x;
      const int64_t at = (a * k + v) * pitch;
      if (grad_input) {
        PVD_IVDEP
        for (int64_t j = from; j < to; ++j)
          grad_input[j] += of[s * j] * votes[at + j];
      }
      if (grad_votes) {
        PVD_IVDEP
        for (int64_t j = from; j < to; ++j)
          grad_votes[at + j] += of[s * j] * input[j];
      }
    }
  }
}

// Columns [first, last) of a row of the votes' gradients. Window rows that are
// not in the output, before u_first and after the sums' rows, have none.
template <class T, class A>
void write_votes(const Problem& q, int64_t u_first, int64_t rows,
                 const A* sums, int64_t pitch, int64_t first, int64_t last,
                 T* row) {
  const int64_t k = q.kernel_size, step = q.grad_votes_at.w;
  for (int64_t at = 0; at < k * k; ++at) {
    T* to = row + at * q.grad_votes_at.c + first * step;
    const int64_t a = at / k - u_first;
    if (a >= 0 && a < rows)
      write_row(sums + (at - u_first * k) * pitch + first, last - first, to,
                step);
    else
      for (int64_t j = 0; j < last - first; ++j) narrow(A(0), to[j * step]);
  }
}

template <class T>
void backward_exact(const Problem& q, int64_t begin, int64_t end) {
  using A = typename SumOf<T>::type;
  constexpr int kChannels = Tiling<A>::kChannels;
  const Tiling<A> tiling(q);
  const bool fast = tiling.fast;
  const int64_t tile = tiling.tile, beyond = tiling.beyond;
  const int64_t pitch = tiling.pitch;
  const int64_t k = q.kernel_size, s = q.stride, p = q.padding;
  const int64_t each = q.channels / q.groups;
  const int64_t wide = s * tile + 2 * beyond + k;
  const bool for_input = q.grad_input, for_votes = q.grad_votes;
  Scratch<A> scratch(2 * k * k * pitch + kChannels * (k * wide + 2 * pitch));
  A* const vote_rows = scratch.take(k * k * pitch);
  A* const sum_rows = scratch.take(k * k * pitch);
  A* const grad_rows = scratch.take(kChannels * k * wide);
  A* const input_rows = scratch.take(kChannels * pitch);
  A* const output_rows = scratch.take(kChannels * pitch);

  for (int64_t row = begin; row < end; ++row) {
    const int64_t i = row % q.h, g = row / q.h % q.groups;
    const int64_t n = row / q.h / q.groups;
    // the window's rows that are in the output
    const int64_t top = s * i - p;
    const int64_t u_first = least(k, most(0, -top));
    const int64_t rows = most(0, least(k, q.out_h - top) - u_first);
    const T* input_map = static_cast<const T*>(q.input) + n * q.input_at.n +
                         g * each * q.input_at.c + i * q.input_at.h;
    const T* votes_map = static_cast<const T*>(q.votes) + n * q.votes_at.n +
                         (g * k + u_first) * k * q.votes_at.c +
                         i * q.votes_at.h;
    const T* grad_map = static_cast<const T*>(q.grad) + n * q.grad_at.n +
                        g * each * q.grad_at.c +
                        (top + u_first) * q.grad_at.h;
    T* out_map = part_of<T>(q.grad_input, n, g * each, i, q.grad_input_at);
    T* out_votes = part_of<T>(q.grad_votes, n, g * k * k, i, q.grad_votes_at);

    for (int64_t first = 0; first < q.w; first += tile) {
      const int64_t last = least(q.w, first + tile);
      A* const votes = vote_rows - first;
      A* const sums = for_votes ? sum_rows - first : nullptr;
      for (int64_t at = 0; at < rows * k; ++at) {
        if (for_input)
          read_row(votes_map + at * q.votes_at.c + first * q.votes_at.w,
                   q.votes_at.w, last - first, votes + at * pitch + first);
        for (int64_t j = first; for_votes && j < last; ++j)
          sums[at * pitch + j] = 0;
      }
      // no vote leaves the output, on whose other side there may be anything
      const auto clear_outside = [&](A* of) {
        for (int64_t a = 0; a < rows; ++a) {
          if (first == 0) of[a * 3 * pitch] = 0;
          if (s * (last - 1) + 1 >= q.out_w)
            of[(a * 3 + 2) * pitch + last - 1] = 0;
        }
      };
      if (fast && for_input) clear_outside(votes);
      const int64_t x_first = most(0, s * first - p - beyond);
      const int64_t x_last = least(q.out_w, s * last - p + k + beyond);

      for (int64_t c = 0; c < each; c += kChannels) {
        const int64_t block = least(kChannels, each - c);
        const Block<const A> grad =
            block_of(grad_map + c * q.grad_at.c, q.grad_at, q.grad_at.h, block,
                     rows, x_first, x_last, grad_rows, wide);
        Block<const A> in = {};
        if (for_votes)
          in = block_of(input_map + c * q.input_at.c, q.input_at, 0, block, 1,
                        first, last, input_rows, pitch);
        T* const to = for_input ? out_map + c * q.grad_input_at.c : nullptr;
        const Block<A> out =
            target_of(to, q.grad_input_at, first, output_rows, pitch);
        if (fast) {
          with_constant<kChannels>(block, [&](auto size) {
            constexpr int CB = decltype(size)::value;
            const auto run = [&](auto by_input, auto by_votes) {
              constexpr bool M = decltype(by_input)::value;
              constexpr bool V = decltype(by_votes)::value;
              (s == 1 ? adjoint3<A, 1, CB, M, V> : adjoint3<A, 2, CB, M, V>)(
                  q, first, last, rows, grad,
                  tiling.ahead(c, each, q.grad_at, s * q.grad_at.h), in,
                  tiling.ahead(c, each, q.input_at, q.input_at.h), votes, sums,
                  pitch, out);
            };
            if (!for_votes)
              run(std::true_type(), std::false_type());
            else if (!for_input)
              run(std::false_type(), std::true_type());
            else
              run(std::true_type(), std::true_type());
          });
        } else {
          for (int64_t b = 0; b < block; ++b) {
            A* output = for_input ? out.data + b * out.channel : nullptr;
            for (int64_t j = first; for_input && j < last; ++j) output[j] = 0;
            adjoint_any(first, last, q, rows, grad.data + b * grad.channel,
                        grad.row, in.data + b * in.channel, votes, pitch,
                        output, sums);
          }
        }
        if (for_input)
          write_block(out, block, first, last, to, q.grad_input_at);
      }
      if (!for_votes) continue;
      if (fast) clear_outside(sums);
      write_votes(q, u_first, rows, sums, pitch, first, last, out_votes);
    }
  }
}

}  // namespace
}  // namespace pvd_mm
