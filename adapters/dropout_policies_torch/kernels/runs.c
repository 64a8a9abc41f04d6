/* All steps of a layer at once, their matrix products among them.

   What happens to a sample depends on no other, so that each thread takes some samples through all
   steps and waits for nobody; and a weight that is read again at every step stays near the core
   that reads it. Part of fused.c. */

typedef void (*Step)(const Layer *, Part, int64_t, int64_t, int64_t, const REAL *);

static inline Part part_of(const Layer *layer, int64_t which, int64_t of) {
    REAL *scratch = (REAL *)layer->scratch + 3 * which * layer->size;
    return (Part){layer->batch * which / of, layer->batch * (which + 1) / of, scratch};
}

typedef struct {
    const Layer *layer;
    Step step;
    int64_t gates; /* units of a step's gates that the product makes, or backward takes */
    const REAL *weight;
    REAL *product;
    int64_t first, last, threads;
} Run;

/* A part of the samples through the steps first to last, in the order of time or against it, whose
   product with h is [B, columns]. */
static void forward(const void *arguments, int64_t which) {
    const Run *run = arguments;
    const Layer *layer = run->layer;
    const int64_t size = layer->size, columns = run->gates, first = run->first, last = run->last;
    const int64_t way = last < first ? -1 : 1;
    const Part part = part_of(layer, which, run->threads);
    const REAL *seen = (REAL *)layer->seen + part.from * size;
    start_part(layer, part, first);
    for (int64_t t = first; t != last + way; t += way) {
        REAL *out = run->product + part.from * columns;
        multiply(seen, size, run->weight, size, out, columns, part.to - part.from);
        const int64_t before = t == first ? -1 : t - way, next = t == last ? -1 : t + way;
        run->step(layer, part, t, before, next, run->product);
    }
}

/* As they come in the backward pass. Of the gates' gradients [T, B, 4H] the last `gates` of each
   sample's go to the hidden state; `product` [B, H] is at the end what reached h0. */
static void back(const void *arguments, int64_t which) {
    const Run *run = arguments;
    const Layer *layer = run->layer;
    const int64_t size = layer->size, apart = 4 * size, first = run->first, last = run->last;
    const int64_t way = last < first ? -1 : 1;
    const Part part = part_of(layer, which, run->threads);
    for (int64_t t = first; t != last + way; t += way) {
        const int64_t before = t == first ? -1 : t - way, next = t == last ? -1 : t + way;
        run->step(layer, part, t, before, next, run->product);
        const REAL *gates = (REAL *)layer->d_gates + (t * layer->batch + part.from) * apart;
        REAL *out = run->product + part.from * size;
        gates += apart - run->gates;
        multiply(gates, apart, run->weight, run->gates, out, size, part.to - part.from);
    }
}

#define RUN(name, direction, gates)                                                           \
    void name##_run(                                                                           \
        const Layer *layer, const REAL *weight, REAL *product, int64_t first, int64_t last,    \
        int64_t threads                                                                        \
    ) {                                                                                        \
        const Run run = {                                                                      \
            layer, name##_part, gates * layer->size, weight, product, first, last, threads     \
        };                                                                                     \
        parallel_for(direction, &run, threads, threads);                                       \
    }
RUN(lstm, forward, 4)
RUN(lstm_backward, back, 4)
RUN(gru, forward, 3)
RUN(gru_backward, back, 3)
