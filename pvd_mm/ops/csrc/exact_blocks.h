// Copyright (c) PVD-MM contributors. Apache-2.0.
// `exact`: how both passes cut their work, into tiles of columns and blocks of
// channels.

namespace pvd_mm {
namespace {

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

}  // namespace
}  // namespace pvd_mm
