/* One step of an LSTM, GRU or simple RNN without its matrix products, in one pass over each
   sample's units. sequences.c runs all steps at once.

   The file is compiled once for each type: with DOUBLE for double precision, and without it for
   single precision. Arrays are contiguous. A mask that is NULL keeps everything. */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef DOUBLE
#define REAL double
#define SIGNED int64_t
#define UNSIGNED uint64_t
#define EXPONENT_BIAS 1023
#define MANTISSA_BITS 52
#define MAX_EXPONENT 700.0
#define LOG2_E 1.44269504088896340736
#define LN2_HIGH 0.69314718036912381649
#define LN2_LOW 1.9082149292705877e-10
#define ROUNDING_SHIFT 6755399441055744.0
#define SERIES_TERMS 14
#else
#define REAL float
#define SIGNED int32_t
#define UNSIGNED uint32_t
#define EXPONENT_BIAS 127
#define MANTISSA_BITS 23
#define MAX_EXPONENT 87.0f
#define LOG2_E 1.44269504088896341f
#define LN2_HIGH 0.693145751953125f
#define LN2_LOW 1.42860682030941723e-6f
#define ROUNDING_SHIFT 12582912.0f
#define SERIES_TERMS 7
#endif

/* Placed before a loop whose iterations are independent, even if its arrays share memory. */
#ifdef __clang__
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define INDEPENDENT _Pragma("GCC ivdep")
#endif

#define EACH_UNIT for (int64_t j = 0; j < size; j++)
#define EACH_SAMPLE for (int64_t b = samples.first; b < samples.end; b++)
#define MASK(site) mask_row(layer, site, t, b)
/* A unit whose d is 1 keeps its value bit for bit. */
#define ZONEOUT(d, previous, new) ((d) * (previous) + ((REAL)1 - (d)) * (new))

/* The arrays of one layer in one direction. Arrays with a dimension T are indexed by the step t. G
   is the number of gates; P is the width of h, which is H without a projection. */
typedef struct {
    int64_t batch, size, width; /* B, H, P */
    int64_t hidden_masks;       /* N: one masked h for all gates, or one for each: 1 or G */
    int64_t input_width, chunk_steps; /* D; steps whose input is multiplied at once */
    void *x;             /* [T, B, D] */
    void *input_panels;  /* the panels of the input's weight; NULL if the gates hold its product */
    void *input_scratch; /* for each thread [chunk_steps * its samples, D + G*H] */
    void *gates;     /* LSTM [T or 1, B, 4H]: i, f, g, o; GRU [T or 1, B, 3H]: r, z, n; RNN [T or 1,
                        B, H] */
    int64_t gates_stride; /* elements from step to step in gates: B * G * H, or 0 */
    void *hs;        /* [T, B, P]: h of every step */
    void *cs;        /* LSTM [T or 1, B, H]: c of every step */
    void *tanh_cell; /* LSTM [T or 1, B, H]: tanh of the new c, before zoneout */
    void *hidden_n;  /* GRU [T or 1, B, H]: the hidden state's part of n, before r multiplies it */
    void *masked_hidden;   /* [B, N*P]: the masked h that the next matrix product takes */
    void *h0, *c0;         /* [B, P], [B, H]: the initial states */
    void *scratch;         /* [3H] for each thread */
    void *projection;      /* LSTM: the panels of the projection's weight; NULL without one */
    void *unprojected;     /* [B, H]: h of a step before the projection, or its gradient */
    void *grad_projected;  /* [T, B, P]: the gradient of every new h after the projection */
    int64_t saved_stride;  /* elements from step to step in cs, tanh_cell, hidden_n: B * H, or 0 */
    void *masks[6];        /* hidden, candidate, cell, state, hidden_update, cell_update */
    int64_t mask_strides[6]; /* elements from step to step in each mask; 0 if all steps share it */
    int64_t mask_widths[6];  /* elements from sample to sample in each mask */
    void *grad_hs;         /* [T, B, P]: the gradient of the output h of every step */
    void *grad_gates;      /* [T, B, 4H], RNN [T, B, H]; except for a GRU, it may be the same memory
                              as `gates` */
    void *grad_h, *grad_c; /* [B, P], [B, H]: the gradients that pass from step to step; grad_h
                              leaves out the part that goes through the matrix product */
} Layer;

/* The samples first to end - 1, scratch memory for them, [3H], and in the forward pass the input's
   part of their gates at a step, [end - first, G*H], which may be the same memory as the gates. */
typedef struct {
    int64_t first, end;
    void *scratch;
    const void *input_gates;
} Samples;

enum { HIDDEN, CANDIDATE, CELL, STATE, HIDDEN_UPDATE, CELL_UPDATE };

/* 1 / k! */
static const REAL inverse_factorials[] = {
    1, 1, 1. / 2, 1. / 6, 1. / 24, 1. / 120, 1. / 720, 1. / 5040, 1. / 40320, 1. / 362880,
    1. / 3628800, 1. / 39916800, 1. / 479001600, 1. / 6227020800, 1. / 87178291200
};

/* e^y - 1, accurate to a few units in the last place, also near 0. It uses y = n ln 2 + r and a
   series in r. A NaN stays a NaN. */
static inline REAL real_expm1(REAL y) {
    y = y > MAX_EXPONENT ? MAX_EXPONENT : y;
    y = y < -MAX_EXPONENT ? -MAX_EXPONENT : y;
    REAL n = (y * LOG2_E + ROUNDING_SHIFT) - ROUNDING_SHIFT;
    REAL r = (y - n * LN2_HIGH) - n * LN2_LOW;
    REAL sum = inverse_factorials[SERIES_TERMS];
    for (int k = SERIES_TERMS - 1; k > 0; k--) sum = sum * r + inverse_factorials[k];
    sum *= r;
    union { SIGNED bits; REAL value; } power;
    /* For a NaN, the power may be anything: the sum is already a NaN. */
    power.bits = (SIGNED)((UNSIGNED)((SIGNED)n + EXPONENT_BIAS) << MANTISSA_BITS);
    return power.value * sum + (power.value - 1);
}

static inline REAL real_sigmoid(REAL x) { return 1 / (2 + real_expm1(-x)); }

static inline REAL real_tanh(REAL x) {
    REAL e = real_expm1(-2 * x);
    return -e / (2 + e);
}

static inline REAL real_relu(REAL x) { return x < 0 ? 0 : x; } /* a NaN stays a NaN */

/* The mask of a site at step t for sample b; NULL if there is none. */
static inline const REAL *mask_row(const Layer *layer, int site, int64_t t, int64_t b) {
    const REAL *mask = layer->masks[site];
    return mask ? mask + t * layer->mask_strides[site] + b * layer->mask_widths[site] : NULL;
}

/* Mask h [P] of sample b for the matrix product of step t. */
static inline void mask_hidden(const Layer *layer, const REAL *restrict h, int64_t t, int64_t b) {
    const int64_t size = layer->width, masks = layer->hidden_masks;
    const REAL *hidden = MASK(HIDDEN);
    REAL *restrict masked_hidden = (REAL *)layer->masked_hidden + b * masks * size;
    for (int64_t k = 0; k < masks; k++, masked_hidden += size) {
        if (hidden) EACH_UNIT masked_hidden[j] = h[j] * hidden[k * size + j];
        else EACH_UNIT masked_hidden[j] = h[j];
    }
}

/* Finish step t of sample b: mask the new h, apply zoneout with the h of the step `previous`, and
   mask it again for the matrix product of step `next` (-1 if there is none). */
static inline void finish_hidden(
    const Layer *layer, int64_t t, int64_t previous, int64_t next, int64_t b
) {
    const int64_t size = layer->width, all = layer->batch * size;
    REAL *restrict h = (REAL *)layer->hs + t * all + b * size;
    const REAL *restrict previous_h = previous < 0 ? (REAL *)layer->h0 + b * size
                                                   : (REAL *)layer->hs + previous * all + b * size;
    const REAL *state = MASK(STATE), *update = MASK(HIDDEN_UPDATE);
    if (state) EACH_UNIT h[j] *= state[j];
    if (update) EACH_UNIT h[j] = ZONEOUT(update[j], previous_h[j], h[j]);
    if (next >= 0) mask_hidden(layer, h, next, b);
}

/* Write the gradient of the new h of step t, before mask and zoneout, to grad_new [P]. It sums the
   gradient of the output, the gradient that zoneout passed on, and the gradient through the gates
   of the step `later` (-1 if t is the last step). grad_h keeps what zoneout passes on from t. */
static inline void grad_new_hidden(
    const Layer *layer, REAL *restrict grad_new, int64_t t, int64_t later,
    const REAL *restrict product, int64_t b
) {
    const int64_t size = layer->width, masks = layer->hidden_masks;
    const REAL *restrict grad_output = (REAL *)layer->grad_hs + (t * layer->batch + b) * size;
    REAL *restrict grad_h = (REAL *)layer->grad_h + b * size;
    const REAL *state = MASK(STATE), *update = MASK(HIDDEN_UPDATE);
    EACH_UNIT grad_new[j] = grad_output[j] + grad_h[j];
    if (later >= 0) {
        const REAL *hidden = mask_row(layer, HIDDEN, later, b);
        const REAL *restrict grad_masked = product + b * masks * size;
        for (int64_t k = 0; k < masks; k++, grad_masked += size) {
            if (hidden) EACH_UNIT grad_new[j] += grad_masked[j] * hidden[k * size + j];
            else EACH_UNIT grad_new[j] += grad_masked[j];
        }
    }
    if (update) {
        EACH_UNIT grad_h[j] = grad_new[j] * update[j];
        EACH_UNIT grad_new[j] -= grad_h[j];
    } else {
        EACH_UNIT grad_h[j] = 0;
    }
    if (state) EACH_UNIT grad_new[j] *= state[j];
}

/* Compute one gate of a sample: the activation of the input's part plus the hidden state's part. */
#define ACTIVATE(activation, gate, at)                                                         \
    INDEPENDENT                                                                                \
    EACH_UNIT gate[j] = activation(input_gates[(at) + j] + hidden_gates[(at) + j])

/* Mask h0 for the matrix product of the first step t. */
static void mask_initial_hidden_of(const Layer *layer, Samples samples, int64_t t) {
    EACH_SAMPLE mask_hidden(layer, (REAL *)layer->h0 + b * layer->width, t, b);
}

/* Run step t of some samples, between the steps `previous` and `next` (-1 if there is none).
   `product` is the hidden state's part of the gates, [B, 4H]. With a projection, this stops at the
   h before the projection. */
static void lstm_step_of(
    const Layer *layer, Samples samples, int64_t t, int64_t previous, int64_t next,
    const REAL *restrict product
) {
    const int64_t size = layer->size, all = layer->batch * size;
    REAL *restrict new_c = samples.scratch;
    EACH_SAMPLE {
        const REAL *hidden_gates = product + 4 * b * size;
        const REAL *input_gates = (REAL *)samples.input_gates + 4 * (b - samples.first) * size;
        REAL *i = (REAL *)layer->gates + t * layer->gates_stride + 4 * b * size;
        REAL *f = i + size, *g = f + size, *o = g + size;
        const REAL *previous_c = previous < 0
            ? (REAL *)layer->c0 + b * size
            : (REAL *)layer->cs + previous * layer->saved_stride + b * size;
        REAL *restrict h = layer->projection ? (REAL *)layer->unprojected + b * size
                                             : (REAL *)layer->hs + t * all + b * size;
        REAL *c = (REAL *)layer->cs + t * layer->saved_stride + b * size;
        REAL *restrict tanh_cell = (REAL *)layer->tanh_cell + t * layer->saved_stride + b * size;
        ACTIVATE(real_sigmoid, i, 0);
        ACTIVATE(real_sigmoid, f, size);
        ACTIVATE(real_tanh, g, 2 * size);
        ACTIVATE(real_sigmoid, o, 3 * size);
        const REAL *candidate = MASK(CANDIDATE), *cell = MASK(CELL), *update = MASK(CELL_UPDATE);
        if (candidate) EACH_UNIT new_c[j] = f[j] * previous_c[j] + i[j] * candidate[j] * g[j];
        else EACH_UNIT new_c[j] = f[j] * previous_c[j] + i[j] * g[j];
        if (cell) EACH_UNIT new_c[j] *= cell[j];
        EACH_UNIT tanh_cell[j] = real_tanh(new_c[j]);
        EACH_UNIT h[j] = o[j] * tanh_cell[j];
        if (update) EACH_UNIT c[j] = ZONEOUT(update[j], previous_c[j], new_c[j]);
        else EACH_UNIT c[j] = new_c[j];
        if (!layer->projection) finish_hidden(layer, t, previous, next, b);
    }
}

/* Run the backward pass of step t of some samples. It comes after the step `later` and before the
   step `earlier` (-1 if there is none). `product` [B, N*P] is the gradient of the masked h_t
   through the gates of `later`. With a projection, `unprojected` holds the gradient of the h before
   the projection. */
static void lstm_step_backward_of(
    const Layer *layer, Samples samples, int64_t t, int64_t later, int64_t earlier,
    const REAL *restrict product
) {
    const int64_t size = layer->size, all = layer->batch * size;
    EACH_SAMPLE {
        const REAL *i = (REAL *)layer->gates + t * layer->gates_stride + 4 * b * size;
        const REAL *f = i + size, *g = f + size, *o = g + size;
        const REAL *restrict previous_c = earlier < 0
            ? (REAL *)layer->c0 + b * size
            : (REAL *)layer->cs + earlier * all + b * size;
        const REAL *restrict tanh_cell = (REAL *)layer->tanh_cell + t * all + b * size;
        REAL *grad_i = (REAL *)layer->grad_gates + 4 * (t * all + b * size);
        REAL *grad_f = grad_i + size, *grad_g = grad_f + size, *grad_o = grad_g + size;
        REAL *restrict grad_c = (REAL *)layer->grad_c + b * size;
        REAL *restrict zoned_out = samples.scratch, *restrict grad_added = zoned_out + size;
        REAL *restrict grad_new = layer->projection ? (REAL *)layer->unprojected + b * size
                                                    : grad_added + size;
        const REAL *candidate = MASK(CANDIDATE), *cell = MASK(CELL);
        const REAL *update = MASK(CELL_UPDATE);
        if (!layer->projection) grad_new_hidden(layer, grad_new, t, later, product, b);
        if (update) EACH_UNIT zoned_out[j] = grad_c[j] * update[j];
        else EACH_UNIT zoned_out[j] = 0;
        EACH_UNIT grad_c[j] +=
            grad_new[j] * o[j] * (1 - tanh_cell[j] * tanh_cell[j]) - zoned_out[j];
        if (cell) EACH_UNIT grad_c[j] *= cell[j];
        if (candidate) EACH_UNIT grad_added[j] = grad_c[j] * candidate[j];
        else EACH_UNIT grad_added[j] = grad_c[j];
        /* All gates of a unit are read before one is written, because gates and grad_gates may be
           the same memory. */
        INDEPENDENT
        EACH_UNIT {
            const REAL i_t = i[j], f_t = f[j], g_t = g[j], o_t = o[j];
            grad_i[j] = grad_added[j] * g_t * i_t * (1 - i_t);
            grad_f[j] = grad_c[j] * previous_c[j] * f_t * (1 - f_t);
            grad_g[j] = grad_added[j] * i_t * (1 - g_t * g_t);
            grad_o[j] = grad_new[j] * tanh_cell[j] * o_t * (1 - o_t);
            grad_c[j] = grad_c[j] * f_t + zoned_out[j];
        }
    }
}

/* Like lstm_step_of. `product` is [B, 3H]. */
static void gru_step_of(
    const Layer *layer, Samples samples, int64_t t, int64_t previous, int64_t next,
    const REAL *restrict product
) {
    const int64_t size = layer->size, all = layer->batch * size;
    EACH_SAMPLE {
        const REAL *restrict hidden_gates = product + 3 * b * size;
        const REAL *restrict new_hidden_n = hidden_gates + 2 * size;
        const REAL *input_gates = (REAL *)samples.input_gates + 3 * (b - samples.first) * size;
        const REAL *input_n = input_gates + 2 * size;
        REAL *r = (REAL *)layer->gates + t * layer->gates_stride + 3 * b * size;
        REAL *z = r + size, *n = z + size;
        const REAL *previous_h = previous < 0 ? (REAL *)layer->h0 + b * size
                                              : (REAL *)layer->hs + previous * all + b * size;
        REAL *restrict h = (REAL *)layer->hs + t * all + b * size;
        REAL *restrict hidden_n = (REAL *)layer->hidden_n + t * layer->saved_stride + b * size;
        const REAL *candidate = MASK(CANDIDATE);
        ACTIVATE(real_sigmoid, r, 0);
        ACTIVATE(real_sigmoid, z, size);
        EACH_UNIT hidden_n[j] = new_hidden_n[j];
        INDEPENDENT
        EACH_UNIT n[j] = real_tanh(input_n[j] + r[j] * new_hidden_n[j]);
        if (candidate) EACH_UNIT h[j] = (1 - z[j]) * (n[j] * candidate[j]) + z[j] * previous_h[j];
        else EACH_UNIT h[j] = (1 - z[j]) * n[j] + z[j] * previous_h[j];
        finish_hidden(layer, t, previous, next, b);
    }
}

/* Like lstm_step_backward_of. The gradients are those of n, r, z, and hidden_n, in this order. */
static void gru_step_backward_of(
    const Layer *layer, Samples samples, int64_t t, int64_t later, int64_t earlier,
    const REAL *restrict product
) {
    const int64_t size = layer->size, all = layer->batch * size;
    EACH_SAMPLE {
        const REAL *restrict r = (REAL *)layer->gates + t * layer->gates_stride + 3 * b * size;
        const REAL *restrict z = r + size, *restrict n = z + size;
        const REAL *restrict previous_h = earlier < 0
            ? (REAL *)layer->h0 + b * size
            : (REAL *)layer->hs + earlier * all + b * size;
        const REAL *restrict hidden_n = (REAL *)layer->hidden_n + t * all + b * size;
        REAL *restrict grad_n = (REAL *)layer->grad_gates + 4 * (t * all + b * size);
        REAL *restrict grad_r = grad_n + size, *restrict grad_z = grad_r + size;
        REAL *restrict grad_hidden_n = grad_z + size;
        REAL *restrict grad_h = (REAL *)layer->grad_h + b * size;
        REAL *restrict grad_new = samples.scratch, *restrict scale = grad_new + size;
        const REAL *candidate = MASK(CANDIDATE);
        grad_new_hidden(layer, grad_new, t, later, product, b);
        if (candidate) EACH_UNIT scale[j] = candidate[j];
        else EACH_UNIT scale[j] = 1;
        EACH_UNIT grad_n[j] = grad_new[j] * (1 - z[j]) * scale[j] * (1 - n[j] * n[j]);
        EACH_UNIT grad_z[j] = grad_new[j] * (previous_h[j] - n[j] * scale[j]) * z[j] * (1 - z[j]);
        EACH_UNIT grad_hidden_n[j] = grad_n[j] * r[j];
        EACH_UNIT grad_r[j] = grad_hidden_n[j] * hidden_n[j] * (1 - r[j]);
        EACH_UNIT grad_h[j] += grad_new[j] * z[j];
    }
}

/* Like lstm_step_of, for a simple RNN with one of two activations. `product` is [B, H]. */
static inline void rnn_step_of(
    const Layer *layer, Samples samples, int64_t t, int64_t previous, int64_t next,
    const REAL *restrict product, int is_relu
) {
    const int64_t size = layer->size;
    EACH_SAMPLE {
        const REAL *restrict hidden_gates = product + b * size;
        const REAL *input_gates = (REAL *)samples.input_gates + (b - samples.first) * size;
        REAL *gate = (REAL *)layer->gates + t * layer->gates_stride + b * size;
        REAL *restrict h = (REAL *)layer->hs + (t * layer->batch + b) * size;
        if (is_relu) {
            ACTIVATE(real_relu, gate, 0);
        } else {
            ACTIVATE(real_tanh, gate, 0);
        }
        EACH_UNIT h[j] = gate[j];
        finish_hidden(layer, t, previous, next, b);
    }
}

/* Like lstm_step_backward_of. */
static inline void rnn_step_backward_of(
    const Layer *layer, Samples samples, int64_t t, int64_t later, const REAL *restrict product,
    int is_relu
) {
    const int64_t size = layer->size;
    EACH_SAMPLE {
        const REAL *gate = (REAL *)layer->gates + t * layer->gates_stride + b * size;
        REAL *grad_gate = (REAL *)layer->grad_gates + (t * layer->batch + b) * size;
        REAL *restrict grad_new = samples.scratch;
        grad_new_hidden(layer, grad_new, t, later, product, b);
        if (is_relu) {
            INDEPENDENT
            EACH_UNIT grad_gate[j] = gate[j] <= 0 ? 0 : grad_new[j];
        } else {
            INDEPENDENT
            EACH_UNIT grad_gate[j] = grad_new[j] * (1 - gate[j] * gate[j]);
        }
    }
}

#define RNN_STEPS(name, is_relu)                                                               \
    static void name##_step_of(                                                                \
        const Layer *layer, Samples samples, int64_t t, int64_t previous, int64_t next,        \
        const REAL *product                                                                    \
    ) {                                                                                        \
        rnn_step_of(layer, samples, t, previous, next, product, is_relu);                      \
    }                                                                                          \
    static void name##_step_backward_of(                                                       \
        const Layer *layer, Samples samples, int64_t t, int64_t later, int64_t earlier,        \
        const REAL *product                                                                    \
    ) {                                                                                        \
        (void)earlier;                                                                         \
        rnn_step_backward_of(layer, samples, t, later, product, is_relu);                      \
    }
RNN_STEPS(rnn_tanh, 0)
RNN_STEPS(rnn_relu, 1)

/* The functions that Python calls for one step. They run each function above on all samples. The
   gates hold the input's part. */
static inline Samples all_samples(const Layer *layer, int64_t t) {
    const REAL *input_gates = (REAL *)layer->gates + t * layer->gates_stride;
    return (Samples){0, layer->batch, layer->scratch, input_gates};
}

void mask_initial_hidden(const Layer *layer, int64_t t) {
    mask_initial_hidden_of(layer, all_samples(layer, t), t);
}

#define STEP(name)                                                                             \
    void name(                                                                                 \
        const Layer *layer, int64_t t, int64_t before, int64_t after, const REAL *product      \
    ) {                                                                                        \
        name##_of(layer, all_samples(layer, t), t, before, after, product);                       \
    }
STEP(lstm_step)
STEP(lstm_step_backward)
STEP(gru_step)
STEP(gru_step_backward)
STEP(rnn_tanh_step)
STEP(rnn_tanh_step_backward)
STEP(rnn_relu_step)
STEP(rnn_relu_step_backward)

#include "threads.c"
#include "products.c"
#include "sequences.c"
