/* Shared memory: words, loads with acquire order, stores with release order, compare-and-swap.
 *
 * A step of the model is one access to one word, or to one Python object that the interpreter reads or swaps in one
 * step. With BUFFER > 0 each thread of machine code has a queue of so many stores that others don't see yet (total
 * store order, as on x86): what it loads later may overtake them, its own stores it sees. A compare-and-swap, an
 * exchange and the release of a lock wait until the queue is empty. Stores with release order leave in order, and
 * loads with acquire order are made in order, so this is all that they may do on a multi-copy-atomic machine. Orders
 * that the code relies on are taken away by mutants: M_... makes the two accesses come in either order.
 */

#ifndef BUFFER
#define BUFFER 0
#endif

#define X 0                        /* the slots of two variables: the number of a cell */
#define Y 1
#define NOW 2                      /* clock.now */
#define WORD 3                     /* the clock word of elements: version | flags */
#define VALUE(i) (4 + 2 * (i))     /* element i */
#define VERSION(i) (5 + 2 * (i))
#define COUNT(i) (8 + (i))         /* somebody may sleep at slot i; element i hashes to slot i */
#define MARK(i) (10 + (i))         /* slot i was written to while somebody slept there */
#define RUNG 12                    /* the waker was told, and has not looked yet */
#define WORDS 13

#define PUBLISHING 1
#define HELD 2
#define AWAITED 4
#define FLAGS 15
#define STEP 16
#define CLOCK_OF(word) ((word) & 240)

byte mem[WORDS];

#if BUFFER == 0

#define LOAD(a) (mem[a])
#define DRAINED (true)
inline store(a, v) { mem[a] = (v) }

#else

#ifndef THREADS
#define THREADS 2                  /* so many threads have a queue: those of numbers 0 and 1 */
#endif
byte pending[THREADS];             /* how many stores wait */
byte place[THREADS * BUFFER];
byte held[THREADS * BUFFER];

#define SLOT_(k) (me * BUFFER + (k))
#define MINE_(a, k) (me < THREADS && pending[me] > (k) && place[SLOT_(k)] == (a))
#if BUFFER == 1
#define LOAD(a) (MINE_(a, 0) -> held[SLOT_(0)] : mem[a])
#elif BUFFER == 2
#define LOAD(a) (MINE_(a, 1) -> held[SLOT_(1)] : (MINE_(a, 0) -> held[SLOT_(0)] : mem[a]))
#else
#define LOAD(a) (MINE_(a, 2) -> held[SLOT_(2)] : (MINE_(a, 1) -> held[SLOT_(1)] : \
                (MINE_(a, 0) -> held[SLOT_(0)] : mem[a])))
#endif
#define DRAINED (me >= THREADS || pending[me] == 0)

inline store(a, v) {
  d_step {
    pending[me] < BUFFER;
    place[SLOT_(pending[me])] = a;
    held[SLOT_(pending[me])] = v;
    pending[me]++
  }
}

/* The oldest store of thread t becomes visible. */
inline drain(t) {
  d_step {
    pending[t] > 0 ->
    mem[place[t * BUFFER]] = held[t * BUFFER];
    pending[t]--;
#if BUFFER > 1
    place[t * BUFFER] = place[t * BUFFER + 1];
    held[t * BUFFER] = held[t * BUFFER + 1];
#endif
#if BUFFER > 2
    place[t * BUFFER + 1] = place[t * BUFFER + 2];
    held[t * BUFFER + 1] = held[t * BUFFER + 2];
#endif
    place[t * BUFFER + BUFFER - 1] = 0;
    held[t * BUFFER + BUFFER - 1] = 0
  }
}

proctype Memory() {
end:
  do
  :: drain(0)
#if THREADS > 1
  :: drain(1)
#endif
#if THREADS > 2
  :: drain(2)
#endif
  od
}

#endif

/* compare_and_swap: sets `won`. */
inline compare_and_swap(a, old, new) {
  atomic {
    DRAINED ->
    if
    :: mem[a] == (old) -> mem[a] = (new); won = true
    :: else -> won = false
    fi
  }
}

/* control._change: change flags of the clock word while nobody publishes. (Its loop is left when the compare-and-swap
 * succeeds, which is this one step.)
 */
inline change_word(clear, put_) {
  atomic {
    (DRAINED && !(mem[WORD] & PUBLISHING)) ->
    mem[WORD] = (mem[WORD] & (255 - (clear))) | (put_)
  }
}

/* With COARSE, steps are merged that others can't tell apart from separate ones (Lipton, "Reduction", 1975): taking
 * the lock and looking at what changes under the lock only goes with the step after, letting go of it with the step
 * before. It also makes one step each of what the configurations without COARSE take apart: the waker's look at the
 * marks, and a waiter's leaving.
 */
#ifdef COARSE
#define MERGED atomic
#else
#define MERGED
#endif

/* clock.lock: who releases it has stored whatever he had to store. */
byte lock;

inline acquire() { atomic { lock == 0 -> lock = me + 1 } }
inline release() { atomic { DRAINED -> assert(lock == me + 1); lock = 0 } }
