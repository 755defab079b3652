// y = x W^T for few tokens, straight from packed weights: the sums of multiplication.py, in one pass over the bytes.
//
// The lanes of a vector sum different parts of a row and are added up once, at its end. Vectors are those of gcc and
// clang, which split what a machine does not have. Built by native.py, one function per format and path.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>
#ifdef __x86_64__
#include <immintrin.h>
#endif

using i8x32 = int8_t __attribute__((vector_size(32)));
using u8x32 = uint8_t __attribute__((vector_size(32)));
using u64x4 = uint64_t __attribute__((vector_size(32)));
using i8x16 = int8_t __attribute__((vector_size(16)));
using i16x16 = int16_t __attribute__((vector_size(32)));
using u8x8 = uint8_t __attribute__((vector_size(8)));
using i32x16 = int32_t __attribute__((vector_size(64)));
using i32x8 = int32_t __attribute__((vector_size(32)));
using f32x8 = float __attribute__((vector_size(32)));
using f32x16 = float __attribute__((vector_size(64)));

constexpr int AHEAD = 2048;  // bytes that are asked for before they are needed: twice as fast as waiting for memory
constexpr int GROUP = 4;     // tokens that share the unpacking of a row

template <class V> static inline V load(const void *p) {
    V v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline float half(const uint8_t *p) {
#ifdef __F16C__  // what gcc makes of _Float16 waits for the conversion before
    return _cvtsh_ss(load<uint16_t>(p));
#else
    return load<_Float16>(p);
#endif
}

static inline float to_half_and_back(float x) {
#ifdef __F16C__
    return _cvtsh_ss(_cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT));
#else
    return (_Float16)x;
#endif
}

// sum, plus in each lane four products of neighbours. The sums of products in between fit their integers.
static inline i32x8 dot4(i32x8 sum, u8x32 a, i8x32 b) {
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
    return (i32x8)_mm256_dpbusd_epi32((__m256i)sum, (__m256i)a, (__m256i)b);
#elif defined(__AVXVNNI__)
    return (i32x8)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)a, (__m256i)b);
#elif defined(__AVX2__)  // two products of 255 * 128 would not fit 16 bits, those of 127 and of 128 do
    __m256i low = _mm256_maddubs_epi16((__m256i)(a & 127), (__m256i)b), one = _mm256_set1_epi16(1);
    __m256i high = _mm256_maddubs_epi16((__m256i)(a & 128), (__m256i)b);
    return sum + (i32x8)_mm256_madd_epi16(low, one) + (i32x8)_mm256_madd_epi16(high, one);
#else
    for (int i = 0; i < 32; i++) sum[i / 4] += a[i] * b[i];
    return sum;
#endif
}

static inline u8x32 nibbles(const uint8_t *p) {
    uint64_t a = load<uint64_t>(p), b = load<uint64_t>(p + 8);
    return (u8x32)(u64x4{a, b, a, b} >> u64x4{0, 0, 4, 4}) & 15;
}

static inline f32x16 to_float(const void *codes) {
#ifdef __AVX512F__
    return (f32x16)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)codes)));
#endif
    // step by step: gcc converts one by one what takes a leap
    i16x16 words = __builtin_convertvector(load<i8x16>(codes), i16x16);
    return __builtin_convertvector(__builtin_convertvector(words, i32x16), f32x16);
}

// A format: the bytes and weights of a block, the weights that share a step, and x = d * step * (code - zero). `codes`
// gives 32 of a block as unsigned bytes; where there are minima, x is less by dmin * least.

struct Q8_0 {
    static constexpr int bytes = 34, weights = 32, sub = 32, zero = 128;
    static constexpr bool minima = false;
    const uint8_t *data;
    float d = half(data);
    float step(int) const { return 1; }
    u8x32 codes(int) const { return load<u8x32>(data + 2) ^ 128; }
};

struct Q4_0 {
    static constexpr int bytes = 18, weights = 32, sub = 32, zero = 8;
    static constexpr bool minima = false;
    const uint8_t *data;
    float d = half(data);
    float step(int) const { return 1; }
    u8x32 codes(int) const { return nibbles(data + 2); }
};

struct Q4_K {
    static constexpr int bytes = 144, weights = 256, sub = 32, zero = 0;
    static constexpr bool minima = true;
    const uint8_t *data;
    float d = half(data), dmin = half(data + 2);
    f32x8 steps, least;
    explicit Q4_K(const uint8_t *block) : data(block) {
        uint32_t a = load<uint32_t>(data + 4), b = load<uint32_t>(data + 8), c = load<uint32_t>(data + 12);
        uint32_t codes[] = {a & 0x3f3f3f3f, (c & 0x0f0f0f0f) | (a >> 2 & 0x30303030),  // as in k_bits.py
                            b & 0x3f3f3f3f, (c >> 4 & 0x0f0f0f0f) | (b >> 2 & 0x30303030)};
        steps = __builtin_convertvector(load<u8x8>(codes), f32x8);
        least = __builtin_convertvector(load<u8x8>(codes + 2), f32x8);
    }
    float step(int i) const { return steps[i]; }
    u8x32 codes(int i) const { return (load<u8x32>(data + 16 + i / 2 * 32) >> i % 2 * 4) & 15; }
};

struct Q6_K {
    static constexpr int bytes = 210, weights = 256, sub = 16, zero = 32;
    static constexpr bool minima = false;
    const uint8_t *data;
    float d = half(data + 208);
    f32x16 steps = to_float(data + 192);
    float step(int i) const { return steps[i]; }
    u8x32 codes(int i) const {
        u64x4 low = load<u64x4>(data + i / 4 * 64 + i % 2 * 32) >> i % 4 / 2 * 4;
        u64x4 high = load<u64x4>(data + 128 + i / 4 * 32);
        high = i % 4 < 2 ? high << (4 - i % 4 * 2) : high >> (i % 4 * 2 - 4);
        return ((u8x32)low & 15) | ((u8x32)high & 48);
    }
};

// Activations, bit for bit as in multiplication.py: a block's codes go to q, and its scale is returned. A NaN in amax
// stays there.

static float quantize_q8_0(const float *x, int8_t *q) {
    float amax = 0;
    for (int i = 0; i < 32; i++)
        if (float a = std::fabs(x[i]); a > amax || a != a) amax = a;
    float d = amax / 127, inverse = 1 / d;
    if (std::isinf(inverse)) inverse = 0;
    for (int i = 0; i < 32; i++) q[i] = (int)std::round(x[i] * inverse);
    return to_half_and_back(d);
}

static float quantize_q8_K(const float *x, int8_t *q) {
    float amax = 0, extreme = 0;
    for (int i = 0; i < 256; i++)
        if (float a = std::fabs(x[i]); a > amax || a != a) amax = a, extreme = x[i];
    float inverse = -127 / extreme;
    if (std::isinf(inverse)) return 0;  // and q stays 0
    for (int i = 0; i < 256; i++) q[i] = std::min(127, (int)std::nearbyint(x[i] * inverse));
    return 1 / inverse;
}

// Tokens as a path wants them: `dot` is the sum over a block of step * (code - zero) * x, in lanes that remain to be
// added up; `scale` what the block's activations were divided by; `sums` those of 32 each, which minima are times of.

template <class F> struct Integer {
    using Lanes = f32x8;
    static constexpr int size = F::weights == 256 ? 256 : 32;
    size_t n;
    std::vector<int8_t> x;
    std::vector<int32_t> start;  // what zero takes from each lane
    std::vector<float> d, sums;
    Integer(size_t tokens, size_t n, const float *values)
        : n(n), x(tokens * n), start(tokens * n / 4), d(tokens * n / size), sums(tokens * n / 32) {
        for (size_t b = 0; b < d.size(); b++)
            d[b] = (size == 256 ? quantize_q8_K : quantize_q8_0)(values + b * size, &x[b * size]);
        for (size_t i = 0; i < x.size(); i++) start[i / 4] -= F::zero * x[i], sums[i / 32] += x[i];
    }
    float scale(size_t t, size_t block) const { return d[t * (n / size) + block]; }
    Lanes dot(const F &block, u8x32 codes, int i, size_t at) const {
        i32x8 begin = F::zero ? load<i32x8>(&start[at / 4]) : i32x8{};
        f32x8 sum = __builtin_convertvector(dot4(begin, codes, load<i8x32>(&x[at])), f32x8);
        if (F::sub == 32) return sum * block.step(i);
        float a = block.step(2 * i), b = block.step(2 * i + 1);
        return sum * f32x8{a, a, a, a, b, b, b, b};
    }
};

template <class F> struct Float {
    using Lanes = f32x16;
    size_t n;
    const float *x;
    std::vector<float> sums;
    Float(size_t tokens, size_t n, const float *x) : n(n), x(x), sums(tokens * n / 32) {
        for (size_t i = 0; i < tokens * n; i++) sums[i / 32] += x[i];
    }
    float scale(size_t, size_t) const { return 1; }
    Lanes dot(const F &block, u8x32 codes, int i, size_t at) const {
        u8x32 q = codes - (uint8_t)F::zero;
        f32x16 first = to_float(&q) * load<f32x16>(x + at);
        f32x16 second = to_float((char *)&q + 16) * load<f32x16>(x + at + 16);
        if (F::sub == 32) return (first + second) * block.step(i);
        return first * block.step(2 * i) + second * block.step(2 * i + 1);
    }
};

// One row of weights and `count` tokens from t on.
template <class F, class X, int count>
static inline void row_times(const uint8_t *row, const X &x, size_t t, float *y, size_t stride) {
    typename X::Lanes sums[2][count] = {};  // of even and of odd blocks, so that one need not wait for the other
    f32x8 minima[count] = {};
    auto add = [&](size_t at, typename X::Lanes *sum) {
        const F block{row + at * F::bytes};
        typename X::Lanes dots[count] = {};
#pragma GCC unroll 8
        for (int i = 0; i < F::weights / 32; i++) {
            u8x32 codes = block.codes(i);
            for (int k = 0; k < count; k++)
                dots[k] += x.dot(block, codes, i, (t + k) * x.n + at * F::weights + i * 32);
        }
        for (int k = 0; k < count; k++) {
            float scale = x.scale(t + k, at);
            sum[k] += dots[k] * (block.d * scale);
            if constexpr (F::minima)
                minima[k] += load<f32x8>(&x.sums[((t + k) * x.n + at * F::weights) / 32]) * block.least *
                             (block.dmin * scale);
        }
    };
    size_t blocks = x.n / F::weights, at = 0;
    for (; at + 2 <= blocks; at += 2) {
        for (int i = 0; i < 2 * F::bytes; i += 64) __builtin_prefetch(row + at * F::bytes + AHEAD + i);
        add(at, sums[0]);
        add(at + 1, sums[1]);
    }
    if (at < blocks) add(at, sums[0]);
    for (int k = 0; k < count; k++) {
        float total = 0;
        for (size_t i = 0; i < sizeof sums[0][0] / 4; i++) total += sums[0][k][i] + sums[1][k][i];
        for (int i = 0; i < 8; i++) total -= minima[k][i];
        y[(t + k) * stride] = total;
    }
}

template <class F, class X>
static void matmul(const uint8_t *data, const X &x, float *y, size_t rows, size_t tokens, int threads) {
    size_t row_bytes = x.n / F::weights * F::bytes;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (size_t row = 0; row < rows; row++) {
        size_t t = 0;
        for (; t + GROUP <= tokens; t += GROUP) row_times<F, X, GROUP>(data + row * row_bytes, x, t, y + row, rows);
        for (; t < tokens; t++) row_times<F, X, 1>(data + row * row_bytes, x, t, y + row, rows);
    }
}

// data (rows, bytes), x (tokens, n), y (tokens, rows), all contiguous.
#define EXPORT(F, path, X)                                                                                            \
    extern "C" void F##_##path(const uint8_t *data, const float *x, float *y, size_t rows, size_t tokens, size_t n,   \
                               int threads) {                                                                         \
        matmul<F>(data, X<F>(tokens, n, x), y, rows, tokens, threads);                                                \
    }
EXPORT(Q8_0, integer, Integer)
EXPORT(Q8_0, float, Float)
EXPORT(Q4_0, integer, Integer)
EXPORT(Q4_0, float, Float)
EXPORT(Q4_K, integer, Integer)
EXPORT(Q4_K, float, Float)
EXPORT(Q6_K, integer, Integer)
EXPORT(Q6_K, float, Float)
