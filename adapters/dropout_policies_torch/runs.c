/* All steps of a layer at once, their matrix products among them.

   What happens to a sample depends on no other, so that each thread takes some samples through all
   steps and waits for nobody; and a weight that is read again at every step stays near the core
   that reads it. Part of fused.c. */

typedef void (*Step)(const Layer *, Part, int64_t, int64_t, int64_t, const REAL *);

static inline Part part_of(const Layer *layer, int64_t which, int64_t of) {
    REAL *scratch = (REAL *)layer->scratch + 3 * which * layer->size;
    return (Part){layer->batch * which / of, layer->batch * (which + 1) / of, scratch};
}

/* Steps first to last, in the order of time or against it, whose product with h is
   [B, columns]. */
static void forward(
    const Layer *layer, Step step, int64_t columns, const REAL *weight, REAL *product,
    int64_t first, int64_t last, int64_t threads
) {
    const int64_t size = layer->size, way = last < first ? -1 : 1;
#pragma omp parallel for num_threads(threads)
    for (int64_t which = 0; which < threads; which++) {
        const Part part = part_of(layer, which, threads);
        const REAL *seen = (REAL *)layer->seen + part.from * size;
        start_part(layer, part, first);
        for (int64_t t = first; t != last + way; t += way) {
            REAL *out = product + part.from * columns;
            multiply(seen, size, weight, size, out, columns, part.to - part.from);
            step(layer, part, t, t == first ? -1 : t - way, t == last ? -1 : t + way, product);
        }
    }
}

/* As they come in the backward pass. Of the gates' gradients [T, B, 4H] the last `depth` of each
   sample's go to the hidden state; `product` [B, H] is at the end what reached h0. */
static void back(
    const Layer *layer, Step step, int64_t depth, const REAL *weight, REAL *product,
    int64_t first, int64_t last, int64_t threads
) {
    const int64_t size = layer->size, apart = 4 * size, way = last < first ? -1 : 1;
#pragma omp parallel for num_threads(threads)
    for (int64_t which = 0; which < threads; which++) {
        const Part part = part_of(layer, which, threads);
        for (int64_t t = first; t != last + way; t += way) {
            step(layer, part, t, t == first ? -1 : t - way, t == last ? -1 : t + way, product);
            const REAL *gates = (REAL *)layer->d_gates + (t * layer->batch + part.from) * apart;
            REAL *out = product + part.from * size;
            gates += apart - depth;
            multiply(gates, apart, weight, depth, out, size, part.to - part.from);
        }
    }
}

#define RUN(name, through, gates)                                                              \
    void name##_run(                                                                           \
        const Layer *layer, const REAL *weight, REAL *product, int64_t first, int64_t last,    \
        int64_t threads                                                                        \
    ) {                                                                                        \
        const int64_t columns = gates * layer->size;                                           \
        through(layer, name##_part, columns, weight, product, first, last, threads);           \
    }
RUN(lstm, forward, 4)
RUN(lstm_backward, back, 4)
RUN(gru, forward, 3)
RUN(gru_backward, back, 3)
