// RoIAlign of maps whose channels are innermost, forward and backward, on the CPU.
//
// He et al., ICCV 2017, arXiv 1703.06870, section 3; samples and borders as in torchvision's kernel,
// which goes over channels outermost and is therefore slow on such maps.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace {

struct Shape {
  int64_t height, width, channels;      // of the maps
  int64_t regions, rows, columns;       // of the output
  int64_t sampling;                     // along each side of a bin; 0 takes one a pixel
  float scale;                          // pixels of the map per pixel of the image
  bool aligned;

  Shape(const int64_t* sizes, float scale, bool aligned)
      : height(sizes[0]), width(sizes[1]), channels(sizes[2]), regions(sizes[3]), rows(sizes[4]),
        columns(sizes[5]), sampling(sizes[6]), scale(scale), aligned(aligned) {}
};

// Where a sample lies between two pixels along one side.
struct Tap {
  int64_t low, high;
  float at_low, at_high;  // both 0 outside of the map
};

Tap tap(float place, int64_t size) {
  if (place < -1.0f || place > static_cast<float>(size)) return {0, 0, 0.0f, 0.0f};
  place = std::max(place, 0.0f);
  const auto low = static_cast<int64_t>(place);
  if (low >= size - 1) return {size - 1, size - 1, 1.0f, 0.0f};
  const float part = place - static_cast<float>(low);
  return {low, low + 1, 1.0f - part, part};
}

// The taps of all samples along one side of a region, bin by bin.
struct Side {
  std::vector<Tap> taps;
  int64_t samples;  // a bin

  void fill(float begin, float end, int64_t bins, int64_t size, const Shape& shape) {
    const float offset = shape.aligned ? 0.5f : 0.0f;
    const float first = begin * shape.scale - offset;
    float extent = end * shape.scale - offset - first;
    if (!shape.aligned) extent = std::max(extent, 1.0f);
    const float bin = extent / static_cast<float>(bins);
    samples = shape.sampling > 0
                  ? shape.sampling
                  : static_cast<int64_t>(std::ceil(extent / static_cast<float>(bins)));
    taps.clear();
    for (int64_t i = 0; i < bins; ++i)
      for (int64_t s = 0; s < samples; ++s)
        taps.push_back(tap(first + static_cast<float>(i) * bin +
                               (static_cast<float>(s) + 0.5f) * bin / static_cast<float>(samples),
                           size));
  }
};

// Calls visit(bin, pixel, weight) for every pixel that a region's bins read, several times for some.
template <typename Visit>
void visit_region(const float* region, Side& vertical, Side& horizontal, const Shape& shape,
                  Visit visit) {
  horizontal.fill(region[1], region[3], shape.columns, shape.width, shape);
  vertical.fill(region[2], region[4], shape.rows, shape.height, shape);
  const int64_t count = vertical.samples * horizontal.samples;
  if (count <= 0) return;
  const float share = 1.0f / static_cast<float>(count);
  const int64_t image = static_cast<int64_t>(region[0]) * shape.height * shape.width;
  for (int64_t row = 0; row < shape.rows; ++row)
    for (int64_t column = 0; column < shape.columns; ++column)
      for (int64_t i = 0; i < vertical.samples; ++i) {
        const Tap& y = vertical.taps[row * vertical.samples + i];
        for (int64_t j = 0; j < horizontal.samples; ++j) {
          const Tap& x = horizontal.taps[column * horizontal.samples + j];
          const int64_t bin = row * shape.columns + column;
          const int64_t above = image + y.low * shape.width, below = image + y.high * shape.width;
          const float weights[] = {y.at_low * x.at_low, y.at_low * x.at_high,
                                   y.at_high * x.at_low, y.at_high * x.at_high};
          const int64_t pixels[] = {above + x.low, above + x.high, below + x.low, below + x.high};
          for (int k = 0; k < 4; ++k)
            if (weights[k] != 0.0f) visit(bin, pixels[k], weights[k] * share);
        }
      }
}

}  // namespace

extern "C" {

// maps (B, H, W, C) and regions (K, 5) to output (K, rows, columns, C), which is zero before.
void roi_align_forward(const float* maps, const float* regions, float* output, const int64_t* sizes,
                       float scale, bool aligned) {
  const Shape shape(sizes, scale, aligned);
#pragma omp parallel
  {
    Side vertical, horizontal;
#pragma omp for schedule(dynamic, 8)
    for (int64_t k = 0; k < shape.regions; ++k) {
      float* bins = output + k * shape.rows * shape.columns * shape.channels;
      visit_region(regions + 5 * k, vertical, horizontal, shape,
                   [&](int64_t bin, int64_t pixel, float weight) {
                     float* to = bins + bin * shape.channels;
                     const float* from = maps + pixel * shape.channels;
                     for (int64_t c = 0; c < shape.channels; ++c) to[c] += weight * from[c];
                   });
    }
  }
}

// Adds the gradient of the output to that of the maps; a thread has a share of the channels.
void roi_align_backward(const float* of_output, const float* regions, float* of_maps,
                        const int64_t* sizes, float scale, bool aligned) {
  const Shape shape(sizes, scale, aligned);
#pragma omp parallel
  {
#ifdef _OPENMP
    const int64_t threads = omp_get_num_threads(), thread = omp_get_thread_num();
#else
    const int64_t threads = 1, thread = 0;
#endif
    const int64_t first = shape.channels * thread / threads;
    const int64_t last = shape.channels * (thread + 1) / threads;
    Side vertical, horizontal;
    for (int64_t k = 0; k < shape.regions; ++k) {
      const float* bins = of_output + k * shape.rows * shape.columns * shape.channels;
      visit_region(regions + 5 * k, vertical, horizontal, shape,
                   [&](int64_t bin, int64_t pixel, float weight) {
                     const float* from = bins + bin * shape.channels;
                     float* to = of_maps + pixel * shape.channels;
                     for (int64_t c = first; c < last; ++c) to[c] += weight * from[c];
                   });
    }
  }
}
}
