// A convolution of spikes that reads only the weights of inputs that fired; see event_conv.py.
//
// For a range of output rows: list where the input is not zero, then, for each output pixel, add
// the weight rows of the listed inputs to sums that stay in vector registers. Two blockings keep
// the weights that are in use near the first-level cache: over output channels and over input
// channels; one kernel row is done at a time. Tensors are channels-last, weights are laid out
// [output block][input block][kernel row][kernel column][input channel][output channel].

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <vector>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace {

constexpr int64_t kLanes = 16;
constexpr int64_t kMaxVectors = 8;
constexpr int64_t kTaskPixels = 1024;
constexpr float kMaxValue = 255;

typedef float Vector __attribute__((vector_size(4 * kLanes), aligned(4)));

enum Status { kDone = 0, kNotSpikes = 1, kNoMemory = 2 };

struct Layer {
  int64_t frames, channels, height, width;
  int64_t out_channels, out_height, out_width;
  int64_t kernel_height, kernel_width, stride_height, stride_width, pad_height, pad_width;
  int64_t vectors;         // of output channels in a block
  int64_t block_channels;  // input channels in a block
};

// Where one block of input channels is not zero, in some rows of pixels.
class Events {
 public:
  Events() = default;
  Events(const Events&) = delete;
  ~Events() { std::free(at_); }

  // Makes room for rows of binary values.
  void start(int64_t rows, int64_t width, int64_t channels) {
    size_ = 0;
    ends_.resize(rows * (width + 1));
    reserve(rows * width * channels + kLanes);
  }

  // Appends a row, whose pixels are `stride` values apart: position = pixel * channels + channel.
  // A value v > 1 is v events. False if a value is not a whole number in 0 .. kMaxValue.
  bool append(const float* x, int64_t row, int64_t width, int64_t channels, int64_t stride,
              int64_t rows_left) {
    uint32_t* ends = &ends_[row * (width + 1)];
    int64_t size = size_;
    uint32_t position = 0;
    for (int64_t pixel = 0; pixel < width; ++pixel, x += stride) {
      ends[pixel] = size;
      int64_t c = 0;
#if defined(__AVX512F__)
      const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
      for (; c + kLanes <= channels; c += kLanes, position += kLanes) {
        const __m512 values = _mm512_loadu_ps(x + c);
        const __mmask16 fired = _mm512_cmp_ps_mask(values, _mm512_setzero_ps(), _CMP_NEQ_UQ);
        const __mmask16 once = _mm512_cmp_ps_mask(values, _mm512_set1_ps(1), _CMP_EQ_OQ);
        if (__builtin_expect(fired != once, 0)) break;
        const __m512i positions = _mm512_add_epi32(_mm512_set1_epi32(position), lane);
        _mm512_storeu_si512(at_ + size, _mm512_maskz_compress_epi32(fired, positions));
        size += __builtin_popcount(fired);
      }
#endif
      for (; c < channels; ++c, ++position) {
        if (x[c] == 0 || x[c] == 1) {
          at_[size] = position;
          size += x[c] == 1;
          continue;
        }
        if (!(x[c] > 0 && x[c] <= kMaxValue) || x[c] != std::floor(x[c])) return false;
        const int64_t times = static_cast<int64_t>(x[c]);
        reserve(size + times + rows_left * width * channels + kLanes);
        std::fill_n(at_ + size, times, position);
        size += times;
      }
    }
    ends[width] = size_ = size;
    return true;
  }

  const uint32_t* at() const { return at_; }
  const uint32_t* ends(int64_t row, int64_t width) const { return &ends_[row * (width + 1)]; }

 private:
  void reserve(int64_t wanted) {
    if (wanted <= capacity_) return;
    wanted = std::max(wanted, 2 * capacity_);
    void* grown = std::realloc(at_, wanted * sizeof(uint32_t));
    if (!grown) throw std::bad_alloc();
    at_ = static_cast<uint32_t*>(grown);
    capacity_ = wanted;
  }

  uint32_t* at_ = nullptr;
  int64_t size_ = 0, capacity_ = 0;
  std::vector<uint32_t> ends_;  // events before each pixel of a row, and after the last
};

inline const Vector& vector_at(const float* values, int i) {
  return reinterpret_cast<const Vector*>(values)[i];
}
inline Vector& vector_at(float* values, int i) { return reinterpret_cast<Vector*>(values)[i]; }

inline Vector load(const float* from, int64_t lanes) {
#if defined(__AVX512F__)
  return (Vector)_mm512_maskz_loadu_ps((1u << lanes) - 1, from);
#else
  Vector v{};
  for (int64_t i = 0; i < lanes; ++i) v[i] = from[i];
  return v;
#endif
}

inline void store(float* to, Vector v, int64_t lanes) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(to, (1u << lanes) - 1, (__m512)v);
#else
  for (int64_t i = 0; i < lanes; ++i) to[i] = v[i];
#endif
}

// Adds one kernel row of one input block to one output row. The first pass starts from the bias.
// `ends` is null where the kernel row lies in the padding; `lanes` are those of the last vector.
template <int V>
void add_row(const Layer& layer, const uint32_t* at, const uint32_t* ends, int64_t channels,
             const float* weight, const float* bias, float* out, int64_t lanes) {
  for (int64_t x = 0; x < layer.out_width; ++x, out += layer.out_channels) {
    const float* from = bias ? bias : out;
    Vector sum[V];
    for (int i = 0; i < V - 1; ++i) sum[i] = vector_at(from, i);
    sum[V - 1] = load(from + (V - 1) * kLanes, lanes);
    if (ends) {
      const int64_t left = x * layer.stride_width - layer.pad_width;
      const int64_t first = std::clamp<int64_t>(left, 0, layer.width);
      const int64_t last = std::clamp<int64_t>(left + layer.kernel_width, first, layer.width);
      const int64_t shift = left * channels;
      const uint32_t* end = at + ends[last];
      for (const uint32_t* event = at + ends[first]; event != end; ++event) {
        const float* row = weight + (*event - shift) * (V * kLanes);
#pragma GCC unroll 8
        for (int i = 0; i < V; ++i) sum[i] += vector_at(row, i);
      }
    }
    for (int i = 0; i < V - 1; ++i) vector_at(out, i) = sum[i];
    store(out + (V - 1) * kLanes, sum[V - 1], lanes);
  }
}

constexpr decltype(&add_row<1>) kAddRow[kMaxVectors] = {
    add_row<1>, add_row<2>, add_row<3>, add_row<4>,
    add_row<5>, add_row<6>, add_row<7>, add_row<8>};

// Output rows `first` to `last`, counted through all frames.
Status convolve(const Layer& layer, const float* x, const float* bias, const float* weight,
                float* out, int64_t first, int64_t last, std::vector<Events>& blocks) {
  const auto row_in_frame = [&](int64_t row, int64_t k) {
    return row % layer.out_height * layer.stride_height - layer.pad_height + k;
  };
  const auto frame = [&](int64_t row) { return row / layer.out_height * layer.height; };
  const auto inside = [&](int64_t y) { return std::clamp<int64_t>(y, 0, layer.height - 1); };
  const int64_t top = frame(first) + inside(row_in_frame(first, 0));
  const int64_t bottom =
      frame(last - 1) + inside(row_in_frame(last - 1, layer.kernel_height - 1)) + 1;
  const auto channels = [&](size_t block) {
    const int64_t before = block * layer.block_channels;
    return std::min(layer.block_channels, layer.channels - before);
  };

  for (size_t b = 0; b < blocks.size(); ++b)
    blocks[b].start(bottom - top, layer.width, channels(b));
  for (int64_t y = top; y < bottom; ++y) {
    const float* row = x + y * layer.width * layer.channels;
    for (size_t b = 0; b < blocks.size(); ++b, row += layer.block_channels)
      if (!blocks[b].append(row, y - top, layer.width, channels(b), layer.channels, bottom - y))
        return kNotSpikes;
  }

  for (int64_t o = 0; o < layer.out_channels; o += layer.vectors * kLanes) {
    const int64_t left = layer.out_channels - o;
    const int64_t vectors = std::min(layer.vectors, (left + kLanes - 1) / kLanes);
    const int64_t lanes = std::min(left - (vectors - 1) * kLanes, kLanes);
    for (size_t b = 0; b < blocks.size(); ++b) {
      for (int64_t k = 0; k < layer.kernel_height; ++k) {
        const bool initial = b == 0 && k == 0;
        for (int64_t row = first; row < last; ++row) {
          const int64_t y = row_in_frame(row, k);
          const bool padding = y < 0 || y >= layer.height;
          if (padding && !initial) continue;
          kAddRow[vectors - 1](
              layer, blocks[b].at(),
              padding ? nullptr : blocks[b].ends(frame(row) + y - top, layer.width), channels(b),
              weight, initial ? bias + o : nullptr,
              out + row * layer.out_width * layer.out_channels + o, lanes);
        }
        weight += layer.kernel_width * channels(b) * vectors * kLanes;
      }
    }
  }
  return kDone;
}

}  // namespace

extern "C" int event_conv(const Layer* layer, const float* x, const float* bias,
                          const float* weight, float* out, int threads) {
  const int64_t rows = layer->frames * layer->out_height;
  int64_t tasks = (rows * layer->out_width + kTaskPixels - 1) / kTaskPixels;
  tasks = (tasks + threads - 1) / threads * threads;
  const int64_t n_blocks = (layer->channels + layer->block_channels - 1) / layer->block_channels;
  std::atomic<int> status{kDone};
#pragma omp parallel num_threads(threads)
  {
    std::vector<Events> blocks(n_blocks);
#pragma omp for schedule(dynamic, 1)
    for (int64_t t = 0; t < tasks; ++t) {
      const int64_t first = rows * t / tasks, last = rows * (t + 1) / tasks;
      if (first == last || status != kDone) continue;
      try {
        const Status result = convolve(*layer, x, bias, weight, out, first, last, blocks);
        if (result != kDone) status = result;
      } catch (const std::bad_alloc&) {
        status = kNoMemory;
      }
    }
  }
  return status;
}
