/* What a step of a layer does beside its matrix product, in one pass over each sample's units; and,
   in runs.c, all steps at once.

   Compiled once for each type: with DOUBLE for double precision, or else for single. Arrays are
   contiguous; a mask that is NULL is whole. */

#include <stddef.h>
#include <stdint.h>

#ifdef DOUBLE
#define REAL double
#define INT int64_t
#define WORD uint64_t
#define BIAS 1023
#define MANTISSA 52
#define LARGEST 700.0
#define TO_BASE_2 1.44269504088896340736
#define LN2_HIGH 0.69314718036912381649
#define LN2_LOW 1.9082149292705877e-10
#define ROUND 6755399441055744.0
#define TERMS 14
#else
#define REAL float
#define INT int32_t
#define WORD uint32_t
#define BIAS 127
#define MANTISSA 23
#define LARGEST 87.0f
#define TO_BASE_2 1.44269504088896341f
#define LN2_HIGH 0.693145751953125f
#define LN2_LOW 1.42860682030941723e-6f
#define ROUND 12582912.0f
#define TERMS 7
#endif

/* Before a loop whose iterations depend on none before, though its arrays may be the same. */
#ifdef __clang__
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define INDEPENDENT _Pragma("GCC ivdep")
#endif

#define UNITS for (int64_t j = 0; j < size; j++)
#define SAMPLES for (int64_t b = part.from; b < part.to; b++)
#define MASK(site) mask(layer, site, t, b)

/* The arrays of a layer; what has a step's part begins at its step t. Masks that are the same at
   every step have a stride of 0. */
typedef struct {
    int64_t batch, size;
    void *acts;     /* [T, B, 4H] of an LSTM; [T, B, 3H] of a GRU */
    void *hs;       /* [T, B, H] */
    void *cs;       /* [T or 1, B, H]; of a GRU, what the hidden state brings to n */
    void *squashed; /* [T or 1, B, H]: tanh of the new c */
    void *seen;     /* [B, H]: h on its way into the next step's product */
    void *h0, *c0;  /* [B, H] */
    void *scratch;  /* [3H] for each thread */
    int64_t kept;   /* how far from step to step in cs and squashed: B * H, or 0 */
    void *masks[6]; /* hidden, candidate, cell, state, hidden_update, cell_update */
    int64_t strides[6];
    void *d_hs;      /* [T, B, H]: the gradients of every h from outside */
    void *d_gates;   /* [T, B, 4H]; of an LSTM it may be `acts`, whose gates it then takes over */
    void *d_h, *d_c; /* [B, H]: what goes on from step to step; of h, but the product's part */
} Layer;

/* The samples that are taken through a step, and the room for it, [3H]. */
typedef struct {
    int64_t from, to;
    void *scratch;
} Part;

enum { HIDDEN, CANDIDATE, CELL, STATE, HIDDEN_UPDATE, CELL_UPDATE };

/* 1 / k! */
static const REAL one_by[] = {
    1, 1, 1. / 2, 1. / 6, 1. / 24, 1. / 120, 1. / 720, 1. / 5040, 1. / 40320, 1. / 362880,
    1. / 3628800, 1. / 39916800, 1. / 479001600, 1. / 6227020800, 1. / 87178291200
};

/* e^y - 1, to within some units in the last place, near 0 too: y = n ln 2 + r, and a series in r.
   A NaN stays one. */
static inline REAL real_expm1(REAL y) {
    y = y > LARGEST ? LARGEST : y;
    y = y < -LARGEST ? -LARGEST : y;
    REAL n = (y * TO_BASE_2 + ROUND) - ROUND;
    REAL r = (y - n * LN2_HIGH) - n * LN2_LOW;
    REAL sum = one_by[TERMS];
    for (int k = TERMS - 1; k > 0; k--) sum = sum * r + one_by[k];
    sum *= r;
    union { INT bits; REAL value; } power;
    power.bits = (INT)((WORD)((INT)n + BIAS) << MANTISSA); /* of a NaN, whatever it gives */
    return power.value * sum + (power.value - 1);
}

static inline REAL real_sigmoid(REAL x) { return 1 / (2 + real_expm1(-x)); }

static inline REAL real_tanh(REAL x) {
    REAL e = real_expm1(-2 * x);
    return -e / (2 + e);
}

static inline const REAL *mask(const Layer *layer, int site, int64_t t, int64_t b) {
    const REAL *mask = layer->masks[site];
    return mask ? mask + t * layer->strides[site] + b * layer->size : NULL;
}

/* What leaves a step from h~ in h: masked, zoned out, and seen by the step `next`. */
static inline void leave(
    const Layer *layer, REAL *restrict h, const REAL *restrict before, int64_t t, int64_t next,
    int64_t b
) {
    const int64_t size = layer->size;
    const REAL *state = MASK(STATE), *update = MASK(HIDDEN_UPDATE);
    if (state) UNITS h[j] *= state[j];
    if (update) UNITS h[j] += update[j] * (before[j] - h[j]);
    if (next < 0) return;
    const REAL *hidden = mask(layer, HIDDEN, next, b);
    REAL *restrict seen = (REAL *)layer->seen + b * size;
    if (hidden) UNITS seen[j] = h[j] * hidden[j];
    else UNITS seen[j] = h[j];
}

/* The gradient of h~ of step t, into d_new [H]: from outside, from what was zoned out, and through
   the gates of the step `later`; what zoneout hands on stays in d_h. */
static inline void reach(
    const Layer *layer, REAL *restrict d_new, int64_t t, int64_t later,
    const REAL *restrict product, int64_t b
) {
    const int64_t size = layer->size;
    const REAL *restrict pull = (REAL *)layer->d_hs + (t * layer->batch + b) * size;
    REAL *restrict d_h = (REAL *)layer->d_h + b * size;
    const REAL *state = MASK(STATE), *update = MASK(HIDDEN_UPDATE);
    UNITS d_new[j] = pull[j] + d_h[j];
    if (later >= 0) {
        const REAL *hidden = mask(layer, HIDDEN, later, b);
        const REAL *restrict back = product + b * size;
        if (hidden) UNITS d_new[j] += back[j] * hidden[j];
        else UNITS d_new[j] += back[j];
    }
    if (update) {
        UNITS d_h[j] = d_new[j] * update[j];
        UNITS d_new[j] -= d_h[j];
    } else {
        UNITS d_h[j] = 0;
    }
    if (state) UNITS d_new[j] *= state[j];
}

/* What h0 is seen as by the first step. */
static void start_part(const Layer *layer, Part part, int64_t t) {
    const int64_t size = layer->size;
    SAMPLES {
        const REAL *h = (REAL *)layer->h0 + b * size, *hidden = MASK(HIDDEN);
        REAL *restrict seen = (REAL *)layer->seen + b * size;
        if (hidden) UNITS seen[j] = h[j] * hidden[j];
        else UNITS seen[j] = h[j];
    }
}

/* Step t, that comes after step `last` and before step `next` (each -1 where there is none);
   `product` is what the hidden state brings to the gates, [B, 4H]. */
static void lstm_part(
    const Layer *layer, Part part, int64_t t, int64_t last, int64_t next,
    const REAL *restrict product
) {
    const int64_t size = layer->size, all = layer->batch * size;
    REAL *restrict new_c = part.scratch;
    SAMPLES {
        const REAL *brought = product + 4 * b * size;
        REAL *restrict i = (REAL *)layer->acts + 4 * (t * all + b * size);
        REAL *restrict f = i + size, *restrict g = f + size, *restrict o = g + size;
        const REAL *h_before =
            last < 0 ? (REAL *)layer->h0 + b * size : (REAL *)layer->hs + last * all + b * size;
        const REAL *c_before = last < 0 ? (REAL *)layer->c0 + b * size
                                        : (REAL *)layer->cs + last * layer->kept + b * size;
        REAL *restrict h = (REAL *)layer->hs + t * all + b * size;
        REAL *c = (REAL *)layer->cs + t * layer->kept + b * size;
        REAL *restrict squashed = (REAL *)layer->squashed + t * layer->kept + b * size;
        UNITS i[j] = real_sigmoid(i[j] + brought[j]);
        UNITS f[j] = real_sigmoid(f[j] + brought[size + j]);
        UNITS g[j] = real_tanh(g[j] + brought[2 * size + j]);
        UNITS o[j] = real_sigmoid(o[j] + brought[3 * size + j]);
        const REAL *candidate = MASK(CANDIDATE), *cell = MASK(CELL), *update = MASK(CELL_UPDATE);
        if (candidate) UNITS new_c[j] = f[j] * c_before[j] + i[j] * candidate[j] * g[j];
        else UNITS new_c[j] = f[j] * c_before[j] + i[j] * g[j];
        if (cell) UNITS new_c[j] *= cell[j];
        UNITS squashed[j] = real_tanh(new_c[j]);
        UNITS h[j] = o[j] * squashed[j];
        if (update) UNITS c[j] = new_c[j] + update[j] * (c_before[j] - new_c[j]);
        else UNITS c[j] = new_c[j];
        leave(layer, h, h_before, t, next, b);
    }
}

/* Step t of the backward pass, which step `later` came before (-1 if none); `product` is what
   reaches h_t through that step's gates, [B, H]. `earlier` is the step before t, -1 if none. */
static void lstm_backward_part(
    const Layer *layer, Part part, int64_t t, int64_t later, int64_t earlier,
    const REAL *restrict product
) {
    const int64_t size = layer->size, all = layer->batch * size;
    SAMPLES {
        const REAL *i = (REAL *)layer->acts + 4 * (t * all + b * size);
        const REAL *f = i + size, *g = f + size, *o = g + size;
        const REAL *restrict c_before = earlier < 0 ? (REAL *)layer->c0 + b * size
                                                    : (REAL *)layer->cs + earlier * all + b * size;
        const REAL *restrict squashed = (REAL *)layer->squashed + t * all + b * size;
        REAL *d_i = (REAL *)layer->d_gates + 4 * (t * all + b * size);
        REAL *d_f = d_i + size, *d_g = d_f + size, *d_o = d_g + size;
        REAL *restrict d_c = (REAL *)layer->d_c + b * size;
        REAL *restrict d_new = part.scratch;
        REAL *restrict kept = d_new + size, *restrict added = kept + size;
        const REAL *candidate = MASK(CANDIDATE), *cell = MASK(CELL);
        const REAL *c_update = MASK(CELL_UPDATE);
        reach(layer, d_new, t, later, product, b);
        if (c_update) UNITS kept[j] = d_c[j] * c_update[j];
        else UNITS kept[j] = 0;
        UNITS d_c[j] += d_new[j] * o[j] * (1 - squashed[j] * squashed[j]) - kept[j];
        if (cell) UNITS d_c[j] *= cell[j];
        if (candidate) UNITS added[j] = d_c[j] * candidate[j];
        else UNITS added[j] = d_c[j];
        /* All of a unit's gates are read before one is written: both may be the same memory. */
        INDEPENDENT
        UNITS {
            const REAL i_t = i[j], f_t = f[j], g_t = g[j], o_t = o[j];
            d_i[j] = added[j] * g_t * i_t * (1 - i_t);
            d_f[j] = d_c[j] * c_before[j] * f_t * (1 - f_t);
            d_g[j] = added[j] * i_t * (1 - g_t * g_t);
            d_o[j] = d_new[j] * squashed[j] * o_t * (1 - o_t);
            d_c[j] = d_c[j] * f_t + kept[j];
        }
    }
}

/* As lstm; `product` is [B, 3H]. */
static void gru_part(
    const Layer *layer, Part part, int64_t t, int64_t last, int64_t next,
    const REAL *restrict product
) {
    const int64_t size = layer->size, all = layer->batch * size;
    SAMPLES {
        const REAL *restrict to_r = product + 3 * b * size;
        const REAL *restrict to_z = to_r + size, *restrict to_n = to_z + size;
        REAL *restrict r = (REAL *)layer->acts + 3 * (t * all + b * size);
        REAL *restrict z = r + size, *restrict n = z + size;
        const REAL *before =
            last < 0 ? (REAL *)layer->h0 + b * size : (REAL *)layer->hs + last * all + b * size;
        REAL *restrict h = (REAL *)layer->hs + t * all + b * size;
        REAL *restrict brought = (REAL *)layer->cs + t * layer->kept + b * size;
        const REAL *candidate = MASK(CANDIDATE);
        UNITS r[j] = real_sigmoid(r[j] + to_r[j]);
        UNITS z[j] = real_sigmoid(z[j] + to_z[j]);
        UNITS brought[j] = to_n[j];
        UNITS n[j] = real_tanh(n[j] + r[j] * to_n[j]);
        if (candidate) UNITS h[j] = (1 - z[j]) * (n[j] * candidate[j]) + z[j] * before[j];
        else UNITS h[j] = (1 - z[j]) * n[j] + z[j] * before[j];
        leave(layer, h, before, t, next, b);
    }
}

/* As lstm_backward; the gradients of n, r, z, and of the part of n that r falls on. */
static void gru_backward_part(
    const Layer *layer, Part part, int64_t t, int64_t later, int64_t earlier,
    const REAL *restrict product
) {
    const int64_t size = layer->size, all = layer->batch * size;
    SAMPLES {
        const REAL *restrict r = (REAL *)layer->acts + 3 * (t * all + b * size);
        const REAL *restrict z = r + size, *restrict n = z + size;
        const REAL *restrict before = earlier < 0 ? (REAL *)layer->h0 + b * size
                                                  : (REAL *)layer->hs + earlier * all + b * size;
        const REAL *restrict brought = (REAL *)layer->cs + t * all + b * size;
        REAL *restrict d_n = (REAL *)layer->d_gates + 4 * (t * all + b * size);
        REAL *restrict d_r = d_n + size, *restrict d_z = d_r + size, *restrict d_b = d_z + size;
        REAL *restrict d_h = (REAL *)layer->d_h + b * size;
        REAL *restrict d_new = part.scratch, *restrict scale = d_new + size;
        const REAL *candidate = MASK(CANDIDATE);
        reach(layer, d_new, t, later, product, b);
        if (candidate) UNITS scale[j] = candidate[j];
        else UNITS scale[j] = 1;
        UNITS d_n[j] = d_new[j] * (1 - z[j]) * scale[j] * (1 - n[j] * n[j]);
        UNITS d_z[j] = d_new[j] * (before[j] - n[j] * scale[j]) * z[j] * (1 - z[j]);
        UNITS d_b[j] = d_n[j] * r[j];
        UNITS d_r[j] = d_b[j] * brought[j] * (1 - r[j]);
        UNITS d_h[j] += d_new[j] * z[j];
    }
}

/* Each of them for all samples. */
static inline Part whole(const Layer *layer) {
    return (Part){0, layer->batch, layer->scratch};
}

void start(const Layer *layer, int64_t t) { start_part(layer, whole(layer), t); }

#define STEP(name)                                                                             \
    void name(                                                                                 \
        const Layer *layer, int64_t t, int64_t before, int64_t after, const REAL *product      \
    ) {                                                                                        \
        name##_part(layer, whole(layer), t, before, after, product);                           \
    }
STEP(lstm)
STEP(lstm_backward)
STEP(gru)
STEP(gru_backward)

#include "threads.c"
#include "products.c"
#include "runs.c"
