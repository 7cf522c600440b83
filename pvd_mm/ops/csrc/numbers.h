// Copyright (c) PVD-MM contributors. Apache-2.0.
// Whole numbers, and half precision: conversions to and from float.

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

}  // namespace
}  // namespace pvd_mm
