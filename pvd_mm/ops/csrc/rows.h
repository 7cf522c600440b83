// Copyright (c) PVD-MM contributors. Apache-2.0.
// Rows of maps, which are converted where they have to be, and which rows of
// windows reach which row of the output.

namespace pvd_mm {
namespace {

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

}  // namespace
}  // namespace pvd_mm
