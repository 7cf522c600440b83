// Copyright (c) PVD-MM contributors. Apache-2.0.
// The kernels. Included once for each instruction set, hence no guard; all
// but PVD_KERNELS is in a namespace without a name.
//
// Everything is a gather: a row of the result is summed by one thread, from
// tiles of rows that stay in the L1 cache. A window's column v reaches output
// column s*j + v - p: of the s column phases r = x mod s of the output it is in
// one, (v - p) mod s, and there, with x = s*t + r, it is a plain shift,
//     j = t + d,   d = (r + p - v) / s   (exact).
// So every inner loop runs over t (or j) with unit stride on the input's
// side. Positions outside of a map are never touched, not even times zero:
// they could hold inf or NaN. Rows are converted, and brought together where
// they are strided, a tile at a time; half and bfloat16 are summed in float.

namespace pvd_mm {
namespace {

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

template <class T>
struct SumOf {
  using type = float;
};
template <>
struct SumOf<double> {
  using type = double;
};

PVD_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
PVD_INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
PVD_INLINE int64_t ceil_div(int64_t a, int64_t b) {  // b > 0
  return a / b + (a % b > 0);
}
PVD_INLINE int64_t floor_div(int64_t a, int64_t b) {
  return a / b - (a % b < 0);
}
PVD_INLINE int64_t modulo(int64_t a, int64_t b) {
  return a - floor_div(a, b) * b;
}

// ---------------------------------------------------------------- numbers

PVD_INLINE uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}
PVD_INLINE float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

PVD_INLINE float widen(float value) { return value; }
PVD_INLINE double widen(double value) { return value; }
PVD_INLINE float widen(BFloat16 value) {
  return float_of(static_cast<uint32_t>(value.bits) << 16);
}
// Without a branch and without the hardware's conversion, so that the
// compiler can vectorise it everywhere.
PVD_INLINE float widen(Half value) {
  const uint32_t magnitude = (value.bits & 0x7fffu) << 13;
  const uint32_t exponent = magnitude & 0x0f800000u;
  const uint32_t normal = magnitude + (112u << 23);
  const uint32_t special = magnitude + (224u << 23);  // inf and NaN
  const float subnormal =
      float_of(magnitude + (113u << 23)) - float_of(113u << 23);
  uint32_t bits = exponent == 0x0f800000u ? special : normal;
  bits = exponent == 0 ? bits_of(subnormal) : bits;
  return float_of(bits | (value.bits & 0x8000u) << 16);
}

PVD_INLINE void narrow(float value, float& to) { to = value; }
PVD_INLINE void narrow(double value, double& to) { to = value; }
PVD_INLINE void narrow(float value, BFloat16& to) {
  const uint32_t bits = bits_of(value);
  const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
  to.bits = static_cast<uint16_t>(
      (bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);
}
PVD_INLINE void narrow(float value, Half& to) {
  const uint32_t sign = bits_of(value) & 0x80000000u;
  const uint32_t bits = bits_of(value) ^ sign;
  const uint32_t normal = (bits - (112u << 23) + 0xfffu + (bits >> 13 & 1)) >> 13;
  const uint32_t special = bits > 0x7f800000u ? 0x7e00u : 0x7c00u;
  // adding 0.5 rounds to the subnormals' step
  const uint32_t subnormal =
      bits_of(float_of(bits) + float_of(126u << 23)) - (126u << 23);
  uint32_t rounded = bits >= (143u << 23) ? special : normal;
  rounded = bits < (113u << 23) ? subnormal : rounded;
  to.bits = static_cast<uint16_t>(rounded | sign >> 16);
}

// ------------------------------------------------------------------- rows

template <class A>
class Scratch {
 public:
  explicit Scratch(int64_t size)
      : raw_(std::malloc(sizeof(A) * (size > 0 ? size : 1) + 64)) {
    if (!raw_) throw std::bad_alloc();
    const auto address = reinterpret_cast<uintptr_t>(raw_);
    data_ = reinterpret_cast<A*>((address + 63) & ~uintptr_t(63));
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { std::free(raw_); }
  A* take(int64_t size) {
    A* part = data_;
    data_ += size;
    return part;
  }

 private:
  void* raw_;
  A* data_;
};

template <class T, class A>
PVD_INLINE void read_row(const T* from, int64_t step, int64_t size, A* to) {
  if (step == 1) {
    PVD_IVDEP
    for (int64_t x = 0; x < size; ++x) to[x] = widen(from[x]);
  } else {
    for (int64_t x = 0; x < size; ++x) to[x] = widen(from[x * step]);
  }
}

template <class T, class A>
PVD_INLINE void write_row(const A* from, int64_t size, T* to, int64_t step) {
  if (step == 1) {
    PVD_IVDEP
    for (int64_t x = 0; x < size; ++x) narrow(from[x], to[x]);
  } else {
    for (int64_t x = 0; x < size; ++x) narrow(from[x], to[x * step]);
  }
}

// A row of T that can be read as it is, without a copy?
template <class T, class A>
PVD_INLINE bool plain(int64_t step) {
  return std::is_same<T, A>::value && step == 1;
}

// A pointer whose element x is the row's, for first <= x < last.
template <class T, class A>
PVD_INLINE const A* row_of(const T* row, int64_t step, int64_t first,
                           int64_t last, A* scratch) {
  if (plain<T, A>(step)) return reinterpret_cast<const A*>(row);
  if (first < last)
    read_row(row + first * step, step, last - first, scratch);
  return scratch - first;
}

// The rows that are wanted next, fetched while others are at work: planes lie
// far apart, and the hardware only guesses within a row.
struct Ahead {
  struct {
    const char* row;
    int64_t pitch;  // bytes per column
  } stream[8];
  int count = 0;

  // pitch columns-of-T wide; rows that are not dense are left alone
  template <class T>
  PVD_INLINE void add(const T* row, int64_t step, int64_t columns = 1) {
    if (step != 1 || count == 8) return;
    stream[count].row = reinterpret_cast<const char*>(row);
    stream[count++].pitch = sizeof(T) * columns;
  }
  // Columns [t, t + kStrip), in lines of 64 bytes.
  PVD_INLINE void fetch(int64_t t) const {
    for (int i = 0; i < count; ++i) {
      const char* at = stream[i].row + t * stream[i].pitch;
      for (int64_t line = 0; line < stream[i].pitch; ++line)
        PVD_PREFETCH(at + line * 64);
    }
  }
};
constexpr int kStrip = 64;

// A row of a gradient, or null where that is not wanted.
template <class T>
PVD_INLINE T* part_of(void* data, int64_t n, int64_t c, int64_t y,
                      const Strides& at) {
  if (!data) return nullptr;
  return static_cast<T*>(data) + n * at.n + c * at.c + y * at.h;
}

// ------------------------------------------- the windows that reach a row

// Of output row y: window rows u and input rows i, u ascending.
struct Reaching {
  int64_t first, count, input_row;  // u = first + s*a, i = input_row - a
};

PVD_INLINE Reaching reaching(int64_t y, const Problem& q) {
  const int64_t s = q.stride;
  const int64_t first = (y + q.padding) % s;
  const int64_t row = (y + q.padding) / s;
  // a from skip on has i < h, a up to row has i >= 0
  const int64_t skip = most(0, row - (q.h - 1));
  const int64_t last = least(row, (q.kernel_size - 1 - first) / s);
  if (first >= q.kernel_size || skip > last) return {0, 0, 0};
  return {first + s * skip, last - skip + 1, row - skip};
}

PVD_INLINE int64_t phase_of(int64_t v, const Problem& q) {
  return modulo(v - q.padding, q.stride);
}
PVD_INLINE int64_t shift_of(int64_t v, const Problem& q) {
  return (phase_of(v, q) + q.padding - v) / q.stride;  // exact
}
// How many t there are in a column phase.
PVD_INLINE int64_t length_of(int64_t phase, const Problem& q) {
  return phase < q.out_w ? (q.out_w - phase + q.stride - 1) / q.stride : 0;
}

// ----------------------------------------------------------- exact, forward

// Columns of a tile, where k = 3: nine rows of votes are 9 or 18 KiB.
constexpr int64_t kTile = 256;
// From one of these rows to the next: the tile may start anywhere in its first
// vector, so that the vectors of the map's inside are aligned.
constexpr int64_t kPitch = kTile + 16;

PVD_INLINE int64_t aligning(int64_t columns) { return (16 - columns % 16) % 16; }

// What is done to columns is written as WIDTH columns from t on, which is one
// or two vectors; cover() and partition() fill a range with such pieces.
//
// Pieces that may overlap: the last one is shifted back to end at last.
template <class Piece>
PVD_INLINE void cover(int64_t first, int64_t last, const Ahead& ahead,
                      const Piece& piece) {
  const int64_t size = last - first;
  for (; first + kStrip <= last; first += kStrip) {
    ahead.fetch(first);
    for (int i = 0; i < kStrip; i += 16) piece.template run<16>(first + i);
  }
  for (; first + 16 <= last; first += 16) piece.template run<16>(first);
  if (first == last) return;
  if (size >= 16) {
    piece.template run<16>(last - 16);
  } else if (size >= 8) {
    piece.template run<8>(first);
    piece.template run<8>(last - 8);
  } else if (size >= 4) {
    piece.template run<4>(first);
    piece.template run<4>(last - 4);
  } else {
    for (; first < last; ++first) piece.template run<1>(first);
  }
}

// Pieces that add to something: each column once.
template <class Piece>
PVD_INLINE void partition(int64_t first, int64_t last, const Ahead& ahead,
                          const Piece& piece) {
  for (; first + kStrip <= last; first += kStrip) {
    ahead.fetch(first);
    for (int i = 0; i < kStrip; i += 16) piece.template run<16>(first + i);
  }
  for (; first + 16 <= last; first += 16) piece.template run<16>(first);
  if (first + 8 <= last) {
    piece.template run<8>(first);
    first += 8;
  }
  if (first + 4 <= last) {
    piece.template run<4>(first);
    first += 4;
  }
  for (; first < last; ++first) piece.template run<1>(first);
}

#ifdef PVD_AVX512
// row[S*i + v] for v = 0, 1, 2 and 16 columns i, as vectors. Loading each of
// them where it lies would cross a cache line every time. (The masks, all ones,
// keep GCC from warning of its own headers.)
template <int S>
struct Triple {
  __m512 at[3];

  PVD_INLINE explicit Triple(const float* row) {
    const __m512i low = _mm512_loadu_si512(row);
    if (S == 1) {
      const __m512i high = _mm512_maskz_loadu_epi32(3, row + 16);
      at[0] = _mm512_castsi512_ps(low);
      at[1] = after<1>(low, high);
      at[2] = after<2>(low, high);
    } else {
      const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14,
                                            12, 10, 8, 6, 4, 2, 0);
      const __m512i odd = _mm512_or_si512(even, _mm512_set1_epi32(1));
      const __m512i mid = _mm512_loadu_si512(row + 16);
      const __m512i high = _mm512_maskz_loadu_epi32(1, row + 32);
      const __m512i evens = _mm512_permutex2var_epi32(low, even, mid);
      at[0] = _mm512_castsi512_ps(evens);
      at[1] = _mm512_castsi512_ps(_mm512_permutex2var_epi32(low, odd, mid));
      at[2] = after<1>(evens, high);
    }
  }
  template <int COLUMNS>
  static PVD_INLINE __m512 after(__m512i low, __m512i high) {
    return _mm512_castsi512_ps(
        _mm512_maskz_alignr_epi32(0xffff, high, low, COLUMNS));
  }
};
#endif

// Stride 1: out[t] = sum over the window, for CB channels at once; in is
// shifted so that column v of the window is at t - v.
template <class A, int NU, int CB>
struct Window1 {
  const A* in[CB][NU];
  const A* votes;
  A* out[CB];

  PVD_INLINE Window1(const A* const* input, const A* votes, A* const* output)
      : votes(votes) {
    for (int c = 0; c < CB; ++c) {
      out[c] = output[c];
      for (int a = 0; a < NU; ++a) in[c][a] = input[c * NU + a];
    }
  }
#ifdef PVD_AVX512
  PVD_INLINE void run16(int64_t first) const {
    __m512 sum[CB];
    PVD_UNROLL
    for (int c = 0; c < CB; ++c) sum[c] = _mm512_setzero_ps();
    PVD_UNROLL
    for (int a = 0; a < NU; ++a) {
      const float* at = votes + a * 3 * kPitch + first;
      const __m512 left = _mm512_loadu_ps(at);
      const __m512 mid = _mm512_loadu_ps(at + kPitch);
      const __m512 right = _mm512_loadu_ps(at + 2 * kPitch);
      PVD_UNROLL
      for (int c = 0; c < CB; ++c) {
        const Triple<1> row(in[c][a] + first - 2);
        sum[c] = _mm512_fmadd_ps(row.at[2], left, sum[c]);
        sum[c] = _mm512_fmadd_ps(row.at[1], mid, sum[c]);
        sum[c] = _mm512_fmadd_ps(row.at[0], right, sum[c]);
      }
    }
    PVD_UNROLL
    for (int c = 0; c < CB; ++c) _mm512_storeu_ps(out[c] + first, sum[c]);
  }
#endif
  template <int WIDTH>
  PVD_INLINE void run(int64_t first) const {
#ifdef PVD_AVX512
    if constexpr (WIDTH == 16 && std::is_same<A, float>::value)
      return run16(first);
#endif
    PVD_IVDEP
    for (int i = 0; i < WIDTH; ++i) {
      const int64_t t = first + i;
      A sum[CB] = {};
      PVD_UNROLL
      for (int a = 0; a < NU; ++a) {
        PVD_UNROLL
        for (int v = 0; v < 3; ++v) {
          const A vote = votes[(a * 3 + v) * kPitch + t];
          PVD_UNROLL
          for (int c = 0; c < CB; ++c) sum[c] += in[c][a][t - v] * vote;
        }
      }
      PVD_UNROLL
      for (int c = 0; c < CB; ++c) out[c][t] = sum[c];
    }
  }
  // Columns with the checks that the border needs.
  PVD_INLINE void edge(int64_t first, int64_t last, const Problem& q) const {
    for (int64_t t = first; t < last; ++t) {
      A sum[CB] = {};
      PVD_UNROLL
      for (int v = 0; v < 3; ++v) {
        const int64_t j = t + q.padding - v;
        if (j < 0 || j >= q.w) continue;
        PVD_UNROLL
        for (int a = 0; a < NU; ++a) {
          const A vote = votes[(a * 3 + v) * kPitch + t];
          PVD_UNROLL
          for (int c = 0; c < CB; ++c) sum[c] += in[c][a][t - v] * vote;
        }
      }
      PVD_UNROLL
      for (int c = 0; c < CB; ++c) out[c][t] = sum[c];
    }
  }
};

// Stride 2: both column phases, interleaved. ODD says that the padding is.
template <class A, int NU, bool ODD>
struct Window2 {
  const A* in[NU];
  const A* votes;
  A* out;

  PVD_INLINE Window2(const A* const* input, const A* votes, A* const* output)
      : votes(votes), out(output[0]) {
    for (int a = 0; a < NU; ++a) in[a] = input[a];
  }
  template <int WIDTH>
  PVD_INLINE void run(int64_t first) const {
    PVD_IVDEP
    for (int i = 0; i < WIDTH; ++i) {
      const int64_t t = first + i;
      A even = 0, odd = 0;
      PVD_UNROLL
      for (int a = 0; a < NU; ++a) {
        const A* at = votes + a * 3 * kPitch + t;
        if (ODD) {
          even += in[a][t] * at[kPitch];
          odd += in[a][t + 1] * at[0];
          odd += in[a][t] * at[2 * kPitch];
        } else {
          even += in[a][t] * at[0];
          even += in[a][t - 1] * at[2 * kPitch];
          odd += in[a][t] * at[kPitch];
        }
      }
      out[2 * t] = even;
      out[2 * t + 1] = odd;
    }
  }
  PVD_INLINE void edge(int64_t first, int64_t last, const Problem& q) const {
    for (int64_t t = first; t < last; ++t) {
      A sum[2] = {};
      PVD_UNROLL
      for (int v = 0; v < 3; ++v) {
        const int phase = ODD ? 1 - v % 2 : v % 2;
        const int d = ODD ? v == 0 : -(v == 2);  // beside in's own shift
        const int64_t j = t + q.padding / 2 + d;
        if (j < 0 || j >= q.w) continue;
        PVD_UNROLL
        for (int a = 0; a < NU; ++a)
          sum[phase] += in[a][t + d] * votes[(a * 3 + v) * kPitch + t];
      }
      for (int phase = 0; phase < 2 && 2 * t + phase < q.out_w; ++phase)
        out[2 * t + phase] = sum[phase];
    }
  }
};

// A tile's columns: [first, last), of which [from, to) is the inside.
struct Columns {
  int64_t first, last, from, to;
};

template <class Window>
PVD_INLINE void fill(const Columns& at, const Problem& q, const Ahead& ahead,
                     const Window& window) {
  cover(at.from, at.to, ahead, window);
  window.edge(at.first, at.from, q);
  window.edge(at.to, at.last, q);
}

template <class A>
void windows1(int64_t rows, int channels, const Columns& at, const Problem& q,
              const A* const* in, const A* votes, A* const* out,
              const Ahead& ahead) {
#define PVD_CASE(NU, CB)  \
  case NU * 4 + CB:       \
    return fill(at, q, ahead, Window1<A, NU, CB>(in, votes, out))
  switch (rows * 4 + channels) {
    PVD_CASE(1, 1);
    PVD_CASE(1, 2);
    PVD_CASE(2, 1);
    PVD_CASE(2, 2);
    PVD_CASE(3, 1);
    PVD_CASE(3, 2);
  }
#undef PVD_CASE
}

template <class A>
void windows2(int64_t rows, const Columns& at, const Problem& q,
              const A* const* in, const A* votes, A* const* out,
              const Ahead& ahead) {
#define PVD_CASE(NU, ODD)  \
  case NU * 2 + ODD:       \
    return fill(at, q, ahead, Window2<A, NU, ODD>(in, votes, out))
  switch (rows * 2 + q.padding % 2) {
    PVD_CASE(1, false);
    PVD_CASE(1, true);
    PVD_CASE(2, false);
    PVD_CASE(2, true);
  }
#undef PVD_CASE
}

// Any k and stride: a pass over the tile per position, clipped to the map.
template <class A>
void window_any(int64_t first, int64_t last, const Problem& q, int64_t rows,
                const A* const* input, const A* votes, int64_t pitch, A* sums,
                A* output) {
  const int64_t k = q.kernel_size, s = q.stride;
  for (int64_t phase = 0; phase < s; ++phase) {
    const int64_t end = least(last, length_of(phase, q));
    for (int64_t t = first; t < end; ++t) sums[t - first] = 0;
    for (int64_t a = 0; a < rows; ++a) {
      for (int64_t v = (phase + q.padding) % s; v < k; v += s) {
        const int64_t d = (phase + q.padding - v) / s;
        const int64_t from = most(first, -d), to = least(end, q.w - d);
        const A* at = votes + (a * k + v) * pitch;
        const A* in = input[a] + d;
        PVD_IVDEP
        for (int64_t t = from; t < to; ++t) sums[t - first] += in[t] * at[t];
      }
    }
    for (int64_t t = first; t < end; ++t)
      output[s * t + phase] = sums[t - first];
  }
}

// Columns per tile for any k: its votes shall fit into the L1 or L2 cache.
PVD_INLINE int64_t tile_of(const Problem& q) {
  const int64_t k = q.kernel_size;
  return k == 3 ? kTile : most(64, least(512, 8192 / (k * k)));
}

template <class T>
void forward_exact(const Problem& q, int64_t begin, int64_t end) {
  using A = typename SumOf<T>::type;
  constexpr int kBlock = 2;  // channels per pass over the votes
  const int64_t k = q.kernel_size, s = q.stride, p = q.padding;
  const int64_t each = q.channels / q.groups;
  const int64_t length = ceil_div(q.out_w, s);
  const int64_t tile = tile_of(q), reach = k / s + 2;
  const int64_t max_rows = (k + s - 1) / s;
  const int64_t halo = tile + 2 * reach;
  const bool fast = k == 3 && s <= 2;
  Scratch<int64_t> numbers(k);
  int64_t* const shift = numbers.take(k);
  for (int64_t v = 0; v < k; ++v) shift[v] = shift_of(v, q);
  // where no column of any window and no phase is out of the map
  int64_t inner_first = 0, inner_last = q.out_w / s;
  for (int64_t v = 0; v < k; ++v) {
    inner_first = most(inner_first, -shift[v]);
    inner_last = least(inner_last, q.w - shift[v]);
  }
  const bool direct = plain<T, A>(q.output_at.w);

  const int64_t pitch = fast ? kPitch : tile;
  Scratch<A> scratch(max_rows * k * pitch + kBlock * max_rows * halo +
                     kBlock * s * tile + tile);
  A* const vote_rows = scratch.take(max_rows * k * pitch);
  A* const input_rows = scratch.take(kBlock * max_rows * halo);
  A* const output_rows = scratch.take(kBlock * s * tile);
  A* const sums = scratch.take(tile);
  Scratch<const A*> pointers(2 * kBlock * max_rows);
  const A** const input = pointers.take(kBlock * max_rows);
  const A** const shifted = pointers.take(kBlock * max_rows);

  for (int64_t row = begin; row < end; ++row) {
    const int64_t y = row % q.out_h, g = row / q.out_h % q.groups;
    const int64_t n = row / q.out_h / q.groups;
    const Reaching at = reaching(y, q), below = reaching(y + 1, q);
    const T* input_map = static_cast<const T*>(q.input) + n * q.input_at.n +
                         g * each * q.input_at.c;
    const T* votes_map = static_cast<const T*>(q.votes) + n * q.votes_at.n +
                         g * k * k * q.votes_at.c;
    T* out_map = static_cast<T*>(q.output) + n * q.output_at.n +
                 g * each * q.output_at.c + y * q.output_at.h;

    for (int64_t first = 0; first < length; first += tile) {
      const int64_t last = least(length, first + tile);
      const int64_t from = least(most(inner_first, first), last);
      const int64_t to = most(from, least(inner_last, last));
      // votes[.. + t] is the vote that reaches t
      A* const votes = vote_rows - first + (fast ? aligning(from - first) : 0);
      for (int64_t a = 0; a < at.count; ++a) {
        for (int64_t v = 0; v < k; ++v) {
          const int64_t d = shift[v];
          const int64_t start = most(first, -d), end = least(last, q.w - d);
          if (start >= end) continue;
          const T* source = votes_map +
                            ((at.first + s * a) * k + v) * q.votes_at.c +
                            (at.input_row - a) * q.votes_at.h +
                            (start + d) * q.votes_at.w;
          read_row(source, q.votes_at.w, end - start,
                   votes + (a * k + v) * pitch + start);
        }
      }
      const int64_t j_first = most(0, first + shift[k - 1] - 1);
      const int64_t j_last = least(q.w, last + shift[0] + 2);
      const int64_t x_first = s * first, x_last = least(q.out_w, s * last);

      for (int64_t c = 0; c < each;) {
        const int block = fast && s == 1 && c + 1 < each ? 2 : 1;
        A* output[kBlock];
        for (int b = 0; b < block; ++b) {
          for (int64_t a = 0; a < at.count; ++a)
            input[b * at.count + a] = row_of(
                input_map + (c + b) * q.input_at.c +
                    (at.input_row - a) * q.input_at.h,
                q.input_at.w, j_first, j_last,
                input_rows + (b * max_rows + a) * halo);
          output[b] = direct ? reinterpret_cast<A*>(out_map +
                                                    (c + b) * q.output_at.c)
                             : output_rows + b * s * tile - x_first;
        }
        Ahead ahead;
        if (fast && to - from >= kStrip) {
          for (int64_t b = c + block; b < least(each, c + 2 * block); ++b) {
            ahead.add(input_map + b * q.input_at.c +
                          at.input_row * q.input_at.h,
                      q.input_at.w);
            ahead.add(out_map + b * q.output_at.c, q.output_at.w, s);
          }
          // the next row's votes, a row of them for each pass
          const int64_t vote = c / block;
          if (y + 1 < q.out_h && vote < below.count * 3)
            ahead.add(votes_map +
                          ((below.first + s * (vote / 3)) * 3 + vote % 3) *
                              q.votes_at.c +
                          (below.input_row - vote / 3) * q.votes_at.h,
                      q.votes_at.w);
        }
        if (at.count == 0) {
          for (int b = 0; b < block; ++b)
            for (int64_t x = x_first; x < x_last; ++x) output[b][x] = 0;
        } else if (fast) {
          for (int64_t a = 0; a < block * at.count; ++a)
            shifted[a] = input[a] + (s == 1 ? p : p / 2);
          const Columns columns = {first, last, from, to};
          if (s == 1)
            windows1<A>(at.count, block, columns, q, shifted, votes, output,
                        ahead);
          else
            windows2<A>(at.count, columns, q, shifted, votes, output, ahead);
        } else {
          window_any(first, last, q, at.count, input, votes, pitch, sums,
                     output[0]);
        }
        if (!direct)
          for (int b = 0; b < block; ++b)
            write_row(output[b] + x_first, x_last - x_first,
                      out_map + (c + b) * q.output_at.c +
                          x_first * q.output_at.w,
                      q.output_at.w);
        c += block;
      }
    }
  }
}

// ---------------------------------------------------------- exact, backward

// k = 3: the gradients of CB channels' input, and on top of the sums so far
// that of the votes. grad is shifted so that column v is at S*j + v.
template <class A, int S, int NU, int CB, bool INPUT, bool VOTES>
struct Adjoint3 {
  const A *of[CB][NU], *in[CB], *votes;
  A *to[CB], *sums;

  PVD_INLINE Adjoint3(const A* const* grad, const A* const* input,
                      const A* votes, A* const* grad_input, A* grad_votes)
      : votes(votes), sums(grad_votes) {
    for (int c = 0; c < CB; ++c) {
      in[c] = input[c];
      to[c] = grad_input[c];
      for (int a = 0; a < NU; ++a) of[c][a] = grad[c * NU + a];
    }
  }
#ifdef PVD_AVX512
  PVD_INLINE void run16(int64_t first) const {
    __m512 sum[CB], pixel[CB];
    PVD_UNROLL
    for (int c = 0; c < CB; ++c) {
      sum[c] = _mm512_setzero_ps();
      if (VOTES) pixel[c] = _mm512_loadu_ps(in[c] + first);
    }
    PVD_UNROLL
    for (int a = 0; a < NU; ++a) {
      __m512 vote[3], total[3];
      PVD_UNROLL
      for (int v = 0; v < 3; ++v) {
        const int64_t at = (a * 3 + v) * kPitch + first;
        if (INPUT) vote[v] = _mm512_loadu_ps(votes + at);
        if (VOTES) total[v] = _mm512_loadu_ps(sums + at);
      }
      PVD_UNROLL
      for (int c = 0; c < CB; ++c) {
        const Triple<S> g(of[c][a] + S * first);
        PVD_UNROLL
        for (int v = 0; v < 3; ++v) {
          if (INPUT) sum[c] = _mm512_fmadd_ps(g.at[v], vote[v], sum[c]);
          if (VOTES) total[v] = _mm512_fmadd_ps(g.at[v], pixel[c], total[v]);
        }
      }
      PVD_UNROLL
      for (int v = 0; v < 3; ++v)
        if (VOTES)
          _mm512_storeu_ps(sums + (a * 3 + v) * kPitch + first, total[v]);
    }
    PVD_UNROLL
    for (int c = 0; c < CB; ++c)
      if (INPUT) _mm512_storeu_ps(to[c] + first, sum[c]);
  }
#endif
  template <int WIDTH>
  PVD_INLINE void run(int64_t first) const {
#ifdef PVD_AVX512
    if constexpr (WIDTH == 16 && std::is_same<A, float>::value)
      return run16(first);
#endif
    PVD_IVDEP
    for (int i = 0; i < WIDTH; ++i) {
      const int64_t j = first + i;
      A sum[CB] = {};
      PVD_UNROLL
      for (int a = 0; a < NU; ++a) {
        PVD_UNROLL
        for (int v = 0; v < 3; ++v) {
          const int64_t at = (a * 3 + v) * kPitch + j;
          A vote_sum = VOTES ? sums[at] : 0;
          PVD_UNROLL
          for (int c = 0; c < CB; ++c) {
            const A g = of[c][a][S * j + v];
            if (INPUT) sum[c] += g * votes[at];
            if (VOTES) vote_sum += g * in[c][j];
          }
          if (VOTES) sums[at] = vote_sum;
        }
      }
      PVD_UNROLL
      for (int c = 0; c < CB; ++c)
        if (INPUT) to[c][j] = sum[c];
    }
  }
  PVD_INLINE void edge(int64_t first, int64_t last, const Problem& q) const {
    for (int64_t j = first; j < last; ++j) {
      A sum[CB] = {};
      PVD_UNROLL
      for (int v = 0; v < 3; ++v) {
        const int64_t x = S * j + v - q.padding;
        if (x < 0 || x >= q.out_w) continue;
        PVD_UNROLL
        for (int a = 0; a < NU; ++a) {
          const int64_t at = (a * 3 + v) * kPitch + j;
          PVD_UNROLL
          for (int c = 0; c < CB; ++c) {
            const A g = of[c][a][S * j + v];
            if (INPUT) sum[c] += g * votes[at];
            if (VOTES) sums[at] += g * in[c][j];
          }
        }
      }
      PVD_UNROLL
      for (int c = 0; c < CB; ++c)
        if (INPUT) to[c][j] = sum[c];
    }
  }
};

template <class A, int S, int CB, bool INPUT, bool VOTES>
void adjoints3(int64_t rows, const Columns& columns, const Problem& q,
               const A* const* grad, const A* const* input, const A* votes,
               A* const* grad_input, A* grad_votes, const Ahead& ahead) {
#define PVD_CASE(NU)                                      \
  case NU: {                                              \
    const Adjoint3<A, S, NU, CB, INPUT, VOTES> adjoint(   \
        grad, input, votes, grad_input, grad_votes);      \
    partition(columns.from, columns.to, ahead, adjoint);  \
    adjoint.edge(columns.first, columns.from, q);         \
    adjoint.edge(columns.to, columns.last, q);            \
    return;                                               \
  }
  switch (rows) {
    PVD_CASE(1)
    PVD_CASE(2)
    PVD_CASE(3)
  }
#undef PVD_CASE
}

template <class A, int S>
void adjoint_fast(int64_t rows, int channels, const Columns& columns,
                  const Problem& q, const A* const* grad,
                  const A* const* input, const A* votes, A* const* grad_input,
                  A* grad_votes, const Ahead& ahead) {
#define PVD_CALL(CB, INPUT, VOTES)                                      \
  adjoints3<A, S, CB, INPUT, VOTES>(rows, columns, q, grad, input, votes, \
                                    grad_input, grad_votes, ahead)
  if (grad_input[0] && grad_votes)
    channels == 2 ? PVD_CALL(2, true, true) : PVD_CALL(1, true, true);
  else if (grad_votes)
    PVD_CALL(1, false, true);
  else
    PVD_CALL(1, true, false);
#undef PVD_CALL
}

// Any k and stride: a pass over columns [first, last) per position, clipped to
// the output. Adds to both gradients.
template <class A>
void adjoint_any(int64_t first, int64_t last, const Problem& q, int64_t rows,
                 const A* const* grad, const A* input, const A* votes,
                 int64_t pitch, A* grad_input, A* grad_votes) {
  const int64_t k = q.kernel_size, s = q.stride;
  for (int64_t a = 0; a < rows; ++a) {
    for (int64_t v = 0; v < k; ++v) {
      const int64_t x = v - q.padding;  // + s*j
      const int64_t from = most(first, ceil_div(-x, s));
      const int64_t to = least(last, ceil_div(q.out_w - x, s));
      if (from >= to) continue;
      const A* of = grad[a] + x;
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

template <class T>
void backward_exact(const Problem& q, int64_t begin, int64_t end) {
  using A = typename SumOf<T>::type;
  constexpr int kBlock = 2;
  const int64_t k = q.kernel_size, s = q.stride, p = q.padding;
  const int64_t each = q.channels / q.groups;
  const int64_t tile = tile_of(q), wide = s * tile + k;
  const bool fast = k == 3 && s <= 2;
  const bool for_input = q.grad_input, for_votes = q.grad_votes;
  const int64_t inner_first = ceil_div(p, s);
  const int64_t inner_last = floor_div(q.out_w - k + p, s) + 1;
  const bool direct = plain<T, A>(q.grad_input_at.w);

  const int64_t pitch = fast ? kPitch : tile;
  Scratch<A> scratch(2 * k * k * pitch + kBlock * (k * wide + 2 * tile));
  A* const vote_rows = scratch.take(k * k * pitch);
  A* const sum_rows = scratch.take(k * k * pitch);
  A* const grad_rows = scratch.take(kBlock * k * wide);
  A* const input_rows = scratch.take(kBlock * tile);
  A* const output_rows = scratch.take(kBlock * tile);
  Scratch<const A*> pointers(2 * kBlock * k);
  const A** const grad = pointers.take(kBlock * k);
  const A** const shifted = pointers.take(kBlock * k);

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
                         g * k * k * q.votes_at.c + i * q.votes_at.h;
    const T* grad_map = static_cast<const T*>(q.grad) + n * q.grad_at.n +
                        g * each * q.grad_at.c +
                        (top + u_first) * q.grad_at.h;
    T* out_map = part_of<T>(q.grad_input, n, g * each, i, q.grad_input_at);
    T* out_votes = part_of<T>(q.grad_votes, n, g * k * k, i, q.grad_votes_at);

    for (int64_t first = 0; first < q.w; first += tile) {
      const int64_t last = least(q.w, first + tile), size = last - first;
      const int64_t from = least(most(inner_first, first), last);
      const int64_t to = most(from, least(inner_last, last));
      const int64_t align = fast ? aligning(from - first) : 0;
      A* const votes = vote_rows + align - first;
      A* const sums = for_votes ? sum_rows + align - first : nullptr;
      if (for_input)
        for (int64_t at = 0; at < rows * k; ++at)
          read_row(votes_map + (u_first * k + at) * q.votes_at.c +
                       first * q.votes_at.w,
                   q.votes_at.w, size, votes + at * pitch + first);
      if (for_votes)
        for (int64_t at = 0; at < rows * k; ++at)
          for (int64_t j = first; j < last; ++j) sums[at * pitch + j] = 0;
      const int64_t x_first = most(0, s * first - p);
      const int64_t x_last = least(q.out_w, s * (last - 1) - p + k);

      for (int64_t c = 0; c < each;) {
        const int block =
            fast && for_input && for_votes && c + 1 < each ? 2 : 1;
        const A* input[kBlock];
        A* output[kBlock] = {};
        for (int b = 0; b < block; ++b) {
          for (int64_t a = 0; a < rows; ++a)
            grad[b * rows + a] =
                row_of(grad_map + (c + b) * q.grad_at.c + a * q.grad_at.h,
                       q.grad_at.w, x_first, x_last,
                       grad_rows + (b * k + a) * wide);
          input[b] = for_votes ? row_of(input_map + (c + b) * q.input_at.c,
                                        q.input_at.w, first, last,
                                        input_rows + b * tile)
                               : nullptr;
          if (for_input) {
            output[b] = direct ? reinterpret_cast<A*>(
                                     out_map + (c + b) * q.grad_input_at.c)
                               : output_rows + b * tile - first;
            if (!fast || rows == 0)
              for (int64_t j = first; j < last; ++j) output[b][j] = 0;
          }
        }
        Ahead ahead;
        if (fast && to - from >= kStrip) {
          const int64_t newest = most(0, rows - s);
          for (int64_t b = c + block; b < least(each, c + 2 * block); ++b) {
            for (int64_t a = newest; a < rows; ++a)
              ahead.add(grad_map + b * q.grad_at.c + a * q.grad_at.h,
                        q.grad_at.w, s);
            if (for_votes) ahead.add(input_map + b * q.input_at.c, q.input_at.w);
            if (for_input)
              ahead.add(out_map + b * q.grad_input_at.c, q.grad_input_at.w);
          }
        }
        if (fast && rows > 0) {
          for (int64_t a = 0; a < block * rows; ++a) shifted[a] = grad[a] - p;
          const Columns columns = {first, last, from, to};
          const auto adjoint = s == 1 ? adjoint_fast<A, 1> : adjoint_fast<A, 2>;
          adjoint(rows, block, columns, q, shifted, input, votes, output, sums,
                  ahead);
        } else {
          adjoint_any(first, last, q, rows, grad, input[0], votes, pitch,
                      output[0], sums);
        }
        if (for_input && !direct)
          for (int b = 0; b < block; ++b)
            write_row(output[b] + first, size,
                      out_map + (c + b) * q.grad_input_at.c +
                          first * q.grad_input_at.w,
                      q.grad_input_at.w);
        c += block;
      }
      if (for_votes) {
        for (int64_t at = 0; at < k * k; ++at) {
          T* to_votes = out_votes + at * q.grad_votes_at.c +
                        first * q.grad_votes_at.w;
          const int64_t a = at / k - u_first;
          if (a >= 0 && a < rows) {
            write_row(sums + (at - u_first * k) * pitch + first, size, to_votes,
                      q.grad_votes_at.w);
          } else {
            for (int64_t j = 0; j < size; ++j)
              narrow(A(0), to_votes[j * q.grad_votes_at.w]);
          }
        }
      }
    }
  }
}

// ----------------------------------------------------------------- factored

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

// The adjoint of scale_row by input, which it adds to.
template <class A>
void contract_row(const Problem& q, const A* grad, const A* sums,
                  int64_t length, A* to) {
  const int64_t s = q.stride;
  for (int64_t phase = 0; phase < s; ++phase) {
    const Inner inner = inner_of(phase, q);
    const int64_t e = own_shift(phase, q), end = length_of(phase, q);
    const A *sum = sums + phase * length, *of = grad + phase;
    A* own = to + e;
    for (int64_t t = 0; t < inner.first; ++t)
      to[most(0, least(q.w - 1, t + e))] += of[s * t] * sum[t];
    if (s == 1) {
      PVD_IVDEP
      for (int64_t t = inner.first; t < inner.last; ++t)
        own[t] += of[t] * sum[t];
    } else if (s == 2) {
      PVD_IVDEP
      for (int64_t t = inner.first; t < inner.last; ++t)
        own[t] += of[2 * t] * sum[t];
    } else {
      for (int64_t t = inner.first; t < inner.last; ++t)
        own[t] += of[s * t] * sum[t];
    }
    for (int64_t t = inner.last; t < end; ++t)
      to[most(0, least(q.w - 1, t + e))] += of[s * t] * sum[t];
  }
}

// The adjoint of scale_row by sums, which it adds to.
template <class A>
void correlate_row(const Problem& q, const A* grad, const A* input,
                   int64_t length, A* sums) {
  const int64_t s = q.stride;
  for (int64_t phase = 0; phase < s; ++phase) {
    const Inner inner = inner_of(phase, q);
    const int64_t e = own_shift(phase, q), end = length_of(phase, q);
    const A *of = grad + phase, *own = input + e;
    A* sum = sums + phase * length;
    for (int64_t t = 0; t < inner.first; ++t)
      sum[t] += of[s * t] * input[most(0, least(q.w - 1, t + e))];
    if (s == 1) {
      PVD_IVDEP
      for (int64_t t = inner.first; t < inner.last; ++t)
        sum[t] += of[t] * own[t];
    } else if (s == 2) {
      PVD_IVDEP
      for (int64_t t = inner.first; t < inner.last; ++t)
        sum[t] += of[2 * t] * own[t];
    } else {
      for (int64_t t = inner.first; t < inner.last; ++t)
        sum[t] += of[s * t] * own[t];
    }
    for (int64_t t = inner.last; t < end; ++t)
      sum[t] += of[s * t] * input[most(0, least(q.w - 1, t + e))];
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
          if (mine)
            contract_row(q, grad, vote_sums + (y - own) * s * length, length,
                         output);
          if (reached)
            correlate_row(q, grad, input, length,
                          sum_grads + y % ring * s * length);
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

#define PVD_TYPES(KERNEL) \
  { KERNEL<float>, KERNEL<double>, KERNEL<Half>, KERNEL<BFloat16> }

Kernels PVD_KERNELS() {
  return {{PVD_TYPES(forward_exact), PVD_TYPES(forward_factored)},
          {PVD_TYPES(backward_exact), PVD_TYPES(backward_factored)}};
}

#undef PVD_TYPES

}  // namespace pvd_mm
