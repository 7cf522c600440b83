// Copyright (c) PVD-MM contributors. Apache-2.0.
// `exact` for maps whose channels lie next to each other, both passes.
//
// Vectors lie along the channels here, and a vote is one number for all of
// them. Both passes run over windows of pixels: of output pixel x, with
// x + p = s*(t + d) + v, the input's pixels j = t + d - b that reach it, by
// their votes v + s*b; of input pixel j the output's pixels s*j - p + b. So
// input and output, votes and sums may be laid out as they like: all that
// differs is how far it is to the next row, column and pixel.
//
// The last vector of a pixel ends at its last channel, over the one before it.

namespace pvd_mm {
namespace {

// Windows of the pixels of a row: the steps to a window's next row and next
// column, and to the next pixel's window.
template <class A>
struct Windows {
  const A* data;
  int64_t row, column, pixel;

  PVD_INLINE Windows at(int64_t x, int64_t b) const {
    return {data + x * pixel + b * column, row, column, pixel};
  }
};

// The lanes of the vectors: longer ones were slower, for a pixel seldom starts
// where a cache line does.
template <class A>
constexpr int kWide = least(PVD_VECTOR, 32) / sizeof(A);
template <class A>
constexpr int kNarrow = 16 / sizeof(A);

// call(rows, columns), as constants if both are at most 3, or else zeros.
template <class Call>
PVD_INLINE void with_window(int64_t rows, int64_t columns, const Call& call) {
  constexpr std::integral_constant<int, 0> any{};
  if (rows < 1 || rows > 3 || columns < 1 || columns > 3)
    return call(any, any);
  with_constant<3>(rows, [&](auto r) {
    with_constant<3>(columns, [&](auto c) { call(r, c); });
  });
}

// visit(t, end, b_first, b_last) for all pixels t of [first, last): of those up
// to end the windows' columns [b_first, b_last) are on the map. clip(t) gives
// the columns, and is the same for the inner pixels.
struct Span {
  int64_t first, last;
};
template <class Clip, class Visit>
PVD_INLINE void for_clips(Span pixels, Span inner, const Clip& clip,
                          const Visit& visit) {
  for (int64_t t = pixels.first, end; t < pixels.last; t = end) {
    const bool inside = t >= inner.first && t < inner.last;
    end = inside ? least(inner.last, pixels.last) : t + 1;
    const Span columns = clip(t);
    visit(t, end, columns.first, most(columns.first, columns.last));
  }
}

// ------------------------------------------------------------ window sums

// CB vectors of channels of some pixels: their windows' pixels times the
// weights, summed. last is the last vector's channel.
template <int n, int CB, int ROWS, int COLUMNS, class A>
void weigh_block(int64_t pixels, int64_t rows, int64_t columns, int64_t last,
                 Windows<A> of, Windows<A> weights, A* out, int64_t step) {
  if (ROWS) rows = ROWS, columns = COLUMNS;
  for (int64_t x = 0; x < pixels; ++x) {
    Vector<A, n> sum[CB] = {};
    for (int64_t a = 0; a < rows; ++a) {
      const A* pixel = of.data + a * of.row;
      const A* weight = weights.data + a * weights.row;
      for (int64_t b = 0; b < columns; ++b) {
        PVD_UNROLL
        for (int c = 0; c < CB; ++c)
          sum[c] += load<A, n>(pixel + b * of.column +
                               (c < CB - 1 ? c * n : last)) *
                    weight[b * weights.column];
      }
    }
    PVD_UNROLL
    for (int c = 0; c < CB; ++c)
      store<A, n>(sum[c], out + (c < CB - 1 ? c * n : last));
    of.data += of.pixel;
    weights.data += weights.pixel;
    out += step;
  }
}

template <int n, class A>
void weigh(int64_t pixels, int64_t rows, int64_t columns, int64_t each,
           Windows<A> of, Windows<A> weights, A* out, int64_t step) {
  constexpr int kBlock = 4;
  for (int64_t first = 0; first < each; first += kBlock * n)
    with_constant<kBlock>(ceil_div(each - first, n), [&](auto vectors) {
      constexpr int CB = decltype(vectors)::value;
      with_window(rows, columns, [&](auto r, auto c) {
        weigh_block<n, CB, decltype(r)::value, decltype(c)::value>(
            pixels, rows, columns, least((CB - 1) * n, each - n - first),
            Windows<A>{of.data + first, of.row, of.column, of.pixel}, weights,
            out + first, step);
      });
    });
}

// ---------------------------------------------------------- window products

// Lane i is the sum of vector i's lanes.
template <class A, int n, int count = n>
PVD_INLINE Vector<A, n> lane_sums(const Vector<A, n>* of) {
  if constexpr (count == 1) {
    return of[0];
  } else {
    const auto low = lane_sums<A, n, count / 2>(of);
    const auto high = lane_sums<A, n, count / 2>(of + count / 2);
    constexpr int m = 16 / sizeof(A);
    if constexpr (count <= m)
      return inner_evens<A, n>(low, high) + inner_odds<A, n>(low, high);
    else
      return block_evens<A, n>(low, high) + block_odds<A, n>(low, high);
  }
}

// n zeros, and n times all bits.
template <class Bits, int n>
struct Masks {
  Bits of[2 * n] = {};
  constexpr Masks() {
    for (int i = n; i < 2 * n; ++i) of[i] = -1;
  }
};

// The products, summed over the channels, of pixels with the ROWS x COLUMNS
// pixels of their windows: pixel x's with row a and column b goes to
// sums[(a*k + b)*pitch + x].
template <int n, int ROWS, int COLUMNS, class A>
void multiply_block(int64_t pixels, int64_t each, Windows<A> of,
                    const A* pixel, int64_t step, A* sums, int64_t k,
                    int64_t pitch) {
  using V = Vector<A, n>;
  using Bits = Vector<BitsOf<A>, n>;
  // the lanes of the last vector that the one before it does not have
  static constexpr Masks<BitsOf<A>, n> masks;
  const int64_t rest = each % n;
  const Bits fresh = load<BitsOf<A>, n>(masks.of + rest);
  V products[ROWS * COLUMNS][n] = {};
  for (int64_t x = 0; x < pixels; ++x) {
    V sum[ROWS][COLUMNS] = {};
    for (int64_t c = 0; c + n <= each; c += n) {
      const V value = load<A, n>(pixel + c);
      PVD_UNROLL
      for (int a = 0; a < ROWS; ++a) {
        PVD_UNROLL
        for (int b = 0; b < COLUMNS; ++b)
          sum[a][b] +=
              value * load<A, n>(of.data + a * of.row + b * of.column + c);
      }
    }
    if (rest > 0) {
      const int64_t c = each - n;
      const V value = load<A, n>(pixel + c);
      PVD_UNROLL
      for (int a = 0; a < ROWS; ++a) {
        PVD_UNROLL
        for (int b = 0; b < COLUMNS; ++b) {
          const V product =
              value * load<A, n>(of.data + a * of.row + b * of.column + c);
          sum[a][b] += (V)((Bits)product & fresh);
        }
      }
    }
    const int lane = x % n;
    PVD_UNROLL
    for (int a = 0; a < ROWS; ++a) {
      PVD_UNROLL
      for (int b = 0; b < COLUMNS; ++b)
        products[a * COLUMNS + b][lane] = sum[a][b];
    }
    of.data += of.pixel;
    pixel += step;
    if (lane < n - 1 && x < pixels - 1) continue;
    for (int a = 0; a < ROWS; ++a)
      for (int b = 0; b < COLUMNS; ++b) {
        const V all = lane_sums<A, n>(products[a * COLUMNS + b]);
        A* to = sums + (a * k + b) * pitch + x - lane;
        if (lane == n - 1)
          store<A, n>(all, to);
        else
          for (int i = 0; i <= lane; ++i) to[i] = all[i];
      }
  }
}

template <int n, class A>
void multiply(int64_t pixels, int64_t rows, int64_t columns, int64_t each,
              Windows<A> of, const A* pixel, int64_t step, A* sums, int64_t k,
              int64_t pitch) {
  constexpr int kBlock = 3;
  for (int64_t a = 0; a < rows; a += kBlock)
    for (int64_t b = 0; b < columns; b += kBlock)
      with_constant<kBlock>(rows - a, [&](auto r) {
        with_constant<kBlock>(columns - b, [&](auto c) {
          Windows<A> part = of.at(0, b);
          part.data += a * of.row;
          multiply_block<n, decltype(r)::value, decltype(c)::value>(
              pixels, each, part, pixel, step, sums + (a * k + b) * pitch, k,
              pitch);
        });
      });
}

// ------------------------------------------------------------------- pixels

// Columns at once, so many that a window's rows of them stay in the L2 cache.
PVD_INLINE int64_t columns_at_once(int64_t each) {
  return most(16, least(256, 8192 / each / 16 * 16));
}

template <class T, class A>
PVD_INLINE void read_pixels(const T* row, const Strides& at, int64_t each,
                            int64_t first, int64_t last, A* to) {
  if (at.c == 1 && at.w == each)
    return read_row(row + first * at.w, 1, (last - first) * each, to);
  for (int64_t j = first; j < last; ++j, to += each)
    read_row(row + j * at.w, at.c, each, to);
}
template <class T, class A>
PVD_INLINE void write_pixels(const A* from, int64_t each, int64_t first,
                             int64_t last, T* row, const Strides& at) {
  if (at.c == 1 && at.w == each)
    return write_row(from, (last - first) * each, row + first * at.w, 1);
  for (int64_t j = first; j < last; ++j, from += each)
    write_row(from, each, row + j * at.w, at.c);
}

// Pixels of columns [first, last) of some rows of a map, down elements apart:
// copied unless they can be read as they are. Column 0 is where data is.
template <class T, class A>
PVD_INLINE Windows<A> pixels_of(const T* map, const Strides& at, int64_t down,
                                int64_t each, int64_t rows, int64_t first,
                                int64_t last, A* scratch) {
  if (plain<T, A>(at.c))
    return {reinterpret_cast<const A*>(map), down, at.w, at.w};
  const int64_t row = most(0, last - first) * each;
  for (int64_t a = 0; a < rows && row > 0; ++a)
    read_pixels(map + a * down, at, each, first, last, scratch + a * row);
  return {scratch - first * each, row, each, each};
}

// The same of single numbers, of k channels next to each other: column v of a
// window is channel v.
template <class T, class A>
PVD_INLINE Windows<A> votes_of(const T* map, const Strides& at, int64_t down,
                               int64_t k, int64_t rows, int64_t first,
                               int64_t last, A* scratch) {
  if (std::is_same<T, A>::value)
    return {reinterpret_cast<const A*>(map), down, at.c, at.w};
  const int64_t row = most(0, last - first);
  for (int64_t a = 0; a < rows && row > 0; ++a)
    for (int64_t v = 0; v < k; ++v)
      read_row(map + a * down + v * at.c + first * at.w, at.w, row,
               scratch + (a * k + v) * row);
  return {scratch - first, k * row, row, 1};
}

// ------------------------------------------------------------------- passes

// Rows [begin, end) of N x H'.
template <class T>
void forward_channels_last(const Problem& q, int64_t begin, int64_t end) {
  using A = typename SumOf<T>::type;
  const int64_t k = q.kernel_size, s = q.stride, p = q.padding;
  const int64_t each = q.channels / q.groups;
  const int64_t length = ceil_div(q.out_w, s), max_rows = ceil_div(k, s);
  const int64_t tile = columns_at_once(each), beyond = (k + p) / s + 1;
  const int64_t wide = tile + 2 * beyond;
  const bool direct = plain<T, A>(q.output_at.c);
  const int64_t input_size = plain<T, A>(q.input_at.c) ? 0 : each;
  const int64_t vote_size = std::is_same<T, A>::value ? 0 : k;
  const int64_t output_size = direct ? 0 : s * tile * each;
  Scratch<A> scratch(max_rows * wide * (input_size + vote_size) + output_size);
  A* const input_rows = scratch.take(max_rows * wide * input_size);
  A* const vote_rows = scratch.take(max_rows * wide * vote_size);
  A* const output_row = scratch.take(output_size);

  for (int64_t row = begin; row < end; ++row) {
    const int64_t y = row % q.out_h, n = row / q.out_h;
    const Reaching at = reaching(y, q);
    const T* input_map = static_cast<const T*>(q.input) + n * q.input_at.n +
                         at.input_row * q.input_at.h;
    const T* votes_map = static_cast<const T*>(q.votes) + n * q.votes_at.n +
                         at.first * k * q.votes_at.c +
                         at.input_row * q.votes_at.h;
    T* output_map = static_cast<T*>(q.output) + n * q.output_at.n +
                    y * q.output_at.h;

    for (int64_t first = 0; first < length; first += tile) {
      const int64_t last = least(length, first + tile);
      const int64_t j_first = most(0, first - beyond);
      const int64_t j_last = least(q.w, last + beyond);
      const int64_t x_first = s * first, x_last = least(q.out_w, s * last);
      for (int64_t g = 0; g < q.groups; ++g) {
        const Windows<A> in =
            pixels_of(input_map + g * each * q.input_at.c, q.input_at,
                      -q.input_at.h, each, at.count, j_first, j_last,
                      input_rows);
        const Windows<A> votes =
            votes_of(votes_map + g * k * k * q.votes_at.c, q.votes_at,
                     s * k * q.votes_at.c - q.votes_at.h, k, at.count, j_first,
                     j_last, vote_rows);
        T* const to = output_map + g * each * q.output_at.c;
        A* const out =
            direct ? reinterpret_cast<A*>(to) : output_row - x_first * each;
        const int64_t step = direct ? q.output_at.w : each;

        for (int64_t phase = 0; phase < s; ++phase) {
          const int64_t v = (phase + p) % s, d = (phase + p) / s;
          const int64_t columns = v < k ? (k - 1 - v) / s + 1 : 0;
          const Windows<A> pixels = {in.data, in.row, -in.column, in.pixel};
          const Windows<A> weights = {votes.data + v * votes.column, votes.row,
                                      s * votes.column - votes.pixel,
                                      votes.pixel};
          for_clips(
              {first, least(last, length_of(phase, q))},
              {columns - 1 - d, q.w - d},
              [&](int64_t t) -> Span {
                return {most(0, t + d - q.w + 1), least(columns, t + d + 1)};
              },
              [&](int64_t t, int64_t end, int64_t b, int64_t b_last) {
                (each < kWide<A> ? weigh<kNarrow<A>, A> : weigh<kWide<A>, A>)(
                    end - t, at.count, b_last - b, each, pixels.at(t + d, b),
                    weights.at(t + d, b), out + (s * t + phase) * step,
                    s * step);
              });
        }
        if (!direct)
          write_pixels(out + x_first * each, each, x_first, x_last, to,
                       q.output_at);
      }
    }
  }
}

// Rows [begin, end) of N x H.
template <class T>
void backward_channels_last(const Problem& q, int64_t begin, int64_t end) {
  using A = typename SumOf<T>::type;
  const int64_t k = q.kernel_size, s = q.stride, p = q.padding;
  const int64_t each = q.channels / q.groups;
  const int64_t tile = columns_at_once(each), wide = s * tile + k;
  const bool for_input = q.grad_input, for_votes = q.grad_votes;
  const bool direct = plain<T, A>(q.grad_input_at.c);
  const int64_t grad_size = plain<T, A>(q.grad_at.c) ? 0 : k * wide * each;
  const int64_t input_size = plain<T, A>(q.input_at.c) ? 0 : tile * each;
  const int64_t vote_size = std::is_same<T, A>::value ? 0 : k * k * tile;
  const int64_t output_size = direct ? 0 : tile * each;
  Scratch<A> scratch(k * k * tile + grad_size + input_size + vote_size +
                     output_size);
  A* const sum_rows = scratch.take(k * k * tile);
  A* const grad_rows = scratch.take(grad_size);
  A* const input_row = scratch.take(input_size);
  A* const vote_rows = scratch.take(vote_size);
  A* const output_row = scratch.take(output_size);

  for (int64_t row = begin; row < end; ++row) {
    const int64_t i = row % q.h, n = row / q.h;
    // the window's rows that are in the output
    const int64_t top = s * i - p;
    const int64_t u_first = least(k, most(0, -top));
    const int64_t rows = most(0, least(k, q.out_h - top) - u_first);
    const T* input_map = static_cast<const T*>(q.input) + n * q.input_at.n +
                         i * q.input_at.h;
    const T* votes_map = static_cast<const T*>(q.votes) + n * q.votes_at.n +
                         u_first * k * q.votes_at.c + i * q.votes_at.h;
    const T* grad_map = static_cast<const T*>(q.grad) + n * q.grad_at.n +
                        (top + u_first) * q.grad_at.h;

    for (int64_t first = 0; first < q.w; first += tile) {
      const int64_t last = least(q.w, first + tile);
      const int64_t x_first = most(0, s * first - p);
      const int64_t x_last = least(q.out_w, s * (last - 1) - p + k);
      for (int64_t g = 0; g < q.groups; ++g) {
        const Windows<A> grad =
            pixels_of(grad_map + g * each * q.grad_at.c, q.grad_at, q.grad_at.h,
                      each, rows, x_first, x_last, grad_rows);
        const Windows<A> windows = {grad.data - p * grad.pixel, grad.row,
                                    grad.column, s * grad.pixel};
        const Span inner = {ceil_div(p, s), ceil_div(q.out_w + p - k + 1, s)};
        const auto clip = [&](int64_t j) -> Span {
          return {most(0, p - s * j), least(k, q.out_w + p - s * j)};
        };
        if (for_input) {
          const Windows<A> votes =
              votes_of(votes_map + g * k * k * q.votes_at.c, q.votes_at,
                       k * q.votes_at.c, k, rows, first, last, vote_rows);
          T* const to =
              part_of<T>(q.grad_input, n, g * each, i, q.grad_input_at);
          A* const out =
              direct ? reinterpret_cast<A*>(to) : output_row - first * each;
          const int64_t step = direct ? q.grad_input_at.w : each;
          for_clips({first, last}, inner, clip,
                    [&](int64_t j, int64_t end, int64_t b, int64_t b_last) {
                      weigh<kWide<A>>(end - j, rows, b_last - b, each,
                                      windows.at(j, b), votes.at(j, b),
                                      out + j * step, step);
                    });
          if (!direct)
            write_pixels(output_row, each, first, last, to, q.grad_input_at);
        }
        if (!for_votes) continue;
        const Windows<A> in =
            pixels_of(input_map + g * each * q.input_at.c, q.input_at, 0, each,
                      1, first, last, input_row);
        if (first < inner.first || last > inner.last)
          std::memset(sum_rows, 0, sizeof(A) * rows * k * tile);
        for_clips({first, last}, inner, clip,
                  [&](int64_t j, int64_t end, int64_t b, int64_t b_last) {
                    multiply<kWide<A>>(end - j, rows, b_last - b, each,
                                       windows.at(j, b),
                                       in.data + j * in.pixel, in.pixel,
                                       sum_rows + b * tile + j - first, k,
                                       tile);
                  });
        write_votes(q, u_first, rows, sum_rows - first, tile, first, last,
                    part_of<T>(q.grad_votes, n, g * k * k, i, q.grad_votes_at));
      }
    }
  }
}

}  // namespace
}  // namespace pvd_mm
