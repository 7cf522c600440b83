// Copyright (c) PVD-MM contributors. Apache-2.0.
// Vectors of n elements, as many as a register of PVD_VECTOR bytes has; one
// where the compiler knows no vectors.

namespace pvd_mm {
namespace {

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

}  // namespace
}  // namespace pvd_mm
