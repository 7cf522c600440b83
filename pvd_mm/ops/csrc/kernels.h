// Copyright (c) PVD-MM contributors. Apache-2.0.
// The kernels. Included once for each instruction set, hence no guard; all
// but PVD_KERNELS is in a namespace without a name.
//
// Everything is a gather: a row of the result is summed by one thread. A
// window's column v reaches output column s*j + v - p: of the s column phases
// r = x mod s of the output it is in one, (v - p) mod s, and there, with
// x = s*t + r, it is a plain shift,
//     j = t + d,   d = (r + p - v) / s   (exact).
// So every inner loop runs over t (or j) with unit stride on the input's
// side. Positions outside of a map are never touched, not even times zero:
// they could hold inf or NaN. Rows are converted, and brought together where
// they are strided, a tile of columns at a time; half and bfloat16 are summed
// in float. Tiles are long, for it is along rows that the processor fetches
// ahead by itself: short ones were slower.

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

PVD_INLINE constexpr int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}
PVD_INLINE constexpr int64_t most(int64_t a, int64_t b) {
  return a > b ? a : b;
}
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
#ifdef PVD_F16C
PVD_INLINE float widen(Half value) { return _cvtsh_ss(value.bits); }
#else
// Without a branch, so that the compiler can vectorise it.
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
#endif

PVD_INLINE void narrow(float value, float& to) { to = value; }
PVD_INLINE void narrow(double value, double& to) { to = value; }
PVD_INLINE void narrow(float value, BFloat16& to) {
  const uint32_t bits = bits_of(value);
  const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
  to.bits = static_cast<uint16_t>(
      (bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);
}
#ifdef PVD_F16C
PVD_INLINE void narrow(float value, Half& to) {
  to.bits = _cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT);
}
#else
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
#endif

// Numbers next to each other.
template <class T, class A>
PVD_INLINE void widen_all(const T* from, int64_t size, A* to) {
  PVD_IVDEP
  for (int64_t x = 0; x < size; ++x) to[x] = widen(from[x]);
}
template <class T, class A>
PVD_INLINE void narrow_all(const A* from, int64_t size, T* to) {
  PVD_IVDEP
  for (int64_t x = 0; x < size; ++x) narrow(from[x], to[x]);
}
#ifdef PVD_F16C  // the compiler does not vectorise these conversions
PVD_INLINE void widen_all(const Half* from, int64_t size, float* to) {
  int64_t x = 0;
  for (; x + 8 <= size; x += 8)
    _mm256_storeu_ps(to + x, _mm256_cvtph_ps(_mm_loadu_si128(
                                 reinterpret_cast<const __m128i*>(from + x))));
  for (; x < size; ++x) to[x] = widen(from[x]);
}
PVD_INLINE void narrow_all(const float* from, int64_t size, Half* to) {
  int64_t x = 0;
  for (; x + 8 <= size; x += 8)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + x),
                     _mm256_cvtps_ph(_mm256_loadu_ps(from + x),
                                     _MM_FROUND_TO_NEAREST_INT));
  for (; x < size; ++x) narrow(from[x], to[x]);
}
#endif

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

// Rows are converted a part at a time where they are strided, for numbers next
// to each other are converted together.
template <class T, class A>
PVD_INLINE void read_row(const T* from, int64_t step, int64_t size, A* to) {
  if (step == 1) return widen_all(from, size, to);
  if constexpr (std::is_same<T, A>::value) {
    for (int64_t x = 0; x < size; ++x) to[x] = widen(from[x * step]);
  } else {
    T part[64];
    for (int64_t first = 0; first < size; first += 64) {
      const int64_t some = least(64, size - first);
      for (int64_t x = 0; x < some; ++x) part[x] = from[(first + x) * step];
      widen_all(part, some, to + first);
    }
  }
}

template <class T, class A>
PVD_INLINE void write_row(const A* from, int64_t size, T* to, int64_t step) {
  if (step == 1) return narrow_all(from, size, to);
  if constexpr (std::is_same<T, A>::value) {
    for (int64_t x = 0; x < size; ++x) narrow(from[x], to[x * step]);
  } else {
    T part[64];
    for (int64_t first = 0; first < size; first += 64) {
      const int64_t some = least(64, size - first);
      narrow_all(from + first, some, part);
      for (int64_t x = 0; x < some; ++x) to[(first + x) * step] = part[x];
    }
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

// ---------------------------------------------------------------- vectors

// Vectors of n elements, as many as a register of PVD_VECTOR bytes has; one
// where the compiler knows no vectors.
#ifdef PVD_VECTOR
template <class A>
constexpr int kLanes = PVD_VECTOR / sizeof(A);
template <class A, int n>
struct VectorOf {
  typedef A type __attribute__((vector_size(n * sizeof(A))));
};
#else
template <class A>
constexpr int kLanes = 1;
template <class A, int n>
struct VectorOf {
  using type = A;
};
#endif
template <class A, int n = kLanes<A>>
using Vector = typename VectorOf<A, n>::type;
template <class A>
using BitsOf = std::conditional_t<sizeof(A) == 8, int64_t, int32_t>;

// Lane i is lane index(i) of a, or of b after it.
template <class A, class Index, int... I>
PVD_INLINE auto pick(Vector<A, sizeof...(I)> a, Vector<A, sizeof...(I)> b,
                     Index index, std::integer_sequence<int, I...>) {
#if !defined(PVD_VECTOR)
  return index(0) == 0 ? a : b;
#elif defined(__clang__)
  return __builtin_shufflevector(a, b, index(I)...);
#else
  return __builtin_shuffle(a, b, Vector<BitsOf<A>, sizeof...(I)>{index(I)...});
#endif
}
#define PVD_PICK(NAME, INDEX)                                             \
  template <class A, int n = kLanes<A>>                                   \
  PVD_INLINE Vector<A, n> NAME(Vector<A, n> a, Vector<A, n> b) {          \
    return pick<A>(a, b, [](int i) constexpr { return INDEX; },           \
                   std::make_integer_sequence<int, n>());                 \
  }
PVD_PICK(later, i + 1)        // one column after a's
PVD_PICK(earlier, i + n - 1)  // one column before b's
PVD_PICK(evens, 2 * i)
PVD_PICK(odds, 2 * i + 1)
PVD_PICK(mixed_low, i / 2 + i % 2 * n)
PVD_PICK(mixed_high, (i + n) / 2 + i % 2 * n)
// the same in every 16 bytes by themselves, and of 16 bytes each
#define PVD_PART int(16 / sizeof(A))
#define PVD_IN_PART (i % PVD_PART * 2)
PVD_PICK(inner_evens, i / PVD_PART * PVD_PART + PVD_IN_PART % PVD_PART +
                          PVD_IN_PART / PVD_PART * n)
PVD_PICK(inner_odds, i / PVD_PART * PVD_PART + PVD_IN_PART % PVD_PART + 1 +
                         PVD_IN_PART / PVD_PART * n)
PVD_PICK(block_evens, i / PVD_PART * 2 * PVD_PART + i % PVD_PART)
PVD_PICK(block_odds, (i / PVD_PART * 2 + 1) * PVD_PART + i % PVD_PART)
#undef PVD_IN_PART
#undef PVD_PART
#undef PVD_PICK

template <class A, int n = kLanes<A>>
PVD_INLINE Vector<A, n> load(const A* from) {
  Vector<A, n> value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
template <class A, int n = kLanes<A>>
PVD_INLINE void store(Vector<A, n> value, A* to) {
  std::memcpy(to, &value, sizeof value);
}

// Columns x.. of a row of that size: with EDGE those outside of it are zero,
// or left alone.
template <bool EDGE, class A>
PVD_INLINE Vector<A> load(const A* row, int64_t x, int64_t size) {
  constexpr int64_t n = kLanes<A>;
  if (!EDGE || (x >= 0 && x + n <= size)) return load(row + x);
  if (x + n <= 0 || x >= size) return Vector<A>{};
  const int64_t from = most(0, -x), to = least(n, size - x);
#ifdef PVD_AVX512
  if constexpr (std::is_same<A, float>::value)
    return _mm512_maskz_loadu_ps((1u << to) - (1u << from), row + x);
#endif
  A lanes[n] = {};
  for (int64_t i = from; i < to; ++i) lanes[i] = row[x + i];
  return load(lanes);
}
template <bool EDGE, class A>
PVD_INLINE void store(Vector<A> value, A* row, int64_t x, int64_t size) {
  constexpr int64_t n = kLanes<A>;
  if (!EDGE || x + n <= size) return store(value, row + x);
#ifdef PVD_AVX512
  if constexpr (std::is_same<A, float>::value)
    return _mm512_mask_storeu_ps(row + x, (1u << most(0, size - x)) - 1, value);
#endif
  A lanes[n];
  store(value, lanes);
  for (int64_t i = 0; i < size - x; ++i) row[x + i] = lanes[i];
}

// ----------------------------------------------------------- exact, forward

// Rows of some channels: column x of row a of channel b is at
// data[b * channel + a * row + x].
template <class A>
struct Block {
  A* data;
  int64_t channel, row;
};

// Columns [first, last) of the rows of a block of a map, copied unless they
// can be read as they are. row is the step from one row to the next.
template <class T, class A>
PVD_INLINE Block<const A> block_of(const T* map, const Strides& at,
                                   int64_t row, int64_t channels, int64_t rows,
                                   int64_t first, int64_t last, A* scratch,
                                   int64_t pitch) {
  if (plain<T, A>(at.w)) return {reinterpret_cast<const A*>(map), at.c, row};
  for (int64_t b = 0; b < channels && first < last; ++b)
    for (int64_t a = 0; a < rows; ++a)
      read_row(map + b * at.c + a * row + first * at.w, at.w, last - first,
               scratch + (b * rows + a) * pitch);
  return {scratch - first, rows * pitch, pitch};
}
// Where the columns from first on are written: in place if that is possible.
template <class T, class A>
PVD_INLINE Block<A> target_of(T* map, const Strides& at, int64_t first,
                              A* scratch, int64_t pitch) {
  if (plain<T, A>(at.w)) return {reinterpret_cast<A*>(map), at.c, 0};
  return {scratch - first, pitch, 0};
}
template <class T, class A>
PVD_INLINE void write_block(const Block<A>& from, int64_t channels,
                            int64_t first, int64_t last, T* map,
                            const Strides& at) {
  if (plain<T, A>(at.w)) return;
  for (int64_t b = 0; b < channels; ++b)
    write_row(from.data + b * from.channel + first, last - first,
              map + b * at.c + first * at.w, at.w);
}

// How both passes cut their work: tiles of columns, blocks of channels.
template <class A>
struct Tiling {
  // Channels at once, which share what is loaded of the votes: as many as
  // there are registers for.
  static constexpr int kChannels = sizeof(Vector<A>) == 64 ? 4 : 2;

  bool fast;  // what window3 and adjoint3 can do
  int64_t tile, beyond, pitch;

  explicit Tiling(const Problem& q) {
    const int64_t k = q.kernel_size;
    fast = k == 3 && q.stride <= 2 && q.padding == 1;
    // the votes of a tile shall stay in the L1 or L2 cache
    tile = most(64, least(512, 8192 / (k * k)));
    // columns that are read on both sides of a tile
    beyond = fast ? kLanes<A> : (k + q.padding) / q.stride + 1;
    // from row to row, in whole cache lines, with room for a vector at the end
    pitch = (tile + 2 * beyond + 31) / 16 * 16;
  }
  // From the channels from c on to those that are read next, which are in the
  // next row, down elements further, after the last of each group.
  PVD_INLINE int64_t ahead(int64_t c, int64_t each, const Strides& at,
                           int64_t down) const {
    return c + kChannels < each ? kChannels * at.c : down - c * at.c;
  }
};

// call(n) with n as a constant.
template <int MOST, class Call>
PVD_INLINE void with_constant(int64_t n, const Call& call) {
  if constexpr (MOST > 1)
    if (n < MOST) return with_constant<MOST - 1>(n, call);
  call(std::integral_constant<int, MOST>());
}

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

// ---------------------------------------------------------- exact, backward

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
            const auto run = [&](auto for_one, auto for_other) {
              constexpr bool M = decltype(for_one)::value;
              constexpr bool V = decltype(for_other)::value;
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

#define PVD_TYPES(KERNEL) \
  { KERNEL<float>, KERNEL<double>, KERNEL<Half>, KERNEL<BFloat16> }
#ifdef PVD_VECTOR
#include "kernels_channels_last.h"
#define PVD_VECTOR_TYPES(KERNEL) PVD_TYPES(KERNEL)
#else
#define PVD_VECTOR_TYPES(KERNEL) {}
#endif

namespace pvd_mm {

Kernels PVD_KERNELS() {
  return {{PVD_TYPES(forward_exact), PVD_TYPES(forward_factored),
           PVD_VECTOR_TYPES(forward_channels_last)},
          {PVD_TYPES(backward_exact), PVD_TYPES(backward_factored),
           PVD_VECTOR_TYPES(backward_channels_last)}};
}

#undef PVD_TYPES
#undef PVD_VECTOR_TYPES

}  // namespace pvd_mm
