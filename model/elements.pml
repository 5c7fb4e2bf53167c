/* The compiled tier: begin, read, validate, extend, commit, ring (stm/compiled/kernels.py). */

#define ELEMENT_LOCALS byte moment; byte word; bool took[2]; bool late; bool found

inline forget_elements() {
  d_step { moment = 0; word = 0; took[0] = false; took[1] = false; late = false; found = false }
}

inline begin_elements() { moment = CLOCK_OF(LOAD(WORD)) }

/* Load the value into `got`, then the version: true if that is no newer than the attempt. */
inline load_element(i) {
#if defined(M_VERSION_LOADED_FIRST)
  sampled = LOAD(VERSION(i)); got = LOAD(VALUE(i))
#elif defined(M_LOADS_IN_ANY_ORDER)
  if
  :: got = LOAD(VALUE(i)); sampled = LOAD(VERSION(i))
  :: sampled = LOAD(VERSION(i)); got = LOAD(VALUE(i))
  fi
#else
  got = LOAD(VALUE(i)); sampled = LOAD(VERSION(i))
#endif
}

inline check_element(i) {
  if
  :: stale || !took[i]
  :: else -> stale = (LOAD(VERSION(i)) > moment)
  fi
}

/* kernels.stands: sets `stale`. */
inline stands() {
  check_element(0);
  check_element(1)
}

/* kernels.read and _read_newer. */
inline read_element(i) {
  load_element(i);
  do
  :: sampled <= moment -> d_step { sampled = 0; word = 0; took[i] = true }; break
  :: else ->
#ifndef M_ELEMENTS_SAMPLED_LATE
     word = CLOCK_OF(LOAD(WORD));
#endif
     stale = false;
#ifndef M_ELEMENTS_EXTEND_WITHOUT_VALIDATION
     stands();
#endif
     if
     :: stale -> RESTART
     :: else
     fi;
#ifdef M_ELEMENTS_SAMPLED_LATE
     word = CLOCK_OF(LOAD(WORD));
#endif
     moment = word;
     load_element(i)               /* once more if its commit is not complete: linger */
  od
}

inline store_element(i, target) {
  if
  :: !put[2 + i]
  :: else ->
#if defined(M_VERSION_AFTER_VALUE)
     store(VALUE(i), put[2 + i]); store(VERSION(i), target)
#elif defined(M_STORES_IN_ANY_ORDER)
     if
     :: store(VERSION(i), target); store(VALUE(i), put[2 + i])
     :: store(VALUE(i), put[2 + i]); store(VERSION(i), target)
     fi
#else
     store(VERSION(i), target); store(VALUE(i), put[2 + i])
#endif
  fi
}

/* kernels.publish, after PUBLISHING has been set. */
inline publish_elements(target) {
  store_element(0, target);
  store_element(1, target)
}

#ifdef WAITING
inline mark_slot(i) {
  if
  :: !put[2 + i]
  :: else ->
     if
     :: LOAD(COUNT(i)) -> store(MARK(i), 1); found = true
     :: else
     fi
  fi
}

/* kernels.ring: mark the slots where somebody may sleep, and tell the waker unless he was told already. */
inline ring() {
  found = false;
  mark_slot(0);
  mark_slot(1);
  if
  :: found ->
     atomic {                      /* exchange: a full fence */
       DRAINED -> found = !mem[RUNG]; mem[RUNG] = 1
     };
     if
     :: found -> told = true; found = false
     :: else
     fi
  :: else
  fi
}
#endif

/* kernels.commit and _commit: sets `won`. The code validates before it takes the word, and after it only when it has
 * lost the race three times; the model may do either each time.
 */
inline commit_elements() {
#ifdef M_RING_BEFORE_THE_WORD
  if
  :: LOAD(WORD) & AWAITED -> ring()
  :: else
  fi;
#endif
  do
  :: word = LOAD(WORD);
     if
#if defined(EXCLUSIVE) && !defined(M_IGNORE_HELD)
     :: (word & HELD) -> wait_until_free(); won = false; break
     :: !(word & HELD) && (word & PUBLISHING) -> !(LOAD(WORD) & PUBLISHING)
#else
     :: (word & PUBLISHING) -> !(LOAD(WORD) & PUBLISHING)
#endif
     :: else ->
        stale = false;
        if
        :: late = false
#ifndef M_ELEMENTS_COMMIT_WITHOUT_VALIDATION
           ;
           if
           :: CLOCK_OF(word) == moment
           :: else -> stands()
           fi
#endif
#ifndef COARSE
        :: late = true             /* two committers can't lose a race three times */
#endif
        fi;
        if
        :: stale -> won = false; break
        :: else
        fi;
        compare_and_swap(WORD, word, word | PUBLISHING);
        if
        :: won ->
           if
           :: late ->
#ifdef M_ELEMENTS_COMMIT_WITHOUT_VALIDATION
              skip
#else
              stands()
#endif
           :: else
           fi;
           if
           :: stale -> store(WORD, word); won = false; break
           :: else
           fi;
#ifdef M_WORD_BEFORE_ELEMENTS
           store(WORD, word + STEP);
#endif
           publish_elements(CLOCK_OF(word) + STEP);
#ifndef M_WORD_BEFORE_ELEMENTS
#ifdef M_AWAITED_FORGOTTEN
           store(WORD, CLOCK_OF(word) + STEP);
#else
           store(WORD, word + STEP);
#endif
#endif
#if defined(WAITING) && !defined(M_RING_BEFORE_THE_WORD)
           if
           :: (word & AWAITED) -> ring()
           :: else
           fi;
#endif
           break
        :: else                    /* somebody else was quicker */
        fi
     fi
  od
}
