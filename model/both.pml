/* Both tiers in one attempt and one commit (stm/compiled/joining.py, control.py, transaction.publish). */

/* joining.join: the moment of elements, taken only to validate what was read of variables after. */
inline join() {
  d_step { moment = CLOCK_OF(LOAD(WORD)); stale = false };
#ifndef M_JOIN_WITHOUT_VALIDATION
  unchanged();
#endif
  if
  :: stale -> RESTART
  :: else
  fi
}

/* TArray._get_joined: what the kernel finds too new it leaves to joining.extend, and reads again. */
inline read_joined(i) {
  load_element(i);
  do
  :: sampled <= moment -> d_step { sampled = 0; word = 0; took[i] = true }; break
  :: else ->
     d_step { word = CLOCK_OF(LOAD(WORD)); stale = false };
#ifdef M_JOINED_EXTEND_FORGETS_VARIABLES
     stands();
#else
     unchanged();
#endif
     if
     :: stale -> RESTART
     :: else
     fi;
     moment = word;
     load_element(i)
  od
}

#ifdef WAITING
/* waiting.wakes: who waits for what is going to be written. */
inline collect(v) {
  if
  :: put[v] -> to_wake = to_wake | listed[v]
  :: else
  fi
}
#define BOTH_LOCALS byte to_wake
#else
#define BOTH_LOCALS skip
#endif

/* transaction.publish with an array part; control._lock and _publish. Elements, cells, clock.now, the word. */
inline commit_both() {
  MERGED { acquire_and_validate() };
  if
  :: stale -> won = false; release()
  :: else ->
#ifdef SNAPSHOTS
     look_for_snapshots();
     quick = false;
#endif
#ifdef WAITING
     d_step { to_wake = 0; collect(X); collect(Y); collect(2); collect(3) };
#endif
#ifdef M_BOTH_WITHOUT_PUBLISHING
     word = LOAD(WORD);
#else
     atomic { (DRAINED && !(mem[WORD] & PUBLISHING)) -> word = mem[WORD]; mem[WORD] = word | PUBLISHING };
#endif
#ifndef M_BOTH_WITHOUT_SECOND_VALIDATION
     stands();
#endif
     if
     :: stale -> mem[WORD] = word; won = false; release()
     :: else ->
#ifdef M_CELLS_BEFORE_ELEMENTS
        publish_objects();
        publish_elements(CLOCK_OF(word) + STEP);
#else
        publish_elements(CLOCK_OF(word) + STEP);
        DRAINED;                   /* the cells are stored after, and directly */
#ifdef M_WORD_BEFORE_CELLS
        mem[WORD] = word + STEP;
#endif
        publish_objects();
#endif
#ifndef M_WORD_BEFORE_CELLS
        mem[WORD] = word + STEP;
#endif
        MERGED {
#ifdef WAITING
          d_step { wake(to_wake); to_wake = 0 };
#endif
          settle();
          won = true;
          release()
        }
     fi
  fi
}
