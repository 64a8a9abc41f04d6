/* Products with a weight, by a tile of sums that stays in the registers.

   The weight lies in panels of LANES columns each, the last filled up with zeros:
   [panels, 1 + depth, LANES], of which the first row is a bias, or zeros. Part of fused.c. */

#ifdef __AVX512F__
#define VECTOR 64 /* bytes */
#define TALL 12   /* rows whose sums fit into registers, two vectors wide */
#else
#define VECTOR 32
#define TALL 6
#endif

#define LANES ((int64_t)(VECTOR / sizeof(REAL)))

typedef REAL Vector __attribute__((vector_size(VECTOR)));
typedef REAL Loose __attribute__((vector_size(VECTOR), aligned(sizeof(REAL)), may_alias));

int64_t lanes(void) { return LANES; }

typedef struct {
    const REAL *weight, *bias;
    int64_t across, down;
    REAL *out;
    int64_t columns, depth;
} Layout;

/* One panel of a weight. */
static void lay_out_panel(const void *arguments, int64_t panel) {
    const Layout *l = arguments;
    const int64_t n = panel * LANES, depth = l->depth, across = l->across, down = l->down;
    const int64_t there = l->columns - n < LANES ? l->columns - n : LANES;
    const REAL *restrict from = l->weight + n * across, *restrict bias = l->bias;
    REAL *restrict to = l->out + n * (depth + 1);
    for (int64_t j = 0; j < LANES; j++) to[j] = bias && j < there ? bias[n + j] : 0;
    to += LANES;
    if (across == 1 && there == LANES) {
        for (int64_t k = 0; k < depth; k++)
            for (int64_t j = 0; j < LANES; j++) to[k * LANES + j] = from[k * down + j];
        return;
    }
    for (int64_t first = 0; first < depth; first += LANES) {
        const int64_t end = depth - first < LANES ? depth : first + LANES;
        for (int64_t j = 0; j < LANES; j++)
            for (int64_t k = first; k < end; k++)
                to[k * LANES + j] = j < there ? from[j * across + k * down] : 0;
    }
}

/* A weight in panels, which the threads share out. Its columns lie `across` from another, and the
   entries of each `down` from another; a bias may be there or not. */
void lay_out(
    const REAL *weight, int64_t across, int64_t down, const REAL *bias, REAL *out,
    int64_t columns, int64_t depth, int64_t threads
) {
    const Layout layout = {weight, bias, across, down, out, columns, depth};
    parallel_for(lay_out_panel, &layout, (columns + LANES - 1) / LANES, threads);
}

/* What is there of a vector. */
static inline Vector get(const REAL *from, int64_t there) {
    REAL all[LANES] = {0};
    if (there >= LANES) return *(const Loose *)from;
    for (int64_t j = 0; j < there; j++) all[j] = from[j];
    return *(const Loose *)all;
}

static inline void put(REAL *to, Vector sums, int64_t there) {
    REAL all[LANES];
    if (there >= LANES) {
        *(Loose *)to = sums;
        return;
    }
    *(Loose *)all = sums;
    for (int64_t j = 0; j < there; j++) to[j] = all[j];
}

/* Some rows by one or two panels of a weight, of whose columns so many are there; where `added`, to
   what `out` holds, or else to the first row of the panels. Rows lie `apart` from another, and
   the entries of each `step`. */
static inline __attribute__((always_inline)) void tile(
    const REAL *restrict x, int64_t apart, int64_t step, const REAL *restrict weight,
    int64_t depth, REAL *restrict out, int64_t out_apart, int64_t columns, int64_t added,
    const int rows, const int panels
) {
    const int64_t panel = (depth + 1) * LANES;
    Vector sums[TALL][2];
    for (int r = 0; r < rows; r++)
        for (int p = 0; p < panels; p++)
            sums[r][p] = added ? get(out + r * out_apart + p * LANES, columns - p * LANES)
                               : get(weight + p * panel, LANES);
    for (int64_t k = 0; k < depth; k++) {
        const REAL *at = weight + (k + 1) * LANES;
        const Vector first = *(const Loose *)at;
        const Vector second = *(const Loose *)(at + (panels - 1) * panel);
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) {
            const REAL factor = x[r * apart + k * step];
            sums[r][0] += factor * first;
            if (panels == 2) sums[r][1] += factor * second;
        }
    }
    for (int r = 0; r < rows; r++)
        for (int p = 0; p < panels; p++)
            put(out + r * out_apart + p * LANES, sums[r][p], columns - p * LANES);
}

/* Up to TALL rows. Always inlined, so that `apart`, `step` and `added` are known where they are. */
static inline __attribute__((always_inline)) void by_panels(
    const REAL *x, int64_t apart, int64_t step, const REAL *weight, int64_t depth, REAL *out,
    int64_t out_apart, int64_t columns, int64_t added, int64_t rows
) {
#define TILE(rows, panels) \
    tile(x, apart, step, weight, depth, out, out_apart, columns, added, rows, panels)
#define TALLER(rows)                         \
    case rows:                               \
        if (columns > LANES) TILE(rows, 2);  \
        else TILE(rows, 1);                  \
        break;
    switch (rows) {
        TALLER(1) TALLER(2) TALLER(3) TALLER(4) TALLER(5) TALLER(6)
#if TALL == 12
        TALLER(7) TALLER(8) TALLER(9) TALLER(10) TALLER(11) TALLER(12)
#endif
    }
#undef TALLER
#undef TILE
}

/* Up to TALL rows of entries that lie side by side. */
static __attribute__((noinline)) void rows_by_panels(
    const REAL *x, int64_t apart, const REAL *weight, int64_t depth, REAL *out, int64_t out_apart,
    int64_t columns, int64_t rows
) {
    by_panels(x, apart, 1, weight, depth, out, out_apart, columns, 0, rows);
}

/* Rows x, whose starts lie `apart` from another, by a weight: [rows, columns]. */
static void multiply(
    const REAL *x, int64_t apart, const REAL *weight, int64_t depth, REAL *out, int64_t columns,
    int64_t rows
) {
    const int64_t tiles = (rows + TALL - 1) / TALL;
    for (int64_t n = 0; n < columns; n += 2 * LANES) {
        const REAL *panels = weight + n * (depth + 1);
        for (int64_t i = 0; i < tiles; i++) {
            const int64_t from = rows * i / tiles, to = rows * (i + 1) / tiles;
            rows_by_panels(
                x + from * apart, apart, panels, depth, out + from * columns + n, columns,
                columns - n, to - from
            );
        }
    }
}

typedef struct {
    const REAL *d;
    int64_t apart, columns;
    const REAL *panels;
    int64_t rows;
    REAL *out;
    int64_t width, added, tiles;
} Outer;

/* Some columns of d, copied to where they lie side by side, with all of the panels. */
static void outer_tile(const void *arguments, int64_t i) {
    const Outer *o = arguments;
    const int64_t rows = o->rows, width = o->width, end = (rows - 1) * o->apart + o->columns;
    const int64_t from = o->columns * i / o->tiles;
    const int64_t high = o->columns * (i + 1) / o->tiles - from;
    REAL some[(rows + 1) * TALL + LANES];
    for (int64_t n = 0; n < rows; n++)
        for (int64_t j = 0; j < high; j += LANES) {
            const int64_t at = n * o->apart + from + j, there = end - at;
            put(some + n * TALL + j, get(o->d + at, there < LANES ? high - j : LANES), LANES);
        }
    for (int64_t n = 0; n < width; n += 2 * LANES)
        by_panels(
            some, 1, TALL, o->panels + n * (rows + 1), rows, o->out + from * width + n, width,
            width - n, o->added, high
        );
}

/* The sum of outer products [columns, width], of rows d [rows, columns], whose starts lie `apart`
   from another, and of rows in panels; where `added`, to what is there. The threads share out the
   columns. Rows are to be few enough for a copy of some columns to lie on a thread's stack. */
void outer(
    const REAL *d, int64_t apart, int64_t columns, const REAL *panels, int64_t rows, REAL *out,
    int64_t width, int64_t added, int64_t threads
) {
    const int64_t tiles = (columns + TALL - 1) / TALL;
    const Outer products = {d, apart, columns, panels, rows, out, width, added, tiles};
    parallel_for(outer_tile, &products, tiles, threads);
}
