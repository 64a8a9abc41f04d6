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

/* A weight in panels, which the threads share out. Its columns lie `across` from another, and the
   entries of each `down` from another; a bias may be there or not. */
void lay_out(
    const REAL *restrict weight, int64_t across, int64_t down, const REAL *restrict bias,
    REAL *restrict out, int64_t columns, int64_t depth, int64_t threads
) {
#pragma omp parallel for num_threads(threads)
    for (int64_t n = 0; n < columns; n += LANES) {
        const int64_t there = columns - n < LANES ? columns - n : LANES;
        const REAL *restrict from = weight + n * across;
        REAL *restrict to = out + n * (depth + 1);
        for (int64_t j = 0; j < LANES; j++) to[j] = bias && j < there ? bias[n + j] : 0;
        to += LANES;
        if (across == 1 && there == LANES) {
            for (int64_t k = 0; k < depth; k++)
                for (int64_t j = 0; j < LANES; j++) to[k * LANES + j] = from[k * down + j];
            continue;
        }
        for (int64_t first = 0; first < depth; first += LANES) {
            const int64_t end = depth - first < LANES ? depth : first + LANES;
            for (int64_t j = 0; j < LANES; j++)
                for (int64_t k = first; k < end; k++)
                    to[k * LANES + j] = j < there ? from[j * across + k * down] : 0;
        }
    }
}

/* Some rows by one or two panels of a weight, of whose columns so many are there. */
static inline __attribute__((always_inline)) void tile(
    const REAL *restrict x, int64_t x_apart, const REAL *restrict weight, int64_t depth,
    REAL *restrict out, int64_t out_apart, int64_t columns, const int rows, const int panels
) {
    const int64_t panel = (depth + 1) * LANES;
    Vector sums[TALL][2];
    for (int r = 0; r < rows; r++)
        for (int p = 0; p < panels; p++) sums[r][p] = *(const Loose *)(weight + p * panel);
    for (int64_t k = 0; k < depth; k++) {
        const REAL *at = weight + (k + 1) * LANES;
        const Vector first = *(const Loose *)at;
        const Vector second = *(const Loose *)(at + (panels - 1) * panel);
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
            if (left >= LANES) *(Loose *)to = sums[r][p];
            else for (int64_t j = 0; j < left; j++) to[j] = sums[r][p][j];
        }
}

/* Rows x, whose starts lie `x_apart` from another, by a weight: [rows, columns]. */
static __attribute__((noinline)) void multiply(
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
#define TILE(rows, panels) tile(at, x_apart, panel, depth, into, columns, left, rows, panels)
#define TALLER(rows)                \
    case rows:                      \
        if (left > LANES)           \
            TILE(rows, 2);          \
        else                        \
            TILE(rows, 1);          \
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
