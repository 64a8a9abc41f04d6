/* The bits of keyed masks, as `dropout_policies.keyed` defines them. */

#include <stdint.h>

#define BLOCKS 256

static inline uint32_t rotate_left(uint32_t word, int bits) {
    return word << bits | word >> (32 - bits);
}

/* Threefry-2x32-20: the blocks at counters (row, first), (row, first + 1), ... */
static void threefry(
    uint32_t k0, uint32_t k1, uint32_t row, uint32_t first, int count, uint32_t *restrict words
) {
    static const int rotations[2][4] = {{13, 15, 26, 6}, {17, 29, 16, 24}};
    const uint32_t schedule[3] = {k0, k1, k0 ^ k1 ^ 0x1BD11BDAu};
    for (int i = 0; i < count; i++) {
        uint32_t x0 = row + k0, x1 = first + (uint32_t)i + k1;
        for (int group = 0; group < 5; group++) {
            for (int turn = 0; turn < 4; turn++) {
                x0 += x1;
                x1 = rotate_left(x1, rotations[group % 2][turn]) ^ x0;
            }
            x0 += schedule[(group + 1) % 3];
            x1 += schedule[(group + 2) % 3] + (uint32_t)group + 1;
        }
        words[2 * i] = x0;
        words[2 * i + 1] = x1;
    }
}

/* Fills kept [T, B, F] with 1 where the word of an element is at least `least`, else with 0; its
   first step is number `first_step` of the mask. */
void keep_bits(
    uint32_t k0, uint32_t k1, uint32_t least, int64_t steps, int64_t batch, int64_t width,
    uint32_t row_offset, int64_t first_step, uint8_t *restrict kept
) {
    uint32_t words[2 * BLOCKS];
    for (int64_t t = 0; t < steps; t++) {
        for (int64_t b = 0; b < batch; b++) {
            uint8_t *restrict row = kept + (t * batch + b) * width;
            /* Elements first to first + width of the row b; the first may be a block's second. */
            int64_t first = (first_step + t) * width, done = 0;
            while (done < width) {
                int64_t block = (first + done) / 2, odd = (first + done) % 2;
                int64_t there = 2 * BLOCKS - odd, left = width - done;
                int64_t now = left < there ? left : there;
                threefry(k0, k1, row_offset + (uint32_t)b, (uint32_t)block,
                         (int)((odd + now + 1) / 2), words);
                for (int64_t f = 0; f < now; f++) row[done + f] = words[odd + f] >= least;
                done += now;
            }
        }
    }
}
