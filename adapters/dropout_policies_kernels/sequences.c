/* All steps of a layer at once, with their matrix products. Part of steps.c.

   The product of the input is computed for several steps at once, so that it stays in the cache for
   them. If `input_panels` is NULL, it was computed elsewhere, and the gates hold it.

   Samples do not depend on one another. So each thread runs its samples through all steps and never
   waits for another thread. A weight that is read at every step stays in the cache of the core that
   reads it. */

typedef void (*StepFunction)(const Layer *, Samples, int64_t, int64_t, int64_t, const REAL *);

/* The samples of thread number `thread` of `threads`. */
static inline Samples samples_of_thread(const Layer *layer, int64_t thread, int64_t threads) {
    REAL *scratch = (REAL *)layer->scratch + 3 * thread * layer->size;
    const int64_t batch = layer->batch;
    return (Samples){batch * thread / threads, batch * (thread + 1) / threads, scratch, NULL};
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

/* One thread's part of `input_scratch`: rows of x and the products of these rows. */
static inline REAL *input_scratch_of_thread(const Sequence *sequence, int64_t thread) {
    const Layer *layer = sequence->layer;
    const int64_t samples = (layer->batch + sequence->threads - 1) / sequence->threads;
    const int64_t width = layer->input_width + sequence->gates * layer->size;
    return (REAL *)layer->input_scratch + thread * layer->chunk_steps * samples * width;
}

/* The input's part of the gates of some samples at `steps` steps from t on, [steps, samples, G*H],
   in the order in which they run. */
static const REAL *multiply_inputs(
    const Sequence *sequence, Samples samples, int64_t t, int64_t direction, int64_t steps,
    REAL *scratch
) {
    const Layer *layer = sequence->layer;
    const int64_t count = samples.end - samples.first, width = layer->input_width;
    const int64_t columns = sequence->gates * layer->size, rows = steps * count;
    REAL *products = scratch + layer->chunk_steps * count * width;
    for (int64_t k = 0; k < steps; k++) {
        const int64_t row = (t + k * direction) * layer->batch + samples.first;
        const REAL *from = (REAL *)layer->x + row * width;
        memcpy(scratch + k * count * width, from, count * width * sizeof(REAL));
    }
    multiply(scratch, width, layer->input_panels, width, products, columns, columns, rows);
    return products;
}

/* Run one thread's samples through the steps `first` to `last`, in either direction. The product
   with h is [B, G*H]. */
static void run_forward(const void *arguments, int64_t thread) {
    const Sequence *sequence = arguments;
    const Layer *layer = sequence->layer;
    const int64_t size = layer->size, width = layer->width, masks = layer->hidden_masks;
    const int64_t columns = sequence->gates * size, first = sequence->first, last = sequence->last;
    const int64_t direction = last < first ? -1 : 1, steps = direction * (last - first) + 1;
    Samples samples = samples_of_thread(layer, thread, sequence->threads);
    const int64_t rows = samples.end - samples.first;
    const REAL *masked_hidden = (REAL *)layer->masked_hidden + samples.first * masks * width;
    const REAL *input_gates = NULL;
    if (rows == 0) return;
    mask_initial_hidden_of(layer, samples, first);
    for (int64_t k = 0; k < steps; k++) {
        const int64_t t = first + k * direction;
        if (layer->input_panels) {
            const int64_t in_chunk = k % layer->chunk_steps, left = steps - k;
            if (in_chunk == 0)
                input_gates = multiply_inputs(
                    sequence, samples, t, direction,
                    left < layer->chunk_steps ? left : layer->chunk_steps,
                    input_scratch_of_thread(sequence, thread)
                );
            samples.input_gates = input_gates + in_chunk * rows * columns;
        } else {
            samples.input_gates =
                (REAL *)layer->gates + t * layer->gates_stride + samples.first * columns;
        }
        REAL *out = sequence->product + samples.first * columns;
        multiply_parts(
            masked_hidden, masks * width, sequence->panels, width, out, columns / masks, rows, masks
        );
        const int64_t previous = k == 0 ? -1 : t - direction;
        const int64_t next = t == last ? -1 : t + direction;
        sequence->step(layer, samples, t, previous, next, sequence->product);
        if (!layer->projection) continue;
        const REAL *unprojected = (REAL *)layer->unprojected + samples.first * size;
        REAL *h = (REAL *)layer->hs + (t * layer->batch + samples.first) * width;
        multiply(unprojected, size, layer->projection, size, h, width, width, rows);
        EACH_SAMPLE finish_hidden(layer, t, previous, next, b);
    }
}

/* The same for the backward pass. Its first step is the last in time. The last gradients of each
   sample's gates belong to the hidden state. At the end, `product` [B, N*P] is the gradient of the
   masked h0. */
static void run_backward(const void *arguments, int64_t thread) {
    const Sequence *sequence = arguments;
    const Layer *layer = sequence->layer;
    const int64_t size = layer->size, width = layer->width, masks = layer->hidden_masks;
    const int64_t row_stride = sequence->gate_stride * size, depth = sequence->gates * size;
    const int64_t first = sequence->first, last = sequence->last;
    const int64_t direction = last < first ? -1 : 1, steps = direction * (last - first) + 1;
    const Samples samples = samples_of_thread(layer, thread, sequence->threads);
    const int64_t rows = samples.end - samples.first;
    if (rows == 0) return;
    for (int64_t k = 0; k < steps; k++) {
        const int64_t t = first + k * direction;
        const int64_t later = k == 0 ? -1 : t - direction;
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
