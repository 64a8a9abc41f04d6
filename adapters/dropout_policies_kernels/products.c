/* Products with a weight, computed in tiles whose sums stay in the registers. Part of steps.c.

   The weight is packed into panels of LANES columns each, [panels, 1 + depth, LANES]. The last
   panel is padded with zeros. The first row of a panel is the bias, or zeros. */

#ifdef __AVX512F__
#define VECTOR_BYTES 64
#define MAX_TILE_ROWS 12 /* rows whose sums fit into the registers, two vectors each */
#else
#define VECTOR_BYTES 32
#define MAX_TILE_ROWS 6
#endif

/* How many rows of a panel are prefetched from memory while one row is multiplied. */
#define PREFETCHED_ROWS 32

#define LANES ((int64_t)(VECTOR_BYTES / sizeof(REAL)))

typedef REAL Vector __attribute__((vector_size(VECTOR_BYTES)));
typedef REAL Unaligned
    __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));

int64_t lanes(void) { return LANES; }

/* Whether the processor is made by Intel. This is known only on x86. */
int64_t is_intel(void) {
#if defined(__x86_64__) || defined(__i386__)
    return __builtin_cpu_is("intel") != 0;
#else
    return 0;
#endif
}

typedef struct {
    const REAL *weight, *bias;
    int64_t column_stride, row_stride;
    REAL *panels;
    int64_t columns, depth;
} Packing;

/* Pack one panel of a weight. */
static void pack_panel(const void *arguments, int64_t panel) {
    const Packing *packing = arguments;
    const int64_t column = panel * LANES, depth = packing->depth;
    const int64_t column_stride = packing->column_stride, row_stride = packing->row_stride;
    const int64_t width = packing->columns - column < LANES ? packing->columns - column : LANES;
    const REAL *restrict from = packing->weight + column * column_stride;
    const REAL *restrict bias = packing->bias;
    REAL *restrict to = packing->panels + column * (depth + 1);
    for (int64_t j = 0; j < LANES; j++) to[j] = bias && j < width ? bias[column + j] : 0;
    to += LANES;
    if (column_stride == 1 && width == LANES) {
        for (int64_t k = 0; k < depth; k++)
            for (int64_t j = 0; j < LANES; j++) to[k * LANES + j] = from[k * row_stride + j];
        return;
    }
    for (int64_t first = 0; first < depth; first += LANES) {
        const int64_t end = depth - first < LANES ? depth : first + LANES;
        for (int64_t j = 0; j < LANES; j++)
            for (int64_t k = first; k < end; k++)
                to[k * LANES + j] = j < width ? from[j * column_stride + k * row_stride] : 0;
    }
}

/* Pack a weight into panels on many threads. `bias` may be NULL. */
void pack_in_panels(
    const REAL *weight, int64_t column_stride, int64_t row_stride, const REAL *bias, REAL *panels,
    int64_t columns, int64_t depth, int64_t threads
) {
    const Packing packing = {weight, bias, column_stride, row_stride, panels, columns, depth};
    parallel_for(pack_panel, &packing, (columns + LANES - 1) / LANES, threads);
}

/* Load the first `count` elements of a vector. The others are zeros. */
static inline Vector load(const REAL *from, int64_t count) {
    REAL all[LANES] = {0};
    if (count >= LANES) return *(const Unaligned *)from;
    for (int64_t j = 0; j < count; j++) all[j] = from[j];
    return *(const Unaligned *)all;
}

/* Store the first `count` elements of a vector. */
static inline void store(REAL *to, Vector sums, int64_t count) {
    REAL all[LANES];
    if (count >= LANES) {
        *(Unaligned *)to = sums;
        return;
    }
    *(Unaligned *)all = sums;
    for (int64_t j = 0; j < count; j++) to[j] = all[j];
}

/* Multiply some rows of x by one or two panels, and use only the first `columns` columns of them.
   The sums start from `out` if `accumulate`, and otherwise from the panels' first row. */
static inline __attribute__((always_inline)) void multiply_tile(
    const REAL *restrict x, int64_t row_stride, int64_t entry_stride, const REAL *restrict weight,
    int64_t depth, REAL *restrict out, int64_t out_stride, int64_t columns, int64_t accumulate,
    const int rows, const int panels
) {
    const int64_t panel = (depth + 1) * LANES;
    Vector sums[MAX_TILE_ROWS][2];
    for (int r = 0; r < rows; r++)
        for (int p = 0; p < panels; p++)
            sums[r][p] = accumulate
                ? load(out + r * out_stride + p * LANES, columns - p * LANES)
                : load(weight + p * panel, LANES);
    for (int64_t k = 0; k < depth; k++) {
        const REAL *row = weight + (k + 1) * LANES;
        const Vector first = *(const Unaligned *)row;
        const Vector second = *(const Unaligned *)(row + (panels - 1) * panel);
        __builtin_prefetch(row + PREFETCHED_ROWS * LANES);
        if (panels == 2) __builtin_prefetch(row + panel + PREFETCHED_ROWS * LANES);
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) {
            const REAL factor = x[r * row_stride + k * entry_stride];
            sums[r][0] += factor * first;
            if (panels == 2) sums[r][1] += factor * second;
        }
    }
    for (int r = 0; r < rows; r++)
        for (int p = 0; p < panels; p++)
            store(out + r * out_stride + p * LANES, sums[r][p], columns - p * LANES);
}

/* The same for up to MAX_TILE_ROWS rows. It is always inlined, so that the compiler can use
   constant values of `row_stride`, `entry_stride` and `accumulate`. */
static inline __attribute__((always_inline)) void multiply_rows(
    const REAL *x, int64_t row_stride, int64_t entry_stride, const REAL *weight, int64_t depth,
    REAL *out, int64_t out_stride, int64_t columns, int64_t accumulate, int64_t rows
) {
#define TILE(rows, panels)                                                                     \
    multiply_tile(                                                                             \
        x, row_stride, entry_stride, weight, depth, out, out_stride, columns, accumulate,      \
        rows, panels                                                                           \
    )
#define ROWS(rows)                           \
    case rows:                               \
        if (columns > LANES) TILE(rows, 2);  \
        else TILE(rows, 1);                  \
        break;
    switch (rows) {
        ROWS(1) ROWS(2) ROWS(3) ROWS(4) ROWS(5) ROWS(6)
#if MAX_TILE_ROWS == 12
        ROWS(7) ROWS(8) ROWS(9) ROWS(10) ROWS(11) ROWS(12)
#endif
    }
#undef ROWS
#undef TILE
}

/* The same for rows whose entries are contiguous. */
static __attribute__((noinline)) void multiply_contiguous_rows(
    const REAL *x, int64_t row_stride, const REAL *weight, int64_t depth, REAL *out,
    int64_t out_stride, int64_t columns, int64_t rows
) {
    multiply_rows(x, row_stride, 1, weight, depth, out, out_stride, columns, 0, rows);
}

/* Multiply the rows of x by a weight: [rows, columns]. */
static void multiply(
    const REAL *x, int64_t row_stride, const REAL *weight, int64_t depth, REAL *out,
    int64_t out_stride, int64_t columns, int64_t rows
) {
    const int64_t tiles = (rows + MAX_TILE_ROWS - 1) / MAX_TILE_ROWS;
    for (int64_t n = 0; n < columns; n += 2 * LANES) {
        const REAL *panels = weight + n * (depth + 1);
        for (int64_t i = 0; i < tiles; i++) {
            const int64_t first = rows * i / tiles, end = rows * (i + 1) / tiles;
            multiply_contiguous_rows(
                x + first * row_stride, row_stride, panels, depth, out + first * out_stride + n,
                out_stride, columns - n, end - first
            );
        }
    }
}

/* Each row of x has `parts` parts of [depth], side by side. Multiply each part by its own weight.
   The products, [columns] each, lie side by side. The weights' panels follow one another. */
static void multiply_parts(
    const REAL *x, int64_t row_stride, const REAL *weights, int64_t depth, REAL *out,
    int64_t columns, int64_t rows, int64_t parts
) {
    const int64_t weight_size = (columns + LANES - 1) / LANES * LANES * (depth + 1);
    for (int64_t k = 0; k < parts; k++)
        multiply(
            x + k * depth, row_stride, weights + k * weight_size, depth, out + k * columns,
            parts * columns, columns, rows
        );
}

typedef struct {
    const REAL *left;
    int64_t row_stride, columns;
    const REAL *panels;
    int64_t rows;
    REAL *out;
    int64_t width, accumulate, tiles;
} OuterProducts;

/* Copy some columns of `left` to contiguous memory, and multiply them by all panels. */
static void sum_outer_products_tile(const void *arguments, int64_t i) {
    const OuterProducts *o = arguments;
    const int64_t rows = o->rows, width = o->width, end = (rows - 1) * o->row_stride + o->columns;
    const int64_t first = o->columns * i / o->tiles;
    const int64_t count = o->columns * (i + 1) / o->tiles - first;
    REAL copied[(rows + 1) * MAX_TILE_ROWS + LANES];
    for (int64_t n = 0; n < rows; n++)
        for (int64_t j = 0; j < count; j += LANES) {
            const int64_t at = n * o->row_stride + first + j, readable = end - at;
            const Vector part = load(o->left + at, readable < LANES ? count - j : LANES);
            store(copied + n * MAX_TILE_ROWS + j, part, LANES);
        }
    for (int64_t n = 0; n < width; n += 2 * LANES)
        multiply_rows(
            copied, 1, MAX_TILE_ROWS, o->panels + n * (rows + 1), rows,
            o->out + first * width + n, width, width - n, o->accumulate, count
        );
}

/* Sum the outer products [columns, width] of the rows of `left` [rows, columns] and of the rows in
   the panels, on many threads. The sums are added to `out` if `accumulate`. There must be so few
   rows that a copy of some columns fits on a thread's stack. */
void sum_outer_products(
    const REAL *left, int64_t row_stride, int64_t columns, const REAL *panels, int64_t rows,
    REAL *out, int64_t width, int64_t accumulate, int64_t threads
) {
    const int64_t tiles = (columns + MAX_TILE_ROWS - 1) / MAX_TILE_ROWS;
    const OuterProducts products = {
        left, row_stride, columns, panels, rows, out, width, accumulate, tiles
    };
    parallel_for(sum_outer_products_tile, &products, tiles, threads);
}
