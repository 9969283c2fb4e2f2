// How many values of each sample, and at each position, are not zero, and how many are one.
#include <algorithm>
#include <cstdint>

namespace {

constexpr int64_t kTile = 256;

// Channels before positions: sums over rows that lie `positions` apart.
void over_rows(const float* x, int64_t channels, int64_t positions, int64_t width,
               int32_t* nonzeros, int64_t& all_nonzeros, int64_t& all_ones) {
    int32_t found[kTile] = {0};
    int32_t ones[kTile] = {0};
    for (int64_t c = 0; c < channels; ++c) {
        const float* row = x + c * positions;
        for (int64_t p = 0; p < width; ++p) {
            found[p] += row[p] != 0.0f;
            ones[p] += row[p] == 1.0f;
        }
    }
    for (int64_t p = 0; p < width; ++p) {
        nonzeros[p] = found[p];
        all_nonzeros += found[p];
        all_ones += ones[p];
    }
}

// Channels last: sums along each row.
void along_rows(const float* x, int64_t channels, int64_t width, int32_t* nonzeros,
                int64_t& all_nonzeros, int64_t& all_ones) {
    for (int64_t p = 0; p < width; ++p) {
        const float* row = x + p * channels;
        int32_t found = 0, ones = 0;
        for (int64_t c = 0; c < channels; ++c) {
            found += row[c] != 0.0f;
            ones += row[c] == 1.0f;
        }
        nonzeros[p] = found;
        all_nonzeros += found;
        all_ones += ones;
    }
}

}  // namespace

// x: samples of (channels, positions), or with `channels_last` of (positions, channels).
// nonzeros: (samples, positions); by_sample: (samples); both are written. Returns the ones.
extern "C" int64_t count_nonzeros(const float* x, int64_t samples, int64_t channels, int64_t positions,
                         int channels_last, int32_t* nonzeros, int64_t* by_sample, int threads) {
    const int64_t tiles = (positions + kTile - 1) / kTile;
    int64_t ones = 0;
    std::fill(by_sample, by_sample + samples, int64_t{0});
#pragma omp parallel for collapse(2) reduction(+ : ones) num_threads(threads) schedule(static)
    for (int64_t sample = 0; sample < samples; ++sample) {
        for (int64_t tile = 0; tile < tiles; ++tile) {
            const int64_t first = tile * kTile;
            const int64_t width = std::min(kTile, positions - first);
            const float* values = x + sample * channels * positions;
            int32_t* counts = nonzeros + sample * positions + first;
            int64_t found = 0;
            if (channels_last) {
                along_rows(values + first * channels, channels, width, counts, found, ones);
            } else {
                over_rows(values + first, channels, positions, width, counts, found, ones);
            }
#pragma omp atomic
            by_sample[sample] += found;
        }
    }
    return ones;
}
