// The operations of this crate on a GPU that no library has in this form. nvcc makes them PTX when the crate is built.
//
// Feature maps are channels-last, (N, D, H, W, C) with C innermost, seen as rows of `channels` values. Values are f32
// or bf16, all arithmetic is f32, and every sum is taken in an order that the sizes alone decide.

#include <cuda_bf16.h>
#include <cstdint>

namespace {

// Elements that a thread loads at once: 16 bytes.
template <typename T> constexpr int WIDTH = 16 / sizeof(T);

__device__ float to_float(float x) { return x; }
__device__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ void from_float(float *to, float x) { *to = x; }
__device__ void from_float(__nv_bfloat16 *to, float x) { *to = __float2bfloat16(x); }

// V consecutive elements as floats; `at` is a multiple of V, and where V > 1 the address one of 16 bytes.
template <typename T, int V> struct Elements {
    float value[V];

    static __device__ Elements load(const T *from, size_t at) {
        Elements loaded;
        if constexpr (V == 1) {
            loaded.value[0] = to_float(from[at]);
        } else {
            uint4 bytes = *reinterpret_cast<const uint4 *>(from + at);
            const T *elements = reinterpret_cast<const T *>(&bytes);
            for (int i = 0; i < V; ++i) loaded.value[i] = to_float(elements[i]);
        }
        return loaded;
    }

    __device__ void store(T *to, size_t at) const {
        if constexpr (V == 1) {
            from_float(to + at, value[0]);
        } else {
            uint4 bytes;
            T *elements = reinterpret_cast<T *>(&bytes);
            for (int i = 0; i < V; ++i) from_float(elements + i, value[i]);
            *reinterpret_cast<uint4 *>(to + at) = bytes;
        }
    }
};

__device__ size_t thread_index() { return size_t(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ size_t thread_count() { return size_t(gridDim.x) * blockDim.x; }

// max(a + b, 0), where a NaN stays one.
template <typename T, int V> __device__ void add_relu(size_t count, const T *a, const T *b, T *y) {
    for (size_t i = thread_index(); i < count / V; i += thread_count()) {
        auto sum = Elements<T, V>::load(a, i * V);
        auto other = Elements<T, V>::load(b, i * V);
        for (int k = 0; k < V; ++k) {
            sum.value[k] += other.value[k];
            if (sum.value[k] < 0.f) sum.value[k] = 0.f;
        }
        sum.store(y, i * V);
    }
}

// The gradient where the rectified result is not zero.
template <typename T, int V> __device__ void relu_gradient(size_t count, const T *y, const T *dy, T *dx) {
    for (size_t i = thread_index(); i < count / V; i += thread_count()) {
        auto result = Elements<T, V>::load(y, i * V);
        auto gradient = Elements<T, V>::load(dy, i * V);
        for (int k = 0; k < V; ++k)
            if (result.value[k] == 0.f) gradient.value[k] = 0.f;
        gradient.store(dx, i * V);
    }
}

// The sums over the rows of one block, for two quantities per channel. A block has `blockDim.x` groups of V channels
// and `blockDim.y` rows at a time; the grid is (groups of groups, splits of the rows). `partial` is
// (splits, 2, channels). `term(row, group)` gives both quantities of V channels.
template <int V, typename Term>
__device__ void sum_rows(size_t rows, int channels, float *partial, Term term) {
    extern __shared__ float shared[];
    int group = blockIdx.x * blockDim.x + threadIdx.x;
    bool inside = group < channels / V;
    float first[V] = {}, second[V] = {};
    if (inside) {
        size_t step = size_t(gridDim.y) * blockDim.y;
        for (size_t row = size_t(blockIdx.y) * blockDim.y + threadIdx.y; row < rows; row += step)
            term(row, group, first, second);
    }
    int width = blockDim.x * V;
    float *mine = shared + (threadIdx.y * width + threadIdx.x * V) * 2;
    for (int k = 0; k < V; ++k) {
        mine[2 * k] = first[k];
        mine[2 * k + 1] = second[k];
    }
    // blockDim.y is a power of two.
    for (int half = blockDim.y / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.y < half)
            for (int k = 0; k < 2 * V; ++k) mine[k] += mine[half * width * 2 + k];
    }
    if (inside && threadIdx.y == 0) {
        float *out = partial + size_t(blockIdx.y) * 2 * channels;
        for (int k = 0; k < V; ++k) {
            out[group * V + k] = mine[2 * k];
            out[channels + group * V + k] = mine[2 * k + 1];
        }
    }
}

// Sums of x - K and (x - K)^2 with K the channel's first value: squares of values far from zero would drown the
// variance.
template <typename T, int V>
__device__ void batch_norm_sums(size_t rows, int channels, const T *x, float *partial) {
    int group = blockIdx.x * blockDim.x + threadIdx.x;
    Elements<T, V> shift = {};
    if (group < channels / V) shift = Elements<T, V>::load(x, size_t(group) * V);
    sum_rows<V>(rows, channels, partial, [&](size_t row, int group, float *first, float *second) {
        auto value = Elements<T, V>::load(x, row * channels + size_t(group) * V);
        for (int k = 0; k < V; ++k) {
            float difference = value.value[k] - shift.value[k];
            first[k] += difference;
            second[k] += difference * difference;
        }
    });
}

// Mean, biased variance and inverse deviation per channel from the partial sums, in f64.
template <typename T>
__device__ void batch_norm_statistics(size_t rows, int channels, int splits, const T *x, const float *partial,
                                      float epsilon, float *mean, float *variance, float *inverse) {
    int c = thread_index();
    if (c >= channels) return;
    double first = 0, second = 0;
    for (int split = 0; split < splits; ++split) {
        first += partial[size_t(split) * 2 * channels + c];
        second += partial[(size_t(split) * 2 + 1) * channels + c];
    }
    double offset = first / rows;
    double spread = second / rows - offset * offset;
    // Rounding can take it below zero where all values are equal; a NaN stays one.
    if (spread < 0) spread = 0;
    mean[c] = float(to_float(x[c]) + offset);
    variance[c] = float(spread);
    inverse[c] = float(1.0 / sqrt(spread + double(epsilon)));
}

// y = gamma (x - mean) inverse + beta, rectified with `relu`.
template <typename T, int V>
__device__ void batch_norm(size_t rows, int channels, const T *x, const float *mean, const float *inverse,
                           const float *gamma, const float *beta, int relu, T *y) {
    int groups = channels / V;
    for (size_t i = thread_index(); i < rows * groups; i += thread_count()) {
        int c = int(i % groups) * V;
        auto value = Elements<T, V>::load(x, i * V);
        for (int k = 0; k < V; ++k) {
            float scaled = (value.value[k] - mean[c + k]) * (gamma[c + k] * inverse[c + k]) + beta[c + k];
            value.value[k] = relu && scaled < 0.f ? 0.f : scaled;
        }
        value.store(y, i * V);
    }
}

// Whether the gradient of a value passes the rectifier: computed again from x, which saves reading the result.
__device__ bool passes(float x, float mean, float scale, float beta, int relu) {
    return !relu || !((x - mean) * scale + beta <= 0.f);
}

// Sums of the passed gradient, and of it times the normalised input: the gradients of beta and gamma.
template <typename T, int V>
__device__ void batch_norm_gradient_sums(size_t rows, int channels, const T *x, const T *dy, const float *mean,
                                         const float *inverse, const float *gamma, const float *beta, int relu,
                                         float *partial) {
    sum_rows<V>(rows, channels, partial, [&](size_t row, int group, float *first, float *second) {
        size_t at = row * channels + size_t(group) * V;
        auto value = Elements<T, V>::load(x, at);
        auto gradient = Elements<T, V>::load(dy, at);
        for (int k = 0; k < V; ++k) {
            int c = group * V + k;
            float passed =
                passes(value.value[k], mean[c], gamma[c] * inverse[c], beta[c], relu) ? gradient.value[k] : 0.f;
            first[k] += passed;
            second[k] += passed * ((value.value[k] - mean[c]) * inverse[c]);
        }
    });
}

// dx = gamma inverse (dy - sum(dy) / rows - x_hat sum(dy x_hat) / rows), the means only where the statistics follow
// the input (`follow`).
template <typename T, int V>
__device__ void batch_norm_gradient(size_t rows, int channels, const T *x, const T *dy, const float *mean,
                                    const float *inverse, const float *gamma, const float *beta, const float *dgamma,
                                    const float *dbeta, int relu, int follow, T *dx) {
    int groups = channels / V;
    float share = follow ? 1.f / float(rows) : 0.f;
    for (size_t i = thread_index(); i < rows * groups; i += thread_count()) {
        int first = int(i % groups) * V;
        auto value = Elements<T, V>::load(x, i * V);
        auto gradient = Elements<T, V>::load(dy, i * V);
        for (int k = 0; k < V; ++k) {
            int c = first + k;
            float scale = gamma[c] * inverse[c];
            float passed = passes(value.value[k], mean[c], scale, beta[c], relu) ? gradient.value[k] : 0.f;
            float normalised = (value.value[k] - mean[c]) * inverse[c];
            gradient.value[k] = scale * (passed - share * (dbeta[c] + normalised * dgamma[c]));
        }
        gradient.store(dx, i * V);
    }
}

// The sizes of one unfolding. Triples are along D, H, W. `target` is the grid whose positions are the rows, `source`
// the one that is read.
struct Unfolding {
    int target[3], source[3], kernel[3], stride[3], padding[3];
    int channels;
};

// Row r of `columns` is, for each tap in order, the `channels` values that the kernel lies on at position first + r of
// one sample; zero outside. With TRANSPOSED it is what the transposed convolution reads: target and source change
// roles, and a tap meets a source only at multiples of the stride.
template <typename T, bool TRANSPOSED>
__device__ void unfold(Unfolding u, size_t first, size_t rows, const T *source, T *columns) {
    int taps = u.kernel[0] * u.kernel[1] * u.kernel[2];
    size_t total = rows * taps * u.channels;
    for (size_t i = thread_index(); i < total; i += thread_count()) {
        int channel = int(i % u.channels);
        int tap = int(i / u.channels % taps);
        size_t position = first + i / u.channels / taps;
        int offset[3] = {tap / (u.kernel[1] * u.kernel[2]), tap / u.kernel[2] % u.kernel[1], tap % u.kernel[2]};
        int place[3] = {int(position / (size_t(u.target[1]) * u.target[2])),
                        int(position / u.target[2] % u.target[1]), int(position % u.target[2])};
        bool inside = true;
        size_t voxel = 0;
        for (int axis = 0; axis < 3; ++axis) {
            int at;
            if (TRANSPOSED) {
                int met = place[axis] + u.padding[axis] - offset[axis];
                inside = inside && met >= 0 && met % u.stride[axis] == 0;
                at = met / u.stride[axis];
            } else {
                at = place[axis] * u.stride[axis] - u.padding[axis] + offset[axis];
            }
            inside = inside && at >= 0 && at < u.source[axis];
            voxel = voxel * u.source[axis] + at;
        }
        if (inside) columns[i] = source[voxel * u.channels + channel];
        else from_float(columns + i, 0.f);
    }
}

// The sizes of one pooling. Triples are along D, H, W.
struct Windows {
    int input[3], output[3], kernel[3], stride[3], padding[3];
    int channels;
};

// The voxels of the input that a position of the output looks at along one axis: `start` up to `end`.
__device__ void window(const Windows &w, int axis, int position, int &start, int &end) {
    start = position * w.stride[axis] - w.padding[axis];
    end = start + w.kernel[axis];
    if (start < 0) start = 0;
    if (end > w.input[axis]) end = w.input[axis];
}

// The place of the first largest value of a window in its sample, and the value; a NaN is the largest value.
template <typename T>
__device__ size_t largest(const Windows &w, const T *sample, int channel, const int position[3], float &value) {
    int start[3], end[3];
    for (int axis = 0; axis < 3; ++axis) window(w, axis, position[axis], start[axis], end[axis]);
    size_t best = 0;
    bool found = false;
    for (int d = start[0]; d < end[0]; ++d)
        for (int h = start[1]; h < end[1]; ++h)
            for (int x = start[2]; x < end[2]; ++x) {
                size_t at = ((size_t(d) * w.input[1] + h) * w.input[2] + x) * w.channels + channel;
                float here = to_float(sample[at]);
                if (!found || here > value || (here != here && value == value)) {
                    found = true;
                    best = at;
                    value = here;
                }
            }
    return best;
}

// An element's channel, its place along D, H, W of a grid, and its sample.
__device__ size_t locate(size_t element, int channels, const int grid[3], int &channel, int place[3]) {
    channel = int(element % channels);
    element /= channels;
    for (int axis = 2; axis >= 0; --axis) {
        place[axis] = int(element % grid[axis]);
        element /= grid[axis];
    }
    return element;
}

__device__ size_t sample_size(const Windows &w, const int grid[3]) {
    return size_t(grid[0]) * grid[1] * grid[2] * w.channels;
}

template <typename T> __device__ void max_pool(Windows w, size_t total, const T *x, T *y) {
    for (size_t i = thread_index(); i < total; i += thread_count()) {
        int channel, place[3];
        size_t sample = locate(i, w.channels, w.output, channel, place);
        float value = 0.f;
        largest(w, x + sample * sample_size(w, w.input), channel, place, value);
        from_float(y + i, value);
    }
}

template <typename T> __device__ void average_pool(Windows w, size_t total, const T *x, T *y) {
    float share = 1.f / float(w.kernel[0] * w.kernel[1] * w.kernel[2]);
    for (size_t i = thread_index(); i < total; i += thread_count()) {
        int channel, place[3], start[3], end[3];
        size_t sample = locate(i, w.channels, w.output, channel, place);
        for (int axis = 0; axis < 3; ++axis) window(w, axis, place[axis], start[axis], end[axis]);
        const T *from = x + sample * sample_size(w, w.input) + channel;
        float sum = 0.f;
        for (int d = start[0]; d < end[0]; ++d)
            for (int h = start[1]; h < end[1]; ++h)
                for (int v = start[2]; v < end[2]; ++v)
                    sum += to_float(from[((size_t(d) * w.input[1] + h) * w.input[2] + v) * w.channels]);
        from_float(y + i, sum * share);
    }
}

// The gradient of every voxel, collected from the windows that it lies in: of those whose largest value it is, or of
// all in equal shares. Nothing is added in memory, so that the order is fixed.
template <typename T, bool MAX>
__device__ void pool_gradient(Windows w, size_t total, const T *x, const T *dy, T *dx) {
    float share = MAX ? 1.f : 1.f / float(w.kernel[0] * w.kernel[1] * w.kernel[2]);
    for (size_t i = thread_index(); i < total; i += thread_count()) {
        int channel, place[3], first[3], last[3];
        size_t sample = locate(i, w.channels, w.input, channel, place);
        for (int axis = 0; axis < 3; ++axis) {
            // Windows p with p stride - padding <= place < p stride - padding + kernel.
            int padded = place[axis] + w.padding[axis];
            first[axis] = padded < w.kernel[axis] ? 0 : (padded - w.kernel[axis]) / w.stride[axis] + 1;
            last[axis] = padded / w.stride[axis];
            if (last[axis] >= w.output[axis]) last[axis] = w.output[axis] - 1;
        }
        const T *values = x + sample * sample_size(w, w.input);
        const T *gradients = dy + sample * sample_size(w, w.output) + channel;
        size_t mine = i - sample * sample_size(w, w.input);
        float sum = 0.f;
        for (int d = first[0]; d <= last[0]; ++d)
            for (int h = first[1]; h <= last[1]; ++h)
                for (int v = first[2]; v <= last[2]; ++v) {
                    int position[3] = {d, h, v};
                    float value = 0.f;
                    if (!MAX || largest(w, values, channel, position, value) == mine)
                        sum += to_float(gradients[((size_t(d) * w.output[1] + h) * w.output[2] + v) * w.channels]);
                }
        from_float(dx + i, sum * share);
    }
}

} // namespace

#define FOR_TYPE(NAME, T, V)                                                                                           \
    extern "C" __global__ void add_relu_##NAME(size_t count, const T *a, const T *b, T *y) {                          \
        add_relu<T, V>(count, a, b, y);                                                                                \
    }                                                                                                                  \
    extern "C" __global__ void relu_gradient_##NAME(size_t count, const T *y, const T *dy, T *dx) {                   \
        relu_gradient<T, V>(count, y, dy, dx);                                                                         \
    }                                                                                                                  \
    extern "C" __global__ void batch_norm_sums_##NAME(size_t rows, int channels, const T *x, float *partial) {        \
        batch_norm_sums<T, V>(rows, channels, x, partial);                                                             \
    }                                                                                                                  \
    extern "C" __global__ void batch_norm_##NAME(size_t rows, int channels, const T *x, const float *mean,            \
                                                 const float *inverse, const float *gamma, const float *beta,         \
                                                 int relu, T *y) {                                                     \
        batch_norm<T, V>(rows, channels, x, mean, inverse, gamma, beta, relu, y);                                      \
    }                                                                                                                  \
    extern "C" __global__ void batch_norm_gradient_sums_##NAME(                                                       \
        size_t rows, int channels, const T *x, const T *dy, const float *mean, const float *inverse,                  \
        const float *gamma, const float *beta, int relu, float *partial) {                                             \
        batch_norm_gradient_sums<T, V>(rows, channels, x, dy, mean, inverse, gamma, beta, relu, partial);              \
    }                                                                                                                  \
    extern "C" __global__ void batch_norm_gradient_##NAME(                                                            \
        size_t rows, int channels, const T *x, const T *dy, const float *mean, const float *inverse,                  \
        const float *gamma, const float *beta, const float *dgamma, const float *dbeta, int relu, int follow,          \
        T *dx) {                                                                                                       \
        batch_norm_gradient<T, V>(rows, channels, x, dy, mean, inverse, gamma, beta, dgamma, dbeta, relu, follow,      \
                                  dx);                                                                                 \
    }

FOR_TYPE(f32, float, 1)
FOR_TYPE(f32_wide, float, WIDTH<float>)
FOR_TYPE(bf16, __nv_bfloat16, 1)
FOR_TYPE(bf16_wide, __nv_bfloat16, WIDTH<__nv_bfloat16>)

#define FOR_ELEMENT(NAME, T)                                                                                           \
    extern "C" __global__ void batch_norm_statistics_##NAME(size_t rows, int channels, int splits, const T *x,        \
                                                            const float *partial, float epsilon, float *mean,         \
                                                            float *variance, float *inverse) {                         \
        batch_norm_statistics<T>(rows, channels, splits, x, partial, epsilon, mean, variance, inverse);                \
    }                                                                                                                  \
    extern "C" __global__ void unfold_##NAME(Unfolding u, size_t first, size_t rows, const T *source, T *columns) {   \
        unfold<T, false>(u, first, rows, source, columns);                                                             \
    }                                                                                                                  \
    extern "C" __global__ void unfold_transposed_##NAME(Unfolding u, size_t first, size_t rows, const T *source,      \
                                                        T *columns) {                                                  \
        unfold<T, true>(u, first, rows, source, columns);                                                              \
    }                                                                                                                  \
    extern "C" __global__ void max_pool_##NAME(Windows w, size_t total, const T *x, T *y) {                            \
        max_pool<T>(w, total, x, y);                                                                                   \
    }                                                                                                                  \
    extern "C" __global__ void average_pool_##NAME(Windows w, size_t total, const T *x, T *y) {                        \
        average_pool<T>(w, total, x, y);                                                                               \
    }                                                                                                                  \
    extern "C" __global__ void max_pool_gradient_##NAME(Windows w, size_t total, const T *x, const T *dy, T *dx) {     \
        pool_gradient<T, true>(w, total, x, dy, dx);                                                                   \
    }                                                                                                                  \
    extern "C" __global__ void average_pool_gradient_##NAME(Windows w, size_t total, const T *x, const T *dy, T *dx) { \
        pool_gradient<T, false>(w, total, x, dy, dx);                                                                  \
    }                                                                                                                  \
    extern "C" __global__ void by_tap_##NAME(int outputs, int taps, int channels, const T *weight, T *ordered) {       \
        size_t total = size_t(outputs) * taps * channels;                                                              \
        for (size_t i = thread_index(); i < total; i += thread_count()) {                                              \
            size_t output = i / channels % outputs, tap = i / channels / outputs;                                      \
            ordered[i] = weight[(output * taps + tap) * channels + i % channels];                                      \
        }                                                                                                              \
    }                                                                                                                  \
    extern "C" __global__ void round_##NAME(size_t count, const float *from, T *to) {                                  \
        for (size_t i = thread_index(); i < count; i += thread_count()) from_float(to + i, from[i]);                   \
    }

FOR_ELEMENT(f32, float)
FOR_ELEMENT(bf16, __nv_bfloat16)

// The two totals per channel of (splits, 2, channels) partial sums, in f64.
extern "C" __global__ void total_sums(int channels, int splits, const float *partial, float *first, float *second) {
    int c = thread_index();
    if (c >= channels) return;
    double totals[2] = {0, 0};
    for (int split = 0; split < splits; ++split)
        for (int which = 0; which < 2; ++which) totals[which] += partial[(size_t(split) * 2 + which) * channels + c];
    first[c] = float(totals[0]);
    second[c] = float(totals[1]);
}

// One pass over a variable, its gradient and its two moments; of each moment, what remains and the share of what is new.
extern "C" __global__ void adamw(size_t count, const float *gradient, float factor, float first_remains,
                                 float first_share, float second_remains, float second_share, float decay, float rate,
                                 float deviation, float epsilon, float *weight, float *first, float *second) {
    for (size_t i = thread_index(); i < count; i += thread_count()) {
        float g = gradient[i] * factor;
        float mean = first[i] = first_remains * first[i] + first_share * g;
        float square = second[i] = second_remains * second[i] + second_share * g * g;
        weight[i] = weight[i] * decay - rate * mean / (sqrtf(square) * deviation + epsilon);
    }
}

// One pass over a variable, its gradient and its momentum.
extern "C" __global__ void sgd(size_t count, const float *gradient, float factor, float decay, float remains,
                               int nesterov, float rate, float *weight, float *momentum) {
    for (size_t i = thread_index(); i < count; i += thread_count()) {
        float g = gradient[i] * factor + decay * weight[i];
        float moved = momentum[i] = remains * momentum[i] + g;
        weight[i] -= rate * (nesterov ? g + remains * moved : moved);
    }
}
