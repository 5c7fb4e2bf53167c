/* How a blocked transaction sleeps and is woken (stm/waiting.py, stm/compiled/sleeping.py, control._arm).
 *
 * Sets of threads are bit masks. A bell, and the mark that it was rung, belong to one sleep; they are made anew under
 * the lock, and who rings holds the lock.
 */

#define ME (1 << me)

/* Waiter._enlist for one variable, _Waker.start and ArrayPart._places for elements. */
inline enlist(v) {
  if
  :: seen[v] -> listed[v] = listed[v] | ME
  :: else
  fi
}

inline count(i) {
  if
  :: took[i] -> store(COUNT(i), 1)
  :: else
  fi
}

/* control._arm: between the first line and the last, nobody else changes the word. */
inline arm() {
#ifdef M_ARM_WITHOUT_THE_WORD
  change_word(0, AWAITED);
  count(0);
  count(1)
#else
  change_word(0, AWAITED | PUBLISHING);
  count(0);
  count(1);
  MERGED { word = LOAD(WORD); store(WORD, word & (255 - PUBLISHING)); word = 0 }
#endif
}

inline enlist_elements() {
  if
  :: took[0] || took[1] ->
     waker_runs = true;
     arm();
     d_step {
       listed[2] = (took[0] -> listed[2] | ME : listed[2]);
       listed[3] = (took[1] -> listed[3] | ME : listed[3])
     }
  :: else
  fi
}

/* Waiter.withdraw: the lists are left one by one. */
inline leave() {
  listed[X] = listed[X] & ~ME;
  listed[Y] = listed[Y] & ~ME;
  listed[2] = listed[2] & ~ME;
  listed[3] = listed[3] & ~ME;
  sleepers = sleepers & ~ME
}

/* _Waker.nudge */
inline nudge() {
  if
  :: took[0] || took[1] -> told = true
  :: else
  fi
}

/* Waiter.register, the sleep, Waiter.withdraw: returns when the attempt is to be made again. */
inline sleep_until_changed(may_give_up) {
#ifdef M_REGISTER_AFTER_VALIDATION
  stale = false;
  unchanged();
#endif
  MERGED {
    acquire();
    d_step { bells = bells & ~ME; woken = woken & ~ME; enlist(X); enlist(Y); sleepers = sleepers | ME }
  };
#ifdef BOTH
  enlist_elements();
#endif
  MERGED {
#ifndef M_REGISTER_AFTER_VALIDATION
    stale = false;
    unchanged();
#endif
    release()
  };
  if
  :: stale
  :: else ->
     if
     :: bells & ME
     :: may_give_up                /* its time is up */
     fi
  fi;
#ifdef COARSE
  d_step { leave(); nudge() }
#else
  leave();
#ifdef BOTH
  nudge()
#endif
#endif
}

#ifdef BOTH
/* _Waker._serve and _retire. */
proctype Waker(byte me) {
  byte found;
end:
  do
  :: waker_runs ->
     do
     :: atomic { told -> told = false };
#ifndef M_ANSWER_AFTER_MARKS
        mem[RUNG] = 0;
#endif
#ifdef COARSE
        d_step { found = mem[MARK(0)] | (mem[MARK(1)] << 1); mem[MARK(0)] = 0; mem[MARK(1)] = 0 };
#else
        found = mem[MARK(0)];      /* marks.copy() takes the words one by one */
        found = found | (mem[MARK(1)] << 1);
#endif
#ifdef M_ANSWER_AFTER_MARKS
        mem[RUNG] = 0;
#endif
#ifndef COARSE
        if
        :: found & 1 -> mem[MARK(0)] = 0
        :: else
        fi;
        if
        :: found & 2 -> mem[MARK(1)] = 0
        :: else
        fi;
#endif
        if
        :: found ->
           MERGED {
             acquire();
             d_step {              /* wake_all */
               if
               :: found & 1 -> wake(listed[2])
               :: else
               fi;
               if
               :: found & 2 -> wake(listed[3])
               :: else
               fi;
               found = 0
             };
             release()
           }
        :: else
        fi;
        MERGED {
#ifndef M_RETIRE_WITHOUT_LOCK
          acquire();
#endif
          if
          :: !listed[2] -> mem[COUNT(0)] = 0
          :: else
          fi
        };
        if
        :: !listed[3] -> mem[COUNT(1)] = 0
        :: else
        fi;
        if
        :: !listed[2] && !listed[3] ->
           MERGED {
             waker_runs = false;
             change_word(AWAITED, 0);
#ifndef M_RETIRE_WITHOUT_LOCK
             release()
#endif
           };
           break
        :: else ->
#ifndef M_RETIRE_WITHOUT_LOCK
           release()
#else
           skip
#endif
        fi
     od
  od
}
#endif
