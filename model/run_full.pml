/* Everything at once: thread 2 commits to both tiers, adding 1 to X and to element 0; thread 0 commits to elements,
 * adding 8 to element 0; a reader of both tiers; a waiter, who sleeps until X or element 0 / 8 is 1; and the waker.
 * So at every moment, element 0 % 8 == X.
 */

#define WAITING
#define BOTH
#define THREADS 2
#define RESTART goto restart
#include "memory.pml"
#include "waiting.pml"
#include "objects.pml"
#include "elements.pml"
#include "both.pml"
#include "sleeping.pml"

byte done;

inline forget() { d_step { forget_objects(); forget_elements() } }

proctype Both(byte me) {
  OBJECT_LOCALS;
  ELEMENT_LOCALS;
  BOTH_LOCALS;
restart:
  skip;
  forget();
  rv = LOAD(NOW);
  read_object(X);
  put[X] = got + 1;
  join();
  read_joined(0);
  assert(got % 8 + 1 == put[X]);
  put[2] = got + 1;
  commit_both();
  if
  :: won
  :: else -> RESTART
  fi;
  forget();
  done++
}

proctype Elements(byte me) {
  OBJECT_LOCALS;
  ELEMENT_LOCALS;
restart:
  skip;
  forget();
  begin_elements();
  read_element(0);
  put[2] = got + 8;
  commit_elements();
  if
  :: won
  :: else -> RESTART
  fi;
  forget();
  done++
}

proctype Reader(byte me) {
  OBJECT_LOCALS;
  ELEMENT_LOCALS;
  byte x;
restart:
  skip;
  d_step { forget(); x = 0 };
  rv = LOAD(NOW);
#ifdef ELEMENT_FIRST
  join(); read_joined(0); x = got % 8; read_object(X); assert(got == x);
#else
  read_object(X); x = got; join(); read_joined(0); assert(got % 8 == x);
#endif
  d_step { forget(); x = 0 };
  done++
}

proctype Waiter(byte me) {
  OBJECT_LOCALS;
  ELEMENT_LOCALS;
restart:
  skip;
  forget();
  rv = LOAD(NOW);
  read_object(X);
  if
  :: got == 0 ->
     join();
     read_joined(0);
     if
     :: got < 8 -> sleep_until_changed(false); RESTART
     :: else
     fi
  :: else
  fi;
  forget();
  done++
}

init {
  atomic {
    fresh = 3;
    mem[X] = 1;
    mem[Y] = 2;
#if BUFFER > 0
    run Memory();
#endif
    run Elements(0);
    run Waiter(1);
    run Both(2);
    run Waker(3);
    run Reader(4)
  };
  done == 4;
  assert(cell_value[mem[X]] == 1 && mem[VALUE(0)] == 9);
  assert(!sleepers && !(mem[WORD] & PUBLISHING))
}
