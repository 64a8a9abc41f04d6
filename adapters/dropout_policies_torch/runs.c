/* All steps of a layer at once, their matrix products among them.

   What happens to a sample depends on no other, so that each thread takes some samples through all
   steps and waits for nobody; and a weight that is read again at every step stays near the core that
   reads it. Part of fused.c, included with it once for each type. */

#ifndef VECTOR
#ifdef __AVX512F__
#define VECTOR 64 /* bytes */
#define TALL 12   /* rows whose sums fit into registers, two vectors wide */
#else
#define VECTOR 32
#define TALL 6
#endif
#endif

#define LANES ((int64_t)(VECTOR / sizeof(REAL)))

typedef REAL NAME(Vector) __attribute__((vector_size(VECTOR)));
typedef REAL NAME(Loose) __attribute__((vector_size(VECTOR), aligned(sizeof(REAL)), may_alias));

int64_t NAME(lanes)(void) { return LANES; }

/* Some rows by one or two panels of a weight, of whose columns so many are there. */
static inline __attribute__((always_inline)) void NAME(tile)(
    const REAL *restrict x, int64_t x_apart, const REAL *restrict weight, int64_t depth,
    REAL *restrict out, int64_t out_apart, int64_t columns, const int rows, const int panels
) {
    const int64_t panel = (depth + 1) * LANES;
    NAME(Vector) sums[TALL][2];
    for (int r = 0; r < rows; r++)
        for (int p = 0; p < panels; p++) sums[r][p] = *(const NAME(Loose) *)(weight + p * panel);
    for (int64_t k = 0; k < depth; k++) {
        const REAL *at = weight + (k + 1) * LANES;
        const NAME(Vector) first = *(const NAME(Loose) *)at;
        const NAME(Vector) second = *(const NAME(Loose) *)(at + (panels - 1) * panel);
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) {
            const REAL factor = x[r * x_apart + k];
            sums[r][0] += factor * first;
            if (panels == 2) sums[r][1] += factor * second;
        }
    }
    for (int r = 0; r < rows; r++)
        for (int p = 0; p < panels; p++) {
            REAL *to = out + r * out_apart + p * LANES;
            const int64_t left = columns - p * LANES;
            if (left >= LANES) *(NAME(Loose) *)to = sums[r][p];
            else for (int64_t j = 0; j < left; j++) to[j] = sums[r][p][j];
        }
}

/* Rows x, whose starts lie `x_apart` from another, by a weight: [rows, columns]. The weight lies in
   panels of LANES columns each, the last filled up with zeros: [panels, 1 + depth, LANES], of which
   the first row is a bias. */
static void NAME(multiply)(
    const REAL *x, int64_t x_apart, const REAL *weight, int64_t depth, REAL *out, int64_t columns,
    int64_t rows
) {
    const int64_t tiles = (rows + TALL - 1) / TALL;
    for (int64_t n = 0; n < columns; n += 2 * LANES) {
        const REAL *panel = weight + n * (depth + 1);
        const int64_t left = columns - n;
        for (int64_t i = 0; i < tiles; i++) {
            const int64_t from = rows * i / tiles, to = rows * (i + 1) / tiles;
            const REAL *at = x + from * x_apart;
            REAL *into = out + from * columns + n;
#define TILE(rows, panels) \
    NAME(tile)(at, x_apart, panel, depth, into, columns, left, rows, panels)
#define TALLER(rows) \
    case rows: \
        if (left > LANES) TILE(rows, 2); \
        else TILE(rows, 1); \
        break;
            switch (to - from) {
                TALLER(1) TALLER(2) TALLER(3) TALLER(4) TALLER(5) TALLER(6)
#if TALL == 12
                TALLER(7) TALLER(8) TALLER(9) TALLER(10) TALLER(11) TALLER(12)
#endif
            }
#undef TALLER
#undef TILE
        }
    }
}

typedef void (*NAME(Step))(const Layer *, Part, int64_t, int64_t, int64_t, const REAL *);

static inline Part NAME(part)(const Layer *layer, int64_t which, int64_t of) {
    REAL *scratch = (REAL *)layer->scratch + 3 * which * layer->size;
    return (Part){layer->batch * which / of, layer->batch * (which + 1) / of, scratch};
}

/* Steps first, first + way, ... to last, whose product with h is [B, columns]. */
static void NAME(forward)(
    const Layer *layer, NAME(Step) step, int64_t columns, const REAL *weight, REAL *product,
    int64_t first, int64_t last, int64_t way, int64_t threads
) {
    const int64_t size = layer->size;
#pragma omp parallel for num_threads(threads)
    for (int64_t which = 0; which < threads; which++) {
        const Part part = NAME(part)(layer, which, threads);
        const REAL *seen = (REAL *)layer->seen + part.from * size;
        NAME(start_part)(layer, part, first);
        for (int64_t t = first; t != last + way; t += way) {
            REAL *out = product + part.from * columns;
            NAME(multiply)(seen, size, weight, size, out, columns, part.to - part.from);
            step(layer, part, t, t == first ? -1 : t - way, t == last ? -1 : t + way, product);
        }
    }
}

/* As they come in the backward pass. Of the gates' gradients [T, B, 4H] the last `depth` of each
   sample's go to the hidden state; `product` [B, H] is at the end what reached h0. */
static void NAME(back)(
    const Layer *layer, NAME(Step) step, int64_t depth, const REAL *weight, REAL *product,
    int64_t first, int64_t last, int64_t way, int64_t threads
) {
    const int64_t size = layer->size, apart = 4 * size;
#pragma omp parallel for num_threads(threads)
    for (int64_t which = 0; which < threads; which++) {
        const Part part = NAME(part)(layer, which, threads);
        for (int64_t t = first; t != last + way; t += way) {
            step(layer, part, t, t == first ? -1 : t - way, t == last ? -1 : t + way, product);
            const REAL *gates = (REAL *)layer->d_gates + (t * layer->batch + part.from) * apart;
            REAL *out = product + part.from * size;
            gates += apart - depth;
            NAME(multiply)(gates, apart, weight, depth, out, size, part.to - part.from);
        }
    }
}

#define RUN(name, through, gates)                                                              \
    void NAME(JOIN(name, run))(                                                                \
        const Layer *layer, const REAL *weight, REAL *product, int64_t first, int64_t last,    \
        int64_t way, int64_t threads                                                           \
    ) {                                                                                        \
        NAME(through)(                                                                         \
            layer, NAME(JOIN(name, part)), gates * layer->size, weight, product, first, last,  \
            way, threads                                                                       \
        );                                                                                     \
    }
RUN(lstm, forward, 4)
RUN(lstm_backward, back, 4)
RUN(gru, forward, 3)
RUN(gru_backward, back, 3)
#undef RUN
#undef LANES
