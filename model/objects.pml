/* The object tier: begin, read, extend, commit (stm/tvar.py, stm/transaction.py, stm/clock.py).
 *
 * A cell is a number; what it holds never changes once it is published. The stores of a commit are made directly: it
 * loads nothing between them and the release of the lock, so a queue of stores would show others nothing new.
 */

#ifndef CELLS
#define CELLS 12
#endif

byte cell_value[CELLS];
byte cell_version[CELLS];
byte fresh;                        /* the next cell that nobody has seen */

#ifdef SNAPSHOTS
byte cell_link[CELLS];             /* the cell whose box stands behind this one; 0: none */
byte kept_until[CELLS];            /* the commit that replaced a cell that a box holds; 0: the box is empty */
byte snapshots[READERS];           /* the moments of running snapshots, plus one; 0: none */
#endif
bool quiet = true;                 /* no snapshot runs and nobody is exclusive */
#ifdef EXCLUSIVE
byte owner;                        /* the exclusive thread, plus one */
byte exclusive;                    /* who holds clock.exclusive, plus one */
#endif

#define MOST(a, b) ((a) > (b) -> (a) : (b))

/* An attempt. `seen`: the cells read; `put`: the values to be written to X, Y, and to the elements (0: none). */
#define OBJECT_LOCALS \
  byte rv; byte seen[2]; byte cell; byte sampled; byte got; bool stale; bool won; byte put[4]; byte version

inline forget_objects() {
  d_step { rv = 0; seen[X] = 0; seen[Y] = 0; cell = 0; sampled = 0; got = 0; stale = false; won = false;
           put[0] = 0; put[1] = 0; put[2] = 0; put[3] = 0; version = 0 }
}

inline check_cell(v) {
  if
  :: stale || !seen[v]
  :: else -> stale = (LOAD(v) != seen[v])
  fi
}

/* clock.unchanged: sets `stale`. A part with elements stands among the reads (both.pml). */
inline unchanged() {
  check_cell(X);
  check_cell(Y);
#ifdef BOTH
  stands()
#endif
}

/* TVar.get: one load of a cell, and a comparison; else Transaction.extend. */
inline read_object(v) {
  cell = LOAD(v);
  if
  :: cell_version[cell] <= rv
  :: else -> extend(v)
  fi;
  skip;
  d_step { seen[v] = cell; got = cell_value[cell]; cell = 0 }
}

inline extend(v) {
  do
  :: d_step { sampled = LOAD(NOW); stale = false }
#ifndef M_EXTEND_WITHOUT_VALIDATION
     unchanged();
#endif
#ifdef M_EXTEND_SAMPLES_LATE
     sampled = LOAD(NOW);
#endif
     if
     :: stale -> RESTART
     :: else
     fi;
     cell = LOAD(v);
     if
     :: cell_version[cell] <= sampled -> d_step { rv = sampled; sampled = 0 }; break
     :: else                       /* give_way: its commit is not complete */
     fi
  od
}

/* The new cell of variable v, when a commit of `version` puts a value to it: made before it is published. */
inline make_cell(v) {
  d_step {
    cell = fresh;
    fresh++;
    cell_value[cell] = put[v];
    cell_version[cell] = version;
#ifdef SNAPSHOTS
    if
    :: quick                       /* the quick way links nothing: nobody is there to read it */
    :: else -> link(v)
    fi
#endif
  }
}

inline publish_cell(v) {
  if
  :: !put[v]
  :: else -> make_cell(v); d_step { mem[v] = cell; cell = 0 }
  fi
}

/* clock.settle, in the slow way; the quick way finds the clock quiet. */
inline settle() {
#ifdef SNAPSHOTS
  if
  :: quick
  :: else -> settle_history()
  fi;
#endif
#ifdef EXCLUSIVE
  if
  :: quiet
  :: else -> quiet = !owner
  fi;
#endif
  skip
}

#ifdef WAITING
/* waiting.waking and waiting.rouse: a mark, off the list of sleepers, and the bell; in one C call, hence in a d_step.
 */
inline wake(who) {
  bells = bells | ((who) & ~woken);
  sleepers = sleepers & ~(who);
  woken = woken | (who)
}
inline rouse(v) {
  if
  :: !put[v] || !listed[v]
  :: else -> d_step { wake(listed[v]); listed[v] = 0 }
  fi
}
#endif

/* Publish under the lock, once everything stands: cells first, clock.now last. */
inline publish_objects() {
#ifdef M_CLOCK_BEFORE_CELLS
  mem[NOW] = version;
#endif
  publish_cell(X);
#ifdef M_CLOCK_AMID_CELLS
  mem[NOW] = version;
#endif
  publish_cell(Y);
#if !defined(M_CLOCK_BEFORE_CELLS) && !defined(M_CLOCK_AMID_CELLS) && !defined(M_CLOCK_NEVER_STORED)
  mem[NOW] = version;
#endif
  skip
}

/* The beginning of a commit, under the lock: wait for who is exclusive, validate (sets `stale`). */
inline acquire_and_validate() {
#ifdef EXCLUSIVE
  do
  :: acquire();
     if
#ifndef M_IGNORE_OWNER
     :: owner && owner != me + 1 -> release(); wait_for_exclusive()
#endif
     :: else -> break
     fi
  od;
  skip;
#else
  acquire();
#endif
  d_step { sampled = LOAD(NOW); version = sampled + 2; stale = false };
#ifndef M_COMMIT_WITHOUT_VALIDATION
  if
  :: sampled == rv
  :: else -> unchanged()
  fi
#endif
}

/* transaction.commit, publish, commit_any: sets `won`. */
inline commit_objects() {
#ifdef M_WAKE_OUTSIDE_THE_LOCK
  rouse(X); rouse(Y);
#endif
  MERGED { acquire_and_validate() };
  if
  :: stale -> won = false
  :: else ->
#ifdef SNAPSHOTS
     look_for_snapshots();
#endif
#if defined(WAITING) && !defined(M_WAKE_OUTSIDE_THE_LOCK)
     rouse(X); rouse(Y);
#endif
     publish_objects();
     settle();
     won = true
  fi;
  release()
}
