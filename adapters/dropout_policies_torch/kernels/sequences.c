/* All steps of a layer at once, with their matrix products. Part of steps.c.

   Samples do not depend on one another. So each thread takes some samples through all steps and
   never waits for another thread, and a weight that is read at every step stays in the cache of the
   core that reads it. */

typedef void (*StepFunction)(const Layer *, Samples, int64_t, int64_t, int64_t, const REAL *);

/* The samples of thread number `thread` of `threads`. */
static inline Samples samples_of_thread(const Layer *layer, int64_t thread, int64_t threads) {
    REAL *scratch = (REAL *)layer->scratch + 3 * thread * layer->size;
    const int64_t batch = layer->batch;
    return (Samples){batch * thread / threads, batch * (thread + 1) / threads, scratch};
}

typedef struct {
    const Layer *layer;
    StepFunction step;
    const REAL *panels; /* the recurrent weight */
    int64_t width;      /* of a step's gates that come from the hidden state */
    REAL *product;
    int64_t first, last, threads;
} Sequence;

/* One thread's samples through the steps `first` to `last`, which may run in either direction. The
   product with h is [B, width]. */
static void run_forward(const void *arguments, int64_t thread) {
    const Sequence *sequence = arguments;
    const Layer *layer = sequence->layer;
    const int64_t size = layer->size, width = sequence->width;
    const int64_t first = sequence->first, last = sequence->last;
    const int64_t direction = last < first ? -1 : 1;
    const Samples samples = samples_of_thread(layer, thread, sequence->threads);
    const REAL *masked_hidden = (REAL *)layer->masked_hidden + samples.first * size;
    mask_initial_hidden_of(layer, samples, first);
    for (int64_t t = first; t != last + direction; t += direction) {
        REAL *out = sequence->product + samples.first * width;
        const int64_t rows = samples.end - samples.first;
        multiply(masked_hidden, size, sequence->panels, size, out, width, rows);
        const int64_t previous = t == first ? -1 : t - direction;
        const int64_t next = t == last ? -1 : t + direction;
        sequence->step(layer, samples, t, previous, next, sequence->product);
    }
}

/* The same for the backward pass, whose first step is the last in time. Of the gates' gradients
   [T, B, 4H], the last `width` of each sample belong to the hidden state. At the end `product`
   [B, H] is the gradient of the masked h0. */
static void run_backward(const void *arguments, int64_t thread) {
    const Sequence *sequence = arguments;
    const Layer *layer = sequence->layer;
    const int64_t size = layer->size, row_stride = 4 * size, width = sequence->width;
    const int64_t first = sequence->first, last = sequence->last;
    const int64_t direction = last < first ? -1 : 1;
    const Samples samples = samples_of_thread(layer, thread, sequence->threads);
    for (int64_t t = first; t != last + direction; t += direction) {
        const int64_t later = t == first ? -1 : t - direction;
        const int64_t earlier = t == last ? -1 : t + direction;
        sequence->step(layer, samples, t, later, earlier, sequence->product);
        const REAL *grad_gates =
            (REAL *)layer->grad_gates + (t * layer->batch + samples.first) * row_stride;
        REAL *out = sequence->product + samples.first * size;
        const int64_t rows = samples.end - samples.first;
        grad_gates += row_stride - width;
        multiply(grad_gates, row_stride, sequence->panels, width, out, size, rows);
    }
}

#define SEQUENCE(name, step, run, gates)                                                       \
    void name(                                                                                 \
        const Layer *layer, const REAL *panels, REAL *product, int64_t first, int64_t last,    \
        int64_t threads                                                                        \
    ) {                                                                                        \
        const Sequence sequence = {                                                            \
            layer, step##_of, panels, gates * layer->size, product, first, last, threads       \
        };                                                                                     \
        parallel_for(run, &sequence, threads, threads);                                        \
    }
SEQUENCE(lstm_sequence, lstm_step, run_forward, 4)
SEQUENCE(lstm_sequence_backward, lstm_step_backward, run_backward, 4)
SEQUENCE(gru_sequence, gru_step, run_forward, 3)
SEQUENCE(gru_sequence_backward, gru_step_backward, run_backward, 3)
