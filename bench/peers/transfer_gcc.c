/* Two-account transfers under GCC's transactional memory (-fgnu-tm, run by libitm).
 *
 * Usage: transfer_gcc ACCOUNTS THREADS TRANSFERS-OF-EACH-THREAD; prints one line of JSON. bench/peers/__init__.py says
 * what all peers have in common. Balances lie side by side, eight to a cache line, as an array of them would anywhere.
 */

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define OPENING_BALANCE 1000
#define ROUTES (1u << 16)

struct route {
    uint32_t source, target;
};

struct worker {
    pthread_t thread;
    struct route *routes;
    double started, ended;
};

static int64_t *balances;
static int64_t accounts, threads, transfers;
static pthread_barrier_t barrier;

static void fail(const char *message) {
    fprintf(stderr, "transfer_gcc: %s\n", message);
    exit(1);
}

static int64_t number(const char *text, int64_t least, int64_t most) {
    char *end;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end || value < least || value > most)
        fail("wrong number among the arguments");
    return value;
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec * 1e-9;
}

static uint32_t draw(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (*state >> 33) % accounts;
}

static struct route *draw_routes(uint64_t seed) {
    struct route *routes = malloc(ROUTES * sizeof *routes);
    if (!routes)
        fail("out of memory");
    for (uint32_t n = 0; n < ROUTES; n++) {
        routes[n].source = draw(&seed);
        do
            routes[n].target = draw(&seed);
        while (routes[n].target == routes[n].source);
    }
    return routes;
}

/* What is measured. A function of its own, lest the loop's variables be saved for a transaction that starts again. */
static __attribute__((noinline)) void transfer(struct route route) {
    __transaction_atomic {
        int64_t source = balances[route.source], target = balances[route.target];
        balances[route.source] = source - 1;
        balances[route.target] = target + 1;
    }
}

static void *work(void *argument) {
    struct worker *self = argument;
    const struct route *routes = self->routes;
    /* The first transaction makes libitm's record of this thread: its price is the thread's, not a transfer's. */
    __transaction_atomic { balances[0] += 0; }
    pthread_barrier_wait(&barrier);
    self->started = now();
    for (int64_t n = 0; n < transfers; n++)
        transfer(routes[n % ROUTES]);
    self->ended = now();
    /* libitm runs the last thread that is left without conflict detection. Nobody leaves before all have ended. */
    pthread_barrier_wait(&barrier);
    return NULL;
}

int main(int count, char **arguments) {
    if (count != 4)
        fail("wants three arguments: accounts, threads, transfers of each thread");
    accounts = number(arguments[1], 2, INT32_MAX);
    threads = number(arguments[2], 1, 1024);
    transfers = number(arguments[3], 0, INT64_MAX / 1024);

    balances = aligned_alloc(64, (accounts * sizeof *balances + 63) / 64 * 64);
    struct worker *workers = calloc(threads, sizeof *workers);
    if (!balances || !workers)
        fail("out of memory");
    for (int64_t account = 0; account < accounts; account++)
        balances[account] = OPENING_BALANCE;
    pthread_barrier_init(&barrier, NULL, threads);
    for (int64_t n = 0; n < threads; n++) {
        workers[n].routes = draw_routes(n + 1);
        if (pthread_create(&workers[n].thread, NULL, work, &workers[n]))
            fail("can't start a thread");
    }
    for (int64_t n = 0; n < threads; n++)
        pthread_join(workers[n].thread, NULL);

    double started = workers[0].started, ended = workers[0].ended;
    for (int64_t n = 1; n < threads; n++) {
        started = workers[n].started < started ? workers[n].started : started;
        ended = workers[n].ended > ended ? workers[n].ended : ended;
    }
    int64_t total = 0;
    uint64_t digest = 0;
    for (int64_t account = 0; account < accounts; account++) {
        total += balances[account];
        digest += (uint64_t)account * (uint64_t)balances[account];
    }
    printf("{\"system\": \"gcc\", \"accounts\": %lld, \"threads\": %lld, \"transfers\": %lld, \"seconds\": %.9f, "
           "\"kept\": %s, \"digest\": %llu}\n",
           (long long)accounts, (long long)threads, (long long)(threads * transfers), ended - started,
           total == accounts * OPENING_BALANCE ? "true" : "false", (unsigned long long)digest);
    return 0;
}
