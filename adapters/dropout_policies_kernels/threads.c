/* A loop on many threads. It uses the threads of the OpenMP runtime that the process already has. A
   second pool of threads would compete with the first. Part of steps.c.

   `#pragma omp` would tie a library to the runtime of the compiler that made it: GCC calls libgomp,
   Clang calls LLVM's. Both runtimes have the functions below. Their addresses come from Python. */

typedef struct {
    void (*parallel)(void (*)(void *), void *, unsigned, unsigned); /* GOMP_parallel */
    int (*thread_num)(void);                                        /* omp_get_thread_num */
    int (*num_threads)(void);                                       /* omp_get_num_threads */
} OpenMP;

static OpenMP openmp;

/* Set the addresses of the runtime's functions. Without this call every loop runs on one thread. */
void use_threads(
    void (*parallel)(void (*)(void *), void *, unsigned, unsigned), int (*thread_num)(void),
    int (*num_threads)(void)
) {
    openmp = (OpenMP){parallel, thread_num, num_threads};
}

int64_t has_threads(void) { return openmp.parallel != NULL; }

typedef void (*Body)(const void *arguments, int64_t i);

typedef struct {
    Body body;
    const void *arguments;
    int64_t count;
} Loop;

/* The iterations of one thread. They are consecutive and the same at every call, so a thread finds
   the data of the previous call in its cache. */
static void run_iterations(void *data) {
    const Loop *loop = data;
    const int64_t thread = openmp.thread_num(), threads = openmp.num_threads();
    const int64_t end = loop->count * (thread + 1) / threads;
    for (int64_t i = loop->count * thread / threads; i < end; i++) loop->body(loop->arguments, i);
}

/* Call body(arguments, i) for each i from 0 to count - 1, in any order. */
static void parallel_for(Body body, const void *arguments, int64_t count, int64_t threads) {
    Loop loop = {body, arguments, count};
    if (has_threads() && threads > 1) openmp.parallel(run_iterations, &loop, (unsigned)threads, 0);
    else
        for (int64_t i = 0; i < count; i++) body(arguments, i);
}
