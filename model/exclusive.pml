/* The attempt that can't be disturbed (stm/contention.py, Execution.attempt, clock.enter_exclusive). */

#ifndef INSIST_AFTER
#define INSIST_AFTER 2             /* ten in the code */
#endif

/* clock.wait_for_exclusive: pass through the lock of who is exclusive. */
inline wait_for_exclusive() {
  atomic { exclusive == 0 -> exclusive = me + 1 };
  exclusive = 0
}

/* upcalls.wait_until_free: the same for a compiled transaction; clears what an untimely end may have left. */
inline wait_until_free() {
  atomic { exclusive == 0 -> exclusive = me + 1 };
  change_word(HELD, 0);
  exclusive = 0
}

/* enter_exclusive, become_exclusive; HELD is set by the first access to an array (joining.join), or at once by a
 * compiled transaction (upcalls.insist).
 */
inline become_exclusive() {
  atomic { exclusive == 0 -> exclusive = me + 1 };
  acquire();
  owner = me + 1;
  quiet = false;
  release()
}

inline join_exclusively() {
  if
#ifdef M_NOT_HELD
  :: false
#else
  :: insists -> change_word(0, HELD)
#endif
  :: else
  fi;
  join()
}

/* The owner goes first, then HELD, then the lock. */
inline end_exclusive() {
  owner = 0;
  change_word(HELD, 0);
  exclusive = 0
}
