/* Who waits. The waiter's body is `or_else(lambda: check(X >= 1), lambda: check(other >= 1))`, where `other` is Y, or
 * element 0 with ELEMENTS; or it needs both (NEEDS_BOTH). One committer changes X, the other one changes `other`,
 * each after a commit to something that nobody reads; unless both are needed, one of the two stays away. The waiter
 * must come to its end, and the thread that wakes must have gone.
 */

#define WAITING
#ifdef ELEMENTS
#define BOTH
#endif
#define RESTART goto restart
#include "memory.pml"
#include "waiting.pml"
#include "objects.pml"
#ifdef ELEMENTS
#include "elements.pml"
#include "both.pml"
#endif
#include "sleeping.pml"

byte done;
bool stays_away[2];

inline forget() {
#ifdef ELEMENTS
  d_step { forget_objects(); forget_elements() }
#else
  forget_objects()
#endif
}

/* Sets X to 1, at once or, with MIXED, in one commit with element 1. */
proctype Variables(byte me) {
  OBJECT_LOCALS;
#ifdef ELEMENTS
  ELEMENT_LOCALS;
  BOTH_LOCALS;
#endif
restart:
  skip;
  forget();
  if
  :: stays_away[0]
  :: else ->
     rv = LOAD(NOW);
     read_object(X);
     put[X] = 1;
#ifdef MIXED
     join();
     read_joined(0);
     put[2] = 1;
     commit_both();
#else
     commit_objects();
#endif
     if
     :: won
     :: else -> RESTART
     fi
  fi;
  forget();
  done++
}

#ifdef ELEMENTS

proctype Elements(byte me) {
  OBJECT_LOCALS;
  ELEMENT_LOCALS;
  byte rounds;
restart:
  skip;
  forget();
  do
  :: rounds == 2 || stays_away[1] -> break
  :: else ->
     begin_elements();
     if
     :: rounds == 0 -> read_element(1); put[3] = 1
     :: else -> read_element(0); put[2] = 1
     fi;
     commit_elements();
     rounds = rounds + won;
     forget()
  od;
  done++
}

#else

proctype Elements(byte me) {
  OBJECT_LOCALS;
  if
  :: stays_away[1]
  :: else ->
restart:
     skip;
     forget();
     rv = LOAD(NOW);
     read_object(Y);
     put[Y] = 1;
     commit_objects();
     if
     :: won
     :: else -> RESTART
     fi
  fi;
  forget();
  done++
}

#endif

inline read_other() {
#ifdef ELEMENTS
  join();
  read_joined(0)
#else
  read_object(Y)
#endif
}

proctype Waiter(byte me) {
  OBJECT_LOCALS;
#ifdef ELEMENTS
  ELEMENT_LOCALS;
#endif
restart:
  skip;
  forget();
  rv = LOAD(NOW);
#ifdef NEEDS_BOTH
  read_object(X);
  if
  :: got == 0 -> sleep_until_changed(false); RESTART
  :: else
  fi;
  read_other();
  if
  :: got == 0 -> sleep_until_changed(false); RESTART
  :: else
  fi;
#else
  if
  :: true ->                       /* X to the left */
     read_object(X);
     if
     :: got == 0 ->
#ifdef M_LEFT_READS_DROPPED
        seen[X] = 0;
#endif
        read_other()
     :: else
     fi
  :: true ->                       /* X to the right */
     read_other();
     if
     :: got == 0 ->
#ifdef M_LEFT_READS_DROPPED
        seen[Y] = 0;
#ifdef ELEMENTS
        took[0] = false;
#endif
#endif
        read_object(X)
     :: else
     fi
  fi;
  if
  :: got == 0 -> sleep_until_changed(false); RESTART
  :: else
  fi;
#endif
  forget()
}

init {
  atomic {
    fresh = 3;
    mem[X] = 1;
    mem[Y] = 2;
#ifndef NEEDS_BOTH
    if
    :: stays_away[0] = true
    :: stays_away[1] = true
    :: true
    fi;
#endif
#if BUFFER > 0
    run Memory();
#endif
    run Elements(0);
    run Waiter(1);
    run Variables(2);
#ifdef ELEMENTS
    run Waker(3);
#endif
#ifdef TWO_WAITERS
    run Waiter(4);
#endif
  };
  done == 2
}
