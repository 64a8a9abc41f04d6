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
    const REAL *panels;   /* the recurrent weight */
    int64_t gates;        /* gates that come from the hidden state */
    int64_t gate_stride;  /* gates of a sample in `grad_gates` */
    REAL *product;
    int64_t first, last, threads;
} Sequence;

/* One thread's samples through the steps `first` to `last`, which may run in either direction. The
   product with h is [B, G*H]. */
static void run_forward(const void *arguments, int64_t thread) {
    const Sequence *sequence = arguments;
    const Layer *layer = sequence->layer;
    const int64_t size = layer->size, width = layer->width, masks = layer->hidden_masks;
    const int64_t columns = sequence->gates * size, first = sequence->first, last = sequence->last;
    const int64_t direction = last < first ? -1 : 1;
    const Samples samples = samples_of_thread(layer, thread, sequence->threads);
    const int64_t rows = samples.end - samples.first;
    const REAL *masked_hidden = (REAL *)layer->masked_hidden + samples.first * masks * width;
    mask_initial_hidden_of(layer, samples, first);
    for (int64_t t = first; t != last + direction; t += direction) {
        REAL *out = sequence->product + samples.first * columns;
        multiply_parts(
            masked_hidden, masks * width, sequence->panels, width, out, columns / masks, rows, masks
        );
        const int64_t previous = t == first ? -1 : t - direction;
        const int64_t next = t == last ? -1 : t + direction;
        sequence->step(layer, samples, t, previous, next, sequence->product);
        if (!layer->projection) continue;
        const REAL *unprojected = (REAL *)layer->unprojected + samples.first * size;
        REAL *h = (REAL *)layer->hs + (t * layer->batch + samples.first) * width;
        multiply(unprojected, size, layer->projection, size, h, width, width, rows);
        EACH_SAMPLE finish_hidden(layer, t, previous, next, b);
    }
}

/* The same for the backward pass, whose first step is the last in time. Of the gates' gradients of
   each sample, the last belong to the hidden state. At the end `product` [B, N*P] is the gradient
   of the masked h0. */
static void run_backward(const void *arguments, int64_t thread) {
    const Sequence *sequence = arguments;
    const Layer *layer = sequence->layer;
    const int64_t size = layer->size, width = layer->width, masks = layer->hidden_masks;
    const int64_t row_stride = sequence->gate_stride * size, depth = sequence->gates * size;
    const int64_t first = sequence->first, last = sequence->last;
    const int64_t direction = last < first ? -1 : 1;
    const Samples samples = samples_of_thread(layer, thread, sequence->threads);
    const int64_t rows = samples.end - samples.first;
    for (int64_t t = first; t != last + direction; t += direction) {
        const int64_t later = t == first ? -1 : t - direction;
        const int64_t earlier = t == last ? -1 : t + direction;
        if (layer->projection) {
            REAL *projected = (REAL *)layer->grad_projected + t * layer->batch * width;
            REAL *unprojected = (REAL *)layer->unprojected + samples.first * size;
            EACH_SAMPLE
                grad_new_hidden(layer, projected + b * width, t, later, sequence->product, b);
            projected += samples.first * width;
            multiply(projected, width, layer->projection, width, unprojected, size, size, rows);
        }
        sequence->step(layer, samples, t, later, earlier, sequence->product);
        const REAL *grad_gates =
            (REAL *)layer->grad_gates + (t * layer->batch + samples.first) * row_stride;
        REAL *out = sequence->product + samples.first * masks * width;
        grad_gates += row_stride - depth;
        multiply_parts(
            grad_gates, row_stride, sequence->panels, depth / masks, out, width, rows, masks
        );
    }
}

#define SEQUENCE(name, step, run, gates, gate_stride)                                          \
    void name(                                                                                 \
        const Layer *layer, const REAL *panels, REAL *product, int64_t first, int64_t last,    \
        int64_t threads                                                                        \
    ) {                                                                                        \
        const Sequence sequence = {                                                            \
            layer, step##_of, panels, gates, gate_stride, product, first, last, threads        \
        };                                                                                     \
        parallel_for(run, &sequence, threads, threads);                                        \
    }
#define SEQUENCES(name, gates, gate_stride)                                                    \
    SEQUENCE(name##_sequence, name##_step, run_forward, gates, gate_stride)                    \
    SEQUENCE(name##_sequence_backward, name##_step_backward, run_backward, gates, gate_stride)
SEQUENCES(lstm, 4, 4)
SEQUENCES(gru, 3, 4)
SEQUENCES(rnn_tanh, 1, 1)
SEQUENCES(rnn_relu, 1, 1)
